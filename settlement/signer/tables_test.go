package signer

import (
	"slices"
	"testing"

	"github.com/gagliardetto/solana-go"
)

// withTable gives a policy and a draft a lookup table with what a batch's message takes from it.
func (b *bench) withTable(t *testing.T, d *draft, batch Batch, more ...solana.PublicKey) {
	t.Helper()
	table := LookupTable{Address: randomKey(t), Addresses: append([]solana.PublicKey{
		randomKey(t), b.policy.Mint, b.tokenAccount(t, b.treasury), solana.SysVarRecentBlockHashesPubkey,
	}, more...)}
	for _, payout := range batch.Payouts {
		table.Addresses = append(table.Addresses, b.tokenAccount(t, payout.Wallet))
	}
	b.policy.LookupTables = append(b.policy.LookupTables, table)
	if err := b.policy.WriteFile(b.options.PolicyFile); err != nil {
		t.Fatal(err)
	}
	d.version, d.tables = solana.MessageVersionV0, map[solana.PublicKey]solana.PublicKeySlice{table.Address: table.Addresses}
}

func TestSignsWithAListedLookupTable(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	batch := b.batch(t, 5, 7)
	d := b.draft(t, batch)
	b.withTable(t, d, batch)
	message := d.bytes(t)
	signature, err := signBatch(t, b.vault(t), message, batch)
	if err != nil || !signature.Verify(b.treasury, message) {
		t.Fatalf("%v, %v", signature, err)
	}
}

func TestANonceInALookupTableIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	batch := b.batch(t, 5, 7)
	d := b.draft(t, batch)
	b.withTable(t, d, batch, b.policy.Nonces[0]) // solana-go's builder moves it there
	_, err := signBatch(t, b.vault(t), d.bytes(t), batch)
	wantRule(t, err, RuleNonce)
}

func TestTheTableThatThePolicyListsIsBelieved(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rule   Rule
		change func(t *testing.T, table *LookupTable)
	}{
		"another payee in its place": {RulePayee, func(t *testing.T, table *LookupTable) { table.Addresses[len(table.Addresses)-1] = randomKey(t) }},
		"fewer addresses":            {RuleLookupTable, func(_ *testing.T, table *LookupTable) { table.Addresses = table.Addresses[:2] }},
		"an address twice":           {RuleMalformed, func(_ *testing.T, table *LookupTable) { table.Addresses[1] = table.Addresses[2] }},
		"an account that is listed already": {RuleMalformed, func(_ *testing.T, table *LookupTable) {
			table.Addresses[1] = solana.TokenProgramID
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			batch := b.batch(t, 5, 7)
			d := b.draft(t, batch)
			b.withTable(t, d, batch)
			message := d.bytes(t)
			b.policy.LookupTables[0].Addresses = slices.Clone(b.policy.LookupTables[0].Addresses)
			test.change(t, &b.policy.LookupTables[0])
			if err := b.policy.WriteFile(b.options.PolicyFile); err != nil {
				t.Fatal(err)
			}
			_, err := signBatch(t, b.vault(t), message, batch)
			wantRule(t, err, test.rule)
		})
	}
}
