package market

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// What accepting a quote does.
const (
	PurposeCluster   = "cluster"
	PurposeAddition  = "addition"
	PurposeExtension = "extension"
)

// States of a booking.
const (
	stateBidding   = "bidding"
	stateQuoted    = "quoted"
	stateScheduled = "scheduled"
	stateAccepted  = "accepted"
	stateExpired   = "expired"
	stateCancelled = "cancelled"
)

const (
	quoteLifetime  = 60 * time.Second
	manualLifetime = 120 * time.Second // for choosing bids by hand
)

// rttUnknown is a round trip that has not been measured.
const rttUnknown = time.Duration(-1)

// Line is one node of a quote, and the JSON of bookings.plan.
type Line struct {
	HostID    ids.Host     `json:"host_id"`
	Owner     ids.Org      `json:"owner_org_id"`
	Region    string       `json:"region"`
	Site      string       `json:"site"`
	Price     money.Amount `json:"price_per_gpu_hour"`
	Hourly    money.Amount `json:"hourly_price,omitempty"` // what an hour would have cost: the price without a discount
	Preempts  bool         `json:"preempts,omitempty"`     // takes GPUs from spot bookings
	BidID     ids.Bid      `json:"bid_id,omitzero"`        // of an auction
	Simulated bool         `json:"simulated"`
}

// Quote is a price that holds until ExpiresAt, and what became of it.
type Quote struct {
	ID          ids.Booking
	Spec        Spec // as it was asked for
	Kind        string
	Purpose     string
	Target      ids.Cluster // which cluster it adds to or extends
	GPUModel    string      // of the plan, as the runtime
	Runtime     string
	Class       placement.Class
	Lines       []Line
	WorstRTT    time.Duration // between the two nodes farthest apart; negative: not known
	FeeBps      int
	Hold        money.Amount // the most that the booking can cost
	State       string       // bidding, quoted, scheduled, accepted, expired, refused, cancelled
	QuotedAt    time.Time
	ExpiresAt   time.Time
	StartsAt    *time.Time // at once when nil
	BidsCloseAt *time.Time
	DecidedAt   *time.Time
	ClusterID   ids.Cluster // once accepted
	refusal     *errs.Error
}

// Refusal says why a refused booking was refused; nil for all others.
func (q Quote) Refusal() *errs.Error { return q.refusal }

// Simulated reports whether any of the quoted hosts is simulated.
func (q Quote) Simulated() bool {
	return slices.ContainsFunc(q.Lines, func(l Line) bool { return l.Simulated })
}

// Preempts reports whether the booking takes GPUs from spot bookings.
func (q Quote) Preempts() bool {
	return slices.ContainsFunc(q.Lines, func(l Line) bool { return l.Preempts })
}

// PerHour is the price of the whole cluster for an hour.
func (q Quote) PerHour() money.Amount { return perHour(q.Lines, q.Spec.GPUsPerNode) }

func perHour(lines []Line, gpusPerNode int) money.Amount {
	var sum money.Amount
	for _, l := range lines {
		sum += l.Price * money.Amount(gpusPerNode)
	}
	return sum
}

// CostOf is what the cluster costs after some time in state ready.
func (q Quote) CostOf(elapsed time.Duration) money.Amount {
	return Cost(q.Lines, q.Spec.GPUsPerNode, elapsed)
}

// Cost adds up what each lease is charged: one per GPU, each rounded down by itself.
func Cost(lines []Line, gpusPerNode int, elapsed time.Duration) money.Amount {
	var sum money.Amount
	for _, l := range lines {
		sum += money.Amount(gpusPerNode) * money.Accrued(l.Price, elapsed.Milliseconds())
	}
	return sum
}

// HoldFor is what a booking of some lines sets aside: the most that it can cost.
func HoldFor(lines []Line, gpusPerNode int, duration time.Duration) money.Amount {
	return max(1, Cost(lines, gpusPerNode, duration))
}

// Quote prices the cheapest cluster of a spec and stores the price for a minute, or opens an auction for it. With nothing that fits it
// returns NoCapacity with a NoMatch as details, whose changes are stored as quotes.
func (s *Service) Quote(ctx context.Context, org ids.Org, user ids.User, spec Spec) (Quote, error) {
	request, now, err := s.prepare(ctx, &spec)
	if err != nil {
		return Quote{}, err
	}
	asker := asker{org, user}
	if spec.Kind == KindAuction {
		return s.openAuction(ctx, asker, spec, request, now)
	}
	plan, found := s.place(spec, request)
	if !found {
		return Quote{}, s.noMatch(ctx, asker, spec, request, now)
	}
	return s.store(ctx, s.pool, asker, quoteOf(spec, request, plan), quoteLifetime)
}

