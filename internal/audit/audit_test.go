package audit_test

import (
	"context"
	"errors"
	"slices"
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

// TestFilterLetsThrough: what is zero says nothing, and pages go on within what is let through.
func TestFilterLetsThrough(t *testing.T) {
	t.Parallel()
	pool := testkit.DB(t)
	ada, nameless := ids.New[ids.User](), ids.New[ids.User]()
	if _, err := pool.Exec(t.Context(), `INSERT INTO users (id, name, wallet_address) VALUES ($1, 'Ada L.', 'w1'), ($2, '', 'Nameless1')`, ada, nameless); err != nil {
		t.Fatal(err)
	}
	for _, event := range []audit.Event{
		{By: ada, Action: "period.close", Subject: "2026-10"},
		{By: nameless, Action: "period.ask_reopen", Subject: "2026-10"},
		{By: ada, Action: "period.reopen", Subject: "2026-10"},
		{Action: "run.start", Subject: "run"},
	} {
		if err := record(t.Context(), pool, event); err != nil {
			t.Fatal(err)
		}
	}
	all, err := audit.List(t.Context(), pool, 0, 0)
	if err != nil || len(all) != 4 {
		t.Fatalf("all: %+v, %v", all, err)
	}
	for name, c := range map[string]struct {
		filter audit.Filter
		before int64
		want   []int64
	}{
		"nothing":                {want: []int64{4, 3, 2, 1}},
		"part of a name":         {filter: audit.Filter{Person: "ada"}, want: []int64{3, 1}},
		"part of a wallet":       {filter: audit.Filter{Person: "NAMELESS"}, want: []int64{2}},
		"a hidden wallet":        {filter: audit.Filter{Person: "w1"}},
		"no pattern":             {filter: audit.Filter{Person: "%"}},
		"an action":              {filter: audit.Filter{Action: "run.start"}, want: []int64{4}},
		"a subject":              {filter: audit.Filter{Subject: "2026-10"}, want: []int64{3, 2, 1}},
		"its next page":          {filter: audit.Filter{Subject: "2026-10"}, before: 3, want: []int64{2, 1}},
		"from a moment on":       {filter: audit.Filter{From: all[1].At}, want: []int64{4, 3}},
		"before a moment":        {filter: audit.Filter{Until: all[1].At}, want: []int64{2, 1}},
		"person and subject":     {filter: audit.Filter{Person: "Ada", Subject: "2026-10", Action: "period.close"}, want: []int64{1}},
		"what does not go along": {filter: audit.Filter{Person: "Ada", Action: "run.start"}},
	} {
		lines, err := audit.Find(t.Context(), pool, c.filter, c.before, 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []int64
		for _, line := range lines {
			got = append(got, line.Seq)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s let lines %v through, want %v", name, got, c.want)
		}
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
