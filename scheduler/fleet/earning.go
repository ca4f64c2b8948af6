package fleet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/fleet/fleetdb"
)

const (
	lately          = 7 * 24 * time.Hour // what market bookings have paid
	maxRecentLeases = 10_000
	scarceBps       = 9_000 // of a model's GPUs leased: whoever is not hired then is not for want of demand
	timestampBits   = 48    // of a UUIDv7, in milliseconds
)

// Check is one thing that a host needs to earn, in the order in which they must hold.
type Check struct {
	Name     string // connected, verified, gates, maintenance, drain, gpus, ray, ask, price, demand
	State    string // Pass, Fail or Unknown
	Measured string
	Required string
	Fix      string     // what the owner can do, "" if nothing need be done
	Since    *time.Time // when it came to this, if that is known
}

// Earning says whether a host earns, and if not why.
type Earning struct {
	Earning bool
	Summary string // one sentence
	Checks  []Check
}

// prices is what the market says of a host's price.
type prices struct {
	currency      money.Currency
	model, region string
	ask           fleetdb.HostAskRow
	offered       bool
	hired         int64 // GPUs of the model that are leased now
	hiredMedian   money.Amount
	paid          int64 // that market bookings have lately leased
	paidMax       money.Amount
	sampled       bool
	sampledAt     time.Time
	gpus, leased  int32 // in the sample
}

// Earning checks, in order, all that a host needs to earn. It is made from what placement decides on. Errors: NotFound.
func (r *Registry) Earning(ctx context.Context, org ids.Org, id ids.Host) (Earning, error) {
	host, err := r.Host(ctx, org, id)
	if err != nil {
		return Earning{}, err
	}
	if host.Kind == KindHead {
		return Earning{Summary: "It runs Ray heads, which are free.", Checks: []Check{}}, nil
	}
	market, err := r.readPrices(ctx, host)
	if err != nil {
		return Earning{}, err
	}
	return explain(host, market, r.rayVersion, time.Now()), nil
}

func (r *Registry) readPrices(ctx context.Context, host HostView) (prices, error) {
	p := prices{currency: r.currency, region: host.Region, model: mainModel(host)}
	ask, err := r.queries.HostAsk(ctx, r.pool, host.ID)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return p, err
	}
	p.ask, p.offered = ask, err == nil
	peers, err := r.queries.PeerPrices(ctx, r.pool, p.model, leaseSince(time.Now().Add(-lately)), maxRecentLeases)
	if err != nil {
		return p, err
	}
	p.hiredMedian, p.hired, p.paidMax, p.paid = money.Amount(peers.HiredMedian), peers.Hired, money.Amount(peers.PaidMax), peers.Paid
	demand, err := r.queries.Demand(ctx, r.pool, p.model, p.region)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return p, err
	}
	p.gpus, p.leased, p.sampled, p.sampledAt = demand.GPUs, demand.Leased, err == nil && demand.GPUs > 0, demand.At
	return p, nil
}

// mainModel is the model of most of a host's GPUs.
func mainModel(host HostView) string {
	counts, most := map[string]int{}, ""
	for _, gpu := range host.GPUs {
		if counts[gpu.Model]++; counts[gpu.Model] > counts[most] {
			most = gpu.Model
		}
	}
	return most
}

// leaseSince is an id before those of all leases made from a time on: ids begin with their time.
func leaseSince(at time.Time) ids.Lease {
	var id ids.Lease
	binary.BigEndian.PutUint64(id[:], uint64(at.UnixMilli())<<(64-timestampBits))
	return id
}

