package metering_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/metering"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var usdc = money.Currency{Symbol: "USDC", Mint: "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", Decimals: 6}

const day = "2026-11-22T"

// bench is a meter over a database of its own, with a customer, an owner and the owner's host.
type bench struct {
	testing.TB
	*metering.Meter
	pool     *pgxpool.Pool
	book     *ledger.Ledger
	customer ids.Org
	owner    ids.Org
	host     ids.Host
	gpus     int
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	b := &bench{TB: tb, pool: testkit.DB(tb), book: ledger.New(usdc), host: ids.New[ids.Host]()}
	b.Meter = metering.New(b.pool, b.book, metering.DefaultInterval, slog.New(slog.DiscardHandler))
	b.customer, b.owner = b.org("Customer"), b.org("Owner")
	b.exec(`INSERT INTO hosts (id, org_id, kind, name, region, machine_id, key_fingerprint, certificate_request_hash, certificate_pem, certificate_expires_at)
		VALUES ($1, $2, 'gpu', 'rack 1', 'eu', 'm', 'f', 'h', 'p', now())`, b.host, b.owner)
	return b
}

func (b *bench) exec(sql string, args ...any) {
	b.Helper()
	if _, err := b.pool.Exec(b.Context(), sql, args...); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
}

func (b *bench) org(name string) ids.Org {
	id := ids.New[ids.Org]()
	b.exec(`INSERT INTO organisations (id, name) VALUES ($1, $2)`, id, name)
	return id
}

func (b *bench) post(e ledger.Entry) {
	b.Helper()
	err := pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := b.book.Post(b.Context(), tx, e)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) deposit(amount money.Amount) {
	b.Helper()
	b.post(ledger.Entry{Key: "deposit:" + ids.New[ids.Deposit]().String(), Kind: ledger.KindDeposit, Legs: []ledger.Leg{{
		Debit: ledger.Of(ledger.ChainDeposits, b.customer), Credit: ledger.Of(ledger.CustomerAvailable, b.customer), Amount: amount,
	}}})
}

// running is a ready cluster with one GPU a price.
type running struct {
	*bench
	id     ids.Cluster
	leases []ids.Lease
}

func (b *bench) cluster(hold money.Amount, feeBps int, prices ...money.Amount) *running {
	b.Helper()
	c := &running{bench: b, id: ids.New[ids.Cluster]()}
	booking, node := ids.New[ids.Booking](), ids.New[ids.Node]()
	b.exec(`INSERT INTO bookings (id, org_id, state, gpu_model, node_count, gpus_per_node, duration_ms, fee_bps, plan, hold_base_units, expires_at, requested_at)
		VALUES ($1, $2, 'accepted', 'H100', 1, $3, 3600000, $4, '{}', $5, now(), now())`, booking, b.customer, len(prices), feeBps, hold)
	b.exec(`INSERT INTO clusters (id, org_id, booking_id, name, state, gpu_model, node_count, gpus_per_node, duration_ms, hold_base_units, fee_bps, ray_version, ray_token_sealed,
			places, forecast_end)
		VALUES ($1, $2, $3, 'training', 'ready', 'H100', 1, $4, 3600000, $5, $6, '2.60.0', '', '{1}', now() + interval '1 hour')`, c.id, b.customer, booking, len(prices), hold, feeBps)
	b.gpus++
	b.exec(`INSERT INTO nodes (id, cluster_id, host_id, role, ordinal, slot, gpus, machine_id) VALUES ($1, $2, $3, 'gpu', 0, $4, $5, 'm')`, node, c.id, b.host, b.gpus, len(prices))
	for _, price := range prices {
		lease, gpu := ids.New[ids.Lease](), ids.New[ids.GPU]()
		b.gpus++
		b.exec(`INSERT INTO gpus (id, host_id, uuid, ordinal, model, product, memory_mib) VALUES ($1, $2, $1::uuid::text, $3, 'H100', 'NVIDIA H100', 80000)`, gpu, b.host, b.gpus)
		b.exec(`INSERT INTO leases (id, cluster_id, node_id, host_id, gpu_id, customer_org_id, owner_org_id, state, price_per_gpu_hour, fee_bps)
			VALUES ($1, $2, $3, $4, $5, $6, $7, 'billing', $8, $9)`, lease, c.id, node, b.host, gpu, b.customer, b.owner, price, feeBps)
		c.leases = append(c.leases, lease)
	}
	err := pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error { return b.book.Hold(b.Context(), tx, b.customer, booking, hold) })
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// start opens usage of a lease; confirm moves its confirmed time; stop closes it there.
func (c *running) start(lease int, at time.Time) {
	c.Helper()
	c.exec(`INSERT INTO usage (id, lease_id, host_id, started_at, confirmed_at, limit_at) VALUES ($1, $2, $3, $4, $4, $4::timestamptz + interval '1 day')`,
		ids.New[ids.Usage](), c.leases[lease], c.host, at)
}

func (c *running) confirm(lease int, at time.Time) {
	c.Helper()
	c.exec(`UPDATE usage SET confirmed_at = $2 WHERE lease_id = $1 AND ended_at IS NULL`, c.leases[lease], at)
}

func (c *running) stop(lease int) {
	c.Helper()
	c.exec(`UPDATE usage SET ended_at = confirmed_at WHERE lease_id = $1 AND ended_at IS NULL`, c.leases[lease])
}

// end releases the cluster and closes its leases; open usage stays as it is.
func (c *running) end() {
	c.Helper()
	c.exec(`UPDATE clusters SET state = 'draining', fault_party = 'customer' WHERE id = $1`, c.id)
	c.exec(`UPDATE clusters SET state = 'released', ended_at = now() WHERE id = $1`, c.id)
	c.exec(`UPDATE leases SET state = 'closed', closed_at = now() WHERE cluster_id = $1`, c.id)
}

func (b *bench) settle() {
	b.Helper()
	if err := b.Settle(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) balance(a ledger.Account) money.Amount {
	b.Helper()
	balance, err := b.book.Balance(b.Context(), b.pool, a)
	if err != nil {
		b.Fatal(err)
	}
	return balance
}

func (b *bench) available() money.Amount {
	return b.balance(ledger.Of(ledger.CustomerAvailable, b.customer))
}

func (b *bench) held() money.Amount    { return b.balance(ledger.Of(ledger.CustomerHeld, b.customer)) }
func (b *bench) payable() money.Amount { return b.balance(ledger.Of(ledger.OwnerPayable, b.owner)) }
func (b *bench) fees() money.Amount    { return b.balance(ledger.Platform(ledger.PlatformFees)) }

func (b *bench) wantBalances(available, held, payable, fees money.Amount) {
	b.Helper()
	if a, h, p, f := b.available(), b.held(), b.payable(), b.fees(); a != available || h != held || p != payable || f != fees {
		b.Errorf("available %d, held %d, payable %d, fees %d; want %d, %d, %d, %d", a, h, p, f, available, held, payable, fees)
	}
	if err := b.book.Check(b.Context(), b.pool); err != nil {
		b.Error(err)
	}
}

func (c *running) settled() bool {
	c.Helper()
	var settled bool
	if err := c.pool.QueryRow(c.Context(), `SELECT settled_at IS NOT NULL FROM clusters WHERE id = $1`, c.id).Scan(&settled); err != nil {
		c.Fatal(err)
	}
	return settled
}

func at(clock string) time.Time {
	moment, err := time.Parse(time.RFC3339Nano, day+clock+"Z")
	if err != nil {
		panic(err)
	}
	return moment
}
