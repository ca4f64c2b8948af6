package process

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/muster-gpu/muster/internal/agentpb"
)

// adoptAll takes over what an earlier agent left: running nodes go on, the final phases of others stay known.
func (r *Runtime) adoptAll(ctx context.Context) error {
	entries, err := os.ReadDir(r.nodesDir())
	if err != nil {
		return fmt.Errorf("read the runtime's state folder: %w", err)
	}
	for _, entry := range entries {
		if !entry.IsDir() || !safeID.MatchString(entry.Name()) {
			continue
		}
		r.adopt(ctx, entry.Name())
	}
	signal(r.changed)
	return nil
}

func (r *Runtime) adopt(ctx context.Context, id string) {
	rec, err := readRecord(filepath.Join(r.nodesDir(), id, "record.json"))
	spec, specErr := rec.spec()
	if err != nil || specErr != nil || spec.GetNodeId() != id {
		spec = &agentpb.NodeSpec{NodeId: id}
		rec = record{} // unreadable: whatever runs of it must go
	}
	n := r.newNode(spec)
	n.rec = rec
	switch rec.State {
	case stopped:
		r.keep(n, phaseStopped, "")
		close(n.done)
		return
	case failed:
		r.keep(n, phaseFailed, rec.Message)
		close(n.done)
		return
	case intended:
		n.rec.Process = leaderOf(id)
		if n.rec.Process.PID == 0 {
			r.discard(n) // it was never started: the control plane still wants it, or not
			return
		}
	case started, healthy:
	}
	token, err := os.ReadFile(n.tokenPath())
	if rec.State == "" || err != nil || !n.rec.Process.alive() {
		r.keep(n, phaseStopping, "")
		n.process = n.rec.Process
		r.running.Go(func() { n.fail(ctx, "it ended while no agent was running") })
		return
	}
	spec.RayToken = string(token)
	r.resume(ctx, n)
}

// resume supervises a process that an earlier agent started.
func (r *Runtime) resume(ctx context.Context, n *node) {
	n.process = n.rec.Process
	phase := phaseStarting
	if n.rec.State == healthy {
		phase = phaseRunning
	}
	r.keep(n, phase, "")
	n.log.Info("node adopted", "pid", n.process.PID)
	process := n.process
	r.running.Go(func() { n.watchAdopted(ctx, process) })
	r.running.Go(func() { n.run(ctx) })
}

// watchAdopted sees the end of a process that is not our child, whose exit status nobody can learn.
func (n *node) watchAdopted(ctx context.Context, process identity) {
	for process.alive() {
		if pause(ctx, adoptedPoll) != nil || n.ended() {
			return
		}
	}
	n.exited <- errUnknownStatus
}

func (r *Runtime) keep(n *node, phase agentpb.NodePhase, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n.status.Phase, n.status.Message = phase, message
	r.nodes[n.id] = n
}

func (r *Runtime) discard(n *node) {
	r.endProcesses(n.id, identity{}) // what a leader that is gone may have left
	for _, path := range []string{n.temp, n.dir} {
		if err := os.RemoveAll(path); err != nil {
			n.log.Warn("cannot remove the state of a node that was never started", "error", err)
		}
	}
}

// leaderOf finds the main process of a node whose pid was not recorded any more: it leads its session, and no other process
// of the node is older.
func leaderOf(id string) identity {
	processes, err := processesOf(id)
	if err != nil {
		return identity{}
	}
	var oldest identity
	for _, process := range processes {
		s, err := readStat(process.PID)
		if err != nil || s.session != s.pid {
			continue
		}
		if oldest.PID == 0 || process.StartTicks < oldest.StartTicks {
			oldest = process
		}
	}
	return oldest
}

var errUnknownStatus = fmt.Errorf("its exit status is unknown, for an earlier agent had started it")
