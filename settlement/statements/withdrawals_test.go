package statements_test

import (
	"bytes"
	"encoding/csv"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// withdraw takes a token out of the balance as a withdrawal does, and puts it into a batch.
func (b *bench) withdraw() ids.Batch {
	b.Helper()
	const address, amount = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", 1_000_000
	id, batch, user := ids.New[ids.Withdrawal](), ids.New[ids.Batch](), ids.New[ids.User]()
	err := pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := b.book.Post(b.Context(), tx, ledger.Entry{
			Key: "withdrawal:" + id.String(), Kind: "withdrawal",
			Legs: []ledger.Leg{{Debit: b.available(), Credit: ledger.Of(ledger.PayoutInFlight, b.customer), Amount: amount}},
		})
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.exec(`INSERT INTO users (id, wallet_address) VALUES ($1, $2)`, user, user.String())
	b.exec(`INSERT INTO withdrawals (id, org_id, purpose, mint, amount, wallet, taken_from, taken_org_id) VALUES ($1, $2, 'withdrawal', $3, $4, $3, 'customer_available', $2)`,
		id, b.customer, address, amount)
	b.exec(`INSERT INTO payout_batches (id, mint, total, payee_count, nonce_account, nonce_value) VALUES ($1, $2, $3, 1, $2, $2)`, batch, address, amount)
	b.exec(`INSERT INTO payouts (id, batch_id, payee_org_id, wallet, token_account, creates_account, amount, sequence, purpose, withdrawal_id)
		VALUES ($1, $2, $3, $4, $4, false, $5, 1, 'withdrawal', $6)`, ids.New[ids.Payout](), batch, b.customer, address, amount, id)
	b.exec(`UPDATE payout_batches SET state = 'approved', approved_by = $2, approved_at = now() WHERE id = $1`, batch, user)
	return batch
}

// TestAWithdrawalNamesTheBatchThatPaidIt: in the statement and its file, and not before it is final.
func TestAWithdrawalNamesTheBatchThatPaidIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(5_000_000)
	batch := b.withdraw()
	last := func() []string {
		rows, err := csv.NewReader(bytes.NewReader(b.CSV(b.statement(0, -1)))).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		row := rows[slices.IndexFunc(rows, func(row []string) bool { return row[0] == "withdrawal" })]
		return []string{row[slices.Index(rows[0], "batch_id")], row[slices.Index(rows[0], "signature")]}
	}
	if got := last(); !slices.Equal(got, []string{"", ""}) {
		t.Errorf("before it is paid the file says %q", got)
	}
	signature := strings.Repeat("S", 88)
	b.exec(`UPDATE payout_batches SET state = 'signed', message = '\x00', signing_started_at = now() WHERE id = $1`, batch)
	b.exec(`INSERT INTO payout_transactions (signature, batch_id, nonce_account, nonce_value, wire) SELECT $2, id, nonce_account, nonce_value, '\x00' FROM payout_batches WHERE id = $1`, batch, signature)
	b.exec(`UPDATE payout_batches SET state = 'sent' WHERE id = $1`, batch)
	b.exec(`UPDATE payout_batches SET state = 'finalized', finalized_at = now() WHERE id = $1`, batch)
	if got := last(); !slices.Equal(got, []string{batch.String(), signature}) {
		t.Errorf("the file says %q, the batch is %s", got, batch)
	}
	if moves := b.statement(0, -1).Movements; moves[1].Batch != batch || !moves[0].Batch.IsZero() {
		t.Errorf("the movements are %+v", moves)
	}
}
