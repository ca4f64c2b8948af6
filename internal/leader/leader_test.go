package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	role     = "test"
	patience = 30 * time.Second
)

// candidate makes an elector that is quick to try and to renew. Its lead does not expire while a test lasts: what hands it over
// sooner is something else.
func candidate(pool *pgxpool.Pool, name string) *Elector {
	e := New(pool, role, name, slog.New(slog.DiscardHandler))
	e.lifetime, e.renewInterval, e.campaignPeriod = time.Hour, 50*time.Millisecond, 20*time.Millisecond
	return e
}

// shortLived is a candidate whose lead expires soon, but lasts on a slow machine.
func shortLived(pool *pgxpool.Pool, name string) *Elector {
	e := candidate(pool, name)
	e.lifetime, e.queryTimeout = 2*time.Second, time.Second
	return e
}

// run runs an elector until the returned function is called, which waits for its end. The test's end calls it too.
func run(t *testing.T, e *Elector, lead func(ctx context.Context, term int64) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx, func() {}, lead) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run returned %v", err)
			}
		case <-time.After(patience):
			t.Errorf("Run did not return")
		}
	})
	t.Cleanup(stop)
	return stop
}

// waiting is a lead that tells its term and waits for its end.
func waiting(terms chan<- int64) func(ctx context.Context, term int64) error {
	return func(ctx context.Context, term int64) error {
		select {
		case terms <- term:
		case <-ctx.Done():
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

func receive[T any](t *testing.T, from <-chan T, what string) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(patience):
		t.Fatalf("%s did not happen", what)
	}
	return value
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func assertLeader(ctx context.Context, db interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, term int64,
) error {
	_, err := db.Exec(ctx, "SELECT assert_leader($1, $2)", role, term)
	return err
}

func TestOneOfManyLeadsAndACleanStopHandsOver(t *testing.T) {
	t.Parallel()
	pool := testkit.DB(t)
	type win struct {
		candidate int
		term      int64
	}
	wins := make(chan win)
	var leading atomic.Int32
	const candidates = 5
	stops := make([]func(), candidates)
	for i := range candidates {
		stops[i] = run(t, candidate(pool, fmt.Sprint(i)), func(ctx context.Context, term int64) error {
			if n := leading.Add(1); n != 1 {
				t.Errorf("%d lead at once", n)
			}
			defer leading.Add(-1)
			select {
			case wins <- win{i, term}:
			case <-ctx.Done():
			}
			<-ctx.Done()
			return nil
		})
	}
	for term := int64(1); term <= candidates; term++ {
		won := receive(t, wins, "a win")
		if won.term != term {
			t.Errorf("term %d was won, want %d", won.term, term)
		}
		stops[won.candidate]()
	}
}

func TestTakeoverAfterExpiry(t *testing.T) {
	t.Parallel()
	pool := testkit.DB(t)
	exec(t, pool, `INSERT INTO leadership VALUES ($1, 'one that died', 7, clock_timestamp() + interval '300 milliseconds')`, role)
	if err := assertLeader(t.Context(), pool, 7); err != nil {
		t.Fatalf("before it expires, the term is refused: %v", err)
	}
	terms := make(chan int64)
	run(t, candidate(pool, "heir"), waiting(terms))
	if term := receive(t, terms, "the takeover"); term != 8 {
		t.Fatalf("term %d was won, want 8", term)
	}
	if err := assertLeader(t.Context(), pool, 8); err != nil {
		t.Errorf("the new term is refused: %v", err)
	}
	if err := assertLeader(t.Context(), pool, 7); err == nil || !strings.Contains(err.Error(), "has passed") {
		t.Errorf("the old term's write gave %v", err)
	}
	var constraint *pgconn.PgError
	if err := assertLeader(t.Context(), pool, 7); !errors.As(err, &constraint) || constraint.ConstraintName != "leadership_term" {
		t.Errorf("the refusal cannot be recognised: %v", err)
	}
}

func TestATakeoverWaitsForTransactionsThatHaveAsserted(t *testing.T) {
	t.Parallel()
	pool := testkit.DB(t)
	exec(t, pool, `INSERT INTO leadership VALUES ($1, 'slow', 1, clock_timestamp() + interval '1 hour')`, role)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if err := assertLeader(t.Context(), tx, 1); err != nil {
		t.Fatal(err)
	}
	exec(t, pool, `UPDATE leadership SET expires_at = clock_timestamp()`)
	terms := make(chan int64, 1)
	run(t, candidate(pool, "heir"), waiting(terms))
	testkit.Eventually(t, patience, func() (bool, string) {
		var waiting int
		err := pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%leadership%'`).Scan(&waiting)
		return waiting == 1, fmt.Sprintf("%d takeovers wait, %v", waiting, err)
	})
	select {
	case term := <-terms:
		t.Fatalf("term %d was won while the old term's transaction was open", term)
	default:
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if term := receive(t, terms, "the takeover"); term != 2 {
		t.Errorf("term %d was won, want 2", term)
	}
}

func TestRenewalsDoNotWaitForTheLeadersOwnTransactions(t *testing.T) {
	t.Parallel()
	pool := testkit.DB(t)
	result := make(chan error, 1)
	run(t, candidate(pool, "busy"), func(ctx context.Context, term int64) error {
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if err := assertLeader(ctx, tx, term); err != nil {
				return err
			}
			return awaitRenewal(ctx, pool)
		})
		select {
		case result <- err:
		default:
		}
		<-ctx.Done()
		return nil
	})
	if err := receive(t, result, "a long transaction"); err != nil {
		t.Errorf("the lead was not renewed during a transaction of the leader: %v", err)
	}
}

// awaitRenewal returns when the lead has been renewed since it was called.
func awaitRenewal(ctx context.Context, pool *pgxpool.Pool) error {
	var first time.Time
	for {
		var expires time.Time
		if err := pool.QueryRow(ctx, `SELECT expires_at FROM leadership WHERE role = $1`, role).Scan(&expires); err != nil {
			return err
		}
		switch {
		case first.IsZero():
			first = expires
		case expires.After(first):
			return nil
		}
	}
}

func TestACleanStopGivesTheLeadBack(t *testing.T) {
	t.Parallel()
	pool := testkit.DB(t)
	terms := make(chan int64)
	stop := run(t, candidate(pool, "only"), waiting(terms))
	receive(t, terms, "the lead")
	stop()
	var free bool
	if err := pool.QueryRow(t.Context(), `SELECT expires_at <= clock_timestamp() FROM leadership`).Scan(&free); err != nil || !free {
		t.Errorf("after the stop the lead is free: %t, %v", free, err)
	}
}

func TestALeadThatEndsIsGivenBackAndCampaignedForAgain(t *testing.T) {
	t.Parallel()
	for name, outcome := range map[string]error{"with an error": errors.New("deposed"), "without one": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			terms := make(chan int64)
			run(t, candidate(testkit.DB(t), "only"), func(ctx context.Context, term int64) error {
				select {
				case terms <- term:
				case <-ctx.Done():
				}
				if term == 1 {
					return outcome
				}
				<-ctx.Done()
				return nil
			})
			for want := int64(1); want <= 2; want++ {
				if term := receive(t, terms, "the lead"); term != want {
					t.Errorf("term %d was won, want %d", term, want)
				}
			}
		})
	}
}

