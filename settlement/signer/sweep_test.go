package signer

import (
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

func TestSweepIsSignedByTreasuryAndDepositWallet(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]solana.MessageVersion{
		"legacy": solana.MessageVersionLegacy, "v0": solana.MessageVersionV0, "v1": solana.MessageVersionV1,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			v := b.vault(t)
			d, sweep := b.sweep(t, v, 7)
			d.version = version
			d.add(memoProgram, []byte(sweep.ID.String()))
			message := d.bytes(t)
			if err := v.journal.close(); err != nil { // only one signer has it
				t.Fatal(err)
			}
			signatures, err := b.serve(t).Sweep(t.Context(), message, sweep)
			if err != nil || !signatures[0].Verify(b.treasury, message) || !signatures[1].Verify(v.keys.deposit(sweep.Org), message) {
				t.Fatalf("signatures: %v, %v", signatures, err)
			}
		})
	}
}

func TestSweepGoesFromTheDepositToTheTreasuryOnly(t *testing.T) {
	t.Parallel()
	const transfer = 1
	for name, test := range map[string]struct {
		rule   Rule
		tamper func(t *testing.T, d *draft, sweep *Sweep)
	}{
		"no id":           {RuleSweep, func(_ *testing.T, _ *draft, sweep *Sweep) { sweep.ID = ids.Sweep{} }},
		"no organisation": {RuleSigner, func(_ *testing.T, _ *draft, sweep *Sweep) { sweep.Org = ids.New[ids.Org]() }},
		"nothing":         {RuleAmount, func(_ *testing.T, _ *draft, sweep *Sweep) { sweep.Amount = 0 }},
		"another amount":  {RuleAmount, func(_ *testing.T, _ *draft, sweep *Sweep) { sweep.Amount++ }},
		"above the cap":   {RuleSweepCap, func(_ *testing.T, _ *draft, sweep *Sweep) { sweep.Amount = 500_001 }},
		"no transfer":     {RuleSigner, func(_ *testing.T, d *draft, _ *Sweep) { d.instructions = d.instructions[:1] }},
		"two transfers": {RuleAmount, func(_ *testing.T, d *draft, _ *Sweep) {
			d.instructions = append(d.instructions, d.instructions[transfer])
		}},
		"another mint": {RuleMint, func(t *testing.T, d *draft, _ *Sweep) {
			d.instructions[transfer].AccountValues[1] = solana.Meta(randomKey(t))
		}},
		"another's account": {RuleSource, func(t *testing.T, d *draft, _ *Sweep) {
			d.instructions[transfer].AccountValues[0] = solana.Meta(randomKey(t)).WRITE()
		}},
		"out of the treasury": {RuleSource, func(_ *testing.T, d *draft, _ *Sweep) {
			wallet := d.instructions[transfer].AccountValues[3].PublicKey
			d.instructions[transfer].AccountValues[3] = solana.Meta(d.b.treasury).SIGNER()
			d.add(memoProgram, nil, solana.Meta(wallet).SIGNER()) // signs, but has no say
		}},
		"to somebody else": {RulePayee, func(t *testing.T, d *draft, _ *Sweep) {
			d.instructions[transfer].AccountValues[2] = solana.Meta(randomKey(t)).WRITE()
		}},
		"another program":   {RuleInstruction, func(t *testing.T, d *draft, _ *Sweep) { d.add(randomKey(t), nil) }},
		"approve":           {RuleInstruction, func(_ *testing.T, d *draft, _ *Sweep) { d.instructions[transfer].DataBytes[0] = 13 }},
		"another memo":      {RuleMemo, func(_ *testing.T, d *draft, _ *Sweep) { d.add(memoProgram, []byte("hello")) }},
		"paid by a deposit": {RuleSigner, func(_ *testing.T, d *draft, _ *Sweep) { d.payer = d.instructions[transfer].AccountValues[3].PublicKey }},
		"another's nonce":   {RuleNonce, func(t *testing.T, d *draft, _ *Sweep) { d.instructions[0].AccountValues[0].PublicKey = randomKey(t) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			v := b.vault(t)
			d, sweep := b.sweep(t, v, 7)
			test.tamper(t, d, &sweep)
			_, err := ask(t, v, request{Message: d.bytes(t), Sweep: &sweep})
			wantRule(t, err, test.rule)
		})
	}
}

func TestSweepsHaveCapsAndNoncesButNoPartInPayoutCaps(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	do := func(amount uint64) error {
		d, sweep := b.sweep(t, v, amount)
		_, err := ask(t, v, request{Message: d.bytes(t), Sweep: &sweep})
		return err
	}
	for range 2 {
		if err := do(500_000); err != nil {
			t.Fatal(err)
		}
	}
	wantRule(t, do(1), RuleSweepCap)
	b.signed(t, v, 1_000_000) // the payouts' own cap is untouched
	b.signed(t, v, 1_000_000)
	b.clock = b.clock.Add(25 * time.Hour)
	d, sweep := b.sweep(t, v, 500_000)
	if _, err := ask(t, v, request{Message: d.bytes(t), Sweep: &sweep}); err != nil {
		t.Fatalf("after a day: %v", err)
	}
	batch := b.batch(t, 5)
	payout := b.draft(t, batch)
	payout.nonceValue = d.nonceValue
	_, err := signBatch(t, v, payout.bytes(t), batch)
	wantRule(t, err, RuleNonceUsed)
	d.nonceValue = solana.Hash(randomKey(t))
	_, err = ask(t, v, request{Message: d.bytes(t), Sweep: &sweep})
	wantRule(t, err, RuleBatchChanged)
}

func TestWithoutCapsNothingIsSwept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.policy.MaxBaseUnitsPerSweep, b.policy.MaxBaseUnitsSweptPerDay = 0, 0
	if err := b.policy.WriteFile(b.options.PolicyFile); err != nil {
		t.Fatal(err)
	}
	v := b.vault(t)
	d, sweep := b.sweep(t, v, 1)
	_, err := ask(t, v, request{Message: d.bytes(t), Sweep: &sweep})
	wantRule(t, err, RuleSweepCap)
}
