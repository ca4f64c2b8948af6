package proof

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// arrival is what a payee's token account got.
type arrival struct {
	amount money.Amount
	owner  string
}

// compare holds a manifest's payees and amounts to the balances that the transaction changed.
func compare(m chain.Movement, manifest *Manifest) error {
	arrived := make(map[string]arrival, len(m.Counterparties))
	for _, other := range m.Counterparties {
		arrived[other.TokenAccount.String()] = arrival{money.Amount(other.Post) - money.Amount(other.Pre), other.Owner.String()}
	}
	var total money.Amount
	var missing *Payout
	for i := range manifest.Payouts {
		p := &manifest.Payouts[i]
		got, found := arrived[p.TokenAccount]
		delete(arrived, p.TokenAccount)
		switch {
		case p.Amount <= 0:
			return about(m, manifest, p, nil, WrongAmount, "payout %s is of %d base units", p.ID, p.Amount)
		case !found:
			missing = p
		case got.amount != p.Amount:
			return about(m, manifest, p, &got.amount, WrongAmount, "payout %s to %s is of %d base units in the manifest, transaction %s moved %d",
				p.ID, p.Wallet, p.Amount, m.Signature, got.amount)
		case got.owner != p.Wallet:
			return about(m, manifest, p, &got.amount, WrongWallet, "payout %s belongs to wallet %s, transaction %s paid it to an account of %s",
				p.ID, p.Wallet, m.Signature, got.owner)
		}
		total += p.Amount
	}
	for _, other := range m.Counterparties {
		account := other.TokenAccount.String()
		got, unclaimed := arrived[account]
		switch {
		case !unclaimed:
		case missing != nil && got.amount == missing.Amount:
			return about(m, manifest, missing, &got.amount, WrongWallet, "payout %s of %d base units belongs to wallet %s, transaction %s paid it to %s",
				missing.ID, missing.Amount, missing.Wallet, m.Signature, got.owner)
		case missing == nil:
			return difference(m, manifest.Batch, ExtraPayee, "transaction %s paid %d base units to %s (wallet %s), who is not in the manifest of batch %s",
				m.Signature, got.amount, account, got.owner, manifest.Batch)
		}
	}
	if missing != nil {
		return about(m, manifest, missing, nil, MissingPayee, "payout %s of %d base units to %s is in the manifest, transaction %s did not pay it",
			missing.ID, missing.Amount, missing.Wallet, m.Signature)
	}
	if sent := money.Amount(m.Sent()); sent != total {
		return about(m, manifest, nil, &sent, WrongAmount, "the payouts of batch %s come to %d base units, transaction %s took %d out of the treasury",
			manifest.Batch, total, m.Signature, sent)
	}
	return nil
}

// about makes a difference about one payout.
func about(m chain.Movement, manifest *Manifest, p *Payout, moved *money.Amount, kind, format string, arguments ...any) *Difference {
	d := difference(m, manifest.Batch, kind, format, arguments...)
	d.Chain = moved
	if p != nil {
		amount := p.Amount
		d.Manifest = &amount
	}
	return d
}

// leaseEnd is how far a lease's records have come.
type leaseEnd struct {
	batch   ids.Batch
	ms      int64
	charged money.Amount
	price   money.Amount
	feeBPS  int
}

// usage holds each amount to its records, and each record to its lease's earlier ones.
func (v *verifier) usage(m chain.Movement, manifest *Manifest) error {
	for i := range manifest.Payouts {
		p := &manifest.Payouts[i]
		for j := range p.Records {
			if err := v.record(m, manifest, p, &p.Records[j]); err != nil {
				return err
			}
		}
		if err := CheckSum(p); err != nil {
			return about(m, manifest, p, &p.Amount, WrongSum, "%s, in batch %s of transaction %s", err, manifest.Batch, m.Signature)
		}
		v.report.Records += len(p.Records)
		v.report.Adjustments += len(p.Adjustments)
		for j := range p.Adjustments {
			v.report.Adjusted += p.Adjustments[j].Amount
		}
		if p.Purpose == PurposeEarnings {
			v.report.Earnings += p.Amount
		} else {
			v.report.Withdrawals += p.Amount
		}
	}
	return nil
}

func (v *verifier) record(m chain.Movement, manifest *Manifest, p *Payout, r *Record) error {
	if err := CheckRecord(r); err != nil {
		return about(m, manifest, p, &p.Amount, WrongRecord, "%s (payout %s, batch %s, transaction %s)", err, p.ID, manifest.Batch, m.Signature)
	}
	before, known := v.leases[r.Lease]
	switch {
	case !known:
	case r.Price != before.price || r.FeeBPS != before.feeBPS:
		return about(m, manifest, p, &p.Amount, WrongRecord,
			"lease %s costs %d an hour with a share of %d basis points in batch %s, and %d with %d in batch %s (transaction %s): both are frozen",
			r.Lease, before.price, before.feeBPS, before.batch, r.Price, r.FeeBPS, manifest.Batch, m.Signature)
	case r.ChargedBefore < before.charged:
		return about(m, manifest, p, &p.Amount, ReusedRecord, "lease %s was paid up to %d ms in batch %s, and batch %s (transaction %s) pays from %d to %d ms once more",
			r.Lease, before.ms, before.batch, manifest.Batch, m.Signature, r.FromMS, r.ToMS)
	case r.ChargedBefore > before.charged:
		return about(m, manifest, p, &p.Amount, MissingRecord, "lease %s was paid up to %d ms in batch %s, and batch %s (transaction %s) goes on at %d ms: no record is between",
			r.Lease, before.ms, before.batch, manifest.Batch, m.Signature, r.FromMS)
	}
	v.leases[r.Lease] = leaseEnd{batch: manifest.Batch, ms: r.ToMS, charged: r.ChargedAfter, price: r.Price, feeBPS: r.FeeBPS}
	v.report.Usage += time.Duration(r.ToMS-r.FromMS) * time.Millisecond
	return nil
}

