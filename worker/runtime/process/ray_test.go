package process

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/muster-gpu/muster/internal/agentpb"
)

// Slots of their own, so that a local stack on the same machine does not meet the tests.
const (
	realSlot = 200
	bareSlot = 205

	rayPatience = 3 * time.Minute // machines that run tests are busy
)

// oneCluster keeps the tests from starting two clusters at a time: on a busy machine of few cores, raylets give up on their
// agents after 15 seconds, which nothing configures.
var oneCluster sync.Mutex

// TestRealRay takes one real cluster through its life, for each start of Ray takes many seconds: an agent in a process of its
// own starts a head and two GPU nodes and is killed; the next one adopts them, loses one, and stops the rest.
func TestRealRay(t *testing.T) {
	t.Parallel()
	oneCluster.Lock()
	defer oneCluster.Unlock()
	ray := realRay(t)
	dir := shortDir(t)
	cluster := []*agentpb.NodeSpec{spec("node_real_head", realSlot, realSlot, 0), spec("node_real_1", realSlot+1, realSlot, 2), spec("node_real_2", realSlot+2, realSlot, 1)}
	for _, s := range cluster {
		s.RayVersion = ray.Version
		t.Cleanup(func() { endMarked(s.GetNodeId(), identity{}, 0) })
	}
	cluster[1].Labels = map[string]string{"muster.host": "host_1"}
	agent := startAgent(t, ray, dir, cluster)
	awaitHealthyRecords(t, dir, cluster)
	before := mainProcesses(t, dir, cluster)
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()

	rt, err := New(Options{StateDir: filepath.Join(dir, "state"), TempRoot: filepath.Join(dir, "s"), Ray: ray, SimulatedGPUs: func() bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	running(t, rt)
	for _, s := range cluster {
		if got := statusOf(rt, s.GetNodeId()).GetPhase(); got != phaseRunning {
			t.Fatalf("%s is not adopted as running: %s", s.GetNodeId(), describe(rt.Status()))
		}
	}
	rt.Apply(cluster)
	awaitSummary(t, rt, cluster)
	if after := mainProcesses(t, dir, cluster); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("processes %v became %v: a node was started again", before, after)
	}
	tokenIsAskedFor(t, cluster[0])
	dashboardAnswersThroughTunnel(t, rt, cluster[0])
	environmentOfEveryProcess(t, cluster)
	drainUnderWork(t, rt, cluster)

	killRaylet(t, cluster[2].GetNodeId())
	awaitPhase(t, rt, cluster[2].GetNodeId(), phaseFailed)
	if message := statusOf(rt, cluster[2].GetNodeId()).GetMessage(); !strings.Contains(message, "raylet") {
		t.Errorf("the message does not say what ended: %q", message)
	}
	nothingLeft(t, rt, cluster[2].GetNodeId())
	awaitDeath(t, rt, cluster[0].GetNodeId(), cluster[2].GetAddress())
	if got := phases(rt.Status()); got[cluster[0].GetNodeId()] != phaseRunning {
		t.Errorf("the head does not go on: %s", describe(rt.Status()))
	}
	stopTheRest(t, rt, cluster)
	entries, err := os.ReadDir(filepath.Join(dir, "s"))
	if err != nil || len(entries) != 0 {
		t.Errorf("session folders %v are left, %v", entries, err)
	}
}

func startAgent(t *testing.T, ray Ray, dir string, nodes []*agentpb.NodeSpec) *exec.Cmd {
	t.Helper()
	text, err := protojson.Marshal(&agentpb.DesiredState{Nodes: nodes})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "desired.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(os.Args[0])
	agent.Env = append(os.Environ(), agentChildEnv+"="+dir, "MUSTER_RAY_VENV="+ray.Venv)
	agent.Stderr = os.Stderr
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Process.Kill() })
	return agent
}

func recordOf(dir, id string) (record, error) {
	return readRecord(filepath.Join(dir, "state", "nodes", id, "record.json"))
}

func awaitHealthyRecords(t *testing.T, dir string, nodes []*agentpb.NodeSpec) {
	t.Helper()
	for _, s := range nodes {
		eventually(t, rayPatience, func() (bool, string) {
			rec, err := recordOf(dir, s.GetNodeId())
			return err == nil && rec.State == healthy, fmt.Sprintf("%s is %q %s, %v", s.GetNodeId(), rec.State, rec.Message, err)
		})
	}
}

