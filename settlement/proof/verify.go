package proof

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// Chain is what verification reads of the cluster. *chain.Client is one.
type Chain interface {
	GenesisHash(ctx context.Context) (chain.Hash, error)
	TokenBalance(ctx context.Context, tokenAccount chain.Address, minSlot chain.Slot) (chain.Balance, error)
	Walk(ctx context.Context, tokenAccount chain.Address, span chain.Span, visit func(chain.Movement) error) error
}

// ErrNoManifest means that a source has no manifest of a batch.
var ErrNoManifest = errors.New("there is no manifest of this batch")

// Source is where manifests come from.
type Source interface {
	// Manifest returns a batch's manifest, or ErrNoManifest.
	Manifest(ctx context.Context, batch ids.Batch) (*Published, error)
	// List visits all manifests in the order of their numbers.
	List(ctx context.Context, visit func(Summary) error) error
}

// The kinds of difference.
const (
	UnexplainedTransfer = "unexplained_transfer" // tokens left without a manifest
	MissingManifest     = "missing_manifest"
	AlteredManifest     = "altered_manifest" // its root is not the memo's
	ForeignManifest     = "foreign_manifest" // it is of another treasury, token, network or batch
	DuplicatePayment    = "duplicate_payment"
	ExtraPayee          = "extra_payee"
	MissingPayee        = "missing_payee"
	WrongAmount         = "wrong_amount"
	WrongWallet         = "wrong_wallet"
	WrongSum            = "wrong_sum"    // a payout is not the sum of what it lists
	WrongRecord         = "wrong_record" // a record's figures contradict each other
	ReusedRecord        = "reused_record"
	MissingRecord       = "missing_record" // of a lease's time, a piece between two records is paid by none
	BrokenChain         = "broken_chain"   // of manifests
	MissingTransaction  = "missing_transaction"
	WrongState          = "wrong_state"    // what is published of a batch's state is not what the chain shows, or is none
	BrokenHistory       = "broken_history" // the chain's history of the account has a hole
)

// Difference is the first thing that does not fit.
type Difference struct { //nolint:errname // it is a part of the report first, and an error on the way there
	Kind      string        `json:"kind"`
	Text      string        `json:"text"`
	Batch     ids.Batch     `json:"batch,omitzero"`
	Signature string        `json:"signature,omitempty"`
	At        time.Time     `json:"at,omitzero"`
	Chain     *money.Amount `json:"chain_base_units,omitempty"`    // what the chain moved
	Manifest  *money.Amount `json:"manifest_base_units,omitempty"` // what the manifest says
}

// Error implements error.
func (d *Difference) Error() string { return d.Text }

// Report is what a verification covered.
type Report struct {
	Verified     bool          `json:"verified"`
	Difference   *Difference   `json:"difference,omitempty"`
	Network      string        `json:"network"`
	Treasury     string        `json:"treasury"` // the token account
	Mint         string        `json:"mint"`
	From         time.Time     `json:"from,omitzero"` // the period that was asked for
	To           time.Time     `json:"to,omitzero"`
	Slot         uint64        `json:"slot"` // the chain was read up to here
	Transactions int           `json:"transactions"`
	Opening      money.Amount  `json:"opening_base_units"`
	In           money.Amount  `json:"in_base_units"`
	Out          money.Amount  `json:"out_base_units"`
	Closing      money.Amount  `json:"closing_base_units"`
	Batches      int           `json:"batches"`
	Payouts      int           `json:"payouts"`
	Earnings     money.Amount  `json:"earnings_base_units"`
	Withdrawals  money.Amount  `json:"withdrawals_base_units"` // and refunds
	Records      int           `json:"usage_records"`
	Usage        time.Duration `json:"usage_ns"`
	Adjustments  int           `json:"adjustments"`
	Adjusted     money.Amount  `json:"adjusted_base_units"`
	Pending      int           `json:"pending_manifests"`
}

// Options say what to verify.
type Options struct {
	Treasury chain.Address // the token account
	Span     chain.Span
	// Progress is told of each batch that was checked. May be nil.
	Progress func(Checked)
}

// Checked is a batch that fits.
type Checked struct {
	Batch     ids.Batch
	Sequence  int64
	Signature string
	At        time.Time
	Payouts   int
	Amount    money.Amount
}

// Verify compares the treasury's transactions in a period with the manifests. A difference is in the report and not an error: an error
// means that the comparison could not be made.
func Verify(ctx context.Context, cluster Chain, source Source, options Options) (Report, error) {
	genesis, err := cluster.GenesisHash(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("ask the chain which one it is: %w", err)
	}
	v := &verifier{
		source: source, options: options,
		report: Report{Network: genesis.String(), Treasury: options.Treasury.String(), From: options.Span.From, To: options.Span.To},
		paid:   map[ids.Batch]payment{}, leases: map[ids.Lease]leaseEnd{},
	}
	err = v.run(ctx, cluster)
	var difference *Difference
	if errors.As(err, &difference) {
		v.report.Difference = difference
		return v.report, nil
	}
	v.report.Verified = err == nil
	return v.report, err
}

type verifier struct {
	source  Source
	options Options
	report  Report
	started bool // the first movement was seen
	last    uint64
	paid    map[ids.Batch]payment
	leases  map[ids.Lease]leaseEnd
}

// payment is a batch that the chain shows, and the place that its manifest says it has among all.
type payment struct {
	signature chain.Signature
	root      Root
	sequence  int64
	previous  string
}

