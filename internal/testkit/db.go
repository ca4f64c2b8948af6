package testkit

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/migrations"
)

const (
	urlVariable  = "MUSTER_TEST_DATABASE_URL"
	urlFile      = ".cache/testdb/url"
	adminTimeout = 2 * time.Minute // the template's making included, and the wait for another package that makes it
	maxPoolConns = 16              // of the test server's 300, shared by the packages that run at once
	templateLock = 7_283_001       // the advisory lock under which a template is made
)

// databasePrefix begins the name of every database that a test makes.
const databasePrefix = "muster_test_"

// DB makes a database with all migrations applied, and a pool on it. Both go when the test ends.
func DB(t testing.TB) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(DatabaseURL(t))
	if err != nil {
		t.Fatalf("test database: %v", err)
	}
	config.MaxConns = maxPoolConns
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		t.Fatalf("test database: %v", err)
	}
	t.Cleanup(pool.Close) // before the database is dropped: cleanups run last first
	return pool
}

// DatabaseURL makes a database with all migrations applied and returns its address. It goes when the test ends, whoever is
// still connected.
func DatabaseURL(t testing.TB) string {
	t.Helper()
	server, err := serverURL()
	if err != nil {
		t.Fatal(err)
	}
	name := databasePrefix + strings.ToLower(rand.Text())
	if err := createDatabase(server, name); err != nil {
		t.Fatalf("test database: %v", err)
	}
	t.Cleanup(func() {
		if err := dropDatabase(server, name); err != nil {
			t.Errorf("test database: %v", err)
		}
	})
	address, err := withDatabase(server, name)
	if err != nil {
		t.Fatalf("test database: %v", err)
	}
	return address
}

// serverURL is the address of the test server's maintenance database.
func serverURL() (string, error) {
	if address := os.Getenv(urlVariable); address != "" {
		return address, nil
	}
	root, err := RepositoryRoot()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(filepath.Join(root, urlFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("this test needs PostgreSQL: run `make testdb`, or set %s", urlVariable)
	}
	if err != nil {
		return "", fmt.Errorf("read the test server's address: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// RepositoryRoot is the folder with go.mod above the working directory.
func RepositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("there is no go.mod above the working directory")
		}
		dir = parent
	}
}

func createDatabase(server, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	conn, err := connectAdmin(ctx, server)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	template, err := ensureTemplate(ctx, conn, server)
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	return nil
}

func dropDatabase(server, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	conn, err := connectAdmin(ctx, server)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop %s: %w", name, err)
	}
	return nil
}

func connectAdmin(ctx context.Context, server string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return nil, fmt.Errorf("the test server does not answer, run `make testdb`: %w", err)
	}
	return conn, nil
}

// ensureTemplate returns the database that has just the migrations of this source tree, and makes it if it is missing. An
// advisory lock lets one of the packages that run at once make it; a crash half-way leaves nothing under the template's name.
func ensureTemplate(ctx context.Context, conn *pgx.Conn, server string) (string, error) {
	hash, err := migrationsHash(migrations.FS)
	if err != nil {
		return "", err
	}
	name := "muster_template_" + hash
	if exists, err := databaseExists(ctx, conn, name); err != nil || exists {
		return name, err
	}
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", templateLock); err != nil {
		return "", fmt.Errorf("wait for the template: %w", err)
	}
	defer func() { _, _ = conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", templateLock) }()
	if exists, err := databaseExists(ctx, conn, name); err != nil || exists {
		return name, err
	}
	return name, makeTemplate(ctx, conn, server, name)
}

func makeTemplate(ctx context.Context, conn *pgx.Conn, server, name string) error {
	draft := name + "_draft"
	for _, sql := range []string{"DROP DATABASE IF EXISTS " + draft + " WITH (FORCE)", "CREATE DATABASE " + draft} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make the template: %w", err)
		}
	}
	address, err := withDatabase(server, draft)
	if err != nil {
		return err
	}
	if err := migrations.Up(ctx, address); err != nil {
		return fmt.Errorf("make the template: %w", err)
	}
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+draft+" RENAME TO "+name); err != nil {
		return fmt.Errorf("make the template: %w", err)
	}
	return nil
}

func databaseExists(ctx context.Context, conn *pgx.Conn, name string) (exists bool, err error) {
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists)
	if err != nil {
		return false, fmt.Errorf("look for database %s: %w", name, err)
	}
	return exists, nil
}

// migrationsHash names the migrations' content.
func migrationsHash(fsys fs.FS) (string, error) {
	names, err := fs.Glob(fsys, "*.sql")
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, name := range names {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintf(h, "%s %d\n", name, len(data))
		_, _ = h.Write(data)
	}
	return fmt.Sprintf("%x", h.Sum(nil))[:16], nil
}

// withDatabase is the server's address with another database in it.
func withDatabase(server, name string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("%s is not a postgres:// address", urlVariable)
	}
	u.Path = "/" + name
	return u.String(), nil
}
