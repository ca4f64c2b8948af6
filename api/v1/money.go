package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// Wallet is an organisation's prepaid balance.
type Wallet struct {
	Available           Money  `json:"available"`
	Held                Money  `json:"held" doc:"Set aside for running clusters"`
	SpendPerHour        Money  `json:"spend_per_hour" doc:"Of everything running now"`
	DepositAddress      string `json:"deposit_address" doc:"Wallet address; a transfer of the right token to it is credited once final"`
	DepositTokenAccount string `json:"deposit_token_account" doc:"The wallet's token account, for senders that want it"`
	SolanaPayURL        string `json:"solana_pay_url"`
	MinimumDeposit      Money  `json:"minimum_deposit" doc:"Less goes to suspense"`
	MinimumWithdrawal   Money  `json:"minimum_withdrawal" doc:"Less is not sent out"`
}

// WalletLine is one movement of the available or held balance, in plain words.
type WalletLine struct {
	ID        ids.Transfer `json:"id"`
	At        time.Time    `json:"at"`
	Kind      string       `json:"kind" doc:"deposit, hold, charge, release, payout, ..."`
	Text      string       `json:"text"`
	Account   string       `json:"account" doc:"available, held, payable"`
	Amount    Money        `json:"amount" doc:"Signed: negative leaves the account"`
	Balance   Money        `json:"balance" doc:"Of the account after it"`
	ClusterID *ids.Cluster `json:"cluster_id,omitempty"`
	Signature string       `json:"signature,omitempty" doc:"Of the chain transaction"`
}

// Deposit is an incoming transfer that was seen.
type Deposit struct {
	ID        ids.Deposit `json:"id"`
	At        time.Time   `json:"at"`
	Amount    string      `json:"amount" doc:"Decimal text, in the token that came"`
	Mint      string      `json:"mint"`
	State     string      `json:"state" enum:"credited,suspense,capital" doc:"capital: the platform's own tokens, arrived at the treasury"`
	Reason    string      `json:"reason,omitempty" doc:"Why it is in suspense"`
	Signature string      `json:"signature"`
	Customer  string      `json:"customer,omitempty" doc:"The organisation whose address it was sent to; absent if that is the treasury's"`
	Sender    string      `json:"sender,omitempty" doc:"The wallet that it came from, where that is one and known"`
	Outcome   string      `json:"outcome,omitempty" enum:"credited,kept,refunded,held" doc:"What was decided about one in suspense; absent while it waits"`
	Note      string      `json:"note,omitempty" doc:"Why so; only to the platform's finance"`
	DecidedBy string      `json:"decided_by,omitempty" doc:"Who decided so; only to the platform's finance"`
	DecidedAt *time.Time  `json:"decided_at,omitempty"`
	Refund    *Refund     `json:"refund,omitempty" doc:"Of a refunded one"`
}

// FaucetRequest asks for test tokens, on a local network only.
type FaucetRequest struct {
	Amount string `json:"amount" doc:"Decimal tokens, at most 10000" example:"100" minLength:"1" maxLength:"20"`
}

// FaucetResult is the transfer to the organisation's deposit address.
type FaucetResult struct {
	Signature string `json:"signature"`
	Amount    Money  `json:"amount"`
}

// PayableSummary is what a payout run would pay now.
type PayableSummary struct {
	Total    Money   `json:"total"`
	Minimum  Money   `json:"minimum" doc:"Smaller balances wait"`
	Payees   []Payee `json:"payees"`
	LeftOut  []Payee `json:"left_out" doc:"With the reason"`
	Treasury *Money  `json:"treasury,omitempty" doc:"The treasury's live balance on chain; absent while the chain does not answer"`
}

// Payee is one payee of the next payout run.
type Payee struct {
	OrgID   ids.Org `json:"org_id"`
	Name    string  `json:"name"`
	Purpose string  `json:"purpose" enum:"earnings,withdrawal,refund"`
	Address string  `json:"address,omitempty"`
	Amount  Money   `json:"amount"`
	Reason  string  `json:"reason,omitempty"`
}

// Batch is the payouts of one chain transaction.
type Batch struct {
	ID              ids.Batch          `json:"id"`
	State           string             `json:"state" doc:"draft, approved, signed, sent, cancelling, finalized, failed, frozen, cancelled"`
	StateReason     string             `json:"state_reason,omitempty"`
	RunID           *ids.PayoutRun     `json:"run_id,omitempty"`
	Total           Money              `json:"total"`
	PayeeCount      int                `json:"payee_count"`
	CreatedAt       time.Time          `json:"created_at"`
	DraftedBy       string             `json:"drafted_by,omitempty" doc:"Name or wallet"`
	ApprovedBy      string             `json:"approved_by,omitempty"`
	ApprovedAt      *time.Time         `json:"approved_at,omitempty"`
	SentAt          *time.Time         `json:"sent_at,omitempty"`
	FinalizedAt     *time.Time         `json:"finalized_at,omitempty"`
	Signature       string             `json:"signature,omitempty"`
	Slot            *int64             `json:"slot,omitempty"`
	FeeLamports     *int64             `json:"fee_lamports,omitempty"`
	NonceAccount    string             `json:"nonce_account,omitempty"`
	NonceValue      string             `json:"nonce_value,omitempty"`
	RentLamports    *int64             `json:"rent_lamports,omitempty" doc:"For token accounts that it made"`
	Memo            string             `json:"memo,omitempty" doc:"What the transaction says: the batch's id and the root of its manifest"`
	ApprovalsNeeded int                `json:"approvals_needed" doc:"By how many people; who drafted it is not one of them"`
	Approvals       []BatchApproval    `json:"approvals,omitempty" doc:"Absent in lists"`
	ApproveObstacle string             `json:"approve_obstacle,omitempty" doc:"Of a draft: why the caller cannot approve it; absent in lists"`
	NonceConsumedAt *time.Time         `json:"nonce_consumed_at,omitempty" doc:"When the nonce was seen to be consumed; after that nothing more of the batch can land"`
	Cancellation    *BatchCancellation `json:"cancellation,omitempty" doc:"Absent in lists"`
	Resolution      *BatchResolution   `json:"resolution,omitempty" doc:"Absent in lists"`
	Payouts         []Payout           `json:"payouts,omitempty" doc:"Absent in lists"`
}

// Payout is an amount for one payee.
type Payout struct {
	ID           ids.Payout `json:"id"`
	BatchID      ids.Batch  `json:"batch_id"`
	OrgID        ids.Org    `json:"org_id"`
	Payee        string     `json:"payee" doc:"The owner's name"`
	Address      string     `json:"address" doc:"The payee's wallet"`
	TokenAccount string     `json:"token_account"`
	Amount       Money      `json:"amount"`
	Purpose      string     `json:"purpose" enum:"earnings,withdrawal,refund"`
	State        string     `json:"state" doc:"The batch's"`
	Signature    string     `json:"signature,omitempty"`
	FinalizedAt  *time.Time `json:"finalized_at,omitempty"`
}
