package rayproxy_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/api/rayproxy"
	"github.com/muster-gpu/muster/internal/errs"
)

func rayJobs(logs string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+rayToken {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		switch r.Method + " " + r.URL.Path {
		case "GET /api/jobs/":
			_, _ = w.Write([]byte(`[{"submission_id":"raysubmit_1","status":"SUCCEEDED","entrypoint":"a","start_time":1000,"end_time":2000,"type":"SUBMISSION"},
				{"submission_id":null,"job_id":"02000000","status":"RUNNING","entrypoint":"b","start_time":3000,"end_time":0,"type":"DRIVER"}]`))
		case "GET /api/jobs/raysubmit_1":
			_, _ = w.Write([]byte(`{"submission_id":"raysubmit_1","status":"STOPPED","entrypoint":"a"}`))
		case "GET /api/jobs/raysubmit_1/logs":
			_ = json.NewEncoder(w).Encode(map[string]string{"logs": logs})
		case "POST /api/jobs/raysubmit_1/stop":
			_, _ = w.Write([]byte(`{"stopped": true}`))
		case "POST /api/jobs/02000000/stop":
			http.Error(w, "Can only stop submission type jobs", http.StatusBadRequest)
		case "POST /api/jobs/broken/stop":
			http.Error(w, "Traceback (most recent call last):", http.StatusInternalServerError)
		default:
			http.NotFound(w, r)
		}
	}
}

func TestJobsOfACluster(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a line with \"quotes\", \\ and é\n", 400_000) // 12 MB, and more once it is escaped
	b := newBench(t, options{ray: rayJobs(long)})
	jobs, err := b.proxy.Jobs(t.Context(), b.Customer, b.cluster)
	fatal(t, err)
	if len(jobs) != 2 || jobs[0].ID != "02000000" || jobs[0].EndedAt != nil || jobs[1].ID != "raysubmit_1" || jobs[1].EndedAt.UnixMilli() != 2000 {
		t.Errorf("jobs %+v", jobs)
	}
	logs, err := b.proxy.JobLogs(t.Context(), b.Customer, b.cluster, "raysubmit_1")
	fatal(t, err)
	if !logs.Truncated || len(logs.Logs) < 100_000 || !strings.HasSuffix(long, logs.Logs) {
		t.Errorf("%d bytes of logs, truncated %v, beginning %.60q", len(logs.Logs), logs.Truncated, logs.Logs)
	}
	stopped, err := b.proxy.StopJob(t.Context(), b.Customer, b.cluster, "raysubmit_1")
	if err != nil || stopped.Status != "STOPPED" {
		t.Errorf("stop: %+v %v", stopped, err)
	}
	for id, want := range map[string]errs.Code{
		"02000000": errs.Conflict, "raysubmit_gone": errs.NotFound, "broken": errs.Unavailable, "..": errs.NotFound, "a/b": errs.NotFound, "": errs.NotFound,
	} {
		_, err := b.proxy.StopJob(t.Context(), b.Customer, b.cluster, id)
		if errs.CodeOf(err) != want || strings.Contains(err.Error(), "Traceback") {
			t.Errorf("stop %q: %v, want %s", id, err, want)
		}
	}
}

func TestTheTailOfLogsIsWholeCharacters(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOf(rapid.SampledFrom([]rune{'a', '"', '\\', '\n', 'é', '😀', '\u0001', '<'})).Draw(t, "text")
		limit := rapid.IntRange(16, 64).Draw(t, "limit")
		answer, err := json.Marshal(map[string]string{"logs": text})
		if err != nil {
			t.Fatal(err)
		}
		var chunks [][]byte
		for rest := answer; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
			chunks, rest = append(chunks, rest[:n]), rest[n:]
		}
		document, cut := rayproxy.Tail(limit, chunks...)
		var got struct {
			Logs string `json:"logs"`
		}
		if err := json.Unmarshal(document, &got); err != nil {
			t.Fatalf("%s: %v", document, err)
		}
		if cut != (len(answer) > limit) {
			t.Fatalf("cut is %v at %d of %d bytes", cut, limit, len(answer))
		}
		end := strings.TrimLeft(strings.ToValidUTF8(got.Logs, ""), "\ufffd0123456789abcdefu")
		if !strings.HasSuffix(text, end) || !utf8.ValidString(end) {
			t.Fatalf("%q is not the end of %q", got.Logs, text)
		}
		if !cut && got.Logs != text {
			t.Fatalf("%q, want all of %q", got.Logs, text)
		}
	})
}
