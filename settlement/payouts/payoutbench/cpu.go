package main

import (
	"context"
	"os"
	"time"

	"github.com/muster-gpu/muster/internal/benchkit"
)

// shares is the CPU time that each part of a run has had. They share the machine's cores, so each can be what the others wait for.
type shares struct {
	service  time.Duration // this process
	signer   time.Duration
	chain    time.Duration // the local chain, which also executes every transaction
	database time.Duration
}

func (s shares) minus(before shares) shares {
	return shares{
		service: s.service - before.service, signer: s.signer - before.signer, chain: s.chain - before.chain, database: s.database - before.database,
	}
}

func (s shares) total() time.Duration { return s.service + s.signer + s.chain + s.database }

// shares reads what every part has had so far.
func (r *run) shares(ctx context.Context) (s shares, err error) {
	if s.service, err = benchkit.CPU(os.Getpid()); err != nil {
		return s, err
	}
	if s.signer, err = benchkit.CPU(r.process.Process.Pid); err != nil {
		return s, err
	}
	children, err := benchkit.ChildrenCPU(os.Getpid())
	if err != nil {
		return s, err
	}
	s.chain = children - s.signer
	s.database, err = r.database.CPU(ctx)
	return s, err
}
