package inventory

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// WatchFlag makes the probe wait for the GPUs' errors and print one line for each, until it is killed.
const WatchFlag = "watch"

const (
	// watchBeat is how long NVML is asked to wait for an event; after it the child says that it is alive.
	watchBeat       = time.Second
	watchSilence    = 20 * time.Second // without a line: the driver hangs
	maxWatchLine    = 4 << 10
	maxXidsPerGPU   = 32
	maxWatchedGPUs  = maxGPUs
	watchRetryFirst = 5 * time.Second
	watchRetryMax   = 10 * time.Minute
)

// watchLine is what a watching child prints: an event, or neither field when nothing has happened for a while.
type watchLine struct {
	UUID string `json:"uuid,omitempty"`
	Xid  int32  `json:"xid,omitempty"`
}

var errNoEvents = errors.New("the driver tells of no errors of its GPUs")

// watchNVML prints an event for each Xid until ctx ends or printing fails. It loads NVML into this process and may hang.
func watchNVML(ctx context.Context, name string, out io.Writer) error {
	api, _, err := open(name)
	if err != nil {
		return err
	}
	for _, symbol := range []string{"nvmlEventSetCreate", "nvmlDeviceRegisterEvents", "nvmlDeviceGetSupportedEventTypes"} {
		if !api.has(symbol) {
			return errNoEvents
		}
	}
	if !api.has("nvmlEventSetWait_v2", "nvmlEventSetWait") {
		return errNoEvents
	}
	set, ret := api.EventSetCreate()
	if ret != nvml.SUCCESS {
		return fmt.Errorf("make a set of events: %w", ret)
	}
	if err := api.registerXids(set); err != nil {
		return err
	}
	return api.printEvents(ctx, set, json.NewEncoder(out))
}

// registerXids asks for the errors of every GPU that can tell them.
func (l library) registerXids(set nvml.EventSet) error {
	count, ret := l.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return fmt.Errorf("count the GPUs: %w", ret)
	}
	watched := 0
	for i := range min(count, maxGPUs) {
		handle, ret := l.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			continue // its fault stands in the inventory
		}
		types, ret := handle.GetSupportedEventTypes()
		if ret == nvml.SUCCESS && types&nvml.EventTypeXidCriticalError != 0 &&
			handle.RegisterEvents(nvml.EventTypeXidCriticalError, set) == nvml.SUCCESS {
			watched++
		}
	}
	if watched == 0 {
		return errNoEvents
	}
	return nil
}

func (l library) printEvents(ctx context.Context, set nvml.EventSet, out *json.Encoder) error {
	for ctx.Err() == nil {
		line := watchLine{}
		event, ret := set.Wait(uint32(watchBeat.Milliseconds()))
		switch ret {
		case nvml.SUCCESS:
			if uuid, ret := event.Device.GetUUID(); ret == nvml.SUCCESS && event.EventType == nvml.EventTypeXidCriticalError {
				line = watchLine{UUID: uuid, Xid: int32(min(event.EventData, 1<<16))}
			}
		case nvml.ERROR_TIMEOUT:
		default:
			return fmt.Errorf("wait for events: %w", ret)
		}
		if err := out.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// Watch collects the errors of the GPUs until ctx ends, for Health to tell. A watching child that ends or hangs is started again, later
// each time.
func (p *Prober) Watch(ctx context.Context) {
	for failures := 0; p.opts.Command != nil && ctx.Err() == nil; failures++ {
		start := p.opts.Now()
		err := p.watchOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if p.opts.Now().Sub(start) > watchRetryMax {
			failures = 0
		}
		delay := watchRetryFirst
		for range failures {
			delay = min(2*delay, watchRetryMax)
		}
		p.opts.Log.WarnContext(ctx, "GPU errors are not watched, trying again", "error", err, "in", delay)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
}

// watchOnce runs a watching child until it ends, hangs or ctx does. A child that cannot be killed is waited
// for, until ctx ends.
func (p *Prober) watchOnce(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	stderr := &boundedBuffer{limit: maxStderrBytes}
	arguments := append(slices.Clone(p.opts.Command[1:]), "--"+WatchFlag)
	cmd := exec.CommandContext(ctx, p.opts.Command[0], arguments...)
	cmd.Env, cmd.Stderr, cmd.WaitDelay = append(os.Environ(), p.opts.Env...), stderr, killDelay
	reader, writer := io.Pipe()
	cmd.Stdout = writer
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("the watching probe cannot be started: %w", err)
	}
	silence := time.AfterFunc(watchSilence, func() { cancel(errors.New("the watching probe is silent: the driver may hang")) })
	defer silence.Stop()
	done := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		_ = writer.Close()
		done <- err
	}()
	p.readEvents(reader, func() { silence.Reset(watchSilence) }, ctx.Done())
	_ = reader.Close() // a child that goes on printing is told so
	cancel(nil)
	timer := time.NewTimer(2 * killDelay)
	defer timer.Stop()
	select {
	case err := <-done:
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			return cause
		}
		return fmt.Errorf("the watching probe ended (%w): %s", errors.Join(err, errEnded), strings.TrimSpace(string(stderr.content)))
	case <-timer.C:
	}
	// Another child would hang as well: there is at most one.
	p.opts.Log.WarnContext(ctx, "the watching probe hangs in the driver and cannot be killed", "pid", cmd.Process.Pid)
	select {
	case err := <-done:
		return fmt.Errorf("the watching probe hung in the driver: %w", errors.Join(err, errEnded))
	case <-parent.Done():
		return parent.Err()
	}
}

var errEnded = errors.New("it should not have")

// readEvents notes the events that a child prints until it stops printing or is given up.
func (p *Prober) readEvents(from io.ReadCloser, alive func(), givenUp <-chan struct{}) {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-givenUp:
			_ = from.Close()
		case <-stop:
		}
	}()
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxWatchLine)
	for lines.Scan() {
		alive()
		var line watchLine
		if json.Unmarshal(lines.Bytes(), &line) == nil && isHardware(line.Xid) {
			p.note(line.UUID, line.Xid)
		}
	}
}

// note keeps an error until the agent ends: what has happened to a GPU since then counts, whatever it says of itself now.
func (p *Prober) note(uuid string, xid int32) {
	p.healthMu.Lock()
	defer p.healthMu.Unlock()
	known := p.xids[uuid]
	if slices.Contains(known, xid) || len(known) == maxXidsPerGPU || known == nil && len(p.xids) == maxWatchedGPUs {
		return
	}
	p.xids[uuid] = append(slices.Clone(known), xid)
	slices.Sort(p.xids[uuid])
	p.opts.Log.Warn("a GPU had a hardware error", "gpu", uuid, "xid", xid)
}
