package fleet_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

func TestModelName(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for product, want := range map[string]string{
		"NVIDIA H100 80GB HBM3":          "H100",
		"NVIDIA H100 PCIe":               "H100",
		"NVIDIA H100 NVL":                "H100",
		"NVIDIA H200":                    "H200",
		"NVIDIA B200":                    "B200",
		"NVIDIA GB200":                   "GB200",
		"NVIDIA A100-SXM4-80GB":          "A100-80GB",
		"NVIDIA A100 80GB PCIe":          "A100-80GB",
		"NVIDIA L40S":                    "L40S",
		"NVIDIA L4":                      "L4",
		"Tesla T4":                       "T4",
		"NVIDIA GeForce RTX 4090":        "RTX4090",
		"NVIDIA GeForce RTX 3080 Ti":     "RTX3080Ti",
		"NVIDIA RTX A6000":               "RTXA6000",
		"NVIDIA RTX 6000 Ada Generation": "RTX6000Ada",
		"NVIDIA A10":                     "A10",
		"NVIDIA":                         "NVIDIA",
		"NVIDIA H100 80GB HBM3 with a long addendum ": "H100withalongaddendum",
	} {
		if got := fleet.ModelName(product, 80*gib); got != want {
			t.Errorf("%q is %q, want %q", product, got, want)
		}
	}
	for memory, want := range map[int64]string{40 * gib: "A100-40GB", 42_949_672_960 - 500<<20: "A100-40GB", 81_920 << 20: "A100-80GB", 0: "A100"} {
		if got := fleet.ModelName("NVIDIA A100-SXM4-40GB", memory); got != want {
			t.Errorf("%d bytes: %q, want %q", memory, got, want)
		}
	}
}

func TestHostBecomesIdleOnceItsInventoryIsSane(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := b.enrol(fleet.KindGPU)
	if got := query[string](b, `SELECT state FROM hosts WHERE id = $1`, m.id); got != fleet.StateEnrolled {
		t.Fatalf("enrolled as %s", got)
	}
	s := m.connect()
	s.keepBeating()
	b.waitForState(m.id, fleet.StateVerifying)
	s.present(&agentpb.Inventory{Cpus: 8, MemoryBytes: 1 << 30, RayVersions: []string{"2.60.0"}, ProbeError: "no driver"})
	waitFor(b, "the GPUs could not be read: no driver", `SELECT state_reason FROM hosts WHERE id = $1`, m.id)
	b.waitForState(m.id, fleet.StateVerifying)
	s.present(saneInventory(gpu(0, "GPU-0"), gpu(1, "GPU-1")))
	b.waitForState(m.id, fleet.StateIdle)
	view, err := b.registry.Host(t.Context(), b.org, m.id)
	if err != nil {
		t.Fatal(err)
	}
	if len(view.GPUs) != 2 || view.GPUs[1].Model != "H100" || view.GPUs[1].MemoryMiB != 81920 || !view.GPUs[1].Healthy ||
		view.Inventory.GetCpus() != 8 || !view.Connected || view.StateReason != "" {
		t.Errorf("%+v", view)
	}
	s.inventory(saneInventory())
	waitFor(b, "no GPU was found", `SELECT state_reason FROM hosts WHERE id = $1`, m.id)
}

func TestInventoryIsStoredOnChangeOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, s := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	const version = `SELECT xmin::text FROM host_inventories WHERE host_id = $1`
	before := query[string](b, version, m.id)
	warm := gpu(0, "GPU-0")
	celsius := int32(60)
	warm.TemperatureCelsius = &celsius
	s.inventory(saneInventory(warm))
	// A report behind it in the stream shows that it has been dealt with.
	s.report(1)
	waitFor(b, int64(1), `SELECT applied_generation FROM hosts WHERE id = $1`, m.id)
	if after := query[string](b, version, m.id); after != before {
		t.Error("an inventory was written although only a temperature had changed")
	}
	changed := saneInventory(gpu(0, "GPU-0"))
	changed.DriverVersion = "580.95"
	s.inventory(changed)
	waitFor(b, "580.95", `SELECT coalesce(document->>'driver_version', '') FROM host_inventories WHERE host_id = $1`, m.id)
}

