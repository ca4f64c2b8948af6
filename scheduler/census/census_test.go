package census_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// entries are what a census says, in one order.
func entries(c *census.Census) []placement.Host {
	var hosts []placement.Host
	c.Read(func(x *placement.Index) {
		for h := range x.All() {
			h.Leases, h.Reserved = normal(h.Leases), normal(h.Reserved)
			h.Images = append([]string{}, h.Images...)
			hosts = append(hosts, h)
		}
	})
	slices.SortFunc(hosts, func(a, b placement.Host) int {
		return cmp.Or(slices.Compare(a.ID[:], b.ID[:]), cmp.Compare(a.Model, b.Model))
	})
	return hosts
}

// normal joins spans of one time and sorts them.
func normal(spans []placement.Span) []placement.Span {
	type during struct{ from, to int64 }
	joined := make(map[during]uint64)
	for _, s := range spans {
		joined[during{s.From, s.To}] |= s.GPUs
	}
	var list []placement.Span
	for d, gpus := range joined {
		list = append(list, placement.Span{GPUs: gpus, From: d.from, To: d.to})
	}
	slices.SortFunc(list, func(a, b placement.Span) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	return list
}

// wantSame compares a census with one that has just read everything.
func wantSame(t interface {
	Helper()
	Fatalf(format string, args ...any)
}, w *schedulertest.World, c *census.Census,
) {
	t.Helper()
	if err := c.Sync(w.Context(), nil); err != nil {
		t.Fatalf("sync: %v", err)
	}
	fresh := census.New(w.Pool, slog.New(slog.DiscardHandler))
	if err := fresh.Sync(w.Context(), nil); err != nil {
		t.Fatalf("load: %v", err)
	}
	got, want := entries(c), entries(fresh)
	if len(got) != len(want) {
		t.Fatalf("the census has %d entries, the database %d", len(got), len(want))
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("the census says\n%+v\nthe database\n%+v", got[i], want[i])
		}
	}
	if !slices.EqualFunc(c.Heads(), fresh.Heads(), func(a, b census.Head) bool { return reflect.DeepEqual(a, b) }) {
		t.Fatalf("the census has heads %v, the database %v", c.Heads(), fresh.Heads())
	}
}

func TestTheCensusEqualsAFreshLoadAfterAnyChanges(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	head := w.AddHead()
	hosts := []ids.Host{head}
	for i := range 6 {
		hosts = append(hosts, w.AddHost([]string{"H100", "L40S"}[i%2], 1+i%4, money.Amount(1_000_000+i), "eu"))
	}
	c := census.New(w.Pool, slog.New(slog.DiscardHandler))
	wantSame(t, w, c)
	rapid.Check(t, func(rt *rapid.T) {
		changes := rapid.SliceOfN(change(hosts), 1, 6).Draw(rt, "changes")
		var open []pgx.Tx // transactions that end in another order than they began, with looks between
		for i, sql := range changes {
			if rapid.Bool().Draw(rt, "at once") {
				// It may wait for a lock that an open transaction has: end those first.
				end(rt, w, open)
				open = nil
				w.Exec(sql)
			} else {
				end(rt, w, open)
				tx, err := w.Pool.Begin(w.Context())
				if err != nil {
					rt.Fatal(err)
				}
				if _, err := tx.Exec(w.Context(), sql); err != nil {
					rt.Fatalf("%s: %v", sql, err)
				}
				open = []pgx.Tx{tx}
				w.Exec(`SELECT pg_current_xact_id()`) // a later transaction ends before
			}
			if i%2 == 0 {
				if err := c.Sync(w.Context(), nil); err != nil {
					rt.Fatal(err)
				}
			}
		}
		end(rt, w, open)
		wantSame(rt, w, c)
	})
}

