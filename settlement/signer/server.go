package signer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

const (
	requestTimeout  = 30 * time.Second
	shutdownTimeout = 5 * time.Second
	maxHeaderBytes  = 8 << 10
	sharedMode      = 0o666
)

// Options says where the signer's files are.
type Options struct {
	Socket     string // unix socket to serve on
	KeyFile    string // made by Init
	Passphrase string // of the key file; empty if it is not encrypted
	JournalDir string // of the signer alone, with its log; losing it means that nothing more is signed until a person has set it right
	PolicyFile string

	RemoteKeyFile string // says where the treasury's key is if it is not in the key file; see RemoteKey
	AllowUsers    []int  // user ids that may ask besides the signer's own

	Log   *slog.Logger
	Ready func()           // called once requests are served; may be nil
	Now   func() time.Time // nil means time.Now; the caps per day count by it
}

// ErrNotConfined means that the kernel cannot confine the signer to its own files.
var ErrNotConfined = errors.New("the signer cannot be confined to its own files")

// Serve runs the signer until ctx ends. Only one process can serve a journal.
func Serve(ctx context.Context, options Options) error {
	handler, journal, err := load(ctx, options)
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(journal.close(), handler.audit.close()) }()
	listener, err := listen(ctx, options.Socket, options.AllowUsers)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: handler, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout, IdleTimeout: time.Minute,
		MaxHeaderBytes: maxHeaderBytes, ConnContext: withUser, ErrorLog: slog.NewLogLogger(options.Log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	options.Log.InfoContext(ctx, "signer ready", "treasury", handler.vault.keys.treasury.Address(), "batches_signed", len(journal.batches))
	if options.Ready != nil {
		options.Ready()
	}
	select {
	case err := <-served:
		return fmt.Errorf("serve signer: %w", err)
	case <-ctx.Done():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(stopCtx); err != nil {
		return fmt.Errorf("stop signer: %w", err)
	}
	return nil
}

func load(ctx context.Context, options Options) (*handler, *journal, error) {
	loaded, err := loadKeys(ctx, options)
	if err != nil {
		return nil, nil, err
	}
	policy, err := readPolicy(options.PolicyFile)
	if err != nil {
		return nil, nil, err
	}
	now := options.Now
	if now == nil {
		now = time.Now
	}
	opened, err := openJournal(options.JournalDir, now(), compactAboveBytes)
	if err != nil {
		return nil, nil, err
	}
	v, err := newVault(loaded, policy, opened, now)
	if err != nil {
		_ = opened.close()
		return nil, nil, err
	}
	audit, err := openLog(options.JournalDir, now)
	if err != nil {
		_ = opened.close()
		return nil, nil, err
	}
	return &handler{vault: v, audit: audit, log: options.Log}, opened, nil
}

// listen replaces a socket that a killed signer left behind; the journal's lock shows that no other signer is alive.
func listen(ctx context.Context, path string, users []int) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is not a socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("replace the signer's socket: %w", err)
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on the signer's socket: %w", err)
	}
	mode := os.FileMode(privateMode)
	if len(users) > 0 {
		mode = sharedMode // the kernel names each peer's user, and only those that are meant stay connected
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("protect the signer's socket: %w", err)
	}
	return &guardedListener{Listener: listener, users: append(slices.Clone(users), os.Getuid())}, nil
}

// guardedListener closes connections of users that are not meant to ask.
type guardedListener struct {
	net.Listener
	users []int
}

// peer is a connection whose user is known.
type peer struct {
	net.Conn
	user int
}

// Accept implements net.Listener.
func (l *guardedListener) Accept() (net.Conn, error) {
	for {
		connection, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if user, err := peerUser(connection); err == nil && slices.Contains(l.users, user) {
			return &peer{connection, user}, nil
		}
		_ = connection.Close()
	}
}

type userKey struct{}

// withUser remembers whose connection it is.
func withUser(ctx context.Context, connection net.Conn) context.Context {
	if known, ok := connection.(*peer); ok {
		return context.WithValue(ctx, userKey{}, known.user)
	}
	return ctx
}

func userOf(ctx context.Context) int {
	if user, known := ctx.Value(userKey{}).(int); known {
		return user
	}
	return -1
}

