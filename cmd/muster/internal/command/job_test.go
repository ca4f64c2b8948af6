package command

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	apiv1 "github.com/muster-gpu/muster/api/v1"
)

// ray answers like the job API of a cluster's Ray, behind the API's proxy.
type ray struct {
	t *testing.T

	mu       sync.Mutex
	packages map[string][]byte
	job      map[string]any // as it was submitted
	status   string
	output   []string // messages of the log stream
	breakAt  int      // the first stream breaks after this many; 0: never
	gone     bool     // and there is no other
	streams  int
}

const submitted = "raysubmit_new"

func newRay(t *testing.T, s *server, status string, output ...string) *ray {
	r := &ray{t: t, packages: make(map[string][]byte), status: status, output: output}
	base := clusterPath + "/ray"
	s.on("POST "+clusterPath+"/ray-token", apiv1.RayToken{
		Token: "mrt_token", ExpiresAt: testNow.Add(time.Hour), Env: map[string]string{"RAY_API_SERVER_ADDRESS": s.URL + base},
	})
	s.on("POST "+base+"/api/jobs/", http.HandlerFunc(r.submit))
	s.on("GET "+base+"/api/jobs/"+submitted+"/logs/tail", http.HandlerFunc(r.tail))
	s.on("GET "+clusterPath+"/jobs", http.HandlerFunc(r.list))
	s.on("GET "+clusterPath+"/jobs/"+submitted+"/logs", apiv1.JobLogs{Logs: "all of it\n"})
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if name, found := strings.CutPrefix(req.URL.Path, base+"/api/packages/gcs/"); found {
			r.pack(w, req, name)
			return
		}
		s.ServeHTTP(w, req)
	})
	return r
}

func (r *ray) pack(w http.ResponseWriter, req *http.Request, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.Header.Get("Authorization") != "Bearer mrt_token" {
		r.t.Errorf("the package came with %q", req.Header.Get("Authorization"))
	}
	if req.Method == http.MethodPut {
		r.packages[name], _ = io.ReadAll(req.Body)
	} else if r.packages[name] == nil {
		w.WriteHeader(http.StatusNotFound)
	}
}

func (r *ray) submit(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = json.NewDecoder(req.Body).Decode(&r.job)
	answer(w, map[string]string{"submission_id": submitted, "job_id": submitted})
}

func (r *ray) list(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer(w, items(apiv1.Job{ID: submitted, Status: r.status, Entrypoint: "python job.py", Message: "exit code 3, last available logs: x\ny"}))
}

func (r *ray) tail(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.streams++
	stream, gone := r.streams, r.gone
	r.mu.Unlock()
	if stream > 1 && gone {
		http.Error(w, "no", http.StatusServiceUnavailable)
		return
	}
	upgrader := websocket.Upgrader{}
	connection, err := upgrader.Upgrade(w, req, nil)
	if err != nil {
		r.t.Errorf("upgrade: %v", err)
		return
	}
	defer func() { _ = connection.Close() }()
	output, broken := r.output, stream == 1 && r.breakAt > 0
	if broken {
		output = output[:r.breakAt]
	}
	for _, message := range output {
		_ = connection.WriteMessage(websocket.TextMessage, []byte(message))
	}
	if !broken {
		_ = connection.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	}
}

func TestAJobIsSubmittedWithItsFolder(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := newRay(t, s, "RUNNING")
	folder := t.TempDir()
	for name, content := range map[string]string{"job.py": "print(1)", ".gitignore": "*.bin\n", "big.bin": "x", "notes.md": "n"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sh := newShell(t, s.URL)
	line := []string{"job", "submit", "demo", "--working-dir", folder, "--exclude", "*.md", "--pip", "numpy", "--env", "A=b c", "--num-gpus", "1", "--", "python", "job.py", "--name=it's"}
	sh.run(line...).has(t, exitOK, submitted+"\n", "Uploaded the working directory: 2 files")
	want := map[string]any{
		"entrypoint": `python job.py '--name=it'\''s'`, "entrypoint_num_gpus": 1.0,
		"runtime_env": map[string]any{"working_dir": "gcs://" + onlyKey(t, r.packages), "pip": []any{"numpy"}, "env_vars": map[string]any{"A": "b c"}},
	}
	if got, _ := json.Marshal(r.job); string(got) != mustJSON(t, want) {
		t.Errorf("submitted %s, want %s", got, mustJSON(t, want))
	}
	archive, err := zip.NewReader(bytes.NewReader(r.packages[onlyKey(t, r.packages)]), int64(len(r.packages[onlyKey(t, r.packages)])))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range archive.File {
		names = append(names, file.Name)
	}
	if strings.Join(names, " ") != ".gitignore job.py" {
		t.Errorf("the package holds %v", names)
	}
	sh.run(line...).has(t, exitOK, "has this working directory already")
}

func onlyKey(t *testing.T, all map[string][]byte) string {
	t.Helper()
	if len(all) != 1 {
		t.Fatalf("there are %d packages", len(all))
	}
	for key := range all {
		return key
	}
	return ""
}

func mustJSON(t *testing.T, value any) string {
	t.Helper()
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

func TestAJobsEndIsTheExitCode(t *testing.T) {
	t.Parallel()
	for status, code := range map[string]int{"SUCCEEDED": exitOK, "FAILED": exitJobFailed, "STOPPED": exitJobStopped} {
		for _, flag := range []string{"--follow", "--wait"} {
			s := newServer(t)
			newRay(t, s, status, "hello\n", "world\n")
			r := newShell(t, s.URL).run("job", "submit", "demo", flag, "--", "python job.py")
			r.has(t, code)
			if flag == "--follow" && r.out != "hello\nworld\n" {
				t.Errorf("standard output has %q", r.out)
			}
			if status == "FAILED" && !strings.Contains(r.err, "failed: exit code 3\n") {
				t.Errorf("the reason is missing: %q", r.err)
			}
		}
	}
}

func TestABrokenLogStreamIsTakenUpWhereItBroke(t *testing.T) {
	t.Parallel()
	for name, ended := range map[string]int{"while the job runs": 2, "and the job has ended": 1} { // after so many streams
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			ray := newRay(t, s, "RUNNING", "one\n", "two\n", "three\n")
			ray.breakAt = 2
			s.on("GET "+clusterPath+"/jobs", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ray.mu.Lock()
				if ray.streams == ended {
					ray.status = "SUCCEEDED"
				}
				ray.mu.Unlock()
				ray.list(w, r)
			}))
			r := newShell(t, s.URL).run("job", "logs", "demo", submitted, "--follow")
			r.has(t, exitOK)
			if r.out != "one\ntwo\nthree\n" {
				t.Errorf("standard output has %q", r.out)
			}
		})
	}
}