// explain is pure.
func explain(host HostView, market prices, rayVersion string, now time.Time) Earning {
	e := Earning{Checks: []Check{
		connectedCheck(host), verifiedCheck(host), gatesCheck(host), maintenanceCheck(host, now), drainCheck(host), gpusCheck(host),
		rayCheck(host, rayVersion), askCheck(market), priceCheck(market), demandCheck(market),
	}}
	leased := 0
	for _, gpu := range host.GPUs {
		if gpu.Leased {
			leased++
		}
	}
	e.Earning = leased > 0
	blocking := slices.IndexFunc(e.Checks, func(c Check) bool { return c.State == Fail })
	switch {
	case host.State == StateRetired:
		e.Summary = "It was retired."
	case e.Earning && leased == len(host.GPUs):
		e.Summary = "It earns with all of its GPUs."
	case e.Earning && blocking < 0:
		e.Summary = fmt.Sprintf("It earns with %d of its %d GPUs; the others are offered.", leased, len(host.GPUs))
	case e.Earning:
		e.Summary = fmt.Sprintf("It earns with %d of its %d GPUs; for the others: %s", leased, len(host.GPUs), sentence(e.Checks[blocking]))
	case blocking >= 0:
		e.Summary = "It does not earn: " + sentence(e.Checks[blocking])
	default:
		e.Summary = "All is well, and nobody has booked it yet."
	}
	return e
}

func sentence(c Check) string {
	text := c.Measured
	if c.Fix != "" {
		text += ". " + c.Fix
	}
	return strings.TrimSuffix(text, ".") + "."
}

func connectedCheck(host HostView) Check {
	c := Check{Name: "connected", State: Pass, Measured: "heard of just now", Required: "heartbeats", Since: host.SuspectSince}
	switch host.Liveness {
	case LivenessLive:
	case LivenessSuspect:
		c.State, c.Measured, c.Fix = Fail, "its heartbeats are late", "Look at the machine's network."
	default:
		c.State, c.Measured, c.Fix = Fail, "it is not connected", "See that the machine is on, that muster-worker runs and that it reaches the control plane."
		if c.Since == nil {
			c.Since = host.LastSeenAt
		}
	}
	return c
}

func verifiedCheck(host HostView) Check {
	c := Check{Name: "verified", State: Pass, Measured: "verified", Required: "an inventory and a clean bill of health"}
	switch host.State {
	case StateQuarantined:
		c.State, c.Measured = Fail, "it is quarantined: "+host.StateReason
		c.Fix = "Write to the platform's operators: only they can lift this."
		if forHardware(host.StateReason) {
			c.Fix = fixReset
		}
	case StateEnrolled, StateVerifying, StateLost:
		c.State, c.Measured = Fail, "it is not verified yet"
		if host.State == StateVerifying && host.StateReason != "" {
			c.Measured = host.StateReason
		}
	}
	return c
}

func gatesCheck(host HostView) Check {
	c := Check{Name: "gates", State: Pass, Measured: "all passed", Required: "all health gates passed"}
	if len(host.Gates) == 0 {
		c.State, c.Measured = Unknown, "not told yet"
	}
	for _, gate := range host.Gates {
		if gate.State == Fail && gate.Closes {
			since := gate.Since
			return Check{Name: c.Name, State: Fail, Measured: gate.Gate + ": " + gate.Measured, Required: gate.Required, Fix: gate.Fix, Since: &since}
		}
	}
	return c
}

func maintenanceCheck(host HostView, now time.Time) Check {
	const clock = "2006-01-02 15:04 MST"
	c := Check{Name: "maintenance", State: Pass, Measured: "none", Required: "no maintenance window now"}
	for _, window := range host.Windows {
		if window.State == WindowBegun {
			return Check{
				Name: c.Name, State: Fail, Measured: "it is in maintenance until " + window.EndsAt.UTC().Format(clock), Required: c.Required,
				Fix: "Cancel the window to open the host now.", Since: window.BegunAt,
			}
		}
		if c.Measured == "none" && window.StartsAt.After(now) {
			c.Measured = "next from " + window.StartsAt.UTC().Format(clock) + ": longer bookings do not fit before it"
		}
	}
	return c
}