type handler struct {
	vault *vault
	audit *auditLog
	log   *slog.Logger
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	org, deposit := strings.CutPrefix(r.URL.Path, pathDeposit)
	switch {
	case r.Method == http.MethodGet && r.URL.Path == pathAddresses:
		policy := h.vault.policy
		reply(w, http.StatusOK, Addresses{
			Treasury: h.vault.keys.treasury.Address(), TreasuryTokenAccount: h.vault.source, Mint: policy.Mint,
			TokenProgram: policy.TokenProgram, Decimals: policy.Decimals, Nonces: policy.Nonces, MaxPriorityFee: policy.MaxPriorityFee,
			MaxPayoutsPerBatch: policy.MaxPayoutsPerBatch, MaxBaseUnitsPerBatch: policy.MaxBaseUnitsPerBatch,
			MaxBaseUnitsPerSweep: policy.MaxBaseUnitsPerSweep,
			LookupTable:          policy.firstTable(),
		})
	case r.Method == http.MethodGet && deposit:
		h.deposit(w, org)
	case r.Method == http.MethodPost && r.URL.Path == pathSign:
		h.sign(w, r)
	default:
		reply(w, http.StatusNotFound, failure{"the signer knows no such request"})
	}
}

func (h *handler) deposit(w http.ResponseWriter, text string) {
	var org ids.Org
	if err := org.UnmarshalText([]byte(text)); err != nil || org.IsZero() {
		reply(w, http.StatusBadRequest, failure{"a deposit address needs an organisation id"})
		return
	}
	reply(w, http.StatusOK, depositResponse{Address: h.vault.keys.deposit(org)})
}

func (h *handler) sign(w http.ResponseWriter, r *http.Request) {
	var request signRequest
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&request)
	if n := len(request.Requests); err == nil && (n == 0 || n > maxRequests) {
		err = fmt.Errorf("a call has 1 to %d requests, this has %d", maxRequests, n)
	}
	if err != nil {
		h.unreadable(w, r, err)
		return
	}
	answers, err := h.vault.sign(r.Context(), request.Requests)
	if logErr := h.audit.append(h.lines(r.Context(), request.Requests, answers, err)); err == nil {
		err = logErr // without its line no signature leaves
	}
	if err != nil {
		h.log.ErrorContext(r.Context(), "cannot sign", "requests", len(request.Requests), "error", err)
		reply(w, http.StatusInternalServerError, failure{"the signer cannot write its journal or its log, or cannot reach its key"})
		return
	}
	for i, answer := range answers {
		h.report(r.Context(), &request.Requests[i], answer)
	}
	reply(w, http.StatusOK, signResponse{Answers: answers})
}

func (h *handler) unreadable(w http.ResponseWriter, r *http.Request, err error) {
	line := logged{User: userOf(r.Context()), Kind: "unreadable", Outcome: outcomeRefused, Reason: err.Error()}
	if err := h.audit.append([]logged{line}); err != nil {
		h.log.ErrorContext(r.Context(), "cannot write the signer's log", "error", err)
	}
	reply(w, http.StatusBadRequest, failure{"the request is not what the signer reads: " + err.Error()})
}

// lines are what the log keeps of a call.
func (h *handler) lines(ctx context.Context, requests []request, answers []Answer, failed error) []logged {
	lines := make([]logged, len(requests))
	for i := range requests {
		line := logged{User: userOf(ctx), Kind: requests[i].kind(), ID: requests[i].id(), Outcome: outcomeSigned}
		line.Request, _ = requests[i].hash() // failed is set if it could not be hashed
		switch {
		case failed != nil:
			line.Outcome, line.Reason = outcomeFailed, failed.Error()
		case answers[i].Refusal != nil:
			line.Outcome, line.Rule, line.Reason = outcomeRefused, answers[i].Refusal.Rule, answers[i].Refusal.Message
		default:
			line.Signatures = answers[i].Signatures
		}
		lines[i] = line
	}
	return lines
}

func (h *handler) report(ctx context.Context, r *request, answer Answer) {
	log := h.log.With("kind", r.kind())
	if id := r.id(); id != "" {
		log = log.With("batch_id", id)
	}
	if answer.Refusal != nil {
		log.WarnContext(ctx, "refused", "rule", answer.Refusal.Rule, "reason", answer.Refusal.Message)
		return
	}
	log.InfoContext(ctx, "signed", "signature", answer.Signatures[0])
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the peer has gone: it will ask again
}
