package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// PayoutRun drafts batches of everything that is payable. What the nonces do not suffice for is drafted as they come free.
type PayoutRun struct {
	ID           ids.PayoutRun `json:"id"`
	Kind         string        `json:"kind" enum:"manual,scheduled,threshold"`
	State        string        `json:"state" enum:"drafting,done,failed"`
	Reason       string        `json:"reason,omitempty" doc:"Why it failed, or what it waits for"`
	ScheduledFor *time.Time    `json:"scheduled_for,omitempty"`
	RequestedBy  string        `json:"requested_by,omitempty" doc:"Name or wallet; absent: by the clock"`
	StartedAt    time.Time     `json:"started_at"`
	FinishedAt   *time.Time    `json:"finished_at,omitempty"`
	Rounds       int           `json:"rounds"`
	BatchCount   int           `json:"batch_count"`
	PayeeCount   int           `json:"payee_count"`
	LeftOutCount int           `json:"left_out_count"`
	Total        Money         `json:"total"`
	Progress     []RunProgress `json:"progress,omitempty" doc:"Its batches by their state; absent in lists"`
	Payees       []RunPayee    `json:"payees,omitempty" doc:"Those left out first; at most 1000; absent in lists and brief answers"`
	Batches      []Batch       `json:"batches,omitempty" doc:"Newest first, at most 200; absent in lists and brief answers"`

	ApproveObstacle string `json:"approve_obstacle,omitempty" doc:"Of a run with drafts: why the caller cannot approve them; absent in lists"`
}

// RunProgress is how many batches of a run are in a state.
type RunProgress struct {
	State        string `json:"state" doc:"As a batch's"`
	BatchCount   int    `json:"batch_count"`
	PayeeCount   int    `json:"payee_count"`
	Total        Money  `json:"total"`
	FeeLamports  int64  `json:"fee_lamports" doc:"Of the transactions that are final, cancellations among them"`
	RentLamports int64  `json:"rent_lamports" doc:"For token accounts that they made"`
}

// RunPayee is what became of a payee in a run: a batch, or the reason why not.
type RunPayee struct {
	OrgID   ids.Org    `json:"org_id"`
	Name    string     `json:"name"`
	Purpose string     `json:"purpose" enum:"earnings,withdrawal,refund"`
	Amount  Money      `json:"amount"`
	BatchID *ids.Batch `json:"batch_id,omitempty"`
	Reason  string     `json:"reason,omitempty"`

	State        string `json:"state" enum:"left_out,draft,approved,signed,sent,cancelling,finalized,failed,frozen,cancelled" doc:"The batch's; left_out: in none"`
	Address      string `json:"address,omitempty" doc:"The wallet that is paid"`
	TokenAccount string `json:"token_account,omitempty"`
	Signature    string `json:"signature,omitempty" doc:"Of the transaction, once signed"`
}

// RunApproval is the outcome of approving a run's drafts together.
type RunApproval struct {
	Approved int `json:"approved" doc:"Batches that are paid now"`
	Waiting  int `json:"waiting" doc:"Batches that another person must approve too"`
}

// PayoutSchedule says when runs begin by themselves: each so many days, or on some weekdays, and when enough is payable.
type PayoutSchedule struct {
	Enabled   bool       `json:"enabled"`
	EveryDays int        `json:"every_days,omitempty" doc:"Counted from starts_on; 0: by weekdays, or not at all"`
	Weekdays  []int      `json:"weekdays,omitempty" doc:"0 is Sunday"`
	At        string     `json:"at" doc:"HH:MM in UTC" example:"06:00"`
	StartsOn  string     `json:"starts_on" doc:"A UTC date" example:"2026-11-01"`
	Threshold *Money     `json:"threshold,omitempty" doc:"A run also begins when so much is payable"`
	NextAt    *time.Time `json:"next_at,omitempty" doc:"The next run by the clock"`
	UpdatedBy string     `json:"updated_by,omitempty"`
	UpdatedAt *time.Time `json:"updated_at,omitempty"`
}

// PayoutScheduleSet replaces the schedule.
type PayoutScheduleSet struct {
	Enabled   bool   `json:"enabled"`
	EveryDays int    `json:"every_days,omitempty" minimum:"0" maximum:"366" doc:"Counted from starts_on; not together with weekdays"`
	Weekdays  []int  `json:"weekdays,omitempty" maxItems:"7" doc:"0 is Sunday"`
	At        string `json:"at" pattern:"^([01][0-9]|2[0-3]):[0-5][0-9]$" patternDescription:"HH:MM" doc:"In UTC" example:"06:00"`
	StartsOn  string `json:"starts_on,omitempty" pattern:"^[0-9]{4}-[0-9]{2}-[0-9]{2}$" patternDescription:"a date" doc:"Today when absent" example:"2026-11-01"`
	Threshold string `json:"threshold,omitempty" maxLength:"30" doc:"Decimal tokens; none when absent" example:"1000"`
}

