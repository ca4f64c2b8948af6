package audit_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/audit"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func record(ctx context.Context, pool *pgxpool.Pool, event audit.Event) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return audit.Record(ctx, tx, event) })
}

// TestLogIsOneChain: writers at once take turns, and what is rolled back leaves no hole.
func TestLogIsOneChain(t *testing.T) {
	t.Parallel()
	pool := testkit.DB(t)
	user := ids.New[ids.User]()
	if _, err := pool.Exec(t.Context(), `INSERT INTO users (id, wallet_address) VALUES ($1, 'w')`, user); err != nil {
		t.Fatal(err)
	}
	undone := errors.New("undone")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if err := record(t.Context(), pool, audit.Event{By: user, Action: "batch.approve", Subject: "b", Details: map[string]int{"n": 1}}); err != nil {
				t.Error(err)
			}
			err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				return errors.Join(audit.Record(t.Context(), tx, audit.Event{Action: "batch.cancel", Subject: "b"}), undone)
			})
			if !errors.Is(err, undone) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if err := audit.Verify(t.Context(), pool); err != nil {
		t.Error(err)
	}
	lines, err := audit.List(t.Context(), pool, 0, 3)
	if err != nil || len(lines) != 3 || lines[0].Seq != 8 || lines[0].By != user || lines[0].Details != `{"n":1}` {
		t.Errorf("the newest lines are %+v, %v", lines, err)
	}
	lines, err = audit.List(t.Context(), pool, 3, 0)
	if err != nil || len(lines) != 2 || lines[0].Seq != 2 {
		t.Errorf("the lines before the third are %+v, %v", lines, err)
	}
}

// TestAlteredLogIsFound plants what somebody with the database's superuser could do.
func TestAlteredLogIsFound(t *testing.T) {
	t.Parallel()
	for name, fraud := range map[string]string{
		"changed":    `UPDATE audit_log SET subject = 'another' WHERE seq = 2`,
		"left out":   `DELETE FROM audit_log WHERE seq = 2`,
		"renumbered": `UPDATE audit_log SET seq = seq + 1 WHERE seq = 3`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := testkit.DB(t)
			for _, subject := range []string{"a", "b", "c"} {
				if err := record(t.Context(), pool, audit.Event{Action: "period.close", Subject: subject}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := pool.Exec(t.Context(), fraud); err == nil {
				t.Fatal("the schema let a line change")
			}
			err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), `SET LOCAL session_replication_role = replica`); err != nil {
					return err
				}
				_, err := tx.Exec(t.Context(), fraud)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if !audit.IsBroken(audit.Verify(t.Context(), pool)) {
				t.Error("the fraud was not found")
			}
		})
	}
}
