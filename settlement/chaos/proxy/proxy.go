package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gagliardetto/solana-go"
)

const (
	maxBody        = 32 << 20
	forwardTimeout = 30 * time.Second
	headerTimeout  = 10 * time.Second
	closeTimeout   = 10 * time.Second
)

// Proxy is a server on a port of its own. Make it with Start.
type Proxy struct {
	target string
	seed   uint64
	client *http.Client
	server *http.Server
	url    string

	closing context.Context // ends held calls and deliveries at Close
	close   context.CancelFunc
	served  chan error
	held    sync.WaitGroup // deliveries; added to under mu, and not after close

	mu       sync.Mutex
	rules    []Rule
	used     []int // by rule
	calls    map[string]int
	injected map[Fault]int
	lag      uint64
	seen     map[string][]recording
}

// Start begins to serve an endpoint's calls on a free port of this machine.
func Start(target string, seed uint64) (*Proxy, error) {
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the proxy: %w", err)
	}
	closing, cancel := context.WithCancel(context.Background())
	p := &Proxy{
		target: target, seed: seed, client: &http.Client{Timeout: forwardTimeout, Transport: &http.Transport{}},
		url: "http://" + listener.Addr().String(), closing: closing, close: cancel, served: make(chan error, 1),
		calls: map[string]int{}, injected: map[Fault]int{}, seen: map[string][]recording{},
	}
	p.server = &http.Server{Handler: http.HandlerFunc(p.serve), ReadHeaderTimeout: headerTimeout}
	go func() { p.served <- p.server.Serve(listener) }()
	return p, nil
}

// URL is where it listens.
func (p *Proxy) URL() string { return p.url }

// Close ends what hangs, drops what has not been delivered yet, and waits for both.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.close()
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := p.server.Shutdown(ctx)
	if served := <-p.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	p.held.Wait()
	p.client.CloseIdleConnections()
	return err
}

// Use replaces the rules. The first rule that befalls a call decides.
func (p *Proxy) Use(rules ...Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules, p.used = rules, make([]int, len(rules))
}

// Lag makes the proxy answer as a provider that is so many slots behind; 0 ends that. What it has not seen so long ago it does not
// answer at all, as a node that is starting.
func (p *Proxy) Lag(slots uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lag = slots
}

// Calls is how many calls of a method came.
func (p *Proxy) Calls(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[method]
}

// Injected is how many calls a fault has befallen.
func (p *Proxy) Injected(fault Fault) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.injected[fault]
}

// call is a JSON-RPC request.
type call struct {
	ID     json.RawMessage   `json:"id"`
	Method string            `json:"method"`
	Params []json.RawMessage `json:"params"`
	body   []byte
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	c := call{body: body}
	if err == nil {
		err = json.Unmarshal(body, &c)
	}
	if err != nil {
		http.Error(w, "a single JSON-RPC request is expected", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	rule := p.decide(c.Method)
	if c.Method == methodSend {
		p.send(w, r, c, rule)
		return
	}
	p.read(w, r, c, rule)
}

// decide picks the rule for the next call of a method; the zero rule is none.
func (p *Proxy) decide(method string) Rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	number := p.calls[method]
	p.calls[method]++
	for i, rule := range p.rules {
		if !rule.befalls(method) || (rule.Limit > 0 && p.used[i] >= rule.Limit) {
			continue
		}
		if rule.Chance > 0 && chance(p.seed, method, number, i) >= rule.Chance {
			continue
		}
		p.used[i]++
		p.injected[rule.Fault]++
		return rule
	}
	return Rule{}
}

// send handles what changes the chain.
func (p *Proxy) send(w http.ResponseWriter, r *http.Request, c call, rule Rule) {
	switch rule.Fault {
	case Reject:
		refuse(w, c, -32002, "Transaction simulation failed: Blockhash not found")
	case Swallow:
		p.pretend(w, c)
	case Late:
		delay := rule.Delay
		if delay <= 0 {
			delay = defaultLate
		}
		p.later(c, delay)
		p.pretend(w, c)
	case Duplicate:
		for range duplicates - 1 {
			_, _ = p.forward(r.Context(), c.body) // the last one's answer is the caller's
		}
		p.pass(w, r, c, Rule{})
	default:
		p.pass(w, r, c, rule)
	}
}

// pretend answers a transaction as if it had been taken: with its signature.
func (p *Proxy) pretend(w http.ResponseWriter, c call) {
	signature, err := signatureOf(c)
	if err != nil {
		refuse(w, c, -32602, err.Error())
		return
	}
	result(w, c, signature.String())
}

// later forwards a transaction after a while, unless the proxy is closed before.
func (p *Proxy) later(c call, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing.Err() != nil {
		return
	}
	p.held.Add(1)
	go func() {
		defer p.held.Done()
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
			_, _ = p.forward(p.closing, c.body) // nobody waits for the answer
		case <-p.closing.Done():
		}
	}()
}

