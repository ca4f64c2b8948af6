package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
)

// Name is what Inventory.runtime says of this runtime.
const Name = "process"

// Runtime runs nodes as processes. It implements the interface of worker/runtime.
type Runtime struct {
	opts    Options
	log     *slog.Logger
	client  rayClient
	changed chan struct{}
	wake    chan struct{} // something to reconcile
	running sync.WaitGroup

	mu      sync.Mutex
	desired map[string]*agentpb.NodeSpec // nil until the first Apply
	nodes   map[string]*node
}

// New returns a runtime that has not begun. The error is a domain error about the options.
func New(o Options) (*Runtime, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Runtime{
		opts: o, log: o.Log, client: newRayClient(),
		changed: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		nodes: map[string]*node{},
	}, nil
}

// RayVersions are the versions of Ray that nodes can ask for.
func (r *Runtime) RayVersions() []string { return []string{r.opts.Ray.Version} }

// Apply replaces the desired set.
func (r *Runtime) Apply(desired []*agentpb.NodeSpec) {
	byID := make(map[string]*agentpb.NodeSpec, len(desired))
	for _, spec := range desired {
		if clone, ok := proto.Clone(spec).(*agentpb.NodeSpec); ok {
			byID[spec.GetNodeId()] = clone
		}
	}
	r.mu.Lock()
	r.desired = byID
	r.mu.Unlock()
	signal(r.wake)
}

// Changed is signalled after a change of any status.
func (r *Runtime) Changed() <-chan struct{} { return r.changed }

// Status is a snapshot of every node that is desired or still exists, ordered by node id.
func (r *Runtime) Status() []*agentpb.NodeStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*agentpb.NodeStatus, 0, len(r.nodes))
	for _, n := range r.nodes {
		if clone, ok := proto.Clone(n.status).(*agentpb.NodeStatus); ok {
			all = append(all, clone)
		}
	}
	slices.SortFunc(all, func(a, b *agentpb.NodeStatus) int { return strings.Compare(a.GetNodeId(), b.GetNodeId()) })
	return all
}

// DialNode connects to one of a running node's own ports.
func (r *Runtime) DialNode(ctx context.Context, nodeID string, port int) (net.Conn, error) {
	spec, err := r.reachable(nodeID)
	if err != nil {
		return nil, err
	}
	first, count := int(spec.GetPortBase()), int(spec.GetPortCount())
	if port < first || port >= first+count {
		return nil, errs.New(errs.Forbidden, "port %d is not one of node %s, whose ports are %d to %d", port, nodeID, first, first+count-1)
	}
	dialer := net.Dialer{Timeout: probeTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(spec.GetAddress(), strconv.Itoa(port)))
	if err != nil {
		return nil, errs.New(errs.Unavailable, "nothing answers on port %d of node %s: %w", port, nodeID, err)
	}
	return conn, nil
}

func (r *Runtime) reachable(nodeID string) (*agentpb.NodeSpec, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok := r.nodes[nodeID]
	if !ok {
		return nil, errs.New(errs.NotFound, "there is no node %s on this host", nodeID)
	}
	if phase := n.status.GetPhase(); phase != phaseRunning {
		return nil, errs.New(errs.Unavailable, "node %s is not running", nodeID)
	}
	return n.spec, nil
}

// Run adopts what already runs, calls ready, and converges until ctx ends. It fails only before ready.
func (r *Runtime) Run(ctx context.Context, ready func()) error {
	unlock, err := r.open()
	if err != nil {
		return err
	}
	defer unlock()
	defer r.client.close()
	defer r.running.Wait()
	if err := r.adoptAll(ctx); err != nil {
		return err
	}
	ready()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
			r.reconcile(ctx)
		}
	}
}

// open makes the folders and takes the lock that keeps a second agent away from them.
func (r *Runtime) open() (unlock func(), err error) {
	if err := os.MkdirAll(r.nodesDir(), 0o700); err != nil {
		return nil, fmt.Errorf("make the runtime's state folder: %w", err)
	}
	if err := privateDir(r.opts.TempRoot); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(r.opts.StateDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the runtime's lock: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, errs.New(errs.Conflict, "another agent uses the state folder %s: stop it first", r.opts.StateDir)
	}
	return func() { _ = lock.Close() }, nil
}

// privateDir makes a folder below a shared one, and refuses one that another user made first.
func privateDir(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the sessions' folder: %w", err)
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the sessions' folder: %w", err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("make the sessions' folder: %w", err)
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(sys.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return errs.New(errs.Conflict, "%s is not a folder of this user alone: remove it, or choose another folder for Ray's sessions", path)
	}
	return nil
}

// reconcile starts what is desired and absent, and asks the rest to stop.
func (r *Runtime) reconcile(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.desired == nil {
		return
	}
	var stopping []*node
	for id, spec := range r.desired {
		n, exists := r.nodes[id]
		if !exists {
			n = r.admit(ctx, spec)
		}
		if spec.GetStop() {
			stopping = append(stopping, n)
			r.settle(n)
		}
	}
	slices.SortFunc(stopping, headsLast)
	for _, n := range stopping {
		n.requestStop(time.Duration(r.desired[n.id].GetDrainMs()) * time.Millisecond)
	}
	for id, n := range r.nodes {
		if r.desired[id] != nil {
			continue
		}
		n.requestStop(0)
		if n.ended() {
			r.forget(n)
		}
	}
}

// headsLast orders nodes so that a head which is asked to stop finds those of its cluster asked already.
func headsLast(a, b *node) int {
	switch {
	case a.spec.GetHead() == b.spec.GetHead():
		return strings.Compare(a.id, b.id)
	case a.spec.GetHead():
		return 1
	}
	return -1
}

// admit makes a node and sets it going; the caller holds mu.
func (r *Runtime) admit(ctx context.Context, spec *agentpb.NodeSpec) *node {
	n := r.newNode(spec)
	r.nodes[n.id] = n
	defer signal(r.changed)
	if err := check(spec, r.opts.Ray); err != nil {
		n.status.Phase, n.status.Message = phaseFailed, err.Error()
		close(n.done)
		return n
	}
	if spec.GetStop() {
		n.status.Phase = phaseStopped // it never ran here
		close(n.done)
		return n
	}
	n.status.Phase = phaseStarting
	r.running.Go(func() { n.run(ctx) })
	return n
}

// settle lets a node that had failed count as stopped, once that is what is desired; the caller holds mu.
func (r *Runtime) settle(n *node) {
	if n.ended() && n.status.GetPhase() == phaseFailed {
		n.status.Phase = phaseStopped
		signal(r.changed)
	}
}

// forget drops an ended node and what is on disk of it; the caller holds mu.
func (r *Runtime) forget(n *node) {
	delete(r.nodes, n.id)
	if !safeID.MatchString(n.id) {
		return // refused, so it has no folder, and its name must not become a path
	}
	if err := os.RemoveAll(n.dir); err != nil {
		r.log.Warn("cannot remove a node's state", "node_id", n.id, "error", err)
	}
	signal(r.changed)
}

func (r *Runtime) nodesDir() string { return filepath.Join(r.opts.StateDir, "nodes") }

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // one is waiting already, and whoever receives it sees this change too
	}
}
