package statements_test

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
	"github.com/muster-gpu/muster/settlement/statements"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var usdc = money.Currency{Symbol: "USDC", Mint: "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", Decimals: 6}

// bench is the service over a database of its own, with the real meter and ledger, a customer, and an owner with a host.
type bench struct {
	testing.TB
	*statements.Service
	pool     *pgxpool.Pool
	book     *ledger.Ledger
	meter    *metering.Meter
	customer ids.Org
	owner    ids.Org
	host     ids.Host
	places   int
}

func newBench(tb testing.TB) *bench {
	tb.Helper()
	quiet := slog.New(slog.DiscardHandler)
	b := &bench{TB: tb, pool: testkit.DB(tb), book: ledger.New(usdc), host: ids.New[ids.Host]()}
	b.Service = statements.New(b.pool, b.book, quiet)
	b.meter = metering.New(b.pool, b.book, metering.DefaultInterval, quiet)
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

// post moves an amount from one account to another.
func (b *bench) post(kind string, debit, credit ledger.Account, amount money.Amount, refs ledger.Refs) {
	b.Helper()
	err := pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := b.book.Post(b.Context(), tx, ledger.Entry{
			Key: "test:" + ids.New[ids.Entry]().String(), Kind: kind, Legs: []ledger.Leg{{Debit: debit, Credit: credit, Amount: amount}}, Refs: refs,
		})
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) deposit(amount money.Amount) {
	b.Helper()
	b.post(ledger.KindDeposit, ledger.Of(ledger.ChainDeposits, b.customer), b.available(), amount, ledger.Refs{Signature: "5Deposit"})
}

func (b *bench) available() ledger.Account { return ledger.Of(ledger.CustomerAvailable, b.customer) }
func (b *bench) held() ledger.Account      { return ledger.Of(ledger.CustomerHeld, b.customer) }
func (b *bench) payable() ledger.Account   { return ledger.Of(ledger.OwnerPayable, b.owner) }
func (b *bench) inFlight() ledger.Account  { return ledger.Of(ledger.PayoutInFlight, b.owner) }

func (b *bench) balance(a ledger.Account) money.Amount {
	b.Helper()
	balance, err := b.book.Balance(b.Context(), b.pool, a)
	if err != nil {
		b.Fatal(err)
	}
	return balance
}

func (b *bench) settle() {
	b.Helper()
	if err := b.meter.Settle(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// running is a ready cluster with one GPU a price.
type running struct {
	*bench
	id     ids.Cluster
	node   ids.Node
	leases []ids.Lease
	opened time.Time
}

func (b *bench) cluster(name string, hold money.Amount, feeBps int, prices ...money.Amount) *running {
	b.Helper()
	c := &running{bench: b, id: ids.New[ids.Cluster](), node: ids.New[ids.Node](), opened: time.Now().UTC().Add(-20 * time.Minute).Truncate(time.Millisecond)}
	booking := ids.New[ids.Booking]()
	b.exec(`INSERT INTO bookings (id, org_id, state, gpu_model, node_count, gpus_per_node, duration_ms, fee_bps, plan, hold_base_units, expires_at, requested_at)
		VALUES ($1, $2, 'accepted', 'H100', 1, $3, 3600000, $4, '{}', $5, now(), now())`, booking, b.customer, len(prices), feeBps, hold)
	b.exec(`INSERT INTO clusters (id, org_id, booking_id, name, state, gpu_model, node_count, gpus_per_node, duration_ms, hold_base_units, fee_bps, ray_version,
			ray_token_sealed, places, forecast_end, created_at, ready_at)
		VALUES ($1, $2, $3, $4, 'ready', 'H100', 1, $5, 3600000, $6, $7, '2.60.0', '', '{1}', now() + interval '1 hour', $8, $8)`,
		c.id, b.customer, booking, name, len(prices), hold, feeBps, c.opened)
	b.places++
	b.exec(`INSERT INTO nodes (id, cluster_id, host_id, role, ordinal, slot, gpus, machine_id) VALUES ($1, $2, $3, 'gpu', 1, $4, $5, $6)`,
		c.node, c.id, b.host, b.places%200, len(prices), c.id.String())
	for _, price := range prices {
		c.lease(price, feeBps, c.opened)
	}
	c.event("state", "ready", "", "Every node has joined Ray.", c.opened)
	err := pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error { return b.book.Hold(b.Context(), tx, b.customer, booking, hold) })
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func (c *running) lease(price money.Amount, feeBps int, opened time.Time) (place int) {
	c.Helper()
	lease, gpu := ids.New[ids.Lease](), ids.New[ids.GPU]()
	c.places++
	c.exec(`INSERT INTO gpus (id, host_id, uuid, ordinal, model, product, memory_mib) VALUES ($1, $2, $1::uuid::text, $3, 'H100', 'NVIDIA H100', 80000)`, gpu, c.host, c.places)
	c.exec(`INSERT INTO leases (id, cluster_id, node_id, host_id, gpu_id, customer_org_id, owner_org_id, state, price_per_gpu_hour, fee_bps, opened_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 'billing', $8, $9, $10)`, lease, c.id, c.node, c.host, gpu, c.customer, c.owner, price, feeBps, opened)
	c.leases = append(c.leases, lease)
	return len(c.leases) - 1
}

func (c *running) event(kind, state, party, message string, at time.Time) {
	c.Helper()
	c.exec(`INSERT INTO cluster_events (cluster_id, org_id, at, kind, state, message, fault_party) VALUES ($1, $2, $3, $4, nullif($5, ''), $6, nullif($7, ''))`,
		c.id, c.customer, at, kind, state, message, party)
}

// use is a closed interval of a lease's usage, in milliseconds after the cluster was made.
func (c *running) use(lease int, from, to int64) {
	c.Helper()
	c.exec(`INSERT INTO usage (id, lease_id, host_id, started_at, confirmed_at, limit_at, ended_at) VALUES ($1, $2, $3, $4, $5, $5, $5)`,
		ids.New[ids.Usage](), c.leases[lease], c.host, c.at(from), c.at(to))
}

func (c *running) at(ms int64) time.Time { return c.opened.Add(time.Duration(ms) * time.Millisecond) }

// end releases the cluster and closes its leases.
func (c *running) end() {
	c.Helper()
	c.exec(`UPDATE clusters SET state = 'draining', fault_party = 'customer' WHERE id = $1`, c.id)
	c.exec(`UPDATE clusters SET state = 'released', ended_at = now() WHERE id = $1`, c.id)
	c.exec(`UPDATE leases SET state = 'closed', closed_at = now(), close_party = 'customer' WHERE cluster_id = $1`, c.id)
}

// age lets a day pass: what is in the books moves into the past by it.
func (b *bench) age() {
	b.Helper()
	err := pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error {
		for _, sql := range []string{
			`SET LOCAL session_replication_role = replica`, // the books are immutable otherwise
			`UPDATE ledger_transfers SET posted_at = posted_at - interval '1 day'`,
			`UPDATE ledger_entries SET posted_at = posted_at - interval '1 day'`,
			`UPDATE ledger_accounts SET changed_at = changed_at - interval '1 day'`,
			`UPDATE lease_days SET day = day + 10000`, // in two steps: rows of neighbouring days would meet
			`UPDATE lease_days SET day = day - 10001`,
		} {
			if _, err := tx.Exec(b.Context(), sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// daysAgo is the UTC day some days before today.
func daysAgo(days int) time.Time {
	return time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -days)
}

// period is from some days ago until before some days ago.
func period(from, to int) statements.Period {
	return statements.Period{From: daysAgo(from), To: daysAgo(to)}
}

func (b *bench) statement(from, to int) statements.Customer {
	b.Helper()
	c, err := b.Customer(b.Context(), b.customer, period(from, to))
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func (b *bench) earnings(from, to int) statements.Owner {
	b.Helper()
	o, err := b.Owner(b.Context(), b.owner, period(from, to))
	if err != nil {
		b.Fatal(err)
	}
	return o
}
