package applier

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// termConstraint is what assert_leader raises.
const termConstraint = "leadership_term"

// batch is one transaction's worth of bookings.
type batch struct {
	*Applier
	term int64
	only ids.Booking // zero: those that wait

	bookings  []schedulerdb.Booking
	decisions []*decision
	now       time.Time // the database's, when the transaction began
	began     time.Time // ours at that moment
	claim     *census.Claim
	heads     []census.Head
	exact     bool        // nothing but leases was taken
	again     bool        // a booking waits for what another of the batch gave back
	preempted []*decision // those that get the GPUs of spot clusters
	rows      rows
}

// decision is what becomes of one booking. Without a state it goes on waiting.
type decision struct {
	booking schedulerdb.Booking
	spec    market.Spec
	request placement.Request
	quoted  []market.Line
	broken  error // what of it cannot be read
	part    *census.Part
	hold    money.Amount // to be held now

	state    string
	refusal  *errs.Error
	lines    []market.Line // what it got
	masks    []uint64      // which GPUs of each line's host
	startsAt time.Time     // of a scheduled one
	anew     bool          // the lines are not the quoted ones
	write    func(ctx context.Context, tx pgx.Tx) error
}

func (d *decision) refuse(refusal *errs.Error) {
	d.part.Back()
	d.state, d.refusal, d.hold, d.write = stateRefused, refusal, 0, nil
}

const (
	stateAccepted  = "accepted"
	stateScheduled = "scheduled"
	stateRefused   = "refused"
)

// decided is how many bookings a committed batch decided.
func (b *batch) decided() (n int) {
	for _, d := range b.decisions {
		if d.state != "" {
			n++
		}
	}
	return n
}

// refusedByDatabase says that the batch failed for what was in it, and not for the connection or the term.
func (b *batch) refusedByDatabase(err error) bool {
	var refusal *pgconn.PgError
	return len(b.bookings) > 0 && (errors.Is(err, errStale) || errors.As(err, &refusal) && refusal.ConstraintName != termConstraint)
}

// run decides in one transaction. After an error nothing has changed, and the hosts and places concerned will be read again.
func (b *batch) run(ctx context.Context) error {
	err := pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		waiting, err := b.read(ctx, tx)
		if err != nil || !waiting {
			return err
		}
		if err := b.decide(ctx, tx); err != nil {
			return err
		}
		return b.commit(ctx, tx)
	})
	if b.claim == nil {
		if err != nil {
			return fmt.Errorf("apply bookings: %w", err)
		}
		return nil
	}
	if err != nil {
		b.claim.Failed()
		b.slots.forget()
		return fmt.Errorf("apply bookings: %w", err)
	}
	b.claim.Committed(b.exact)
	b.observe()
	return nil
}

// read finds what waits, and brings the fleet up to date for it.
func (b *batch) read(ctx context.Context, tx pgx.Tx) (waiting bool, err error) {
	begun, err := b.queries.BeginBatch(ctx, tx, leader.RoleScheduler, b.term)
	if err != nil {
		return false, err
	}
	b.now, b.began = begun.Now, time.Now()
	if b.bookings, err = b.waiting(ctx, tx); err != nil || len(b.bookings) == 0 {
		return false, err
	}
	if err := b.fleet.Sync(ctx, tx); err != nil { // nothing has been written yet
		return false, err
	}
	b.slots.begin()
	b.heads = b.fleet.Heads()
	if err := b.slots.follow(ctx, b.queries, tx, b.fleet.Reread(), b.heads); err != nil {
		return false, err
	}
	b.claim, b.exact = b.fleet.Claim(begun.Xid.Uint64), true
	return true, nil
}

func (b *batch) waiting(ctx context.Context, tx pgx.Tx) ([]schedulerdb.Booking, error) {
	if !b.only.IsZero() {
		booking, err := b.queries.WaitingBooking(ctx, tx, b.only)
		if err != nil {
			return nil, fmt.Errorf("read booking: %w", err)
		}
		return booking, nil
	}
	deferred := b.deferredNow()
	due, err := b.queries.DueBookings(ctx, tx, deferred, int32(b.size))
	if err != nil {
		return nil, fmt.Errorf("read due bookings: %w", err)
	}
	room := b.size - len(due)
	if room == 0 {
		return due, nil
	}
	requested, err := b.queries.RequestedBookings(ctx, tx, deferred, int32(room))
	if err != nil {
		return nil, fmt.Errorf("read waiting bookings: %w", err)
	}
	return append(due, requested...), nil
}

