package fleet

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-gpu/muster/internal/agentpb"
)

// The health gates, in the order in which they are shown and the first failing one is named.
const (
	GateGPU      = "gpu"
	GateDriver   = "driver"
	GateECC      = "ecc"
	GateXid      = "xid"
	GateClock    = "clock"
	GateDisk     = "disk"
	GateUDP      = "udp"
	GateThrottle = "throttle"
)

var gateOrder = []string{GateGPU, GateDriver, GateECC, GateXid, GateClock, GateDisk, GateUDP, GateThrottle}

// States of gates, and of the checks of Earning.
const (
	Pass    = "pass"
	Fail    = "fail"
	Unknown = "unknown"
)

// What the gates require.
const (
	maxClockSkew     = 5 * time.Second
	minDiskFree      = 20 * bytesPerGiB
	minDriverMajor   = 525 // CUDA 12
	diskStep         = 10 * bytesPerGiB
	processRuntime   = "process"
	maxGPUsInMeasure = 4 // named in one sentence
)

var (
	// fatalXids mean that the GPU has failed or has corrupted memory: an uncorrectable ECC error (48, 94, 95), NVLink (74), and a GPU
	// that fell off the bus (79).
	fatalXids = []int32{48, 74, 79, 94, 95}
	// rowXids tell of memory taken out of use. They matter only while that waits for a reset.
	rowXids = []int32{63, 64}
	// applicationXids are a program's errors. Agents leave them out, and they are not trusted to.
	applicationXids = []int32{13, 31, 43, 45, 68, 109}
)

// gate is one verdict on a host.
type gate struct {
	name, state, measured, required, fix string
	closes                               bool // while it fails, the host takes no new work
}

// facts are what the gates take from an inventory.
type facts struct {
	kind       string
	runtime    string
	driver     string
	probeError string
	gpus, well int
	note       string // what is wrong with the first GPU that is not well
}

func factsOf(kind string, inventory *agentpb.Inventory) facts {
	f := facts{
		kind: kind, runtime: inventory.GetRuntime(), driver: clip(inventory.GetDriverVersion(), maxVersionLength),
		probeError: clip(inventory.GetProbeError(), maxHealthNote), gpus: len(inventory.GetGpus()),
	}
	for _, gpu := range inventory.GetGpus() {
		if note := healthNote(gpu); note == "" {
			f.well++
		} else if f.note == "" {
			f.note = note
		}
	}
	return f
}

// judge passes the gates' verdicts on a host: what its inventory and its health say, received at a time over a connection with a round
// trip. It returns why the host must be quarantined too, "" if it need not be. It is pure.
func judge(f facts, health *agentpb.Health, received time.Time, roundTrip time.Duration) (gates []gate, quarantine string) {
	gates = []gate{
		clockGate(health.GetClockUnixMs(), received, roundTrip), diskGate(health.GetDiskFreeBytes()), udpGate(health.Udp, f.runtime),
	}
	if f.kind != KindHead {
		ecc, eccFatal := eccGate(health.GetGpus())
		xid, xidFatal := xidGate(health.GetGpus())
		gates = append(gates, gpuGate(f), driverGate(f), ecc, xid, throttleGate(health.GetGpus()))
		quarantine = eccFatal
		if quarantine == "" {
			quarantine = xidFatal
		}
	}
	slices.SortFunc(gates, func(a, b gate) int { return slices.Index(gateOrder, a.name) - slices.Index(gateOrder, b.name) })
	return gates, quarantine
}

// gateCloses reports whether a failing gate keeps new work from a host with a runtime.
func gateCloses(name, runtime string) bool {
	return name != GateThrottle && (name != GateUDP || runtime != processRuntime)
}

// firstFailing names the gate that closes a host, "" if none does.
func firstFailing(gates []gate) string {
	for _, g := range gates {
		if g.state == Fail && g.closes {
			return g.name
		}
	}
	return ""
}

func clockGate(clockMS int64, received time.Time, roundTrip time.Duration) gate {
	g := gate{name: GateClock, state: Unknown, required: "within " + maxClockSkew.String(), closes: true}
	if clockMS <= 0 {
		return g
	}
	skew := time.UnixMilli(clockMS).Sub(received)
	bound := maxClockSkew + roundTrip
	g.state, g.measured = Pass, g.required
	if skew.Abs() > bound {
		direction := "slow"
		if skew > 0 {
			direction = "fast"
		}
		g.state, g.measured = Fail, skew.Abs().Round(time.Second).String()+" "+direction
		g.fix = "Set the machine's clock, for instance by running chrony or systemd-timesyncd."
	}
	return g
}

func diskGate(free int64) gate {
	g := gate{name: GateDisk, state: Unknown, required: "20 GiB free", closes: true}
	if free <= 0 {
		return g
	}
	g.state, g.measured = Pass, fmt.Sprintf("%d GiB free", free/diskStep*diskStep/bytesPerGiB)
	if free < minDiskFree {
		g.state, g.measured = Fail, fmt.Sprintf("%d GiB free", free/bytesPerGiB)
		g.fix = "Free space where muster-worker keeps its state, or move its --state-dir to a larger disk."
	}
	return g
}

// udpGate closes a host only where its runtime joins machines by an overlay, which is carried by UDP. The nodes of the process runtime
// talk over addresses of one machine.
func udpGate(udp *bool, runtime string) gate {
	g := gate{name: GateUDP, state: Unknown, required: "datagrams to the control plane come back", closes: gateCloses(GateUDP, runtime)}
	switch {
	case udp == nil:
	case *udp:
		g.state, g.measured = Pass, "they come back"
	default:
		g.state, g.measured = Fail, "none came back"
		g.fix = "Let the machine send UDP to the control plane's agent port and take the answers."
	}
	return g
}

