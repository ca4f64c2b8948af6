package manifests_test

import (
	"encoding/json"
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
	"github.com/muster-gpu/muster/settlement/proof"
	"github.com/muster-gpu/muster/settlement/proof/manifests"
)

var usdc = money.Currency{Symbol: "USDC", Mint: "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", Decimals: 6}

const (
	network  = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"
	treasury = "7UX2i7SucgLMQcfZ75s3VXmZZY4YRUyJN9X1RgfMoDUi"
	price    = 2_000_000
	feeBPS   = 500
)

// base is when all usage begins.
var base = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// bench is a database with an owner, a customer and the books, whose batches the test moves by hand.
type bench struct {
	*testing.T
	*manifests.Service
	pool            *pgxpool.Pool
	book            *ledger.Ledger
	meter           *metering.Meter
	customer, owner ids.Org
	user            ids.User
	host            ids.Host
	gpus            int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return newBenchOf(t, usdc, manifests.Config{Network: network, Mint: usdc.Mint, Treasury: treasury})
}

func newBenchOf(t *testing.T, currency money.Currency, config manifests.Config) *bench {
	t.Helper()
	b := &bench{
		T: t, pool: testkit.DB(t), book: ledger.New(currency), customer: ids.New[ids.Org](), owner: ids.New[ids.Org](), user: ids.New[ids.User](), host: ids.New[ids.Host](),
	}
	b.meter = metering.New(b.pool, b.book, metering.DefaultInterval, slog.New(slog.DiscardHandler))
	b.Service = manifests.New(b.pool, config)
	b.exec(`INSERT INTO users (id, wallet_address) VALUES ($1, 'approver')`, b.user)
	b.exec(`INSERT INTO organisations (id, name) VALUES ($1, 'Customer'), ($2, 'Owner')`, b.customer, b.owner)
	b.exec(`INSERT INTO hosts (id, org_id, kind, name, region, machine_id, key_fingerprint, certificate_request_hash, certificate_pem, certificate_expires_at)
		VALUES ($1, $2, 'gpu', 'rack 1', 'eu', 'm', 'f', 'h', 'p', now())`, b.host, b.owner)
	b.post("deposit", ledger.KindDeposit, "", ledger.Leg{
		Debit: ledger.Of(ledger.ChainDeposits, b.customer), Credit: ledger.Of(ledger.CustomerAvailable, b.customer), Amount: 1_000_000_000,
	})
	return b
}

func (b *bench) exec(sql string, args ...any) {
	b.Helper()
	if _, err := b.pool.Exec(b.Context(), sql, args...); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
}

func (b *bench) post(key, kind, memo string, legs ...ledger.Leg) {
	b.Helper()
	b.check(pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := b.book.Post(b.Context(), tx, ledger.Entry{Key: key, Kind: kind, Legs: legs, Memo: memo})
		return err
	}))
}

// lease is a GPU in a running cluster of the customer's.
func (b *bench) lease() ids.Lease {
	b.Helper()
	cluster, booking, node, lease, gpu := ids.New[ids.Cluster](), ids.New[ids.Booking](), ids.New[ids.Node](), ids.New[ids.Lease](), ids.New[ids.GPU]()
	const hold = 100_000_000
	b.gpus++
	b.exec(`INSERT INTO bookings (id, org_id, state, gpu_model, node_count, gpus_per_node, duration_ms, fee_bps, plan, hold_base_units, expires_at, requested_at)
		VALUES ($1, $2, 'accepted', 'H100', 1, 1, 3600000, $3, '{}', $4, now(), now())`, booking, b.customer, feeBPS, hold)
	b.exec(`INSERT INTO clusters (id, org_id, booking_id, name, state, gpu_model, node_count, gpus_per_node, duration_ms, hold_base_units, fee_bps, ray_version,
			ray_token_sealed, places, forecast_end)
		VALUES ($1, $2, $3, $1::uuid::text, 'ready', 'H100', 1, 1, 3600000, $4, $5, '2.60.0', '', '{1}', now() + interval '1 hour')`, cluster, b.customer, booking, hold, feeBPS)
	b.exec(`INSERT INTO nodes (id, cluster_id, host_id, role, ordinal, slot, gpus, machine_id) VALUES ($1, $2, $3, 'gpu', 0, $4, 1, 'm')`, node, cluster, b.host, b.gpus)
	b.exec(`INSERT INTO gpus (id, host_id, uuid, ordinal, model, product, memory_mib) VALUES ($1, $2, $1::uuid::text, $3, 'H100', 'NVIDIA H100', 80000)`, gpu, b.host, b.gpus)
	b.exec(`INSERT INTO leases (id, cluster_id, node_id, host_id, gpu_id, customer_org_id, owner_org_id, state, price_per_gpu_hour, fee_bps)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 'billing', $8, $9)`, lease, cluster, node, b.host, gpu, b.customer, b.owner, price, feeBPS)
	b.check(pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error { return b.book.Hold(b.Context(), tx, b.customer, booking, hold) }))
	b.exec(`INSERT INTO usage (id, lease_id, host_id, started_at, confirmed_at, limit_at) VALUES ($1, $2, $3, $4, $4, $4::timestamptz + interval '1 day')`,
		ids.New[ids.Usage](), lease, b.host, base)
	return lease
}

