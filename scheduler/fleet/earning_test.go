package fleet_test

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

func (b *bundle) ask(host ids.Host, price int64, active bool) {
	b.t.Helper()
	b.exec(`INSERT INTO asks (id, org_id, host_id, price_per_gpu_hour, active) VALUES (gen_random_uuid(), $1, $2, $3, $4)
		ON CONFLICT (host_id) DO UPDATE SET price_per_gpu_hour = $3, active = $4`, b.org, host, price, active)
}

// hire leases a GPU of a host at a price.
func (b *bundle) hire(host ids.Host, price int64) {
	b.t.Helper()
	cluster := b.cluster()
	node := b.node(cluster, host, "gpu", query[int](b, `SELECT count(*) FROM nodes`))
	b.exec(`INSERT INTO leases (id, cluster_id, node_id, host_id, gpu_id, customer_org_id, owner_org_id, state, price_per_gpu_hour, fee_bps)
		SELECT $1, $2, $3, host_id, id, $4, $4, 'held', $6, 0 FROM gpus WHERE host_id = $5 LIMIT 1`, ids.New[ids.Lease](), cluster, node, b.org, host, price)
}

func TestWhyAHostDoesNotEarn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	care := b.lead()
	m, s := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	peer, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-1"))
	explain := func() (fleet.Earning, map[string]fleet.Check) {
		t.Helper()
		e, err := b.registry.Earning(t.Context(), b.org, m.id)
		if err != nil {
			t.Fatal(err)
		}
		checks := map[string]fleet.Check{}
		for _, c := range e.Checks {
			if c.Name == "" || c.State == "" || c.Required == "" {
				t.Errorf("a check says too little: %+v", c)
			}
			checks[c.Name] = c
		}
		return e, checks
	}
	expect := func(check, says string) {
		t.Helper()
		e, checks := explain()
		if e.Earning || checks[check].State != fleet.Fail || !strings.Contains(e.Summary, says) {
			t.Errorf("%s: %q, %+v", check, e.Summary, checks[check])
		}
	}
	expect("ask", "no price. Set a price")
	b.ask(m.id, 3_000_000, false)
	expect("ask", "switched off")
	b.ask(m.id, 3_000_000, true)
	if e, checks := explain(); e.Earning || e.Summary != "All is well, and nobody has booked it yet." || checks["price"].State != fleet.Unknown {
		t.Errorf("without anything to compare with: %+v", e)
	}
	b.hire(peer.id, 2_000_000)
	b.exec(`INSERT INTO market_history (gpu_model, region, at, gpus, leased) VALUES ('H100', 'eu-west', now(), 2, 1)`)
	expect("price", "Ask at most 2.00 USDC an hour")
	b.ask(m.id, 1_900_000, true)
	_, checks := explain()
	if c := checks["demand"]; c.State != fleet.Pass || !strings.Contains(c.Measured, "1 of 2 H100 in eu-west are hired (50 %)") {
		t.Errorf("%+v", c)
	}
	if c := checks["price"]; c.State != fleet.Pass || !strings.Contains(c.Measured, "1.90 USDC an hour") {
		t.Errorf("%+v", c)
	}
	full := soundHealth(gpu(0, "GPU-0"))
	full.DiskFreeBytes = 1 << 30
	s.health(full)
	waitFor(b, fleet.GateDisk, failingGate, m.id)
	expect("gates", "disk: 1 GiB free. Free space")
	s.health(soundHealth(gpu(0, "GPU-0")))
	waitFor(b, "", failingGate, m.id)
	window := b.plan(m.id, 0, time.Hour)
	b.look(care)
	expect("maintenance", "in maintenance until")
	if _, err := b.registry.CancelMaintenance(t.Context(), b.org, m.id, window.ID); err != nil {
		t.Fatal(err)
	}
	if err := b.registry.Cordon(t.Context(), b.org, m.id); err != nil {
		t.Fatal(err)
	}
	expect("drain", "Uncordon it")
	if err := b.registry.Uncordon(t.Context(), b.org, m.id); err != nil {
		t.Fatal(err)
	}
	b.hire(m.id, 1_900_000)
	if e, _ := explain(); !e.Earning || e.Summary != "It earns with all of its GPUs." {
		t.Errorf("hired: %+v", e)
	}
	if _, err := b.registry.Earning(t.Context(), b.newOrg(false), m.id); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("another owner's host: %v", err)
	}
}

func TestAHostWithAnotherRayDoesNotEarn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, s := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	b.ask(m.id, 3_000_000, true)
	older := saneInventory(gpu(0, "GPU-0"))
	older.RayVersions = []string{"2.9.3"}
	s.present(older)
	waitFor(b, true, `SELECT images = '{2.9.3}' FROM hosts WHERE id = $1`, m.id)
	e, err := b.registry.Earning(t.Context(), b.org, m.id)
	if err != nil || e.Earning || e.Summary != "It does not earn: it can start Ray 2.9.3. Give muster-worker an environment with Ray 2.60.0: --ray-venv." {
		t.Errorf("%q, %v", e.Summary, err)
	}
}

func TestWhyAHostThatIsGoneOrQuarantinedDoesNotEarn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fresh := b.enrol(fleet.KindGPU)
	e, err := b.registry.Earning(t.Context(), b.org, fresh.id)
	if err != nil || e.Earning || e.Checks[0].State != fleet.Fail || e.Checks[0].Name != "connected" || !strings.Contains(e.Summary, "not connected") {
		t.Errorf("never connected: %+v, %v", e, err)
	}
	m, s := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	broken := soundHealth(gpu(0, "GPU-0"))
	errors := int64(2)
	broken.Gpus[0].EccUncorrected = &errors
	s.health(broken)
	b.waitForState(m.id, fleet.StateQuarantined)
	e, err = b.registry.Earning(t.Context(), b.org, m.id)
	if err != nil || !strings.Contains(e.Summary, "quarantined: hardware fault: memory errors") || !strings.Contains(e.Summary, "ask for a recheck") {
		t.Errorf("quarantined: %+v, %v", e, err)
	}
	head, _ := b.idle(fleet.KindHead)
	org := query[ids.Org](b, `SELECT org_id FROM hosts WHERE id = $1`, head.id)
	if e, err = b.registry.Earning(t.Context(), org, head.id); err != nil || e.Earning || !strings.Contains(e.Summary, "free") {
		t.Errorf("a head: %+v, %v", e, err)
	}
}
