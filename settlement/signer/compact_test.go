package signer

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// aged is an id as it was made at a time.
func aged[I ~[16]byte](at time.Time) I {
	id := [16]byte(ids.New[I]())
	for i, ms := 5, at.UnixMilli(); i >= 0; i, ms = i-1, ms>>8 {
		id[i] = byte(ms)
	}
	return I(id)
}

// agedBatch makes a batch of fresh payees as it was made at the bench's present time.
func (b *bench) agedBatch(t *testing.T, amounts ...uint64) Batch {
	t.Helper()
	batch := b.batch(t, amounts...)
	batch.ID = aged[ids.Batch](b.clock)
	for i := range batch.Payouts {
		batch.Payouts[i].ID = aged[ids.Payout](b.clock)
	}
	return batch
}

func (b *bench) shortened(t *testing.T, v *vault) *vault {
	t.Helper()
	if err := v.journal.close(); err != nil {
		t.Fatal(err)
	}
	short, err := openJournal(b.options.JournalDir, b.clock, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := short.close(); err != nil {
		t.Fatal(err)
	}
	return b.vault(t)
}

func TestAShortJournalRefusesWhatTheLongOneDid(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	sign := func(v *vault, batch Batch) error {
		_, err := signBatch(t, v, b.draft(t, batch).bytes(t), batch)
		return err
	}
	old := b.agedBatch(t, 5, 7)
	unsigned := b.agedBatch(t, 5)
	if err := sign(v, old); err != nil {
		t.Fatal(err)
	}
	b.clock = b.clock.Add(journalMemory + time.Hour)
	recent := b.agedBatch(t, 900_000)
	recentDraft := b.draft(t, recent)
	message := recentDraft.bytes(t)
	if _, err := signBatch(t, v, message, recent); err != nil {
		t.Fatal(err)
	}
	for range 2 { // shortening a short journal changes nothing
		v = b.shortened(t, v)
		if len(v.journal.batches) != 1 || len(v.journal.sequence) != 3 {
			t.Fatalf("%d batches and %d payees are known, want 1 and 3", len(v.journal.batches), len(v.journal.sequence))
		}
		wantRule(t, sign(v, old), RuleBatchChanged)
		again := b.agedBatch(t, 5)
		again.Payouts[0] = old.Payouts[0]
		wantRule(t, sign(v, again), RulePayoutSigned)
		again.Payouts[0].Sequence = 2 // with the next number an old id is refused all the same
		wantRule(t, sign(v, again), RulePayoutSigned)
		again.Payouts[0].ID, again.Payouts[0].Sequence = aged[ids.Payout](b.clock), 1
		wantRule(t, sign(v, again), RuleSequence)
		wantRule(t, sign(v, unsigned), RuleBatchChanged)
		other := b.agedBatch(t, 5)
		otherDraft := b.draft(t, other)
		otherDraft.nonceValue = recentDraft.nonceValue
		_, err := signBatch(t, v, otherDraft.bytes(t), other)
		wantRule(t, err, RuleNonceUsed)
		if _, err := signBatch(t, v, message, recent); err != nil {
			t.Fatalf("the recent batch, asked again: %v", err)
		}
	}
	wantRule(t, sign(v, b.agedBatch(t, 900_000, 900_000)), RuleBatchCap)
	if err := sign(v, b.agedBatch(t, 1_000_000)); err != nil {
		t.Fatal(err)
	}
	wantRule(t, sign(v, b.agedBatch(t, 200_000)), RuleDayCap) // the last day's total is not forgotten
	next := b.agedBatch(t, 5)
	next.Payouts[0].Payee, next.Payouts[0].Sequence = old.Payouts[0].Payee, 2
	if err := sign(v, next); err != nil {
		t.Fatalf("an old payee's next payout: %v", err)
	}
	archives, err := filepath.Glob(b.journalFile() + ".until.*")
	if err != nil || len(archives) == 0 {
		t.Fatalf("the long journal is not kept: %v", err)
	}
}

func TestAnInterruptedShorteningLosesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	b.signed(t, v, 5)
	b.clock = b.clock.Add(journalMemory + time.Hour)
	batch := b.agedBatch(t, 5)
	message := b.draft(t, batch).bytes(t)
	if _, err := signBatch(t, v, message, batch); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.journalFile()+".new", []byte("half a journ"), privateMode); err != nil {
		t.Fatal(err)
	}
	v = b.shortened(t, v)
	if _, err := signBatch(t, v, message, batch); err != nil {
		t.Fatal(err)
	}
	if len(v.journal.batches) != 1 || v.journal.horizon.IsZero() {
		t.Fatalf("%d batches are known, want 1; horizon %s", len(v.journal.batches), v.journal.horizon)
	}
}

func TestManyPayeesFitIntoAShortJournal(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	for range 3 * sequencesPerLine {
		v.journal.sequence[ids.New[ids.Org]()] = 1 << 40
	}
	b.signed(t, v, 5)
	if err := v.journal.compact(b.options.JournalDir, b.clock); err != nil {
		t.Fatal(err)
	}
	if err := v.journal.close(); err != nil {
		t.Fatal(err)
	}
	if v = b.vault(t); len(v.journal.sequence) != 3*sequencesPerLine+1 {
		t.Fatalf("%d payees are known", len(v.journal.sequence))
	}
}
