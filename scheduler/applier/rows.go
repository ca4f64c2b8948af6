package applier

import (
	"context"
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
)

// rows are what a transaction writes, column by column, as unnest wants them. The zero value is empty.
type rows struct {
	clusters clusterRows
	nodes    nodeRows
	leases   leaseRows
	reserved reservedRows
	events   eventRows
	outcomes outcomeRows
	hosts    map[ids.Host]struct{} // what should run there has changed
}

type clusterRows struct {
	ids, orgs, bookings            []uuid.UUID
	creators                       []*uuid.UUID
	names, models, kinds, runtimes []string
	nodes, gpusPerNode, fees       []int32
	durations, holds               []int64
	tokens                         [][]byte
	ends                           []time.Time
	parks, releases                []*int64
}

type nodeRows struct {
	ids, clusters, hosts  []uuid.UUID
	roles, machines       []string
	ordinals, slots, gpus []int32
}

type leaseRows struct {
	ids, clusters, nodes, hosts, customers []uuid.UUID
	models                                 []string
	ordinals, fees                         []int32
	prices                                 []int64
}

type reservedRows struct {
	bookings, hosts []uuid.UUID
	models          []string
	ordinals        []int32
	from, to        []time.Time
}

type eventRows struct {
	clusters, orgs  []uuid.UUID
	kinds, messages []string
	states          []*string
}

type outcomeRows struct {
	ids             []uuid.UUID
	states          []string
	codes, refusals []*string
	details, plans  [][]byte
	holds           []*int64
	starts          []*time.Time
	unreserve       []uuid.UUID // bookings whose reservations are no longer open
}

func optional[K ids.Kind](id ids.ID[K]) *uuid.UUID {
	if id.IsZero() {
		return nil
	}
	u := uuid.UUID(id)
	return &u
}

// texts are ids as notifications name them.
func texts(list []uuid.UUID) []string {
	out := make([]string, len(list))
	for i, id := range list {
		out[i] = id.String()
	}
	return out
}

// node is a node to write.
type node struct {
	cluster ids.Cluster
	host    ids.Host
	machine string
	head    bool
	ordinal int32
	slot    int32

	// Of a GPU node:
	gpus     uint64 // by place on the host
	model    string
	customer ids.Org
	price    money.Amount
	feeBps   int32
}

func (r *rows) addNode(n node) {
	id, role := uuid.UUID(ids.New[ids.Node]()), "gpu"
	if n.head {
		role = "head"
	}
	r.nodes.ids = append(r.nodes.ids, id)
	r.nodes.clusters = append(r.nodes.clusters, uuid.UUID(n.cluster))
	r.nodes.hosts = append(r.nodes.hosts, uuid.UUID(n.host))
	r.nodes.roles = append(r.nodes.roles, role)
	r.nodes.machines = append(r.nodes.machines, n.machine)
	r.nodes.ordinals = append(r.nodes.ordinals, n.ordinal)
	r.nodes.slots = append(r.nodes.slots, n.slot)
	r.nodes.gpus = append(r.nodes.gpus, int32(bits.OnesCount64(n.gpus)))
	for gpu := range places(n.gpus) {
		r.leases.ids = append(r.leases.ids, uuid.UUID(ids.New[ids.Lease]()))
		r.leases.clusters = append(r.leases.clusters, uuid.UUID(n.cluster))
		r.leases.nodes = append(r.leases.nodes, id)
		r.leases.hosts = append(r.leases.hosts, uuid.UUID(n.host))
		r.leases.customers = append(r.leases.customers, uuid.UUID(n.customer))
		r.leases.models = append(r.leases.models, n.model)
		r.leases.ordinals = append(r.leases.ordinals, gpu)
		r.leases.fees = append(r.leases.fees, n.feeBps)
		r.leases.prices = append(r.leases.prices, int64(n.price))
	}
	r.wake(n.host)
}

// wake has a host told that its desired state has changed.
func (r *rows) wake(host ids.Host) {
	if r.hosts == nil {
		r.hosts = make(map[ids.Host]struct{})
	}
	r.hosts[host] = struct{}{}
}

// places are the bits of a bitmap, in order.
func places(mask uint64) func(yield func(int32) bool) {
	return func(yield func(int32) bool) {
		for ; mask != 0; mask &= mask - 1 {
			if !yield(int32(bits.TrailingZeros64(mask))) {
				return
			}
		}
	}
}

func (r *rows) addEvent(cluster ids.Cluster, org ids.Org, kind, state, message string) {
	r.events.clusters, r.events.orgs = append(r.events.clusters, uuid.UUID(cluster)), append(r.events.orgs, uuid.UUID(org))
	r.events.kinds, r.events.messages = append(r.events.kinds, kind), append(r.events.messages, message)
	if state == "" {
		r.events.states = append(r.events.states, nil)
		return
	}
	r.events.states = append(r.events.states, &state)
}