func TestTheLogsOfAJobWhoseStreamIsGoneAreCompleted(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ray := newRay(t, s, "SUCCEEDED", "one\n", "two\n", "three\n")
	ray.breakAt, ray.gone = 2, true
	s.on("GET "+clusterPath+"/jobs/"+submitted+"/logs", apiv1.JobLogs{Logs: "one\ntwo\nthree\n"})
	r := newShell(t, s.URL).run("job", "logs", "demo", submitted, "--follow")
	r.has(t, exitOK)
	if r.out != "one\ntwo\nthree\n" {
		t.Errorf("standard output has %q", r.out)
	}
}

func TestCtrlCLeavesTheJobRunning(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	newRay(t, s, "RUNNING", "hello\n")
	sh := newShell(t, s.URL)
	ctx, interrupt := context.WithCancel(t.Context())
	sh.ctx = ctx
	looks := 0
	s.on("GET "+clusterPath+"/jobs/"+submitted+"/logs/tail", problem(http.StatusNotFound, codeNotFound, "no"))
	s.on("POST "+clusterPath+"/ray-token", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if looks++; looks > 2 {
			interrupt()
		}
		answer(w, apiv1.RayToken{Token: "mrt_token", Env: map[string]string{"RAY_API_SERVER_ADDRESS": s.URL + clusterPath + "/ray"}})
	}))
	sh.run("job", "logs", "demo", "--follow").has(t, exitJobGoesOn, "the job goes on", "muster job stop")
	if len(s.made("POST "+clusterPath+"/jobs/"+submitted+"/stop")) > 0 {
		t.Error("the job was stopped")
	}
}

func TestFollowingAJobEndsInTime(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	newRay(t, s, "RUNNING", "hello\n")
	newShell(t, s.URL).run("job", "logs", "demo", "--follow", "--timeout", "30ms").has(t, exitTimeout, "after 30 ms the job is not done")
	newShell(t, s.URL).run("job", "submit", "demo", "--wait", "--timeout", "30ms", "--", "x").has(t, exitTimeout, "after 30 ms the job is not done")
}

func TestAJobThatIsNotThereHasItsExitCode(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sh := newShell(t, s.URL)
	sh.run("job", "logs", "demo", "nope").has(t, exitJobNotFound, `there is no job "nope"`)
	s.on("GET "+clusterPath+"/jobs", items[apiv1.Job]())
	sh.run("job", "logs", "demo").has(t, exitJobNotFound, "no job has run")
	sh.run("job", "stop", "demo", "nope").has(t, exitJobNotFound)
}

func TestRaysTracebacksAreNotShown(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	newRay(t, s, "RUNNING")
	s.on("POST "+clusterPath+"/ray/api/jobs/", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "Traceback (most recent call last):\n  File \"x\"\nRuntimeError: Request failed with status code 400: Traceback (most recent call last):\n"+
			"    raise ValueError(\nValueError: Job with submission_id a already exists.\n.\n")
	}))
	r := newShell(t, s.URL).run("job", "submit", "demo", "--name", "a", "--", "x")
	r.has(t, exitFailed, "Ray answered 500: Job with submission_id a already exists.")
	if strings.Contains(r.err, "Traceback") {
		t.Error(r.err)
	}
}

func TestAJobsCommandIsWanted(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sh := newShell(t, s.URL)
	for _, line := range [][]string{{"demo"}, {"--", "python", "job.py"}, {"demo", "other", "--", "python", "job.py"}} {
		sh.run(append([]string{"job", "submit"}, line...)...).has(t, exitUsage, "name one cluster, then the command after --")
	}
	sh.run("job", "submit", "demo", "--env", "MUSTER_TEST_NO_SUCH_VARIABLE", "--", "x").has(t, exitUsage, "there is no such variable here")
	sh.run("job", "submit", "demo", "--working-dir", filepath.Join(t.TempDir(), "nope"), "--", "x").has(t, exitFailed, "no such file")
}
