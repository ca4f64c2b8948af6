package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// identity tells a process from every other, before and after it: a pid alone is reused.
type identity struct {
	PID        int    `json:"pid,omitempty"`
	StartTicks uint64 `json:"start_ticks,omitempty"` // after boot, from /proc/PID/stat
	BootID     string `json:"boot_id,omitempty"`
}

type stat struct {
	pid, parent, session int
	state                byte
	startTicks           uint64
}

func (s stat) running() bool { return s.state != 'Z' && s.state != 'X' }

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	return parseStat(pid, string(text))
}

// parseStat reads a line of /proc/PID/stat. The command's name, in parentheses, may hold spaces and parentheses.
func parseStat(pid int, text string) (stat, error) {
	end := strings.LastIndexByte(text, ')')
	fields := strings.Fields(text[end+1:])
	const state, parent, session, startTime = 0, 1, 3, 19 // counted from the field after the name
	if end < 0 || len(fields) <= startTime {
		return stat{}, fmt.Errorf("read /proc/%d/stat: %q is no status line", pid, text)
	}
	s := stat{pid: pid, state: fields[state][0]}
	var errParent, errSession, errStart error
	s.parent, errParent = strconv.Atoi(fields[parent])
	s.session, errSession = strconv.Atoi(fields[session])
	s.startTicks, errStart = strconv.ParseUint(fields[startTime], 10, 64)
	return s, errors.Join(errParent, errSession, errStart)
}

func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
}

func identify(pid int) (identity, error) {
	s, err := readStat(pid)
	if err != nil {
		return identity{}, err
	}
	boot, err := bootID()
	return identity{PID: pid, StartTicks: s.startTicks, BootID: boot}, err
}

// alive reports whether the very process still runs.
func (i identity) alive() bool {
	if i.PID <= 0 {
		return false
	}
	s, err := readStat(i.PID)
	if err != nil || !s.running() || s.startTicks != i.StartTicks {
		return false
	}
	boot, err := bootID()
	return err == nil && boot == i.BootID
}

// signal sends to the process if it still is the same one. The handle is taken before the check, so that the pid cannot
// change hands in between.
func (i identity) signal(sig syscall.Signal) {
	process, err := os.FindProcess(i.PID)
	if err != nil {
		return
	}
	defer func() { _ = process.Release() }()
	if i.alive() {
		_ = process.Signal(sig) // it may have ended meanwhile, which is what the caller wants
	}
}

// processesOf lists what runs of a node: processes of this user that carry its mark, and all that share a session with one of
// those or descend from one.
func processesOf(nodeID string) ([]identity, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	all, marked, err := scan([]byte(nodeMark + "=" + nodeID))
	if err != nil {
		return nil, err
	}
	sessions := map[int]bool{}
	for pid := range marked {
		sessions[all[pid].session] = true
	}
	if self, err := readStat(os.Getpid()); err == nil {
		delete(sessions, self.session) // whatever carries the mark there, the rest of it is not the node's
	}
	var found []identity
	for pid, s := range all {
		if belongs(pid, all, marked, sessions) {
			found = append(found, identity{PID: pid, StartTicks: s.startTicks, BootID: boot})
		}
	}
	return found, nil
}

func belongs(pid int, all map[int]stat, marked, sessions map[int]bool) bool {
	for range len(all) { // as deep as the tree can be: pids may be reused while it is read
		s, known := all[pid]
		if !known {
			return false
		}
		if marked[pid] || sessions[s.session] {
			return true
		}
		pid = s.parent
	}
	return false
}

func scan(mark []byte) (all map[int]stat, marked map[int]bool, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, nil, err
	}
	all, marked = map[int]stat{}, map[int]bool{}
	uid := os.Getuid()
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() || !ownedBy(entry, uid) {
			continue
		}
		s, err := readStat(pid)
		if err != nil || !s.running() {
			continue
		}
		all[pid] = s
		if carries(pid, mark) {
			marked[pid] = true
		}
	}
	return all, marked, nil
}

func ownedBy(entry os.DirEntry, uid int) bool {
	info, err := entry.Info()
	if err != nil {
		return false
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == uid
}

func carries(pid int, mark []byte) bool {
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return false
	}
	for variable := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(variable, mark) {
			return true
		}
	}
	return false
}