// BatchCancel drops a batch.
type BatchCancel struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500"`
}

// BatchResolve says how a frozen batch ended, with the transaction that shows it.
type BatchResolve struct {
	Outcome   string `json:"outcome" enum:"paid,not_paid"`
	Signature string `json:"signature" minLength:"64" maxLength:"88" doc:"paid: of the transaction that paid exactly this batch; not_paid: of the one that consumed the batch's nonce and paid none of it. It is read from the chain and checked."`
	Note      string `json:"note" minLength:"1" maxLength:"500" doc:"What was found, for the record"`
}

// BatchResolution is a proposed or confirmed end of a frozen batch.
type BatchResolution struct {
	Outcome     string     `json:"outcome" enum:"paid,not_paid"`
	Signature   string     `json:"signature"`
	Note        string     `json:"note"`
	ProposedBy  string     `json:"proposed_by"`
	ProposedAt  time.Time  `json:"proposed_at"`
	Own         bool       `json:"own" doc:"The caller proposed it, so that another person confirms it"`
	ConfirmedBy string     `json:"confirmed_by,omitempty"`
	ConfirmedAt *time.Time `json:"confirmed_at,omitempty"`
}

// BatchApproval is one person's approval of a batch.
type BatchApproval struct {
	By string    `json:"by" doc:"Name or wallet"`
	At time.Time `json:"at"`
}

// BatchCancellation is the transaction that consumes a batch's nonce so that the batch cannot land any more.
type BatchCancellation struct {
	AskedBy     string     `json:"asked_by,omitempty"`
	AskedAt     time.Time  `json:"asked_at"`
	Signature   string     `json:"signature,omitempty"`
	SentAt      *time.Time `json:"sent_at,omitempty"`
	Slot        *int64     `json:"slot,omitempty" doc:"Once final"`
	FeeLamports *int64     `json:"fee_lamports,omitempty"`
}

// NoncePool is the signer's durable nonces: each live batch holds one.
type NoncePool struct {
	Free      int     `json:"free"`
	Held      int     `json:"held"`
	Unusable  int     `json:"unusable"`
	Warning   string  `json:"warning,omitempty" doc:"What is wrong with the pool and what to do"`
	RentTotal int64   `json:"rent_lamports" doc:"Set aside on the chain in the nonce accounts; it comes back when they are closed"`
	Nonces    []Nonce `json:"nonces"`

	FeePayer FeePayer `json:"fee_payer"`
}

// FeePayer is the treasury's wallet, which pays SOL for transactions and for the token accounts that they make.
type FeePayer struct {
	Address      string `json:"address,omitempty" doc:"Absent while the signer does not answer"`
	Lamports     *int64 `json:"lamports,omitempty" doc:"What it has; absent while the chain does not answer"`
	Days         int    `json:"days" doc:"That the next two cover"`
	FeeLamports  int64  `json:"fee_lamports" doc:"Paid for payouts and cancellations"`
	RentLamports int64  `json:"rent_lamports" doc:"Paid for token accounts of payees"`
	Warning      string `json:"warning,omitempty" doc:"What is wrong and what to do"`
}

// Nonce is one durable nonce account.
type Nonce struct {
	Account   string     `json:"account"`
	State     string     `json:"state" enum:"free,held,unusable"`
	BatchID   *ids.Batch `json:"batch_id,omitempty" doc:"That holds it"`
	Value     string     `json:"value,omitempty" doc:"When it was last read"`
	Problem   string     `json:"problem,omitempty"`
	CheckedAt *time.Time `json:"checked_at,omitempty"`
}

// WithdrawalCreate sends prepaid balance back to the organisation's own wallet.
type WithdrawalCreate struct {
	Amount  string `json:"amount" minLength:"1" maxLength:"30" doc:"Decimal tokens" example:"25.5"`
	Address string `json:"address" minLength:"32" maxLength:"44" doc:"The organisation's payout address, as a check: no other is possible"`
}

// Withdrawal is prepaid balance on its way back, or tokens that could not be credited. It goes out with the next payout run.
type Withdrawal struct {
	ID          ids.Withdrawal `json:"id"`
	Purpose     string         `json:"purpose" enum:"withdrawal,refund"`
	State       string         `json:"state" enum:"requested,drafted,paid,cancelled" doc:"requested: waits for a payout run; drafted: in a batch"`
	Attention   string         `json:"attention,omitempty" doc:"Why it is not paid yet"`
	Amount      Money          `json:"amount"`
	Address     string         `json:"address"`
	RequestedBy string         `json:"requested_by,omitempty"`
	RequestedAt time.Time      `json:"requested_at"`
	EndedAt     *time.Time     `json:"ended_at,omitempty"`
	BatchID     *ids.Batch     `json:"batch_id,omitempty"`
	Signature   string         `json:"signature,omitempty"`
}