func TestFaultyAndMissingGPUsAreNotHealthy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, s := b.idle(fleet.KindGPU, gpu(0, "GPU-0"), gpu(1, "GPU-1"), gpu(2, "GPU-2"))
	healthy := func(uuid string, want bool) {
		t.Helper()
		waitFor(b, want, `SELECT coalesce(bool_or(healthy), false) FROM gpus WHERE uuid = $1`, uuid)
	}
	lost, mig := &agentpb.GPU{Ordinal: 1, Uuid: "GPU-1", Fault: "GPU is lost"}, true
	sliced := gpu(2, "GPU-2")
	sliced.MigEnabled = &mig
	s.inventory(saneInventory(gpu(0, "GPU-0"), lost, sliced))
	healthy("GPU-1", false)
	healthy("GPU-2", false)
	healthy("GPU-0", true)
	if got := query[string](b, `SELECT model || ' ' || memory_mib || ' ' || health_note FROM gpus WHERE uuid = 'GPU-1'`); got != "H100 81920 GPU is lost" {
		t.Errorf("a lost GPU is kept as %q", got)
	}
	// GPU-0 is replaced by another card in its place.
	s.inventory(saneInventory(gpu(0, "GPU-new"), gpu(1, "GPU-1"), gpu(2, "GPU-2")))
	healthy("GPU-new", true)
	healthy("GPU-1", true)
	healthy("GPU-2", true)
	healthy("GPU-0", false)
	if got := query[int](b, `SELECT ordinal FROM gpus WHERE uuid = 'GPU-0'`); got != 3 {
		t.Errorf("the missing GPU has ordinal %d", got)
	}
	b.waitForState(m.id, fleet.StateIdle)
}

func TestGPUUnderTwoHostsQuarantinesTheSecond(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	second := b.enrol(fleet.KindGPU)
	s := second.connect()
	s.inventory(saneInventory(gpu(0, "GPU-0")))
	if err := s.end(); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Errorf("the stream ended with %v", err)
	}
	b.waitForState(second.id, fleet.StateQuarantined)
	b.waitForState(first.id, fleet.StateIdle)

	// Once the first has left in good standing, the GPU may come back under the second.
	if err := b.registry.Retire(t.Context(), b.org, first.id); err != nil {
		t.Fatal(err)
	}
	if err := b.registry.Readmit(t.Context(), b.org, second.id); err != nil {
		t.Fatal(err)
	}
	s = second.connect()
	s.keepBeating()
	s.present(saneInventory(gpu(0, "GPU-0")))
	b.waitForState(second.id, fleet.StateIdle)
}

func TestQuarantineFollowsTheGPU(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	b.exec(`UPDATE hosts SET state = 'quarantined', state_reason = 'cheated' WHERE id = $1`, first.id)
	if err := b.registry.Retire(t.Context(), b.org, first.id); err != nil {
		t.Fatal(err)
	}
	second := b.enrol(fleet.KindGPU)
	s := second.connect()
	s.inventory(saneInventory(gpu(0, "GPU-0")))
	if err := s.end(); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Errorf("the stream ended with %v", err)
	}
	b.waitForState(second.id, fleet.StateQuarantined)
}

func TestOtherMachineWithOtherGPUsIsQuarantined(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	s := m.open(t.Context(), "another machine")
	s.inventory(saneInventory(gpu(0, "GPU-9")))
	if err := s.end(); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Errorf("the stream ended with %v", err)
	}
	b.waitForState(m.id, fleet.StateQuarantined)
}

func TestSimulatedGPUs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		allow bool
		want  string
	}{"refused": {false, fleet.StateQuarantined}, "accepted in a local network": {true, fleet.StateIdle}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(o *fleet.Options) { o.AllowSimulated = c.allow })
			m := b.enrol(fleet.KindGPU)
			s := m.connect()
			inventory := saneInventory(gpu(0, "GPU-0"))
			inventory.Simulated = true
			s.keepBeating()
			s.present(inventory)
			b.waitForState(m.id, c.want)
			if c.allow != query[bool](b, `SELECT simulated FROM hosts WHERE id = $1`, m.id) {
				t.Error("the host is not marked as it should be")
			}
		})
	}
}

func TestCordonUncordonRetire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	m, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	for range 2 {
		if err := b.registry.Cordon(ctx, b.org, m.id); err != nil {
			t.Fatal(err)
		}
		b.waitForState(m.id, fleet.StateDraining)
	}
	node := b.node(b.cluster(), m.id, "gpu", 0)
	if err := b.registry.Retire(ctx, b.org, m.id); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("retired while it runs a node: %v", err)
	}
	for range 2 {
		if err := b.registry.Uncordon(ctx, b.org, m.id); err != nil {
			t.Fatal(err)
		}
		b.waitForState(m.id, fleet.StateLeased)
	}
	if view, err := b.registry.Host(ctx, b.org, m.id); err != nil || len(view.Nodes) != 1 || view.Nodes[0].ID != node {
		t.Errorf("%+v, %v", view.Nodes, err)
	}
	b.exec(`UPDATE nodes SET state = 'failed', ended_at = now()`)
	if err := b.registry.Cordon(ctx, b.org, m.id); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.registry.Retire(ctx, b.org, m.id); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.registry.Cordon(ctx, b.org, m.id); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a retired host was cordoned: %v", err)
	}
	if list, err := b.registry.Hosts(ctx, b.org); err != nil || len(list) != 1 || list[0].State != fleet.StateRetired {
		t.Errorf("%+v, %v", list, err)
	}
}
