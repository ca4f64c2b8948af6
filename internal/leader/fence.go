package leader

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// termConstraint is what assert_leader names in its error.
const termConstraint = "leadership_term"

// Assert keeps a former leader from writing: it fails the transaction, with an error that TermPassed knows, unless the term is the role's
// newest and has not expired. Until the transaction ends nobody takes the lead over.
func Assert(ctx context.Context, tx pgx.Tx, role string, term int64) error {
	if _, err := tx.Exec(ctx, `SELECT assert_leader($1, $2)`, role, term); err != nil {
		return fmt.Errorf("check leadership: %w", err)
	}
	return nil
}

// TermPassed reports whether an error says that another process leads now.
func TermPassed(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.ConstraintName == termConstraint
}
