package signer

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

func TestSignsWhatABatchNeedsInEveryVersion(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]solana.MessageVersion{
		"legacy": solana.MessageVersionLegacy, "v0": solana.MessageVersionV0, "v1": solana.MessageVersionV1,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			batch := b.batch(t, 5, 7)
			d := b.draft(t, batch)
			d.version = version
			if version != solana.MessageVersionV1 {
				d.add(solana.ComputeBudget, binary.LittleEndian.AppendUint32([]byte{2}, 20_000))
				d.add(solana.ComputeBudget, binary.LittleEndian.AppendUint64([]byte{3}, 40_000)) // 800 lamports
				d.add(solana.ComputeBudget, binary.LittleEndian.AppendUint32([]byte{4}, 1<<20))
			}
			message := d.bytes(t)
			signature, err := signBatch(t, b.vault(t), message, batch)
			if err != nil {
				t.Fatal(err)
			}
			if !signature.Verify(b.treasury, message) {
				t.Fatal("the signature does not verify")
			}
		})
	}
}

func TestRefusesByRule(t *testing.T) {
	t.Parallel()
	const creation, transfer = 1, 2 // places in the draft of a batch; instruction 0 advances the nonce, the last is the memo
	tests := map[string]struct {
		rule   Rule
		tamper func(t *testing.T, d *draft, batch *Batch)
	}{
		"nothing paid":      {RuleBatchSize, func(_ *testing.T, _ *draft, batch *Batch) { batch.Payouts = nil }},
		"batch without id":  {RuleBatchSize, func(_ *testing.T, _ *draft, batch *Batch) { batch.ID = ids.Batch{} }},
		"payee twice":       {RulePayee, func(_ *testing.T, _ *draft, batch *Batch) { batch.Payouts[1].Payee = batch.Payouts[0].Payee }},
		"payout twice":      {RulePayee, func(_ *testing.T, _ *draft, batch *Batch) { batch.Payouts[1].ID = batch.Payouts[0].ID }},
		"wallet twice":      {RulePayee, func(_ *testing.T, _ *draft, batch *Batch) { batch.Payouts[1].Wallet = batch.Payouts[0].Wallet }},
		"pays the treasury": {RulePayee, func(_ *testing.T, d *draft, batch *Batch) { batch.Payouts[1].Wallet = d.b.treasury }},
		"payee not told of": {RulePayee, func(_ *testing.T, _ *draft, batch *Batch) { batch.Payouts = batch.Payouts[:1] }},
		"payee not in the message": {RulePayee, func(t *testing.T, d *draft, batch *Batch) {
			batch.Payouts = append(batch.Payouts, d.b.batch(t, 3).Payouts...)
		}},
		"other wallet":          {RulePayee, func(t *testing.T, _ *draft, batch *Batch) { batch.Payouts[1].Wallet = randomKey(t) }},
		"other amount":          {RuleAmount, func(_ *testing.T, _ *draft, batch *Batch) { batch.Payouts[1].Amount++ }},
		"no amount":             {RuleAmount, func(_ *testing.T, _ *draft, batch *Batch) { batch.Payouts[1].Amount = 0 }},
		"amount that overflows": {RuleAmount, func(_ *testing.T, _ *draft, batch *Batch) { batch.Payouts[1].Amount = 1 << 63 }},
		"above the batch cap":   {RuleBatchCap, func(_ *testing.T, _ *draft, batch *Batch) { batch.Payouts[1].Amount = 1_000_000 }},
		"other fee payer":       {RuleSigner, func(t *testing.T, d *draft, _ *Batch) { d.payer = randomKey(t) }},
		"second signer": {RuleSigner, func(t *testing.T, d *draft, _ *Batch) {
			d.add(memoProgram, nil, solana.Meta(randomKey(t)).SIGNER())
		}},
		"no nonce": {RuleNonce, func(_ *testing.T, d *draft, _ *Batch) { d.instructions = d.instructions[1:] }},
		"nonce not first": {RuleNonce, func(_ *testing.T, d *draft, _ *Batch) {
			d.instructions[0], d.instructions[1] = d.instructions[1], d.instructions[0]
		}},
		"nonce of somebody else": {RuleNonce, func(t *testing.T, d *draft, _ *Batch) { d.instructions[0].AccountValues[0].PublicKey = randomKey(t) }},
		"nonce withdrawn":        {RuleNonce, func(_ *testing.T, d *draft, _ *Batch) { d.instructions[0].DataBytes[0] = 5 }},
		"nonce advanced twice":   {RuleInstruction, func(_ *testing.T, d *draft, _ *Batch) { d.instructions = append(d.instructions, d.instructions[0]) }},
		"SOL transfer": {RuleInstruction, func(t *testing.T, d *draft, _ *Batch) {
			d.add(solana.SystemProgramID, append([]byte{2, 0, 0, 0}, make([]byte, 8)...), solana.Meta(d.b.treasury).WRITE().SIGNER(), solana.Meta(randomKey(t)).WRITE())
		}},
		"unknown program":     {RuleInstruction, func(t *testing.T, d *draft, _ *Batch) { d.add(randomKey(t), []byte{1}) }},
		"other token program": {RuleMint, func(_ *testing.T, d *draft, _ *Batch) { d.instructions[transfer].ProgID = solana.Token2022ProgramID }},
		"approve":             {RuleInstruction, func(_ *testing.T, d *draft, _ *Batch) { d.instructions[transfer].DataBytes[0] = 13 }},
		"plain transfer": {RuleInstruction, func(_ *testing.T, d *draft, _ *Batch) {
			d.instructions[transfer].DataBytes = d.instructions[transfer].DataBytes[:9]
		}},
		"other mint": {RuleMint, func(t *testing.T, d *draft, _ *Batch) {
			d.instructions[transfer].AccountValues[1] = solana.Meta(randomKey(t))
		}},
		"other decimals": {RuleMint, func(_ *testing.T, d *draft, _ *Batch) { d.instructions[transfer].DataBytes[9] = 9 }},
		"other source": {RuleSource, func(t *testing.T, d *draft, _ *Batch) {
			d.instructions[transfer].AccountValues[0] = solana.Meta(randomKey(t)).WRITE()
		}},
		"other authority": {RuleSource, func(t *testing.T, d *draft, _ *Batch) {
			d.instructions[transfer].AccountValues[3] = solana.Meta(randomKey(t))
		}},
		"paid twice": {RulePayee, func(_ *testing.T, d *draft, _ *Batch) {
			d.instructions = append(d.instructions, d.instructions[transfer])
		}},
		"extra signer on a transfer": {RuleInstruction, func(_ *testing.T, d *draft, _ *Batch) {
			d.instructions[transfer].AccountValues = append(d.instructions[transfer].AccountValues, solana.Meta(d.b.treasury).SIGNER())
		}},
		"account created twice": {RulePayee, func(_ *testing.T, d *draft, _ *Batch) {
			d.instructions = append(d.instructions, d.instructions[creation])
		}},
		"account that must not exist": {RuleInstruction, func(_ *testing.T, d *draft, _ *Batch) { d.instructions[creation].DataBytes[0] = 0 }},
		"account of another wallet": {RulePayee, func(t *testing.T, d *draft, _ *Batch) {
			d.instructions[creation].AccountValues[2] = solana.Meta(randomKey(t))
		}},
		"account of another mint": {RuleMint, func(t *testing.T, d *draft, _ *Batch) {
			d.instructions[creation].AccountValues[3] = solana.Meta(randomKey(t))
		}},
		"no memo": {RuleMemo, func(_ *testing.T, d *draft, _ *Batch) { d.instructions = d.instructions[:len(d.instructions)-1] }},
		"two memos": {RuleMemo, func(_ *testing.T, d *draft, _ *Batch) {
			d.instructions = append(d.instructions, d.instructions[len(d.instructions)-1])
		}},
		"memo with a short root": {RuleMemo, func(_ *testing.T, d *draft, batch *Batch) {
			d.memo(batch.ID.String() + " " + strings.Repeat("A", 42))
		}},
		"memo with a root that is spelled twice": {RuleMemo, func(_ *testing.T, d *draft, batch *Batch) {
			d.memo(batch.ID.String() + " " + strings.Repeat("A", 42) + "B") // has bits beyond its 32 bytes
		}},
		"memo with more than a root": {RuleMemo, func(_ *testing.T, d *draft, batch *Batch) {
			d.memo(batch.ID.String() + " " + strings.Repeat("A", 43) + " ")
		}},
		"memo of another batch":         {RuleMemo, func(_ *testing.T, _ *draft, batch *Batch) { batch.ID = ids.New[ids.Batch]() }},
		"priority fee above the policy": {RuleFee, func(_ *testing.T, d *draft, _ *Batch) { d.priorityFee = 1_001 }},
		"unknown compute budget": {RuleInstruction, func(_ *testing.T, d *draft, _ *Batch) {
			d.version = solana.MessageVersionLegacy
			d.add(solana.ComputeBudget, []byte{9})
		}},
		"price without a limit": {RuleFee, func(_ *testing.T, d *draft, _ *Batch) {
			d.version = solana.MessageVersionV0
			d.add(solana.ComputeBudget, binary.LittleEndian.AppendUint64([]byte{3}, 1))
		}},
		"priority fee that overflows": {RuleFee, func(_ *testing.T, d *draft, _ *Batch) {
			d.version = solana.MessageVersionV0
			d.budget(1_400_000, 1<<63)
		}},
		"priority fee above, by price": {RuleFee, func(_ *testing.T, d *draft, _ *Batch) { d.version = solana.MessageVersionV0; d.budget(20_000, 50_050) }},
		"lookup table that the policy does not list": {RuleLookupTable, func(t *testing.T, d *draft, _ *Batch) {
			d.version = solana.MessageVersionV0
			d.tables = map[solana.PublicKey]solana.PublicKeySlice{randomKey(t): {d.instructions[transfer].AccountValues[2].PublicKey}}
		}},
		"payee that is only read": {RuleInstruction, func(_ *testing.T, d *draft, _ *Batch) {
			d.instructions = slices.Delete(d.instructions, creation, creation+1)
			d.instructions[creation].AccountValues[2].IsWritable = false
		}},
		"mint that may be written": {RuleInstruction, func(_ *testing.T, d *draft, _ *Batch) {
			d.instructions[transfer].AccountValues[1].IsWritable = true
		}},
		"number out of order": {RuleSequence, func(_ *testing.T, _ *draft, batch *Batch) { batch.Payouts[0].Sequence = 2 }},
		"number zero":         {RuleSequence, func(_ *testing.T, _ *draft, batch *Batch) { batch.Payouts[0].Sequence = 0 }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			batch := b.batch(t, 5, 7)
			d := b.draft(t, batch)
			test.tamper(t, d, &batch)
			v := b.vault(t)
			_, err := signBatch(t, v, d.bytes(t), batch)
			wantRule(t, err, test.rule)
			if len(v.journal.batches) != 0 {
				t.Fatal("a refusal was put into the journal")
			}
		})
	}
}