func (r *rows) addReservation(booking ids.Booking, host ids.Host, model string, mask uint64, from, to time.Time) {
	for gpu := range places(mask) {
		r.reserved.bookings = append(r.reserved.bookings, uuid.UUID(booking))
		r.reserved.hosts = append(r.reserved.hosts, uuid.UUID(host))
		r.reserved.models = append(r.reserved.models, model)
		r.reserved.ordinals = append(r.reserved.ordinals, gpu)
		r.reserved.from, r.reserved.to = append(r.reserved.from, from), append(r.reserved.to, to)
	}
}

// outcome is what becomes of a booking's row. Absent values leave it as it is.
type outcome struct {
	state   string
	refusal *errs.Error
	plan    []byte
	hold    money.Amount
	start   *time.Time
}

func (r *rows) addOutcome(booking ids.Booking, o outcome) error {
	var code, refusal *string
	var details []byte
	if o.refusal != nil {
		c := string(o.refusal.Code)
		code, refusal = &c, &o.refusal.Message
		if o.refusal.Details != nil {
			var err error
			if details, err = json.Marshal(o.refusal.Details); err != nil {
				return fmt.Errorf("encode refusal: %w", err)
			}
		}
	}
	var hold *int64
	if o.hold > 0 {
		amount := int64(o.hold)
		hold = &amount
	}
	r.outcomes.ids, r.outcomes.states = append(r.outcomes.ids, uuid.UUID(booking)), append(r.outcomes.states, o.state)
	r.outcomes.codes, r.outcomes.refusals = append(r.outcomes.codes, code), append(r.outcomes.refusals, refusal)
	r.outcomes.details, r.outcomes.plans = append(r.outcomes.details, details), append(r.outcomes.plans, o.plan)
	r.outcomes.holds, r.outcomes.starts = append(r.outcomes.holds, hold), append(r.outcomes.starts, o.start)
	return nil
}

// write sends everything in one go. It returns errStale when a GPU is not where the census says.
func (r *rows) write(ctx context.Context, tx pgx.Tx, rayVersion string) error {
	statements := &pgx.Batch{}
	stale := false
	wrote := func(want int) func(pgconn.CommandTag) error {
		return func(tag pgconn.CommandTag) error {
			stale = stale || tag.RowsAffected() != int64(want)
			return nil
		}
	}
	if c := r.clusters; len(c.ids) > 0 {
		statements.Queue(insertClusters, c.ids, c.orgs, c.bookings, c.creators, c.names, c.models, c.nodes, c.gpusPerNode, c.durations,
			c.holds, c.fees, c.tokens, c.ends, c.kinds, c.runtimes, c.parks, c.releases, rayVersion)
	}
	if n := r.nodes; len(n.ids) > 0 {
		statements.Queue(insertNodes, n.ids, n.clusters, n.hosts, n.roles, n.ordinals, n.slots, n.gpus, n.machines)
	}
	if l := r.leases; len(l.ids) > 0 {
		statements.Queue(insertLeases, l.ids, l.clusters, l.nodes, l.hosts, l.ordinals, l.models, l.customers, l.prices, l.fees).
			Exec(wrote(len(l.ids)))
	}
	if b := r.outcomes.unreserve; len(b) > 0 {
		statements.Queue(releaseReservations, b)
	}
	if v := r.reserved; len(v.bookings) > 0 {
		statements.Queue(insertReservations, v.bookings, v.hosts, v.ordinals, v.models, v.from, v.to).Exec(wrote(len(v.bookings)))
	}
	if e := r.events; len(e.clusters) > 0 {
		statements.Queue(insertEvents, e.clusters, e.orgs, e.kinds, e.states, e.messages)
	}
	if o := r.outcomes; len(o.ids) > 0 {
		statements.Queue(updateBookings, o.ids, o.states, o.codes, o.refusals, o.details, o.plans, o.holds, o.starts)
	}
	hosts := r.hostList()
	if len(hosts) > 0 {
		statements.Queue(wakeHosts, hosts)
	}
	channels, payloads := r.notifications(hosts)
	statements.Queue(notify, channels, payloads)
	if err := tx.SendBatch(ctx, statements).Close(); err != nil {
		return fmt.Errorf("write bookings: %w", err)
	}
	if stale {
		return errStale
	}
	return nil
}

func (r *rows) hostList() []uuid.UUID {
	hosts := make([]uuid.UUID, 0, len(r.hosts))
	for host := range r.hosts {
		hosts = append(hosts, uuid.UUID(host))
	}
	return hosts
}