// open begins the decisions and reads the places of all quoted machines at once.
func (b *batch) open(ctx context.Context, tx pgx.Tx) error {
	var machines []string
	for _, booking := range b.bookings {
		d := &decision{booking: booking, part: b.claim.Part()}
		d.broken = d.parse()
		for _, line := range d.quoted {
			machines = append(machines, b.fleet.Machine(line.HostID))
		}
		b.decisions = append(b.decisions, d)
	}
	return b.slots.know(ctx, b.queries, tx, machines)
}

// decide places every booking and makes the holds.
func (b *batch) decide(ctx context.Context, tx pgx.Tx) error {
	if err := b.open(ctx, tx); err != nil {
		return err
	}
	var holds []EscrowHold
	for _, d := range b.decisions {
		booking := d.booking
		err := b.place(ctx, tx, d)
		var refusal *errs.Error
		var undecidable undecidableError
		switch {
		case errors.As(err, &refusal):
			d.refuse(refusal)
			if booking.State == stateScheduled {
				if err := b.giveUp(ctx, tx, booking); err != nil {
					return err
				}
			}
		case errors.As(err, &undecidable):
			d.part.Back()
			d.state = ""
			b.log.WarnContext(ctx, "booking not decided, it will be tried again", "booking_id", booking.ID, "error", err)
			b.deferred[booking.ID] = time.Now().Add(putOff)
		case err != nil:
			return err
		}
		if d.hold > 0 {
			holds = append(holds, EscrowHold{Org: booking.OrgID, Booking: booking.ID, Amount: d.hold})
		}
	}
	return b.hold(ctx, tx, holds)
}

// undecidableError is about one booking that can neither be placed nor refused, such as one with a broken plan.
type undecidableError struct{ error }

// hold makes the holds and drops the bookings whose balance cannot bear theirs. What was refused for want of GPUs then waits for
// the next batch: a dropped booking may have had them.
func (b *batch) hold(ctx context.Context, tx pgx.Tx, holds []EscrowHold) error {
	refused, err := b.escrow.HoldAll(ctx, tx, holds)
	if err != nil {
		return fmt.Errorf("hold the money: %w", err)
	}
	if len(refused) == 0 {
		return nil
	}
	for _, d := range b.decisions {
		if refusal := refused[d.booking.ID]; refusal != nil {
			d.refuse(refusal)
		} else if d.state == stateRefused && d.refusal.Code == errs.NoCapacity && d.booking.State != stateScheduled {
			d.state = ""
			b.again = true
		}
	}
	return nil
}

// giveUp returns what a scheduled booking had.
func (b *batch) giveUp(ctx context.Context, tx pgx.Tx, booking schedulerdb.Booking) error {
	if err := b.escrow.Release(ctx, tx, booking.OrgID, booking.ID, booking.HoldBaseUnits); err != nil {
		return fmt.Errorf("give the hold back: %w", err)
	}
	b.exact = false
	b.rows.outcomes.unreserve = append(b.rows.outcomes.unreserve, uuid.UUID(booking.ID))
	return nil
}

// commit writes all decisions.
func (b *batch) commit(ctx context.Context, tx pgx.Tx) error {
	for _, d := range b.decisions {
		if d.state == "" {
			continue
		}
		if d.write != nil {
			if err := d.write(ctx, tx); err != nil {
				return err
			}
		}
		if err := b.addOutcome(d); err != nil {
			return err
		}
	}
	if err := b.rows.write(ctx, tx, b.rayVersion); err != nil {
		return err
	}
	for _, p := range b.preempted {
		if _, err := b.queries.PreemptClusters(ctx, tx, p.startsAt, p.booking.ID); err != nil {
			return fmt.Errorf("preempt spot clusters: %w", err)
		}
	}
	return nil
}

func (b *batch) addOutcome(d *decision) error {
	o := outcome{state: d.state, refusal: d.refusal}
	if d.state != stateRefused && d.anew {
		plan, err := json.Marshal(d.lines)
		if err != nil {
			return fmt.Errorf("encode plan: %w", err)
		}
		o.plan = plan
	}
	if d.state == stateScheduled {
		o.hold = d.hold
		if d.booking.StartsAt == nil {
			o.start = &d.startsAt
		}
	}
	return b.rows.addOutcome(d.booking.ID, o)
}