func (d *draft) memo(text string) { d.instructions[len(d.instructions)-1].DataBytes = []byte(text) }

func TestMemoMayCarryTheManifestsRoot(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	batch := b.batch(t, 5)
	d := b.draft(t, batch)
	d.memo(batch.ID.String() + " " + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 32)))
	if _, err := signBatch(t, b.vault(t), d.bytes(t), batch); err != nil {
		t.Fatal(err)
	}
}

func (d *draft) budget(limit uint32, price uint64) {
	d.add(solana.ComputeBudget, binary.LittleEndian.AppendUint32([]byte{2}, limit))
	d.add(solana.ComputeBudget, binary.LittleEndian.AppendUint64([]byte{3}, price))
}

func TestRefusesMangledBytes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	batch := b.batch(t, 5, 7)
	good := b.draft(t, batch).bytes(t)
	v := b.vault(t)
	for name, message := range map[string][]byte{
		"empty": nil, "trailing byte": append(append([]byte{}, good...), 0), "cut short": good[:len(good)-1],
		"unknown version": append([]byte{0x82}, good[1:]...), "too long": make([]byte, maxMessageBytes+1),
	} {
		_, err := signBatch(t, v, message, batch)
		if err == nil {
			t.Errorf("%s was signed", name)
			continue
		}
		wantRule(t, err, RuleMalformed)
	}
}

