package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"
)

func TestRecordComesBackWithoutTheToken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "record.json")
	original := spec("node_b", 4, 3, 2)
	rec, err := newRecord(original)
	if err != nil {
		t.Fatal(err)
	}
	rec.State, rec.Process = started, identity{PID: 7, StartTicks: 99, BootID: "b"}
	if err := rec.write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(text), testToken) {
		t.Fatalf("the record holds the token, or cannot be read: %v", err)
	}
	read, err := readRecord(path)
	if err != nil || read.State != started || read.Process != rec.Process {
		t.Fatalf("read %+v, %v", read, err)
	}
	got, err := read.spec()
	if err != nil {
		t.Fatal(err)
	}
	got.RayToken = testToken
	if !proto.Equal(got, original) {
		t.Errorf("got %v, want %v", got, original)
	}
	if original.GetRayToken() != testToken {
		t.Error("recording took the token from the spec in use")
	}
}

func TestRecordIsReplacedAsAWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "record.json")
	for _, state := range []recordState{intended, started, stopped} {
		if err := (record{Version: recordVersion, State: state}).write(path); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("files %v are there, %v", entries, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestRecordOfAnotherVersionIsNotUnderstood(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "record.json")
	for _, text := range []string{`{"version":2}`, `{"version":`, ``} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readRecord(path); err == nil {
			t.Errorf("%q is understood", text)
		}
	}
}

func TestReusedPidIsAnotherProcess(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	process, err := identify(cmd.Process.Pid)
	if err != nil || !process.alive() {
		t.Fatalf("%+v is not alive, %v", process, err)
	}
	for name, other := range map[string]identity{
		"started at another time": {PID: process.PID, StartTicks: process.StartTicks - 1, BootID: process.BootID},
		"of an earlier boot":      {PID: process.PID, StartTicks: process.StartTicks, BootID: "earlier"},
		"no process":              {},
	} {
		if other.alive() {
			t.Errorf("a process %s counts as alive", name)
		}
		other.signal(syscall.SIGKILL)
	}
	if !process.alive() {
		t.Error("a signal for another process ended this one")
	}
}

func TestStatusLineWithAnOddName(t *testing.T) {
	t.Parallel()
	line := "42 (a) b (c) ) S 7 42 43 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1000 20\n"
	got, err := parseStat(42, line)
	if err != nil || got.parent != 7 || got.session != 43 || got.startTicks != 12345 || !got.running() {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "42", "42 (x) S", "42 (x) S a b c d e f g h i j k l m n o p q r s t"} {
		if _, err := parseStat(42, bad); err == nil {
			t.Errorf("%q is understood", bad)
		}
	}
}

func TestProcessesThatLeaveTheirGroupAreFound(t *testing.T) {
	t.Parallel()
	const id = "node_scan_test"
	// A session of its own, a child without environment, and a child in a session of its own that ignores SIGTERM.
	script := `env -i sleep 600 & setsid sh -c 'trap "" TERM; sleep 600 & wait; sleep 600' & wait`
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), nodeMark+"="+id)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	main, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	const all = 4
	eventually(t, testPatience, func() (bool, string) {
		found, err := processesOf(id)
		return err == nil && len(found) == all, describeProcesses(found)
	})
	if others, err := processesOf("node_scan"); err != nil || len(others) != 0 {
		t.Errorf("the processes %s belong to a node of a similar name, %v", describeProcesses(others), err)
	}
	main.signal(syscall.SIGTERM)
	if !endMarked(id, main, testPatience) {
		t.Error("processes survive")
	}
	if left, err := processesOf(id); err != nil || len(left) != 0 {
		t.Errorf("%s are left, %v", describeProcesses(left), err)
	}
}

func describeProcesses(processes []identity) string {
	var lines []string
	for _, p := range processes {
		text, _ := os.ReadFile(filepath.Join("/proc", itoa(p.PID), "cmdline"))
		lines = append(lines, itoa(p.PID)+" "+strings.ReplaceAll(string(text), "\x00", " "))
	}
	return strings.Join(lines, "; ")
}
