package proof

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// Version is the manifest form that this package writes and reads.
const Version = 1

// MaxDocument bounds a manifest's JSON.
const MaxDocument = 64 << 20

// The purposes of payouts. Only earnings come from usage.
const (
	PurposeEarnings   = "earnings"
	PurposeWithdrawal = "withdrawal" // a customer's prepaid balance, back to its wallet
	PurposeRefund     = "refund"     // tokens that could not be credited, back to where they came from
)

// The states of a published manifest.
const (
	StatePending = "pending" // no transaction is final yet
	StatePaid    = "paid"
	StateVoid    = "void" // nothing was paid, and nothing will be: its records are in a later manifest
)

// Manifest says what a batch pays, and for what.
type Manifest struct {
	Head
	Payouts []Payout `json:"payouts"`
}

// Head is a manifest without its payouts, the tree's first leaf.
type Head struct {
	Version  int       `json:"version"`
	Network  string    `json:"network"`  // the cluster's genesis hash
	Mint     string    `json:"mint"`     // the token
	Treasury string    `json:"treasury"` // the token account that pays
	Batch    ids.Batch `json:"batch"`
	Sequence int64     `json:"sequence"` // counts manifests from 1
	Previous string    `json:"previous"` // the root of the manifest before, empty in the first
}

// Payout is one payee's part.
type Payout struct {
	ID           ids.Payout   `json:"payout"`
	Purpose      string       `json:"purpose"`
	Wallet       string       `json:"wallet"`
	TokenAccount string       `json:"token_account"`
	Amount       money.Amount `json:"amount,string"`
	Records      []Record     `json:"records"`
	Adjustments  []Adjustment `json:"adjustments"`
}

// Record is a piece of a lease's billed time. The milliseconds and charges count from the lease's beginning.
type Record struct {
	Lease         ids.Lease    `json:"lease"`
	From          time.Time    `json:"from"` // when the piece's first charge was posted
	To            time.Time    `json:"to"`   // and the last
	FromMS        int64        `json:"from_ms"`
	ToMS          int64        `json:"to_ms"`
	Price         money.Amount `json:"price_per_gpu_hour,string"`
	FeeBPS        int          `json:"fee_bps"`
	ChargedBefore money.Amount `json:"charged_before,string"`
	ChargedAfter  money.Amount `json:"charged_after,string"`
	Amount        money.Amount `json:"amount,string"` // the owner's
}

// Adjustment is a part of an amount that is no charge for usage: a correction by hand, or a credit. It may be negative.
type Adjustment struct {
	At     time.Time    `json:"at"`
	Memo   string       `json:"memo"`
	Amount money.Amount `json:"amount,string"`
}

// Published is a manifest as it is served, and as a directory of files holds it.
type Published struct {
	Manifest  Manifest   `json:"manifest"`
	Root      string     `json:"root"`
	State     string     `json:"state"`
	Signature string     `json:"signature,omitempty"` // of the transaction that paid it
	PaidAt    *time.Time `json:"paid_at,omitempty"`   // the block's time
	SealedAt  time.Time  `json:"sealed_at"`
}

// Summary is a published manifest in a list.
type Summary struct {
	Batch     ids.Batch  `json:"batch"`
	Sequence  int64      `json:"sequence"`
	Root      string     `json:"root"`
	Previous  string     `json:"previous"`
	State     string     `json:"state"`
	Signature string     `json:"signature,omitempty"`
	PaidAt    *time.Time `json:"paid_at,omitempty"`
	SealedAt  time.Time  `json:"sealed_at"`
}

// Summary is the manifest's line in a list.
func (p *Published) Summary() Summary {
	return Summary{
		Batch: p.Manifest.Batch, Sequence: p.Manifest.Sequence, Root: p.Root, Previous: p.Manifest.Previous,
		State: p.State, Signature: p.Signature, PaidAt: p.PaidAt, SealedAt: p.SealedAt,
	}
}

// Document is the manifest's canonical JSON.
func (m *Manifest) Document() ([]byte, error) { return canonical(m) }

// Leaves are the tree's leaves, before hashing.
func (m *Manifest) Leaves() ([][]byte, error) {
	leaves := make([][]byte, 0, 1+len(m.Payouts))
	head, err := canonical(m.Head)
	if err != nil {
		return nil, err
	}
	leaves = append(leaves, head)
	for i := range m.Payouts {
		leaf, err := canonical(&m.Payouts[i])
		if err != nil {
			return nil, err
		}
		leaves = append(leaves, leaf)
	}
	return leaves, nil
}

// Root is the tree's root.
func (m *Manifest) Root() (Root, error) {
	leaves, err := m.Leaves()
	if err != nil {
		return Root{}, err
	}
	return rootOf(leaves)
}

func canonical(value any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}

// Root is a Merkle root.
type Root [32]byte

// String is the root as memos and manifests have it.
func (r Root) String() string { return base64.RawURLEncoding.EncodeToString(r[:]) }

// ParseRoot reads a root's text.
func ParseRoot(text string) (root Root, err error) {
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(decoded) != len(root) {
		return Root{}, fmt.Errorf("%q is not a Merkle root of %d characters of base64url", text, base64.RawURLEncoding.EncodedLen(len(root)))
	}
	return Root(decoded), nil
}

// Memo is the memo of the transaction that pays a batch.
func Memo(batch ids.Batch, root Root) string { return batch.String() + " " + root.String() }

var errNoMemo = errors.New("the memo names no manifest")

// ParseMemo reads a memo that Memo made.
func ParseMemo(memo string) (batch ids.Batch, root Root, err error) {
	name, text, found := strings.Cut(memo, " ")
	if !found || batch.UnmarshalText([]byte(name)) != nil || batch.IsZero() {
		return ids.Batch{}, Root{}, errNoMemo
	}
	if root, err = ParseRoot(text); err != nil {
		return ids.Batch{}, Root{}, errNoMemo
	}
	return batch, root, nil
}
