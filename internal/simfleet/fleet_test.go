package simfleet_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/simfleet"
	"github.com/muster-gpu/muster/internal/testkit"
)

func TestAFleetSurvivesFlapsAndFaults(t *testing.T) {
	t.Parallel()
	b := serve(t, testkit.DB(t))
	seed := testkit.Seed(t)
	hosts := simfleet.Generate(seed, 200)
	events := simfleet.Plan(seed, hosts, 20*time.Second, simfleet.Rates{
		simfleet.Join: 20, simfleet.Flap: 60, simfleet.Vanish: 20, simfleet.GPULost: 15, simfleet.XID: 10, simfleet.ClockSkew: 10,
	})
	played := b.play(simfleet.Options{Hosts: hosts, Seed: seed, Events: events, Keeper: b})
	testkit.Eventually(t, patience, func() (bool, string) {
		stats := played.Stats()
		return stats.Events == len(events) && stats.Connected == len(hosts), fmt.Sprintf("%+v", stats)
	})
	b.allIdle(len(hosts))
	gpus := 0
	for _, h := range hosts {
		gpus += h.GPUs
	}
	b.eventually(gpus, `SELECT count(*) FROM gpus WHERE healthy`)
	if quarantined := b.count(`SELECT count(*) FROM hosts WHERE state = 'quarantined'`); quarantined > 0 {
		t.Errorf("%d hosts are quarantined", quarantined)
	}
	if stats := played.Stats(); stats.Cuts == 0 || stats.Enrolled != len(hosts) {
		t.Errorf("nothing was cut, or a host was enrolled twice: %+v", stats)
	}
}

func TestHostsAreTheSameAfterARestart(t *testing.T) {
	t.Parallel()
	b := serve(t, testkit.DB(t))
	hosts := simfleet.Generate(7, 12)
	path := filepath.Join(t.TempDir(), "identities")
	before := playOnce(b, hosts, path)
	after := playOnce(b, hosts, path)
	if !maps.Equal(before, after) {
		t.Errorf("the hosts were %v and are %v", before, after)
	}
	if n := b.count(`SELECT count(*) FROM hosts`); n != len(hosts) {
		t.Errorf("%d hosts have %d rows", len(hosts), n)
	}
}

// playOnce runs a fleet with a journal until all of it is idle, and returns who its hosts are.
func playOnce(b *bundle, hosts []simfleet.Host, path string) map[string]ids.Host {
	b.Helper()
	journal, err := simfleet.OpenJournal(path)
	if err != nil {
		b.Fatal(err)
	}
	if err := journal.Compact(); err != nil {
		b.Fatal(err)
	}
	var all map[string]ids.Host
	b.within(func(inner *bundle) {
		played := inner.play(simfleet.Options{Hosts: hosts, Store: journal})
		inner.allIdle(len(hosts))
		all = map[string]ids.Host{}
		for i, h := range hosts {
			all[h.Name] = played.HostID(i)
		}
	})
	if err := journal.Close(); err != nil {
		b.Fatal(err)
	}
	return all
}

func TestAFleetDoesNotWaitForAHostThatIsRefused(t *testing.T) {
	t.Parallel()
	b := serve(t, testkit.DB(t))
	hosts := simfleet.Generate(7, 3)
	path := filepath.Join(t.TempDir(), "identities")
	playOnce(b, hosts, path)
	b.exec(`UPDATE hosts SET state = 'retired' WHERE name = $1`, hosts[len(hosts)-1].Name)
	journal, err := simfleet.OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = journal.Close() })
	played := b.play(simfleet.Options{Hosts: hosts, Store: journal})
	if stats := played.Stats(); stats.Connected != len(hosts)-1 || stats.Refused != 1 || !strings.Contains(stats.LastRefusal, "retired") {
		t.Errorf("with a retired host: %+v", stats)
	}
}

func TestPricesChangeThroughTheirOwner(t *testing.T) {
	t.Parallel()
	b := serve(t, testkit.DB(t))
	hosts := simfleet.Generate(3, 5)
	asked := make(chan simfleet.Ask, 1)
	played := b.play(simfleet.Options{Hosts: hosts, Keeper: asker{b, asked}})
	want := simfleet.Ask{Price: 123, Floor: 100}
	played.Befall(simfleet.Event{Kind: simfleet.PriceChange, Host: len(hosts) - 1, Ask: want})
	select {
	case got := <-asked:
		if got.Price != want.Price || got.Floor != want.Floor {
			t.Errorf("the owner asks %+v, not %+v", got, want)
		}
	case <-time.After(patience):
		t.Fatal("the price was not set")
	}
}
