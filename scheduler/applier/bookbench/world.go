package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/benchkit"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/seal"
	"github.com/muster-gpu/muster/scheduler/applier"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/settlement/ledger"
)

const (
	gpusPerHost = 8
	heads       = 600 // each has room for the heads of 220 clusters
	customers   = 200
	model       = "H100"
	price       = money.Amount(2_000_000) // per GPU-hour
	booked      = time.Hour
	rayVersion  = "2.60.0"
	term        = 1
	connections = 16
)

var currency = money.Currency{Symbol: "USDC", Mint: "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", Decimals: 6}

// world is a database with a fleet, and what books in it.
type world struct {
	settings
	log       *slog.Logger
	database  *benchkit.Database
	pool      *pgxpool.Pool // the database's
	book      *ledger.Ledger
	fleet     []ids.Host
	owner     ids.Org
	customers []ids.Org
	user      ids.User
	nextHost  int
}

func newWorld(ctx context.Context, s settings, log *slog.Logger) (*world, error) {
	database, err := benchkit.NewDatabase(ctx, "bookbench", connections)
	if err != nil {
		return nil, err
	}
	w := &world{settings: s, log: log, book: ledger.New(currency), database: database, pool: database.Pool}
	note("filling a fleet of %d hosts", s.hosts)
	if err := w.fill(ctx); err != nil {
		w.close()
		return nil, fmt.Errorf("fill the fleet: %w", err)
	}
	return w, nil
}

func (w *world) close() {
	if err := w.database.Drop(); err != nil {
		note("%v", err)
	}
}

// fill writes the fleet without triggers, which would only announce it to readers that there are not yet.
func (w *world) fill(ctx context.Context) error {
	w.owner, w.user = ids.New[ids.Org](), ids.New[ids.User]()
	for range customers {
		w.customers = append(w.customers, ids.New[ids.Org]())
	}
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		for _, statement := range []struct {
			sql  string
			args []any
		}{
			{`SET LOCAL session_replication_role = replica`, nil},
			{`INSERT INTO organisations (id, name) VALUES ($1, 'Owner')`, []any{w.owner}},
			{`INSERT INTO users (id, wallet_address) VALUES ($1, 'wallet')`, []any{w.user}},
			{`INSERT INTO organisations (id, name) SELECT unnest($1::uuid[]), 'Customer'`, []any{texts(w.customers)}},
			{`INSERT INTO hosts (id, org_id, kind, name, state, region, machine_id, key_fingerprint, certificate_request_hash, certificate_pem,
				certificate_expires_at, connected, last_seen_at, images)
			SELECT n.id, $1, CASE WHEN n.number <= $2 THEN 'head' ELSE 'gpu' END, 'host', 'idle', 'eu', n.id::text,
				sha256(convert_to(n.id::text, 'UTF8')), '', '', now() + interval '1 day', true, now(), ARRAY[$4]
			FROM (SELECT number, gen_random_uuid() AS id FROM generate_series(1, $2 + $3::int) AS number) AS n`, []any{w.owner, heads, w.hosts, rayVersion}},
			{`INSERT INTO gpus (id, host_id, uuid, ordinal, model, product, memory_mib, compute_capability)
			SELECT gen_random_uuid(), h.id, h.id::text || '/' || n, n, $1, 'NVIDIA H100 80GB HBM3', 81559, '9.0'
			FROM hosts h, generate_series(0, $2 - 1) AS n WHERE h.kind = 'gpu' ORDER BY h.id, n`, []any{model, gpusPerHost}},
			{`INSERT INTO asks (id, org_id, host_id, price_per_gpu_hour) SELECT gen_random_uuid(), org_id, id, $1 FROM hosts WHERE kind = 'gpu'`, []any{price}},
			{`INSERT INTO leadership (role, holder, term, expires_at) VALUES ($1, 'bookbench', $2, now() + interval '1 hour')`, []any{leader.RoleScheduler, term}},
		} {
			if _, err := tx.Exec(ctx, statement.sql, statement.args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := w.fund(ctx); err != nil {
		return err
	}
	if err := benchkit.Settle(ctx, w.pool); err != nil {
		return err
	}
	rows, err := w.pool.Query(ctx, `SELECT id FROM hosts WHERE kind = 'gpu' ORDER BY key_fingerprint`)
	if err != nil {
		return err
	}
	w.fleet, err = pgx.CollectRows(rows, pgx.RowTo[ids.Host])
	return err
}

// fund gives every customer more than it can spend.
func (w *world) fund(ctx context.Context) error {
	var entries []ledger.Entry
	for _, customer := range w.customers {
		entries = append(entries, ledger.Entry{Key: "deposit:" + customer.String(), Kind: ledger.KindDeposit, Legs: []ledger.Leg{{
			Debit: ledger.Of(ledger.ChainDeposits, customer), Credit: ledger.Of(ledger.CustomerAvailable, customer), Amount: 1 << 50,
		}}})
	}
	return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		_, err := w.book.PostAll(ctx, tx, entries)
		return err
	})
}

