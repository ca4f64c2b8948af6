package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// Statement is what happened to a customer's money in a period. Opening balance and lines come to the closing balance, exactly.
type Statement struct {
	Period
	Opening    StatementBalance    `json:"opening"`
	Closing    StatementBalance    `json:"closing"`
	Totals     StatementTotals     `json:"totals"`
	Clusters   []StatementCluster  `json:"clusters" doc:"What was charged, and what was not"`
	Movements  []StatementMovement `json:"movements" doc:"Deposits, withdrawals and whatever else moved into or out of the balance"`
	Holds      []StatementMovement `json:"holds" doc:"Set aside for bookings, and given back: moves within the balance"`
	ChargeDays int                 `json:"charge_days" doc:"Rows that the FOCUS export of the period has for usage"`
}

// Period is whose statement it is, and of when.
type Period struct {
	OrgID  ids.Org   `json:"org_id"`
	Name   string    `json:"name" doc:"Of the organisation"`
	From   time.Time `json:"from"`
	To     time.Time `json:"to" doc:"Exclusive"`
	MadeAt time.Time `json:"made_at" doc:"What was posted later is not in it"`
	Open   bool      `json:"open" doc:"The period had not ended when the statement was made"`
}

// StatementBalance is a prepaid balance at a moment.
type StatementBalance struct {
	Available Money `json:"available"`
	Held      Money `json:"held"`
	Total     Money `json:"total"`
}

// StatementTotals sum a customer's statement up. Opening + deposits - withdrawals - charges + credits + other is closing.
type StatementTotals struct {
	Deposits        Money  `json:"deposits"`
	Withdrawals     Money  `json:"withdrawals"`
	Charges         Money  `json:"charges"`
	Credits         Money  `json:"credits" doc:"Money given back by the platform or an owner"`
	Other           Money  `json:"other" doc:"Signed"`
	NotCharged      Money  `json:"not_charged" doc:"What the time that was not delivered would have cost; it never left the balance"`
	GPUMilliseconds int64  `json:"gpu_ms"`
	GPUHours        string `json:"gpu_hours" doc:"Decimal text"`
}

// StatementCluster is one cluster's part of a statement.
type StatementCluster struct {
	ClusterID       ids.Cluster       `json:"cluster_id"`
	Name            string            `json:"name"`
	GPUModel        string            `json:"gpu_model"`
	GPUMilliseconds int64             `json:"gpu_ms"`
	GPUHours        string            `json:"gpu_hours"`
	Charged         Money             `json:"charged"`
	NotCharged      Money             `json:"not_charged"`
	Leases          []StatementLease  `json:"leases"`
	Credits         []StatementCredit `json:"credits" doc:"Time that was not delivered and so not charged, with the party at fault"`
}

// StatementLease is one GPU's part of a cluster.
type StatementLease struct {
	LeaseID         ids.Lease `json:"lease_id"`
	HostID          ids.Host  `json:"host_id"`
	Region          string    `json:"region"`
	PricePerGPUHour Money     `json:"price_per_gpu_hour"`
	GPUMilliseconds int64     `json:"gpu_ms"`
	GPUHours        string    `json:"gpu_hours"`
	Charged         Money     `json:"charged"`
}

// StatementCredit is a stretch of a lease that was not charged, because the cluster was not what had been booked.
type StatementCredit struct {
	LeaseID         ids.Lease `json:"lease_id"`
	From            time.Time `json:"from"`
	To              time.Time `json:"to"`
	GPUMilliseconds int64     `json:"gpu_ms"`
	Amount          Money     `json:"amount" doc:"What it would have cost"`
	FaultParty      string    `json:"fault_party" enum:"owner,platform,customer,funds,preempted"`
	Reason          string    `json:"reason"`
}

// StatementMovement is one movement of a balance.
type StatementMovement struct {
	ID        ids.Transfer `json:"id"`
	At        time.Time    `json:"at"`
	Kind      string       `json:"kind" doc:"deposit, withdrawal, credit, hold, release, payout, ..."`
	Text      string       `json:"text"`
	Amount    Money        `json:"amount" doc:"Signed: negative leaves the balance; for holds what is set aside is positive"`
	ClusterID *ids.Cluster `json:"cluster_id,omitempty"`
	BatchID   *ids.Batch   `json:"batch_id,omitempty" doc:"The payout that paid a withdrawal, once it is final"`
	Signature string       `json:"signature,omitempty" doc:"Of the chain transaction"`
}

