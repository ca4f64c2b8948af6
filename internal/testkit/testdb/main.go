// Command testdb starts and stops the PostgreSQL server that the tests share. It outlives the command: `make testdb` leaves
// it running for the next test runs. Nothing in it is worth keeping, so it does not wait for the disk, and a data directory
// that does not start is made anew.
//
//	testdb start DIR BINARIES   print "started" or "running", write DIR/url
//	testdb stop DIR BINARIES    stop it, if it runs
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/embeddedpg"
)

const timeout = 10 * time.Minute // a cold start downloads the binaries

// parameters make the server fast and roomy; a crash of the machine may lose its data.
var parameters = map[string]string{
	"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
	"max_connections": "300", "shared_buffers": "256MB", "max_wal_size": "2GB",
	"autovacuum": "off", // it would connect to a template while that is copied
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testdb:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 3 {
		return errors.New("usage: testdb start|stop DIR BINARIES")
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	dir := args[1]
	opts := embeddedpg.Options{
		DataDir: filepath.Join(dir, "data"), BinariesDir: args[2], Parameters: parameters,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	switch args[0] {
	case "start":
		return start(ctx, dir, opts, out)
	case "stop":
		return stop(ctx, dir, opts)
	default:
		return fmt.Errorf("unknown command %q: start or stop", args[0])
	}
}

func start(ctx context.Context, dir string, opts embeddedpg.Options, out io.Writer) error {
	server, err := embeddedpg.Start(ctx, opts)
	if errors.Is(err, embeddedpg.ErrNoStart) {
		fmt.Fprintln(os.Stderr, "testdb: the data directory does not start and is made anew:", err)
		if err := os.RemoveAll(opts.DataDir); err != nil {
			return err
		}
		server, err = embeddedpg.Start(ctx, opts)
	}
	if err != nil {
		return err
	}
	state := "running"
	if !server.Adopted() {
		state = "started"
		if err := dropLeftovers(ctx, server.URL("postgres")); err != nil {
			return errors.Join(err, server.Stop())
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "url"), []byte(server.URL("postgres")+"\n"), 0o600); err != nil {
		return err
	}
	server.Release()
	_, err = fmt.Fprintln(out, state)
	return err
}

// stop adopts the server and stops it. Without one, nothing is started.
func stop(ctx context.Context, dir string, opts embeddedpg.Options) error {
	if err := os.Remove(filepath.Join(dir, "url")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(filepath.Join(opts.DataDir, "pgdata", "postmaster.pid")); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	server, err := embeddedpg.Start(ctx, opts)
	if err != nil {
		return err
	}
	return server.Stop()
}

// dropLeftovers removes the databases of tests that were killed, and the templates of schemas that have changed since.
func dropLeftovers(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("drop leftovers: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, "SELECT datname FROM pg_database WHERE starts_with(datname, 'muster_')")
	if err != nil {
		return fmt.Errorf("drop leftovers: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("drop leftovers: %w", err)
	}
	for _, name := range names {
		if _, err := conn.Exec(ctx, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)"); err != nil {
			return fmt.Errorf("drop leftovers: %w", err)
		}
	}
	return nil
}
