// Command benchpg runs a command beside a PostgreSQL server of its own that waits for the disk, as a server in production
// does: benchmarks of what is durable need one, and the server that the tests share does not wait.
//
//	go run ./internal/embeddedpg/benchpg COMMAND [ARGUMENT...]
//
// It is run in the repository's root. The command finds the address of an empty database in MUSTER_BENCH_DATABASE_URL, as a
// superuser who may make more databases; migrations.Up makes the tables. The server has fsync, synchronous_commit and
// full_page_writes on, lies on a disk (a folder in memory is refused) and is gone with its data when the command ends.
// The exit status is the command's (behind `go run`, 1 for each failure).
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/embeddedpg"
)

const (
	urlVariable  = "MUSTER_BENCH_DATABASE_URL"
	database     = "bench"
	cacheDir     = ".cache"
	startTimeout = 10 * time.Minute // a cold start downloads the binaries
	stopGrace    = 20 * time.Second // of a command that was told to end
	tmpfsMagic   = 0x01021994
)

// durable are the settings without which a figure would say nothing about what survives a power cut.
var durable = map[string]string{"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}

// roomy keeps the server's defaults for small machines out of the figures.
var roomy = map[string]string{"max_connections": "300", "shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchpg:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) == 0 {
		return errors.New("usage: benchpg COMMAND [ARGUMENT...]")
	}
	if _, err := os.Stat("go.mod"); err != nil {
		return fmt.Errorf("run it in the repository's root: %w", err)
	}
	dir, err := diskDir(filepath.Join(cacheDir, "bench"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := start(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	if err := checkDurable(ctx, server.URL(database)); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // to run what the caller names is its purpose
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), urlVariable+"="+server.URL(database))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	return cmd.Run()
}

// diskDir makes a temporary folder below parent, and refuses one that lies in memory.
func diskDir(parent string) (string, error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(parent, &fs); err != nil {
		return "", fmt.Errorf("look at the file system of %s: %w", parent, err)
	}
	if fs.Type == tmpfsMagic {
		return "", fmt.Errorf("%s lies in memory, where waiting for the disk costs nothing: put the repository on a disk", parent)
	}
	return os.MkdirTemp(parent, "pg-")
}

func start(ctx context.Context, dir string) (*embeddedpg.Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	parameters := make(map[string]string, len(durable)+len(roomy))
	for _, settings := range []map[string]string{durable, roomy} {
		for name, value := range settings {
			parameters[name] = value
		}
	}
	server, err := embeddedpg.Start(ctx, embeddedpg.Options{
		DataDir: dir, BinariesDir: filepath.Join(cacheDir, "postgres"), Parameters: parameters,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return nil, err
	}
	if err := server.EnsureDatabase(ctx, database); err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	return server, nil
}

// checkDurable asks the server what it does rather than trusting what it was told.
func checkDurable(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("check the server's settings: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for name, want := range durable {
		var got string
		if err := conn.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&got); err != nil {
			return fmt.Errorf("check the server's settings: %w", err)
		}
		if got != want {
			return fmt.Errorf("the server has %s = %s, and a benchmark needs %s", name, got, want)
		}
	}
	return nil
}
