// Package benchkit is what the benchmarks that need a PostgreSQL server share: a database of their own, and what processes have used.
//
// The server's address is in the environment (Variable); internal/embeddedpg/benchpg starts one that waits for the disk and sets it. Times
// and memory are read from /proc, so server and benchmark run on one machine. Nothing here is for concurrent use.
package benchkit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/pguuid"
	"github.com/muster-gpu/muster/migrations"
)

// Variable names the environment variable with the server's address: that of a database whose user may make others.
const Variable = "MUSTER_BENCH_DATABASE_URL"

const dropTimeout = time.Minute

// Database is a database that is there for one benchmark.
type Database struct {
	Pool *pgxpool.Pool
	URL  string

	server string
	name   string
}

// NewDatabase makes a database with Muster's tables. Its name begins with prefix, its pool has so many connections. Drop it in the end.
func NewDatabase(ctx context.Context, prefix string, connections int32) (*Database, error) {
	d, err := NewBareDatabase(ctx, prefix, connections)
	if err != nil {
		return nil, err
	}
	if err := migrations.Up(ctx, d.URL); err != nil {
		return nil, errors.Join(err, d.Drop())
	}
	return d, nil
}

// NewBareDatabase is NewDatabase without any table.
func NewBareDatabase(ctx context.Context, prefix string, connections int32) (*Database, error) {
	server := os.Getenv(Variable)
	if server == "" {
		return nil, errors.New("set " + Variable + ", or run it under internal/embeddedpg/benchpg")
	}
	address, err := url.Parse(server)
	if err != nil || address.Host == "" {
		return nil, errors.New(Variable + " is not a postgres:// address")
	}
	d := &Database{server: server, name: prefix + "_" + strings.ToLower(rand.Text())}
	address.Path = "/" + d.name
	d.URL = address.String()
	if err := d.onServer(ctx, "CREATE DATABASE "+d.name); err != nil {
		return nil, fmt.Errorf("make a database: %w", err)
	}
	if d.Pool, err = OpenPool(ctx, d.URL, connections); err != nil {
		return nil, errors.Join(err, d.Drop())
	}
	return d, nil
}

// OpenPool opens a database that another process of the benchmark has made.
func OpenPool(ctx context.Context, address string, connections int32) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, err
	}
	config.MaxConns = connections
	config.AfterConnect = pguuid.Register // as in the control plane
	return pgxpool.NewWithConfig(ctx, config)
}

// Settle brings a database that has just been filled into the state of one that has run for a while: the planner knows what is in it, and
// the log has old segments to be written over, each of which would hold up a commit for 50 ms while it is made.
func Settle(ctx context.Context, pool *pgxpool.Pool) error {
	for _, statement := range []string{`VACUUM ANALYZE`, `CHECKPOINT`} {
		if _, err := pool.Exec(ctx, statement); err != nil {
			return fmt.Errorf("settle the database: %w", err)
		}
	}
	return nil
}

// Drop closes the pool and removes the database, whoever else is connected to it.
func (d *Database) Drop() error {
	if d.Pool != nil {
		d.Pool.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), dropTimeout)
	defer cancel()
	if err := d.onServer(ctx, "DROP DATABASE "+d.name+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop the benchmark's database: %w", err)
	}
	return nil
}

func (d *Database) onServer(ctx context.Context, sql string) (err error) {
	conn, err := pgx.Connect(ctx, d.server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	_, err = conn.Exec(ctx, sql)
	return err
}
