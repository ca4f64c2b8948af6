package inventory_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/fakenvml"
	"github.com/muster-gpu/muster/worker/inventory"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// options runs the probe child against a library and a profile.
func options(library, profile string) inventory.Options {
	return inventory.Options{
		Command: []string{os.Args[0], "--" + inventory.LibraryFlag, library},
		Env:     []string{probeChildEnv + "=1", fakenvml.ProfileEnv + "=" + profile},
		Timeout: time.Minute, Runtime: "process", RayVersions: []string{"2.60.0"},
	}
}

func profile(t *testing.T, name string, gpus int, faults ...fakenvml.Fault) string {
	t.Helper()
	path, err := fakenvml.WriteProfile(t.TempDir(), name, gpus, "test-host", faults...)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func probe(t *testing.T, o inventory.Options) *agentpb.Inventory {
	t.Helper()
	return inventory.NewProber(o).Inventory(t.Context())
}

func TestInventoryOfEachProfile(t *testing.T) {
	t.Parallel()
	for _, name := range fakenvml.Profiles() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := probe(t, options(fakeLibrary, profile(t, name, 2)))
			if !got.GetSimulated() || got.GetProbeError() != "" || len(got.GetGpus()) != 2 {
				t.Fatalf("simulated %v, error %q, %d GPUs", got.GetSimulated(), got.GetProbeError(), len(got.GetGpus()))
			}
			got.Cpus, got.MemoryBytes, got.Os, got.Kernel = 0, 0, "", "" // this machine's
			compareGolden(t, filepath.Join("testdata", name+".json"), got)
		})
	}
}

// compareGolden holds an inventory to a file; protojson's own spacing is random on purpose.
func compareGolden(t *testing.T, path string, got *agentpb.Inventory) {
	t.Helper()
	raw, err := protojson.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, text) {
		t.Errorf("inventory differs from %s (run the test with -update to accept):\n%s", path, text)
	}
}

func TestConsumerBoardLeavesUnknownFieldsAbsent(t *testing.T) {
	t.Parallel()
	gpu := probe(t, options(fakeLibrary, profile(t, "rtx4090", 1))).GetGpus()[0]
	if gpu.Serial != nil || gpu.BoardPartNumber != nil || gpu.EccEnabled != nil || gpu.EccUncorrected != nil || gpu.MigEnabled != nil {
		t.Errorf("values that the board does not have are present: %v", gpu)
	}
	if gpu.UtilizationPercent == nil || *gpu.UtilizationPercent != 0 {
		t.Error("an idle GPU's utilisation of 0 is known, and must be present")
	}
}

func TestLostGPUDoesNotHideTheOthers(t *testing.T) {
	t.Parallel()
	gpus := probe(t, options(fakeLibrary, profile(t, "h100-sxm", 3, fakenvml.Lost(1)))).GetGpus()
	if len(gpus) != 3 {
		t.Fatalf("%d GPUs, want 3", len(gpus))
	}
	for i, gpu := range gpus {
		if lost := strings.Contains(gpu.GetFault(), "lost"); lost != (i == 1) {
			t.Errorf("GPU %d has fault %q", i, gpu.GetFault())
		}
	}
	lost := gpus[1]
	if lost.GetUuid() == "" || lost.GetProduct() == "" {
		t.Error("a lost GPU still has its name and UUID")
	}
	if lost.GetMemoryBytes() != 0 || lost.PciBusId != nil || lost.TemperatureCelsius != nil {
		t.Errorf("what cannot be read of a lost GPU is present: %v", lost)
	}
}

