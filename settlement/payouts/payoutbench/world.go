package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/muster-gpu/muster/deploy/localnet"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/localchain"
	"github.com/muster-gpu/muster/settlement/signer"
)

const (
	capital        = 1 << 50 // base units in the treasury
	nonces         = 1_800   // one for each batch of a run
	reserveSOL     = 1_000
	lamportsPerSOL = 1_000_000_000
	pollInterval   = 50 * time.Millisecond
	patience       = 2 * time.Minute
)

// world is a local chain and a signer for it.
type world struct {
	settings settings
	log      *slog.Logger
	dir      string
	server   *localnet.Server
	local    *localchain.Chain
	cluster  *chain.Client
	treasury chain.Address
	nonces   []chain.Address
	wallets  []chain.Address // with an account of the token each, in which there is nothing
	accounts []chain.Address
	keys     *signer.Client
	process  *exec.Cmd
}

func newWorld(ctx context.Context, s settings, log *slog.Logger) (_ *world, err error) {
	dir, err := os.MkdirTemp("", "payoutbench-")
	if err != nil {
		return nil, err
	}
	w := &world{settings: s, log: log, dir: dir}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.treasury, err = signer.Init(w.files().KeyFile); err != nil {
		return nil, err
	}
	if err = w.startChain(ctx); err != nil {
		return nil, err
	}
	note("making %d wallets with token accounts, and %d nonces", s.payees, nonces)
	if err = w.furnish(ctx); err != nil {
		return nil, fmt.Errorf("furnish the chain: %w", err)
	}
	if err = w.startSigner(ctx); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *world) close() {
	var failed error
	if w.keys != nil {
		w.keys.Close()
	}
	if w.process != nil {
		failed = errors.Join(w.process.Process.Signal(os.Interrupt), w.process.Wait())
	}
	if w.local != nil {
		failed = errors.Join(failed, w.local.Close())
	}
	if w.server != nil {
		failed = errors.Join(failed, w.server.Stop())
	}
	if failed = errors.Join(failed, os.RemoveAll(w.dir)); failed != nil {
		note("tidy up: %v", failed)
	}
}

func (w *world) state() string { return filepath.Join(w.dir, "chain") }

func (w *world) startChain(ctx context.Context) (err error) {
	if w.server, err = localnet.Start(ctx, localnet.Options{StateDir: w.state(), Log: io.Discard}); err != nil {
		return err
	}
	w.local, err = localchain.Setup(ctx, localchain.Config{
		URL: w.server.RPCURL(), Dir: filepath.Join(w.dir, "wallets"), Treasury: w.treasury, Capital: capital, Log: w.log,
	})
	if err == nil {
		w.cluster = w.local.Client()
	}
	return err
}

// restart stops the chain, changes its files and starts it again.
func (w *world) restart(ctx context.Context, change func() error) error {
	if err := errors.Join(w.local.Close(), w.server.Stop()); err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	return w.startChain(ctx)
}

func (w *world) files() signer.Options {
	return signer.Options{
		Socket: filepath.Join(w.dir, "socket"), KeyFile: filepath.Join(w.dir, "key"), JournalDir: filepath.Join(w.dir, "journal"),
		PolicyFile: filepath.Join(w.dir, "policy"), Log: w.log,
	}
}

// startSigner runs this program again as the signer: in production it is a process of its own too.
func (w *world) startSigner(ctx context.Context) error {
	policy := w.local.Policy()
	policy.Nonces = w.nonces
	policy.MaxBaseUnitsPerBatch, policy.MaxBaseUnitsPerDay = capital, capital
	if err := policy.WriteFile(w.files().PolicyFile); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	w.process = exec.CommandContext(ctx, self, "-signer", w.dir)
	w.process.Stderr = os.Stderr
	if err := w.process.Start(); err != nil {
		return err
	}
	w.keys = signer.NewClient(w.files().Socket)
	return await(ctx, "the signer", func() (bool, error) {
		_, err := w.keys.Addresses(ctx)
		return err == nil, nil
	})
}

func serveSigner(ctx context.Context, s settings, log *slog.Logger) error {
	w := &world{dir: s.signer, log: log}
	return signer.Serve(ctx, w.files())
}

func await(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New(what+" took too long"))
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
