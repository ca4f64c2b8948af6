package process

import (
	"context"
	_ "embed" // the script that asks the head
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/muster-gpu/muster/internal/agentpb"
)

const (
	drainTimeout = 10 * time.Second // for the head to be asked: Ray's client waits for one that is gone without an end
	maxDrain     = 2 * time.Minute
	drainPoll    = 200 * time.Millisecond // between looks for the raylet, which ends once the node is drained
	drainOutput  = 400                    // bytes of the script's last words that are logged

	// membersLimit is how long a head waits for the nodes of its cluster: they drain, and their processes end.
	membersLimit = maxDrain + drainTimeout + 2*killLimit
)

//go:embed drain.py
var drainScript string

// drain lets Ray move work off a GPU node before it is stopped. The reason given is a preemption, which Ray never refuses and
// does not count against a task's retries; the deadline is told to Ray and kept here. Whatever goes wrong, the node is stopped all
// the same. It reports false if the agent ended meanwhile.
func (n *node) drain(ctx context.Context, limit time.Duration) bool {
	limit = min(limit, maxDrain)
	if limit <= 0 || n.spec.GetHead() {
		return true
	}
	begun := time.Now()
	if err := n.askForDrain(ctx, limit); err != nil {
		n.log.Warn("node is stopped without being drained", "error", err)
		return ctx.Err() == nil
	}
	ctx, cancel := context.WithDeadlineCause(ctx, begun.Add(limit), errDrainOver)
	defer cancel()
	for n.rayletRuns() {
		if pause(ctx, drainPoll) != nil {
			n.log.Info("node still has work at the end of its drain")
			return errors.Is(context.Cause(ctx), errDrainOver)
		}
	}
	n.log.Info("node drained", "took", time.Since(begun))
	return true
}

var errDrainOver = errors.New("the time to drain is over")

// askForDrain has the head take the node out of use.
func (n *node) askForDrain(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, drainTimeout, fmt.Errorf("the head was not asked within %s", drainTimeout))
	defer cancel()
	o := n.rt.opts
	seconds := strconv.Itoa(int((limit + time.Second - 1) / time.Second))
	cmd := exec.CommandContext(ctx, o.Ray.python(), "-c", drainScript, gcsAddress(n.spec), n.spec.GetAddress(), seconds)
	cmd.Env = environment(n.spec, o, n.temp, n.tokenPath())
	cmd.Dir = homeDir(n.temp)
	cmd.WaitDelay = killLimit
	output, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		text := strings.TrimSpace(printable(string(output)))
		return fmt.Errorf("ray drain-node: %w: %s", err, text[max(0, len(text)-drainOutput):])
	}
	return nil
}

// rayletRuns reports whether the node's raylet does. Its main process goes on when a drained raylet ends.
func (n *node) rayletRuns() bool {
	processes, err := processesOf(n.id)
	if err != nil {
		return false
	}
	for _, p := range processes {
		if exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(p.PID), "exe")); err == nil && filepath.Base(exe) == "raylet" {
			return true
		}
	}
	return false
}

// awaitMembers keeps a head until the nodes of its cluster on this host that should stop as well have ended: without it they
// could not drain.
func (n *node) awaitMembers(ctx context.Context) {
	if !n.spec.GetHead() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, membersLimit)
	defer cancel()
	for _, member := range n.rt.stoppingMembers(n.spec) {
		select {
		case <-member.done:
		case <-ctx.Done():
			return
		}
	}
}

func (r *Runtime) stoppingMembers(head *agentpb.NodeSpec) []*node {
	r.mu.Lock()
	defer r.mu.Unlock()
	var members []*node
	for _, n := range r.nodes {
		if !n.spec.GetHead() && n.spec.GetClusterId() == head.GetClusterId() && n.stopRequested() {
			members = append(members, n)
		}
	}
	return members
}