// list checks that the manifests are a chain without a gap, that each that says it was paid is on the chain, and that each that the
// chain shows is among them.
func (v *verifier) list(all []Summary) error {
	unlisted := maps.Clone(v.paid)
	for i := range all {
		if err := v.linked(all, i); err != nil {
			return err
		}
		if err := v.listed(&all[i]); err != nil {
			return err
		}
		delete(unlisted, all[i].Batch)
	}
	if len(unlisted) == 0 {
		return nil
	}
	first := slices.MinFunc(slices.Collect(maps.Keys(unlisted)), func(a, b ids.Batch) int { return cmp.Compare(unlisted[a].sequence, unlisted[b].sequence) })
	paid := unlisted[first]
	return &Difference{Kind: BrokenChain, Batch: first, Signature: paid.signature.String(), Text: fmt.Sprintf(
		"manifest %d (batch %s), which transaction %s paid, is not in the list of manifests", paid.sequence, first, paid.signature)}
}

// linked holds a manifest to the one before it. A verification from the beginning on needs them all.
func (v *verifier) linked(all []Summary, i int) error {
	s, number, root := &all[i], int64(1), ""
	if i > 0 {
		number, root = all[i-1].Sequence+1, all[i-1].Root
	} else if !v.options.Span.From.IsZero() {
		number = s.Sequence
	}
	switch {
	case s.Sequence != number:
		return &Difference{Kind: BrokenChain, Batch: s.Batch, Text: fmt.Sprintf(
			"manifest %d (batch %s) follows manifest %d: what is between is not published", s.Sequence, s.Batch, number-1)}
	case s.Previous != root && (i > 0 || s.Sequence == 1):
		return &Difference{Kind: BrokenChain, Batch: s.Batch, Text: fmt.Sprintf(
			"manifest %d (batch %s) was sealed on a manifest with the root %q, which is not the one published before it", s.Sequence, s.Batch, s.Previous)}
	}
	return nil
}

// listed compares a manifest's line in the list with what the chain shows of its batch.
func (v *verifier) listed(s *Summary) error {
	paid, seen := v.paid[s.Batch]
	switch {
	case s.State != StatePaid && s.State != StatePending && s.State != StateVoid:
		return &Difference{Kind: WrongState, Batch: s.Batch, Text: fmt.Sprintf(
			"manifest %d (batch %s) is published as %q, which is no state of a manifest", s.Sequence, s.Batch, s.State)}
	case seen:
		return s.contradicts(&paid)
	case s.State == StatePaid && (s.PaidAt == nil || v.options.Span.Holds(*s.PaidAt)):
		d := &Difference{Kind: MissingTransaction, Batch: s.Batch, Signature: s.Signature, Text: fmt.Sprintf(
			"batch %s was paid in transaction %s, it is published, but no such transaction took tokens out of the treasury", s.Batch, s.Signature)}
		if s.PaidAt != nil {
			d.At = *s.PaidAt
		}
		return d
	case s.State == StatePending:
		v.report.Pending++
	}
	return nil
}

// contradicts holds a line of the list to the transaction that paid its batch.
func (s *Summary) contradicts(paid *payment) error {
	d := &Difference{Batch: s.Batch, Signature: paid.signature.String()}
	switch {
	case s.Root != paid.root.String():
		d.Kind, d.Text = AlteredManifest, fmt.Sprintf("the list gives manifest %d (batch %s) the root %s, transaction %s was signed with %s",
			s.Sequence, s.Batch, s.Root, paid.signature, paid.root)
	case s.Sequence != paid.sequence || s.Previous != paid.previous:
		d.Kind, d.Text = BrokenChain, fmt.Sprintf("the list has batch %s as manifest %d on the root %q, transaction %s was signed for manifest %d on %q",
			s.Batch, s.Sequence, s.Previous, paid.signature, paid.sequence, paid.previous)
	case s.State == StateVoid:
		d.Kind, d.Text = WrongState, fmt.Sprintf("batch %s was never paid, it is published, but transaction %s paid it", s.Batch, paid.signature)
	case s.State == StatePaid && s.Signature != paid.signature.String():
		d.Kind, d.Text = WrongState, fmt.Sprintf("batch %s was paid in transaction %q, it is published, but transaction %s paid it", s.Batch, s.Signature, paid.signature)
	default:
		return nil
	}
	return d
}
