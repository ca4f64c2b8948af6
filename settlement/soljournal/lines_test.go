package soljournal

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// TestLinesAreTheWholeChange: whatever a transaction did to whom, the lines add up to what the wallet has more or less, and have its sign.
func TestLinesAreTheWholeChange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := chain.LamportMovement{
			Pre: rapid.Uint64Range(0, 1<<50).Draw(t, "before"), Post: rapid.Uint64Range(0, 1<<50).Draw(t, "after"), Fee: rapid.Uint64Range(0, 1<<20).Draw(t, "fee"),
			Signatures: rapid.IntRange(1, 12).Draw(t, "signatures"),
		}
		moved := int64(m.Post) - int64(m.Pre) + int64(m.Fee)
		rest := moved
		for i := range rapid.IntRange(0, 5).Draw(t, "others") {
			c := chain.LamportChange{Account: chain.Address{byte(i)}, Change: rapid.Int64Range(-1<<30, 1<<30).Draw(t, "change"), Rent: rapid.Bool().Draw(t, "rent")}
			m.Others = append(m.Others, c)
			rest += c.Change
		}
		if rapid.Bool().Draw(t, "balanced") && rest != 0 {
			m.Others = append(m.Others, chain.LamportChange{Account: chain.Address{99}, Change: -rest})
		}
		lines, err := linesOf(m)
		if err != nil {
			t.Fatal(err)
		}
		sum := money.Amount(0)
		for _, l := range lines {
			sum += l.lamports
			if positive := l.kind == TopUp || l.kind == RentBack; positive != (l.lamports > 0) || l.lamports == 0 {
				t.Fatalf("a %s of %d", l.kind, l.lamports)
			}
		}
		if want := money.Amount(m.Post) - money.Amount(m.Pre); sum != want {
			t.Fatalf("the lines %+v add up to %d, want %d", lines, sum, want)
		}
	})
}
