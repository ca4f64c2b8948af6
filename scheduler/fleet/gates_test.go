package fleet_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

func TestGates(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	now := time.UnixMilli(1_800_000_000_000)
	yes, no := true, false
	one := int64(1)
	for name, c := range map[string]struct {
		change     func(*agentpb.Inventory, *agentpb.Health)
		gate       string
		state      string
		failing    string
		quarantine bool
	}{
		"clock fast":          {func(_ *agentpb.Inventory, h *agentpb.Health) { h.ClockUnixMs += 5_300 }, fleet.GateClock, fleet.Fail, fleet.GateClock, false},
		"clock slow":          {func(_ *agentpb.Inventory, h *agentpb.Health) { h.ClockUnixMs -= 41_000 }, fleet.GateClock, fleet.Fail, fleet.GateClock, false},
		"clock within a trip": {func(_ *agentpb.Inventory, h *agentpb.Health) { h.ClockUnixMs -= 5_100 }, fleet.GateClock, fleet.Pass, "", false},
		"clock not told":      {func(_ *agentpb.Inventory, h *agentpb.Health) { h.ClockUnixMs = 0 }, fleet.GateClock, fleet.Unknown, "", false},
		"disk full":           {func(_ *agentpb.Inventory, h *agentpb.Health) { h.DiskFreeBytes = 20*gib - 1 }, fleet.GateDisk, fleet.Fail, fleet.GateDisk, false},
		"disk just enough":    {func(_ *agentpb.Inventory, h *agentpb.Health) { h.DiskFreeBytes = 20 * gib }, fleet.GateDisk, fleet.Pass, "", false},
		"disk not told":       {func(_ *agentpb.Inventory, h *agentpb.Health) { h.DiskFreeBytes = 0 }, fleet.GateDisk, fleet.Unknown, "", false},
		"no UDP, loopback":    {func(_ *agentpb.Inventory, h *agentpb.Health) { h.Udp = &no }, fleet.GateUDP, fleet.Fail, "", false},
		"no UDP, an overlay": {func(i *agentpb.Inventory, h *agentpb.Health) {
			i.Runtime, h.Udp = "docker", &no
		}, fleet.GateUDP, fleet.Fail, fleet.GateUDP, false},
		"UDP not tried":  {func(i *agentpb.Inventory, h *agentpb.Health) { i.Runtime, h.Udp = "docker", nil }, fleet.GateUDP, fleet.Unknown, "", false},
		"no driver":      {func(i *agentpb.Inventory, _ *agentpb.Health) { i.DriverVersion = "" }, fleet.GateDriver, fleet.Unknown, "", false},
		"an old driver":  {func(i *agentpb.Inventory, _ *agentpb.Health) { i.DriverVersion = "470.256.02" }, fleet.GateDriver, fleet.Fail, fleet.GateDriver, false},
		"no GPU":         {func(i *agentpb.Inventory, _ *agentpb.Health) { i.Gpus = nil }, fleet.GateGPU, fleet.Fail, fleet.GateGPU, false},
		"a driver fault": {func(i *agentpb.Inventory, _ *agentpb.Health) { i.ProbeError = "it hangs" }, fleet.GateGPU, fleet.Fail, fleet.GateGPU, false},
		"one GPU lost":   {func(i *agentpb.Inventory, _ *agentpb.Health) { i.Gpus[0].Fault = "lost" }, fleet.GateGPU, fleet.Pass, "", false},
		"all GPUs lost": {func(i *agentpb.Inventory, _ *agentpb.Health) {
			i.Gpus[0].Fault, i.Gpus[1].Fault = "lost", "lost"
		}, fleet.GateGPU, fleet.Fail, fleet.GateGPU, false},
		"throttled":             {func(_ *agentpb.Inventory, h *agentpb.Health) { h.Gpus[1].ThrottleReasons = []string{"hw_slowdown"} }, fleet.GateThrottle, fleet.Fail, "", false},
		"double-bit error":      {func(_ *agentpb.Inventory, h *agentpb.Health) { h.Gpus[1].EccUncorrected = &one }, fleet.GateECC, fleet.Fail, fleet.GateECC, true},
		"row waits for a reset": {func(_ *agentpb.Inventory, h *agentpb.Health) { h.Gpus[1].RowsPending = &yes }, fleet.GateECC, fleet.Fail, fleet.GateECC, false},
		"off the bus":           {func(_ *agentpb.Inventory, h *agentpb.Health) { h.Gpus[0].Xids = []int32{79} }, fleet.GateXid, fleet.Fail, fleet.GateXid, true},
		"a row was remapped":    {func(_ *agentpb.Inventory, h *agentpb.Health) { h.Gpus[0].Xids = []int32{63} }, fleet.GateXid, fleet.Pass, "", false},
		"a row is to be remapped": {func(_ *agentpb.Inventory, h *agentpb.Health) {
			h.Gpus[0].Xids, h.Gpus[0].RowsPending = []int32{63}, &yes
		}, fleet.GateXid, fleet.Fail, fleet.GateECC, true},
		"an application's error": {func(_ *agentpb.Inventory, h *agentpb.Health) { h.Gpus[0].Xids = []int32{13, 31, 43, 45, 68, 109} }, fleet.GateXid, fleet.Pass, "", false},
		"another error":          {func(_ *agentpb.Inventory, h *agentpb.Health) { h.Gpus[0].Xids = []int32{119} }, fleet.GateXid, fleet.Fail, fleet.GateXid, false},
	} {
		inventory := saneInventory(gpu(0, "GPU-0"), gpu(1, "GPU-1"))
		inventory.DriverVersion = "570.172.08"
		zero := int64(0)
		health := &agentpb.Health{ClockUnixMs: now.UnixMilli(), DiskFreeBytes: 100 * gib, Udp: &yes, Gpus: []*agentpb.GPUHealth{
			{Uuid: "GPU-0", EccUncorrected: &zero, RowsPending: &no}, {Uuid: "GPU-1", EccUncorrected: &zero, RowsPending: &no},
		}}
		if v := fleet.Judge(fleet.KindGPU, inventory, health, now, 0); v.Failing != "" || v.Quarantine != "" || len(v.States) != 8 {
			t.Fatalf("a well host is judged %+v", v)
		}
		c.change(inventory, health)
		v := fleet.Judge(fleet.KindGPU, inventory, health, now, 200*time.Millisecond)
		if v.States[c.gate] != c.state || v.Failing != c.failing || (v.Quarantine != "") != c.quarantine {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestHeadsAreNotJudgedByTheirGPUs(t *testing.T) {
	t.Parallel()
	now := time.Now()
	health := &agentpb.Health{ClockUnixMs: now.UnixMilli(), DiskFreeBytes: 1 << 40, Gpus: []*agentpb.GPUHealth{{Uuid: "GPU-0", Xids: []int32{79}}}}
	v := fleet.Judge(fleet.KindHead, saneInventory(), health, now, 0)
	if v.Failing != "" || v.Quarantine != "" || len(v.States) != 3 {
		t.Errorf("%+v", v)
	}
}

// TestWhatIsQuarantinedIsAlsoClosed holds for whatever a host says.
func TestWhatIsQuarantinedIsAlsoClosed(t *testing.T) {
	t.Parallel()
	now := time.Now()
	rapid.Check(t, func(t *rapid.T) {
		health := &agentpb.Health{ClockUnixMs: now.UnixMilli() + rapid.Int64Range(-10_000, 10_000).Draw(t, "skew"), DiskFreeBytes: rapid.Int64().Draw(t, "disk")}
		for range rapid.IntRange(0, 4).Draw(t, "gpus") {
			ecc, rows := rapid.Int64Range(0, 2).Draw(t, "ecc"), rapid.Bool().Draw(t, "rows")
			health.Gpus = append(health.Gpus, &agentpb.GPUHealth{
				Uuid: rapid.String().Draw(t, "uuid"), EccUncorrected: &ecc, RowsPending: &rows,
				Xids: rapid.SliceOfN(rapid.Int32Range(-1, 130), 0, 5).Draw(t, "xids"),
			})
		}
		v := fleet.Judge(fleet.KindGPU, saneInventory(gpu(0, "GPU-0")), health, now, 0)
		if v.Quarantine != "" && v.Failing == "" {
			t.Fatalf("%+v", v)
		}
	})
}

func TestRoundTripIsWrittenWhenItMatters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		known, measured time.Duration
		want            bool
	}{
		{0, 50 * time.Microsecond, true},
		{50 * time.Microsecond, 300 * time.Microsecond, false}, // twice and more, of nothing
		{40 * time.Millisecond, 49 * time.Millisecond, false},
		{40 * time.Millisecond, 50 * time.Millisecond, true},
		{40 * time.Millisecond, 30 * time.Millisecond, true},
		{40 * time.Millisecond, 0, false}, // not measured
	} {
		if got := fleet.RTTMoved(c.known, c.measured); got != c.want {
			t.Errorf("%s after %s: %v", c.measured, c.known, got)
		}
	}
}
