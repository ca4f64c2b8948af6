package process

import (
	"syscall"
	"time"
)

const (
	endPoll        = 50 * time.Millisecond
	killLimit      = 10 * time.Second // for the kernel to end killed processes
	stragglerGrace = time.Second      // for what outlives the main process, before it is killed
)

// endProcesses ends everything of a node: it asks the main process, then what is left, and kills what does not listen. It
// reports whether nothing is left, after StopGrace and killLimit at most.
func (r *Runtime) endProcesses(nodeID string, main identity) bool {
	main.signal(syscall.SIGTERM)
	return endMarked(nodeID, main, r.opts.StopGrace)
}

func endMarked(nodeID string, main identity, grace time.Duration) bool {
	kill := time.Now().Add(grace)
	giveUp := kill.Add(killLimit)
	asked := false
	for {
		left, err := processesOf(nodeID)
		if err == nil && len(left) == 0 {
			return true
		}
		now := time.Now()
		switch {
		case now.After(giveUp):
			return false
		case now.After(kill):
			signalAll(left, syscall.SIGKILL)
		case !asked && !main.alive():
			signalAll(left, syscall.SIGTERM)
			asked = true
			if early := now.Add(stragglerGrace); early.Before(kill) {
				kill = early
			}
		}
		time.Sleep(endPoll)
	}
}

func signalAll(processes []identity, sig syscall.Signal) {
	for _, process := range processes {
		process.signal(sig)
	}
}
