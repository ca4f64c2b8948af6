package fleet

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/scheduler/fleet/fleetdb"
)

const maxXidsPerGPU = 64

// assessment is what a stream has told of its host's health, and what has been written of it.
type assessment struct {
	inventoried bool
	facts       facts  // of the newest inventory
	problem     string // with it, "" if it is sane

	health    *agentpb.Health // the newest, nil before the first
	heard     time.Time
	roundTrip time.Duration

	written    bool
	gates      []gate // as written, like the rest
	quarantine string
	problemWas string
	diskFree   int64
	rtt        time.Duration
}

// receiveHealth passes the gates' verdict on a host and writes what has changed of it.
func (g *Gateway) receiveHealth(ctx context.Context, s *session, health *agentpb.Health, received time.Time, roundTrip time.Duration) error {
	if len(health.GetGpus()) > maxGPUs {
		return errs.New(errs.Invalid, "a host has at most %d GPUs", maxGPUs)
	}
	for _, gpu := range health.GetGpus() {
		if len(gpu.GetXids()) > maxXidsPerGPU {
			return errs.New(errs.Invalid, "a GPU has at most %d different errors", maxXidsPerGPU)
		}
	}
	s.health.health, s.health.heard, s.health.roundTrip = health, received, roundTrip
	return g.assess(ctx, s)
}

// assess writes the verdict on a host once both its inventory and its health are known. Nothing is written that is written already. It
// returns an error, which ends the stream, if it cannot be written: the agent says it all again.
func (g *Gateway) assess(ctx context.Context, s *session) error {
	a := &s.health
	if !a.inventoried || a.health == nil {
		return nil
	}
	gates, quarantine := judge(a.facts, a.health, a.heard, a.roundTrip)
	disk := diskSteps(a.health.GetDiskFreeBytes())
	measuresMoved := rttMoved(a.rtt, a.roundTrip) || disk != nil && *disk != a.diskFree
	if a.written && !measuresMoved && slices.Equal(gates, a.gates) && quarantine == a.quarantine && a.problem == a.problemWas {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout) // not before: most that is said changes nothing, and timers are not free
	defer cancel()
	quarantined := false
	err := pgx.BeginFunc(ctx, g.options.Pool, func(tx pgx.Tx) error {
		host, err := g.queries.LockHost(ctx, tx, s.host)
		if err != nil {
			return err
		}
		if err = standingError(host.State, host.StateReason); err != nil {
			return err
		}
		if err = g.writeMeasures(ctx, tx, s, disk); err != nil {
			return err
		}
		if err = g.writeGates(ctx, tx, s, gates); err != nil {
			return err
		}
		quarantined, err = g.conclude(ctx, tx, s, host, quarantine)
		if err != nil || a.written && firstFailing(gates) == firstFailing(a.gates) && quarantine == a.quarantine && a.problem == a.problemWas {
			return err
		}
		return g.queries.WakeScheduler(ctx, tx)
	})
	if err != nil {
		if errs.CodeOf(err) == errs.Internal {
			g.log.WarnContext(ctx, "health not stored", "host_id", s.host, "error", err)
		}
		return err
	}
	if quarantined {
		g.metrics.quarantines.Inc()
		g.log.WarnContext(ctx, "host quarantined", "host_id", s.host, "reason", quarantine)
	}
	a.written, a.gates, a.quarantine, a.problemWas = true, gates, quarantine, a.problem
	if disk != nil {
		a.diskFree = *disk
	}
	if rttMoved(a.rtt, a.roundTrip) {
		a.rtt = a.roundTrip
	}
	return nil
}

// writeMeasures writes the free disk, in steps, and the round trip, if they have changed enough.
func (g *Gateway) writeMeasures(ctx context.Context, tx pgx.Tx, s *session, disk *int64) error {
	if disk != nil && *disk != s.health.diskFree {
		if err := g.queries.SetDiskFree(ctx, tx, disk, s.host); err != nil {
			return err
		}
	}
	if !rttMoved(s.health.rtt, s.health.roundTrip) {
		return nil
	}
	micros := int32(min(s.health.roundTrip, time.Minute).Microseconds())
	return g.queries.SetRTT(ctx, tx, &micros, s.host)
}

func (g *Gateway) writeGates(ctx context.Context, tx pgx.Tx, s *session, gates []gate) error {
	params := fleetdb.UpsertGatesParams{HostID: s.host}
	for _, gate := range gates {
		params.Gates, params.States = append(params.Gates, gate.name), append(params.States, gate.state)
		params.Measured, params.Required = append(params.Measured, gate.measured), append(params.Required, gate.required)
		params.Fixes = append(params.Fixes, gate.fix)
	}
	if err := g.queries.UpsertGates(ctx, tx, params); err != nil {
		return err
	}
	return g.queries.SetFailingGate(ctx, tx, firstFailing(gates), s.host)
}

// conclude moves the host on: into quarantine for a fault of its hardware, else to where its inventory allows. A quarantine does not end
// by itself, however well the host says that it is.
func (g *Gateway) conclude(ctx context.Context, tx pgx.Tx, s *session, host fleetdb.LockHostRow, quarantine string) (quarantined bool, err error) {
	switch {
	case host.State == StateQuarantined:
		s.quarantined.Store(true)
		return false, nil
	case quarantine != "":
		if err = g.queries.SetHostState(ctx, tx, StateQuarantined, clip(hardwarePrefix+quarantine, maxHealthNote), host.ID); err != nil {
			return false, err
		}
		s.quarantined.Store(true)
		return true, g.queries.WakeGateway(ctx, tx, host.ID)
	default:
		return false, g.settle(ctx, tx, host, s.health.problem)
	}
}
