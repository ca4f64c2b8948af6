package schedulerdb_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// machines are the tables with a state, and what a row needs beside it to pass the table's other checks.
var machines = map[string]string{
	"hosts":    `UPDATE hosts SET state = $2 WHERE id = $1`,
	"bookings": `UPDATE bookings SET state = $2, requested_at = now(), bids_close_at = now(), starts_at = now(), refusal_code = CASE WHEN $2 = 'refused' THEN 'no_capacity' END WHERE id = $1`,
	"clusters": `UPDATE clusters SET state = $2, fault_party = 'customer', ended_at = CASE WHEN $2 IN ('released', 'failed') THEN now() END WHERE id = $1`,
	"nodes":    `UPDATE nodes SET state = $2, ended_at = CASE WHEN $2 IN ('stopped', 'failed') THEN now() END WHERE id = $1`,
	"leases":   `UPDATE leases SET state = $2, closed_at = CASE WHEN $2 = 'closed' THEN now() END WHERE id = $1`,
}

// documented reads the tables of states in the package's documentation: machine, state, states that may follow.
func documented(t *testing.T) map[string]map[string][]string {
	t.Helper()
	source, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	tables := make(map[string]map[string][]string)
	for _, line := range regexp.MustCompile(`(?m)^//\t(\w+) +(\w+) +-> (.+)$`).FindAllStringSubmatch(string(source), -1) {
		machine, from := line[1], line[2]
		if tables[machine] == nil {
			tables[machine] = make(map[string][]string)
		}
		tables[machine][from] = []string{}
		if line[3] != "none" {
			tables[machine][from] = strings.Split(line[3], ", ")
		}
	}
	return tables
}

func TestTheSchemaAcceptsTheDocumentedChangesOfStateAlone(t *testing.T) {
	t.Parallel()
	tables := documented(t)
	if len(tables) != len(machines) {
		t.Fatalf("%d machines are documented, want %d", len(tables), len(machines))
	}
	w := schedulertest.New(t)
	w.AddHead()
	w.AddHost("H100", 1, 1_000_000, "eu")
	w.Book(schedulertest.Spec(1, 1))
	for machine, update := range machines {
		t.Run(machine, func(t *testing.T) {
			t.Parallel()
			states := statesOf(t, w.Pool, machine)
			if len(states) != len(tables[machine]) {
				t.Errorf("the schema has the states %q, documented are those of %v", states, tables[machine])
			}
			for _, from := range states {
				for _, to := range states {
					accepted, err := tryChange(t.Context(), w.Pool, machine, update, from, to)
					if err != nil {
						t.Fatalf("%s -> %s: %v", from, to, err)
					}
					if want := from == to || slices.Contains(tables[machine][from], to); accepted != want {
						t.Errorf("%s -> %s: accepted is %t, documented is %t", from, to, accepted, want)
					}
				}
			}
		})
	}
}

// statesOf reads the states of a machine from its table's check.
func statesOf(t *testing.T, pool *pgxpool.Pool, machine string) []string {
	t.Helper()
	var check string
	if err := pool.QueryRow(t.Context(), `SELECT pg_get_constraintdef(oid) FROM pg_constraint
		WHERE conrelid = $1::regclass AND conname = $1 || '_state_check'`, machine).Scan(&check); err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, match := range regexp.MustCompile(`'(\w+)'::text`).FindAllStringSubmatch(check, -1) {
		states = append(states, match[1])
	}
	if len(states) < 3 {
		t.Fatalf("the check of %s is %s", machine, check)
	}
	return states
}

// tryChange puts a row of a machine into a state behind the trigger's back and then changes it before its eyes. It leaves nothing.
func tryChange(ctx context.Context, pool *pgxpool.Pool, machine, update, from, to string) (accepted bool, err error) {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	var id uuid.UUID
	if err := tx.QueryRow(ctx, "SELECT id FROM "+machine+" ORDER BY id LIMIT 1").Scan(&id); err != nil {
		return false, err
	}
	if _, err := tx.Exec(ctx, fmt.Sprintf("ALTER TABLE %[1]s DISABLE TRIGGER %[1]s_transition", machine)); err != nil {
		return false, err
	}
	if _, err := tx.Exec(ctx, update, id, from); err != nil {
		return false, fmt.Errorf("prepare: %w", err)
	}
	if _, err := tx.Exec(ctx, fmt.Sprintf("ALTER TABLE %[1]s ENABLE TRIGGER %[1]s_transition", machine)); err != nil {
		return false, err
	}
	_, err = tx.Exec(ctx, update, id, to)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.ConstraintName == machine+"_transition" {
		return false, nil
	}
	return err == nil, err
}

// interval is a row of usage, in seconds since its start.
type interval struct {
	confirmed, limit int64
	ended            bool
}

func TestConfirmedTimeOnlyGrowsUpToTheLimitAndEndsForGood(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	w.AddHost("H100", 1, 1_000_000, "eu")
	w.Ready(schedulertest.Spec(1, 1))
	limit := int64(time.Hour / time.Second)
	rapid.Check(t, func(r *rapid.T) {
		tx, err := w.Pool.Begin(t.Context())
		if err != nil {
			r.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		model := interval{limit: limit}
		if _, err := tx.Exec(t.Context(), `UPDATE usage SET confirmed_at = started_at`); err != nil {
			r.Fatal(err)
		}
		model.confirmed = readInterval(t, r, tx).confirmed
		for range rapid.IntRange(1, 12).Draw(r, "updates") {
			to, end := rapid.Int64Range(-limit, 2*limit).Draw(r, "confirm"), rapid.IntRange(0, 5).Draw(r, "end") == 0
			if _, err := tx.Exec(t.Context(), `UPDATE usage SET confirmed_at = started_at + make_interval(secs => $1),
				ended_at = CASE WHEN $2 THEN clock_timestamp() END`, to, end); err != nil {
				r.Fatalf("confirm %d, end %t: %v", to, end, err)
			}
			if !model.ended {
				model.confirmed = max(model.confirmed, min(to, model.limit))
				model.ended = end
			}
			if got := readInterval(t, r, tx); got != model {
				r.Fatalf("after confirm %d, end %t: %+v, want %+v", to, end, got, model)
			}
		}
	})
}

func readInterval(t *testing.T, r *rapid.T, tx pgx.Tx) (i interval) {
	if err := tx.QueryRow(t.Context(), `SELECT extract(epoch FROM confirmed_at - started_at)::bigint,
		extract(epoch FROM limit_at - started_at)::bigint, ended_at IS NOT DISTINCT FROM confirmed_at FROM usage`).
		Scan(&i.confirmed, &i.limit, &i.ended); err != nil {
		r.Fatal(err)
	}
	return i
}