func signatureOf(c call) (solana.Signature, error) {
	var text string
	if len(c.Params) == 0 || json.Unmarshal(c.Params[0], &text) != nil {
		return solana.Signature{}, errors.New("sendTransaction without a transaction")
	}
	transaction, err := solana.TransactionFromBase64(text)
	if err != nil || len(transaction.Signatures) == 0 {
		return solana.Signature{}, errors.New("the transaction cannot be decoded")
	}
	return transaction.Signatures[0], nil
}

// read handles everything else: lies and lag change the answer, the rest is the same as for a sending.
func (p *Proxy) read(w http.ResponseWriter, r *http.Request, c call, rule Rule) {
	switch rule.Fault {
	case Prune, WrongBalance, WrongNonce:
		answer, err := p.answer(r.Context(), c)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = w.Write(lie(rule.Fault, c.Method, answer))
	default:
		p.pass(w, r, c, rule)
	}
}

// pass forwards a call, but for what a fault of the transport does to it.
func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, c call, rule Rule) {
	switch rule.Fault {
	case Drop:
		panic(http.ErrAbortHandler)
	case Busy:
		w.Header().Set("Retry-After", strconv.Itoa(int(rule.Delay.Seconds())))
		http.Error(w, "too many requests", http.StatusTooManyRequests)
		return
	case Gateway:
		http.Error(w, "<html>bad gateway</html>", http.StatusBadGateway)
		return
	case Unhealthy:
		refuse(w, c, -32005, "Node is behind by 42 slots")
		return
	case Behind:
		refuse(w, c, -32016, "Minimum context slot has not been reached")
		return
	case Unsupported:
		refuse(w, c, -32015, "Transaction version (2) is not supported by the requesting client")
		return
	default: // the others need the answer
	}
	answer, err := p.answer(r.Context(), c)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	switch rule.Fault {
	case LoseAnswer:
		panic(http.ErrAbortHandler)
	case Timeout:
		select {
		case <-r.Context().Done():
		case <-p.closing.Done():
		}
		panic(http.ErrAbortHandler)
	case CutBody:
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = w.Write(answer[:len(answer)/2])
		panic(http.ErrAbortHandler)
	case Malformed:
		answer = answer[:len(answer)/2]
	default: // no fault, or one that the callers have dealt with
	}
	_, _ = w.Write(answer)
}

// forward brings a request to the chain.
func (p *Proxy) forward(ctx context.Context, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := p.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	return answer, nil
}

func refuse(w http.ResponseWriter, c call, code int, message string) {
	reply(w, c, "error", map[string]any{"code": code, "message": message})
}

func result(w http.ResponseWriter, c call, value any) { reply(w, c, "result", value) }

func reply(w http.ResponseWriter, c call, member string, value any) {
	_, _ = w.Write(document(c, member, value)) // the caller may have gone
}

func document(c call, member string, value any) []byte {
	text, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": c.ID, member: value})
	if err != nil {
		panic(err) // it was made of JSON
	}
	return text
}
