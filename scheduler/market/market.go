// Package market is where owners' asks and customers' wishes meet: offers, quotes, bookings and explanations.
//
// A quote is a row of bookings in state quoted. It prices the cheapest plan of its moment and holds that price until it expires:
//
//	quoted -- accepted in time, placed and paid for --> accepted (a cluster exists)
//	   |---- accepted, but gone or unaffordable ------> refused (with a code and details)
//	   '---- not accepted in time --------------------> expired
//
// Accepting only marks the row and wakes the applier, the one writer of leases; Accept then waits for its decision. Accepting
// twice gives the first outcome again: the quote's id is the idempotency key.
//
// Every method is scoped to an organisation, and another organisation's quote is not found. Service is safe for concurrent use.
package market

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// Bounds of a booking.
const (
	MaxNodes       = 64
	MaxGPUsPerNode = 16
	MinDuration    = time.Minute
	MaxDuration    = 720 * time.Hour
)

const (
	quoteLifetime = 60 * time.Second
	acceptTimeout = 10 * time.Second
	acceptPoll    = 250 * time.Millisecond
	maxPrice      = money.Amount(1_000_000_000_000) // per GPU-hour: keeps every hold far from overflow
)

// Spec is the cluster that a customer wants. The zero value of a field beyond the shape is no condition.
type Spec struct {
	Kind           string // KindMarket when empty
	GPUModel       string // empty: the cheapest model with the memory and the compute capability below
	MinMemoryMiB   int64
	MinCompute     int // compute capability times ten
	Nodes          int
	GPUsPerNode    int
	Duration       time.Duration
	Regions        []string
	SameSite       bool
	MaxRTT         time.Duration
	CPUs           int // per node, as memory and disk
	MemoryBytes    int64
	DiskBytes      int64
	MinDriver      int
	Image          string // a version of Ray
	MinReliability int    // basis points
	MinTier        int
	AllowOwners    []ids.Org
	DenyOwners     []ids.Org
	MaxPrice       money.Amount  // per GPU-hour
	StartsAt       time.Time     // zero: at once
	Window         time.Duration // auctions: how long hosts may bid; zero: ten seconds
	Choose         string        // auctions: ChooseCheapest when empty
	ParkAfter      time.Duration // auto-stop; zero: never
	ReleaseAfter   time.Duration
	ClusterName    string
	Runtime        string // of stored bookings: what the quoted hosts run nodes with, which does not mix
}

// Offer is what one region has of one GPU model now.
type Offer struct {
	GPUModel    string
	Region      string
	MemoryMiB   int64
	FreeGPUs    int
	TotalGPUs   int
	Hosts       int // with a free GPU
	LargestNode int
	PriceFrom   money.Amount
	Simulated   bool
}

// Line is one node of a quote.
type Line struct {
	HostID    ids.Host     `json:"host_id"`
	Owner     ids.Org      `json:"owner_org_id"`
	Region    string       `json:"region"`
	Site      string       `json:"site"`
	Price     money.Amount `json:"price_per_gpu_hour"`
	Hourly    money.Amount `json:"hourly_price"` // the host's without the discounts of longer bookings
	Preempts  bool         `json:"preempts,omitempty"`
	BidID     ids.Bid      `json:"bid_id,omitzero"`
	Simulated bool         `json:"simulated"`
}

// Quote is a price that holds until ExpiresAt, and what became of it.
type Quote struct {
	ID        ids.Booking
	Spec      Spec
	Lines     []Line
	FeeBps    int
	Hold      money.Amount // the most that the booking can cost
	State     string       // quoted, accepted, expired, refused
	QuotedAt  time.Time
	ExpiresAt time.Time
	DecidedAt *time.Time
	ClusterID ids.Cluster // once accepted
	refusal   *errs.Error
}

// Simulated reports whether any of the quoted hosts is simulated.
func (q Quote) Simulated() bool {
	return slices.ContainsFunc(q.Lines, func(l Line) bool { return l.Simulated })
}

