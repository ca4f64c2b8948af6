package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// SOLJournal is what the treasury's wallet had and spent in SOL. Opening and the totals add up to closing.
type SOLJournal struct {
	Wallet       string     `json:"wallet"`
	Month        string     `json:"month,omitempty" example:"2026-11" doc:"Absent: from the first transaction on"`
	Opening      Money      `json:"opening"`
	Closing      Money      `json:"closing"`
	Transactions int64      `json:"transactions" doc:"That changed what it has"`
	Failed       int64      `json:"failed" doc:"Of them; each cost its fee"`
	Totals       []SOLTotal `json:"totals" doc:"Kinds that do not occur are absent"`
}

// SOLTotal is the sum of one kind of line.
type SOLTotal struct {
	Kind   string `json:"kind" enum:"base_fee,priority_fee,rent_out,rent_back,top_up,sent"`
	Amount Money  `json:"amount" doc:"Negative: the wallet has less for it"`
	Lines  int64  `json:"lines"`
}

// SOLLine is a part of what one final transaction did to the wallet's SOL.
type SOLLine struct {
	At        time.Time  `json:"at"`
	Slot      int64      `json:"slot"`
	Signature string     `json:"signature"`
	Failed    bool       `json:"failed,omitempty" doc:"The transaction failed, and cost its fee"`
	Kind      string     `json:"kind" enum:"base_fee,priority_fee,rent_out,rent_back,top_up,sent"`
	Amount    Money      `json:"amount" doc:"Negative: the wallet has less for it"`
	Account   string     `json:"account,omitempty" doc:"Where it went to or came from, if that is one account"`
	Balance   Money      `json:"balance" doc:"What the transaction left in the wallet"`
	Purpose   string     `json:"purpose,omitempty" enum:"batch,cancellation,sweep" doc:"Absent: none of the platform's own transactions"`
	BatchID   *ids.Batch `json:"batch_id,omitempty"`
	SweepID   *ids.Sweep `json:"sweep_id,omitempty"`
}

// ReconciledWallet is a wallet's SOL, walked from its first transaction.
type ReconciledWallet struct {
	Name         string `json:"name" example:"treasury"`
	Address      string `json:"address"`
	Balance      Money  `json:"balance" doc:"On the chain"`
	Journal      Money  `json:"journal" doc:"That the journal's newest transaction left"`
	Transactions int64  `json:"transactions"`
	Continuous   bool   `json:"continuous" doc:"Each transaction began with what the one before left, and the last left the balance"`
	Behind       bool   `json:"behind" doc:"The history is longer than one run reads, and the next runs go on; nothing is said about continuity until then"`
}