// end commits open transactions.
func end(t *rapid.T, w *schedulertest.World, open []pgx.Tx) {
	for _, tx := range open {
		if err := tx.Commit(w.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// change is a statement that changes something placement sees, or nothing.
func change(hosts []ids.Host) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		host := uuidOf(rapid.SampledFrom(hosts).Draw(t, "host"))
		n := rapid.IntRange(1, 9).Draw(t, "n")
		return fmt.Sprintf(rapid.SampledFrom([]string{
			`UPDATE hosts SET connected = NOT connected WHERE id = '%[1]s'`,
			`UPDATE hosts SET failing_gate = CASE failing_gate WHEN '' THEN 'ecc' ELSE '' END WHERE id = '%[1]s'`,
			`UPDATE hosts SET region = 'region-%[2]d', site = 'rack-%[2]d', rtt_us = %[2]d000 WHERE id = '%[1]s'`,
			`UPDATE hosts SET last_seen_at = now(), desired_generation = desired_generation + 1 WHERE id = '%[1]s'`,
			`UPDATE hosts SET cpus = %[2]d, driver_major = 500 + %[2]d, images = ARRAY['2.%[2]d'], trust_tier = %[2]d %% 3, runtime = 'r%[2]d' WHERE id = '%[1]s'`,
			`UPDATE asks SET price_per_gpu_hour = %[2]d WHERE host_id = '%[1]s'`,
			`UPDATE asks SET active = NOT active WHERE host_id = '%[1]s'`,
			`UPDATE asks SET rules = '{"spot_percent": %[2]d0}' WHERE host_id = '%[1]s'`,
			`UPDATE gpus SET healthy = NOT healthy WHERE host_id = '%[1]s' AND ordinal %% 2 = %[2]d %% 2`,
			`UPDATE gpus SET model = 'M%[2]d' WHERE host_id = '%[1]s' AND ordinal = 0`,
			`INSERT INTO gpus (id, host_id, uuid, ordinal, model, product, memory_mib)
				SELECT gen_random_uuid(), '%[1]s', gen_random_uuid()::text, max(ordinal) + 1, 'H100', 'NVIDIA', 80000 FROM gpus WHERE host_id = '%[1]s' HAVING max(ordinal) < 12`,
			`INSERT INTO maintenance_windows (id, host_id, host_number, org_id, starts_at, ends_at)
				SELECT gen_random_uuid(), id, number, org_id, now() + '%[2]d hours', now() + '%[2]d hours 10 minutes' FROM hosts WHERE id = '%[1]s'
				ON CONFLICT DO NOTHING`,
			`UPDATE maintenance_windows SET cancelled_at = now() WHERE host_id = '%[1]s' AND cancelled_at IS NULL`,
		}).Draw(t, "kind"), host, n)
	})
}

func uuidOf(id ids.Host) string {
	v, err := id.Value()
	if err != nil {
		panic(err)
	}
	return v.(string) //nolint:forcetypeassert // ids are stored as text
}

func TestLeasesAndTheirEndsAreSeen(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHead()
	w.AddHost("H100", 4, 1_000_000, "eu")
	c := census.New(w.Pool, slog.New(slog.DiscardHandler))
	wantSame(t, w, c)
	cluster := w.Book(schedulertest.Spec(1, 2))
	wantSame(t, w, c)
	wantSame(t, w, w.Fleet) // which was told of its own booking by its claim alone
	w.Exec(`UPDATE clusters SET kind = 'spot', forecast_end = forecast_end + interval '1 hour' WHERE id = $1`, cluster)
	wantSame(t, w, c)
	if spot := entries(c)[0].Spot; spot != 0b11 {
		t.Errorf("spot clusters hold %b", spot)
	}
	w.Exec(`UPDATE clusters SET preempt_at = now() WHERE id = $1`, cluster)
	wantSame(t, w, c)
	w.Exec(`UPDATE leases SET state = 'closed', closed_at = now()`)
	wantSame(t, w, c)
	wantSame(t, w, w.Fleet)
	if leased := entries(c)[0].Leased; leased != 0 {
		t.Errorf("%b are leased after all leases have been closed", leased)
	}
}

func TestAClaimIsSeenUntilTheDatabaseShowsItOrItFails(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	host := w.AddHost("H100", 4, 1_000_000, "eu")
	c := census.New(w.Pool, slog.New(slog.DiscardHandler))
	wantSame(t, w, c)
	tx, err := w.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var xid uint64
	if err := tx.QueryRow(t.Context(), `SELECT pg_current_xact_id()::text::bigint`).Scan(&xid); err != nil {
		t.Fatal(err)
	}
	claim := c.Claim(xid)
	request := placement.Request{Model: "H100", Nodes: 1, GPUsPerNode: 2, Until: time.Now().Add(time.Hour).Unix()}
	if mask, ok := claim.Part().Take(host, "H100", request); !ok || mask != 0b11 {
		t.Fatalf("took %b, %v", mask, ok)
	}
	given := claim.Part()
	if mask, ok := given.Take(host, "H100", request); !ok || mask != 0b1100 {
		t.Fatalf("took %b, %v", mask, ok)
	}
	given.Back()
	// Another change has the host read again, by a look that cannot see the claim's transaction.
	w.Exec(`UPDATE hosts SET region = 'us' WHERE id = $1`, host)
	if err := c.Sync(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if h := entries(c)[0]; h.Leased != 0b11 || h.Region != "us" {
		t.Errorf("beside the open transaction %b are leased in %s", h.Leased, h.Region)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	claim.Failed()
	wantSame(t, w, c)
}

func TestRunIsReadyWhenTheFleetHasBeenRead(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.AddHost("H100", 1, 1_000_000, "eu")
	c := census.New(w.Pool, slog.New(slog.DiscardHandler))
	found := make(chan int, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		_ = c.Run(ctx, sync.OnceFunc(func() { found <- len(entries(c)) }))
	}()
	if n := <-found; n != 1 {
		t.Errorf("it was ready with %d hosts", n)
	}
}

func TestRunIsReadyWithoutADatabase(t *testing.T) {
	t.Parallel()
	w := schedulertest.New(t)
	w.Pool.Close()
	c := census.New(w.Pool, slog.New(slog.DiscardHandler))
	ready := make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { _ = c.Run(ctx, sync.OnceFunc(func() { close(ready) })) }()
	<-ready
}
