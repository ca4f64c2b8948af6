package process

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/agentpb"
)

const testPatience = 30 * time.Second

func itoa(n int) string { return strconv.Itoa(n) }

func TestSummaryOfRay(t *testing.T) {
	t.Parallel()
	// As Ray 2.60.0 answers, shortened.
	body := `{"result": true, "msg": "", "data": {"summary": [
		{"now": 1.5, "raylet": {"nodeManagerAddress": "127.77.0.4", "state": "ALIVE", "isHeadNode": false, "resourcesTotal": {"CPU": 2.0, "GPU": 2.0}}},
		{"raylet": {"nodeManagerAddress": "127.77.0.2", "state": "ALIVE", "isHeadNode": true, "resourcesTotal": {"memory": 5.0}}},
		{"raylet": {"nodeManagerAddress": "127.77.0.3", "state": "DEAD", "isHeadNode": false}},
		{"raylet": {}}
	], "nodeLogicalResources": {}}}`
	want := &agentpb.RaySummary{Nodes: []*agentpb.RayNode{
		{Address: "127.77.0.2", Alive: true, Head: true},
		{Address: "127.77.0.3"},
		{Address: "127.77.0.4", Alive: true, Gpus: 2},
	}}
	got, err := parseSummary([]byte(body))
	if err != nil || !proto.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := parseSummary([]byte("<html>")); err == nil {
		t.Error("a page is understood as a summary")
	}
}

func TestBusyNodesOfRay(t *testing.T) {
	t.Parallel()
	body := func(used string) []byte {
		return []byte(`{"data": {"summary": [
			{"raylet": {"nodeId": "h", "nodeManagerAddress": "127.77.0.2", "state": "ALIVE", "isHeadNode": true}},
			{"raylet": {"nodeId": "a", "nodeManagerAddress": "127.77.0.3", "state": "ALIVE"}},
			{"raylet": {"nodeId": "b", "nodeManagerAddress": "127.77.0.4", "state": "ALIVE"}},
			{"raylet": {"nodeId": "c", "nodeManagerAddress": "127.77.0.5", "state": "DEAD"}}
		], "nodeLogicalResources": ` + used + `}}`)
	}
	for name, c := range map[string]struct {
		used string
		busy int32
		told bool
	}{
		"idle":                 {`{"h": "0B/22.83GiB memory", "a": "0.0/2.0 CPU\n0.0/2.0 GPU\n0B/22.5GiB memory", "b": "0.0/2.0 CPU"}`, 0, true},
		"a GPU in use":         {`{"a": "0.0/2.0 CPU\n1.0/2.0 GPU", "b": "0.0/2.0 CPU"}`, 1, true},
		"memory in use":        {`{"a": "2.5GiB/22.5GiB memory", "b": "0.5/2.0 CPU"}`, 2, true},
		"objects are left":     {`{"a": "0.0/2.0 CPU\n563B/95.37MiB object_store_memory", "b": "0.0/2.0 CPU"}`, 0, true},
		"a text like no other": {`{"a": "some/2.0 CPU", "b": "0.0/2.0 CPU"}`, 1, true},
		"one is not told yet":  {`{"a": "0.0/2.0 CPU"}`, 0, false},
		"nothing is told":      {`{}`, 0, false},
	} {
		got, err := parseSummary(body(c.used))
		if err != nil || (got.Busy != nil) != c.told || got.GetBusy() != c.busy {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func TestRunningJobsOfRay(t *testing.T) {
	t.Parallel()
	body := `[{"type": "SUBMISSION", "status": "PENDING"}, {"type": "SUBMISSION", "status": "FAILED"}, {"type": "DRIVER", "status": "RUNNING"},
		{"type": "DRIVER", "status": "SUCCEEDED"}, {"type": "SUBMISSION", "status": "STOPPED"}, {"status": "PAUSED"}]`
	if running, err := parseJobs([]byte(body)); err != nil || running != 3 {
		t.Errorf("%d jobs run, %v", running, err)
	}
	if running, err := parseJobs([]byte(`[]`)); err != nil || running != 0 {
		t.Errorf("%d of no jobs run, %v", running, err)
	}
	if _, err := parseJobs([]byte("<html>")); err == nil {
		t.Error("a page is understood as jobs")
	}
}

func TestLogStaysBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ray.log")
	if err := trimLog(path, 100); err != nil {
		t.Fatalf("a log that does not exist yet: %v", err)
	}
	writer, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for i := range 50 {
		if _, err := writer.WriteString("line " + itoa(i) + "\n"); err != nil {
			t.Fatal(err)
		}
		if err := trimLog(path, 100); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{path, path + ".1"} {
			if info, err := os.Stat(name); err == nil && info.Size() > 110 {
				t.Fatalf("%s has %d bytes", name, info.Size())
			}
		}
	}
	if tail := logTail(path); !strings.HasSuffix(tail, "line 49") {
		t.Errorf("the log ends with %q after it was cut under its writer", tail)
	}
}

func TestLogTailIsShortPrintableText(t *testing.T) {
	t.Parallel()
	if tail := logTail(filepath.Join(t.TempDir(), "none")); tail != "" {
		t.Errorf("the tail of no file is %q", tail)
	}
	path := filepath.Join(t.TempDir(), "log")
	rapid.Check(t, func(r *rapid.T) {
		content := rapid.SliceOfN(rapid.Byte(), 0, 3*tailBytes).Draw(r, "content")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			r.Fatal(err)
		}
		tail := logTail(path)
		if len(tail) > tailBytes || strings.Count(tail, "\n") >= tailMaxLines || !utf8.ValidString(tail) || strings.ContainsAny(tail, "\x00\x1b\r") {
			r.Fatalf("%d bytes: %q", len(tail), tail)
		}
	})
}
