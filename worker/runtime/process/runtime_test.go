package process

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
)

// newRuntime runs nodes that are shell scripts.
func newRuntime(t *testing.T, dir, script string, change ...func(*Options)) *Runtime {
	t.Helper()
	o := Options{StateDir: filepath.Join(dir, "state"), TempRoot: filepath.Join(dir, "s"), Ray: standIn(t, script), StopGrace: 5 * time.Second}
	for _, c := range change {
		c(&o)
	}
	rt, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

func apply(rt *Runtime, specs ...*agentpb.NodeSpec) { rt.Apply(specs) }

func stopping(s *agentpb.NodeSpec) *agentpb.NodeSpec {
	s.Stop = true
	return s
}

func TestNodeThatEndsByItselfHasFailedForGood(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	rt := newRuntime(t, dir, `echo start >> "$HOME/../../../starts"; echo "the port is taken" >&2; sleep 600 & exit 7`)
	stop := running(t, rt)
	head := spec("node_fails", 150, 150, 0)
	apply(rt, head)
	awaitPhase(t, rt, head.GetNodeId(), phaseFailed)
	message := statusOf(rt, head.GetNodeId()).GetMessage()
	if !strings.Contains(message, "exit status 7") || !strings.Contains(message, "the port is taken") {
		t.Errorf("message %q says neither the status nor the log's end", message)
	}
	nothingLeft(t, rt, head.GetNodeId())
	stop()
	// Neither another Apply nor another agent starts it again.
	again := newRuntime(t, dir, `echo start >> "$HOME/../../../starts"; exec sleep 600`)
	running(t, again)
	apply(again, head)
	other := spec("node_later", 151, 151, 0)
	apply(again, head, other)
	awaitPhase(t, again, other.GetNodeId(), phaseStarting)
	if got := statusOf(again, head.GetNodeId()); got.GetPhase() != phaseFailed || got.GetMessage() != message {
		t.Errorf("got %v", got)
	}
	eventually(t, testPatience, func() (bool, string) {
		starts, _ := os.ReadFile(filepath.Join(dir, "starts"))
		return strings.Count(string(starts), "start") == 2, "starts: " + string(starts)
	})
	apply(again, stopping(head))
	awaitPhase(t, again, head.GetNodeId(), phaseStopped)
	apply(again)
	eventually(t, testPatience, func() (bool, string) { return len(again.Status()) == 0, describe(again.Status()) })
	nothingLeft(t, again, head.GetNodeId(), other.GetNodeId())
}

// nothingLeft looks for processes, session folders and tokens of ended nodes.
func nothingLeft(t *testing.T, rt *Runtime, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if left, err := processesOf(id); err != nil || len(left) != 0 {
			t.Errorf("processes of %s are left: %s %v", id, describeProcesses(left), err)
		}
		n := rt.newNode(&agentpb.NodeSpec{NodeId: id})
		for _, path := range []string{n.temp, n.tokenPath()} {
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("%s is left of %s: %v", path, id, err)
			}
		}
	}
}

func TestStopWhileWaitingForTheHead(t *testing.T) {
	t.Parallel()
	rt := newRuntime(t, shortDir(t), "exec sleep 600")
	running(t, rt)
	node := spec("node_waits", 153, 152, 1) // and no head is there
	apply(rt, node)
	awaitPhase(t, rt, node.GetNodeId(), phaseStarting)
	apply(rt, stopping(node))
	awaitPhase(t, rt, node.GetNodeId(), phaseStopped)
	nothingLeft(t, rt, node.GetNodeId())
}

func TestNodeThatIsNeverHealthyFails(t *testing.T) {
	t.Parallel()
	rt := newRuntime(t, shortDir(t), "exec sleep 600", func(o *Options) { o.StartTimeout = 300 * time.Millisecond })
	running(t, rt)
	head := spec("node_silent", 154, 154, 0)
	apply(rt, head)
	awaitPhase(t, rt, head.GetNodeId(), phaseFailed)
	if message := statusOf(rt, head.GetNodeId()).GetMessage(); !strings.Contains(message, "not healthy after 300ms") {
		t.Errorf("message %q", message)
	}
	nothingLeft(t, rt, head.GetNodeId())
}

