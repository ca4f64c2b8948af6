package inventory

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/fakenvml"
)

func TestSimulationMarkerIsTheLibrarysOwn(t *testing.T) {
	t.Parallel()
	if simulationMarker != fakenvml.Marker {
		t.Errorf("the inventory looks for %s, the simulation has %s", simulationMarker, fakenvml.Marker)
	}
}

func TestAbsentLibraryIsAHostWithoutGPUs(t *testing.T) {
	t.Parallel()
	got, _ := readNVML("libmuster-absent.so.1", false)
	if got.GetProbeError() != "" || len(got.GetGpus()) != 0 {
		t.Errorf("error %q, %d GPUs", got.GetProbeError(), len(got.GetGpus()))
	}
}

func TestUnkillableChildIsAbandonedOnce(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	starts := 0
	prober := NewProber(Options{
		Command: []string{"sleep", "600"}, Timeout: 50 * time.Millisecond,
		Now: func() time.Time { starts++; return time.Unix(int64(starts)*1_000_000, 0) }, // no backoff stands in the way
	})
	waits := make(chan struct{}, 2)
	prober.wait = func(cmd *exec.Cmd) error {
		err := cmd.Wait() // the real child does die
		waits <- struct{}{}
		<-release // and this one does not
		return err
	}
	if got := prober.Inventory(t.Context()); !strings.Contains(got.GetProbeError(), "cannot be killed") {
		t.Fatalf("error %q", got.GetProbeError())
	}
	if got := prober.Inventory(t.Context()); !strings.Contains(got.GetProbeError(), "earlier probe still hangs") {
		t.Errorf("error %q", got.GetProbeError())
	}
	if len(waits) != 1 {
		t.Errorf("%d children were started while one hung", len(waits))
	}
	abandoned := prober.abandoned
	close(release)
	<-abandoned
	if got := prober.Inventory(t.Context()); !strings.Contains(got.GetProbeError(), "did not answer") {
		t.Errorf("error %q: the prober does not go on after the child's end", got.GetProbeError())
	}
}

func TestBackoffGrowsToItsBound(t *testing.T) {
	t.Parallel()
	last := time.Duration(0)
	for failures := range 100 {
		wait := backoff(failures)
		if wait < last || wait > maxBackoff {
			t.Fatalf("after %d failures %s, before it %s", failures, wait, last)
		}
		last = wait
	}
	if backoff(0) != firstBackoff || last != maxBackoff {
		t.Errorf("backoff goes from %s to %s", backoff(0), last)
	}
}

func TestHostFactsOfUnusualFiles(t *testing.T) {
	t.Parallel()
	if got := totalMemory(strings.NewReader("MemFree: 5 kB\nMemTotal:       2048 kB\n")); got != 2048*1024 {
		t.Errorf("memory %d", got)
	}
	if got := totalMemory(strings.NewReader("MemTotal: many kB\n")); got != 0 {
		t.Errorf("memory %d of a line that says nothing", got)
	}
	if got := prettyName(strings.NewReader("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n")); got != "Debian GNU/Linux 12" {
		t.Errorf("name %q", got)
	}
	if got := prettyName(strings.NewReader("NAME=x\n")); got != "" {
		t.Errorf("name %q of a file without one", got)
	}
}