func drainCheck(host HostView) Check {
	c := Check{Name: "drain", State: Pass, Measured: "takes new work", Required: "not cordoned"}
	if host.State == StateDraining && host.StateReason != reasonMaintenance || host.StateReason == reasonCordonedLost {
		c.State, c.Measured, c.Fix = Fail, "you have cordoned it", "Uncordon it."
	}
	return c
}

func gpusCheck(host HostView) Check {
	well, note := 0, ""
	for _, gpu := range host.GPUs {
		if gpu.Healthy {
			well++
		} else if note == "" {
			note = gpu.HealthNote
		}
	}
	c := Check{Name: "gpus", State: Pass, Measured: fmt.Sprintf("%d of %d GPUs are well", well, len(host.GPUs)), Required: "a GPU that is well", Fix: note}
	if well == 0 {
		c.State = Fail
	}
	return c
}

func rayCheck(host HostView, wanted string) Check {
	versions := host.Inventory.GetRayVersions()
	c := Check{Name: "ray", State: Pass, Measured: "it can start Ray " + strings.Join(versions, ", "), Required: "Ray " + wanted + ", which new clusters run"}
	if !slices.Contains(versions, wanted) {
		c.State, c.Fix = Fail, "Give muster-worker an environment with Ray "+wanted+": --ray-venv."
		if len(versions) == 0 {
			c.Measured = "it has not told which Ray it can start"
		}
	}
	return c
}

func askCheck(market prices) Check {
	c := Check{Name: "ask", State: Pass, Measured: "offered", Required: "a price, switched on"}
	switch {
	case !market.offered:
		c.State, c.Measured, c.Fix = Fail, "it has no price", "Set a price for it."
	case !market.ask.Active:
		since := market.ask.UpdatedAt
		c.State, c.Measured, c.Fix, c.Since = Fail, "its offer is switched off", "Switch the offer on.", &since
	}
	return c
}

// priceCheck fails when others of the model are hired for less and nobody has paid so much lately.
func priceCheck(market prices) Check {
	c := Check{Name: "price", State: Unknown, Required: "no more than what is paid"}
	if !market.offered {
		return c
	}
	if market.hired == 0 && market.paid == 0 {
		c.Measured = "no " + market.model + " is hired to compare with"
		return c
	}
	limit := max(market.hiredMedian, market.paidMax)
	c.State, c.Measured, c.Required = Pass, market.perHour(market.ask.PricePerGPUHour), "at most "+market.perHour(limit)
	if market.hired > 0 {
		c.Measured += fmt.Sprintf("; the median of the model's %d hired GPUs is %s", market.hired, market.perHour(market.hiredMedian))
	}
	if market.paid > 0 {
		c.Measured += "; bookings have lately paid up to " + market.perHour(market.paidMax)
	}
	if market.ask.PricePerGPUHour > limit {
		since := market.ask.UpdatedAt
		c.State, c.Fix, c.Since = Fail, "Ask at most "+market.perHour(limit)+", or wait until cheaper ones are gone.", &since
	}
	return c
}

// perHour writes a price of a GPU-hour.
func (p prices) perHour(amount money.Amount) string {
	return p.currency.Text(amount) + " an hour"
}

// demandCheck never fails: that few are hired is nothing that an owner can mend.
func demandCheck(market prices) Check {
	c := Check{Name: "demand", State: Unknown, Required: "bookings of the model in the region"}
	if !market.sampled {
		c.Measured = "not sampled yet"
		return c
	}
	bps := int64(market.leased) * perfect / int64(market.gpus)
	at := market.sampledAt
	c.State, c.Since = Pass, &at
	c.Measured = fmt.Sprintf("%d of %d %s in %s are hired (%d %%)", market.leased, market.gpus, market.model, market.region, bps/100)
	if bps < scarceBps {
		c.Fix = "Nothing is wrong: the cheapest of those that fit are hired first."
	}
	return c
}
