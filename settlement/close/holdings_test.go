package close_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/muster-gpu/muster/internal/ids"
	closing "github.com/muster-gpu/muster/settlement/close"
)

// hold notes a token account as a run does.
func (b *books) hold(account int, mint, units string, decimals int) string {
	b.Helper()
	address := fmt.Sprintf("Account%025d", account)
	b.exec(`INSERT INTO holding_wallets (wallet, left_out, too_many) VALUES ($1, 7, false) ON CONFLICT DO NOTHING`, spammed)
	b.exec(`INSERT INTO holdings (id, token_account, wallet, mint, program, decimals, amount, slot) VALUES ($1, $2, $3, $4, 'token', $5, $6::numeric, 1)`,
		ids.New[ids.Holding](), address, spammed, mint, decimals, units)
	return address
}

const (
	spammed = "Wa11et11111111111111111111111111"
	spam    = "Spam1111111111111111111111111111"
)

// TestForeignTokensAreFrozenAsInformation: they do not keep a month from being closed, and more of them later do not change it.
func TestForeignTokensAreFrozenAsInformation(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	foreign := b.hold(1, spam, "18446744073709551615", 2)
	own := b.hold(2, currency.Mint, "1500000", currency.Decimals)
	b.hold(3, spam, "0", 2)
	b.reconciled("clean", 0)
	c, err := b.Close(t.Context(), march(t), b.one)
	if err != nil {
		t.Fatal(err)
	}
	h := c.Figures.Holdings
	if h == nil || h.Settlement != 1 || h.Foreign != 1 || h.LeftOut != 7 || h.TooMany != 0 || len(h.List) != 2 || h.List[0].TokenAccount != own ||
		h.List[1].TokenAccount != foreign || h.List[1].Units != "18446744073709551615" {
		t.Fatalf("the holdings are %+v", h)
	}
	for _, a := range c.Figures.Accounts {
		if a.Closing != 3_500_000 {
			t.Errorf("a figure has them: %+v", a)
		}
	}
	b.hold(4, spam, "1", 2)
	if intact, err := b.Check(t.Context(), c); err != nil || !intact {
		t.Errorf("after more came the month is intact: %v, %v", intact, err)
	}
	var page bytes.Buffer
	if err := b.Report(&page, c, map[ids.User]string{}, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{foreign, own, "184467440737095516.15", "1.500000", "1 of other tokens", "7 more accounts"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// TestMonthsClosedBeforeKeepTheirHash: their figures had no holdings.
func TestMonthsClosedBeforeKeepTheirHash(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(closing.Figures{})
	if err != nil || strings.Contains(string(text), "holdings") {
		t.Errorf("figures without holdings are %s, %v", text, err)
	}
}
