package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/fleet"
	"github.com/muster-gpu/muster/worker/agent"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// invoke runs a command line in this process.
func invoke(ctx context.Context, args ...string) (string, error) {
	root, out := rootCommand(), &bytes.Buffer{}
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(out)
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

type noSecrets struct{}

func (noSecrets) Unseal([]byte) (string, error) { return "", nil }

// startControlPlane runs a gateway until the test ends and returns its database, its address and a join token.
func startControlPlane(t *testing.T) (pool *pgxpool.Pool, address, token string) {
	t.Helper()
	pool = testkit.DB(t)
	authority, err := fleet.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	gateway, err := fleet.NewGateway(fleet.Options{
		Pool: pool, Authority: authority, Unsealer: noSecrets{}, Address: "127.0.0.1:0",
		Notifications: pgnotify.New(pool, slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- gateway.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-ready
	org := ids.New[ids.Org]()
	if _, err = pool.Exec(t.Context(), `INSERT INTO organisations (id, name) VALUES ($1, 'Owner')`, org); err != nil {
		t.Fatal(err)
	}
	_, token, err = fleet.NewTokens(pool, authority).Create(t.Context(), org, ids.User{}, fleet.KindGPU, "eu-west", "")
	if err != nil {
		t.Fatal(err)
	}
	return pool, gateway.Addr(), token
}

func TestJoinEnrolsOnceAndStatusShowsIt(t *testing.T) {
	t.Parallel()
	pool, address, token := startControlPlane(t)
	dir := filepath.Join(t.TempDir(), "state")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := invoke(ctx, "join", "--server", address, "--token", token, "--state-dir", dir, "--name", "ridge 2")
	if err != nil || !strings.Contains(out, "This machine is host host_") || !strings.Contains(out, "muster-worker run --state-dir "+dir) {
		t.Fatalf("%s, %v", out, err)
	}
	var name string
	if err = pool.QueryRow(ctx, `SELECT name FROM hosts`).Scan(&name); err != nil || name != "ridge 2" {
		t.Errorf("the host is called %q, %v", name, err)
	}
	again, err := invoke(ctx, "join", "--server", address, "--token", token, "--state-dir", dir)
	if err != nil || again != out {
		t.Errorf("joining again: %s, %v", again, err)
	}
	shown, err := invoke(ctx, "status", "--state-dir", dir)
	var status agent.Status
	if err != nil || json.Unmarshal([]byte(shown), &status) != nil {
		t.Fatalf("%s, %v", shown, err)
	}
	if !strings.Contains(out, status.HostID) || status.HostID == "" || status.Server != address || status.Running || status.CertificateExpiresAt == nil {
		t.Errorf("%+v", status)
	}
	if strings.Contains(shown, "key") {
		t.Errorf("the status shows the identity's secrets: %s", shown)
	}
	// The token is spent: another machine is refused, in words.
	_, err = invoke(ctx, "join", "--server", address, "--token", token, "--state-dir", filepath.Join(t.TempDir(), "other"))
	if errs.CodeOf(err) != errs.Conflict || !strings.Contains(err.Error(), "has been used") {
		t.Errorf("%v", err)
	}
}

func TestMistakesAreExplained(t *testing.T) {
	t.Parallel()
	enrolled := filepath.Join(t.TempDir(), "none")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"nothing to join":  {[]string{"join", "--state-dir", enrolled}, "give --server HOST:PORT and a join token"},
		"damaged token":    {[]string{"join", "--state-dir", enrolled, "--server", "127.0.0.1:1", "--token", "mjt_x"}, "damaged or incomplete"},
		"empty name":       {[]string{"join", "--state-dir", enrolled, "--name", ""}, "name is empty"},
		"long name":        {[]string{"run", "--state-dir", enrolled, "--name", strings.Repeat("é", 81)}, "has 81 characters"},
		"name of control":  {[]string{"run", "--state-dir", enrolled, "--name", "a\tb"}, "printable characters"},
		"padded name":      {[]string{"run", "--state-dir", enrolled, "--name", " a"}, `write "a"`},
		"no Ray":           {[]string{"run", "--state-dir", enrolled, "--ray-venv", enrolled}, "there is no Ray in"},
		"log level":        {[]string{"run", "--state-dir", enrolled, "--log-level", "loud"}, "not a log level"},
		"probe arguments":  {[]string{"probe", "--nonsense"}, "probe's arguments"},
		"unknown command":  {[]string{"dance"}, "unknown command"},
		"unknown argument": {[]string{"status", "now"}, "unknown command"},
	} {
		if _, err := invoke(t.Context(), c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestProbeAndVersion(t *testing.T) {
	t.Parallel()
	out, err := invoke(t.Context(), "probe", "--nvml-library", filepath.Join(t.TempDir(), "absent.so"))
	if err != nil || !json.Valid([]byte(out)) {
		t.Errorf("%s, %v", out, err)
	}
	if out, err = invoke(t.Context(), "version"); err != nil || strings.TrimSpace(out) == "" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestProberRemembersSimulation(t *testing.T) {
	t.Parallel()
	s := &settings{noGPUs: true, stateDir: t.TempDir()}
	p, err := s.newProber(slog.New(slog.DiscardHandler), "2.60.0")
	if err != nil {
		t.Fatal(err)
	}
	read := p.Inventory(t.Context())
	if read.GetCpus() == 0 || len(read.GetRayVersions()) != 1 || read.GetRuntime() != runtimeName || p.simulated.Load() {
		t.Errorf("%v", read)
	}
}
