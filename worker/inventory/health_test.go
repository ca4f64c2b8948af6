package inventory_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/fakenvml"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/worker/inventory"
)

const patience = 20 * time.Second

func TestHealthOfEachGPU(t *testing.T) {
	t.Parallel()
	o := options(fakeLibrary, profile(t, "h100-sxm", 4, fakenvml.DoubleBit(1, 3), fakenvml.RowsPending(2), fakenvml.TooHot(3)))
	o.DiskPath = t.TempDir()
	prober := inventory.NewProber(o)
	if before := prober.Health(); len(before.GetGpus()) != 0 {
		t.Errorf("health %v is known before anything was read", before)
	}
	read := prober.Inventory(t.Context())
	health := prober.Health()
	if len(health.GetGpus()) != 4 || health.GetDiskFreeBytes() <= 0 {
		t.Fatalf("%v", health)
	}
	for i, gpu := range health.GetGpus() {
		if gpu.GetUuid() != read.GetGpus()[i].GetUuid() || gpu.TemperatureCelsius == nil || gpu.EccUncorrected == nil || gpu.RowsPending == nil {
			t.Errorf("GPU %d: %v", i, gpu)
		}
		if (gpu.GetEccUncorrected() == 3) != (i == 1) || gpu.GetRowsPending() != (i == 2) {
			t.Errorf("GPU %d has a fault of another: %v", i, gpu)
		}
		want := []string(nil)
		if i == 3 {
			want = []string{"hw_thermal_slowdown", "sw_thermal_slowdown"}
		}
		if !slices.Equal(gpu.GetThrottleReasons(), want) {
			t.Errorf("GPU %d is throttled for %v", i, gpu.GetThrottleReasons())
		}
	}
}

func TestUnknownHealthIsAbsent(t *testing.T) {
	t.Parallel()
	library := buildWithout(t, "nvmlDeviceGetRemappedRows", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
	for name, o := range map[string]inventory.Options{
		"a board without ECC": options(fakeLibrary, profile(t, "rtx4090", 1)),
		"an old driver":       options(library, profile(t, "rtx4090", 1)),
	} {
		prober := inventory.NewProber(o)
		prober.Inventory(t.Context())
		gpus := prober.Health().GetGpus()
		if len(gpus) != 1 || gpus[0].EccUncorrected != nil || gpus[0].RowsPending != nil || len(gpus[0].GetThrottleReasons()) != 0 {
			t.Errorf("%s: %v", name, gpus)
		}
	}
}

// watched is a prober that watches until the test ends, over a profile that the test rewrites.
type watched struct {
	t      *testing.T
	dir    string
	prober *inventory.Prober
	uuids  []string
}

func watch(t *testing.T, library string) *watched {
	t.Helper()
	w := &watched{t: t, dir: t.TempDir()}
	path := w.write()
	w.prober = inventory.NewProber(options(library, path))
	for _, gpu := range w.prober.Inventory(t.Context()).GetGpus() {
		w.uuids = append(w.uuids, gpu.GetUuid())
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.prober.Watch(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if left := children(t, path); len(left) != 0 {
			t.Errorf("children %v are left", left)
		}
	})
	return w
}

func (w *watched) write(faults ...fakenvml.Fault) string {
	w.t.Helper()
	path, err := fakenvml.WriteProfile(w.dir, "h100-sxm", 2, "watched", faults...)
	if err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (w *watched) xids(gpu int) []int32 {
	for _, health := range w.prober.Health().GetGpus() {
		if health.GetUuid() == w.uuids[gpu] {
			return health.GetXids()
		}
	}
	return nil
}

func (w *watched) waitFor(gpu int, want ...int32) {
	w.t.Helper()
	testkit.Eventually(w.t, patience, func() (bool, string) {
		got := w.xids(gpu)
		return slices.Equal(got, want), (&agentpb.GPUHealth{Xids: got}).String()
	})
}

func TestHardwareErrorsAreKeptAndThoseOfApplicationsAreNot(t *testing.T) {
	t.Parallel()
	w := watch(t, fakeLibrary)
	w.write(fakenvml.Xid(0, 13), fakenvml.Xid(0, 79), fakenvml.Xid(1, 31), fakenvml.Xid(1, 43))
	w.waitFor(0, 79)
	w.write(fakenvml.Xid(0, 48))
	w.waitFor(0, 48, 79) // what happened has happened, though the GPU no longer says so
	if got := w.xids(1); len(got) != 0 {
		t.Errorf("errors %v of applications count", got)
	}
}

func TestErrorOfAGPUThatIsGoneIsTold(t *testing.T) {
	t.Parallel()
	w := watch(t, fakeLibrary)
	w.write(fakenvml.Xid(1, 79))
	w.waitFor(1, 79)
	if err := os.Remove(filepath.Join(w.dir, "nvml-profile.txt")); err != nil {
		t.Fatal(err)
	}
	if got := w.prober.Inventory(t.Context()); got.GetProbeError() == "" {
		t.Fatal("the GPUs are still there")
	}
	w.waitFor(1, 79)
}

func TestWatchWithoutEventsOrGPUsEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	watch(t, buildWithout(t, "nvmlEventSetCreate")) // tried again until the test ends
	none := inventory.NewProber(inventory.Options{})
	none.Watch(t.Context()) // returns at once
	if gpus := none.Health().GetGpus(); len(gpus) != 0 {
		t.Errorf("%v", gpus)
	}
}
