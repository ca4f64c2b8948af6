package simfleet_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/lifecycle"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/simfleet"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

const (
	patience  = 2 * time.Minute
	heartbeat = 500 * time.Millisecond
	lostAfter = 3 * time.Second
)

func TestMain(m *testing.M) { testkit.Main(m) }

// bundle is a gateway over a database, and the organisations that simulated hosts belong to.
type bundle struct {
	testing.TB
	pool     *pgxpool.Pool
	tokens   *fleet.Tokens
	registry *fleet.Registry
	gateway  *fleet.Gateway
	orgs     map[int]ids.Org
}

type openUnsealer struct{}

func (openUnsealer) Unseal([]byte) (string, error) { return "token", nil }

// serve makes a bundle whose gateway runs until the test ends.
func serve(t testing.TB, pool *pgxpool.Pool) *bundle {
	t.Helper()
	authority, err := fleet.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{TB: t, pool: pool, tokens: fleet.NewTokens(pool, authority), registry: fleet.NewRegistry(pool, money.Currency{Symbol: "USDC", Decimals: 6}, "2.60.0"), orgs: map[int]ids.Org{}}
	b.addOrg(simfleet.Platform, "Platform", true)
	for i, name := range simfleet.Owners {
		b.addOrg(i, name, false)
	}
	log := slog.New(slog.DiscardHandler)
	hub := pgnotify.New(pool, log)
	b.gateway, err = fleet.NewGateway(fleet.Options{
		Pool: pool, Authority: authority, Unsealer: openUnsealer{}, Notifications: hub, Address: "127.0.0.1:0", AllowSimulated: true,
		HeartbeatInterval: heartbeat, LostAfter: lostAfter, FlushInterval: 50 * time.Millisecond, PollInterval: 500 * time.Millisecond,
		Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.run(hub.Run)
	b.run(b.gateway.Run)
	return b
}

// run runs a part until the test ends; the parts end in the reverse order of their start. It returns when the part is ready.
func (b *bundle) run(part lifecycle.Func) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() { done <- part(ctx, func() { once.Do(func() { close(ready) }) }) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Errorf("a part failed: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		b.Fatalf("a part did not start: %v", err)
	case <-time.After(patience):
		b.Fatal("a part did not start in time")
	}
}

func (b *bundle) addOrg(index int, name string, platform bool) {
	b.Helper()
	org := ids.New[ids.Org]()
	b.exec(`INSERT INTO organisations (id, name, platform) VALUES ($1, $2, $3)`, org, name, platform)
	b.orgs[index] = org
}

// JoinToken implements simfleet.Joiner.
func (b *bundle) JoinToken(ctx context.Context, host simfleet.Host) (string, error) {
	_, text, err := b.tokens.Create(ctx, b.orgs[host.Owner], ids.User{}, host.Kind, host.Region, host.Site)
	return text, err
}

// play runs a fleet until the test ends, from the moment that its first hosts have connected.
func (b *bundle) play(options simfleet.Options) *simfleet.Fleet {
	b.Helper()
	options.Address, options.Joiner, options.RayVersions = b.gateway.Addr(), b, []string{"2.60.0"}
	played, err := simfleet.New(options)
	if err != nil {
		b.Fatal(err)
	}
	b.run(played.Run)
	return played
}

func (b *bundle) exec(sql string, arguments ...any) {
	b.Helper()
	if _, err := b.pool.Exec(context.Background(), sql, arguments...); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
}

// count runs a query for one number.
func (b *bundle) count(sql string) (n int) {
	b.Helper()
	if err := b.pool.QueryRow(context.Background(), sql).Scan(&n); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
	return n
}

// eventually waits until a query gives a number.
func (b *bundle) eventually(want int, sql string) {
	b.Helper()
	testkit.Eventually(b, patience, func() (bool, string) {
		got := b.count(sql)
		return got == want, fmt.Sprintf("%s: %d, not %d", sql, got, want)
	})
}

// allIdle waits until a number of hosts are connected and idle.
func (b *bundle) allIdle(want int) {
	b.Helper()
	testkit.Eventually(b, patience, func() (bool, string) {
		if b.count(`SELECT count(*) FROM hosts WHERE connected AND state = 'idle' AND simulated AND failing_gate = ''`) == want {
			return true, ""
		}
		var others []string
		if err := b.pool.QueryRow(context.Background(), `SELECT array_agg(DISTINCT state || ' ' || state_reason || ' connected ' || connected || ' ' || failing_gate)
			FROM hosts WHERE NOT (connected AND state = 'idle' AND failing_gate = '')`).Scan(&others); err != nil {
			b.Fatal(err)
		}
		return false, strings.Join(others, "; ")
	})
}

// within runs a part of a test whose fleets end with it.
func (b *bundle) within(body func(inner *bundle)) {
	b.Helper()
	inner := *b
	var cleanups []func()
	inner.TB = scope{TB: b.TB, cleanups: &cleanups}
	defer func() {
		for i := len(cleanups) - 1; i >= 0; i-- {
			cleanups[i]()
		}
	}()
	body(&inner)
}

// scope is a test with an end of its own.
type scope struct {
	testing.TB
	cleanups *[]func()
}

// Cleanup implements testing.TB.
func (s scope) Cleanup(f func()) { *s.cleanups = append(*s.cleanups, f) }

// SetAsk implements simfleet.Keeper.
func (b *bundle) SetAsk(ctx context.Context, _ simfleet.Host, id ids.Host, ask simfleet.Ask) error {
	_, err := b.pool.Exec(ctx, `UPDATE asks SET price_per_gpu_hour = $2 WHERE host_id = $1`, id, ask.Price)
	return err
}

// Recheck implements simfleet.Keeper.
func (b *bundle) Recheck(ctx context.Context, host simfleet.Host, id ids.Host) error {
	return b.registry.Recheck(ctx, b.orgs[host.Owner], id)
}

// asker hands on what owners ask.
type asker struct {
	*bundle
	asked chan<- simfleet.Ask
}

// SetAsk implements simfleet.Keeper.
func (a asker) SetAsk(_ context.Context, _ simfleet.Host, _ ids.Host, ask simfleet.Ask) error {
	a.asked <- ask
	return nil
}
