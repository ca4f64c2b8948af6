// Package schedulertest builds fleets in a test's database and plays the part of their agents, at the level of the rows that the
// fleet gateway writes for real ones. Only tests import it.
package schedulertest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/rayaddr"
	"github.com/muster-gpu/muster/internal/seal"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/applier"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/cluster"
	"github.com/muster-gpu/muster/scheduler/market"
)

// Term is the scheduler's term in a World.
const Term = 1

// RayVersion is what the clusters of a World run, and what its hosts can start.
const RayVersion = "2.60.0"

// World is a database with the scheduler's parts over it.
type World struct {
	testing.TB
	Pool      *pgxpool.Pool
	Fleet     *census.Census
	Market    *market.Service
	Applier   *applier.Applier
	Lifecycle *cluster.Lifecycle
	Clusters  *cluster.Service
	Escrow    *Escrow
	Customer  ids.Org
	User      ids.User
}

// Escrow sets money aside while there is some, and remembers what it held: in memory, so not what a transaction that is rolled
// back would have undone.
type Escrow struct {
	Balance money.Amount
	Held    map[ids.Booking]money.Amount
}

// HoldAll implements applier.Escrow.
func (e *Escrow) HoldAll(_ context.Context, _ pgx.Tx, holds []applier.EscrowHold) (map[ids.Booking]*errs.Error, error) {
	refused := make(map[ids.Booking]*errs.Error)
	for _, hold := range holds {
		if _, held := e.Held[hold.Booking]; held {
			continue
		}
		if hold.Amount > e.Balance {
			refused[hold.Booking] = errs.New(errs.InsufficientFunds, "%d are needed and %d are there", hold.Amount, e.Balance)
			continue
		}
		e.Balance -= hold.Amount
		e.Held[hold.Booking] = hold.Amount
	}
	return refused, nil
}

// Release implements applier.Escrow.
func (e *Escrow) Release(_ context.Context, _ pgx.Tx, _ ids.Org, booking ids.Booking, amount money.Amount) error {
	if held := e.Held[booking]; held != amount {
		return fmt.Errorf("%d are held for %s, not %d", held, booking, amount)
	}
	e.Balance += amount
	delete(e.Held, booking)
	return nil
}

// Available implements cluster.Balances.
func (e *Escrow) Available(context.Context, ids.Org) (money.Amount, error) { return e.Balance, nil }

