package statements

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

const (
	// MaxPeriod is the longest period of a statement: a leap year.
	MaxPeriod = 366 * 24 * time.Hour
	// MaxLines bounds the lines of one kind in a statement, and the rows of an export.
	MaxLines = 50_000

	day = 24 * time.Hour
)

// Period is whole UTC days.
type Period struct {
	From, To time.Time // To is exclusive
}

// Validate says what is wrong with a period; paths are those of the API's parameters.
func (p Period) Validate() error {
	switch {
	case !p.From.Equal(p.From.Truncate(day)) || !p.To.Equal(p.To.Truncate(day)):
		return errs.InvalidField("query.from", "a statement is of whole UTC days")
	case !p.From.Before(p.To):
		return errs.InvalidField("query.to", "the day after the last one must come after the first")
	case p.To.Sub(p.From) > MaxPeriod:
		return errs.InvalidField("query.to", "a statement is of at most a year: ask for several")
	}
	return nil
}

// Month is the calendar month of a moment, in UTC.
func Month(at time.Time) Period {
	year, month, _ := at.UTC().Date()
	from := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
	return Period{From: from, To: from.AddDate(0, 1, 0)}
}

// Head is what every statement begins with.
type Head struct {
	Period
	Org  ids.Org
	Name string
	Made time.Time // by the database's clock; later postings are not in it
}

// Open reports whether the period had not ended.
func (h Head) Open() bool { return h.Made.Before(h.To) }

// Movement is one transfer into or out of a balance.
type Movement struct {
	ID        ids.Transfer
	At        time.Time
	Kind      string
	Text      string
	Amount    money.Amount // signed
	Cluster   ids.Cluster
	Name      string // of the cluster, on a customer's statement
	Batch     ids.Batch
	Signature string
}

// Lease is what one lease was charged in a period.
type Lease struct {
	ID       ids.Lease
	Cluster  ids.Cluster
	Name     string // of the cluster
	Host     ids.Host
	HostName string
	Region   string
	GPUModel string
	Price    money.Amount // per GPU-hour
	FeeBps   int
	MS       int64
	Charged  money.Amount
	Fee      money.Amount
	Days     int // on which it was charged
}

// Net is the owner's part.
func (l Lease) Net() money.Amount { return l.Charged - l.Fee }

// Service makes statements. Make it with New.
type Service struct {
	pool     *pgxpool.Pool
	currency money.Currency
	log      *slog.Logger
}

// New makes a service for one currency's ledger.
func New(pool *pgxpool.Pool, book *ledger.Ledger, log *slog.Logger) *Service {
	return &Service{pool: pool, currency: book.Currency(), log: log}
}

// snapshot runs reads that see one state of the database.
func (s *Service) snapshot(ctx context.Context, read func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, read)
}

func (s *Service) head(ctx context.Context, tx pgx.Tx, org ids.Org, period Period) (Head, error) {
	h := Head{Period: period, Org: org}
	if err := tx.QueryRow(ctx, `SELECT name, now() FROM organisations WHERE id = $1`, org).Scan(&h.Name, &h.Made); err != nil {
		return h, fmt.Errorf("read the organisation: %w", err)
	}
	h.Made = h.Made.UTC()
	return h, nil
}

// mismatch is what a statement becomes that does not tie out. It is a defect, or somebody has written past the ledger.
func (s *Service) mismatch(ctx context.Context, h Head, what string, lines, book money.Amount) error {
	s.log.ErrorContext(ctx, "a statement does not tie out", "org_id", h.Org, "from", h.From, "to", h.To, "what", what, "lines", lines, "ledger", book)
	return fmt.Errorf("statement of %s: %s: the lines come to %d, the ledger has %d", h.Org, what, lines, book)
}

func tooMuch(what string) error {
	return errs.New(errs.TooLarge, "the period has more than %d %s: ask for a shorter one", MaxLines, what)
}