func mainProcesses(t *testing.T, dir string, nodes []*agentpb.NodeSpec) []identity {
	t.Helper()
	var all []identity
	for _, s := range nodes {
		rec, err := recordOf(dir, s.GetNodeId())
		if err != nil || !rec.Process.alive() {
			t.Fatalf("%s does not run: %+v, %v", s.GetNodeId(), rec, err)
		}
		all = append(all, rec.Process)
	}
	return all
}

func awaitSummary(t *testing.T, rt *Runtime, nodes []*agentpb.NodeSpec) {
	t.Helper()
	idle := int32(0)
	want := &agentpb.RaySummary{RunningJobs: &idle, Busy: &idle}
	for _, s := range nodes {
		want.Nodes = append(want.Nodes, &agentpb.RayNode{Address: s.GetAddress(), Alive: true, Gpus: int32(len(s.GetGpuUuids())), Head: s.GetHead()})
	}
	deadline := time.After(rayPatience)
	for !proto.Equal(statusOf(rt, nodes[0].GetNodeId()).GetRay(), want) {
		select { // a change is announced, not only there to be found
		case <-rt.Changed():
		case <-deadline:
			t.Fatalf("want %v, have %s", want, describe(rt.Status()))
		}
	}
}

// awaitDeath waits until the head says that a node is dead, without which a replacement would not make the cluster ready.
func awaitDeath(t *testing.T, rt *Runtime, head, address string) {
	t.Helper()
	eventually(t, time.Minute, func() (bool, string) {
		for _, node := range statusOf(rt, head).GetRay().GetNodes() {
			if node.GetAddress() == address {
				return !node.GetAlive(), describe(rt.Status())
			}
		}
		return true, ""
	})
}

func tokenIsAskedFor(t *testing.T, head *agentpb.NodeSpec) {
	t.Helper()
	url := baseURL(head, portsOf(head).Dashboard) + "/nodes?view=summary"
	for name, c := range map[string]struct {
		header string
		want   int
	}{
		"none":  {"", http.StatusUnauthorized},
		"wrong": {"Bearer " + strings.Repeat("0", 32), http.StatusForbidden},
		"right": {"Bearer " + head.GetRayToken(), http.StatusOK},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.header != "" {
			request.Header.Set("Authorization", c.header)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != c.want {
			t.Errorf("with %s token: %s", name, response.Status)
		}
	}
	if conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", portsOf(head).Dashboard), time.Second); err == nil {
		conn.Close()
		t.Error("the dashboard listens on every address")
	}
}

func dashboardAnswersThroughTunnel(t *testing.T, rt *Runtime, head *agentpb.NodeSpec) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	conn, err := rt.DialNode(ctx, head.GetNodeId(), portsOf(head).Dashboard)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /api/version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", head.GetRayToken()); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Errorf("answer %q, %v", line, err)
	}
}

// environmentOfEveryProcess checks what finding a node's processes rests on: Ray leaves the mark in the environment of each.
func environmentOfEveryProcess(t *testing.T, nodes []*agentpb.NodeSpec) {
	t.Helper()
	for _, s := range nodes {
		all, marked, err := scan([]byte(nodeMark + "=" + s.GetNodeId()))
		if err != nil {
			t.Fatal(err)
		}
		sessions := map[int]bool{}
		for pid := range marked {
			sessions[all[pid].session] = true
		}
		count := 0
		for pid, st := range all {
			if !sessions[st.session] {
				continue
			}
			count++
			if again, err := readStat(pid); err == nil && again.running() && !marked[pid] && !carries(pid, []byte(nodeMark+"="+s.GetNodeId())) {
				t.Errorf("process %s of %s lacks the mark", describeProcesses([]identity{{PID: pid}}), s.GetNodeId())
			}
		}
		if count < 4 {
			t.Errorf("only %d processes of %s", count, s.GetNodeId())
		}
	}
}

