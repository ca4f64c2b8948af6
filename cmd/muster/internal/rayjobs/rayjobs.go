// Package rayjobs runs jobs on a cluster through Ray's own job API, as Ray's job client does: the working directory goes up as a
// zip named by its content, the job names it in its runtime environment, and what it prints comes back over a websocket.
//
// A Client holds one cluster's address and a short-lived token of it. It is safe for concurrent use.
package rayjobs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	apiv1 "github.com/muster-gpu/muster/api/v1"
)

const (
	callTimeout    = 30 * time.Second
	uploadTimeout  = 10 * time.Minute
	maxAnswer      = 8 << 20
	maxLogMessage  = 16 << 20
	shownErrorText = 2000
)

// Client calls one cluster's Ray.
type Client struct {
	address string
	token   string
	http    *http.Client
}

// New makes a client for Ray at address, such as https://muster.example/v1/clusters/cl_.../ray.
func New(address, token string, transport http.RoundTripper) *Client {
	return &Client{address: strings.TrimSuffix(address, "/"), token: token, http: &http.Client{Transport: transport}}
}

// Submission is a job to run.
type Submission struct {
	Entrypoint        string            `json:"entrypoint"`
	SubmissionID      string            `json:"submission_id,omitempty"`
	RuntimeEnv        RuntimeEnv        `json:"runtime_env"`
	Metadata          map[string]string `json:"metadata,omitempty"`
	EntrypointNumGPUs float64           `json:"entrypoint_num_gpus,omitempty"`
	EntrypointNumCPUs float64           `json:"entrypoint_num_cpus,omitempty"`
}

// RuntimeEnv is the part of Ray's runtime environment that is set from here.
type RuntimeEnv struct {
	WorkingDir string            `json:"working_dir,omitempty"`
	Pip        []string          `json:"pip,omitempty"`
	EnvVars    map[string]string `json:"env_vars,omitempty"`
}

// Job is what Ray tells of a job.
type Job struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// Ended reports whether the job will not change any more.
func (j Job) Ended() bool { return Ended(j.Status) }

// Ended reports whether a job of this status will not change any more.
func Ended(status string) bool {
	return status == "SUCCEEDED" || status == "FAILED" || status == "STOPPED"
}

// Error is a refusal by Ray, or by what stands before it.
type Error struct {
	Status int
	Text   string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("Ray answered %d: %s", e.Status, e.Text) }

// Upload sends a package, unless the cluster has it already.
func (c *Client) Upload(ctx context.Context, p *Package) (sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	path := "/api/packages/gcs/" + p.Name
	err = c.call(ctx, http.MethodGet, path, "", nil, nil)
	var refused *Error
	if err == nil || !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
		return false, err
	}
	return true, c.call(ctx, http.MethodPut, path, "application/octet-stream", bytes.NewReader(p.Zip), nil)
}

// Submit starts a job and returns its id.
func (c *Client) Submit(ctx context.Context, s Submission) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encode the job: %w", err)
	}
	var answer struct {
		SubmissionID string `json:"submission_id"`
	}
	if err := c.call(ctx, http.MethodPost, "/api/jobs/", "application/json", bytes.NewReader(body), &answer); err != nil {
		return "", err
	}
	return answer.SubmissionID, nil
}

// Job returns a job.
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var job Job
	err := c.call(ctx, http.MethodGet, "/api/jobs/"+id, "", nil, &job)
	return job, err
}

func (c *Client) call(ctx context.Context, method, path, contentType string, body io.Reader, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.address+path, body)
	if err != nil {
		return err
	}
	request.Header = c.header()
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("cannot reach the cluster's Ray: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read Ray's answer: %w", err)
	}
	if response.StatusCode >= http.StatusBadRequest {
		return refusal(response.StatusCode, content)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(content, answer); err != nil {
		return fmt.Errorf("read Ray's answer: %w", err)
	}
	return nil
}

func (c *Client) header() http.Header { return http.Header{"Authorization": {"Bearer " + c.token}} }

// refusal takes the text of Muster's problem documents and of Ray's plain answers alike.
func refusal(status int, content []byte) error {
	var problem apiv1.Problem
	if json.Unmarshal(content, &problem) == nil && problem.Detail != "" {
		return &Error{Status: status, Text: problem.Detail}
	}
	return &Error{Status: status, Text: withoutTraceback(strings.TrimSpace(string(content)))}
}

// withoutTraceback takes what people want to know from a Python traceback: the text of the innermost exception.
func withoutTraceback(text string) string {
	if strings.HasPrefix(text, "Traceback ") {
		for line := range strings.SplitSeq(text, "\n") {
			if kind, message, found := strings.Cut(line, "Error: "); found && !strings.ContainsAny(kind, " \"") && !strings.Contains(message, "Traceback ") {
				return message
			}
		}
	}
	return text[:min(len(text), shownErrorText)]
}

// Follow writes what a job prints to out as it comes, without the first skip bytes, and returns how much the job has printed
// by then. It ends without error when Ray closes the stream, which it does when the job ends; a broken stream can be followed
// again with what was returned as skip.
func (c *Client) Follow(ctx context.Context, id string, out io.Writer, skip int64) (int64, error) {
	dialer := websocket.Dialer{Proxy: http.ProxyFromEnvironment, HandshakeTimeout: callTimeout}
	connection, response, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(c.address, "http")+"/api/jobs/"+id+"/logs/tail", c.header())
	if response != nil && response.Body != nil {
		defer func() { _ = response.Body.Close() }()
	}
	if err != nil {
		if response != nil {
			content, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
			return skip, refusal(response.StatusCode, content)
		}
		return skip, fmt.Errorf("cannot reach the cluster's Ray: %w", err)
	}
	defer func() { _ = connection.Close() }()
	defer context.AfterFunc(ctx, func() { _ = connection.Close() })()
	connection.SetReadLimit(maxLogMessage)
	seen := int64(0)
	for {
		_, message, err := connection.ReadMessage()
		switch {
		case ctx.Err() != nil:
			return max(seen, skip), ctx.Err()
		case websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway):
			return max(seen, skip), nil
		case err != nil:
			return max(seen, skip), fmt.Errorf("the log stream broke: %w", err)
		}
		begin := min(max(skip-seen, 0), int64(len(message)))
		seen += int64(len(message))
		if _, err := out.Write(message[begin:]); err != nil {
			return max(seen, skip), fmt.Errorf("write the logs: %w", err)
		}
	}
}
