package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/rpc"
)

// ending is how a finalized transaction ended.
type ending struct {
	slot    Slot
	failure string
}

// endings asks for the ends of signatures; nil is one that is unknown or not final.
func (e *endpoint) endings(ctx context.Context, signatures []Signature) ([]*ending, error) {
	found := make([]*ending, len(signatures))
	result, err := e.rpc.GetSignatureStatuses(ctx, true, signatures...)
	if errors.Is(err, ErrNotFound) || errors.Is(err, rpc.ErrNotFound) {
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	if len(result.Value) != len(signatures) {
		return nil, fmt.Errorf("getSignatureStatuses: asked for %d, got %d", len(signatures), len(result.Value))
	}
	for i, status := range result.Value {
		if status != nil && status.ConfirmationStatus == rpc.ConfirmationStatusFinalized {
			found[i] = &ending{slot: Slot(status.Slot), failure: jsonText(status.Err)}
		}
	}
	return found, nil
}

func mergeEndings(signatures []Signature, a, b answer[[]*ending]) ([]*ending, error) {
	for i, signature := range signatures {
		what, x, y := "transaction "+signature.String(), a.value[i], b.value[i]
		switch {
		case x == nil && y == nil:
		case x == nil:
			return nil, &apartError{what: what, slot: y.slot, lacking: a.from}
		case y == nil:
			return nil, &apartError{what: what, slot: x.slot, lacking: b.from}
		case *x != *y:
			return nil, &apartError{what: what}
		}
	}
	return a.value, nil
}

// transaction reads a finalized transaction; nil if the endpoint has none.
func (e *endpoint) transaction(ctx context.Context, signature Signature) (*rpc.GetTransactionResult, error) {
	version := highestTransactionVersion
	result, err := e.rpc.GetTransaction(ctx, signature, &rpc.GetTransactionOpts{
		Encoding: solana.EncodingBase64, Commitment: rpc.CommitmentFinalized, MaxSupportedTransactionVersion: &version,
	})
	switch {
	case errors.Is(err, rpc.ErrNotFound) || errors.Is(err, ErrNotFound):
		return nil, nil //nolint:nilnil // absence is an answer here, which is compared like any other
	case err != nil:
		return nil, err
	case result.Transaction == nil || result.Meta == nil:
		return nil, fmt.Errorf("transaction %s: the endpoint keeps no metadata of it", signature)
	}
	return result, nil
}

func mergeTransactions(signature Signature, a, b answer[*rpc.GetTransactionResult]) (*rpc.GetTransactionResult, error) {
	what, x, y := "transaction "+signature.String(), a.value, b.value
	switch {
	case x == nil && y == nil:
		return nil, nil //nolint:nilnil // both say that there is none
	case x == nil:
		return nil, &apartError{what: what, slot: Slot(y.Slot), lacking: a.from}
	case y == nil:
		return nil, &apartError{what: what, slot: Slot(x.Slot), lacking: b.from}
	case !sameTransaction(x, y):
		return nil, &apartError{what: what}
	}
	return x, nil
}

// sameTransaction compares what money is counted from.
func sameTransaction(a, b *rpc.GetTransactionResult) bool {
	return a.Slot == b.Slot && bytes.Equal(a.Transaction.GetBinary(), b.Transaction.GetBinary()) &&
		a.Meta.Fee == b.Meta.Fee && jsonText(a.Meta.Err) == jsonText(b.Meta.Err) &&
		jsonText(a.Meta.PreTokenBalances) == jsonText(b.Meta.PreTokenBalances) &&
		jsonText(a.Meta.PostTokenBalances) == jsonText(b.Meta.PostTokenBalances) &&
		jsonText(a.Meta.PreBalances) == jsonText(b.Meta.PreBalances) && jsonText(a.Meta.PostBalances) == jsonText(b.Meta.PostBalances) &&
		jsonText(a.Meta.LoadedAddresses) == jsonText(b.Meta.LoadedAddresses)
}

// historyPage is a part of an address's history, newest first.
type historyPage struct {
	entries []*rpc.TransactionSignature
	full    bool // there may be more before it
}

// last reports that nothing older can be asked for.
func (p historyPage) last() bool { return !p.full || len(p.entries) == 0 }

// page reads up to limit entries before a signature, the newest of all if that is zero.
func (c *Client) page(ctx context.Context, address Address, before Signature, limit int, minSlot Slot) (historyPage, error) {
	minSlot = max(minSlot, c.confirmedSlot())
	return confirmed(ctx, c, func(ctx context.Context, e *endpoint) (historyPage, error) {
		entries, err := e.rpc.GetSignaturesForAddressWithOpts(ctx, address, &rpc.GetSignaturesForAddressOpts{
			Limit: &limit, Before: before, Commitment: rpc.CommitmentFinalized, MinContextSlot: slotOption(minSlot),
		})
		return historyPage{entries: entries, full: len(entries) >= limit}, err
	}, func(a, b answer[historyPage]) (historyPage, error) { return mergePages(address, minSlot, a, b) })
}

// mergePages compares two endpoints' pages. What is newer than both are known to have reached is left for the next reading; below
// that, either lacking what the other has is a hole in its history. Pages that are full end where they end: what only one of them
// lists at that end, the next page has.
func mergePages(address Address, reached Slot, a, b answer[historyPage]) (historyPage, error) {
	ofA, ofB := bySignature(a.value), bySignature(b.value)
	bottom := Slot(0)
	for _, p := range []historyPage{a.value, b.value} {
		if p.full && len(p.entries) > 0 {
			bottom = max(bottom, Slot(p.entries[len(p.entries)-1].Slot))
		}
	}
	merged := historyPage{full: a.value.full || b.value.full}
	for _, entry := range a.value.entries {
		if other := ofB[entry.Signature]; other != nil {
			if other.Slot != entry.Slot || jsonText(other.Err) != jsonText(entry.Err) {
				return historyPage{}, &apartError{what: "the history of " + address.String()}
			}
			reached = max(reached, Slot(entry.Slot))
			merged.entries = append(merged.entries, entry)
		}
	}
	if err := hole(address, a.value, ofB, bottom, reached, b.from); err != nil {
		return historyPage{}, err
	}
	if err := hole(address, b.value, ofA, bottom, reached, a.from); err != nil {
		return historyPage{}, err
	}
	if merged.full && len(merged.entries) == 0 {
		return historyPage{}, fmt.Errorf("the history of %s grows too fast to be compared: %w", address, ErrBehind)
	}
	return merged, nil
}

// hole finds what one page lists and the other must list, but does not.
func hole(address Address, page historyPage, other map[Signature]*rpc.TransactionSignature, bottom, reached Slot, lacking *endpoint) error {
	for _, entry := range page.entries {
		if slot := Slot(entry.Slot); other[entry.Signature] == nil && slot <= reached && slot > bottom {
			return &apartError{what: "the history of " + address.String(), slot: slot, lacking: lacking}
		}
	}
	return nil
}

func bySignature(page historyPage) map[Signature]*rpc.TransactionSignature {
	known := make(map[Signature]*rpc.TransactionSignature, len(page.entries))
	for _, entry := range page.entries {
		known[entry.Signature] = entry
	}
	return known
}
