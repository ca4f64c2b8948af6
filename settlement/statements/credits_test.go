package statements

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/money"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func after(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }

func seconds(from, to int) span { return span{after(from), after(to)} }

var always = seconds(-1_000_000, 1_000_000)

func TestWhoseFaultAGapIs(t *testing.T) {
	t.Parallel()
	closed := after(100)
	ready, released := happening{at: after(0), state: "ready"}, happening{at: after(100), state: "draining", party: "customer"}
	degraded := happening{at: after(52), state: "degraded", message: "The Ray head is silent."}
	for name, c := range map[string]struct {
		lease    leaseHistory
		timeline []happening
		party    string
		reason   string
		ms       int64
	}{
		"released while all was well": {
			leaseHistory{closed: &closed, closeParty: "customer", usage: []span{seconds(0, 99)}}, []happening{ready, released}, "", "", 0,
		},
		"a node removed by the customer": {
			leaseHistory{closed: &closed, closeParty: "customer", usage: []span{seconds(0, 50)}},
			[]happening{ready, {at: after(51), party: "customer", message: "Node 2 leaves."}},
			"", "", 0,
		},
		"a silent head": {
			leaseHistory{closed: &closed, closeParty: "customer", usage: []span{seconds(0, 50), seconds(70, 100)}},
			[]happening{ready, degraded, {at: after(70), state: "ready"}, released},
			"platform", "The Ray head is silent.", 20_000,
		},
		"a host that was lost": {
			leaseHistory{closed: &closed, closeParty: "customer", usage: []span{seconds(0, 50), seconds(70, 100)}},
			[]happening{ready, {at: after(52), party: "owner", message: "Node 1 failed."}, degraded, {at: after(70), state: "ready"}, released},
			"owner", "Node 1 failed.", 20_000,
		},
		"a lost cluster": {
			leaseHistory{closed: &closed, closeParty: "platform", closeReason: "The Ray head ended.", usage: []span{seconds(0, 50)}},
			[]happening{ready, {at: after(55), state: "draining", party: "platform"}},
			"platform", "The Ray head ended.", 5_000,
		},
		"given up while degraded": {
			leaseHistory{closed: &closed, closeParty: "owner", closeReason: "Nodes failed more than 3 times.", usage: []span{seconds(0, 50)}},
			[]happening{ready, degraded, {at: after(80), state: "draining", party: "owner"}},
			"owner", "Nodes failed more than 3 times.", 30_000,
		},
		"not over yet": {
			leaseHistory{usage: []span{seconds(0, 50)}}, []happening{ready, degraded}, "platform", "The Ray head is silent.", 150_000,
		},
		"a successor that joins": {
			leaseHistory{opened: after(60), usage: []span{seconds(70, 100)}},
			[]happening{ready, {at: after(52), party: "owner", message: "Node 1 failed."}, degraded, {at: after(70), state: "ready"}, released},
			"owner", "Node 1 failed.", 10_000,
		},
		"a node that is added": {
			leaseHistory{opened: after(60), closed: &closed, closeParty: "customer", usage: []span{seconds(70, 100)}}, []happening{ready, released}, "", "", 0,
		},
		"parked and released": {
			leaseHistory{closed: &closed, closeParty: "customer", usage: []span{seconds(0, 50)}},
			[]happening{ready, {at: after(51), state: "parked"}, {at: after(99), state: "draining", party: "customer"}},
			"", "", 0,
		},
	} {
		c.lease.price = 3_600_000
		credits := c.lease.credits(c.timeline, always, after(200))
		if c.party == "" {
			if len(credits) > 0 {
				t.Errorf("%s: %+v, want none", name, credits)
			}
			continue
		}
		if len(credits) != 1 || credits[0].Party != c.party || credits[0].Reason != c.reason || credits[0].MS != c.ms || credits[0].Amount != money.Amount(c.ms) {
			t.Errorf("%s: %+v, want %s, %q and %d ms", name, credits, c.party, c.reason, c.ms)
		}
	}
}

// TestCreditsAddUpOverPeriods cuts time into periods anywhere: what they say comes to what the whole says.
func TestCreditsAddUpOverPeriods(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		lease := leaseHistory{price: money.Amount(rapid.Int64Range(1, 1<<40).Draw(t, "price")), opened: noon}
		timeline := []happening{{at: noon, state: "ready"}}
		at := noon
		step := func(name string) time.Time {
			at = at.Add(time.Duration(rapid.Int64Range(1, 1_000_000).Draw(t, name)) * time.Microsecond)
			return at
		}
		for range rapid.IntRange(1, 4).Draw(t, "intervals") {
			from := step("ready")
			lease.usage = append(lease.usage, span{from, step("used")})
			timeline = append(timeline, happening{at: step("degraded"), state: "degraded", message: "why"})
		}
		end := step("end")
		var sum money.Amount
		var ms int64
		cut := noon
		for cut.Before(end) {
			next := cut.Add(time.Duration(rapid.Int64Range(1_000, 2_000_000).Draw(t, "period")) * time.Microsecond)
			for _, credit := range lease.credits(timeline, span{cut, next}, end) {
				sum, ms = sum+credit.Amount, ms+credit.MS
			}
			cut = next
		}
		var want money.Amount
		var wantMS int64
		for _, credit := range lease.credits(timeline, always, end) {
			want, wantMS = want+credit.Amount, wantMS+credit.MS
		}
		if sum != want || ms != wantMS || want != 0 && wantMS == 0 {
			t.Fatalf("the periods come to %d for %d ms, the whole to %d for %d ms", sum, ms, want, wantMS)
		}
	})
}
