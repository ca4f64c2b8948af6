// Package fakenvml makes the simulated libnvidia-ml.so.1 that machines without a GPU load through the real go-nvml.
//
// The library is a C file, compiled where it is used, so that the dynamic loading, the symbols and the processes are the same
// as with NVIDIA's. What it answers is a profile: a text file, read at every nvmlInit, named by MUSTER_FAKE_NVML_PROFILE in
// the environment of the process that loads it. Rewriting the file is how a running host's GPUs change or fail. The library
// marks itself as a simulation, and nothing that uses it can take that mark off.
package fakenvml

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
)

const (
	// LibraryName is the name that programs look for.
	LibraryName = "libnvidia-ml.so.1"
	// ProfileEnv names the profile to the library.
	ProfileEnv = "MUSTER_FAKE_NVML_PROFILE"
	// Marker is the symbol by which the library says that it is a simulation.
	Marker = "musterFakeNvmlMarker"
	// MaxGPUs is how many devices a profile may have.
	MaxGPUs = 16
)

const (
	gpuLine      = "gpu\n"
	firstPCIBus  = 0x1b
	serialDigits = 1_000_000_000_000
)

//go:embed library/nvml_fake.c
var source []byte

//go:embed profiles/*.txt
var profiles embed.FS

// Profiles are the names of the hosts that can be simulated.
func Profiles() []string { return []string{"a100-80", "h100-sxm", "l40s", "mixed", "rtx4090"} }

// Build compiles the library into dir and returns its path. A library that is there already is replaced at once, under
// whoever has it loaded. Symbols in without are left out, as in a driver too old to have them.
func Build(ctx context.Context, dir string, without ...string) (string, error) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		return "", errs.New(errs.Unavailable, "a C compiler is needed to simulate GPUs: install the Debian packages gcc and libc6-dev")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the simulated NVML's folder: %w", err)
	}
	work, err := os.MkdirTemp(dir, ".build-")
	if err != nil {
		return "", fmt.Errorf("make the simulated NVML's folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	built := filepath.Join(work, LibraryName)
	args, err := compilerArguments(work, built, without)
	if err != nil {
		return "", err
	}
	if output, err := exec.CommandContext(ctx, compiler, args...).CombinedOutput(); err != nil {
		return "", errs.New(errs.Unavailable, "the simulated NVML does not compile: install the Debian packages gcc and libc6-dev: %w: %s", err, bytes.TrimSpace(output))
	}
	path := filepath.Join(dir, LibraryName)
	if err := os.Rename(built, path); err != nil {
		return "", fmt.Errorf("put the simulated NVML in place: %w", err)
	}
	return path, nil
}

func compilerArguments(work, output string, without []string) ([]string, error) {
	code := filepath.Join(work, "nvml_fake.c")
	if err := os.WriteFile(code, source, 0o600); err != nil {
		return nil, fmt.Errorf("write the simulated NVML's source: %w", err)
	}
	args := []string{"-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-fvisibility=hidden", "-Wl,-soname," + LibraryName, "-o", output, code}
	if len(without) == 0 {
		return args, nil
	}
	hidden := filepath.Join(work, "hidden.map")
	script := "{ global: *; local: " + strings.Join(without, "; ") + "; };\n"
	if err := os.WriteFile(hidden, []byte(script), 0o600); err != nil {
		return nil, fmt.Errorf("write the simulated NVML's symbol map: %w", err)
	}
	return append(args, "-Wl,--version-script="+hidden), nil
}

// WriteProfile writes dir/nvml-profile.txt: gpus devices of the named profile, with identities of their own for each seed, and
// with faults. It returns the file's path. The file is replaced at once, so a host that uses it sees the old one or the new.
func WriteProfile(dir, name string, gpus int, seed string, faults ...Fault) (string, error) {
	content, err := render(name, gpus, seed, faults)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("write the simulated GPUs' profile: %w", err)
	}
	path := filepath.Join(dir, "nvml-profile.txt")
	file, err := os.CreateTemp(dir, ".nvml-profile-*")
	if err != nil {
		return "", fmt.Errorf("write the simulated GPUs' profile: %w", err)
	}
	_, err = file.WriteString(content)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return "", fmt.Errorf("write the simulated GPUs' profile: %w", err)
	}
	return path, nil
}

