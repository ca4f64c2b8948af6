package rayproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	callTimeout = 10 * time.Second
	maxAnswer   = 8 << 20
	maxLogs     = 256 << 10 // of a job's logs that are shown: the end, in the bytes that Ray writes for them
	maxRefusal  = 500
)

// validJobID keeps a job's id from being a path: Ray makes ids like raysubmit_..., and takes others from its users.
var validJobID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$`)

// rayJob is Ray's own form of it.
type rayJob struct {
	SubmissionID string `json:"submission_id"`
	JobID        string `json:"job_id"`
	Status       string `json:"status"`
	Entrypoint   string `json:"entrypoint"`
	Message      string `json:"message"`
	StartTime    *int64 `json:"start_time"` // milliseconds
	EndTime      *int64 `json:"end_time"`
}

func (j rayJob) job() apiv1.Job {
	id := j.SubmissionID
	if id == "" {
		id = j.JobID // a driver that was started by hand
	}
	return apiv1.Job{ID: id, Status: j.Status, Entrypoint: j.Entrypoint, Message: j.Message, StartedAt: millis(j.StartTime), EndedAt: millis(j.EndTime)}
}

func millis(ms *int64) *time.Time {
	if ms == nil || *ms == 0 {
		return nil
	}
	t := time.UnixMilli(*ms).UTC()
	return &t
}

// Jobs lists a cluster's jobs, newest first.
func (p *Proxy) Jobs(ctx context.Context, org ids.Org, cluster ids.Cluster) ([]apiv1.Job, error) {
	var answer []rayJob
	if err := p.call(ctx, org, cluster, http.MethodGet, "/api/jobs/", into(&answer)); err != nil {
		var refused *refusal
		if errors.As(err, &refused) {
			return nil, refused.stated()
		}
		return nil, err
	}
	jobs := make([]apiv1.Job, len(answer))
	for i, j := range answer {
		jobs[i] = j.job()
	}
	slices.SortFunc(jobs, func(a, b apiv1.Job) int { return started(b).Compare(started(a)) })
	return jobs, nil
}

func started(j apiv1.Job) time.Time {
	if j.StartedAt == nil {
		return time.Time{}
	}
	return *j.StartedAt
}

// Job returns one job.
func (p *Proxy) Job(ctx context.Context, org ids.Org, cluster ids.Cluster, id string) (apiv1.Job, error) {
	var answer rayJob
	err := p.callJob(ctx, org, cluster, http.MethodGet, id, "", into(&answer))
	return answer.job(), err
}

// JobLogs returns the end of what a job has printed, and whether there was more.
func (p *Proxy) JobLogs(ctx context.Context, org ids.Org, cluster ids.Cluster, id string) (apiv1.JobLogs, error) {
	end := &tail{limit: maxLogs}
	if err := p.callJob(ctx, org, cluster, http.MethodGet, id, "/logs", func(body io.Reader) error {
		_, err := io.Copy(end, body)
		return err
	}); err != nil {
		return apiv1.JobLogs{}, err
	}
	var answer struct {
		Logs string `json:"logs"`
	}
	if err := json.Unmarshal(end.document(), &answer); err != nil {
		return apiv1.JobLogs{}, fmt.Errorf("read a job's logs: %w", err)
	}
	return apiv1.JobLogs{Logs: strings.ToValidUTF8(answer.Logs, ""), Truncated: end.cut}, nil
}

// logsKey is how Ray's answer begins.
const logsKey = `{"logs": "`

// tail keeps the end of Ray's answer {"logs": "..."}, which may be of any size. What is left of the text begins with a whole
// character, not in the middle of an escape.
type tail struct {
	limit   int
	kept    []byte
	cut     bool
	dropped int
	escaped bool // the last byte dropped was a backslash that belongs to the first one kept
}

// Write implements io.Writer.
func (t *tail) Write(data []byte) (int, error) {
	t.kept = append(t.kept, data...)
	if len(t.kept) > 2*t.limit {
		t.drop(len(t.kept) - t.limit)
	}
	return len(data), nil
}

func (t *tail) drop(n int) {
	for _, b := range t.kept[:n] {
		t.escaped = b == '\\' && !t.escaped
	}
	t.kept, t.cut, t.dropped = append(t.kept[:0], t.kept[n:]...), true, t.dropped+n
}

// document is the answer with what is left of its text.
func (t *tail) document() []byte {
	if len(t.kept) > t.limit {
		t.drop(len(t.kept) - t.limit)
	}
	if !t.cut {
		return t.kept
	}
	if t.dropped < len(logsKey) { // what is kept begins with the rest of it
		t.drop(len(logsKey) - t.dropped)
	}
	if t.escaped {
		t.drop(1)
	}
	return append([]byte(logsKey), t.kept...)
}

// StopJob asks a job to stop and returns it.
func (p *Proxy) StopJob(ctx context.Context, org ids.Org, cluster ids.Cluster, id string) (apiv1.Job, error) {
	if err := p.callJob(ctx, org, cluster, http.MethodPost, id, "/stop", func(io.Reader) error { return nil }); err != nil {
		return apiv1.Job{}, err
	}
	return p.Job(ctx, org, cluster, id)
}

func (p *Proxy) callJob(ctx context.Context, org ids.Org, cluster ids.Cluster, method, id, action string, read func(io.Reader) error) error {
	if !validJobID.MatchString(id) {
		return errs.New(errs.NotFound, "there is no job %q", id)
	}
	err := p.call(ctx, org, cluster, method, "/api/jobs/"+url.PathEscape(id)+action, read)
	var refused *refusal
	switch {
	case !errors.As(err, &refused):
		return err
	case refused.status == http.StatusNotFound:
		return errs.New(errs.NotFound, "there is no job %s on cluster %s", id, cluster)
	default:
		return refused.stated()
	}
}

// refusal is an answer of Ray's that is no success.
type refusal struct {
	status int
	text   string
}

// Error implements error.
func (r *refusal) Error() string { return fmt.Sprintf("Ray answered %d: %s", r.status, r.text) }

// stated is what whoever asked us is told: Ray names what a request gets wrong in a line, and its own faults in a stack trace
// that is not for them.
func (r *refusal) stated() error {
	if r.status < http.StatusInternalServerError {
		return errs.New(errs.Conflict, "Ray refuses: %s", strings.TrimSpace(r.text))
	}
	return errs.New(errs.Unavailable, "The cluster's Ray head answered with an error: try again in a few seconds.")
}

// into reads a whole answer of a bounded size.
func into(answer any) func(io.Reader) error {
	return func(body io.Reader) error {
		document, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
		if err != nil {
			return err
		}
		if len(document) > maxAnswer {
			return errs.New(errs.TooLarge, "Ray's answer is larger than %d MiB: ask Ray itself, with `muster cluster env`", maxAnswer>>20)
		}
		return json.Unmarshal(document, answer)
	}
}

// call makes one request to a cluster's Ray for the API itself.
func (p *Proxy) call(ctx context.Context, org ids.Org, cluster ids.Cluster, method, path string, read func(io.Reader) error) error {
	target, err := p.lookup(ctx, org, cluster)
	if err != nil {
		return err
	}
	leave, err := p.running.enter(cluster)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+target.authority()+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+target.token)
	response, err := p.transport.RoundTrip(request)
	if err != nil {
		p.options.Log.WarnContext(ctx, "Ray not reached", "cluster_id", cluster, "error", err)
		return errUnreachable
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode >= http.StatusBadRequest {
		text, _ := io.ReadAll(io.LimitReader(response.Body, maxRefusal))
		p.options.Log.WarnContext(ctx, "Ray refused", "cluster_id", cluster, "path", path, "status", response.StatusCode, "text", string(text))
		return &refusal{status: response.StatusCode, text: strings.ToValidUTF8(string(text), "")}
	}
	if err := read(response.Body); err != nil {
		var stated *errs.Error
		if errors.As(err, &stated) {
			return err
		}
		p.options.Log.WarnContext(ctx, "Ray's answer not read", "cluster_id", cluster, "path", path, "error", err)
		return errs.New(errs.Unavailable, "The cluster's Ray head broke off or answered with nonsense: try again in a few seconds.")
	}
	return nil
}
