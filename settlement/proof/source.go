package proof

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

const (
	manifestsPath = "/v1/public/manifests"
	fileSuffix    = ".json"
	pageSize      = 200
	maxFiles      = 1_000_000
	maxAttempts   = 8 // of one request that a server is too busy for
	maxPause      = 10 * time.Second
	maxPages      = 100_000
)

// Directory is a source of files named after their batches: bat_....json.
type Directory string

// Manifest implements Source.
func (d Directory) Manifest(_ context.Context, batch ids.Batch) (*Published, error) {
	return d.read(batch.String() + fileSuffix)
}

// List implements Source.
func (d Directory) List(ctx context.Context, visit func(Summary) error) error {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return fmt.Errorf("read the manifests' directory: %w", err)
	}
	if len(entries) > maxFiles {
		return fmt.Errorf("the directory %s has more than %d files", d, maxFiles)
	}
	var summaries []Summary
	for _, entry := range entries {
		if entry.IsDir() || filepath.Ext(entry.Name()) != fileSuffix {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		published, err := d.read(entry.Name())
		if err != nil {
			return err
		}
		summaries = append(summaries, published.Summary())
	}
	slices.SortFunc(summaries, func(a, b Summary) int { return cmp.Compare(a.Sequence, b.Sequence) })
	for _, summary := range summaries {
		if err := visit(summary); err != nil {
			return err
		}
	}
	return nil
}

func (d Directory) read(name string) (*Published, error) {
	file, err := os.Open(filepath.Join(string(d), name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNoManifest
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	return decode(name, file)
}

func decode(name string, text io.Reader) (*Published, error) {
	content, err := io.ReadAll(io.LimitReader(text, MaxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", name, err)
	}
	if len(content) > MaxDocument {
		return nil, fmt.Errorf("manifest %s is larger than %d bytes", name, MaxDocument)
	}
	published := new(Published)
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(published); err != nil {
		return nil, fmt.Errorf("%s is not a manifest: %w", name, err)
	}
	return published, nil
}

// Server is a source of manifests that a Muster publishes.
type Server struct {
	base   string
	client *http.Client
}

// NewServer makes a source of a Muster's address, such as https://muster.example.
func NewServer(address string, client *http.Client) (*Server, error) {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
		return nil, fmt.Errorf("%q is not the address of a Muster, such as https://muster.example", address)
	}
	return &Server{base: strings.TrimSuffix(strings.TrimSuffix(address, "/"), manifestsPath) + manifestsPath, client: client}, nil
}

// Manifest implements Source.
func (s *Server) Manifest(ctx context.Context, batch ids.Batch) (*Published, error) {
	body, err := s.get(ctx, s.base+"/"+batch.String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	return decode(batch.String(), body)
}

// List implements Source.
func (s *Server) List(ctx context.Context, visit func(Summary) error) error {
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	for range maxPages {
		var page struct {
			Items      []Summary `json:"items"`
			NextCursor string    `json:"next_cursor"`
		}
		body, err := s.get(ctx, s.base+"?"+query.Encode())
		if err != nil {
			return err
		}
		err = json.NewDecoder(io.LimitReader(body, MaxDocument)).Decode(&page)
		_ = body.Close()
		if err != nil {
			return fmt.Errorf("read the list of manifests: %w", err)
		}
		for _, summary := range page.Items {
			if err := visit(summary); err != nil {
				return err
			}
		}
		if page.NextCursor == "" {
			return nil
		}
		query.Set("cursor", page.NextCursor)
	}
	return errors.New("the list of manifests does not end")
}

// get asks until the server is not too busy.
func (s *Server) get(ctx context.Context, address string) (io.ReadCloser, error) {
	for attempt := 1; ; attempt++ {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		response, err := s.client.Do(request)
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		switch response.StatusCode {
		case http.StatusOK:
			return response.Body, nil
		case http.StatusNotFound:
			_ = response.Body.Close()
			return nil, ErrNoManifest
		}
		_ = response.Body.Close()
		busy := response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable
		if !busy || attempt == maxAttempts {
			return nil, fmt.Errorf("read manifests: %s answers %s", request.URL.Host, response.Status)
		}
		if err := pause(ctx, response.Header.Get("Retry-After"), attempt); err != nil {
			return nil, err
		}
	}
}

// pause waits for as long as the server asked, or longer at each attempt.
func pause(ctx context.Context, retryAfter string, attempt int) error {
	wait := time.Duration(attempt) * time.Second
	if seconds, err := strconv.Atoi(retryAfter); err == nil {
		wait = time.Duration(seconds) * time.Second
	}
	timer := time.NewTimer(min(max(wait, 0), maxPause))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
