package chain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gagliardetto/solana-go/rpc"
	"github.com/gagliardetto/solana-go/rpc/jsonrpc"
	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of every call.
const (
	DefaultTimeout = 15 * time.Second // one HTTP exchange

	maxResponseBytes = 32 << 20
	maxConnections   = 16
	maxAttempts      = 4
	// maxAttemptsOfSeveral is how often one of several endpoints is asked before another is.
	maxAttemptsOfSeveral = 2
	firstRetryDelay      = 100 * time.Millisecond
	maxRetryDelay        = 3 * time.Second

	// The retry budget: each call adds a share, each retry takes one, so that an endpoint in trouble sees at most 20 % more
	// calls than it would without retries.
	retryBudgetShare = 0.2
	retryBudgetMax   = 20.0
)

// writes are the methods that are never repeated here.
var writes = map[string]bool{"sendTransaction": true, "requestAirdrop": true}

// caller is the JSON-RPC transport under solana-go's client: it types errors, keeps to the endpoint's limits and repeats reads
// within the budget.
type caller struct {
	next     rpc.JSONRPCClient
	budget   *retryBudget
	pace     *pace
	health   *health
	attempts int

	failures *prometheus.CounterVec
}

func newCaller(endpoint string, config Config, attempts int, state *health, failures *prometheus.CounterVec) *caller {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxConnsPerHost: maxConnections, MaxIdleConnsPerHost: maxConnections,
		IdleConnTimeout: time.Minute, TLSHandshakeTimeout: config.Timeout, ForceAttemptHTTP2: true,
	}
	doer := &statusDoer{client: &http.Client{Timeout: config.Timeout, Transport: transport}}
	return &caller{
		next:   jsonrpc.NewClientWithOpts(endpoint, &jsonrpc.RPCClientOpts{HTTPClient: doer}),
		budget: &retryBudget{tokens: retryBudgetMax}, pace: newPace(config.RequestsPerSecond), health: state, attempts: attempts,
		failures: failures,
	}
}

// CallForInto implements rpc.JSONRPCClient.
func (c *caller) CallForInto(ctx context.Context, out any, method string, params []any) error {
	c.budget.earn()
	for attempt := 1; ; attempt++ {
		err := c.once(ctx, out, method, params)
		if err == nil || writes[method] || attempt >= c.attempts || !failsOver(err) || c.pace.isPaused() || !c.budget.spend() {
			return err
		}
		if !sleep(ctx, retryDelay(attempt)) {
			return err
		}
	}
}

// once makes one attempt, after as much waiting as the endpoint has asked for.
func (c *caller) once(ctx context.Context, out any, method string, params []any) error {
	if err := c.pace.wait(ctx); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	cut := new(atomic.Bool)
	err := c.next.CallForInto(context.WithValue(ctx, cutKey{}, cut), out, method, params)
	var busy *statusError
	if errors.As(err, &busy) {
		c.pace.pause(busy.retryAfter)
	}
	if err = typed(ctx, method, err); err != nil && cut.Load() {
		err = fmt.Errorf("%s: %w", method, ErrTooLong)
	}
	if kind := kindOf(err); kind != "" {
		c.failures.WithLabelValues(kind).Inc()
	}
	if ctx.Err() == nil { // a caller that has gone says nothing about the endpoint
		c.health.note(err)
	}
	return err
}

// CallWithCallback implements rpc.JSONRPCClient; nothing in this package uses it.
func (c *caller) CallWithCallback(ctx context.Context, method string, params []any,
	callback func(*http.Request, *http.Response) error,
) error {
	return typed(ctx, method, c.next.CallWithCallback(ctx, method, params, callback))
}

// CallBatch implements rpc.JSONRPCClient; nothing in this package uses it.
func (c *caller) CallBatch(ctx context.Context, requests jsonrpc.RPCRequests) (jsonrpc.RPCResponses, error) {
	responses, err := c.next.CallBatch(ctx, requests)
	return responses, typed(ctx, "batch", err)
}

// Close implements io.Closer, which rpc.Client.Close looks for.
func (c *caller) Close() error {
	if closer, ok := c.next.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

func retryDelay(attempt int) time.Duration {
	delay := firstRetryDelay << (attempt - 1)
	return min(delay/2+rand.N(delay), maxRetryDelay) //nolint:gosec // jitter needs no secrecy
}

func sleep(ctx context.Context, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

type retryBudget struct {
	mu     sync.Mutex
	tokens float64
}

func (b *retryBudget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(b.tokens+retryBudgetShare, retryBudgetMax)
}

func (b *retryBudget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// statusDoer turns "too many requests" and gateway errors into typed errors, keeping what the endpoint says about when to come
// back, and bounds the size of answers.
type statusDoer struct{ client *http.Client }

type statusError struct {
	status     int
	retryAfter time.Duration
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP status %d", e.status) }

// Do implements jsonrpc.HTTPClient.
func (d *statusDoer) Do(request *http.Request) (*http.Response, error) {
	response, err := d.client.Do(request) //nolint:gosec // the endpoint is the operator's configuration
	if err != nil {
		return nil, err
	}
	switch response.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		response.Body.Close()
		return nil, &statusError{status: response.StatusCode, retryAfter: retryAfter(response.Header.Get("Retry-After"))}
	}
	cut, _ := request.Context().Value(cutKey{}).(*atomic.Bool)
	response.Body = &boundedBody{ReadCloser: response.Body, left: maxResponseBytes, cut: cut}
	return response, nil
}

// retryAfter reads the header's two forms, seconds and a date; 0 is neither.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(header); err == nil {
		return time.Until(date)
	}
	return 0
}

// CloseIdleConnections implements jsonrpc.HTTPClient.
func (d *statusDoer) CloseIdleConnections() { d.client.CloseIdleConnections() }

// cutKey is where a call's context has the mark that its answer was cut off: the decoder keeps no reader's error.
type cutKey struct{}

// boundedBody ends after so many bytes, and marks that it did.
type boundedBody struct {
	io.ReadCloser
	left int
	cut  *atomic.Bool // nil: nobody asks
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		if b.cut != nil {
			b.cut.Store(true)
		}
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
