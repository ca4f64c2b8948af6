package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/muster-gpu/muster/internal/benchkit"
)

const (
	childGrace  = 15 * time.Second
	startChild  = 30 * time.Second
	askUsage    = "usage"
	askProfile  = "profile"
	askEnd      = "end of profile"
	bytesPerKiB = 1 << 10
)

// usage is what a child has taken until now.
type usage struct {
	Microseconds int64 `json:"microseconds"`
	Heartbeats   int64 `json:"heartbeats"`
	RSS          int64 `json:"rss"`
}

// child is this program again, in another role.
type child struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
	address string
}

func startRole(ctx context.Context, role string, s settings) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-role", role, "-database", s.databaseURL, "-dir", s.dir, "-profile", s.profile)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = childGrace
	c := &child{cmd: cmd}
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewScanner(out)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	late := time.AfterFunc(startChild, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if c.address, err = c.line(); err != nil {
		return nil, errors.Join(fmt.Errorf("the %s did not start: %w", role, err), c.stop())
	}
	return c, nil
}

func (c *child) line() (string, error) {
	if !c.out.Scan() {
		return "", errors.Join(c.out.Err(), io.ErrUnexpectedEOF)
	}
	return c.out.Text(), nil
}

// ask sends a request and reads its one line of an answer.
func (c *child) ask(request string) (usage, error) {
	if _, err := fmt.Fprintln(c.in, request); err != nil {
		return usage{}, err
	}
	line, err := c.line()
	if err != nil {
		return usage{}, err
	}
	var u usage
	err = json.Unmarshal([]byte(line), &u)
	return u, err
}

// stop ends the child by the end of its input.
func (c *child) stop() error { return errors.Join(c.in.Close(), c.cmd.Wait()) }

// window measures a child and PostgreSQL for a while.
func (c *child) window(ctx context.Context, s settings, db *benchkit.Database) (sample, error) {
	if s.profile != "" {
		if _, err := c.ask(askProfile); err != nil {
			return sample{}, err
		}
	}
	began := time.Now()
	before, err := c.ask(askUsage)
	if err != nil {
		return sample{}, err
	}
	postgres, err := db.CPU(ctx)
	if err != nil {
		return sample{}, err
	}
	if err := sleep(ctx, s.window); err != nil {
		return sample{}, err
	}
	after, err := c.ask(askUsage)
	if err != nil {
		return sample{}, err
	}
	now, err := db.CPU(ctx)
	return sample{
		heartbeats: after.Heartbeats - before.Heartbeats, wall: time.Since(began), serverRSS: after.RSS, postgres: now - postgres,
		server: time.Duration(after.Microseconds-before.Microseconds) * time.Microsecond,
	}, errors.Join(err, c.endProfile(s))
}

func (c *child) endProfile(s settings) error {
	if s.profile == "" {
		return nil
	}
	_, err := c.ask(askEnd)
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// obey answers the parent's requests until its input ends, and then calls end.
func obey(address, profile string, heartbeats func() int64, end func()) error {
	defer end()
	defer pprof.StopCPUProfile()
	profiles := 0
	if _, err := fmt.Fprintln(os.Stdout, address); err != nil {
		return err
	}
	requests := bufio.NewScanner(os.Stdin)
	for requests.Scan() {
		switch requests.Text() {
		case askProfile:
			profiles++
			if err := startProfile(profile + strconv.Itoa(profiles)); err != nil {
				return err
			}
		case askEnd:
			pprof.StopCPUProfile()
		}
		u, err := ownUsage()
		if err != nil {
			return err
		}
		u.Heartbeats = heartbeats()
		line, err := json.Marshal(u)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(os.Stdout, string(line)); err != nil {
			return err
		}
	}
	return requests.Err()
}

func startProfile(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return pprof.StartCPUProfile(file) // the file is closed with the process
}

func ownUsage() (usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return usage{}, err
	}
	rss, err := residentBytes()
	return usage{Microseconds: time.Duration(r.Utime.Nano() + r.Stime.Nano()).Microseconds(), RSS: rss}, err
}

// residentBytes is the memory of this process.
func residentBytes() (int64, error) {
	content, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(content), "\n") {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib * bytesPerKiB, err
		}
	}
	return 0, errors.New("/proc/self/status does not say the resident memory")
}
