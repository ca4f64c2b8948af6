package process

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
)

const (
	defaultObjectStoreBytes = 200_000_000 // so that several nodes share a small machine
	minObjectStoreBytes     = 78_643_200  // Ray refuses less
	defaultStartTimeout     = 2 * time.Minute
	defaultStopGrace        = 10 * time.Second
	// Ray puts unix sockets 64 characters below a node's folder, and Linux allows 107 in all.
	maxTempRootLength = 107 - 64 - len("/01234567/r")
)

// Options configure a Runtime. StateDir and Ray are required.
type Options struct {
	StateDir string // records, tokens and logs
	TempRoot string // the nodes' session folders; a short path under the system's temporary folder unless given
	Ray      Ray    // what FindRay found

	ObjectStoreBytes int64 // shared memory of one node
	NodeCPUs         int   // logical CPUs that one GPU node offers

	// StopOnExit stops every node when Run ends, for a stack that should leave nothing behind.
	StopOnExit bool
	// SimulatedGPUs says, at each start of a node, that the host's GPUs exist only in a simulation. CUDA is then not told
	// which ones are leased.
	SimulatedGPUs func() bool
	// Env is added to every node's environment, which is otherwise made from scratch: the agent's holds secrets.
	Env []string

	StartTimeout time.Duration // a node that is not healthy by then has failed
	StopGrace    time.Duration // between asking a node to end and killing it
	Log          *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.StateDir == "" || o.Ray.Venv == "" {
		return o, errs.New(errs.Invalid, "the process runtime needs a state folder and a Ray installation")
	}
	state, err := filepath.Abs(o.StateDir)
	if err != nil {
		return o, err
	}
	o.StateDir = state
	if o.TempRoot == "" {
		sum := sha256.Sum256([]byte(state))
		o.TempRoot = filepath.Join(os.TempDir(), "muster-"+hex.EncodeToString(sum[:4]))
	}
	if len(o.TempRoot) > maxTempRootLength {
		return o, errs.New(errs.Invalid, "the folder for Ray's sessions %s is too long a path for unix sockets: give one of at most %d characters",
			o.TempRoot, maxTempRootLength)
	}
	if o.ObjectStoreBytes == 0 {
		o.ObjectStoreBytes = defaultObjectStoreBytes
	}
	if o.ObjectStoreBytes < minObjectStoreBytes {
		return o, errs.New(errs.Invalid, "a node's object store needs at least %d bytes", minObjectStoreBytes)
	}
	if o.NodeCPUs == 0 {
		o.NodeCPUs = runtime.NumCPU()
	}
	if o.SimulatedGPUs == nil {
		o.SimulatedGPUs = func() bool { return false }
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = defaultStartTimeout
	}
	if o.StopGrace == 0 {
		o.StopGrace = defaultStopGrace
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Ray is a virtual environment with Ray in it.
type Ray struct {
	Venv    string // absolute
	Version string // "2.60.0"
}

// FindRay reads which Ray a virtual environment holds, without running Python. The error is a domain error that says how to
// get one.
func FindRay(venv string) (Ray, error) {
	abs, err := filepath.Abs(venv)
	if err != nil {
		return Ray{}, err
	}
	found, err := filepath.Glob(filepath.Join(abs, "lib", "python3*", "site-packages", "ray-*.dist-info"))
	if err != nil {
		return Ray{}, err
	}
	ray := Ray{Venv: abs}
	if _, err := os.Stat(ray.command()); err != nil || len(found) != 1 {
		return Ray{}, errs.New(errs.Unavailable, "there is no Ray in %s: run `make setup`, or name a virtual environment that has ray[default]", venv)
	}
	ray.Version = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), "ray-"), ".dist-info")
	return ray, nil
}

func (r Ray) command() string { return filepath.Join(r.Venv, "bin", "ray") }
func (r Ray) python() string  { return filepath.Join(r.Venv, "bin", "python3") }