func TestNodesThatIgnoreSIGTERMAreKilled(t *testing.T) {
	t.Parallel()
	rt := newRuntime(t, shortDir(t), `trap "" TERM; setsid sleep 600 & while :; do sleep 1; done`, func(o *Options) { o.StopGrace = 200 * time.Millisecond })
	running(t, rt)
	head := spec("node_deaf", 155, 155, 0)
	apply(rt, head)
	eventually(t, testPatience, func() (bool, string) {
		found, err := processesOf(head.GetNodeId())
		return err == nil && len(found) >= 3, describeProcesses(found)
	})
	apply(rt) // no longer named at all
	eventually(t, testPatience, func() (bool, string) { return len(rt.Status()) == 0, describe(rt.Status()) })
	nothingLeft(t, rt, head.GetNodeId())
}

func TestHeadStopsAfterTheNodesOfItsCluster(t *testing.T) {
	t.Parallel()
	rt := newRuntime(t, shortDir(t), "exec sleep 600", func(o *Options) { o.StopGrace = 500 * time.Millisecond })
	deaf := []byte("#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n") // what starts a GPU node
	if err := os.WriteFile(rt.opts.Ray.python(), deaf, 0o700); err != nil {
		t.Fatal(err)
	}
	running(t, rt)
	head, node := spec("node_last", 158, 158, 0), spec("node_first", 159, 158, 1)
	answer, err := net.Listen("tcp", gcsAddress(node)) // in place of the head, for which the node waits
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	apply(rt, head, node)
	eventually(t, testPatience, func() (bool, string) {
		found, err := processesOf(node.GetNodeId())
		return err == nil && len(found) > 0, describe(rt.Status())
	})
	apply(rt, stopping(head), stopping(node))
	awaitPhase(t, rt, head.GetNodeId(), phaseStopped)
	if got := statusOf(rt, node.GetNodeId()).GetPhase(); got != phaseStopped {
		t.Errorf("the head has stopped while a node of its cluster is %s", got)
	}
}

func TestStopOnExitLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	rt := newRuntime(t, dir, "exec sleep 600", func(o *Options) { o.StopOnExit = true })
	stop := running(t, rt)
	head, node := spec("node_exit_head", 156, 156, 0), spec("node_exit", 157, 156, 1)
	apply(rt, head, node)
	eventually(t, testPatience, func() (bool, string) {
		found, err := processesOf(head.GetNodeId())
		return err == nil && len(found) == 1, describe(rt.Status())
	})
	stop()
	nothingLeft(t, rt, head.GetNodeId(), node.GetNodeId())
	again := newRuntime(t, dir, "exec sleep 600")
	running(t, again)
	apply(again, head)
	awaitPhase(t, again, head.GetNodeId(), phaseFailed)
}

func TestBeforeTheFirstApplyNothingIsStopped(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	first := newRuntime(t, dir, "exec sleep 600")
	stop := running(t, first)
	head := spec("node_kept", 158, 158, 0)
	apply(first, head)
	var before []identity
	eventually(t, testPatience, func() (bool, string) {
		var err error
		before, err = processesOf(head.GetNodeId())
		return err == nil && len(before) == 1, describe(first.Status())
	})
	rival := newRuntime(t, dir, "exec sleep 600")
	if err := rival.Run(t.Context(), func() {}); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a second agent on the same folder got %v", err)
	}
	stop()
	second := newRuntime(t, dir, "exec sleep 600")
	running(t, second)
	if got := phases(second.Status()); got[head.GetNodeId()] != phaseStarting {
		t.Errorf("after a restart: %s", describe(second.Status()))
	}
	if after, err := processesOf(head.GetNodeId()); err != nil || len(after) != 1 || after[0] != before[0] {
		t.Errorf("processes %v became %v, %v", before, after, err)
	}
	apply(second)
	eventually(t, testPatience, func() (bool, string) { return len(second.Status()) == 0, describe(second.Status()) })
	nothingLeft(t, second, head.GetNodeId())
}