// place decides one booking in memory, and by what else it reads. A refusal is an *errs.Error.
func (b *batch) place(ctx context.Context, tx pgx.Tx, d *decision) error {
	switch {
	case d.broken != nil:
		return d.broken
	case d.booking.Purpose == market.PurposeAddition:
		return b.placeAddition(ctx, tx, d)
	case d.booking.Purpose == market.PurposeExtension:
		return b.placeExtension(ctx, tx, d)
	case d.booking.State == stateScheduled:
		return b.start(ctx, tx, d)
	case d.spec.StartsAt.After(b.now):
		return b.schedule(d)
	default:
		return b.placeNow(ctx, tx, d)
	}
}

// parse reads what a booking asks for and what it was quoted.
func (d *decision) parse() (err error) {
	if d.spec, err = market.SpecOf(d.booking); err != nil {
		return undecidableError{err}
	}
	if err := json.Unmarshal(d.booking.Plan, &d.quoted); err != nil {
		return undecidableError{fmt.Errorf("read its plan: %w", err)}
	}
	if len(d.quoted) != int(d.booking.NodeCount) && d.booking.Purpose != market.PurposeExtension {
		return undecidableError{fmt.Errorf("its plan has %d hosts for %d nodes", len(d.quoted), d.booking.NodeCount)}
	}
	return nil
}

// ask makes the request of a start; the zero time is now.
func (b *batch) ask(d *decision, startsAt time.Time) error {
	spec := d.spec
	spec.StartsAt = startsAt
	d.request = market.RequestFor(spec, b.now)
	var more market.Requirements
	if err := json.Unmarshal(d.booking.Requirements, &more); err != nil {
		return undecidableError{fmt.Errorf("read its requirements: %w", err)}
	}
	d.request.Runtime = more.Runtime
	d.request.Image = cmp.Or(d.request.Image, b.rayVersion)
	return nil
}

// placeNow makes a cluster of the quoted hosts, or of others.
func (b *batch) placeNow(ctx context.Context, tx pgx.Tx, d *decision) error {
	if err := b.ask(d, time.Time{}); err != nil {
		return err
	}
	preempts := false
	for _, line := range d.quoted {
		preempts = preempts || line.Preempts
	}
	if !b.takeQuoted(d) {
		switch err := b.takeAnew(d); {
		case err == nil:
		case preempts:
			return b.preempt(d)
		default:
			return err
		}
	}
	d.hold = holdFor(d)
	return b.accept(ctx, tx, d)
}

func holdFor(d *decision) money.Amount {
	return max(1, market.Cost(d.lines, d.request.GPUsPerNode, d.spec.Duration))
}

// takeQuoted takes GPUs of exactly the quoted hosts.
func (b *batch) takeQuoted(d *decision) bool {
	d.lines, d.masks, d.anew = d.quoted, nil, false
	for _, line := range d.quoted {
		mask, ok := b.takeOne(d, line.HostID)
		if !ok {
			d.part.Back()
			return false
		}
		d.masks = append(d.masks, mask)
	}
	return true
}

// takeOne leases, or for later reserves, GPUs of one host.
func (b *batch) takeOne(d *decision, host ids.Host) (mask uint64, ok bool) {
	if d.request.Start > 0 {
		return d.part.Reserve(host, d.booking.GPUModel, d.request)
	}
	return d.part.Take(host, d.booking.GPUModel, d.request)
}

// takeAnew finds other hosts, together no dearer than the quoted ones.
func (b *batch) takeAnew(d *decision) error {
	plan, err := b.plan(d)
	if err != nil {
		return err
	}
	var limit money.Amount
	for _, line := range d.quoted {
		limit += line.Price
	}
	if plan.Price() > limit {
		return errs.New(errs.NoCapacity, "The quoted GPUs have gone and what is left is dearer: ask for a new quote.")
	}
	d.lines, d.masks, d.anew = nil, nil, true
	for _, n := range plan.Nodes {
		mask, ok := b.takeOne(d, n.Host.ID)
		if !ok {
			return undecidableError{fmt.Errorf("host %s was planned and cannot be taken", n.Host.ID)}
		}
		d.masks = append(d.masks, mask)
		d.lines = append(d.lines, lineOf(n))
	}
	return nil
}

func (b *batch) plan(d *decision) (plan placement.Plan, err error) {
	b.fleet.Read(func(x *placement.Index) {
		var placed bool
		if plan, placed = x.Place(d.request); !placed {
			explanation := x.Explain(d.request)
			err = errs.New(errs.NoCapacity, "The quoted GPUs have gone and no others fit. %s", explanation.Summary).WithDetails(explanation)
		}
	})
	return plan, err
}