// New makes a world with one customer and a scheduler that leads.
func New(t testing.TB) *World {
	t.Helper()
	pool := testkit.DB(t)
	log := slog.New(slog.DiscardHandler)
	hub := pgnotify.New(pool, log)
	box, err := seal.New(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	w := &World{TB: t, Pool: pool, Escrow: &Escrow{Balance: 1 << 60, Held: map[ids.Booking]money.Amount{}}}
	w.Fleet = census.New(pool, log)
	w.Market = market.New(pool, hub, w.Fleet, w.Escrow, money.Currency{Symbol: "USDC", Decimals: 6}, market.FlatFee(250), RayVersion, log)
	w.Applier = applier.New(pool, hub, w.Fleet, w.Escrow, box, RayVersion, log)
	w.Lifecycle = cluster.NewLifecycle(pool, hub, w.Applier, w.Escrow, log)
	w.Clusters = cluster.NewService(pool)
	w.Customer = w.AddOrg("Customer")
	w.User = ids.New[ids.User]()
	w.Exec(`INSERT INTO users (id, wallet_address) VALUES ($1, 'wallet')`, w.User)
	w.Exec(`INSERT INTO leadership (role, holder, term, expires_at) VALUES ($1, 'test', $2, now() + interval '1 hour')`, leader.RoleScheduler, Term)
	return w
}

// Exec runs a statement that must succeed.
func (w *World) Exec(sql string, args ...any) {
	w.Helper()
	if _, err := w.Pool.Exec(w.Context(), sql, args...); err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
}

// Count runs a query for one number.
func (w *World) Count(sql string, args ...any) (n int64) {
	w.Helper()
	if err := w.Pool.QueryRow(w.Context(), sql, args...).Scan(&n); err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
	return n
}

// AddOrg makes an organisation.
func (w *World) AddOrg(name string) ids.Org {
	w.Helper()
	org := ids.New[ids.Org]()
	w.Exec(`INSERT INTO organisations (id, name) VALUES ($1, $2)`, org, name)
	return org
}

// AddHead makes an operator's host for Ray heads.
func (w *World) AddHead() ids.Host {
	w.Helper()
	return w.addHost(w.AddOrg("Operator"), "head", "eu")
}

// AddHost makes an idle host with an owner of its own, GPUs of a model and an ask.
func (w *World) AddHost(model string, gpus int, price money.Amount, region string) ids.Host {
	w.Helper()
	org := w.AddOrg("Owner")
	host := w.addHost(org, "gpu", region)
	for ordinal := range gpus {
		gpu := ids.New[ids.GPU]()
		w.Exec(`INSERT INTO gpus (id, host_id, uuid, ordinal, model, product, memory_mib) VALUES ($1, $2, $3, $4, $5, 'NVIDIA ' || $5, 81920)`,
			gpu, host, "GPU-"+gpu.String(), ordinal, model)
	}
	w.Exec(`INSERT INTO asks (id, org_id, host_id, price_per_gpu_hour) VALUES ($1, $2, $3, $4)`, ids.New[ids.Ask](), org, host, price)
	return host
}

func (w *World) addHost(org ids.Org, kind, region string) ids.Host {
	host := ids.New[ids.Host]()
	w.Exec(`INSERT INTO hosts (id, org_id, kind, name, state, region, machine_id, key_fingerprint, certificate_request_hash,
			certificate_pem, certificate_expires_at, connected, last_seen_at, images)
		VALUES ($1, $2, $3, 'host', 'idle', $4, $5::text, sha256(convert_to($5, 'UTF8')), '', '', now(), true, now(), ARRAY[$6])`,
		host, org, kind, region, host.String(), RayVersion)
	return host
}

// Spec is a booking of H100s for an hour.
func Spec(nodes, gpusPerNode int) market.Spec {
	return market.Spec{GPUModel: "H100", Nodes: nodes, GPUsPerNode: gpusPerNode, Duration: time.Hour}
}

// Quote prices a spec for the world's customer.
func (w *World) Quote(spec market.Spec) market.Quote {
	w.Helper()
	quote, err := w.Market.Quote(w.Context(), w.Customer, w.User, spec)
	if err != nil {
		w.Fatalf("quote: %v", err)
	}
	return quote
}

// Book quotes and accepts a spec and applies it.
func (w *World) Book(spec market.Spec) ids.Cluster {
	w.Helper()
	quote := w.Accept(w.Quote(spec))
	if quote.State != "accepted" {
		w.Fatalf("booking is %s: %+v", quote.State, quote)
	}
	return quote.ClusterID
}

// Accept has the applier decide on a quote.
func (w *World) Accept(quote market.Quote) market.Quote {
	w.Helper()
	w.Exec(`UPDATE bookings SET requested_at = now() WHERE id = $1`, quote.ID)
	if _, err := w.Applier.Apply(w.Context(), Term); err != nil {
		w.Fatalf("apply: %v", err)
	}
	decided, err := w.Market.GetQuote(w.Context(), w.Customer, quote.ID)
	if err != nil {
		w.Fatalf("read quote: %v", err)
	}
	return decided
}

// Look lets the lifecycle do what it can.
func (w *World) Look() {
	w.Helper()
	if err := w.Lifecycle.Look(w.Context(), Term); err != nil {
		w.Fatalf("look: %v", err)
	}
}

// Get reads a cluster as its customer does.
func (w *World) Get(id ids.Cluster) cluster.Detail {
	w.Helper()
	detail, err := w.Clusters.Get(w.Context(), w.Customer, id)
	if err != nil {
		w.Fatalf("get: %v", err)
	}
	return detail
}

// AgentsStart reports every desired node as running and, from the head, all of them as alive in Ray.
func (w *World) AgentsStart(id ids.Cluster) {
	w.Helper()
	w.Exec(`UPDATE nodes SET state = 'starting' WHERE cluster_id = $1 AND state = 'planned'`, id)
	w.Exec(`UPDATE nodes SET state = 'running' WHERE cluster_id = $1 AND state = 'starting'`, id)
	w.RayReports(id, nil)
}

// RayReports writes the head's summary: every live node alive, but for those that change says otherwise.
func (w *World) RayReports(id ids.Cluster, change func(*cluster.RayNode)) {
	w.Helper()
	var summary []cluster.RayNode
	for _, n := range w.Get(id).Nodes {
		if n.EndedAt != nil {
			continue
		}
		ray := cluster.RayNode{Address: rayaddr.Address(int(n.Slot)), Alive: true, GPUs: int(n.GPUs), Head: n.Role == "head"}
		if change != nil {
			change(&ray)
		}
		summary = append(summary, ray)
	}
	document, err := json.Marshal(summary)
	if err != nil {
		w.Fatal(err)
	}
	w.Exec(`INSERT INTO ray_summaries (cluster_id, observed_at, nodes) VALUES ($1, clock_timestamp(), $2)
		ON CONFLICT (cluster_id) DO UPDATE SET observed_at = excluded.observed_at, nodes = excluded.nodes`, id, document)
}

// AgentsStop reports every stopping node as stopped, and so the head, which is asked to after the others.
func (w *World) AgentsStop(id ids.Cluster) {
	w.Helper()
	const stop = `UPDATE nodes SET state = 'stopped', ended_at = now() WHERE cluster_id = $1 AND state = 'stopping'`
	w.Exec(stop, id)
	w.Look()
	w.Exec(stop, id)
}

// Ready books a spec and leads it to ready.
func (w *World) Ready(spec market.Spec) ids.Cluster {
	w.Helper()
	id := w.Book(spec)
	w.AgentsStart(id)
	w.Look()
	if state := w.Get(id).State; state != "ready" {
		w.Fatalf("the cluster is %s: %s", state, w.Timeline(id))
	}
	return id
}

// Timeline is a cluster's events as text, for failure messages.
func (w *World) Timeline(id ids.Cluster) (text string) {
	w.Helper()
	events, err := w.Clusters.Events(w.Context(), w.Customer, id, 0, cluster.MaxPage)
	if err != nil {
		w.Fatal(err)
	}
	for _, e := range events {
		text += fmt.Sprintf("\n%s %s", e.Kind, e.Message)
	}
	return text
}