func TestAgentThatDiedBetweenIntentAndRecordAdoptsOrStartsAnew(t *testing.T) {
	t.Parallel()
	for name, alsoKill := range map[string]bool{"process runs": false, "process never began": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := shortDir(t)
			first := newRuntime(t, dir, "exec sleep 600")
			stop := running(t, first)
			head := spec("node_intent_"+strings.ReplaceAll(name, " ", "_"), 159, 159, 0)
			apply(first, head)
			path := filepath.Join(dir, "state", "nodes", head.GetNodeId(), "record.json")
			var rec record
			eventually(t, testPatience, func() (bool, string) {
				var err error
				rec, err = readRecord(path)
				return err == nil && rec.State == started, string(rec.State)
			})
			stop()
			was := rec.Process
			if alsoKill && !endMarked(head.GetNodeId(), identity{}, 0) {
				t.Fatal("the node survives")
			}
			rec.State, rec.Process = intended, identity{}
			if err := rec.write(path); err != nil {
				t.Fatal(err)
			}
			second := newRuntime(t, dir, "exec sleep 600")
			running(t, second)
			apply(second, head)
			awaitPhase(t, second, head.GetNodeId(), phaseStarting)
			eventually(t, testPatience, func() (bool, string) {
				now, err := processesOf(head.GetNodeId())
				return err == nil && len(now) == 1 && (now[0] == was) != alsoKill, describeProcesses(now)
			})
			apply(second)
			eventually(t, testPatience, func() (bool, string) { return len(second.Status()) == 0, describe(second.Status()) })
			nothingLeft(t, second, head.GetNodeId())
		})
	}
}

func TestNodeThatDiedWithItsAgentHasFailed(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	first := newRuntime(t, dir, "exec sleep 600")
	stop := running(t, first)
	head, spoiled := spec("node_gone", 160, 160, 0), spec("node_spoiled", 161, 161, 0)
	apply(first, head, spoiled)
	for _, s := range []*agentpb.NodeSpec{head, spoiled} {
		eventually(t, testPatience, func() (bool, string) {
			rec, err := readRecord(filepath.Join(dir, "state", "nodes", s.GetNodeId(), "record.json"))
			return err == nil && rec.State == started, describe(first.Status())
		})
	}
	stop()
	if !endMarked(head.GetNodeId(), identity{}, 0) {
		t.Fatal("the node survives")
	}
	if err := os.WriteFile(filepath.Join(dir, "state", "nodes", spoiled.GetNodeId(), "record.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	second := newRuntime(t, dir, "exec sleep 600")
	running(t, second)
	apply(second, head, spoiled)
	awaitPhase(t, second, head.GetNodeId(), phaseFailed)
	awaitPhase(t, second, spoiled.GetNodeId(), phaseFailed)
	nothingLeft(t, second, head.GetNodeId(), spoiled.GetNodeId())
}

func TestRefusedNodeFailsAndTouchesNothing(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	rt := newRuntime(t, dir, "exec sleep 600")
	running(t, rt)
	evil := spec("../../evil", 162, 162, 0)
	apply(rt, evil)
	awaitPhase(t, rt, evil.GetNodeId(), phaseFailed)
	apply(rt)
	eventually(t, testPatience, func() (bool, string) { return len(rt.Status()) == 0, describe(rt.Status()) })
	if _, err := os.Lstat(filepath.Join(dir, "state", "nodes")); err != nil {
		t.Errorf("forgetting a refused node removed the state: %v", err)
	}
}

func TestDialNodeRefusesWhatIsNotTheNodes(t *testing.T) {
	t.Parallel()
	rt := newRuntime(t, shortDir(t), "exec sleep 600")
	running(t, rt)
	head := spec("node_dial", 163, 163, 0)
	base := int(head.GetPortBase())
	if _, err := rt.DialNode(t.Context(), head.GetNodeId(), base); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("an unknown node: %v", err)
	}
	apply(rt, head)
	awaitPhase(t, rt, head.GetNodeId(), phaseStarting)
	if _, err := rt.DialNode(t.Context(), head.GetNodeId(), base); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("a node that is not running: %v", err)
	}
	rt.mu.Lock()
	rt.nodes[head.GetNodeId()].status.Phase = phaseRunning
	rt.mu.Unlock()
	for _, port := range []int{0, 22, base - 1, base + 100, 65536} {
		if _, err := rt.DialNode(t.Context(), head.GetNodeId(), port); errs.CodeOf(err) != errs.Forbidden {
			t.Errorf("port %d: %v", port, err)
		}
	}
	if _, err := rt.DialNode(t.Context(), head.GetNodeId(), base+99); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("a port that nothing listens on: %v", err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(head.GetAddress(), itoa(base+1)))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := rt.DialNode(t.Context(), head.GetNodeId(), base+1)
	if err != nil {
		t.Fatalf("the node's own port: %v", err)
	}
	conn.Close()
	apply(rt)
	eventually(t, testPatience, func() (bool, string) { return len(rt.Status()) == 0, describe(rt.Status()) })
}
