package main

import (
	"fmt"
	"runtime"
	"syscall"

	"github.com/prometheus/procfs"
)

// What an agent takes of this machine, gateway, agent and kernel together, as measured; and what is left to others.
const (
	agentMemory   = 224 << 10
	spareMemory   = 4 << 30
	spareFiles    = 500
	agentCPU      = 0.02 // seconds, to enrol and connect
	connectWithin = 600  // seconds
)

// bound is a number of agents, and what it follows from.
type bound struct {
	agents int
	by     string
}

// mostAgents is how many agents this machine has memory, files and time for, up to the target. Each connection is a file of the gateway's and
// one of the agents' process, which have the same limit.
func mostAgents() (bound, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return bound{}, err
	}
	memory, err := fs.Meminfo()
	if err != nil {
		return bound{}, err
	}
	if memory.MemAvailableBytes == nil {
		return bound{}, fmt.Errorf("the kernel does not tell how much memory is available: say -agents")
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return bound{}, err
	}
	most := bound{target, "target"}
	for _, b := range []bound{
		{(int(*memory.MemAvailableBytes) - spareMemory) / agentMemory, "memory"},
		{int(min(files.Cur, 2*target)) - spareFiles, "files"},
		{int(connectWithin * float64(runtime.NumCPU()) / agentCPU), "time"},
	} {
		if b.agents < most.agents {
			most = b
		}
	}
	if most.agents <= 0 {
		return bound{}, fmt.Errorf("this machine has not enough %s for any agent", most.by)
	}
	return most, nil
}
