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
	maxLogs     = 256 << 10 // of a job's logs that are shown: the end
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
	if err := p.call(ctx, org, cluster, http.MethodGet, "/api/jobs/", &answer); err != nil {
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
	err := p.callJob(ctx, org, cluster, http.MethodGet, id, "", &answer)
	return answer.job(), err
}

// JobLogs returns the end of what a job has printed, and whether there was more.
func (p *Proxy) JobLogs(ctx context.Context, org ids.Org, cluster ids.Cluster, id string) (apiv1.JobLogs, error) {
	var answer struct {
		Logs string `json:"logs"`
	}
	if err := p.callJob(ctx, org, cluster, http.MethodGet, id, "/logs", &answer); err != nil {
		return apiv1.JobLogs{}, err
	}
	if len(answer.Logs) > maxLogs {
		return apiv1.JobLogs{Logs: strings.ToValidUTF8(answer.Logs[len(answer.Logs)-maxLogs:], ""), Truncated: true}, nil
	}
	return apiv1.JobLogs{Logs: answer.Logs}, nil
}

// StopJob asks a job to stop and returns it.
func (p *Proxy) StopJob(ctx context.Context, org ids.Org, cluster ids.Cluster, id string) (apiv1.Job, error) {
	if err := p.callJob(ctx, org, cluster, http.MethodPost, id, "/stop", nil); err != nil {
		return apiv1.Job{}, err
	}
	return p.Job(ctx, org, cluster, id)
}

func (p *Proxy) callJob(ctx context.Context, org ids.Org, cluster ids.Cluster, method, id, action string, answer any) error {
	if !validJobID.MatchString(id) {
		return errs.New(errs.NotFound, "there is no job %q", id)
	}
	err := p.call(ctx, org, cluster, method, "/api/jobs/"+url.PathEscape(id)+action, answer)
	var failed *rayError
	if errors.As(err, &failed) && failed.status == http.StatusNotFound {
		return errs.New(errs.NotFound, "there is no job %s on cluster %s", id, cluster)
	}
	return err
}

// rayError is an answer of Ray's that is no success.
type rayError struct {
	status int
	text   string
}

func (e *rayError) Error() string { return fmt.Sprintf("Ray answered %d: %s", e.status, e.text) }

// call makes one request to a cluster's Ray for the API itself.
func (p *Proxy) call(ctx context.Context, org ids.Org, cluster ids.Cluster, method, path string, answer any) error {
	target, err := p.lookup(ctx, org, cluster)
	if err != nil {
		return err
	}
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
		return errs.New(errs.Unavailable, "The cluster's Ray head cannot be reached now: try again in a few seconds.")
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return errs.New(errs.Unavailable, "The cluster's Ray head broke off: try again in a few seconds.")
	}
	if response.StatusCode >= http.StatusBadRequest {
		return &rayError{status: response.StatusCode, text: string(body[:min(len(body), 500)])}
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("read Ray's answer: %w", err)
	}
	return nil
}