// EarningsStatement is what an owner's hosts earned in a period, and what was paid out. Opening and lines come to the closing balance,
// exactly.
type EarningsStatement struct {
	Period
	Opening   EarningsBalance     `json:"opening"`
	Closing   EarningsBalance     `json:"closing"`
	Totals    EarningsTotals      `json:"totals"`
	Hosts     []EarningsLineHost  `json:"hosts"`
	Payouts   []EarningsPayout    `json:"payouts" doc:"Those that moved money in the period"`
	Movements []StatementMovement `json:"movements" doc:"Whatever else moved the balance"`
}

// EarningsBalance is what an owner is owed at a moment.
type EarningsBalance struct {
	Payable  Money `json:"payable"`
	InFlight Money `json:"in_flight" doc:"In payouts that were not final"`
	Total    Money `json:"total"`
}

// EarningsTotals sum an owner's statement up. Opening + net - paid + other is closing.
type EarningsTotals struct {
	Gross           Money  `json:"gross" doc:"What customers were charged"`
	Fee             Money  `json:"fee" doc:"The platform's part of it"`
	Net             Money  `json:"net"`
	Paid            Money  `json:"paid" doc:"Final on chain"`
	Other           Money  `json:"other" doc:"Signed"`
	NotEarned       Money  `json:"not_earned" doc:"What the time that was not delivered would have been charged"`
	GPUMilliseconds int64  `json:"gpu_ms"`
	GPUHours        string `json:"gpu_hours"`
}

// EarningsLineHost is one host's part of an owner's statement.
type EarningsLineHost struct {
	HostID          ids.Host          `json:"host_id"`
	Name            string            `json:"name"`
	GPUMilliseconds int64             `json:"gpu_ms"`
	GPUHours        string            `json:"gpu_hours"`
	Gross           Money             `json:"gross"`
	Fee             Money             `json:"fee"`
	Net             Money             `json:"net"`
	NotEarned       Money             `json:"not_earned"`
	Leases          []EarningsLease   `json:"leases"`
	Credits         []StatementCredit `json:"credits" doc:"Time that customers did not get from this host"`
}

// EarningsLease is one lease of a host's GPU.
type EarningsLease struct {
	LeaseID         ids.Lease `json:"lease_id"`
	GPUModel        string    `json:"gpu_model"`
	PricePerGPUHour Money     `json:"price_per_gpu_hour"`
	FeeBps          int       `json:"fee_bps" doc:"Frozen when the lease was made"`
	GPUMilliseconds int64     `json:"gpu_ms"`
	GPUHours        string    `json:"gpu_hours"`
	Gross           Money     `json:"gross"`
	Fee             Money     `json:"fee"`
	Net             Money     `json:"net"`
}

// EarningsPayout is what one batch moved of an owner's money in a period.
type EarningsPayout struct {
	BatchID   *ids.Batch `json:"batch_id,omitempty"`
	At        time.Time  `json:"at"`
	Kind      string     `json:"kind" enum:"payout_reserve,payout_paid,payout_return" doc:"Put into a payout, paid on chain, or taken back from one that did not happen"`
	Amount    Money      `json:"amount"`
	Signature string     `json:"signature,omitempty"`
}

// FeeRate is one row of the platform's fee schedule.
type FeeRate struct {
	OrgID        *ids.Org  `json:"org_id,omitempty" doc:"For the bookings of one customer; absent: for everybody else's"`
	Organisation string    `json:"organisation,omitempty"`
	FeeBps       int       `json:"fee_bps" doc:"Basis points of what the customer pays"`
	Percent      string    `json:"percent" example:"2.50"`
	ValidFrom    time.Time `json:"valid_from"`
	State        string    `json:"state" enum:"past,current,coming"`
	Note         string    `json:"note,omitempty"`
	CreatedAt    time.Time `json:"created_at"`
	CreatedBy    string    `json:"created_by,omitempty" doc:"Name or wallet; absent for the configured first row"`
}

// FeeCreate adds a row to the fee schedule. What has been booked keeps its fee.
type FeeCreate struct {
	OrgID     *ids.Org   `json:"org_id,omitempty" doc:"Only for the bookings of this customer"`
	FeeBps    int        `json:"fee_bps" minimum:"0" maximum:"10000" doc:"Basis points of what the customer pays"`
	ValidFrom *time.Time `json:"valid_from,omitempty" doc:"Now when absent; never in the past"`
	Note      string     `json:"note,omitempty" maxLength:"200" doc:"Why, for the next reader"`
}
