package fleet_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

func TestReliabilityIsAProportionThatFollowsTheHistory(t *testing.T) {
	t.Parallel()
	if got := fleet.Reliability(0, 0, 0); got != 9_000 {
		t.Errorf("a new host starts at %d", got)
	}
	if got := fleet.Reliability(9*24*time.Hour, 9*24*time.Hour, 0); got != 9_900 {
		t.Errorf("nine perfect days make %d", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		observed := time.Duration(rapid.Int64Range(0, int64(30*24*time.Hour)).Draw(t, "observed"))
		online := time.Duration(rapid.Int64Range(0, int64(observed)).Draw(t, "online"))
		failed := rapid.Int64Range(0, 1_000_000).Draw(t, "failed")
		score := fleet.Reliability(observed, online, failed)
		if score < 0 || score >= 10_000 {
			t.Fatalf("%d basis points", score)
		}
		if fleet.Reliability(observed, online, failed+1) > score {
			t.Fatal("a failed node made the host more reliable")
		}
		if hour := time.Hour; fleet.Reliability(observed+hour, online, failed) > score || fleet.Reliability(observed+hour, online+hour, failed) < score {
			t.Fatalf("another hour moves %d the wrong way", score)
		}
	})
}

func TestTierIsEarned(t *testing.T) {
	t.Parallel()
	const week = 7 * 24 * time.Hour
	for name, c := range map[string]struct {
		observed, online time.Duration
		delivered        int64
		want             int
	}{
		"new":              {0, 0, 0, 0},
		"a week":           {week, week * 99 / 100, 1, 1},
		"nothing done":     {week, week, 0, 0},
		"not quite a week": {week - time.Minute, week - time.Minute, 5, 0},
		"away too much":    {2 * week, 2*week*99/100 - time.Minute, 5, 0},
	} {
		if got := fleet.Tier(c.observed, c.online, c.delivered); got != c.want {
			t.Errorf("%s: tier %d, want %d", name, got, c.want)
		}
	}
}

func TestHistoryIsKeptAndScored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	care := b.lead()
	ctx := t.Context()
	online, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	away, _ := b.idleSilently("GPU-1")
	serviced, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-2"))
	b.plan(serviced.id, 0, time.Hour)
	b.look(care)
	b.exec(`UPDATE hosts SET state = 'lost', connected = false WHERE id = $1`, away.id)
	cluster := b.cluster()
	node, failed := b.node(cluster, online.id, "gpu", 0), b.node(cluster, away.id, "gpu", 1)
	b.exec(`UPDATE nodes SET alive_at = clock_timestamp() WHERE id = $1`, node)
	b.usage(cluster, away.id, failed)
	b.usage(cluster, online.id, node)
	// One node failed, because of which the cluster ended, and with it the other.
	b.exec(`UPDATE leases SET state = 'closed', closed_at = clock_timestamp(), close_party = 'owner' WHERE cluster_id = $1`, cluster)
	b.exec(`UPDATE nodes SET state = 'failed', ended_at = clock_timestamp() WHERE id = $1`, failed)
	b.exec(`UPDATE nodes SET state = 'stopping' WHERE id = $1`, node)
	b.exec(`UPDATE nodes SET state = 'stopped', ended_at = clock_timestamp() WHERE id = $1`, node)
	for range 2 { // counting again changes nothing
		if err := care.Count(ctx, careTerm); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := care.Observe(ctx, careTerm, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	const history = `SELECT coalesce((SELECT observed_ms || ' ' || online_ms || ' ' || delivered || ' ' || failed FROM host_days WHERE host_id = $1), 'none')`
	for host, want := range map[*machine]string{online: "120000 120000 1 0", away: "120000 0 0 1", serviced: "none"} {
		if got := query[string](b, history, host.id); got != want {
			t.Errorf("history %q, want %q", got, want)
		}
	}
	const score = `SELECT reliability_bps || ' ' || trust_tier FROM hosts WHERE id = $1`
	if got := query[string](b, score, online.id); got != "9000 0" {
		t.Errorf("enrolled with %s", got)
	}
	b.exec(`INSERT INTO host_days (host_id, day, observed_ms, online_ms)
		SELECT $1, current_date - n, 86400000, 86400000 FROM generate_series(1, 9) n`, online.id)
	b.exec(`INSERT INTO host_days (host_id, day, observed_ms, online_ms)
		SELECT $1, current_date - 40 - n, 86400000, 0 FROM generate_series(1, 9) n`, online.id) // too long ago to count
	if err := care.Score(ctx, careTerm); err != nil {
		t.Fatal(err)
	}
	if got := query[string](b, score, online.id); got != "9900 1" {
		t.Errorf("after nine days and a delivery: %s", got)
	}
	if got := query[int](b, `SELECT reliability_bps FROM hosts WHERE id = $1`, away.id); got >= 9_000 {
		t.Errorf("after a failed node: %d", got)
	}
	// What an operator says stays, and what has not moved is not written.
	if err := b.registry.SetTier(ctx, b.org, online.id, 2); err != nil {
		t.Fatal(err)
	}
	if err := b.registry.SetTier(ctx, b.org, online.id, 1); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("a tier that is earned was given: %v", err)
	}
	changes := query[int64](b, `SELECT coalesce(max(id), 0) FROM fleet_changes`)
	if err := care.Score(ctx, careTerm); err != nil {
		t.Fatal(err)
	}
	if got := query[string](b, score, online.id); got != "9900 2" {
		t.Errorf("trusted, and then %s", got)
	}
	if n := query[int](b, `SELECT count(*) FROM fleet_changes WHERE id > $1 AND $2 = ANY(hosts)`, changes, online.id); n != 0 {
		t.Error("a score that had not moved was written")
	}
}