func TestMissingOptionalSymbolsLeaveTheirFieldsAbsent(t *testing.T) {
	t.Parallel()
	library := buildWithout(t, "nvmlDeviceGetSerial", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMigMode", "nvmlSystemGetCudaDriverVersion_v2")
	got := probe(t, options(library, profile(t, "h100-sxm", 1)))
	if got.GetProbeError() != "" || len(got.GetGpus()) != 1 {
		t.Fatalf("error %q, %d GPUs", got.GetProbeError(), len(got.GetGpus()))
	}
	gpu := got.GetGpus()[0]
	if gpu.Serial != nil || gpu.MigEnabled != nil || got.GetCudaVersion() != "" {
		t.Errorf("values that the library cannot give are present: %v", gpu)
	}
	if gpu.GetMemoryBytes() == 0 || gpu.GetFault() != "" {
		t.Errorf("memory %d, fault %q: the older memory call was not used", gpu.GetMemoryBytes(), gpu.GetFault())
	}
}

func TestMissingSymbolsOfTheBasicsAreAnError(t *testing.T) {
	t.Parallel()
	for _, symbol := range []string{"nvmlInit_v2", "nvmlErrorString", "nvmlDeviceGetCount_v2"} {
		t.Run(symbol, func(t *testing.T) {
			t.Parallel()
			got := probe(t, options(buildWithout(t, symbol), profile(t, "h100-sxm", 1)))
			if got.GetProbeError() == "" || len(got.GetGpus()) != 0 {
				t.Errorf("error %q, %d GPUs", got.GetProbeError(), len(got.GetGpus()))
			}
		})
	}
}

func buildWithout(t *testing.T, symbols ...string) string {
	t.Helper()
	library, err := fakenvml.Build(t.Context(), t.TempDir(), symbols...)
	if err != nil {
		t.Fatal(err)
	}
	return library
}

func TestNVMLThatDoesNotStartSaysWhy(t *testing.T) {
	t.Parallel()
	malformed := filepath.Join(t.TempDir(), "profile.txt")
	if err := os.WriteFile(malformed, []byte("driver\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const resetRequired = 16
	cases := map[string]struct{ library, profile, want string }{
		"driver not loaded": {fakeLibrary, profile(t, "l40s", 1, fakenvml.DriverNotLoaded()), "Driver Not Loaded"},
		"other failure":     {fakeLibrary, profile(t, "l40s", 1, fakenvml.InitFails(resetRequired)), "did not start"},
		"bad profile":       {fakeLibrary, malformed, "did not start"},
		"no such library":   {"/nonexistent/libnvidia-ml.so.1", "", "cannot be loaded"},
		"another library":   {"libc.so.6", "", "no usable NVML library"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := probe(t, options(c.library, c.profile))
			if !strings.Contains(got.GetProbeError(), c.want) || len(got.GetGpus()) != 0 {
				t.Errorf("error %q, %d GPUs, want %q", got.GetProbeError(), len(got.GetGpus()), c.want)
			}
		})
	}
}

func TestSlowDriverIsWaitedFor(t *testing.T) {
	t.Parallel()
	got := probe(t, options(fakeLibrary, profile(t, "a100-80", 1, fakenvml.Slow(3*time.Millisecond))))
	if got.GetProbeError() != "" || len(got.GetGpus()) != 1 || got.GetGpus()[0].GetFault() != "" {
		t.Errorf("error %q, GPUs %v", got.GetProbeError(), got.GetGpus())
	}
}

// clock is moved by the test alone.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestHangingDriverIsKilledAndNotHammered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, err := fakenvml.WriteProfile(dir, "h100-sxm", 1, "host", fakenvml.Hang("nvmlDeviceGetPciInfo_v3"))
	if err != nil {
		t.Fatal(err)
	}
	wall := &clock{now: time.Unix(1_800_000_000, 0)}
	o := options(fakeLibrary, path)
	o.Timeout, o.Now = 3*time.Second, wall.Now
	prober := inventory.NewProber(o)
	if got := prober.Inventory(t.Context()); !strings.Contains(got.GetProbeError(), "did not answer within 3s") {
		t.Fatalf("error %q", got.GetProbeError())
	}
	if left := children(t, path); len(left) != 0 {
		t.Errorf("probe children %v are left", left)
	}
	// The driver recovers, and the prober does not look before its time.
	if _, err := fakenvml.WriteProfile(dir, "h100-sxm", 1, "host"); err != nil {
		t.Fatal(err)
	}
	if got := prober.Inventory(t.Context()); !strings.Contains(got.GetProbeError(), "next attempt in 15s") {
		t.Errorf("error %q", got.GetProbeError())
	}
	wall.advance(16 * time.Second)
	if got := prober.Inventory(t.Context()); got.GetProbeError() != "" || len(got.GetGpus()) != 1 {
		t.Errorf("error %q, %d GPUs", got.GetProbeError(), len(got.GetGpus()))
	}
}

// children lists the processes that were given a profile.
func children(t *testing.T, profile string) []int {
	t.Helper()
	var found []int
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if err == nil && slices.Contains(strings.Split(string(env), "\x00"), fakenvml.ProfileEnv+"="+profile) {
			found = append(found, pid)
		}
	}
	return found
}

func TestChildThatCrashesOrBabbles(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ script, want string }{
		"missing symbol": {"echo 'symbol lookup error: undefined symbol' >&2; exit 127", "undefined symbol"},
		"not JSON":       {"echo hello", "not readable"},
		"endless":        {"head -c 3000000 /dev/zero", "not readable"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := inventory.Options{Command: []string{"sh", "-c", c.script}, Timeout: time.Minute}
			if got := probe(t, o); !strings.Contains(got.GetProbeError(), c.want) {
				t.Errorf("error %q, want %q", got.GetProbeError(), c.want)
			}
		})
	}
}

func TestCallerThatGivesUpIsNoFailureOfTheDriver(t *testing.T) {
	t.Parallel()
	prober := inventory.NewProber(options(fakeLibrary, profile(t, "h100-sxm", 1)))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if got := prober.Inventory(gone); got.GetProbeError() == "" {
		t.Error("a probe whose caller is gone has no answer")
	}
	if got := prober.Inventory(t.Context()); got.GetProbeError() != "" || len(got.GetGpus()) != 1 {
		t.Errorf("error %q, %d GPUs", got.GetProbeError(), len(got.GetGpus()))
	}
}

func TestHostWithoutGPUs(t *testing.T) {
	t.Parallel()
	got := probe(t, inventory.Options{DiskPath: t.TempDir(), Runtime: "process", RayVersions: []string{"2.60.0"}})
	if got.GetProbeError() != "" || len(got.GetGpus()) != 0 || got.GetSimulated() {
		t.Errorf("error %q, %d GPUs, simulated %v", got.GetProbeError(), len(got.GetGpus()), got.GetSimulated())
	}
	if got.GetCpus() < 1 || got.GetMemoryBytes() < 1<<28 || got.GetDiskFreeBytes() <= 0 || got.GetKernel() == "" || got.GetOs() == "" {
		t.Errorf("host facts are missing: %v", got)
	}
	if got.GetRuntime() != "process" || !slices.Equal(got.GetRayVersions(), []string{"2.60.0"}) {
		t.Errorf("runtime %q, Ray %v", got.GetRuntime(), got.GetRayVersions())
	}
}
