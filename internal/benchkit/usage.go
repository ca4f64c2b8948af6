package benchkit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// PeakMemory is the most memory that a process has had, in megabytes.
func PeakMemory(pid int) (float64, error) {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return 0, err
	}
	status, err := process.NewStatus()
	if err != nil {
		return 0, err
	}
	if status.VmHWM == 0 {
		return 0, errors.New("the kernel does not tell the process's memory")
	}
	return float64(status.VmHWM) / 1e6, nil
}

// CPU is the time that a process has had until now.
func CPU(pid int) (time.Duration, error) {
	stat, err := statOf(pid)
	return seconds(stat.CPUTime()), err
}

// ChildrenCPU is what the living children of a process have had until now.
func ChildrenCPU(pid int) (time.Duration, error) {
	processes, err := procfs.AllProcs()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, process := range processes {
		stat, err := process.Stat()
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has just ended
		}
		if err != nil {
			return 0, err
		}
		if stat.PPID == pid {
			sum += seconds(stat.CPUTime())
		}
	}
	return sum, nil
}

// CPU is what the server's processes have had until now, those that have ended included.
func (d *Database) CPU(ctx context.Context) (time.Duration, error) {
	var backend int
	if err := d.Pool.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&backend); err != nil {
		return 0, err
	}
	stat, err := statOf(backend)
	if err != nil {
		return 0, fmt.Errorf("PostgreSQL must run on this machine, for its CPU time to be read: %w", err)
	}
	server, err := statOf(stat.PPID)
	if err != nil {
		return 0, err
	}
	living, err := ChildrenCPU(server.PID)
	if err != nil {
		return 0, err
	}
	return seconds(server.CPUTime()) + ticks(server.CUTime+server.CSTime) + living, nil
}

func statOf(pid int) (procfs.ProcStat, error) {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return procfs.ProcStat{}, err
	}
	return process.Stat()
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// ticks are in USER_HZ, which is the same on every Linux that Go runs on.
func ticks(n int) time.Duration { return time.Duration(n) * time.Second / 100 }
