package chain

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gagliardetto/solana-go/rpc"
	"github.com/prometheus/client_golang/prometheus"
)

// When an endpoint is left alone for a while.
const (
	unhealthyAfter = 3 // failures in a row
	firstRest      = time.Second
	maxRest        = 30 * time.Second
)

// endpoint is one provider's interface.
type endpoint struct {
	name         string // its place in the configuration: URLs hold credentials
	rpc          *rpc.Client
	websocketURL string
	health       *health
}

// parseEndpoint says what is wrong without repeating the URL.
func parseEndpoint(text string) (*url.URL, error) {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
		return nil, errors.New("the Solana RPC endpoint must be an http or https URL")
	}
	return parsed, nil
}

func newEndpoints(config Config, failures *prometheus.CounterVec) ([]*endpoint, error) {
	urls := config.URLs
	if len(urls) == 0 {
		urls = []string{config.URL}
	}
	attempts := maxAttempts
	if len(urls) > 1 {
		attempts = maxAttemptsOfSeveral
	}
	endpoints := make([]*endpoint, len(urls))
	for i, text := range urls {
		parsed, err := parseEndpoint(text)
		if err != nil {
			return nil, err
		}
		if slices.Contains(urls[:i], text) {
			return nil, fmt.Errorf("the Solana RPC endpoint %d is one of those before it: name different providers, which can be compared", i+1)
		}
		socket := websocketURL(*parsed)
		if i == 0 && config.WebsocketURL != "" {
			socket = config.WebsocketURL
		}
		state := &health{}
		endpoints[i] = &endpoint{
			name: strconv.Itoa(i + 1), websocketURL: socket, health: state,
			rpc: rpc.NewWithCustomRPCClient(newCaller(text, config, attempts, state, failures)),
		}
	}
	return endpoints, nil
}

// health remembers how an endpoint did lately. One that fails again and again is asked after the others, not never.
type health struct {
	mu       sync.Mutex
	failures int // in a row
	rest     time.Duration
	until    time.Time
}

func (h *health) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil || !failsOver(err) {
		h.failures, h.rest, h.until = 0, 0, time.Time{}
		return
	}
	h.failures++
	if h.failures >= unhealthyAfter {
		h.rest = min(max(2*h.rest, firstRest), maxRest)
		h.until = time.Now().Add(h.rest)
	}
}

func (h *health) restsUntil() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Now().After(h.until) {
		return time.Time{}
	}
	return h.until
}

// failsOver reports whether another endpoint may do better.
func failsOver(err error) bool { return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrBehind) }

// ranked are the endpoints in the order in which to ask: as configured, those that rest last.
func (c *Client) ranked() []*endpoint {
	type place struct {
		*endpoint
		until time.Time
	}
	places := make([]place, len(c.endpoints))
	for i, e := range c.endpoints {
		places[i] = place{e, e.health.restsUntil()}
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(unixOrZero(a.until), unixOrZero(b.until)) })
	ranked := make([]*endpoint, len(places))
	for i, p := range places {
		ranked[i] = p.endpoint
	}
	return ranked
}

func unixOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