// notifications are sent when the transaction commits: first the decided bookings, as lists, because customers wait for them, then the
// hosts, as lists too, for their gateways, and each organisation once.
func (r *rows) notifications(hosts []uuid.UUID) (channels, payloads []string) {
	channels, payloads = pgnotify.AppendLists(channels, payloads, pgnotify.ChannelDecided, texts(r.outcomes.ids))
	if len(hosts) > 0 {
		channels, payloads = append(channels, pgnotify.ChannelScheduler), append(payloads, "")
	}
	channels, payloads = pgnotify.AppendLists(channels, payloads, pgnotify.ChannelHost, texts(hosts))
	for _, org := range slices.Compact(slices.Sorted(slices.Values(texts(r.events.orgs)))) {
		channels, payloads = append(channels, pgnotify.ChannelClusterEvents), append(payloads, org)
	}
	return channels, payloads
}

const (
	insertClusters = `
		INSERT INTO clusters (id, org_id, booking_id, created_by, name, gpu_model, node_count, gpus_per_node, duration_ms, hold_base_units,
			fee_bps, ray_token_sealed, forecast_end, kind, runtime, park_after_ms, release_after_ms, ray_version, places)
		SELECT n.*, $18, ARRAY(SELECT generate_series(1, n.node_count))
		FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::int[], $8::int[], $9::bigint[], $10::bigint[],
			$11::int[], $12::bytea[], $13::timestamptz[], $14::text[], $15::text[], $16::bigint[], $17::bigint[])
			AS n (id, org_id, booking_id, created_by, name, gpu_model, node_count, gpus_per_node, duration_ms, hold, fee, token, ends, kind, runtime,
				park, release)`
	insertNodes = `
		INSERT INTO nodes (id, cluster_id, host_id, role, ordinal, slot, gpus, machine_id)
		SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::int[], $6::int[], $7::int[], $8::text[])`
	// A lease names the GPU at a place of a host and the host's owner as they are now. Places that are not as
	// expected give no lease. Its time is the clock's, not the transaction's, which began before the lease that it follows may have ended.
	insertLeases = `
		INSERT INTO leases (id, cluster_id, node_id, host_id, gpu_id, customer_org_id, owner_org_id, price_per_gpu_hour, fee_bps, opened_at)
		SELECT n.id, n.cluster_id, n.node_id, g.host_id, g.id, n.customer, h.org_id, n.price, n.fee, clock_timestamp()
		FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::int[], $6::text[], $7::uuid[], $8::bigint[], $9::int[])
			AS n (id, cluster_id, node_id, host_id, ordinal, model, customer, price, fee)
		JOIN gpus g ON g.host_id = n.host_id AND g.ordinal = n.ordinal AND g.model = n.model AND g.healthy
		JOIN hosts h ON h.id = g.host_id`
	releaseReservations = `
		UPDATE reservations SET released_at = clock_timestamp() WHERE booking_id = ANY ($1::uuid[]) AND released_at IS NULL`
	insertReservations = `
		INSERT INTO reservations (booking_id, gpu_id, gpu_number, host_id, during)
		SELECT n.booking_id, g.id, g.number, g.host_id, tstzrange(n.starts_at, n.ends_at)
		FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::timestamptz[], $6::timestamptz[])
			AS n (booking_id, host_id, ordinal, model, starts_at, ends_at)
		JOIN gpus g ON g.host_id = n.host_id AND g.ordinal = n.ordinal AND g.model = n.model`
	insertEvents = `
		INSERT INTO cluster_events (cluster_id, org_id, kind, state, message)
		SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[])`
	updateBookings = `
		UPDATE bookings b SET state = n.state, decided_at = clock_timestamp(), refusal_code = n.code, refusal = n.refusal,
			refusal_details = n.details, plan = coalesce(n.plan, b.plan), hold_base_units = coalesce(n.hold, b.hold_base_units),
			starts_at = coalesce(n.starts_at, b.starts_at)
		FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::jsonb[], $7::bigint[], $8::timestamptz[])
			AS n (id, state, code, refusal, details, plan, hold, starts_at)
		WHERE b.id = n.id`
	// What should run on these hosts has changed: idle ones are leased now. Like every statement on several hosts it locks them in
	// the order of ids.
	wakeHosts = `
		WITH ordered AS (SELECT id, state FROM hosts WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE)
		UPDATE hosts h SET state = CASE o.state WHEN 'idle' THEN 'leased' ELSE o.state END, desired_generation = h.desired_generation + 1
		FROM ordered o WHERE h.id = o.id`
	notify = `SELECT pg_notify(n.channel, n.payload) FROM unnest($1::text[], $2::text[]) AS n (channel, payload)`
)