// PerHour is the price of the whole cluster for an hour.
func (q Quote) PerHour() money.Amount {
	var sum money.Amount
	for _, l := range q.Lines {
		sum += l.Price * money.Amount(q.Spec.GPUsPerNode)
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

// Service answers for the market. Make it with New.
type Service struct {
	pool     *pgxpool.Pool
	queries  *schedulerdb.Queries
	hub      *pgnotify.Hub
	currency money.Currency
	feeBps   int
}

// New makes the market of one currency; feeBps is the platform's share of what customers pay, in basis points.
func New(pool *pgxpool.Pool, hub *pgnotify.Hub, currency money.Currency, feeBps int) *Service {
	return &Service{pool: pool, queries: schedulerdb.New(), hub: hub, currency: currency, feeBps: feeBps}
}

// Snapshot reads the fleet as placement sees it, or of it the given hosts.
func Snapshot(ctx context.Context, queries *schedulerdb.Queries, db schedulerdb.DBTX, only ...ids.Host) (*placement.Index, error) {
	var list []uuid.UUID
	for _, host := range only {
		list = append(list, uuid.UUID(host))
	}
	rows, err := queries.PlacementHosts(ctx, db, list)
	if err != nil {
		return nil, fmt.Errorf("read the fleet: %w", err)
	}
	hosts := placement.NewIndex()
	for _, row := range rows {
		hosts.Put(placement.Host{
			ID: row.ID, Owner: row.OrgID, Model: row.Model, MemoryMiB: row.MemoryMiB, Region: row.Region, Site: row.Site,
			Open: row.Active && row.Connected && (row.State == "idle" || row.State == "leased"),
			GPUs: int(row.GPUs), Well: 1<<row.FreeGPUs - 1, Simulated: row.Simulated,
			Prices: [placement.Classes]money.Amount{row.PricePerGPUHour, row.PricePerGPUHour, row.PricePerGPUHour, row.PricePerGPUHour},
		})
	}
	return hosts, nil
}

// Offers lists what can be booked now, by model and region; empty filters match all.
func (s *Service) Offers(ctx context.Context, model, region string) ([]Offer, error) {
	hosts, err := Snapshot(ctx, s.queries, s.pool)
	if err != nil {
		return nil, err
	}
	type place struct{ model, region string }
	byPlace := make(map[place]*Offer)
	for h := range hosts.All() {
		if !h.Open || model != "" && !strings.EqualFold(h.Model, model) || region != "" && h.Region != region {
			continue
		}
		key := place{h.Model, h.Region}
		if byPlace[key] == nil {
			byPlace[key] = &Offer{GPUModel: h.Model, Region: h.Region, MemoryMiB: h.MemoryMiB}
		}
		byPlace[key].add(h)
	}
	offers := make([]Offer, 0, len(byPlace))
	for _, offer := range byPlace {
		offers = append(offers, *offer)
	}
	slices.SortFunc(offers, func(a, b Offer) int {
		return strings.Compare(a.GPUModel+"\x00"+a.Region, b.GPUModel+"\x00"+b.Region)
	})
	return offers, nil
}

func (o *Offer) add(h placement.Host) {
	o.MemoryMiB = min(o.MemoryMiB, h.MemoryMiB)
	o.TotalGPUs += h.GPUs
	o.Simulated = o.Simulated || h.Simulated
	free := bits.OnesCount64(h.FreeFor(placement.Request{}))
	if free == 0 {
		return
	}
	o.FreeGPUs += free
	o.Hosts++
	o.LargestNode = max(o.LargestNode, free)
	if price := h.Prices[placement.Hourly]; o.PriceFrom == 0 || price < o.PriceFrom {
		o.PriceFrom = price
	}
}

// Quote prices the cheapest cluster of a shape and stores the price for a minute. With nothing that fits it returns NoCapacity
// with a placement.Explanation as details.
func (s *Service) Quote(ctx context.Context, org ids.Org, user ids.User, spec Spec) (Quote, error) {
	hosts, request, err := s.prepare(ctx, &spec)
	if err != nil {
		return Quote{}, err
	}
	plan, ok := hosts.Place(request)
	if !ok {
		explanation := hosts.Explain(request)
		return Quote{}, errs.New(errs.NoCapacity, "%s", explanation.Summary).WithDetails(explanation)
	}
	lines := LinesOf(plan)
	quote := Quote{
		ID: ids.New[ids.Booking](), Spec: spec, Lines: lines, FeeBps: s.feeBps, State: "quoted",
		Hold: max(1, Cost(lines, spec.GPUsPerNode, spec.Duration)),
	}
	planJSON, err := json.Marshal(lines)
	if err != nil {
		return Quote{}, err
	}
	var limit *int64
	if spec.MaxPrice > 0 {
		limit = (*int64)(&spec.MaxPrice)
	}
	row, err := s.queries.InsertQuote(ctx, s.pool, schedulerdb.InsertQuoteParams{
		ID: quote.ID, OrgID: org, CreatedBy: user, GPUModel: spec.GPUModel, NodeCount: int32(spec.Nodes),
		GPUsPerNode: int32(spec.GPUsPerNode), Regions: regionsOrEmpty(spec.Regions), DurationMS: spec.Duration.Milliseconds(),
		MaxPricePerGPUHour: limit, FeeBps: int32(s.feeBps), Plan: planJSON, HoldBaseUnits: quote.Hold,
		Lifetime: quoteLifetime, ClusterName: spec.ClusterName,
	})
	if err != nil {
		return Quote{}, fmt.Errorf("store the quote: %w", err)
	}
	quote.QuotedAt, quote.ExpiresAt = row.QuotedAt, row.ExpiresAt
	return quote, nil
}

// LinesOf is a plan as a booking stores it.
func LinesOf(plan placement.Plan) []Line {
	lines := make([]Line, len(plan.Nodes))
	for i, n := range plan.Nodes {
		lines[i] = Line{HostID: n.Host.ID, Owner: n.Host.Owner, Region: n.Host.Region, Site: n.Host.Site, Price: n.Price, Simulated: n.Host.Simulated}
	}
	return lines
}

// Explain says what each condition of a spec leaves of the fleet, whether or not it fits.
func (s *Service) Explain(ctx context.Context, spec Spec) (placement.Explanation, error) {
	hosts, request, err := s.prepare(ctx, &spec)
	if err != nil {
		return placement.Explanation{}, err
	}
	return hosts.Explain(request), nil
}

// prepare validates a spec, puts its model into the market's spelling, and reads the fleet.
func (s *Service) prepare(ctx context.Context, spec *Spec) (*placement.Index, placement.Request, error) {
	if err := s.validate(*spec); err != nil {
		return nil, placement.Request{}, err
	}
	hosts, err := Snapshot(ctx, s.queries, s.pool)
	if err != nil {
		return nil, placement.Request{}, err
	}
	if err := matchNames(hosts, spec); err != nil {
		return nil, placement.Request{}, err
	}
	return hosts, RequestFor(*spec, time.Now()), nil
}

func (s *Service) validate(spec Spec) error {
	switch {
	case spec.GPUModel == "":
		return errs.InvalidField("gpu_model", "name a GPU model, such as H100")
	case spec.Nodes < 1 || spec.Nodes > MaxNodes:
		return errs.InvalidField("node_count", "a cluster has between 1 and %d nodes, not %d", MaxNodes, spec.Nodes)
	case spec.GPUsPerNode < 1 || spec.GPUsPerNode > MaxGPUsPerNode:
		return errs.InvalidField("gpus_per_node", "a node has between 1 and %d GPUs, not %d", MaxGPUsPerNode, spec.GPUsPerNode)
	case spec.Duration < MinDuration || spec.Duration > MaxDuration:
		return errs.InvalidField("duration", "a booking lasts between 1m and %dh, not %s", int(MaxDuration.Hours()), spec.Duration)
	case spec.MaxPrice < 0 || spec.MaxPrice > maxPrice:
		return errs.InvalidField("max_price_per_gpu_hour", "a price limit is at most %s %s", s.currency.Format(maxPrice), s.currency.Symbol)
	}
	return nil
}

// matchNames corrects the case of the model and refuses names that no host has ever reported, listing those that are known.
func matchNames(hosts *placement.Index, spec *Spec) error {
	var models, regions []string
	for h := range hosts.All() {
		models, regions = append(models, h.Model), append(regions, h.Region)
	}
	i := slices.IndexFunc(models, func(m string) bool { return strings.EqualFold(m, spec.GPUModel) })
	if i < 0 {
		return errs.InvalidField("gpu_model", "there is no GPU model %q; there %s", spec.GPUModel, known(models))
	}
	spec.GPUModel = models[i]
	for n, region := range spec.Regions {
		if !slices.Contains(regions, region) {
			return errs.InvalidField(fmt.Sprintf("regions[%d]", n), "there is no region %q; there %s", region, known(regions))
		}
	}
	return nil
}

func known(names []string) string {
	slices.Sort(names)
	names = slices.Compact(names)
	switch len(names) {
	case 0:
		return "are no hosts on offer yet"
	case 1:
		return "is only " + names[0]
	default:
		return "are " + strings.Join(names, ", ")
	}
}

// GetQuote returns a quote, whatever became of it.
func (s *Service) GetQuote(ctx context.Context, org ids.Org, id ids.Booking) (Quote, error) {
	row, err := s.queries.GetBooking(ctx, s.pool, id, org)
	if errors.Is(err, pgx.ErrNoRows) {
		return Quote{}, errs.New(errs.NotFound, "there is no quote %s", id)
	}
	if err != nil {
		return Quote{}, fmt.Errorf("read quote: %w", err)
	}
	return quoteFromRow(row)
}

// Accept books a quote and waits for the decision. Refusals come back as errors: Expired, NoCapacity, InsufficientFunds;
// Unavailable means that it is still undecided and may be asked for again.
func (s *Service) Accept(ctx context.Context, org ids.Org, id ids.Booking, clusterName string) (Quote, error) {
	decided, unsubscribe := s.hub.Subscribe(pgnotify.ChannelDecided)
	defer unsubscribe()
	// Of a quote that is unknown, expired or decided already it does nothing: reading it tells which.
	if err := s.queries.RequestBooking(ctx, s.pool, clusterName, id, org); err != nil {
		return Quote{}, fmt.Errorf("request booking: %w", err)
	}
	bound := time.NewTimer(acceptTimeout)
	defer bound.Stop()
	poll := time.NewTicker(acceptPoll)
	defer poll.Stop()
	for {
		quote, err := s.GetQuote(ctx, org, id)
		if err != nil {
			return Quote{}, err
		}
		if quote.State != "quoted" {
			return quote, quote.outcome()
		}
		if !worthReading(ctx, id, decided, poll.C, bound.C) {
			return Quote{}, errs.New(errs.Unavailable, "the scheduler has not decided on %s yet: ask for it again, it will not be booked twice", id)
		}
	}
}

// worthReading waits until a booking may have been decided; it does not wake for other bookings' decisions. False is that the wait
// is over.
func worthReading(ctx context.Context, id ids.Booking, decided <-chan string, poll, bound <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-bound:
			return false
		case <-poll:
			return true
		case payload := <-decided:
			if payload == "" || payload == uuid.UUID(id).String() {
				return true
			}
		}
	}
}