func render(name string, gpus int, seed string, faults []Fault) (string, error) {
	if !slices.Contains(Profiles(), name) {
		return "", errs.New(errs.Invalid, "there is no GPU profile %q: use one of %s", name, strings.Join(Profiles(), ", "))
	}
	if gpus < 1 || gpus > MaxGPUs {
		return "", errs.New(errs.Invalid, "a simulated host has 1 to %d GPUs, not %d", MaxGPUs, gpus)
	}
	text, err := profiles.ReadFile("profiles/" + name + ".txt")
	if err != nil {
		return "", fmt.Errorf("read profile %s: %w", name, err)
	}
	parts := strings.Split(string(text), gpuLine)
	boards := parts[1:]
	var out strings.Builder
	out.WriteString(parts[0] + faultLines(faults, host))
	for i := range gpus {
		out.WriteString(gpuLine + identities(seed, i).Replace(boards[i%len(boards)]) + faultLines(faults, i))
	}
	return out.String(), nil
}

// identities derives what tells one board from every other from the seed, so that a host keeps its GPUs across restarts.
func identities(seed string, index int) *strings.Replacer {
	sum := sha256.Sum256([]byte(seed + "/" + strconv.Itoa(index)))
	return strings.NewReplacer(
		"{uuid}", fmt.Sprintf("GPU-%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]),
		"{serial}", fmt.Sprintf("%013d", serialDigits+binary.BigEndian.Uint64(sum[16:24])%serialDigits),
		"{pci}", fmt.Sprintf("00000000:%02X:00.0", firstPCIBus+index*0x0c),
	)
}

const host = -1

// Fault is something wrong with a simulated host or with one of its GPUs.
type Fault struct {
	gpu  int // or host
	line string
}

// Lost makes a GPU fall off the bus: its handle stays valid, and what touches the hardware fails.
func Lost(gpu int) Fault { return Fault{gpu, "lost yes"} }

// Xid makes a GPU raise the error with that number, which whoever waits for events is told once.
func Xid(gpu, number int) Fault { return Fault{gpu, "xid " + strconv.Itoa(number)} }

// DoubleBit makes a GPU count uncorrected memory errors since it was last reset.
func DoubleBit(gpu, errors int) Fault { return Fault{gpu, "ecc_uncorrected " + strconv.Itoa(errors)} }

// RowsPending makes a GPU wait for a reset to take a row of its memory out of use.
func RowsPending(gpu int) Fault { return Fault{gpu, "rows_pending 1"} }

// TooHot makes a GPU slow its clocks down because it is too hot.
func TooHot(gpu int) Fault {
	return Fault{gpu, fmt.Sprintf("clocks_event_reasons %#x", swThermalSlowdown|hwThermalSlowdown)}
}

// NVML's bits for why a GPU's clocks are not what was asked for.
const (
	swThermalSlowdown = 0x20
	hwThermalSlowdown = 0x40
)

// Hang makes an NVML call never return.
func Hang(call string) Fault { return Fault{host, "hang " + call} }

// Slow makes every NVML call take at least d.
func Slow(d time.Duration) Fault {
	return Fault{host, "delay_ms " + strconv.FormatInt(d.Milliseconds(), 10)}
}

// InitFails makes the library refuse to begin, with an NVML return code.
func InitFails(code int) Fault { return Fault{host, "init " + strconv.Itoa(code)} }

// DriverNotLoaded makes the library say that the kernel has no NVIDIA driver.
func DriverNotLoaded() Fault { return InitFails(driverNotLoaded) }

const driverNotLoaded = 9

func faultLines(faults []Fault, gpu int) string {
	var lines strings.Builder
	for _, fault := range faults {
		if fault.gpu == gpu {
			lines.WriteString(fault.line + "\n")
		}
	}
	return lines.String()
}
