package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// TokenHolding is a token account of one of the platform's wallets, beside the one account of each wallet that the ledger mirrors.
type TokenHolding struct {
	ID             ids.Holding     `json:"id"`
	Kind           string          `json:"kind" enum:"settlement,foreign" doc:"settlement: of the platform's token, so that what it holds is an open difference until it is explained; foreign: another token, which is information and counted nowhere"`
	Account        string          `json:"account"`
	Wallet         string          `json:"wallet" doc:"Of ours, which owns the account"`
	OrgID          *ids.Org        `json:"org_id,omitempty" doc:"Whose deposit wallet that is; absent: the treasury's"`
	Customer       string          `json:"customer,omitempty" doc:"That organisation's name"`
	Mint           string          `json:"mint"`
	Program        string          `json:"program" enum:"token,token_2022"`
	Decimals       int             `json:"decimals"`
	Amount         string          `json:"amount" doc:"Decimal text, in the token of the account" example:"12.500000"`
	InSuspense     string          `json:"in_suspense" doc:"How much of what arrived there is in suspense: it is one thing seen twice, not more money"`
	Deposits       []ids.Deposit   `json:"deposits" doc:"The arrivals in suspense, newest first, at most 10"`
	Present        bool            `json:"present" doc:"The wallet still had the account when it was last asked"`
	Frozen         bool            `json:"frozen" doc:"The token's issuer lets nothing move"`
	Delegate       string          `json:"delegate,omitempty" doc:"Who else may take tokens from the account"`
	CloseAuthority string          `json:"close_authority,omitempty" doc:"Who else may close the account"`
	FirstSeen      time.Time       `json:"first_seen"`
	LastSeen       time.Time       `json:"last_seen"`
	ChangedAt      *time.Time      `json:"changed_at,omitempty" doc:"When a run last found another amount than the one before it"`
	DifferenceID   *ids.Difference `json:"difference_id,omitempty" doc:"The work item about it, while there is one"`
	Note           string          `json:"note" doc:"Why it is not counted, or what is to be done"`
}

// HoldingsSurvey is how far a run has looked for further token accounts.
type HoldingsSurvey struct {
	Wallets    int   `json:"wallets" doc:"The platform's: the treasury's and every customer's deposit wallet"`
	Asked      int   `json:"asked" doc:"Those whose token accounts this run listed; a full run lists all of them"`
	Settlement int   `json:"settlement" doc:"Further accounts of the platform's token that hold something"`
	Foreign    int   `json:"foreign" doc:"Accounts of other tokens that hold something"`
	LeftOut    int64 `json:"left_out" doc:"Accounts of other tokens beyond the first 200 of a wallet: counted, not listed"`
	TooMany    int   `json:"too_many" doc:"Wallets with more accounts than one answer holds: of them only the accounts of the platform's token were read"`
}
