package process

import (
	_ "embed" // the script that joins a head
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/rayaddr"
)

const (
	nodeMark  = "MUSTER_NODE_ID"
	minPorts  = 20 // ten services, and some workers
	maxLabels = 32
)

// The same on every node of a cluster, or the most impatient one decides. A health check that a dead raylet's machine refuses
// fails at once, so a killed node is dead to Ray after seconds, and can be replaced; one that a busy raylet answers late fails
// only after its timeout, so such a node has most of a minute. Joining may take long on a busy machine too.
var patience = []string{
	"RAY_health_check_period_ms=1000",
	"RAY_health_check_timeout_ms=10000",
	"RAY_health_check_failure_threshold=5",
	"RAY_agent_register_timeout_ms=120000",
	"RAY_raylet_start_wait_time_s=120",
	"RAY_NUM_REDIS_GET_RETRIES=60",                  // looks for the head, every two seconds
	"RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S=120", // a driver of ray:// waits for a process that imports Ray first
}

// calmForks is for the server of ray://, which forks a process for each driver while it serves: what gRPC does at a fork can abort or hang
// that process, and its driver with it (ray-project/ray#63202). It becomes another program at once and has no need of that.
const calmForks = "GRPC_ENABLE_FORK_SUPPORT=0"

var (
	safeID     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
	labelText  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$`)
	firstOwned = netip.MustParseAddr("127.0.0.2") // Ray replaces 127.0.0.1 by the machine's own address
)

// check refuses a node that this runtime must not or cannot start. Nothing of a spec is trusted: it becomes paths, arguments
// and addresses.
func check(spec *agentpb.NodeSpec, ray Ray) error {
	switch {
	case !safeID.MatchString(spec.GetNodeId()):
		return errs.New(errs.Invalid, "the node's id is malformed")
	case spec.GetRayVersion() != ray.Version:
		return errs.New(errs.Unavailable, "this host has Ray %s and the cluster wants %s", ray.Version, spec.GetRayVersion())
	case len(spec.GetRayToken()) < 16 || strings.ContainsAny(spec.GetRayToken(), " \t\r\n\x00"):
		return errs.New(errs.Invalid, "the cluster's Ray token is missing or malformed")
	case !loopback(spec.GetAddress()) || !loopback(spec.GetHeadAddress()):
		return errs.New(errs.Invalid, "the process runtime needs loopback addresses other than 127.0.0.1, not %q and %q", spec.GetAddress(), spec.GetHeadAddress())
	case spec.GetPortCount() < minPorts || spec.GetPortBase() < 1024 || spec.GetPortBase()+spec.GetPortCount() > 65536:
		return errs.New(errs.Invalid, "the node's ports from %d, %d of them, are no usable range", spec.GetPortBase(), spec.GetPortCount())
	case spec.GetHead() && spec.GetHeadPort() != spec.GetPortBase():
		return errs.New(errs.Invalid, "the head's port %d is not the first of its range", spec.GetHeadPort())
	case len(spec.GetLabels()) > maxLabels:
		return errs.New(errs.Invalid, "a node has at most %d labels", maxLabels)
	}
	for key, value := range spec.GetLabels() {
		if !labelText.MatchString(key) || !labelText.MatchString(value) {
			return errs.New(errs.Invalid, "the label %q=%q is malformed", key, value)
		}
	}
	for _, uuid := range spec.GetGpuUuids() {
		if !labelText.MatchString(uuid) {
			return errs.New(errs.Invalid, "the GPU id %q is malformed", uuid)
		}
	}
	return nil
}

func loopback(text string) bool {
	address, err := netip.ParseAddr(text)
	return err == nil && address.Is4() && address.IsLoopback() && !address.Less(firstOwned)
}

//go:embed join.py
var joinScript string

// command is what starts a node whose session lives under dir, program first.
func command(spec *agentpb.NodeSpec, o Options, dir string) []string {
	args := arguments(spec, o, dir)
	if spec.GetHead() {
		return append([]string{o.Ray.command()}, args...)
	}
	port := rayaddr.PortsFrom(int(spec.GetHeadPort()), int(spec.GetPortCount())).NodeManager
	return append([]string{o.Ray.python(), "-c", joinScript, spec.GetHeadAddress(), strconv.Itoa(port)}, args...)
}

// arguments are those of `ray` for a node whose session lives under dir.
func arguments(spec *agentpb.NodeSpec, o Options, dir string) []string {
	ports := portsOf(spec)
	args := []string{"start", "--block", "--disable-usage-stats"}
	if spec.GetHead() {
		args = append(args, "--head",
			"--port="+strconv.Itoa(ports.GCS),
			"--dashboard-host="+spec.GetAddress(),
			"--dashboard-port="+strconv.Itoa(ports.Dashboard),
			"--ray-client-server-port="+strconv.Itoa(ports.RayClient),
			"--num-cpus=0", "--num-gpus=0")
	} else {
		args = append(args,
			"--address="+gcsAddress(spec),
			"--num-cpus="+strconv.Itoa(o.NodeCPUs),
			"--num-gpus="+strconv.Itoa(len(spec.GetGpuUuids())))
	}
	args = append(args,
		"--node-ip-address="+spec.GetAddress(),
		"--node-manager-port="+strconv.Itoa(ports.NodeManager),
		"--object-manager-port="+strconv.Itoa(ports.ObjectManager),
		"--runtime-env-agent-port="+strconv.Itoa(ports.RuntimeEnvAgent),
		"--dashboard-agent-grpc-port="+strconv.Itoa(ports.DashboardAgentGRPC),
		"--dashboard-agent-listen-port="+strconv.Itoa(ports.DashboardAgentHTTP),
		"--metrics-export-port="+strconv.Itoa(ports.Metrics),
		"--min-worker-port="+strconv.Itoa(ports.MinWorker),
		"--max-worker-port="+strconv.Itoa(ports.MaxWorker),
		"--object-store-memory="+strconv.FormatInt(o.ObjectStoreBytes, 10),
		"--temp-dir="+sessionDir(dir))
	if labels := labelArgument(spec.GetLabels()); labels != "" {
		args = append(args, "--labels="+labels)
	}
	return args
}

// environment is all that a node's processes see of the agent's. SPT_NOENV keeps Ray from writing process titles over the
// environment, by which the node's processes are found again.
func environment(spec *agentpb.NodeSpec, o Options, dir, tokenFile string) []string {
	env := []string{
		nodeMark + "=" + spec.GetNodeId(),
		"MUSTER_CLUSTER_ID=" + spec.GetClusterId(),
		"SPT_NOENV=1",
		"PYTHONUNBUFFERED=1", // or the log ends before the reason
		"PATH=" + filepath.Join(o.Ray.Venv, "bin") + ":/usr/local/bin:/usr/bin:/bin",
		"VIRTUAL_ENV=" + o.Ray.Venv,
		"HOME=" + homeDir(dir),
		"TMPDIR=" + tmpDir(dir),
		"LANG=C.UTF-8",
		"RAY_AUTH_MODE=token",
		"RAY_AUTH_TOKEN_PATH=" + tokenFile,
	}
	env = append(env, patience...)
	if spec.GetHead() {
		env = append(env, calmForks)
	}
	if !o.SimulatedGPUs() {
		env = append(env, "CUDA_VISIBLE_DEVICES="+strings.Join(spec.GetGpuUuids(), ","))
	}
	return append(env, o.Env...)
}

func labelArgument(labels map[string]string) string {
	pairs := make([]string, 0, len(labels))
	for key, value := range labels {
		pairs = append(pairs, key+"="+value)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

func portsOf(spec *agentpb.NodeSpec) rayaddr.Ports {
	return rayaddr.PortsFrom(int(spec.GetPortBase()), int(spec.GetPortCount()))
}

func gcsAddress(spec *agentpb.NodeSpec) string {
	return net.JoinHostPort(spec.GetHeadAddress(), strconv.Itoa(int(spec.GetHeadPort())))
}

func baseURL(spec *agentpb.NodeSpec, port int) string {
	return fmt.Sprintf("http://%s", net.JoinHostPort(spec.GetAddress(), strconv.Itoa(port)))
}

func sessionDir(dir string) string { return filepath.Join(dir, "r") }
func homeDir(dir string) string    { return filepath.Join(dir, "h") }
func tmpDir(dir string) string     { return filepath.Join(dir, "t") }
