package process

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/muster-gpu/muster/internal/agentpb"
)

const (
	startPoll    = 100 * time.Millisecond // between health checks of a node that is starting
	headPoll     = 50 * time.Millisecond  // between looks for the head's port
	summaryFast  = 250 * time.Millisecond // between summaries while nodes join or leave
	summarySlow  = 1500 * time.Millisecond
	summaryLimit = 30 * time.Second // without an answer, and the last summary is not told any more
	jobsPoll     = 3 * time.Second
	settleTime   = 15 * time.Second // without a change, and the summary is taken more slowly
	logPoll      = 5 * time.Second
	adoptedPoll  = 250 * time.Millisecond // between looks for the end of a process that is not our child
)

const (
	phaseStarting = agentpb.NodePhase_NODE_PHASE_STARTING
	phaseRunning  = agentpb.NodePhase_NODE_PHASE_RUNNING
	phaseStopping = agentpb.NodePhase_NODE_PHASE_STOPPING
	phaseStopped  = agentpb.NodePhase_NODE_PHASE_STOPPED
	phaseFailed   = agentpb.NodePhase_NODE_PHASE_FAILED
)

// node is one node. Its goroutine, run, alone touches rec, process and exited.
type node struct {
	rt   *Runtime
	id   string
	spec *agentpb.NodeSpec // with the token
	dir  string            // state: outlives the agent
	temp string            // Ray's session, home and temporary files: ends with the processes
	log  *slog.Logger

	status *agentpb.NodeStatus // guarded by rt.mu

	stopOnce sync.Once
	drainFor time.Duration // how long it may drain; written before stop is closed
	stop     chan struct{} // closed when the node should stop
	done     chan struct{} // closed when nothing of it runs and its phase is final

	rec     record
	process identity
	exited  chan error // receives once, when the main process has ended
	ray     activity   // of heads
}

func (r *Runtime) newNode(spec *agentpb.NodeSpec) *node {
	id := spec.GetNodeId()
	sum := sha256.Sum256([]byte(id))
	return &node{
		rt: r, id: id, spec: spec,
		dir:    filepath.Join(r.nodesDir(), id),
		temp:   filepath.Join(r.opts.TempRoot, hex.EncodeToString(sum[:4])),
		log:    r.log.With("node_id", id, "cluster_id", spec.GetClusterId()),
		status: &agentpb.NodeStatus{NodeId: id},
		stop:   make(chan struct{}), done: make(chan struct{}),
		exited: make(chan error, 1),
	}
}

// requestStop asks the node to stop, after it was drained for at most a time. Only the first request counts.
func (n *node) requestStop(drain time.Duration) {
	n.stopOnce.Do(func() {
		n.drainFor = drain
		close(n.stop)
	})
}

func (n *node) ended() bool {
	select {
	case <-n.done:
		return true
	default:
		return false
	}
}

func (n *node) recordPath() string { return filepath.Join(n.dir, "record.json") }
func (n *node) tokenPath() string  { return filepath.Join(n.dir, "token") }
func (n *node) logPath() string    { return filepath.Join(n.dir, "ray.log") }

// run takes the node from its present phase to a final one, or until ctx ends.
func (n *node) run(ctx context.Context) {
	active, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-n.stop:
			cancel() // whatever run waits for
		case <-active.Done():
		}
	}()
	if n.process.PID == 0 {
		if err := n.start(active); err != nil {
			n.abandonStart(ctx, err)
			return
		}
	}
	n.supervise(ctx, active)
}

// abandonStart ends a node that could not be started, or was told to stop before it was.
func (n *node) abandonStart(ctx context.Context, err error) {
	if !n.stopRequested() && ctx.Err() != nil && !n.rt.opts.StopOnExit {
		return // the next agent starts it
	}
	if n.stopRequested() {
		n.finish(phaseStopped, "")
		return
	}
	n.finish(phaseFailed, "the node could not be started: "+err.Error())
}

func (n *node) stopRequested() bool {
	select {
	case <-n.stop:
		return true
	default:
		return false
	}
}

