package process

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/muster-gpu/muster/internal/agentpb"
)

// agentChildEnv makes this test binary an agent that runs until it is killed, so that tests can kill a real one.
const agentChildEnv = "MUSTER_TEST_AGENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(agentChildEnv); dir != "" {
		if err := runAgent(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runAgent applies the nodes in dir/desired.json.
func runAgent(dir string) error {
	ray, err := FindRay(os.Getenv("MUSTER_RAY_VENV"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, "desired.json"))
	if err != nil {
		return err
	}
	desired := &agentpb.DesiredState{}
	if err := protojson.Unmarshal(text, desired); err != nil {
		return err
	}
	rt, err := New(Options{
		StateDir: filepath.Join(dir, "state"), TempRoot: filepath.Join(dir, "s"), Ray: ray,
		SimulatedGPUs: func() bool { return true }, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	rt.Apply(desired.GetNodes())
	return rt.Run(context.Background(), func() {})
}

// realRay is the environment that `make setup` makes.
func realRay(t *testing.T) Ray {
	t.Helper()
	venv := os.Getenv("MUSTER_RAY_VENV")
	if venv == "" {
		found, err := filepath.Glob("../../../.cache/ray-*/bin/ray")
		if err != nil || len(found) == 0 {
			t.Fatal("these tests run real Ray, and there is none in .cache: run `make setup`, or set MUSTER_RAY_VENV")
		}
		venv = filepath.Dir(filepath.Dir(found[len(found)-1]))
	}
	ray, err := FindRay(venv)
	if err != nil {
		t.Fatal(err)
	}
	return ray
}

// shortDir is a folder with a path short enough for Ray's sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "mrt-") //nolint:usetesting // t.TempDir's paths are too long for unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// eventually polls until ok says that it is done, and fails with what it said last.
func eventually(t *testing.T, timeout time.Duration, ok func() (done bool, state string)) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		done, state := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not reached within %s: %s", timeout, state)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// running runs a runtime until the test ends, or until stop is called.
func running(t *testing.T, rt *Runtime) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- rt.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		cancel()
		t.Fatalf("the runtime did not begin: %v", err)
	}
	once := false
	stop = func() {
		if once {
			return
		}
		once = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the runtime ended with %v", err)
		}
	}
	t.Cleanup(func() {
		stop()
		for _, status := range rt.Status() { // of a test that failed half-way
			endMarked(status.GetNodeId(), identity{}, 0)
		}
	})
	return stop
}

func describe(statuses []*agentpb.NodeStatus) string {
	parts := make([]string, 0, len(statuses))
	for _, s := range statuses {
		parts = append(parts, fmt.Sprintf("%s %s %q ray:%v", s.GetNodeId(), s.GetPhase(), s.GetMessage(), s.GetRay().GetNodes()))
	}
	return "\n" + strings.Join(parts, "\n")
}

func phases(statuses []*agentpb.NodeStatus) map[string]agentpb.NodePhase {
	all := map[string]agentpb.NodePhase{}
	for _, s := range statuses {
		all[s.GetNodeId()] = s.GetPhase()
	}
	return all
}

func statusOf(rt *Runtime, id string) *agentpb.NodeStatus {
	for _, s := range rt.Status() {
		if s.GetNodeId() == id {
			return s
		}
	}
	return nil
}

// awaitPhase waits until a node has a phase.
func awaitPhase(t *testing.T, rt *Runtime, id string, phase agentpb.NodePhase) {
	t.Helper()
	eventually(t, time.Minute, func() (bool, string) {
		return statusOf(rt, id).GetPhase() == phase, describe(rt.Status())
	})
}
