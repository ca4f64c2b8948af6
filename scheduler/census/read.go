package census

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// reading is what the database says of one host.
type reading struct {
	machine string
	head    bool // can take a Ray head
	ask     ask
	host    placement.Host   // without GPUs
	models  []placement.Host // one for each model of GPU
}

// read asks for some hosts; those that are gone are not in the answer.
func (c *Census) read(ctx context.Context, db schedulerdb.DBTX, hosts []uuid.UUID, now time.Time) (map[ids.Host]*reading, error) {
	rows, err := c.queries.CensusHosts(ctx, db, hosts)
	if err != nil {
		return nil, err
	}
	found := make(map[ids.Host]*reading, len(rows))
	for _, row := range rows {
		if found[row.ID], err = readHost(row); err != nil {
			return nil, fmt.Errorf("host %s: %w", row.ID, err)
		}
	}
	gpus, err := c.queries.CensusGPUs(ctx, db, hosts)
	if err != nil {
		return nil, err
	}
	for _, row := range gpus {
		if r := found[row.HostID]; r != nil {
			r.add(row)
		}
	}
	reservations, err := c.queries.CensusReservations(ctx, db, hosts)
	if err != nil {
		return nil, err
	}
	for _, row := range reservations {
		if r := found[row.HostID]; r != nil {
			r.reserve(row.Model, 1<<row.Ordinal, row.StartsAt, row.EndsAt)
		}
	}
	windows, err := c.queries.CensusWindows(ctx, db, hosts)
	if err != nil {
		return nil, err
	}
	for _, row := range windows {
		if r := found[row.HostID]; r != nil {
			for _, h := range r.models {
				r.reserve(h.Model, allGPUs, row.StartsAt, row.EndsAt)
			}
		}
	}
	for _, r := range found {
		c.share(r, now)
	}
	return found, nil
}

const (
	maxGPUs = 64 // that a bitmap holds; a host with more offers its first ones
	allGPUs = ^uint64(0)
)

func readHost(row schedulerdb.CensusHostsRow) (*reading, error) {
	working := row.Connected && (row.State == "idle" || row.State == "leased")
	r := &reading{
		machine: strings.Clone(row.MachineID), head: row.Kind == "head" && working,
		ask: ask{base: money.Amount(row.Price), floor: money.Amount(row.Floor)},
	}
	if err := json.Unmarshal(row.Rules, &r.ask.rules); err != nil {
		return nil, fmt.Errorf("read the ask's rules: %w", err)
	}
	site := row.Site
	if site != "" {
		site = row.OrgID.String() + "/" + site // a name is an owner's own: two owners may both have a rack-1
	}
	r.host = placement.Host{
		ID: row.ID, Owner: row.OrgID, Region: row.Region, Runtime: row.Runtime, Site: site, RTT: time.Duration(row.RTTUS) * time.Microsecond,
		Open: row.Kind == "gpu" && working && row.FailingGate == "" && row.Active && row.Price > 0,
		CPUs: int(row.CPUs), MemoryBytes: row.MemoryBytes, DiskBytes: row.DiskBytes, Driver: int(row.DriverMajor), Images: row.Images,
		Reliability: int(row.ReliabilityBps), Tier: int(row.TrustTier), Simulated: row.Simulated,
	}
	return r, nil
}

// add counts a GPU in. They come in the order of their ordinals, which are their places in the bitmaps.
func (r *reading) add(row schedulerdb.CensusGPUsRow) {
	if row.Ordinal >= maxGPUs {
		return
	}
	h := r.model(row.Model)
	if h == nil {
		r.models = append(r.models, r.host)
		h = &r.models[len(r.models)-1]
		h.Model, h.MemoryMiB, h.Compute = row.Model, row.MemoryMiB, compute(row.ComputeCapability)
	}
	bit := uint64(1) << row.Ordinal
	h.GPUs++
	h.MemoryMiB, h.Compute = min(h.MemoryMiB, row.MemoryMiB), min(h.Compute, compute(row.ComputeCapability))
	if row.Healthy {
		h.Well |= bit
	}
	if row.ForecastEnd == nil {
		return
	}
	h.Leased |= bit
	if row.Spot {
		h.Spot |= bit
	}
	end := row.ForecastEnd.Unix()
	for i := range h.Leases {
		if h.Leases[i].To == end {
			h.Leases[i].GPUs |= bit
			return
		}
	}
	h.Leases = append(h.Leases, placement.Span{GPUs: bit, To: end})
}

func (r *reading) model(name string) *placement.Host {
	for i := range r.models {
		if r.models[i].Model == name {
			return &r.models[i]
		}
	}
	return nil
}

func (r *reading) reserve(model string, gpus uint64, from, to time.Time) {
	h := r.model(model)
	if h == nil {
		return
	}
	span := SpanOf(gpus, from, to)
	for i, s := range h.Reserved {
		if s.From == span.From && s.To == span.To {
			h.Reserved[i].GPUs |= gpus
			return
		}
	}
	h.Reserved = append(h.Reserved, span)
}

// SpanOf covers a time in whole seconds.
func SpanOf(gpus uint64, from, to time.Time) placement.Span {
	return placement.Span{GPUs: gpus, From: from.Unix(), To: ceilUnix(to)}
}

func ceilUnix(t time.Time) int64 {
	if t.Nanosecond() > 0 {
		return t.Unix() + 1
	}
	return t.Unix()
}

// share gives each model its prices.
func (c *Census) share(r *reading, now time.Time) {
	for i := range r.models {
		h := &r.models[i]
		h.Prices = c.prices(r.ask, h.Model, h.Region, now)
	}
}

// compute is a compute capability times ten: "9.0" is 90; zero is unknown.
func compute(capability string) int {
	major, minor, found := strings.Cut(capability, ".")
	if !found {
		return 0
	}
	a, err := strconv.Atoi(major)
	if err != nil {
		return 0
	}
	b, err := strconv.Atoi(minor)
	if err != nil || b > 9 {
		return 0
	}
	return a*10 + b
}
