package signer

import (
	"testing"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

func TestCancelIsSignedBesideItsBatchOnTheSameNonceValueOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	batch := b.batch(t, 5)
	d := b.draft(t, batch)
	if _, err := signBatch(t, v, d.bytes(t), batch); err != nil {
		t.Fatal(err)
	}
	cancel := b.advance(t)
	cancel.nonceValue = d.nonceValue
	message := cancel.bytes(t)
	signatures, err := ask(t, v, request{Message: message, Cancel: batch.ID})
	if err != nil || !signatures[0].Verify(b.treasury, message) {
		t.Fatalf("the batch's cancellation: %v, %v", signatures, err)
	}
	again, err := ask(t, v, request{Message: message, Cancel: batch.ID})
	if err != nil || again[0] != signatures[0] {
		t.Fatalf("asked again: %v, %v", again, err)
	}
	_, err = ask(t, v, request{Message: message, Cancel: ids.New[ids.Batch]()})
	wantRule(t, err, RuleNonceUsed)
	cancel.nonceValue = solana.Hash(randomKey(t))
	_, err = ask(t, v, request{Message: cancel.bytes(t), Cancel: batch.ID})
	wantRule(t, err, RuleNonceUsed)
}

func TestCancelledValueIsLeftToItsBatch(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	batch, other := b.batch(t, 5), b.batch(t, 5)
	d := b.draft(t, batch)
	cancel := b.advance(t)
	cancel.nonceValue = d.nonceValue
	if _, err := ask(t, v, request{Message: cancel.bytes(t), Cancel: batch.ID}); err != nil {
		t.Fatal(err)
	}
	if err := v.journal.close(); err != nil {
		t.Fatal(err)
	}
	v = b.vault(t)
	foreign := b.draft(t, other)
	foreign.nonceValue = d.nonceValue
	_, err := signBatch(t, v, foreign.bytes(t), other)
	wantRule(t, err, RuleNonceUsed)
	if _, err := signBatch(t, v, d.bytes(t), batch); err != nil {
		t.Fatalf("the cancelled batch's own message, of which at most one lands: %v", err)
	}
}

func TestCancelsOfAValueAreBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	cancel, batch := b.advance(t), ids.New[ids.Batch]()
	for fee := range uint64(maxCancelsPerNonceValue) {
		cancel.priorityFee = fee
		if _, err := ask(t, v, request{Message: cancel.bytes(t), Cancel: batch}); err != nil {
			t.Fatal(err)
		}
	}
	cancel.priorityFee = maxCancelsPerNonceValue
	_, err := ask(t, v, request{Message: cancel.bytes(t), Cancel: batch})
	wantRule(t, err, RuleNonceUsed)
}

func TestCancelMovesNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rule   Rule
		tamper func(t *testing.T, d *draft, batch *ids.Batch)
	}{
		"no batch": {RuleMalformed, func(_ *testing.T, _ *draft, batch *ids.Batch) { *batch = ids.Batch{} }},
		"another's nonce": {RuleNonce, func(t *testing.T, d *draft, _ *ids.Batch) {
			d.instructions[0].AccountValues[0].PublicKey = randomKey(t)
		}},
		"a withdrawal": {RuleNonce, func(_ *testing.T, d *draft, _ *ids.Batch) { d.instructions[0].DataBytes[0] = 5 }},
		"a transfer": {RuleInstruction, func(t *testing.T, d *draft, _ *ids.Batch) {
			d.instructions = d.b.draft(t, d.b.batch(t, 1)).instructions[:3]
		}},
		"two advances":   {RuleInstruction, func(_ *testing.T, d *draft, _ *ids.Batch) { d.instructions = append(d.instructions, d.instructions[0]) }},
		"another memo":   {RuleMemo, func(_ *testing.T, d *draft, _ *ids.Batch) { d.add(memoProgram, []byte("hello")) }},
		"too high a fee": {RuleFee, func(_ *testing.T, d *draft, _ *ids.Batch) { d.priorityFee = 1_001 }},
		"a second signer": {RuleSigner, func(t *testing.T, d *draft, _ *ids.Batch) {
			d.add(memoProgram, nil, solana.Meta(randomKey(t)).SIGNER())
		}},
		"no advance": {RuleNonce, func(_ *testing.T, d *draft, batch *ids.Batch) {
			d.instructions = nil
			d.add(memoProgram, []byte(batch.String()))
		}},
		"another feepayer": {RuleSigner, func(t *testing.T, d *draft, _ *ids.Batch) { d.payer = randomKey(t) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			v := b.vault(t)
			d, batch := b.advance(t), ids.New[ids.Batch]()
			test.tamper(t, d, &batch)
			_, err := ask(t, v, request{Message: d.bytes(t), Cancel: batch})
			wantRule(t, err, test.rule)
		})
	}
}