func (q Quote) outcome() error {
	switch {
	case q.State == "expired":
		return errs.New(errs.Expired, "the quote expired at %s: ask for a new one", q.ExpiresAt.UTC().Format(time.TimeOnly+" MST"))
	case q.refusal != nil:
		return q.refusal
	}
	return nil
}

// SetAsk sets an owner's price for one host's GPUs.
func (s *Service) SetAsk(ctx context.Context, org ids.Org, host ids.Host, price money.Amount, active bool) error {
	if price <= 0 || price > maxPrice {
		return errs.InvalidField("price_per_gpu_hour", "a price is above zero and at most %s %s", s.currency.Format(maxPrice), s.currency.Symbol)
	}
	changed, err := s.queries.UpsertAsk(ctx, s.pool, schedulerdb.UpsertAskParams{
		ID: ids.New[ids.Ask](), HostID: host, OrgID: org, PricePerGPUHour: price, Active: active,
	})
	if err != nil {
		return fmt.Errorf("store ask: %w", err)
	}
	if changed == 0 {
		return errs.New(errs.NotFound, "there is no GPU host %s", host)
	}
	return nil
}

// Asks returns an owner's asks by host.
func (s *Service) Asks(ctx context.Context, org ids.Org) (map[ids.Host]schedulerdb.Ask, error) {
	rows, err := s.queries.AsksOf(ctx, s.pool, org)
	if err != nil {
		return nil, fmt.Errorf("read asks: %w", err)
	}
	asks := make(map[ids.Host]schedulerdb.Ask, len(rows))
	for _, row := range rows {
		asks[row.HostID] = row
	}
	return asks, nil
}

