package testkit

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { Main(m) }

func TestDatabasesAreMigratedAndApart(t *testing.T) {
	t.Parallel()
	one, two := DB(t), DB(t)
	if _, err := one.Exec(t.Context(), "CREATE TABLE only_in_one (id int)"); err != nil {
		t.Fatal(err)
	}
	var migrated, leaked bool
	err := two.QueryRow(t.Context(), "SELECT to_regclass('organisations') IS NOT NULL, to_regclass('only_in_one') IS NOT NULL").
		Scan(&migrated, &leaked)
	if err != nil {
		t.Fatal(err)
	}
	if !migrated || leaked {
		t.Errorf("migrated = %v, sees the other database's table = %v", migrated, leaked)
	}
}

func TestDatabaseIsDroppedWithItsTest(t *testing.T) {
	t.Parallel()
	var address string
	t.Run("inner", func(t *testing.T) {
		address = DatabaseURL(t)
		conn, err := pgx.Connect(t.Context(), address) // left open on purpose
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	conn, err := pgx.Connect(t.Context(), address)
	if err == nil {
		_ = conn.Close(t.Context())
		t.Error("the database is still there")
	}
}

func TestTemplateIsMadeOnceByManyAtATime(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { DatabaseURL(t) })
	}
	wg.Wait()
}

func TestMissingServerSaysWhatToDo(t *testing.T) {
	t.Setenv(urlVariable, "postgres://nobody@127.0.0.1:1/none?connect_timeout=1")
	server, err := serverURL()
	if err != nil {
		t.Fatal(err)
	}
	if err := createDatabase(server, "x"); err == nil || !strings.Contains(err.Error(), "make testdb") {
		t.Errorf("err = %v, want one that names the command", err)
	}
	t.Setenv(urlVariable, "")
	t.Chdir(t.TempDir())
	if _, err := serverURL(); err == nil {
		t.Error("an address was found outside the repository")
	}
}

func TestMigrationsHashFollowsTheirContent(t *testing.T) {
	t.Parallel()
	hash := func(name, content string) string {
		h, err := migrationsHash(fstest.MapFS{name: {Data: []byte(content)}})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	base := hash("1.sql", "a")
	if base != hash("1.sql", "a") || base == hash("1.sql", "b") || base == hash("2.sql", "a") {
		t.Error("the hash does not follow name and content alone")
	}
}

// recorder is a test that keeps the message it failed with.
type recorder struct {
	testing.TB
	failure string
	cleanup func()
}

var errStopped = errors.New("stopped")

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failure = fmt.Sprintf(format, args...)
	panic(errStopped) // stands for Goexit
}

func (r *recorder) Errorf(format string, args ...any) { r.failure = fmt.Sprintf(format, args...) }

func (r *recorder) Error(args ...any) { r.failure = fmt.Sprint(args...) }

func (r *recorder) Cleanup(f func()) { r.cleanup = f }

func (r *recorder) run(f func()) {
	defer func() {
		if v := recover(); v != nil && v != any(errStopped) {
			panic(v)
		}
	}()
	f()
}

func TestEventuallyWaitsAndThenFails(t *testing.T) {
	t.Parallel()
	calls := 0
	Eventually(t, time.Minute, func() (bool, string) { calls++; return calls == 3, "" })
	r := &recorder{TB: t}
	r.run(func() { Eventually(r, pollInterval, func() (bool, string) { return false, "two of three" }) })
	if !strings.Contains(r.failure, "two of three") {
		t.Errorf("failure = %q, want the last state", r.failure)
	}
}

func TestSeedIsTheOneAskedFor(t *testing.T) {
	t.Setenv(seedVariable, "42")
	r := &recorder{TB: t}
	if got := Seed(r); got != 42 {
		t.Errorf("seed = %d, want 42", got)
	}
	t.Setenv(seedVariable, "forty-two")
	r = &recorder{TB: t}
	r.run(func() { Seed(r) })
	if !strings.Contains(r.failure, "forty-two") {
		t.Errorf("failure = %q, want it to name the value", r.failure)
	}
}

func TestLeakCheckNamesWhatStays(t *testing.T) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	r := &recorder{TB: t}
	LeakCheck(r)
	go func() { defer close(stopped); <-stop }()
	r.cleanup()
	if !strings.Contains(r.failure, "TestLeakCheckNamesWhatStays") {
		t.Errorf("failure = %q, want the goroutine that stays", r.failure)
	}
	close(stop)
	<-stopped
	r.failure = ""
	r.cleanup()
	if r.failure != "" {
		t.Errorf("failure = %q after the goroutine has ended", r.failure)
	}
}