// start brings the node's process into being. After an error nothing of it runs.
func (n *node) start(active context.Context) error {
	if err := n.prepare(); err != nil {
		return err
	}
	if err := n.awaitHead(active); err != nil {
		return err
	}
	logFile, err := openLog(n.logPath())
	if err != nil {
		return err
	}
	defer func() { _ = logFile.Close() }()
	o := n.rt.opts
	argv := command(n.spec, o, n.temp)
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // the node outlives the agent
	cmd.Env = environment(n.spec, o, n.temp, n.tokenPath())
	cmd.Dir = homeDir(n.temp)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	// Until it is waited for, even a process that has ended can be identified.
	err = n.started(cmd.Process.Pid)
	go func() { n.exited <- cmd.Wait() }()
	return err
}

// prepare makes the folders and writes the token and the intent.
func (n *node) prepare() error {
	if err := os.RemoveAll(n.temp); err != nil { // what a start that was cut short may have left
		return err
	}
	for _, dir := range []string{n.dir, n.temp, sessionDir(n.temp), homeDir(n.temp), tmpDir(n.temp)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	rec, err := newRecord(n.spec)
	if err != nil {
		return err
	}
	n.rec = rec
	if err := n.rec.write(n.recordPath()); err != nil {
		return err
	}
	return replaceFile(n.tokenPath(), []byte(n.spec.GetRayToken()))
}

// awaitHead waits for the head's first sign of life, so that a node may be desired at the same time as its head. Before it, a
// node would only take time from the head. The rest of the head's start is waited for by the node itself.
func (n *node) awaitHead(active context.Context) error {
	if n.spec.GetHead() {
		return nil
	}
	ctx, cancel := context.WithTimeout(active, n.rt.opts.StartTimeout)
	defer cancel()
	return awaitPort(ctx, gcsAddress(n.spec))
}

func awaitPort(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: probeTimeout}
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		if pause(ctx, headPoll) != nil {
			return fmt.Errorf("the head does not answer on %s: %w", address, err)
		}
	}
}

// started writes down which process it is. Whoever cannot write it down must not keep it.
func (n *node) started(pid int) error {
	process, err := identify(pid)
	if err == nil {
		n.process, n.rec.Process, n.rec.State = process, process, started
		err = n.rec.write(n.recordPath())
	}
	if err != nil {
		n.rt.endProcesses(n.id, process)
		return fmt.Errorf("record the started process: %w", err)
	}
	n.log.Info("node started", "pid", pid, "address", n.spec.GetAddress(), "head", n.spec.GetHead())
	return nil
}

// supervise watches the process until it ends or should.
func (n *node) supervise(ctx, active context.Context) {
	begun, settled := time.Now(), time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-n.stop:
			n.finishWork(ctx)
			return
		case err := <-n.exited:
			n.fail(ctx, exitReason(err))
			return
		case <-ctx.Done():
			if n.rt.opts.StopOnExit {
				n.end(ctx, phaseFailed, "stopped because the agent stopped")
			}
			return
		case <-timer.C:
		}
		if n.phase() == phaseStarting && time.Since(begun) > n.rt.opts.StartTimeout {
			n.fail(ctx, fmt.Sprintf("it was not healthy after %s", n.rt.opts.StartTimeout))
			return
		}
		if n.observe(active) {
			settled = time.Now()
		}
		timer.Reset(n.interval(settled))
	}
}

// finishWork stops the node in order: GPU nodes drain, and a head waits for them. If the agent ends meanwhile, the next one goes
// on with it.
func (n *node) finishWork(ctx context.Context) {
	healthy := n.phase() == phaseRunning
	n.show(phaseStopping, "")
	drained := !healthy || n.drain(ctx, n.drainFor)
	n.awaitMembers(ctx)
	if (!drained || ctx.Err() != nil) && !n.rt.opts.StopOnExit {
		return
	}
	n.end(ctx, phaseStopped, "")
}

func (n *node) interval(settled time.Time) time.Duration {
	switch {
	case n.phase() == phaseStarting:
		return startPoll
	case !n.spec.GetHead():
		return logPoll
	case time.Since(settled) < settleTime:
		return summaryFast
	}
	return summarySlow
}

// observe looks at the node once and reports whether something changed.
func (n *node) observe(active context.Context) bool {
	if err := trimLog(n.logPath(), maxLogBytes); err != nil {
		n.log.Warn("cannot trim a node's log", "error", err)
	}
	if n.phase() == phaseStarting {
		if n.rt.client.healthy(active, n.spec, n.spec.GetRayToken()) != nil {
			return false
		}
		n.rec.State = healthy
		if err := n.rec.write(n.recordPath()); err != nil {
			n.log.Warn("cannot record a node's health", "error", err)
		}
		n.show(phaseRunning, "")
		n.log.Info("node healthy")
		return true
	}
	return n.spec.GetHead() && n.summarise(active)
}