func quoteFromRow(row schedulerdb.GetBookingRow) (Quote, error) {
	quote := Quote{
		ID: row.ID, FeeBps: int(row.FeeBps), Hold: row.HoldBaseUnits, State: row.State, QuotedAt: row.QuotedAt,
		ExpiresAt: row.ExpiresAt, DecidedAt: row.DecidedAt, ClusterID: row.ClusterID,
		Spec: Spec{
			GPUModel: row.GPUModel, Nodes: int(row.NodeCount), GPUsPerNode: int(row.GPUsPerNode), Regions: row.Regions,
			Duration: time.Duration(row.DurationMS) * time.Millisecond, ClusterName: row.ClusterName,
		},
	}
	if row.MaxPricePerGPUHour != nil {
		quote.Spec.MaxPrice = money.Amount(*row.MaxPricePerGPUHour)
	}
	if row.RefusalCode != nil && row.Refusal != nil {
		quote.refusal = errs.New(errs.Code(*row.RefusalCode), "%s", *row.Refusal)
		if err := quote.decodeRefusal(row.RefusalDetails); err != nil {
			return Quote{}, err
		}
	}
	if row.State == "quoted" && row.RequestedAt == nil && !row.ExpiresAt.After(row.ReadAt) {
		quote.State = "expired" // the sweep that stores it may not have come by yet
	}
	return quote, json.Unmarshal(row.Plan, &quote.Lines)
}

// decodeRefusal restores the details: the explanation of this package's own refusals, and raw JSON of what settlement said.
func (q *Quote) decodeRefusal(details []byte) error {
	switch {
	case len(details) == 0:
		return nil
	case q.refusal.Code == errs.NoCapacity:
		var explanation placement.Explanation
		if err := json.Unmarshal(details, &explanation); err != nil {
			return fmt.Errorf("read refusal: %w", err)
		}
		q.refusal.Details = explanation
	default:
		q.refusal.Details = json.RawMessage(details)
	}
	return nil
}

func regionsOrEmpty(regions []string) []string {
	if regions == nil {
		return []string{}
	}
	return regions
}