func texts[K ids.Kind](list []ids.ID[K]) []string {
	out := make([]string, len(list))
	for i, id := range list {
		out[i] = uuid.UUID(id).String()
	}
	return out
}

// quote stores quotes of gangs, each on the next hosts of the fleet, for the customers in turn or for one, and returns them in order.
func (w *world) quote(ctx context.Context, count int, requested bool, buyers ...ids.Org) ([]ids.Booking, error) {
	bookings, rows := make([]ids.Booking, count), make([][]any, count)
	now := time.Now()
	for i := range bookings {
		lines := make([]market.Line, w.nodes)
		for n := range lines {
			lines[n] = market.Line{HostID: w.fleet[w.nextHost%len(w.fleet)], Owner: w.owner, Region: "eu", Price: price, Hourly: price}
			w.nextHost++
		}
		plan, err := json.Marshal(lines)
		if err != nil {
			return nil, err
		}
		bookings[i] = ids.New[ids.Booking]()
		var at *time.Time
		if requested {
			at = &now
		}
		rows[i] = []any{
			uuid.UUID(bookings[i]), uuid.UUID(buyers[i%len(buyers)]), uuid.UUID(w.user), model, w.nodes, 1, booked.Milliseconds(), 250, plan,
			int64(w.nodes) * int64(price), now.Add(time.Hour), at,
		}
	}
	_, err := w.pool.CopyFrom(ctx, pgx.Identifier{"bookings"}, []string{
		"id", "org_id", "created_by", "gpu_model", "node_count", "gpus_per_node", "duration_ms", "fee_bps", "plan", "hold_base_units", "expires_at",
		"requested_at",
	}, pgx.CopyFromRows(rows))
	return bookings, err
}

// scheduler is an applier with a census over a pool.
func (w *world) scheduler(ctx context.Context, pool *pgxpool.Pool, hub *pgnotify.Hub) (*applier.Applier, *census.Census, error) {
	box, err := seal.New(seal.NewKey())
	if err != nil {
		return nil, nil, err
	}
	fleet := census.New(pool, w.log)
	start := time.Now()
	if err := fleet.Sync(ctx, nil); err != nil {
		return nil, nil, err
	}
	note("the census was loaded in %s", time.Since(start).Round(time.Millisecond))
	return applier.New(pool, hub, fleet, w.book, box, rayVersion, w.log), fleet, nil
}

// check proves that nothing was lost or doubled: every accepted booking has its cluster, its leases and its hold.
func (w *world) check(ctx context.Context) error {
	for what, sql := range map[string]string{
		"bookings without a cluster": `SELECT count(*) FROM bookings b WHERE b.state = 'accepted' AND NOT EXISTS (SELECT 1 FROM clusters c WHERE c.booking_id = b.id)`,
		"clusters without all their leases": `SELECT count(*) FROM clusters c LEFT JOIN (SELECT cluster_id, count(*) AS leases FROM leases GROUP BY cluster_id) l
			ON l.cluster_id = c.id WHERE l.leases IS DISTINCT FROM c.node_count * c.gpus_per_node`,
		"GPUs leased twice": `SELECT count(*) FROM (SELECT gpu_id FROM leases WHERE state <> 'closed' GROUP BY gpu_id HAVING count(*) > 1) AS twice`,
		"clusters without their hold": `SELECT count(*) FROM clusters c LEFT JOIN (SELECT e.booking_id, sum(t.amount) AS held
			FROM ledger_entries e JOIN ledger_transfers t ON t.entry_id = e.id WHERE e.kind = 'hold' GROUP BY e.booking_id) h
			ON h.booking_id = c.booking_id WHERE h.held IS DISTINCT FROM c.hold_base_units`,
		"holds without a cluster": `SELECT count(*) FROM ledger_entries e WHERE e.kind = 'hold' AND NOT EXISTS (SELECT 1 FROM clusters c WHERE c.booking_id = e.booking_id)`,
		"bookings refused":        `SELECT count(*) FROM bookings WHERE state = 'refused'`,
	} {
		var found int
		if err := w.pool.QueryRow(ctx, sql).Scan(&found); err != nil {
			return err
		}
		if found > 0 {
			return fmt.Errorf("%d %s", found, what)
		}
	}
	return nil
}