func lineOf(n placement.Node) market.Line {
	return market.Line{
		HostID: n.Host.ID, Owner: n.Host.Owner, Region: n.Host.Region, Site: n.Host.Site, Price: n.Price,
		Hourly: n.Host.Prices[placement.Hourly], Simulated: n.Host.Simulated,
	}
}

// accept gives a placed booking its head and slots, and its cluster.
func (b *batch) accept(ctx context.Context, tx pgx.Tx, d *decision) error {
	runtime, regions := b.whereabouts(d)
	head, err := b.slots.head(b.heads, runtime, b.rayVersion, regions)
	if err != nil {
		return err
	}
	cluster, used := ids.New[ids.Cluster](), new(slotSet)
	nodes := []node{{cluster: cluster, host: head.ID, machine: head.Machine, head: true}}
	for i, line := range d.lines {
		nodes = append(nodes, b.gpuNode(d, cluster, int32(i+1), line, d.masks[i]))
	}
	for i := range nodes {
		if nodes[i].slot, err = b.slots.take(ctx, b.queries, tx, nodes[i].machine, used); err != nil {
			return err
		}
	}
	d.state = stateAccepted
	d.write = func(context.Context, pgx.Tx) error {
		for _, n := range nodes {
			b.rows.addNode(n)
		}
		b.addCluster(d, cluster, runtime)
		b.rows.addEvent(cluster, d.booking.OrgID, "state", "reserved",
			fmt.Sprintf("Reserved %d x %d %s and set the money aside.", d.booking.NodeCount, d.booking.GPUsPerNode, d.booking.GPUModel))
		return nil
	}
	return nil
}

// whereabouts are the runtime and the regions of the hosts that a booking got.
func (b *batch) whereabouts(d *decision) (runtime string, regions []string) {
	b.fleet.Read(func(x *placement.Index) {
		for _, line := range d.lines {
			if h, known := x.Get(line.HostID, d.booking.GPUModel); known {
				runtime, regions = h.Runtime, append(regions, h.Region)
			}
		}
	})
	return runtime, regions
}

func (b *batch) gpuNode(d *decision, cluster ids.Cluster, ordinal int32, line market.Line, mask uint64) node {
	return node{
		cluster: cluster, host: line.HostID, machine: b.fleet.Machine(line.HostID), ordinal: ordinal, gpus: mask, model: d.booking.GPUModel,
		customer: d.booking.OrgID, price: line.Price, feeBps: d.booking.FeeBps,
	}
}

func (b *batch) addCluster(d *decision, cluster ids.Cluster, runtime string) {
	booking, c := d.booking, &b.rows.clusters
	name := booking.ClusterName
	if name == "" {
		name = fmt.Sprintf("%s x%d", booking.GPUModel, booking.NodeCount*booking.GPUsPerNode)
	}
	hold := d.hold
	if booking.State == stateScheduled {
		hold = booking.HoldBaseUnits // since it was scheduled
	}
	c.ids, c.orgs, c.bookings = append(c.ids, uuid.UUID(cluster)), append(c.orgs, uuid.UUID(booking.OrgID)), append(c.bookings, uuid.UUID(booking.ID))
	c.creators, c.names = append(c.creators, optional(booking.CreatedBy)), append(c.names, name)
	c.models, c.kinds, c.runtimes = append(c.models, booking.GPUModel), append(c.kinds, booking.Kind), append(c.runtimes, runtime)
	c.nodes, c.gpusPerNode, c.fees = append(c.nodes, booking.NodeCount), append(c.gpusPerNode, booking.GPUsPerNode), append(c.fees, booking.FeeBps)
	c.durations, c.holds = append(c.durations, booking.DurationMS), append(c.holds, int64(hold))
	c.tokens, c.ends = append(c.tokens, b.sealer.Seal(rand.Text())), append(c.ends, time.Unix(d.request.Until, 0))
	c.parks, c.releases = append(c.parks, booking.ParkAfterMS), append(c.releases, booking.ReleaseAfterMS)
}

// observe counts decisions once they are committed, by the database's times.
func (b *batch) observe() {
	now := b.now.Add(time.Since(b.began))
	b.metrics.batches.Observe(float64(len(b.decisions)))
	for _, d := range b.decisions {
		if d.state == "" {
			continue
		}
		asked := d.booking.RequestedAt
		if d.booking.State == stateScheduled {
			asked = d.booking.StartsAt
		}
		name := d.state
		if d.refusal != nil {
			name = string(d.refusal.Code)
		}
		b.metrics.observe(name, now.Sub(*asked))
	}
}
