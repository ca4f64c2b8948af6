package process

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/rayaddr"
)

const (
	barePoll       = 100 * time.Millisecond
	bareGrace      = 10 * time.Second
	bareTokenBytes = 32
)

// BareOptions are the shape of a cluster started by hand. Ray is required.
type BareOptions struct {
	Ray              Ray
	Nodes            int // GPU nodes, besides the head
	GPUsPerNode      int
	NodeCPUs         int   // as Options
	ObjectStoreBytes int64 // as Options
	FirstSlot        int   // of Nodes+1 slots of rayaddr that nothing else uses meanwhile
}

// Bare is the yardstick for everything that Muster adds to Ray: it starts a head and GPU nodes as a person would with
// `ray start`, with the same flags, ports and resources as the runtime's, each node as soon as it can be: the others once the
// head's port answers. It returns the time from the first command until Ray's summary lists every node ALIVE with its GPUs,
// and leaves nothing behind.
func Bare(ctx context.Context, o BareOptions) (ready time.Duration, err error) {
	if o.Nodes < 1 || o.FirstSlot < 0 || o.FirstSlot+o.Nodes >= rayaddr.Slots {
		return 0, errs.New(errs.Invalid, "a bare cluster needs 1 node or more, and slots below %d", rayaddr.Slots)
	}
	dir, err := os.MkdirTemp("", "bare-")
	if err != nil {
		return 0, fmt.Errorf("make the bare cluster's folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if len(dir) > maxTempRootLength {
		return 0, errs.New(errs.Invalid, "the temporary folder %s is too long a path for unix sockets: set TMPDIR to a shorter one", dir)
	}
	b, err := newBareCluster(o, dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	return b.start(ctx)
}

type bareCluster struct {
	opts    Options
	dir     string
	specs   []*agentpb.NodeSpec // the head first
	started []identity
	exited  chan error // why a node ended before it was told to
}

func newBareCluster(o BareOptions, dir string) (*bareCluster, error) {
	opts, err := Options{
		StateDir: dir, TempRoot: dir, Ray: o.Ray, ObjectStoreBytes: o.ObjectStoreBytes, NodeCPUs: o.NodeCPUs,
		SimulatedGPUs: func() bool { return true },
	}.withDefaults()
	if err != nil {
		return nil, err
	}
	secret := make([]byte, bareTokenBytes)
	_, _ = rand.Read(secret) // never fails
	token := hex.EncodeToString(secret)
	b := &bareCluster{opts: opts, dir: dir, exited: make(chan error, o.Nodes+1)}
	for i := range o.Nodes + 1 {
		slot := o.FirstSlot + i
		spec := &agentpb.NodeSpec{
			NodeId: fmt.Sprintf("bare-%s-%d", token[:8], i), Head: i == 0, RayVersion: o.Ray.Version, RayToken: token,
			Address: rayaddr.Address(slot), HeadAddress: rayaddr.Address(o.FirstSlot), HeadPort: int32(rayaddr.PortBase(o.FirstSlot)),
			PortBase: int32(rayaddr.PortBase(slot)), PortCount: rayaddr.PortCount,
		}
		for gpu := range o.GPUsPerNode {
			if i > 0 {
				spec.GpuUuids = append(spec.GpuUuids, fmt.Sprintf("GPU-%d-%d", i, gpu))
			}
		}
		b.specs = append(b.specs, spec)
	}
	return b, os.WriteFile(b.tokenFile(), []byte(token), 0o600)
}

func (b *bareCluster) tokenFile() string { return filepath.Join(b.dir, "token") }

func (b *bareCluster) start(ctx context.Context) (time.Duration, error) {
	begun := time.Now()
	head := b.specs[0]
	if err := b.startNode(0); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.opts.StartTimeout)
	defer cancel()
	if err := awaitPort(ctx, gcsAddress(head)); err != nil {
		return 0, err
	}
	for i := 1; i < len(b.specs); i++ {
		if err := b.startNode(i); err != nil {
			return 0, err
		}
	}
	client := newRayClient()
	defer client.close()
	for {
		summary, err := client.summary(ctx, head, head.GetRayToken())
		if err == nil && b.complete(summary) {
			return time.Since(begun), nil
		}
		select {
		case err := <-b.exited:
			return 0, err
		default:
		}
		if pause(ctx, barePoll) != nil {
			return 0, fmt.Errorf("the bare cluster did not become ready: %w", context.Cause(ctx))
		}
	}
}

func (b *bareCluster) startNode(i int) error {
	spec, dir := b.specs[i], filepath.Join(b.dir, strconv.Itoa(i))
	for _, path := range []string{dir, sessionDir(dir), homeDir(dir), tmpDir(dir)} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return fmt.Errorf("make a bare node's folder: %w", err)
		}
	}
	logFile, err := openLog(filepath.Join(dir, "log"))
	if err != nil {
		return fmt.Errorf("open a bare node's log: %w", err)
	}
	defer func() { _ = logFile.Close() }()
	cmd := exec.Command(b.opts.Ray.command(), arguments(spec, b.opts, dir)...) //nolint:noctx // stop ends it in order
	cmd.Env = environment(spec, b.opts, dir, b.tokenFile())
	cmd.Dir, cmd.Stdout, cmd.Stderr = homeDir(dir), logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a bare node: %w", err)
	}
	go func() {
		b.exited <- fmt.Errorf("a bare node: %s\n%s", exitReason(cmd.Wait()), logTail(logFile.Name()))
	}()
	process, err := identify(cmd.Process.Pid)
	b.started = append(b.started, process)
	return err
}

func (b *bareCluster) complete(summary *agentpb.RaySummary) bool {
	alive := map[string]int32{}
	for _, node := range summary.GetNodes() {
		if node.GetAlive() {
			alive[node.GetAddress()] = node.GetGpus()
		}
	}
	for _, spec := range b.specs {
		if gpus, listed := alive[spec.GetAddress()]; !listed || int(gpus) != len(spec.GetGpuUuids()) {
			return false
		}
	}
	return len(alive) == len(b.specs)
}

func (b *bareCluster) stop() error {
	for _, process := range b.started {
		process.signal(syscall.SIGTERM)
	}
	for i, process := range b.started {
		if !endMarked(b.specs[i].GetNodeId(), process, bareGrace) {
			return fmt.Errorf("processes of the bare cluster do not end")
		}
	}
	return nil
}
