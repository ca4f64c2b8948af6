// Package client calls Muster's HTTP API: it adds the credentials, encodes and decodes the wire types of package apiv1, and
// turns problem documents into errors. It is what the CLI and the tour are built on, and imports nothing of the server.
//
// A Client is safe for concurrent use.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
)

const (
	timeout     = 30 * time.Second
	maxResponse = 16 << 20
	maxDownload = 256 << 20
)

// Client talks to one Muster with one API key. Make it with New.
type Client struct {
	base *url.URL
	key  string
	org  string
	http *http.Client
}

// Error is a problem document as an error. Its text is the document's detail, with the inputs that it names.
type Error struct{ apiv1.Problem }

// Error implements error.
func (e *Error) Error() string {
	text := e.Detail
	if text == "" {
		text = e.Title
	}
	for _, field := range e.Errors {
		if !strings.Contains(text, field.Message) {
			text += fmt.Sprintf("\n  %s: %s", field.Path, field.Message)
		}
	}
	return text
}

// CodeOf returns the code of a problem document in err's chain, or "".
func CodeOf(err error) string {
	var problem *Error
	if errors.As(err, &problem) {
		return problem.Code
	}
	return ""
}

// New makes a client for the API at base, such as "https://muster.example". key may be empty for what anyone may read; org may
// be empty for a key, which belongs to one organisation. A nil transport is Go's own.
func New(base, key, org string, transport http.RoundTripper) (*Client, error) {
	parsed, err := url.Parse(base)
	if err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
		return nil, fmt.Errorf("%q is not an address such as https://muster.example", base)
	}
	if transport == nil {
		transport = http.DefaultTransport
	}
	return &Client{base: parsed, key: key, org: org, http: &http.Client{Transport: transport, Timeout: timeout}}, nil
}

// Base is the API's address.
func (c *Client) Base() string { return c.base.String() }

// Get reads path into out.
func (c *Client) Get(ctx context.Context, path string, query url.Values, out any) error {
	return c.Do(ctx, http.MethodGet, path, query, nil, nil, out)
}

// Post sends in to path and reads the answer into out; either may be nil.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	return c.Do(ctx, http.MethodPost, path, nil, nil, in, out)
}

// Do makes one call and overwrites what out, a pointer, points to. A problem document comes back as *Error; a failure to reach the API names its address.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, header http.Header, in, out any) error {
	request, err := c.Request(ctx, method, path, query, in)
	if err != nil {
		return err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("cannot reach Muster at %s: %w", c.base, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxResponse+1))
	if err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	if len(body) > maxResponse {
		return fmt.Errorf("%s %s: the answer is longer than %d MiB", method, path, maxResponse>>20)
	}
	if response.StatusCode >= http.StatusBadRequest {
		return problem(response, body)
	}
	if out == nil || response.StatusCode == http.StatusNoContent {
		return nil
	}
	reflect.ValueOf(out).Elem().SetZero() // of an answer read before, what this one leaves out must not stay
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%s %s: the answer is not what this version expects: %w", method, path, err)
	}
	return nil
}

// Download copies the file at path to out. A problem document comes back as *Error, and nothing is written then.
func (c *Client) Download(ctx context.Context, path string, query url.Values, out io.Writer) error {
	request, err := c.Request(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("cannot reach Muster at %s: %w", c.base, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode >= http.StatusBadRequest {
		body, err := io.ReadAll(io.LimitReader(response.Body, maxResponse))
		if err != nil {
			return fmt.Errorf("GET %s: read the answer: %w", path, err)
		}
		return problem(response, body)
	}
	n, err := io.Copy(out, io.LimitReader(response.Body, maxDownload+1))
	if err != nil {
		return fmt.Errorf("GET %s: read the file: %w", path, err)
	}
	if n > maxDownload {
		return fmt.Errorf("GET %s: the file is longer than %d MiB", path, maxDownload>>20)
	}
	return nil
}

// Request makes an authenticated request, for callers that stream.
func (c *Client) Request(ctx context.Context, method, path string, query url.Values, in any) (*http.Request, error) {
	address := c.base.JoinPath(path)
	query = maps.Clone(query)
	if c.org != "" && !query.Has("org") {
		if query == nil {
			query = url.Values{}
		}
		query.Set("org", c.org)
	}
	address.RawQuery = query.Encode()
	var body io.Reader
	if in != nil {
		encoded, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, address.String(), body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		request.Header.Set("Authorization", "Bearer "+c.key)
	}
	return request, nil
}

func problem(response *http.Response, body []byte) error {
	e := &Error{}
	if json.Unmarshal(body, &e.Problem) != nil || e.Status == 0 {
		e.Problem = apiv1.Problem{
			Status: response.StatusCode, Title: http.StatusText(response.StatusCode), Code: "internal",
			Detail: fmt.Sprintf("%s answered %s, which is not an answer of Muster's API: is the address right?", response.Request.URL.Host, response.Status),
		}
	}
	return e
}
