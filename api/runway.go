package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/cluster"
	"github.com/muster-gpu/muster/scheduler/market"
)

// What is near enough to warn of.
const (
	soonStop   = 30 * time.Minute
	soonPark   = 10 * time.Minute
	shortFunds = 6 * time.Hour // what the balance should pay for at the present rate
)

func (s *Server) getRunway(ctx context.Context, _ *orgInput) (*output[apiv1.Runway], error) {
	org := callerOf(ctx).org.Org
	runway, err := s.Clusters.Runway(ctx, org)
	if err != nil {
		return nil, err
	}
	wallet, err := s.Meter.Wallet(ctx, org)
	if err != nil {
		return nil, err
	}
	return answer(s.wireRunway(runway, wallet.Available, time.Now().UTC())), nil
}

func (s *Server) wireRunway(r cluster.Runway, available money.Amount, now time.Time) apiv1.Runway {
	wire := apiv1.Runway{
		AsOf: now, Available: s.money(available), BurnPerHour: s.money(r.PerHour), HoldLeft: s.money(r.HoldLeft), Warnings: []string{},
	}
	rows := slices.Clone(r.Clusters)
	slices.SortStableFunc(rows, func(a, b cluster.RunwayCluster) int { return compareEnds(a.EndsAt, b.EndsAt) })
	wire.Clusters = convert(rows, s.wireRunwayCluster)
	for _, c := range rows {
		wire.Warnings = append(wire.Warnings, clusterWarnings(c, now)...)
	}
	if r.PerHour > 0 {
		left := float64(available) / float64(r.PerHour)
		wire.HoursLeft = &left
		if left < shortFunds.Hours() {
			wire.Warnings = append(wire.Warnings, fmt.Sprintf(
				"The balance of %s pays for %s more at this rate, beyond what is set aside: add funds before extending.",
				s.Currency.Text(available), roughly(time.Duration(left*float64(time.Hour)))))
		}
	}
	return wire
}

// compareEnds puts what does not end last.
func compareEnds(a, b *time.Time) int {
	switch {
	case a == nil || b == nil:
		return cmp.Compare(boolInt(a == nil), boolInt(b == nil))
	default:
		return a.Compare(*b)
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *Server) wireRunwayCluster(c cluster.RunwayCluster) apiv1.RunwayCluster {
	return apiv1.RunwayCluster{
		ClusterID: c.ID, Name: c.Name, State: c.State, PerHour: s.money(c.PerHour), HoldLeft: s.money(c.HoldLeft), StopsAt: c.EndsAt,
		ParksAt: c.ParksAt, ReleasesAt: c.ReleasesAt,
	}
}

func clusterWarnings(c cluster.RunwayCluster, now time.Time) []string {
	var warnings []string
	name := cmp.Or(c.Name, c.ID.String())
	near := func(at *time.Time, within time.Duration) bool { return at != nil && at.Sub(now) < within }
	if near(c.EndsAt, soonStop) {
		warnings = append(warnings, fmt.Sprintf("%s stops at %s, in %s: extend it or save its work.", name, clock(*c.EndsAt), roughly(c.EndsAt.Sub(now))))
	}
	if near(c.ParksAt, soonPark) {
		warnings = append(warnings, fmt.Sprintf("%s is idle: its nodes are released at %s.", name, clock(*c.ParksAt)))
	}
	if near(c.ReleasesAt, soonStop) {
		warnings = append(warnings, fmt.Sprintf("%s is parked and is released at %s: resume it to keep it.", name, clock(*c.ReleasesAt)))
	}
	return warnings
}

func clock(at time.Time) string { return at.UTC().Format("15:04 UTC") }

// roughly is a span in minutes, never below nothing.
func roughly(d time.Duration) string {
	d = max(d, 0).Truncate(time.Minute)
	if d < time.Minute {
		return "less than a minute"
	}
	return market.ShortDuration(d)
}
