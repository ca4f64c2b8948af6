package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-gpu/muster/api"
	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/seal"
	"github.com/muster-gpu/muster/scheduler/cluster"
	"github.com/muster-gpu/muster/scheduler/fleet"
	"github.com/muster-gpu/muster/scheduler/market"
)

const (
	walletAddress = "GmaDrppBC7P5ARKV8g3djiwP89vz1jLK23V2GBjuAEGB"
	feeBps        = 250
	manyRequests  = 1_000_000 // a rate limit that the measurement does not meet
)

// deposits has another name than the method of its interface that is called like it.
type deposits interface{ api.Deposits }

// measureAccepts accepts quotes over HTTP, one at a time, on a system that does nothing else.
func (w *world) measureAccepts(ctx context.Context) error {
	hub := pgnotify.New(w.pool, w.log)
	decider, known, err := w.scheduler(ctx, w.pool, hub)
	if err != nil {
		return err
	}
	handler, secret, err := w.api(ctx, hub, market.New(w.pool, hub, known, w.book, currency, market.FlatFee(feeBps), rayVersion, w.log))
	if err != nil {
		return err
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	bookings, err := w.quote(ctx, w.accepts, false, w.customers[0])
	if err != nil {
		return err
	}
	var took []time.Duration
	err = beside(ctx, func(ctx context.Context) error {
		time.Sleep(settleTime) // until the hub listens
		for _, booking := range bookings {
			start := time.Now()
			if err := accept(ctx, server, secret, booking); err != nil {
				return err
			}
			took = append(took, time.Since(start))
		}
		return nil
	},
		func(ctx context.Context) error { return decider.Run(ctx, term) },
		func(ctx context.Context) error { return hub.Run(ctx, func() {}) },
		func(ctx context.Context) error { return known.Run(ctx, func() {}) },
	)
	if err != nil {
		return err
	}
	slices.Sort(took)
	figure("accept_p50_ms value=%.4g unit=ms p99=%.4g accepts=%d hosts=%d", milliseconds(percentile(took, 50)),
		milliseconds(percentile(took, 99)), len(took), w.hosts)
	return nil
}

// api is the HTTP API over a market, with a key of the first customer. Its other services are absent: nothing here calls them.
func (w *world) api(ctx context.Context, hub *pgnotify.Hub, offers *market.Service) (http.Handler, string, error) {
	people, err := identity.New(w.pool, identity.SignInConfig{Domain: "localhost", URI: "http://localhost", ChainID: "solana:localnet", Statement: "Sign in."})
	if err != nil {
		return nil, "", err
	}
	user, err := people.SeedUser(ctx, walletAddress, "Engineer", []identity.Seed{{Org: w.customers[0], Roles: []identity.Role{identity.Engineer}}})
	if err != nil {
		return nil, "", err
	}
	secret, err := people.MintKey(ctx, w.customers[0], user, identity.KeySpec{Name: "bookbench", Scopes: []identity.Scope{identity.ScopeBook}, Days: 1})
	if err != nil {
		return nil, "", err
	}
	box, err := seal.New(seal.NewKey())
	if err != nil {
		return nil, "", err
	}
	many := api.Limit{PerSecond: manyRequests, Burst: manyRequests}
	server, err := api.New(api.Options{
		Log: w.log, Registry: prometheus.NewRegistry(), Pool: w.pool, Seal: box, PublicURL: "http://127.0.0.1", HostNames: []string{"127.0.0.1"},
		Currency: currency, Limits: api.Limits{Address: many, Principal: many},
		Identity: people, Market: offers, Clusters: cluster.NewService(w.pool), Fleet: fleet.NewRegistry(w.pool, currency, rayVersion), Notifications: hub,
		JoinTokens: struct{ api.JoinTokens }{}, Ray: struct{ api.Ray }{}, Meter: struct{ api.Meter }{}, Deposits: struct{ deposits }{},
		Payouts: struct{ api.Payouts }{}, Reconciliations: struct{ api.Reconciliations }{}, Statements: struct{ api.Statements }{},
		Sweeps: struct{ api.Sweeps }{}, Manifests: struct{ api.Manifests }{}, Periods: struct{ api.Periods }{}, SOLJournal: struct{ api.SOLJournal }{},
		Fees: struct{ api.Fees }{}, Ready: w.pool.Ping,
	})
	if err != nil {
		return nil, "", err
	}
	return server.Handler(), secret, nil
}

// accept books a quote.
func accept(ctx context.Context, server *httptest.Server, secret string, quote ids.Booking) error {
	body, err := json.Marshal(apiv1.BookingCreate{QuoteID: quote})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/bookings", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+secret)
	request.Header.Set("Content-Type", "application/json")
	response, err := server.Client().Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("a booking was answered by %s: %s", response.Status, answer)
	}
	return nil
}
