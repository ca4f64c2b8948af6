package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-gpu/muster/internal/benchkit"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/simfleet"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

const (
	authorityDir  = "authority"
	heartbeatName = "muster_fleet_heartbeats_total"
	progressEvery = 5 * time.Second
	connectBound  = 20 * time.Minute

	sourceAddresses = 8
)

// streamSamples are the windows of a gateway with its agents.
type streamSamples struct {
	plain    sample // as it is
	times    int    // so many times as often do agents speak in the other, which makes the target's rate
	full     sample
	perAgent int64 // of this process's memory
}

// measureStreams connects the agents and measures the gateway.
func measureStreams(ctx context.Context, s settings, db *benchkit.Database, log *slog.Logger) (result streamSamples, err error) {
	gateway, err := startRole(ctx, roleGateway, s)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, gateway.stop()) }()
	joiner, err := newJoiner(ctx, s, db)
	if err != nil {
		return result, err
	}
	before, err := residentBytes()
	if err != nil {
		return result, err
	}
	played, err := simfleet.New(simfleet.Options{
		Address: gateway.address, Hosts: simfleet.Generate(s.seed, s.agents)[len(simfleet.Regions()):][:s.agents], Joiner: joiner, Seed: s.seed,
		RayVersions: []string{"2.60.0"}, Dial: dialFromMany(), Log: log,
	})
	if err != nil {
		return result, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	ready := make(chan struct{})
	go func() { done <- played.Run(ctx, func() { close(ready) }) }()
	defer func() { cancel(); err = errors.Join(err, <-done) }()
	if err := awaitConnected(ctx, played, ready); err != nil {
		return result, err
	}
	if err := sleep(ctx, s.settle); err != nil {
		return result, err
	}
	debug.FreeOSMemory() // what enrolment took and gave back
	after, err := residentBytes()
	if err != nil {
		return result, err
	}
	result.perAgent = (after - before) / int64(s.agents)
	if result.plain, err = steadyWindow(ctx, s, gateway, db, played); err != nil {
		return result, err
	}
	result.times = max(1, int(math.Round(target/float64(s.agents))))
	played.Hasten(result.times)
	if err := sleep(ctx, s.settle); err != nil { // in which each has spoken at its former pace for the last time
		return result, err
	}
	if result.full, err = steadyWindow(ctx, s, gateway, db, played); err != nil {
		return result, orTooFast(err)
	}
	return result, nil
}

var errBroke = errors.New("streams broke while they were measured")

// orTooFast lets a window of the whole rate be left out that this machine is too slow for, agents included.
func orTooFast(err error) error {
	if errors.Is(err, errBroke) {
		fmt.Fprintln(os.Stderr, "left out:", err)
		return nil
	}
	return err
}

// steadyWindow measures the gateway, and refuses a window in which streams broke.
func steadyWindow(ctx context.Context, s settings, gateway *child, db *benchkit.Database, played *simfleet.Fleet) (sample, error) {
	cuts := played.Stats().Cuts
	result, err := gateway.window(ctx, s, db)
	if stats := played.Stats(); err == nil && (stats.Connected < s.agents || stats.Cuts > cuts) {
		return sample{}, fmt.Errorf("%w: %+v", errBroke, stats)
	}
	return result, err
}

// dialFromMany connects from one loopback address after another: each has ports for some 28,000 connections.
func dialFromMany() func(ctx context.Context, address string) (net.Conn, error) {
	var dialled atomic.Uint32
	return func(ctx context.Context, address string) (net.Conn, error) {
		source := net.IPv4(127, 0, 0, byte(1+dialled.Add(1)%sourceAddresses))
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: source}}
		return dialer.DialContext(ctx, "tcp", address)
	}
}

func awaitConnected(ctx context.Context, played *simfleet.Fleet, ready <-chan struct{}) error {
	began := time.Now()
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ready:
			ready = nil // some may have been cut off since
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		stats := played.Stats()
		fmt.Fprintf(os.Stderr, "%d of %d agents connected in %.0f s\n", stats.Connected, stats.Hosts, time.Since(began).Seconds())
		switch {
		case ready == nil && stats.Connected == stats.Hosts:
			return nil
		case time.Since(began) > connectBound:
			return fmt.Errorf("not all agents connected within %s: %+v", connectBound, stats)
		}
	}
}

// joiner makes join tokens for organisations of its own.
type joiner struct {
	tokens *fleet.Tokens
	orgs   []ids.Org
}

func newJoiner(ctx context.Context, s settings, db *benchkit.Database) (*joiner, error) {
	authority, err := fleet.OpenAuthority(filepath.Join(s.dir, authorityDir))
	if err != nil {
		return nil, err
	}
	j := &joiner{tokens: fleet.NewTokens(db.Pool, authority)}
	for _, name := range simfleet.Owners {
		org := ids.New[ids.Org]()
		if _, err := db.Pool.Exec(ctx, `INSERT INTO organisations (id, name) VALUES ($1, $2)`, org, name); err != nil {
			return nil, err
		}
		j.orgs = append(j.orgs, org)
	}
	return j, nil
}

// JoinToken implements simfleet.Joiner.
func (j *joiner) JoinToken(ctx context.Context, host simfleet.Host) (string, error) {
	_, text, err := j.tokens.Create(ctx, j.orgs[host.Owner], ids.User{}, host.Kind, host.Region, host.Site)
	return text, err
}

// noSecrets stands for the sealing key: no cluster runs here.
type noSecrets struct{}

// Unseal implements fleet.Unsealer.
func (noSecrets) Unseal([]byte) (string, error) {
	return "", errors.New("there is nothing sealed here")
}

// serveGateway is the role of the process that is measured: the gateway, wired as the control plane does.
func serveGateway(ctx context.Context, s settings, log *slog.Logger) error {
	pool, err := benchkit.OpenPool(ctx, s.databaseURL, connections)
	if err != nil {
		return err
	}
	defer pool.Close()
	authority, err := fleet.OpenAuthority(filepath.Join(s.dir, authorityDir))
	if err != nil {
		return err
	}
	registry, hub := prometheus.NewRegistry(), pgnotify.New(pool, log)
	gateway, err := fleet.NewGateway(fleet.Options{
		Pool: pool, Authority: authority, Unsealer: noSecrets{}, Notifications: hub, Address: "127.0.0.1:0", Log: log,
		Registerer: registry, IdleInterval: beatEvery, AllowSimulated: true,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready, done := make(chan struct{}, 2), make(chan error, 2)
	go func() { done <- hub.Run(ctx, func() { ready <- struct{}{} }) }()
	go func() { done <- gateway.Run(ctx, func() { ready <- struct{}{} }) }()
	for range 2 {
		select {
		case <-ready:
		case err := <-done:
			return errors.Join(errors.New("the gateway did not start"), err)
		}
	}
	err = obey(gateway.Addr(), s.profile, func() int64 { return counted(registry) }, cancel)
	return errors.Join(err, <-done, <-done)
}

// counted is the gateway's own count of heartbeats.
func counted(registry *prometheus.Registry) int64 {
	families, err := registry.Gather()
	if err != nil {
		return 0
	}
	for _, family := range families {
		if family.GetName() == heartbeatName {
			return int64(family.GetMetric()[0].GetCounter().GetValue())
		}
	}
	return 0
}
