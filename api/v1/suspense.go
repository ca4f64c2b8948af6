package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// SuspenseDecision says what becomes of tokens that could not be credited when they came.
type SuspenseDecision struct {
	Outcome string   `json:"outcome" enum:"credited,kept,refunded,held" doc:"credited: to a customer's balance; kept: as the platform's own; refunded: sent back to the wallet that it came from, with the next payout run; held: nothing moves, and another decision may follow"`
	OrgID   *ids.Org `json:"org_id,omitempty" doc:"Whom to credit, or in whose name to refund; the organisation whose address they were sent to when absent"`
	Note    string   `json:"note" minLength:"1" maxLength:"500" doc:"Why" example:"The customer asked for it in ticket 1207."`
}

// Refund is how far tokens in suspense have come on their way back.
type Refund struct {
	ID        ids.Withdrawal `json:"id"`
	Address   string         `json:"address" doc:"The wallet that sent the tokens; they go to its associated token account"`
	State     string         `json:"state" enum:"requested,drafted,paid" doc:"requested: waits for a payout run, and another decision takes it back; drafted: in a batch"`
	Attention string         `json:"attention,omitempty" doc:"Why it is not paid yet"`
	BatchID   *ids.Batch     `json:"batch_id,omitempty" doc:"The newest batch that it is in"`
}

// Sweep moves a customer's deposits to the treasury. Nobody's balance changes by it.
type Sweep struct {
	ID          ids.Sweep  `json:"id"`
	OrgID       ids.Org    `json:"org_id"`
	Customer    string     `json:"customer" doc:"The organisation's name"`
	Amount      Money      `json:"amount"`
	State       string     `json:"state" enum:"planned,signed,finalized,failed,frozen"`
	Reason      string     `json:"reason,omitempty" doc:"Why it failed or froze"`
	Attention   string     `json:"attention,omitempty" doc:"What holds it up"`
	Signature   string     `json:"signature,omitempty"`
	PlannedAt   time.Time  `json:"planned_at"`
	EndedAt     *time.Time `json:"ended_at,omitempty"`
	FeeLamports *int64     `json:"fee_lamports,omitempty"`
}
