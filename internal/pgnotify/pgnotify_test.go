package pgnotify_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const patience = 30 * time.Second

// start runs a hub until the test's end and returns once it listens.
func start(t *testing.T) (*pgxpool.Pool, *pgnotify.Hub) {
	t.Helper()
	pool := testkit.DB(t)
	hub := pgnotify.New(pool, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() { done <- hub.Run(ctx, func() { once.Do(func() { close(ready) }) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatal("the hub does not listen")
	}
	return pool, hub
}

func notify(t *testing.T, pool *pgxpool.Pool, channel, payload string) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), "SELECT pg_notify($1, $2)", channel, payload); err != nil {
		t.Fatal(err)
	}
}

// await reads until a payload comes; others before it, such as the wake-up of a new connection, are passed over.
func await(t *testing.T, stream <-chan string, payload string) {
	t.Helper()
	bound := time.After(patience)
	for {
		select {
		case got := <-stream:
			if got == payload {
				return
			}
		case <-bound:
			t.Fatalf("%q did not come", payload)
		}
	}
}

func TestANotificationReachesEverySubscriberOfItsChannelAlone(t *testing.T) {
	t.Parallel()
	pool, hub := start(t)
	one, endOne := hub.Subscribe(pgnotify.ChannelHost)
	defer endOne()
	two, endTwo := hub.Subscribe(pgnotify.ChannelHost)
	defer endTwo()
	other, endOther := hub.Subscribe(pgnotify.ChannelDecided)
	defer endOther()
	notify(t, pool, pgnotify.ChannelHost, "a host")
	await(t, one, "a host")
	await(t, two, "a host")
	notify(t, pool, pgnotify.ChannelDecided, "a booking")
	for {
		select {
		case got := <-other:
			if got == "a host" {
				t.Fatal("a subscriber got another channel's notification")
			}
			if got == "a booking" {
				return
			}
		case <-time.After(patience):
			t.Fatal("the booking did not come")
		}
	}
}

func TestEveryChannelIsListenedTo(t *testing.T) {
	t.Parallel()
	pool, hub := start(t)
	for _, channel := range []string{
		pgnotify.ChannelBookings, pgnotify.ChannelDecided, pgnotify.ChannelScheduler, pgnotify.ChannelHost,
		pgnotify.ChannelClusterEvents, pgnotify.ChannelSettlement,
	} {
		stream, end := hub.Subscribe(channel)
		notify(t, pool, channel, "to "+channel)
		await(t, stream, "to "+channel)
		end()
	}
}

func TestALostConnectionIsMadeAgainAndWakesEverybody(t *testing.T) {
	t.Parallel()
	pool, hub := start(t)
	one, endOne := hub.Subscribe(pgnotify.ChannelHost)
	defer endOne()
	two, endTwo := hub.Subscribe(pgnotify.ChannelSettlement)
	defer endTwo()
	notify(t, pool, pgnotify.ChannelHost, "before")
	await(t, one, "before") // so that the first connection's wake-up is behind
	for len(two) > 0 {
		<-two
	}
	var ended int
	if err := pool.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND query LIKE 'LISTEN%'`).Scan(&ended); err != nil || ended != 1 {
		t.Fatalf("%d connections listen, %v; want one", ended, err)
	}
	await(t, one, "")
	await(t, two, "")
	notify(t, pool, pgnotify.ChannelSettlement, "after")
	await(t, two, "after")
}

func TestASlowSubscriberMissesNotificationsAndHoldsUpNobody(t *testing.T) {
	t.Parallel()
	pool, hub := start(t)
	slow, endSlow := hub.Subscribe(pgnotify.ChannelHost)
	defer endSlow()
	quick, endQuick := hub.Subscribe(pgnotify.ChannelHost)
	defer endQuick()
	count := 2 * cap(slow)
	for i := range count {
		payload := fmt.Sprint(i)
		notify(t, pool, pgnotify.ChannelHost, payload)
		await(t, quick, payload)
	}
	defer func() {
		if pgnotify.Drain(slow); len(slow) != 0 {
			t.Errorf("%d notifications wait after draining", len(slow))
		}
	}()
	if len(slow) != cap(slow) {
		t.Errorf("the slow subscriber has %d notifications waiting, want its bound of %d", len(slow), cap(slow))
	}
}

func TestAfterUnsubscribingNothingMoreComes(t *testing.T) {
	t.Parallel()
	pool, hub := start(t)
	gone, unsubscribe := hub.Subscribe(pgnotify.ChannelHost)
	stays, end := hub.Subscribe(pgnotify.ChannelHost)
	defer end()
	unsubscribe()
	unsubscribe() // twice does no harm
	for len(gone) > 0 {
		<-gone
	}
	notify(t, pool, pgnotify.ChannelHost, "late")
	await(t, stays, "late")
	if len(gone) != 0 {
		t.Error("a notification came after the end of the subscription")
	}
}

func TestAHubWithoutADatabaseStopsWhenAsked(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig("postgres://nobody@127.0.0.1:1/none")
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- pgnotify.New(pool, slog.New(slog.DiscardHandler)).Run(ctx, func() { t.Error("it claims to listen") })
	}()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it does not stop")
	}
}
