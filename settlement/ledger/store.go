package ledger

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
)

// DB is what reading needs: a pool, a connection or a transaction.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// transferRows are transfers column by column, as unnest wants them.
type transferRows struct {
	ids, entries, debits, credits  []string
	ordinals                       []int32
	amounts, debitSeqs, creditSeqs []int64
	debitBalances, creditBalances  []int64
}

// add appends the transfer that left both accounts as they now are.
func (r *transferRows) add(entry ids.Entry, ordinal int, amount money.Amount, debit, credit *locked) {
	r.ids = append(r.ids, uuidText(ids.New[ids.Transfer]()))
	r.entries = append(r.entries, uuidText(entry))
	r.ordinals = append(r.ordinals, int32(ordinal))
	r.debits, r.credits = append(r.debits, uuidText(debit.id)), append(r.credits, uuidText(credit.id))
	r.amounts = append(r.amounts, int64(amount))
	r.debitSeqs, r.creditSeqs = append(r.debitSeqs, debit.seq), append(r.creditSeqs, credit.seq)
	r.debitBalances = append(r.debitBalances, int64(debit.balance))
	r.creditBalances = append(r.creditBalances, int64(credit.balance))
}

// write inserts the transfers and then the balances that they explain, which the schema's projection trigger compares.
func write(ctx context.Context, tx pgx.Tx, mint string, r transferRows, accounts map[Account]*locked) error {
	var accountIDs []string
	var balances, seqs []int64
	for _, a := range accounts {
		accountIDs, balances, seqs = append(accountIDs, uuidText(a.id)), append(balances, int64(a.balance)), append(seqs, a.seq)
	}
	batch := &pgx.Batch{}
	batch.Queue(`
		INSERT INTO ledger_transfers (id, entry_id, ordinal, mint, debit_account, credit_account, amount,
		                              debit_seq, credit_seq, debit_balance, credit_balance)
		SELECT n.id, n.entry_id, n.ordinal, $1, n.debit_account, n.credit_account, n.amount,
		       n.debit_seq, n.credit_seq, n.debit_balance, n.credit_balance
		FROM unnest($2::uuid[], $3::uuid[], $4::int[], $5::uuid[], $6::uuid[], $7::bigint[],
		            $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
			AS n (id, entry_id, ordinal, debit_account, credit_account, amount, debit_seq, credit_seq, debit_balance, credit_balance)`,
		mint, r.ids, r.entries, r.ordinals, r.debits, r.credits, r.amounts, r.debitSeqs, r.creditSeqs, r.debitBalances, r.creditBalances)
	batch.Queue(`
		UPDATE ledger_accounts a SET balance = n.balance, last_seq = n.last_seq
		FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS n (id, balance, last_seq)
		WHERE a.id = n.id`, accountIDs, balances, seqs)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("write transfers: %w", err)
	}
	return nil
}

func columns(refs []Account) (kinds []string, orgs []*string) {
	kinds, orgs = make([]string, len(refs)), make([]*string, len(refs))
	for i, ref := range refs {
		kinds[i] = string(ref.Kind)
		if !ref.Org.IsZero() {
			text := uuidText(ref.Org)
			orgs[i] = &text
		}
	}
	return kinds, orgs
}

// uuidText is the form in which arrays of ids reach Postgres: the driver encodes single ids by their Value method, arrays not.
func uuidText[K ids.Kind](id ids.ID[K]) string { return uuid.UUID(id).String() }
