package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// Reconciliation compares the ledger with the chain.
type Reconciliation struct {
	ID              ids.Reconciliation  `json:"id"`
	StartedAt       time.Time           `json:"started_at"`
	FinishedAt      *time.Time          `json:"finished_at,omitempty"`
	State           string              `json:"state" enum:"running,clean,differences,behind,failed" doc:"behind: all else was compared, and the SOL of the wallets is still being read"`
	Reason          string              `json:"reason,omitempty"`
	Slot            int64               `json:"slot" doc:"The chain was read up to here"`
	Matched         int                 `json:"matched" doc:"Transfers found on both sides"`
	Accounts        []ReconciledAccount `json:"accounts,omitempty" doc:"Absent in lists"`
	Wallets         []ReconciledWallet  `json:"wallets,omitempty" doc:"SOL of the wallets that pay for transactions; absent in lists"`
	Differences     []Difference        `json:"differences,omitempty" doc:"Absent in lists"`
	DifferenceCount int                 `json:"difference_count"`
	Holdings        *HoldingsSurvey     `json:"holdings,omitempty" doc:"How far it looked for further token accounts; absent in lists"`
}

// ReconciledAccount is one token account, walked from its first transaction.
type ReconciledAccount struct {
	Name          string `json:"name" doc:"treasury, or whose deposit account"`
	Address       string `json:"address"`
	In            Money  `json:"in"`
	Out           Money  `json:"out"`
	ChainClosing  Money  `json:"chain_closing"`
	LedgerClosing Money  `json:"ledger_closing"`
	Transactions  int    `json:"transactions"`
	Continuous    bool   `json:"continuous" doc:"Each transaction began with the balance that the one before left"`
}

// Difference is one disagreement.
type Difference struct {
	Class     string    `json:"class" enum:"ledger_only,chain_only,amount_mismatch,duplicate,unresolved_nonce"`
	Account   string    `json:"account"`
	Signature string    `json:"signature,omitempty"`
	Ledger    *Money    `json:"ledger,omitempty"`
	Chain     *Money    `json:"chain,omitempty"`
	At        time.Time `json:"at"`
	Text      string    `json:"text"`
}

// DifferenceItem is a difference across runs: one that is known is not counted anew.
type DifferenceItem struct {
	ID ids.Difference `json:"id"`
	Difference
	State      string             `json:"state" enum:"open,resolved,gone" doc:"gone: runs do not find it any more"`
	Present    bool               `json:"present" doc:"The newest run found it"`
	Entry      string             `json:"entry,omitempty" doc:"The ledger entry it is about"`
	OwnerID    *ids.User          `json:"owner_id,omitempty" doc:"Who looks into it"`
	Owner      string             `json:"owner,omitempty" doc:"That person's name"`
	Note       string             `json:"note,omitempty"`
	Resolution string             `json:"resolution,omitempty" enum:"posted_correction,chain_explained,waived"`
	Reason     string             `json:"reason,omitempty" doc:"Of the resolution"`
	ResolvedBy string             `json:"resolved_by,omitempty"`
	FirstSeen  time.Time          `json:"first_seen"`
	LastSeen   time.Time          `json:"last_seen"`
	Changes    []DifferenceChange `json:"changes,omitempty" doc:"Oldest first; absent in lists"`
}

// DifferenceChange is what a person or a run did about a difference.
type DifferenceChange struct {
	At               time.Time           `json:"at"`
	By               string              `json:"by,omitempty" doc:"A person; absent when it was a run"`
	ReconciliationID *ids.Reconciliation `json:"reconciliation_id,omitempty"`
	What             string              `json:"what"`
}

// DifferenceUpdate changes what is known about a difference. Absent fields stay.
type DifferenceUpdate struct {
	Take       *bool   `json:"take,omitempty" doc:"true: the caller looks into it; false: nobody does"`
	Note       *string `json:"note,omitempty" maxLength:"2000"`
	Resolution *string `json:"resolution,omitempty" enum:",posted_correction,chain_explained,waived" doc:"Empty: open it again"`
	Reason     string  `json:"reason,omitempty" maxLength:"2000" doc:"Of the resolution; it needs one"`
}

// ClosedPeriod is a month whose figures are frozen.
type ClosedPeriod struct {
	Month            string             `json:"month" example:"2026-11"`
	State            string             `json:"state" enum:"closed,reopened"`
	ClosedAt         time.Time          `json:"closed_at"`
	ClosedBy         string             `json:"closed_by"`
	ReconciliationID ids.Reconciliation `json:"reconciliation_id"`
	SHA256           string             `json:"sha256" doc:"Of the figures, in hexadecimal"`
	Entries          int64              `json:"entries"`
	Debits           Money              `json:"debits"`
	Credits          Money              `json:"credits"`
	Intact           *bool              `json:"intact,omitempty" doc:"The ledger still says the same; absent in lists"`
	ReopenReason     string             `json:"reopen_reason,omitempty" doc:"Somebody has asked to open it again"`
	ReopenAskedBy    string             `json:"reopen_asked_by,omitempty"`
	ReopenedBy       string             `json:"reopened_by,omitempty"`
	ReopenedAt       *time.Time         `json:"reopened_at,omitempty"`

	Accounts []PeriodAccount `json:"accounts,omitempty" doc:"The frozen figures by the chart of accounts; absent in lists. The report has them by organisation"`
}

// PeriodAccount is one account of the chart of accounts in a closed month, over all organisations. Balances are in the account's own sense.
type PeriodAccount struct {
	Code          string `json:"code" example:"2010"`
	Name          string `json:"name" example:"Customer balances"`
	Organisations int    `json:"organisations" doc:"That have such an account; 0: the platform's own"`
	Opening       Money  `json:"opening"`
	Debits        Money  `json:"debits"`
	Credits       Money  `json:"credits"`
	Closing       Money  `json:"closing"`
}

// PeriodClose names a month to close.
type PeriodClose struct {
	Month string `json:"month" pattern:"^\\d{4}-\\d{2}$" patternDescription:"a month" example:"2026-11"`
}

// PeriodReopen asks for a month to be opened again, or agrees with who has asked.
type PeriodReopen struct {
	Reason string `json:"reason" minLength:"1" maxLength:"2000"`
}

// AuditLine is a line of the audit log. Each hash covers the line and the hash before.
type AuditLine struct {
	Seq     int64     `json:"seq"`
	At      time.Time `json:"at"`
	By      string    `json:"by,omitempty" doc:"A person; absent when it was the platform"`
	Action  string    `json:"action"`
	Subject string    `json:"subject"`
	Details string    `json:"details" doc:"JSON"`
	Hash    string    `json:"hash" doc:"In hexadecimal"`
}
