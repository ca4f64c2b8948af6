package signer

import (
	"os"
	"strings"
	"testing"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

func TestPolicyErrorsNameTheSetting(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(p *Policy){
		"mint is missing":                       func(p *Policy) { p.Mint = solana.PublicKey{} },
		"token_program must":                    func(p *Policy) { p.TokenProgram = solana.SystemProgramID },
		"nonce_accounts must":                   func(p *Policy) { p.Nonces = nil },
		"nonce_accounts lists":                  func(p *Policy) { p.Nonces[1] = p.Nonces[0] },
		"max_payouts_per_batch":                 func(p *Policy) { p.MaxPayoutsPerBatch = 65 },
		"max_base_units_per_batch and":          func(p *Policy) { p.MaxBaseUnitsPerBatch = 0 },
		"max_base_units_per_day must not":       func(p *Policy) { p.MaxBaseUnitsPerDay = p.MaxBaseUnitsPerBatch - 1 },
		"max_base_units_swept_per_day must not": func(p *Policy) { p.MaxBaseUnitsSweptPerDay = p.MaxBaseUnitsPerSweep - 1 },
		"max_base_units_swept_per_day must be":  func(p *Policy) { p.MaxBaseUnitsSweptPerDay = 1 << 63 },
		"max_priority_fee_lamports":             func(p *Policy) { p.MaxPriorityFee = solana.LAMPORTS_PER_SOL + 1 },
		"lookup_tables lists": func(p *Policy) {
			p.LookupTables = []LookupTable{{Address: p.Mint, Addresses: p.Nonces}, {Address: p.Mint}}
		},
		"has 0 addresses": func(p *Policy) { p.LookupTables = []LookupTable{{Address: p.Mint}} },
		"lookup_tables lists 257 tables, at most 256 are": func(p *Policy) { p.LookupTables = make([]LookupTable, 257) },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			policy := newBench(t).policy
			if err := policy.Validate(); err != nil {
				t.Fatalf("the policy before the change: %v", err)
			}
			change(&policy)
			if err := policy.Validate(); err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("got %v, want an error about %q", err, want)
			}
		})
	}
}

func TestPolicyFileIsReadStrictly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	good, err := os.ReadFile(b.options.PolicyFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"unknown setting": strings.Replace(string(good), `"mint"`, `"max_base_units_a_day": 1, "mint"`, 1),
		"more behind it":  string(good) + "{}",
		"not an address":  strings.Replace(string(good), b.policy.Mint.String(), "mint", 1),
		"negative":        strings.Replace(string(good), `"max_base_units_per_day": `, `"max_base_units_per_day": -`, 1),
		"empty":           "",
	} {
		if err := os.WriteFile(b.options.PolicyFile, []byte(text), privateMode); err != nil {
			t.Fatal(err)
		}
		if policy, err := readPolicy(b.options.PolicyFile); err == nil {
			t.Errorf("%s: read as %+v", name, policy)
		}
	}
}

func TestMessagesPerDayAreCapped(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.policy.MaxMessagesPerDay = 2
	if err := b.policy.WriteFile(b.options.PolicyFile); err != nil {
		t.Fatal(err)
	}
	v := b.vault(t)
	message, batch := b.signed(t, v, 1)
	if _, err := ask(t, v, request{Message: b.advance(t).bytes(t), Cancel: ids.New[ids.Batch]()}); err != nil {
		t.Fatal(err)
	}
	if _, err := signBatch(t, v, message, batch); err != nil {
		t.Fatalf("asked again, which costs nothing: %v", err)
	}
	_, err := ask(t, v, request{Message: b.advance(t).bytes(t), Cancel: ids.New[ids.Batch]()})
	wantRule(t, err, RuleDayCap)
}

func TestAPolicyIsForOneTreasury(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for treasury, starts := range map[solana.PublicKey]bool{b.treasury: true, randomKey(t): false} {
		b.policy.Treasury = treasury
		if err := b.policy.WriteFile(b.options.PolicyFile); err != nil {
			t.Fatal(err)
		}
		_, journal, err := load(t.Context(), b.options)
		if starts != (err == nil) {
			t.Errorf("treasury %s: %v", treasury, err)
		}
		if err == nil {
			_ = journal.close()
		}
	}
}
