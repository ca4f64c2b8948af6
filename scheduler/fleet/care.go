package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/scheduler/fleet/fleetdb"
)

// How often the fleet is cared for, and how much is done at once.
const (
	windowInterval      = 2 * time.Second
	observeInterval     = time.Minute
	reliabilityInterval = 10 * time.Minute
	maxObserved         = 2 * time.Minute // of a stretch that is longer, nobody knows
	maxWindowsPerTx     = 200
	careTimeout         = 30 * time.Second // of one transaction
	day                 = 24 * time.Hour
)

// Care is the part of the fleet that one process does for all: beginning and ending maintenance windows, and keeping the history that
// reliability is made of. Make it with NewCare.
type Care struct {
	pool    *pgxpool.Pool
	queries *fleetdb.Queries
	log     *slog.Logger
}

// NewCare makes a Care over a pool.
func NewCare(pool *pgxpool.Pool, log *slog.Logger) *Care {
	return &Care{pool: pool, queries: fleetdb.New(), log: log}
}

// Run works under a term of the scheduler's leadership until ctx ends. What fails is tried again; only a term that has passed ends it, with
// an error.
func (c *Care) Run(ctx context.Context, term int64) error {
	windows, minutes, scores := time.NewTicker(windowInterval), time.NewTicker(observeInterval), time.NewTicker(reliabilityInterval)
	defer windows.Stop()
	defer minutes.Stop()
	defer scores.Stop()
	observed := time.Now() // time before this process led is nobody's
	err := errors.Join(c.Windows(ctx, term), c.Score(ctx, term))
	for {
		if err != nil && ctx.Err() == nil {
			if isTermPassed(err) {
				return err
			}
			c.log.WarnContext(ctx, "the fleet's care failed, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-windows.C:
			err = c.Windows(ctx, term)
		case now := <-minutes.C:
			err = errors.Join(c.Observe(ctx, term, min(now.Sub(observed), maxObserved)), c.Count(ctx, term))
			observed = now
		case <-scores.C:
			err = c.Score(ctx, term)
		}
	}
}

func isTermPassed(err error) bool {
	var pgErr interface{ SQLState() string }
	return errors.As(err, &pgErr) && pgErr.SQLState() == "55000"
}

// led runs a transaction that a leader whose term has passed cannot commit.
func (c *Care) led(ctx context.Context, term int64, change func(ctx context.Context, tx pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, careTimeout)
	defer cancel()
	return pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) error {
		if err := c.queries.AssertLeader(ctx, tx, term); err != nil {
			return err
		}
		return change(ctx, tx)
	})
}

// Windows tells customers of windows that were planned, begins those whose time has come and ends those whose time is over.
func (c *Care) Windows(ctx context.Context, term int64) error {
	for {
		done := 0
		err := c.led(ctx, term, func(ctx context.Context, tx pgx.Tx) error {
			due, err := c.queries.DueWindows(ctx, tx, maxWindowsPerTx)
			if err != nil {
				return err
			}
			done = len(due)
			for _, window := range due {
				if err = c.window(ctx, tx, window); err != nil {
					return err
				}
			}
			if done == 0 {
				return nil
			}
			return c.queries.WakeScheduler(ctx, tx)
		})
		if err != nil || done < maxWindowsPerTx {
			return err
		}
	}
}

func (c *Care) window(ctx context.Context, tx pgx.Tx, w fleetdb.DueWindowsRow) error {
	const clock = "2006-01-02 15:04 MST"
	if err := c.queries.MarkWindow(ctx, tx, w.Begin, w.Over, w.ID); err != nil {
		return err
	}
	switch {
	case w.Over:
		c.log.InfoContext(ctx, "maintenance ended", "host_id", w.HostID)
		return reopen(ctx, c.queries, tx, w.HostID, w.HostState, w.HostStateReason)
	case w.Begin:
		c.log.InfoContext(ctx, "maintenance began", "host_id", w.HostID)
		message := fmt.Sprintf("The owner's maintenance of host %s has begun and lasts until %s: nodes on it may end.%s",
			w.HostName, w.EndsAt.UTC().Format(clock), noted(w.Note))
		if err := c.queries.NoticeClusters(ctx, tx, w.HostID, w.StartsAt, message); err != nil {
			return err
		}
		if w.HostState != StateIdle && w.HostState != StateLeased {
			return nil // when it comes back, it drains
		}
		return c.queries.SetHostState(ctx, tx, StateDraining, reasonMaintenance, w.HostID)
	default:
		message := fmt.Sprintf("The owner of host %s plans maintenance from %s to %s: nodes on it may end then.%s",
			w.HostName, w.StartsAt.UTC().Format(clock), w.EndsAt.UTC().Format(clock), noted(w.Note))
		return c.queries.NoticeClusters(ctx, tx, w.HostID, w.StartsAt, message)
	}
}

func noted(note string) string {
	if note == "" {
		return ""
	}
	return " The owner says: " + note
}

// Observe adds a stretch of time, which has just passed, to the hosts' history.
func (c *Care) Observe(ctx context.Context, term int64, stretch time.Duration) error {
	for after := (uuid.NullUUID{}); ; {
		var page fleetdb.ObserveHostsRow
		err := c.led(ctx, term, func(ctx context.Context, tx pgx.Tx) (err error) {
			page, err = c.queries.ObserveHosts(ctx, tx, after, maxHostsPerQuery, stretch.Milliseconds())
			return err
		})
		if err != nil || page.Hosts < maxHostsPerQuery {
			return err
		}
		after = uuid.NullUUID{UUID: page.Last, Valid: true}
	}
}

// Count counts today's deliveries and failures again, and yesterday's, whose last may have been written after midnight.
func (c *Care) Count(ctx context.Context, term int64) error {
	return c.led(ctx, term, func(ctx context.Context, tx pgx.Tx) error {
		for _, ago := range []time.Duration{0, day} {
			if err := c.queries.CountDeliveries(ctx, tx, ago); err != nil {
				return err
			}
		}
		return nil
	})
}

// Score brings reliability and tiers in line with the history.
func (c *Care) Score(ctx context.Context, term int64) error {
	for after := (uuid.NullUUID{}); ; {
		var page []fleetdb.HistoryPageRow
		err := c.led(ctx, term, func(ctx context.Context, tx pgx.Tx) (err error) {
			if page, err = c.queries.HistoryPage(ctx, tx, reliabilityDays, after, maxHostsPerQuery); err != nil {
				return err
			}
			hosts, scores, tiers := changedScores(page)
			if len(hosts) == 0 {
				return nil
			}
			return c.queries.SetReliability(ctx, tx, hosts, scores, tiers)
		})
		if err != nil || len(page) < maxHostsPerQuery {
			return err
		}
		after = uuid.NullUUID{UUID: uuid.UUID(page[len(page)-1].ID), Valid: true}
	}
}

// changedScores are those that differ enough from what is written.
func changedScores(page []fleetdb.HistoryPageRow) (hosts []uuid.UUID, scores []int32, tiers []int16) {
	for _, row := range page {
		observed, online := time.Duration(row.ObservedMS)*time.Millisecond, time.Duration(row.OnlineMS)*time.Millisecond
		score, earned := int32(reliability(observed, online, row.Failed)), int16(tier(observed, online, row.Delivered))
		if abs(score-row.ReliabilityBps) < reliabilityStep && (earned == row.TrustTier || row.TrustTier == tierTrust) {
			continue
		}
		hosts, scores, tiers = append(hosts, uuid.UUID(row.ID)), append(scores, score), append(tiers, earned)
	}
	return hosts, scores, tiers
}

func abs(n int32) int32 { return max(n, -n) }