func (n *node) summarise(active context.Context) bool {
	summary, err := n.rt.client.summary(active, n.spec, n.spec.GetRayToken())
	now := time.Now()
	switch {
	case err == nil:
		n.ray.summaryAt = now
		summary.RunningJobs = n.runningJobs(active, now)
	case now.Sub(n.ray.summaryAt) < summaryLimit:
		return false // a busy dashboard: the last summary stands, and a dead one ends the process
	}
	n.rt.mu.Lock()
	defer n.rt.mu.Unlock()
	if proto.Equal(n.status.GetRay(), summary) {
		return false
	}
	n.status.Ray = summary
	signal(n.rt.changed)
	return true
}

// activity is what a head's node remembers of its questions to Ray.
type activity struct {
	summaryAt time.Time // when Ray last answered
	jobsAt    time.Time // when it was last asked for its jobs
	jobs      *int32    // what it said; nil while it is not known
}

// runningJobs asks for the jobs less often than for the nodes: the answer lists all that the cluster ever had.
func (n *node) runningJobs(active context.Context, now time.Time) *int32 {
	if now.Sub(n.ray.jobsAt) < jobsPoll {
		return n.ray.jobs
	}
	n.ray.jobsAt, n.ray.jobs = now, nil
	running, err := n.rt.client.runningJobs(active, n.spec, n.spec.GetRayToken())
	if err == nil {
		n.ray.jobs = &running
	}
	return n.ray.jobs
}

// fail ends what is left of a node and says why, with the end of its log.
func (n *node) fail(ctx context.Context, reason string) {
	if tail := logTail(n.logPath()); tail != "" {
		reason += "\n" + tail
	}
	n.log.Warn("node failed", "reason", reason)
	n.end(ctx, phaseFailed, reason)
}

// end ends every process of the node and only then shows the final phase. An agent that exits meanwhile leaves what survives
// SIGKILL to the next one.
func (n *node) end(ctx context.Context, phase agentpb.NodePhase, message string) {
	for !n.rt.endProcesses(n.id, n.process) {
		n.log.Error("processes of a node survive SIGKILL")
		n.show(phaseStopping, "some of its processes do not end")
		if ctx.Err() != nil {
			return
		}
	}
	n.finish(phase, message)
}

// finish removes what a node must not leave behind, and makes its end known and lasting.
func (n *node) finish(phase agentpb.NodePhase, message string) {
	for _, path := range []string{n.temp, n.tokenPath()} {
		if err := os.RemoveAll(path); err != nil {
			n.log.Warn("cannot remove a node's files", "error", err)
		}
	}
	if err := n.recordEnd(phase, message); err != nil {
		n.log.Warn("cannot record a node's end", "error", err)
	}
	n.log.Info("node ended", "phase", phase.String())
	n.show(phase, message)
	close(n.done)
	signal(n.rt.wake) // it may have to be forgotten
}

func (n *node) recordEnd(phase agentpb.NodePhase, message string) error {
	if n.rec.Spec == nil { // it failed before its intent was written, or the record was unreadable
		rec, err := newRecord(n.spec)
		if err != nil {
			return err
		}
		n.rec = rec
	}
	n.rec.State, n.rec.Message = stopped, message
	if phase == phaseFailed {
		n.rec.State = failed
	}
	return n.rec.write(n.recordPath())
}

func (n *node) phase() agentpb.NodePhase {
	n.rt.mu.Lock()
	defer n.rt.mu.Unlock()
	return n.status.GetPhase()
}

func (n *node) show(phase agentpb.NodePhase, message string) {
	n.rt.mu.Lock()
	defer n.rt.mu.Unlock()
	n.status.Phase, n.status.Message = phase, strings.ToValidUTF8(message, "")
	if phase == phaseStopped || phase == phaseFailed {
		n.status.Ray = nil
	}
	signal(n.rt.changed)
}

func exitReason(err error) string {
	if err == nil {
		return "ray ended by itself with exit status 0"
	}
	return "ray ended by itself: " + err.Error()
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
