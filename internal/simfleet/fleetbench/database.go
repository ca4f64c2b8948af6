package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/pguuid"
	"github.com/muster-gpu/muster/migrations"
)

const (
	dropTimeout  = time.Minute
	tickSeconds  = 100 // of /proc's CPU times: USER_HZ, the same on every Linux that Go runs on
	statFields   = 22  // of /proc/PID/stat behind the name, as far as they are read
	statParent   = 1
	statUser     = 11
	statSystem   = 12
	statChildren = 13 // and the next: of children that have ended
)

// database is one of the benchmark's own.
type database struct {
	admin      string
	name       string
	url        string
	pool       *pgxpool.Pool
	postmaster int
}

func createDatabase(ctx context.Context, admin string) (*database, error) {
	u, err := url.Parse(admin)
	if err != nil || u.Host == "" {
		return nil, errors.New(urlVariable + " is not a postgres:// address")
	}
	d := &database{admin: admin, name: "fleetbench_" + strings.ToLower(rand.Text())}
	u.Path = "/" + d.name
	d.url = u.String()
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is in flight
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+d.name); err != nil {
		return nil, err
	}
	if err := migrations.Up(ctx, d.url); err != nil {
		return nil, errors.Join(err, d.drop())
	}
	if d.pool, err = pgxpool.New(ctx, d.url); err != nil {
		return nil, errors.Join(err, d.drop())
	}
	var backend int
	if err := d.pool.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&backend); err != nil {
		return nil, errors.Join(err, d.drop())
	}
	stat, err := readStat(backend)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("PostgreSQL must run on this machine, for its CPU time to be read: %w", err), d.drop())
	}
	d.postmaster = stat[statParent]
	return d, nil
}

// openPool makes a pool as the control plane's is.
func openPool(ctx context.Context, address string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, err
	}
	config.AfterConnect = pguuid.Register
	return pgxpool.NewWithConfig(ctx, config)
}

func (d *database) drop() error {
	if d.pool != nil {
		d.pool.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), dropTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.admin)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is in flight
	_, err = conn.Exec(ctx, "DROP DATABASE "+d.name+" WITH (FORCE)")
	return err
}

// cpu is the CPU time of all of the server's processes until now, ended ones included.
func (d *database) cpu() (time.Duration, error) {
	main, err := readStat(d.postmaster)
	if err != nil {
		return 0, err
	}
	ticks := main[statUser] + main[statSystem] + main[statChildren] + main[statChildren+1]
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, path := range processes {
		pid, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			continue
		}
		stat, err := readStat(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrProcessDone) {
			continue // it has just ended, and counts as its parent's
		}
		if err == nil && stat[statParent] == d.postmaster {
			ticks += stat[statUser] + stat[statSystem]
		}
	}
	return time.Duration(ticks) * time.Second / tickSeconds, nil
}

// readStat reads the numbers of /proc/PID/stat behind the process's name.
func readStat(pid int) ([]int, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	_, behind, found := strings.Cut(string(content), ") ")
	fields := strings.Fields(behind)
	if !found || len(fields) < statFields {
		return nil, fmt.Errorf("/proc/%d/stat is not understood", pid)
	}
	numbers := make([]int, statFields)
	for i, field := range fields[:statFields] {
		numbers[i], _ = strconv.Atoi(field) // the state is a letter
	}
	return numbers, nil
}
