package close_test

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/google/uuid"
)

// TestSnapshotsOfOlderVersionsAreReadAndChecked: the text is what was written before closings had SOL and token accounts without a ledger
// account. It is neither written anew nor found to be another.
func TestSnapshotsOfOlderVersionsAreReadAndChecked(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	run := b.reconciled("clean", 0)
	b.spendSOL()
	account := `"org":"` + uuid.UUID(b.customer).String() + `","opening":"0","debits":"%s","credits":"%s","closing":"3500000"}`
	snapshot := `{"month":"2026-03","mint":"` + currency.Mint + `","entries":2,"debits":"6500000","credits":"6500000","accounts":[` +
		`{"kind":"chain_deposits",` + fmt.Sprintf(account, "5000000", "1500000") + `,{"kind":"customer_available",` + fmt.Sprintf(account, "1500000", "5000000") +
		`],"chain":[{"name":"treasury","token_account":"a","balance":"7","transactions":2,"slot":9}]}`
	sum := sha256.Sum256([]byte(snapshot))
	b.exec(`INSERT INTO period_closings (month, mint, reconciliation_id, snapshot, sha256, closed_by) VALUES ($1, $2, $3, $4, $5, $6)`,
		march(t).Time, currency.Mint, run, snapshot, sum[:], b.one)
	c, err := b.Closing(t.Context(), march(t))
	if err != nil || c.Figures.Entries != 2 || len(c.Figures.Chain) != 1 || c.Figures.SOL != nil || c.Figures.Holdings != nil {
		t.Fatalf("it is read as %+v, %v", c.Figures, err)
	}
	if intact, err := b.Check(t.Context(), c); err != nil || !intact {
		t.Errorf("it is intact: %t, %v", intact, err)
	}
}

// TestWalletThatBecomesTheTreasurysLater: what it did in a month that was closed without it does not make that month another.
func TestWalletThatBecomesTheTreasurysLater(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.spendSOL()
	b.reconciled("clean", 0)
	c, err := b.Close(t.Context(), march(t), b.one)
	if err != nil {
		t.Fatal(err)
	}
	b.exec(`WITH written AS (INSERT INTO sol_transactions (wallet, seq, signature, slot, at, failed, before, after)
			VALUES ($1, 1, repeat('6', 64), 11, '2026-03-10 00:00:00Z', false, 0, 7))
		INSERT INTO sol_lines (wallet, seq, ordinal, kind, lamports) VALUES ($1, 1, 1, 'top_up', 7)`, "9"+wallet[1:])
	if intact, err := b.Check(t.Context(), c); err != nil || !intact {
		t.Errorf("the month is intact: %t, %v", intact, err)
	}
}