func TestSameRequestGetsTheSameSignatureAndAnotherIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	batch := b.batch(t, 5, 7)
	d := b.draft(t, batch)
	v := b.vault(t)
	message := d.bytes(t)
	first, err := signBatch(t, v, message, batch)
	if err != nil {
		t.Fatal(err)
	}
	again, err := signBatch(t, v, message, batch)
	if err != nil || again != first {
		t.Fatalf("asked again: %v, %v; want %v", again, err, first)
	}
	d.nonceValue = solana.Hash(randomKey(t))
	_, err = signBatch(t, v, d.bytes(t), batch)
	wantRule(t, err, RuleBatchChanged)
}

func TestSignsANonceValueForOneBatchOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	first := b.batch(t, 5)
	d := b.draft(t, first)
	if _, err := signBatch(t, v, d.bytes(t), first); err != nil {
		t.Fatal(err)
	}
	second := b.batch(t, 5)
	other := b.draft(t, second)
	other.nonceValue = d.nonceValue
	_, err := signBatch(t, v, other.bytes(t), second)
	wantRule(t, err, RuleNonceUsed)
	other.instructions[0].AccountValues[0].PublicKey = b.policy.Nonces[1] // the same value of another nonce is another pin
	if _, err := signBatch(t, v, other.bytes(t), second); err != nil {
		t.Fatal(err)
	}
}