// gpuGate closes a host without any GPU that is well; one that is not well among others is left out by itself.
func gpuGate(f facts) gate {
	g := gate{name: GateGPU, state: Pass, required: "a GPU that is well", closes: true}
	switch {
	case f.probeError != "":
		g.state, g.measured = Fail, "the GPUs cannot be read"
		g.fix = "See that nvidia-smi works on the machine: " + f.probeError
	case f.gpus == 0:
		g.state, g.measured = Fail, "no GPU"
		g.fix = "See that nvidia-smi lists the machine's GPUs."
	default:
		g.measured = fmt.Sprintf("%d of %d well", f.well, f.gpus)
		if f.well < f.gpus {
			g.fix = "A GPU is not offered: " + f.note
		}
		if f.well == 0 {
			g.state = Fail
		}
	}
	return g
}

func driverGate(f facts) gate {
	g := gate{name: GateDriver, state: Unknown, required: fmt.Sprintf("%d or newer", minDriverMajor), closes: true}
	major := driverMajor(f.driver)
	if major == nil {
		return g
	}
	g.state, g.measured = Pass, f.driver
	if *major < minDriverMajor {
		g.state, g.fix = Fail, "Install a newer NVIDIA driver: Ray's images need CUDA 12."
	}
	return g
}

// driverMajor is 570 of "570.172.08", or nil.
func driverMajor(version string) *int32 {
	text, _, _ := strings.Cut(version, ".")
	major, err := strconv.ParseInt(text, 10, 32)
	if err != nil || major <= 0 {
		return nil
	}
	number := int32(major)
	return &number
}

func eccGate(gpus []*agentpb.GPUHealth) (g gate, quarantine string) {
	g = gate{name: GateECC, state: Unknown, required: "no uncorrected memory error, no row waiting for a reset", closes: true}
	var bad []string
	for _, gpu := range gpus {
		if gpu.EccUncorrected != nil || gpu.RowsPending != nil {
			g.state = Pass
		}
		if n := gpu.GetEccUncorrected(); n > 0 {
			bad = append(bad, fmt.Sprintf("%s: %d uncorrected errors", clip(gpu.GetUuid(), maxGPUUUID), n))
		} else if gpu.GetRowsPending() {
			bad = append(bad, clip(gpu.GetUuid(), maxGPUUUID)+": a row of memory waits for a reset")
		}
	}
	if g.state == Pass {
		g.measured = "none"
	}
	if len(bad) == 0 {
		return g, ""
	}
	g.state, g.measured, g.fix = Fail, few(bad), fixReset
	for _, gpu := range gpus {
		if gpu.GetEccUncorrected() > 0 {
			return g, "memory errors that could not be corrected (" + g.measured + ")"
		}
	}
	return g, ""
}

const fixReset = "Reset the GPU (nvidia-smi --gpu-reset) or restart the machine, start muster-worker again, and ask for a recheck. " +
	"A GPU that fails again needs replacing."

func xidGate(gpus []*agentpb.GPUHealth) (g gate, quarantine string) {
	g = gate{name: GateXid, state: Pass, measured: "none", required: "no hardware error since muster-worker started", closes: true}
	if len(gpus) == 0 {
		g.state, g.measured = Unknown, ""
	}
	var bad []string
	fatal := false
	for _, gpu := range gpus {
		for _, xid := range gpu.GetXids() {
			if slices.Contains(applicationXids, xid) || slices.Contains(rowXids, xid) && !gpu.GetRowsPending() {
				continue
			}
			bad = append(bad, fmt.Sprintf("%s: Xid %d", clip(gpu.GetUuid(), maxGPUUUID), xid))
			fatal = fatal || slices.Contains(fatalXids, xid) || slices.Contains(rowXids, xid)
		}
	}
	if len(bad) == 0 {
		return g, ""
	}
	g.state, g.measured, g.fix = Fail, few(bad), fixReset
	if fatal {
		return g, "hardware errors (" + g.measured + ")"
	}
	return g, ""
}

// throttleGate warns only: a hot GPU is slower, and its customer pays for what the market knows.
func throttleGate(gpus []*agentpb.GPUHealth) gate {
	g := gate{name: GateThrottle, state: Unknown, required: "clocks that heat or power do not hold down"}
	var bad []string
	for _, gpu := range gpus {
		g.state, g.measured = Pass, "none held down"
		if reasons := gpu.GetThrottleReasons(); len(reasons) > 0 {
			bad = append(bad, clip(gpu.GetUuid()+": "+strings.Join(reasons, ", "), maxHealthNote))
		}
	}
	if len(bad) > 0 {
		g.state, g.measured, g.fix = Fail, few(bad), "Look after the machine's cooling and power supply."
	}
	return g
}

// few joins the first of some phrases.
func few(phrases []string) string {
	text := strings.Join(phrases[:min(len(phrases), maxGPUsInMeasure)], "; ")
	if more := len(phrases) - maxGPUsInMeasure; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return clip(text, maxHealthNote)
}

// diskSteps rounds free space down, so that what is stored seldom changes; nil is unknown.
func diskSteps(free int64) *int64 {
	if free <= 0 {
		return nil
	}
	rounded := free / diskStep * diskStep
	return &rounded
}