// used lets a lease run until so long after base and charges for it.
func (b *bench) used(lease ids.Lease, total time.Duration) {
	b.Helper()
	b.exec(`UPDATE usage SET confirmed_at = $2 WHERE lease_id = $1 AND ended_at IS NULL`, lease, base.Add(total))
	b.check(b.meter.Settle(b.Context()))
}

func (b *bench) payable() money.Amount {
	b.Helper()
	balance, err := b.book.Balance(b.Context(), b.pool, ledger.Of(ledger.OwnerPayable, b.owner))
	b.check(err)
	return balance
}

// batch is a drafted payout to the owner.
type batch struct {
	*bench
	id     ids.Batch
	payout ids.Payout
	amount money.Amount
	memo   string
}

// draft stores a batch as payouts do: rows, the reserve entry, and then the manifest.
func (b *bench) draft(amount money.Amount) *batch { return b.store(amount, true) }

func (b *bench) store(amount money.Amount, sealed bool) *batch {
	b.Helper()
	d := &batch{bench: b, id: ids.New[ids.Batch](), payout: ids.New[ids.Payout](), amount: amount}
	b.check(pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) (err error) {
		if _, err := tx.Exec(b.Context(), `
			INSERT INTO payout_batches (id, mint, total, payee_count, nonce_account, nonce_value) VALUES ($1, $2, $3, 1, $4, $4)`,
			d.id, usdc.Mint, amount, "nonce nonce nonce nonce nonce "+d.id.String()[20:30]); err != nil {
			return err
		}
		if _, err := tx.Exec(b.Context(), `
			INSERT INTO payouts (id, batch_id, payee_org_id, wallet, token_account, creates_account, amount, sequence)
			VALUES ($1, $2, $3, $4, $5, false, $6, 1 + (SELECT count(*) FROM payouts WHERE payee_org_id = $3 AND numbered))`,
			d.payout, d.id, b.owner, treasury, usdc.Mint, amount); err != nil {
			return err
		}
		if _, err := b.book.Post(b.Context(), tx, ledger.Entry{
			Key: "payout_reserve:" + d.id.String(), Kind: ledger.KindPayoutReserve, Refs: ledger.Refs{Batch: d.id},
			Legs: []ledger.Leg{{Debit: ledger.Of(ledger.OwnerPayable, b.owner), Credit: ledger.Of(ledger.PayoutInFlight, b.owner), Amount: amount}},
		}); err != nil || !sealed {
			return err
		}
		d.memo, err = b.Seal(b.Context(), tx, d.id)
		return err
	}))
	return d
}

// signed takes the batch to where its transaction may be on the chain.
func (d *batch) signed() {
	d.Helper()
	d.exec(`UPDATE payout_batches SET state = 'approved', approved_by = $2, approved_at = now() WHERE id = $1`, d.id, d.user)
	d.exec(`UPDATE payout_batches SET state = 'signed', message = '\x00', signing_started_at = now() WHERE id = $1`, d.id)
	d.exec(`INSERT INTO payout_transactions (signature, batch_id, nonce_account, nonce_value, wire, block_time)
		SELECT repeat('S', 40) || right(id::text, 30), id, nonce_account, nonce_value, '\x00', $2 FROM payout_batches WHERE id = $1`, d.id, base)
	d.exec(`UPDATE payout_batches SET state = 'sent' WHERE id = $1`, d.id)
}

// pays ends the batch well.
func (d *batch) pays() *batch {
	d.Helper()
	d.signed()
	d.exec(`UPDATE payout_batches SET state = 'finalized', finalized_at = now() WHERE id = $1`, d.id)
	d.exec(`UPDATE payouts SET live = false WHERE batch_id = $1`, d.id)
	return d
}

// fails ends the batch without having paid.
func (d *batch) fails() *batch {
	d.Helper()
	d.exec(`UPDATE payout_batches SET state = 'cancelled', state_reason = 'test' WHERE id = $1`, d.id)
	d.exec(`UPDATE payouts SET live = false WHERE batch_id = $1`, d.id)
	d.post("payout_return:"+d.id.String(), ledger.KindPayoutReturn, "", ledger.Leg{
		Debit: ledger.Of(ledger.PayoutInFlight, d.owner), Credit: ledger.Of(ledger.OwnerPayable, d.owner), Amount: d.amount,
	})
	return d
}

// manifest reads what was sealed, and checks what holds of every manifest.
func (d *batch) manifest() *proof.Manifest {
	d.Helper()
	var document string
	d.check(d.pool.QueryRow(d.Context(), `SELECT document FROM manifests WHERE batch_id = $1`, d.id).Scan(&document))
	m := new(proof.Manifest)
	d.check(json.Unmarshal([]byte(document), m))
	root, err := m.Root()
	d.check(err)
	if d.memo != proof.Memo(d.id, root) {
		d.Errorf("the memo is %q, the root %s", d.memo, root)
	}
	if m.Batch != d.id || m.Network != network || m.Mint != usdc.Mint || m.Treasury != treasury || len(m.Payouts) != 1 || m.Payouts[0].Amount != d.amount {
		d.Errorf("the manifest: %s", document)
	}
	for i := range m.Payouts {
		d.check(proof.CheckSum(&m.Payouts[i]))
		for j := range m.Payouts[i].Records {
			d.check(proof.CheckRecord(&m.Payouts[i].Records[j]))
		}
	}
	return m
}

func (b *bench) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