func TestARefusedRenewalEndsTheLead(t *testing.T) {
	t.Parallel()
	pool := testkit.DB(t)
	terms, ended := make(chan int64), make(chan struct{}, 1)
	run(t, candidate(pool, "robbed"), func(ctx context.Context, term int64) error {
		err := waiting(terms)(ctx, term)
		select {
		case ended <- struct{}{}:
		default:
		}
		return err
	})
	receive(t, terms, "the lead")
	exec(t, pool, `UPDATE leadership SET term = 5, holder = 'robber', expires_at = clock_timestamp() + interval '1 hour'`)
	receive(t, ended, "the lead's end")
	var holder string
	if err := pool.QueryRow(t.Context(), `SELECT holder FROM leadership WHERE expires_at > clock_timestamp()`).Scan(&holder); err != nil || holder != "robber" {
		t.Errorf("the loser changed the row: it is held by %q, %v", holder, err)
	}
}

// unreliable is a pool on which exec, if set, comes first and may fail a statement.
type unreliable struct {
	*pgxpool.Pool
	exec atomic.Pointer[func(ctx context.Context) error]
}

func (u *unreliable) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if before := u.exec.Load(); before != nil {
		if err := (*before)(ctx); err != nil {
			return pgconn.CommandTag{}, err
		}
	}
	return u.Pool.Exec(ctx, sql, args...)
}

func TestALeaderWhoseRenewalsFailStopsBeforeItsLeadExpires(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(ctx context.Context) error{
		"refused": func(context.Context) error { return errors.New("connection refused") },
		"hanging": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := testkit.DB(t)
			e := shortLived(pool, "unlucky")
			db := &unreliable{Pool: pool}
			e.db = db
			terms, ended := make(chan int64), make(chan struct{}, 1)
			run(t, e, func(ctx context.Context, term int64) error {
				err := waiting(terms)(ctx, term)
				if term == 1 {
					ended <- struct{}{}
				}
				return err
			})
			receive(t, terms, "the lead")
			db.exec.Store(&fault)
			began := time.Now()
			receive(t, ended, "the lead's end")
			if took := time.Since(began); took > 2*e.lifetime {
				t.Errorf("it led for %s without a renewal", took)
			}
			db.exec.Store(nil)
			if term := receive(t, terms, "a lead after the fault"); term != 2 {
				t.Errorf("term %d was won, want 2", term)
			}
		})
	}
}

// A process that is stopped and continued notices nothing of the time between: here its renewal hangs and heeds no timeout.
func TestALeaderThatWasPausedPastItsLeadCannotWrite(t *testing.T) {
	t.Parallel()
	pool := testkit.DB(t)
	e := shortLived(pool, "paused")
	db := &unreliable{Pool: pool}
	e.db = db
	oldTerms, newTerms := make(chan int64), make(chan int64)
	oldEnded := make(chan struct{})
	var end sync.Once
	run(t, e, func(ctx context.Context, term int64) error {
		err := waiting(oldTerms)(ctx, term)
		end.Do(func() { close(oldEnded) })
		return err
	})
	receive(t, oldTerms, "the first lead")
	paused, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	release := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(release)
	pause := func(ctx context.Context) error {
		once.Do(func() { close(paused) })
		<-goOn
		return ctx.Err()
	}
	db.exec.Store(&pause)
	receive(t, paused, "the pause")

	run(t, candidate(pool, "heir"), waiting(newTerms))
	if term := receive(t, newTerms, "the takeover"); term != 2 {
		t.Fatalf("term %d was won, want 2", term)
	}
	select {
	case <-oldEnded:
		t.Fatal("the paused leader already knows: the test shows nothing")
	default:
	}
	if err := assertLeader(t.Context(), pool, 1); err == nil {
		t.Error("the paused leader's write was accepted")
	}
	release()
	receive(t, oldEnded, "the old lead's end")
	if err := assertLeader(t.Context(), pool, 2); err != nil {
		t.Errorf("the old leader disturbed the new one: %v", err)
	}
}
