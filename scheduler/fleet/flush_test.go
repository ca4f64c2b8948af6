package fleet_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

func TestFailedFlushLeavesTheNewestStreamItsBeat(t *testing.T) {
	t.Parallel()
	host, heard := ids.New[ids.Host](), time.Unix(1_800_000_000, 0)
	older := fleet.Beat{Stream: 3, At: heard, Generation: 7, Confirms: true}
	newer := fleet.Beat{Stream: 4, At: heard.Add(time.Second), Generation: 5}
	want := newer
	want.Generation = 7 // the host has applied it, whatever it has said since
	for name, c := range map[string]struct{ failed, since fleet.Beat }{
		"the older stream's failed":                           {older, newer},
		"the newer stream's failed, then the older was heard": {newer, older},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := fleet.NewPending()
			p.Beat(host, c.failed)
			taken := p.Take()
			p.Beat(host, c.since)
			p.PutBack(taken)
			if got := p.Take()[host]; got != want {
				t.Errorf("%+v is to be written, not %+v", got, want)
			}
		})
	}
}

// TestFailedFlushesLoseNothing holds flushes that fail at any point to what one flush of all beats would write.
func TestFailedFlushesLoseNothing(t *testing.T) {
	t.Parallel()
	host, start := ids.New[ids.Host](), time.Unix(1_800_000_000, 0)
	rapid.Check(t, func(t *rapid.T) {
		whole, interrupted := fleet.NewPending(), fleet.NewPending()
		for i := range rapid.IntRange(1, 12).Draw(t, "beats") {
			b := fleet.Beat{
				Stream: rapid.Int64Range(1, 3).Draw(t, "stream"), At: start.Add(time.Duration(i) * time.Second),
				Generation: rapid.Int64Range(0, 5).Draw(t, "generation"), Confirms: rapid.Bool().Draw(t, "confirms"),
			}
			whole.Beat(host, b)
			if rapid.Bool().Draw(t, "in a flush that fails") {
				taken := interrupted.Take()
				interrupted.Beat(host, b)
				interrupted.PutBack(taken)
			} else {
				interrupted.Beat(host, b)
			}
		}
		if want, got := whole.Take()[host], interrupted.Take()[host]; got != want {
			t.Fatalf("%+v is to be written, not %+v", got, want)
		}
	})
}

func TestFlushFindsItsHostsByIndexAndLeavesTheConnectionAsItWas(t *testing.T) {
	t.Parallel()
	pool := testkit.DB(t)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	session := conn.Conn().PgConn().PID()
	conn.Release()
	batch, during, after, pid := &pgx.Batch{}, "", "", uint32(0)
	batch.Queue(`SELECT current_setting('enable_seqscan'), pg_backend_pid()::bigint`).QueryRow(func(row pgx.Row) error { return row.Scan(&during, &pid) })
	if err := (fleet.Indexed{Pool: pool}).SendBatch(t.Context(), batch).Close(); err != nil || during != "off" || pid != session {
		t.Errorf("sequential scans are %q in a flush on connection %d, %v", during, pid, err)
	}
	if err := pool.QueryRow(t.Context(), `SELECT current_setting('enable_seqscan'), pg_backend_pid()::bigint`).Scan(&after, &pid); err != nil || after != "on" || pid != session {
		t.Errorf("sequential scans are %q on connection %d after a flush, %v", after, pid, err)
	}
}

func TestErrorOfABatchIsNotLost(t *testing.T) {
	t.Parallel()
	batch := &pgx.Batch{}
	batch.Queue(`SELECT 1 / 0`)
	if err := (fleet.Indexed{Pool: testkit.DB(t)}).SendBatch(t.Context(), batch).Close(); err == nil {
		t.Error("a statement that fails is taken for written")
	}
}