// asker is who gets a quote.
type asker struct {
	org  ids.Org
	user ids.User
}

// prepare validates a spec, puts its model into the market's spelling, and brings the fleet up to date.
func (s *Service) prepare(ctx context.Context, spec *Spec) (placement.Request, time.Time, error) {
	now, err := s.clock(ctx)
	if err != nil {
		return placement.Request{}, now, err
	}
	if err := s.validate(spec, now); err != nil {
		return placement.Request{}, now, err
	}
	if err := s.fleet.Sync(ctx, s.pool); err != nil {
		return placement.Request{}, now, fmt.Errorf("read the fleet: %w", err)
	}
	if err := s.matchNames(spec); err != nil {
		return placement.Request{}, now, err
	}
	return s.requestFor(*spec, now), now, nil
}

// requestFor is the request of a spec on hosts that can start the Ray that it is to run.
func (s *Service) requestFor(spec Spec, now time.Time) placement.Request {
	request := RequestFor(spec, now)
	request.Image = cmp.Or(request.Image, s.ray)
	return request
}

// place finds the cheapest plan. A market booking that is to start at once may take the GPUs of spot bookings if nothing else fits.
func (s *Service) place(spec Spec, request placement.Request) (plan placement.Plan, found bool) {
	s.fleet.Read(func(x *placement.Index) {
		if plan, found = x.Place(request); found || spec.Kind != KindMarket || request.Start != 0 {
			return
		}
		request.Preempt = true
		plan, found = x.Place(request)
	})
	return plan, found
}

// LinesOf are the lines of a plan.
func LinesOf(plan placement.Plan) []Line {
	lines := make([]Line, len(plan.Nodes))
	for i, node := range plan.Nodes {
		h := node.Host
		_, site, _ := strings.Cut(h.Site, "/") // the index tells sites of one name apart by their owner
		lines[i] = Line{
			HostID: h.ID, Owner: h.Owner, Region: h.Region, Site: site, Price: node.Price, Hourly: h.Prices[placement.Hourly],
			Simulated: h.Simulated,
		}
	}
	return lines
}

// quoteOf prices a plan. What the database knows, its id and times, is still missing.
func quoteOf(spec Spec, request placement.Request, plan placement.Plan) Quote {
	lines := LinesOf(plan)
	request.Preempt = false
	for i, node := range plan.Nodes {
		lines[i].Preempts = bits.OnesCount64(node.Host.FreeFor(request)) < spec.GPUsPerNode
	}
	return Quote{
		Spec: spec, Kind: spec.Kind, Purpose: PurposeCluster, GPUModel: plan.Model, Runtime: plan.Runtime, Class: classOf(spec), Lines: lines,
		WorstRTT: plan.WorstRTT, Hold: HoldFor(lines, spec.GPUsPerNode, spec.Duration), State: stateQuoted, StartsAt: nullable(spec.StartsAt),
	}
}

// store writes a quote and fills in what the database says of it.
func (s *Service) store(ctx context.Context, db schedulerdb.DBTX, who asker, quote Quote, lifetime time.Duration) (Quote, error) {
	fee, err := s.fees.FeeBps(ctx, db, who.org)
	if err != nil {
		return Quote{}, fmt.Errorf("read the platform's fee: %w", err)
	}
	quote.ID, quote.FeeBps = ids.New[ids.Booking](), fee
	plan, requirements, err := quote.documents()
	if err != nil {
		return Quote{}, err
	}
	spec := quote.Spec
	row, err := s.queries.InsertQuote(ctx, db, schedulerdb.InsertQuoteParams{
		ID: quote.ID, OrgID: who.org, CreatedBy: who.user, Kind: quote.Kind, Purpose: quote.Purpose, TargetClusterID: quote.Target,
		GPUModel: quote.GPUModel, NodeCount: int32(spec.Nodes), GPUsPerNode: int32(spec.GPUsPerNode), Regions: regionsOrEmpty(spec.Regions),
		DurationMS: spec.Duration.Milliseconds(), MaxPricePerGPUHour: nullable(int64(spec.MaxPrice)), FeeBps: int32(quote.FeeBps),
		Plan: plan, Requirements: requirements, HoldBaseUnits: quote.Hold, Lifetime: lifetime, ClusterName: spec.ClusterName,
		StartsAt: nullable(spec.StartsAt), ParkAfterMS: nullable(spec.ParkAfter.Milliseconds()),
		ReleaseAfterMS: nullable(spec.ReleaseAfter.Milliseconds()),
	})
	if err != nil {
		return Quote{}, fmt.Errorf("store the quote: %w", err)
	}
	quote.QuotedAt, quote.ExpiresAt = row.QuotedAt, row.ExpiresAt
	quote.noticeDrain(row.QuotedAt)
	return quote, nil
}

