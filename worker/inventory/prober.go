package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/muster-gpu/muster/internal/agentpb"
)

const (
	defaultTimeout = 20 * time.Second
	killDelay      = 2 * time.Second // for a killed child to end, and again for its pipes to close
	firstBackoff   = 15 * time.Second
	maxBackoff     = 10 * time.Minute
	maxAnswerBytes = 1 << 20
	maxStderrBytes = 4 << 10
)

// Options configure a Prober.
type Options struct {
	// Command is the argument vector of the probe child, which calls ProbeMain; nil on a host that never has GPUs.
	Command []string
	Env     []string // added to the child's environment
	Timeout time.Duration

	DiskPath    string   // where the free space counts
	RayVersions []string // what the runtime can start
	Runtime     string   // the runtime's name

	Now func() time.Time
	Log *slog.Logger
}

// Prober reads the inventory of this host, again and again. It may be used by several goroutines; probes happen one at a time.
type Prober struct {
	opts Options
	wait func(*exec.Cmd) error // replaced by tests that need a child nobody can kill

	mu        sync.Mutex
	abandoned <-chan struct{} // closed when the child that could not be killed has ended
	failures  int
	failure   string // why the last probe failed
	retryAt   time.Time

	healthMu sync.Mutex
	gpus     []*agentpb.GPUHealth // as the last probe read them; never changed in place
	xids     map[string][]int32   // hardware errors since this process began, by the GPU's UUID
}

// NewProber returns a Prober with defaults for what the options leave out.
func NewProber(o Options) *Prober {
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Prober{opts: o, wait: (*exec.Cmd).Wait, xids: map[string][]int32{}}
}

// Inventory reads the host. It always returns one, within Timeout and twice killDelay: if the GPUs cannot be read, probe_error
// says why.
func (p *Prober) Inventory(ctx context.Context) *agentpb.Inventory {
	inventory := &agentpb.Inventory{}
	if p.opts.Command != nil {
		read, gpus, err := p.probe(ctx)
		if err != nil {
			inventory.ProbeError = err.Error()
		} else {
			inventory = read
		}
		p.healthMu.Lock()
		p.gpus = gpus
		p.healthMu.Unlock()
	}
	addHostFacts(inventory, p.opts)
	return inventory
}

// Health is what the last Inventory found of the GPUs' health, and the errors that Watch has noted. It touches no driver. The caller
// owns it.
func (p *Prober) Health() *agentpb.Health {
	health := &agentpb.Health{DiskFreeBytes: diskFree(p.opts.DiskPath)}
	p.healthMu.Lock()
	defer p.healthMu.Unlock()
	seen := map[string]bool{}
	for _, gpu := range p.gpus {
		copied, _ := proto.Clone(gpu).(*agentpb.GPUHealth)
		copied.Xids = slices.Clone(p.xids[gpu.GetUuid()])
		seen[gpu.GetUuid()] = true
		health.Gpus = append(health.Gpus, copied)
	}
	for _, uuid := range slices.Sorted(maps.Keys(p.xids)) { // a GPU may have an error and then not be there any more
		if !seen[uuid] {
			health.Gpus = append(health.Gpus, &agentpb.GPUHealth{Uuid: uuid, Xids: slices.Clone(p.xids[uuid])})
		}
	}
	return health
}

func (p *Prober) probe(ctx context.Context) (*agentpb.Inventory, []*agentpb.GPUHealth, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.abandoned != nil {
		select {
		case <-p.abandoned:
			p.abandoned = nil
		default:
			return nil, nil, errors.New("an earlier probe still hangs in the driver and cannot be ended: the machine needs a restart")
		}
	}
	if now := p.opts.Now(); now.Before(p.retryAt) {
		return nil, nil, fmt.Errorf("%s (next attempt in %s)", p.failure, p.retryAt.Sub(now).Round(time.Second))
	}
	inventory, gpus, err := p.runChild(ctx)
	switch {
	case err == nil:
		p.failures, p.failure = 0, ""
	case ctx.Err() == nil: // it was not the caller who gave up
		p.failure = err.Error()
		p.retryAt = p.opts.Now().Add(backoff(p.failures))
		p.failures++
		p.opts.Log.Warn("GPU probe failed", "error", err, "failures", p.failures)
	}
	return inventory, gpus, err
}

func backoff(failures int) time.Duration {
	wait := firstBackoff
	for range failures {
		if wait *= 2; wait >= maxBackoff {
			return maxBackoff
		}
	}
	return wait
}

func (p *Prober) runChild(parent context.Context) (*agentpb.Inventory, []*agentpb.GPUHealth, error) {
	ctx, cancel := context.WithTimeout(parent, p.opts.Timeout)
	defer cancel()
	stdout, stderr := &boundedBuffer{limit: maxAnswerBytes}, &boundedBuffer{limit: maxStderrBytes}
	cmd := exec.CommandContext(ctx, p.opts.Command[0], p.opts.Command[1:]...)
	cmd.Env = append(os.Environ(), p.opts.Env...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = killDelay
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("the GPU probe cannot be started: %w", err)
	}
	var waitErr error
	done := make(chan struct{})
	go func() {
		waitErr = p.wait(cmd) // returns late, or never, for a child that hangs in the kernel
		close(done)
	}()
	if !awaitChild(ctx, done) {
		p.abandoned = done
		return nil, nil, fmt.Errorf("the GPU probe (pid %d) hangs in the driver and cannot be killed", cmd.Process.Pid)
	}
	if ctx.Err() != nil {
		return nil, nil, fmt.Errorf("the GPU probe did not answer within %s: the driver may hang", p.opts.Timeout)
	}
	return decode(waitErr, stdout, stderr)
}

// awaitChild reports whether the child ended, by itself or soon after it was killed.
func awaitChild(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	timer := time.NewTimer(2 * killDelay)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

func decode(waitErr error, stdout, stderr *boundedBuffer) (*agentpb.Inventory, []*agentpb.GPUHealth, error) {
	if waitErr != nil {
		return nil, nil, fmt.Errorf("the GPU probe ended with %w: %s", waitErr, strings.TrimSpace(string(stderr.content)))
	}
	var read answer
	inventory, health := &agentpb.Inventory{}, &agentpb.Health{}
	if json.Unmarshal(stdout.content, &read) != nil || protojson.Unmarshal(read.Inventory, inventory) != nil ||
		protojson.Unmarshal(read.Health, health) != nil {
		return nil, nil, errors.New("the GPU probe's answer is not readable")
	}
	return inventory, health.GetGpus(), nil
}

// boundedBuffer keeps the beginning of what is written to it.
type boundedBuffer struct {
	limit   int
	content []byte
}

// Write never fails, so that the writer does not block or die of a full buffer.
func (b *boundedBuffer) Write(data []byte) (int, error) {
	room := min(b.limit-len(b.content), len(data))
	b.content = append(b.content, data[:room]...)
	return len(data), nil
}