func TestSignsAPayoutOnceWhateverItsBatchNonceAndNumber(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	first := b.batch(t, 5)
	if _, err := signBatch(t, v, b.draft(t, first).bytes(t), first); err != nil {
		t.Fatal(err)
	}
	repeat := Batch{ID: ids.New[ids.Batch](), Payouts: []Payout{first.Payouts[0]}}
	repeat.Payouts[0].Sequence = 2
	_, err := signBatch(t, v, b.draft(t, repeat).bytes(t), repeat)
	wantRule(t, err, RulePayoutSigned)

	// What a database that lost the first payout asks for: fresh ids, the same number.
	rolledBack := Batch{ID: ids.New[ids.Batch](), Payouts: []Payout{first.Payouts[0]}}
	rolledBack.Payouts[0].ID = ids.New[ids.Payout]()
	for range 3 { // no number of retries gets past it
		rolledBack.ID = ids.New[ids.Batch]()
		_, err = signBatch(t, v, b.draft(t, rolledBack).bytes(t), rolledBack)
		wantRule(t, err, RuleSequence)
	}
	rolledBack.Payouts[0].Sequence = 2
	if _, err := signBatch(t, v, b.draft(t, rolledBack).bytes(t), rolledBack); err != nil {
		t.Fatalf("the payee's next payout: %v", err)
	}
}

func TestDayCapCountsTheLast24Hours(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	pay := func(amount uint64) error {
		batch := b.batch(t, amount)
		_, err := signBatch(t, v, b.draft(t, batch).bytes(t), batch)
		return err
	}
	for range 2 {
		if err := pay(1_000_000); err != nil {
			t.Fatal(err)
		}
		b.clock = b.clock.Add(time.Hour)
	}
	wantRule(t, pay(1), RuleDayCap)
	b.clock = b.clock.Add(-48 * time.Hour) // a clock set back frees nothing
	wantRule(t, pay(1), RuleDayCap)
	b.clock = b.clock.Add(48*time.Hour + 22*time.Hour)
	if err := pay(1_000_000); err != nil {
		t.Fatalf("after a day: %v", err)
	}
	wantRule(t, pay(1), RuleDayCap)
}

func wantRule(t *testing.T, err error, rule Rule) {
	t.Helper()
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Rule != rule {
		t.Fatalf("got %v, want a refusal by the rule %q", err, rule)
	}
}
