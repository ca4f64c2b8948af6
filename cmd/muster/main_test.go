package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

// runVariable makes the test's own program behave as muster.
const runVariable = "MUSTER_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(runVariable) != "" {
		os.Exit(run())
	}
	os.Exit(m.Run())
}

func muster(t *testing.T, server string, arguments ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, arguments...)
	cmd.Env = append(os.Environ(), runVariable+"=1", "XDG_CONFIG_HOME="+t.TempDir(), "MUSTER_SERVER="+server, "MUSTER_API_KEY=mst_test")
	return cmd
}

func TestASignalDetachesFromACluster(t *testing.T) {
	t.Parallel()
	id := ids.New[ids.Cluster]()
	var looks, others atomic.Int64
	seen := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/v1/clusters/"+id.String() {
			others.Add(1)
		}
		_ = json.NewEncoder(w).Encode(apiv1.Cluster{ID: id, Name: "demo", State: "joining"})
		if looks.Add(1) == 2 {
			close(seen)
		}
	}))
	t.Cleanup(server.Close)
	cmd := muster(t, server.URL, "cluster", "wait", id.String())
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-seen
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	said, _ := io.ReadAll(bufio.NewReader(stderr))
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(said), "detached: the cluster goes on. Come back with `muster cluster wait demo") {
		t.Errorf("exit code %d, said %q", code, said)
	}
	if others.Load() > 0 {
		t.Errorf("%d other requests", others.Load())
	}
}

func TestPipesGetDataOnly(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(apiv1.List[apiv1.Cluster]{})
	}))
	t.Cleanup(server.Close)
	out, err := muster(t, server.URL, "cluster", "ls", "-o", "json").Output()
	if err != nil || string(out) != "[]\n" {
		t.Errorf("%v, %q", err, out)
	}
}
