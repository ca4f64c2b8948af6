package signer

import (
	"errors"
	"os"
	"testing"

	"github.com/gagliardetto/solana-go"
)

func TestSignAllAnswersEachAndSyncsOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	client := b.serve(t)
	orders := make([]Order, maxRequests+1) // two calls
	for i := range orders {
		batch := b.batch(t, 5)
		d := b.draft(t, batch)
		if i == 3 {
			d.priorityFee = 1_001
		}
		orders[i] = Order{Message: d.bytes(t), Batch: batch}
	}
	answers, err := client.SignAll(t.Context(), orders)
	if err != nil || len(answers) != len(orders) {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	for i, answer := range answers {
		if i == 3 {
			wantRule(t, answer.Refusal, RuleFee)
		} else if answer.Refusal != nil || !answer.Signatures[0].Verify(b.treasury, orders[i].Message) {
			t.Fatalf("answer %d: %+v", i, answer)
		}
	}
	again, err := client.SignAll(t.Context(), orders[4:6])
	if err != nil || again[0].Signatures[0] != answers[4].Signatures[0] {
		t.Fatalf("asked again: %+v, %v", again, err)
	}
}

func TestRequestsOfOneGroupSeeEachOther(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	first, second := b.batch(t, 900_000), b.batch(t, 900_000)
	rival := b.batch(t, 1)
	third := b.batch(t, 900_000)
	d, onFirst := b.draft(t, first), b.draft(t, rival)
	onFirst.nonceValue = d.nonceValue
	repeat := Batch{ID: b.batch(t).ID, Payouts: first.Payouts}
	requests := []request{
		{Message: d.bytes(t), Batch: &first},
		{Message: onFirst.bytes(t), Batch: &rival},             // the nonce value of the first
		{Message: b.draft(t, repeat).bytes(t), Batch: &repeat}, // the payout of the first
		{Message: b.draft(t, second).bytes(t), Batch: &second}, // fits
		{Message: b.draft(t, third).bytes(t), Batch: &third},   // above the cap per day
	}
	answers, err := v.sign(t.Context(), requests)
	if err != nil {
		t.Fatal(err)
	}
	for i, rule := range []Rule{"", RuleNonceUsed, RulePayoutSigned, "", RuleDayCap} {
		if rule == "" && answers[i].Refusal != nil {
			t.Errorf("request %d: %v", i, answers[i].Refusal)
		} else if rule != "" {
			wantRule(t, answers[i].Refusal, rule)
		}
	}
}

func TestAGroupThatCannotBeWrittenIsForgotten(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.vault(t)
	b.signed(t, v, 1)
	one, two := b.batch(t, 5), b.batch(t, 7)
	sweepDraft, sweep := b.sweep(t, v, 7)
	requests := []request{
		{Message: b.draft(t, one).bytes(t), Batch: &one},
		{Message: b.advance(t).bytes(t), Cancel: b.batch(t).ID},
		{Message: sweepDraft.bytes(t), Sweep: &sweep},
		{Message: b.draft(t, two).bytes(t), Batch: &two},
	}
	full := v.journal.file
	readOnly, err := os.Open(b.journalFile())
	if err != nil {
		t.Fatal(err)
	}
	v.journal.file = readOnly
	answers, err := v.sign(t.Context(), requests)
	var refusal *Refusal
	if err == nil || errors.As(err, &refusal) || answers != nil {
		t.Fatalf("got %v, %v; want an error of the journal", answers, err)
	}
	if err := readOnly.Close(); err != nil {
		t.Fatal(err)
	}
	v.journal.file = full
	j := v.journal
	if len(j.batches) != 1 || len(j.sweeps) != 0 || len(j.nonces) != 1 || len(j.payouts) != 1 || len(j.recent) != 1 {
		t.Fatalf("after the failure the journal knows %d batches, %d sweeps, %d nonce values, %d payouts", len(j.batches), len(j.sweeps), len(j.nonces), len(j.payouts))
	}
	j.broken = nil // the file could not be cut either: only a restart mends that
	if answers, err = v.sign(t.Context(), requests); err != nil {
		t.Fatal(err)
	}
	for i, answer := range answers {
		if answer.Refusal != nil || len(answer.Signatures) != requests[i].signers() || answer.Signatures[0] == (solana.Signature{}) {
			t.Errorf("request %d: %+v", i, answer)
		}
	}
}
