package proof_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
	"github.com/muster-gpu/muster/settlement/proof"
)

func TestATreasuryIsFoundByItsAccountOrItsWallet(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.honest()
	for _, treasury := range []chain.Address{b.chain.TreasuryTokenAccount, b.chain.Treasury} {
		c, err := proof.Connect(t.Context(), proof.Place{RPC: localchaintest.URL(), Treasury: treasury.String(), Manifests: b.dir, HTTP: http.DefaultClient})
		check(t, err)
		if c.Treasury.Address != b.chain.TreasuryTokenAccount || c.Decimals != b.chain.Currency().Decimals {
			t.Errorf("%s leads to %+v", treasury, c)
		}
		report, err := c.Verify(t.Context(), chain.Span{}, nil)
		check(t, err)
		if !report.Verified || report.Batches != 2 {
			t.Errorf("by %s: %+v", treasury, report)
		}
		check(t, c.Close())
	}
}

func TestAWrongPlaceIsSaidInWords(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	foreign, err := b.chain.CreateToken(t.Context(), chain.TokenProgram, 2)
	check(t, err)
	_, err = b.chain.MintOther(t.Context(), foreign, b.chain.Treasury, 1)
	check(t, err)
	good := proof.Place{RPC: localchaintest.URL(), Treasury: b.chain.TreasuryTokenAccount.String(), Manifests: b.dir, HTTP: http.DefaultClient}
	for says, change := range map[string]func(*proof.Place){
		"is not the address of a treasury": func(p *proof.Place) { p.Treasury = "treasury" },
		"must be an http or https URL":     func(p *proof.Place) { p.RPC = "chain" },
		"has 2 token accounts":             func(p *proof.Place) { p.Treasury = b.chain.Treasury.String() },
		"has 0 token accounts":             func(p *proof.Place) { p.Treasury = chain.Address{1}.String() },
		"is no token account":              func(p *proof.Place) { p.Treasury = b.chain.Mint.String() },
		"is not the address of a Muster":   func(p *proof.Place) { p.Manifests = "ftp://x" },
	} {
		place := good
		change(&place)
		c, err := proof.Connect(t.Context(), place)
		if errs.CodeOf(err) != errs.Invalid || !strings.Contains(err.Error(), says) {
			t.Errorf("want an error that says %q: %v, %v", says, c, err)
		}
	}
}
