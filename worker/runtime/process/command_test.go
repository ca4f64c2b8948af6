package process

import (
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/rayaddr"
)

const (
	testToken = "0123456789abcdef0123456789abcdef"
	testRay   = "2.60.0"
)

func spec(id string, slot, headSlot, gpus int) *agentpb.NodeSpec {
	s := &agentpb.NodeSpec{
		NodeId: id, ClusterId: "cl_test", Head: slot == headSlot, RayVersion: testRay, RayToken: testToken,
		Address: rayaddr.Address(slot), HeadAddress: rayaddr.Address(headSlot), HeadPort: int32(rayaddr.PortBase(headSlot)),
		PortBase: int32(rayaddr.PortBase(slot)), PortCount: rayaddr.PortCount,
	}
	for i := range gpus {
		s.GpuUuids = append(s.GpuUuids, "GPU-"+id+"-"+string(rune('a'+i)))
	}
	return s
}

func testOptions() Options {
	return Options{
		Ray: Ray{Venv: "/venv", Version: testRay}, ObjectStoreBytes: 200_000_000, NodeCPUs: 4,
		SimulatedGPUs: func() bool { return false },
	}
}

func TestArgumentsOfHead(t *testing.T) {
	t.Parallel()
	want := []string{
		"start", "--block", "--disable-usage-stats", "--head", "--port=10300", "--dashboard-host=127.77.0.5", "--dashboard-port=10301",
		"--ray-client-server-port=10302", "--num-cpus=0", "--num-gpus=0", "--node-ip-address=127.77.0.5", "--node-manager-port=10303",
		"--object-manager-port=10304", "--runtime-env-agent-port=10305", "--dashboard-agent-grpc-port=10306",
		"--dashboard-agent-listen-port=10307", "--metrics-export-port=10308", "--min-worker-port=10310", "--max-worker-port=10399",
		"--object-store-memory=200000000", "--temp-dir=/t/x/r",
	}
	if got := arguments(spec("node_a", 3, 3, 0), testOptions(), "/t/x"); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestArgumentsOfGPUNode(t *testing.T) {
	t.Parallel()
	s := spec("node_b", 4, 3, 2)
	s.Labels = map[string]string{"region": "eu-west", "host": "host_1"}
	want := []string{
		"start", "--block", "--disable-usage-stats", "--address=127.77.0.5:10300", "--num-cpus=4", "--num-gpus=2",
		"--node-ip-address=127.77.0.6", "--node-manager-port=10403", "--object-manager-port=10404", "--runtime-env-agent-port=10405",
		"--dashboard-agent-grpc-port=10406", "--dashboard-agent-listen-port=10407", "--metrics-export-port=10408",
		"--min-worker-port=10410", "--max-worker-port=10499", "--object-store-memory=200000000", "--temp-dir=/t/x/r",
		"--labels=host=host_1,region=eu-west",
	}
	if got := arguments(s, testOptions(), "/t/x"); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestNodeWaitsForTheHeadsRaylet(t *testing.T) {
	t.Parallel()
	got := command(spec("node_b", 4, 3, 2), testOptions(), "/t/x")
	want := []string{"/venv/bin/python3", "-c", joinScript, "127.77.0.5", "10303", "start"}
	if !slices.Equal(got[:len(want)], want) {
		t.Errorf("got %q", got)
	}
	if head := command(spec("node_a", 3, 3, 0), testOptions(), "/t/x"); head[0] != "/venv/bin/ray" || head[1] != "start" {
		t.Errorf("got %q", head)
	}
}

func TestEnvironmentIsNotTheAgents(t *testing.T) {
	t.Setenv("MUSTER_TEST_SECRET", "do not pass on")
	s := spec("node_b", 4, 3, 2)
	env := environment(s, testOptions(), "/t/x", "/state/token")
	for _, variable := range env {
		if strings.Contains(variable, "do not pass on") || strings.Contains(variable, testToken) {
			t.Errorf("%q is in a node's environment", variable)
		}
	}
	for _, want := range []string{
		"MUSTER_NODE_ID=node_b", "SPT_NOENV=1", "RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN_PATH=/state/token", "HOME=/t/x/h", "TMPDIR=/t/x/t",
		"CUDA_VISIBLE_DEVICES=GPU-node_b-a,GPU-node_b-b", "RAY_health_check_period_ms=1000",
	} {
		if !slices.Contains(env, want) {
			t.Errorf("%q is missing in %q", want, env)
		}
	}
	if head := environment(spec("node_head", 3, 3, 0), testOptions(), "/t/x", "/state/token"); !slices.Contains(head, calmForks) || slices.Contains(env, calmForks) {
		t.Errorf("%q is for heads alone: %q, %q", calmForks, head, env)
	}
}

func TestCUDASeesOnlyLeasedGPUs(t *testing.T) {
	t.Parallel()
	o := testOptions()
	if env := environment(spec("node_a", 3, 3, 0), o, "/t", "/k"); !slices.Contains(env, "CUDA_VISIBLE_DEVICES=") {
		t.Error("a head without GPUs could use the host's")
	}
	o.SimulatedGPUs = func() bool { return true }
	for _, variable := range environment(spec("node_b", 4, 3, 2), o, "/t", "/k") {
		if strings.HasPrefix(variable, "CUDA_VISIBLE_DEVICES") {
			t.Errorf("%q names GPUs that CUDA does not know", variable)
		}
	}
}

func TestMalformedSpecsAreRefused(t *testing.T) {
	t.Parallel()
	cases := map[string]func(*agentpb.NodeSpec){
		"path in the id":        func(s *agentpb.NodeSpec) { s.NodeId = "../../etc" },
		"no id":                 func(s *agentpb.NodeSpec) { s.NodeId = "" },
		"another Ray":           func(s *agentpb.NodeSpec) { s.RayVersion = "2.9.0" },
		"no token":              func(s *agentpb.NodeSpec) { s.RayToken = "" },
		"token with a newline":  func(s *agentpb.NodeSpec) { s.RayToken = testToken + "\nX: y" },
		"public address":        func(s *agentpb.NodeSpec) { s.Address = "10.0.0.1" },
		"127.0.0.1":             func(s *agentpb.NodeSpec) { s.Address = "127.0.0.1" },
		"head elsewhere":        func(s *agentpb.NodeSpec) { s.HeadAddress = "example.org" },
		"privileged ports":      func(s *agentpb.NodeSpec) { s.PortBase = 80 },
		"too few ports":         func(s *agentpb.NodeSpec) { s.PortCount = 5 },
		"ports past the end":    func(s *agentpb.NodeSpec) { s.PortBase = 65500 },
		"head with another GCS": func(s *agentpb.NodeSpec) { s.Head = true },
		"label that is a flag":  func(s *agentpb.NodeSpec) { s.Labels = map[string]string{"--head": "x"} },
		"label with a comma":    func(s *agentpb.NodeSpec) { s.Labels = map[string]string{"a": "b,c=d"} },
		"GPU id with a comma":   func(s *agentpb.NodeSpec) { s.GpuUuids = []string{"GPU-1,GPU-2"} },
	}
	good := spec("node_b", 4, 3, 2)
	ray := Ray{Venv: "/venv", Version: testRay}
	if err := check(good, ray); err != nil {
		t.Fatalf("a good spec is refused: %v", err)
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, ok := proto.Clone(good).(*agentpb.NodeSpec)
			if !ok {
				t.Fatal("a clone of another type")
			}
			spoil(s)
			if code := errs.CodeOf(check(s, ray)); code != errs.Invalid && code != errs.Unavailable {
				t.Errorf("got code %q", code)
			}
		})
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	t.Parallel()
	good := Options{StateDir: t.TempDir(), Ray: Ray{Venv: "/venv", Version: testRay}}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	cases := map[string]func(*Options){
		"no state":        func(o *Options) { o.StateDir = "" },
		"no Ray":          func(o *Options) { o.Ray = Ray{} },
		"long socket dir": func(o *Options) { o.TempRoot = "/" + strings.Repeat("x", maxTempRootLength) },
		"tiny store":      func(o *Options) { o.ObjectStoreBytes = 1000 },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := good
			spoil(&o)
			if _, err := New(o); errs.CodeOf(err) != errs.Invalid {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestFindRayNamesTheRemedy(t *testing.T) {
	t.Parallel()
	if _, err := FindRay(t.TempDir()); errs.CodeOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "make setup") {
		t.Errorf("got %v", err)
	}
	venv := standIn(t, "exit 0")
	if venv.Version != testRay {
		t.Errorf("version %q", venv.Version)
	}
}

// standIn is an environment whose `ray` is a shell script, for what real Ray does not do on demand.
func standIn(t *testing.T, script string) Ray {
	t.Helper()
	venv := t.TempDir()
	for _, dir := range []string{"/bin", "/lib/python3.11/site-packages/ray-" + testRay + ".dist-info"} {
		if err := os.MkdirAll(venv+dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(venv+"/bin/ray", []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ray, err := FindRay(venv)
	if err != nil {
		t.Fatal(err)
	}
	return ray
}
