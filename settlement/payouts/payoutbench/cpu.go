package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Places in /proc/PID/stat, counted behind the command's name, and the clock that it counts in.
const (
	statParent     = 1
	statTimes      = 11 // of the process: user, system; then the same of its children that have ended
	ticksPerSecond = 100
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
	if s.service, err = cpu(); err != nil {
		return s, err
	}
	seen, err := processes()
	if err != nil {
		return s, err
	}
	var backend int
	if err := r.pool.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&backend); err != nil {
		return s, err
	}
	server, found := seen[backend]
	if !found {
		return s, errors.New("the database's processes cannot be seen from here")
	}
	for id, p := range seen {
		switch {
		case id == r.process.Process.Pid:
			s.signer += p.own
		case p.parent == os.Getpid():
			s.chain += p.own
		case id == server.parent:
			s.database += p.own + p.ended
		case p.parent == server.parent:
			s.database += p.own
		}
	}
	return s, nil
}

// process is what the kernel says of one.
type process struct {
	parent     int
	own, ended time.Duration // its time, and that of its children that are gone
}

func processes() (map[int]process, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := make(map[int]process, len(paths))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		id, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		if all[id], err = parseStat(string(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return all, nil
}

func parseStat(text string) (p process, err error) {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < statTimes+4 {
		return p, errors.New("it is not what the kernel writes")
	}
	if p.parent, err = strconv.Atoi(fields[statParent]); err != nil {
		return p, err
	}
	var ticks [4]int64
	for i := range ticks {
		if ticks[i], err = strconv.ParseInt(fields[statTimes+i], 10, 64); err != nil {
			return p, err
		}
	}
	p.own = time.Duration(ticks[0]+ticks[1]) * time.Second / ticksPerSecond
	p.ended = time.Duration(ticks[2]+ticks[3]) * time.Second / ticksPerSecond
	return p, nil
}