// drainUnderWork has a client of Ray's own protocol run a task that fits on one node only, and takes that node out meanwhile: the
// head tells of the driver and of the work, the task is finished, and the node ends soon after and before its time.
func drainUnderWork(t *testing.T, rt *Runtime, cluster []*agentpb.NodeSpec) {
	t.Helper()
	head, node := cluster[0], cluster[1]
	began, finish := filepath.Join(t.TempDir(), "began"), filepath.Join(t.TempDir(), "finish")
	driver := startDriver(t, rt.opts.Ray, head, began, finish)
	ended := make(chan error, 1)
	go func() { ended <- driver.Wait() }()
	eventually(t, rayPatience, func() (bool, string) {
		select {
		case err := <-ended:
			t.Fatalf("the driver ended before its work began: %v\n%s", err, driver.Stdout)
		default:
		}
		_, err := os.Stat(began)
		ray := statusOf(rt, head.GetNodeId()).GetRay()
		return err == nil && ray.GetRunningJobs() == 1 && ray.GetBusy() == 1, fmt.Sprint(err, ray)
	})
	leaving, _ := proto.Clone(node).(*agentpb.NodeSpec)
	leaving.Stop, leaving.DrainMs = true, int32(maxDrain.Milliseconds())
	rt.Apply([]*agentpb.NodeSpec{head, leaving, cluster[2]})
	begun := time.Now()
	awaitPhase(t, rt, node.GetNodeId(), phaseStopping)
	eventually(t, rayPatience, func() (bool, string) {
		log, err := os.ReadFile(filepath.Join(sessionDir(rt.newNode(node).temp), "session_latest", "logs", "raylet.out"))
		return bytes.Contains(log, []byte("DRAIN_NODE_REASON_PREEMPTION")), fmt.Sprint("the raylet was not told to drain, ", err)
	})
	if err := os.WriteFile(finish, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the driver of work on a draining node ended with %v: %s", err, driver.Stdout)
	}
	awaitPhase(t, rt, node.GetNodeId(), phaseStopped)
	if took := time.Since(begun); took >= maxDrain {
		t.Errorf("an idle node drained for %s", took)
	}
	nothingLeft(t, rt, node.GetNodeId())
	eventually(t, rayPatience, func() (bool, string) {
		ray := statusOf(rt, head.GetNodeId()).GetRay()
		return ray.RunningJobs != nil && ray.Busy != nil && ray.GetRunningJobs() == 0 && ray.GetBusy() == 0, fmt.Sprint(ray)
	})
}

func startDriver(t *testing.T, ray Ray, head *agentpb.NodeSpec, began, finish string) *exec.Cmd {
	t.Helper()
	address := net.JoinHostPort(head.GetAddress(), itoa(portsOf(head).RayClient))
	driver := exec.Command(ray.python(), "-c", driverScript, "ray://"+address, began, finish)
	driver.Env = append(os.Environ(), "RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN="+head.GetRayToken(),
		"RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S=40", "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S=60") // not 5 and 30: see rayPatience
	driver.Stdout = &bytes.Buffer{}
	driver.Stderr = driver.Stdout
	if err := driver.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = driver.Process.Kill() })
	return driver
}

// driverScript runs a task that wants two GPUs, says when it has begun, and ends when it is told to.
const driverScript = `
import os, sys, time
import ray
address, began, finish = sys.argv[1:]
ray.init(address)
@ray.remote(num_gpus=2, max_retries=0)
def work():
    open(began, "w").close()
    while not os.path.exists(finish):
        time.sleep(0.1)
ray.get(work.remote(), timeout=150)
`

func killRaylet(t *testing.T, id string) {
	t.Helper()
	processes, err := processesOf(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		if target, err := os.Readlink(filepath.Join("/proc", itoa(p.PID), "exe")); err == nil && filepath.Base(target) == "raylet" {
			p.signal(syscall.SIGKILL)
			return
		}
	}
	t.Fatalf("no raylet among %s", describeProcesses(processes))
}

func stopTheRest(t *testing.T, rt *Runtime, cluster []*agentpb.NodeSpec) {
	t.Helper()
	head, first, lost := cluster[0], cluster[1], cluster[2]
	rt.Apply([]*agentpb.NodeSpec{stopping(head), stopping(first)}) // and the lost one is not named any more
	awaitPhase(t, rt, head.GetNodeId(), phaseStopped)
	awaitPhase(t, rt, first.GetNodeId(), phaseStopped)
	if statusOf(rt, lost.GetNodeId()) != nil {
		t.Error("a node that is gone and not desired is still reported")
	}
	rt.Apply(nil)
	eventually(t, testPatience, func() (bool, string) { return len(rt.Status()) == 0, describe(rt.Status()) })
	nothingLeft(t, rt, head.GetNodeId(), first.GetNodeId(), lost.GetNodeId())
}

func TestBareClusterIsTimedAndLeavesNothing(t *testing.T) {
	t.Parallel()
	oneCluster.Lock()
	defer oneCluster.Unlock()
	ready, err := Bare(t.Context(), BareOptions{Ray: realRay(t), Nodes: 1, GPUsPerNode: 1, FirstSlot: bareSlot})
	if err != nil {
		t.Fatal(err)
	}
	if ready < time.Second || ready > rayPatience {
		t.Errorf("ready after %s", ready)
	}
	for _, port := range []int{0, 1, 100} {
		address := net.JoinHostPort("127.77.0.207", itoa(10_000+bareSlot*100+port))
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			conn.Close()
			t.Errorf("%s still answers", address)
		}
	}
}
