package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// SuspenseDecision says what becomes of tokens that could not be credited when they came.
type SuspenseDecision struct {
	Outcome string   `json:"outcome" enum:"credited,kept,held" doc:"credited: to a customer's balance; kept: as the platform's own; held: nothing moves, and another decision may follow"`
	OrgID   *ids.Org `json:"org_id,omitempty" doc:"Whom to credit; the organisation whose address they were sent to when absent"`
	Note    string   `json:"note" minLength:"1" maxLength:"500" doc:"Why" example:"The customer asked for it in ticket 1207."`
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