func (v *verifier) run(ctx context.Context, cluster Chain) error {
	// Read before the balance, so that the walk shows each batch that is published as paid, and each batch that it shows is listed.
	var listed []Summary
	err := v.source.List(ctx, func(s Summary) error {
		listed = append(listed, s)
		return nil
	})
	if err != nil {
		return err
	}
	// Read before the walk, so that the walk can be required to lead to it.
	live, err := cluster.TokenBalance(ctx, v.options.Treasury, 0)
	if err != nil {
		return fmt.Errorf("read the treasury's balance: %w", err)
	}
	v.report.Slot = uint64(live.Slot)
	err = cluster.Walk(ctx, v.options.Treasury, v.options.Span, func(m chain.Movement) error {
		if m.Slot > live.Slot {
			return nil
		}
		return v.movement(ctx, m)
	})
	if err != nil {
		return err
	}
	if v.options.Span.To.IsZero() && v.started && v.last != live.Amount {
		return &Difference{Kind: BrokenHistory, Text: fmt.Sprintf(
			"the treasury holds %d, but the last transaction of its history left %d: the endpoint's history lacks a transaction", live.Amount, v.last)}
	}
	return v.list(listed)
}

// movement checks one transaction, in the order of execution.
func (v *verifier) movement(ctx context.Context, m chain.Movement) error {
	v.report.Transactions++
	if m.Err != "" {
		return nil // it moved nothing
	}
	if !v.started {
		if m.Pre != 0 && v.options.Span.From.IsZero() {
			return &Difference{Kind: BrokenHistory, Signature: m.Signature.String(), At: m.BlockTime, Text: fmt.Sprintf(
				"the treasury held %d before transaction %s, the first of its history: the endpoint lacks what came before; name a time to begin at, or ask another",
				m.Pre, m.Signature)}
		}
		v.started, v.last = true, m.Pre
		v.report.Opening, v.report.Mint = money.Amount(m.Pre), m.Mint.String()
	}
	if m.Pre != v.last {
		return &Difference{Kind: BrokenHistory, Signature: m.Signature.String(), At: m.BlockTime, Text: fmt.Sprintf(
			"the treasury held %d before transaction %s, but the one before it left %d: the endpoint's history lacks a transaction", m.Pre, m.Signature, v.last)}
	}
	v.last = m.Post
	v.report.In += money.Amount(m.Received())
	v.report.Out += money.Amount(m.Sent())
	v.report.Closing = money.Amount(m.Post)
	if m.Sent() == 0 {
		return nil
	}
	return v.payment(ctx, m)
}

// payment checks a transaction that took tokens out of the treasury.
func (v *verifier) payment(ctx context.Context, m chain.Movement) error {
	sent := money.Amount(m.Sent())
	batch, root, err := ParseMemo(m.Memo)
	if err != nil {
		return &Difference{Kind: UnexplainedTransfer, Signature: m.Signature.String(), At: m.BlockTime, Chain: &sent, Text: fmt.Sprintf(
			"transaction %s took %d base units out of the treasury and names no manifest (its memo is %q)", m.Signature, sent, m.Memo)}
	}
	if before, twice := v.paid[batch]; twice {
		return difference(m, batch, DuplicatePayment, "batch %s was paid twice: in transaction %s and again, %d base units, in %s",
			batch, before.signature, sent, m.Signature)
	}
	v.paid[batch] = payment{signature: m.Signature, root: root}
	published, err := v.source.Manifest(ctx, batch)
	if errors.Is(err, ErrNoManifest) {
		return difference(m, batch, MissingManifest, "transaction %s paid %d base units for batch %s, whose manifest is not published", m.Signature, sent, batch)
	}
	if err != nil {
		return fmt.Errorf("read the manifest of %s: %w", batch, err)
	}
	manifest := &published.Manifest
	if err := v.head(m, batch, root, manifest); err != nil {
		return err
	}
	v.paid[batch] = payment{signature: m.Signature, root: root, sequence: manifest.Sequence, previous: manifest.Previous}
	if err := compare(m, manifest); err != nil {
		return err
	}
	if err := v.usage(m, manifest); err != nil {
		return err
	}
	v.report.Batches++
	v.report.Payouts += len(manifest.Payouts)
	if v.options.Progress != nil {
		v.options.Progress(Checked{
			Batch: batch, Sequence: manifest.Sequence, Signature: m.Signature.String(), At: m.BlockTime, Payouts: len(manifest.Payouts), Amount: sent,
		})
	}
	return nil
}

// head checks that the manifest is the one that the transaction names.
func (v *verifier) head(m chain.Movement, batch ids.Batch, memo Root, manifest *Manifest) error {
	root, err := manifest.Root()
	if err != nil {
		return err
	}
	switch head := manifest.Head; {
	case root != memo:
		return difference(m, batch, AlteredManifest, "the manifest of batch %s has the root %s, transaction %s was signed with %s: it was altered after the fact",
			batch, root, m.Signature, memo)
	case head.Version != Version:
		return difference(m, batch, ForeignManifest, "the manifest of batch %s is of version %d, this program reads version %d", batch, head.Version, Version)
	case head.Batch != batch || head.Network != v.report.Network || head.Mint != m.Mint.String() || head.Treasury != v.report.Treasury:
		return difference(m, batch, ForeignManifest, "transaction %s names the manifest of batch %s for %s on %s, which is another batch, treasury, token or network",
			m.Signature, head.Batch, head.Treasury, head.Network)
	}
	return nil
}

// difference makes one about a payment.
func difference(m chain.Movement, batch ids.Batch, kind, format string, arguments ...any) *Difference {
	sent := money.Amount(m.Sent())
	return &Difference{
		Kind: kind, Text: fmt.Sprintf(format, arguments...), Batch: batch, Signature: m.Signature.String(), At: m.BlockTime, Chain: &sent,
	}
}