// noticeDrain says when a quote that takes GPUs from spot bookings could start: they have time to drain.
func (q *Quote) noticeDrain(now time.Time) {
	if q.State == stateQuoted && q.Preempts() {
		start := now.Add(DrainNotice)
		q.StartsAt = &start
	}
}

// documents are the stored forms of the lines and of the requirements.
func (q *Quote) documents() (plan, requirements []byte, err error) {
	if q.Lines == nil {
		q.Lines = []Line{}
	}
	r := requirementsOf(q.Spec)
	r.Runtime = q.Runtime
	if q.WorstRTT >= 0 {
		us := q.WorstRTT.Microseconds()
		r.QuotedRTTUS = &us
	}
	if plan, err = json.Marshal(q.Lines); err == nil {
		requirements, err = json.Marshal(r)
	}
	return plan, requirements, err
}

// inTx runs something in a transaction of its own.
func (s *Service) inTx(ctx context.Context, do func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, s.pool, do)
}

func quoteFromRow(b schedulerdb.Booking, cluster ids.Cluster, readAt time.Time) (Quote, error) {
	spec, requirements, err := readSpec(b)
	if err != nil {
		return Quote{}, err
	}
	if requirements.AnyModel {
		spec.GPUModel = ""
	}
	quote := Quote{
		ID: b.ID, Spec: spec, Kind: b.Kind, Purpose: b.Purpose, Target: b.TargetClusterID, GPUModel: b.GPUModel, Class: classOf(spec),
		Runtime: requirements.Runtime, WorstRTT: rttUnknown, FeeBps: int(b.FeeBps), Hold: b.HoldBaseUnits, State: b.State, QuotedAt: b.QuotedAt, ExpiresAt: b.ExpiresAt,
		StartsAt: b.StartsAt, BidsCloseAt: b.BidsCloseAt, DecidedAt: b.DecidedAt, ClusterID: cluster,
	}
	if us := requirements.QuotedRTTUS; us != nil {
		quote.WorstRTT = time.Duration(*us) * time.Microsecond
	}
	if err := json.Unmarshal(b.Plan, &quote.Lines); err != nil {
		return Quote{}, fmt.Errorf("read plan of %s: %w", b.ID, err)
	}
	if b.State == stateQuoted && b.RequestedAt == nil && !b.ExpiresAt.After(readAt) {
		quote.State = stateExpired // the sweep that stores it may not have come by yet
	}
	if quote.ClusterID.IsZero() && b.State == stateAccepted {
		quote.ClusterID = b.TargetClusterID
	}
	quote.noticeDrain(readAt)
	if err := quote.readRefusal(b); err != nil {
		return Quote{}, err
	}
	return quote, nil
}

// readRefusal restores why a booking was refused: the explanation of the scheduler's refusals, and raw JSON of what settlement said.
func (q *Quote) readRefusal(b schedulerdb.Booking) error {
	if b.RefusalCode == nil || b.Refusal == nil {
		return nil
	}
	q.refusal = errs.New(errs.Code(*b.RefusalCode), "%s", *b.Refusal)
	switch {
	case len(b.RefusalDetails) == 0:
	case q.refusal.Code == errs.NoCapacity:
		var details NoMatch
		if err := json.Unmarshal(b.RefusalDetails, &details); err != nil {
			return fmt.Errorf("read refusal of %s: %w", b.ID, err)
		}
		q.refusal.Details = details
	default:
		q.refusal.Details = json.RawMessage(b.RefusalDetails)
	}
	return nil
}

func regionsOrEmpty(regions []string) []string {
	if regions == nil {
		return []string{}
	}
	return regions
}
