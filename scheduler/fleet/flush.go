package fleet

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/scheduler/fleet/fleetdb"
)

const (
	maxReportsPerTransaction = 256
	maxHostsPerQuery         = 10_000
	maxPollsPerSecond        = 250 // streams compared with the tables
	maxPollInterval          = 30 * time.Second
	sweepInterval            = time.Second
	sweepsToWait             = 4 // while no host of this gateway is silent: others are another gateway's to miss
)

// pending is what hosts have said since the last flush. A host's newer report replaces its older one: reports are whole.
type pending struct {
	mu      sync.Mutex
	beats   map[ids.Host]beat
	reports map[ids.Host]*agentpb.Report
}

// beat is a host's newest sign of life, true for the time it was heard at, whenever it is written.
type beat struct {
	stream     int64 // that it was heard on
	at         time.Time
	slack      int32 // how much longer the host may be heard without that being written, in milliseconds
	lostAfter  int32 // how long the host may be silent from then on, in milliseconds
	generation int64 // the newest that the host has applied
	confirms   bool  // usage too: the host has reported what runs
}

func newPending() *pending {
	return &pending{beats: map[ids.Host]beat{}, reports: map[ids.Host]*agentpb.Report{}}
}

func (p *pending) beat(host ids.Host, b beat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(host, b)
}

func (p *pending) report(host ids.Host, b beat, report *agentpb.Report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(host, b)
	p.reports[host] = report
}

// put adds what was heard last. p.mu is held.
func (p *pending) put(host ids.Host, b beat) { p.beats[host] = p.beats[host].then(b) }

// then is what is to be written once b has been heard after it: b, unless that was on a stream that has been followed by another.
func (old beat) then(b beat) beat {
	if old.stream > b.stream {
		old, b = b, old
	}
	b.generation = max(b.generation, old.generation)
	b.confirms = b.confirms || old.confirms && old.stream == b.stream
	return b
}

func (p *pending) take() (map[ids.Host]beat, map[ids.Host]*agentpb.Report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	beats, reports := p.beats, p.reports
	p.beats, p.reports = map[ids.Host]beat{}, map[ids.Host]*agentpb.Report{}
	return beats, reports
}

// putBackBeats returns heartbeats that could not be written, as if what has come since had come after them. Each stands for the time it
// was heard at, so that none is true of less for being written later.
func (p *pending) putBackBeats(beats map[ids.Host]beat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for host, old := range beats {
		if since, heard := p.beats[host]; heard {
			old = old.then(since)
		}
		p.beats[host] = old
	}
}

// putBack returns reports that could not be written, unless newer ones have come.
func (p *pending) putBack(reports map[ids.Host]*agentpb.Report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for host, report := range reports {
		if p.reports[host] == nil {
			p.reports[host] = report
		}
	}
}

// flushLoop writes what was collected, at every flush interval and once more at the end.
func (g *Gateway) flushLoop(ctx context.Context) {
	ticker := time.NewTicker(g.options.FlushInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
		g.flush(context.WithoutCancel(ctx))
	}
}

func (g *Gateway) flush(ctx context.Context) {
	beats, reports := g.pending.take()
	if len(beats) == 0 && len(reports) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	start := time.Now()
	// Reports first: what has ended must not be confirmed.
	err := g.flushReports(ctx, reports)
	if err == nil {
		err = g.confirm(ctx, beats)
	}
	if err != nil {
		g.pending.putBackBeats(beats)
	}
	g.metrics.flushSeconds.Observe(time.Since(start).Seconds())
	g.metrics.flushes.WithLabelValues(outcome(err)).Inc()
	if err != nil {
		g.flushFailed.Store(g.options.Now().UnixMilli())
		g.log.WarnContext(ctx, "heartbeats or reports not written", "hosts", len(beats), "reports", len(reports), "error", err)
	}
}

// confirmation is what one statement confirms, in columns.
type confirmation struct {
	hosts       []uuid.UUID
	streams     []int64
	generations []int64
	ages        []int64
	lostAfter   []int32
	slack       []int32
}

func (g *Gateway) confirm(ctx context.Context, beats map[ids.Host]beat) error {
	all, usage, now := confirmation{}, confirmation{}, g.options.Now()
	for host, beat := range beats {
		all.add(host, beat, now)
		if beat.confirms {
			usage.add(host, beat, now)
		}
	}
	for from := 0; from < len(all.hosts); from += maxHostsPerQuery {
		if err := g.confirmHosts(ctx, all.part(from)); err != nil {
			return err
		}
	}
	for from := 0; from < len(usage.hosts); from += maxHostsPerQuery {
		if err := g.confirmUsage(ctx, usage.part(from)); err != nil {
			return err
		}
	}
	return nil
}

func (g *Gateway) confirmHosts(ctx context.Context, part confirmation) error {
	var silent []uuid.UUID
	results := g.queries.Confirm(ctx, indexed{g.options.Pool}, []fleetdb.ConfirmParams{{
		Hosts: part.hosts, Streams: part.streams, Generations: part.generations, AgesMs: part.ages,
		LostAfterMS: part.lostAfter, SlackMs: part.slack,
	}})
	results.Query(func(_ int, found []uuid.UUID, _ error) { silent = found })
	if err := results.Close(); err != nil || len(silent) == 0 {
		return err
	}
	return g.markHeard(ctx, silent)
}

func (g *Gateway) confirmUsage(ctx context.Context, part confirmation) error {
	results := g.queries.ConfirmUsage(ctx, indexed{g.options.Pool}, []fleetdb.ConfirmUsageParams{{Hosts: part.hosts, AgesMs: part.ages}})
	results.Exec(nil)
	return results.Close()
}

// preferIndexes is for one transaction: a flush touches few of many hosts, of which the planner, with its default costs, would read all.
const preferIndexes = `SELECT set_config('enable_seqscan', 'off', true)`

// indexed is a pool whose batches find their rows by index. A batch is one round trip and a transaction of its own, which has been
// committed once its results have been closed without an error.
type indexed struct{ *pgxpool.Pool }

// SendBatch implements fleetdb.DBTX.
func (p indexed) SendBatch(ctx context.Context, wanted *pgx.Batch) pgx.BatchResults {
	batch := &pgx.Batch{}
	batch.Queue(preferIndexes)
	batch.QueuedQueries = append(batch.QueuedQueries, wanted.QueuedQueries...)
	results := p.Pool.SendBatch(ctx, batch)
	_, _ = results.Exec() // if it fails, so do those that follow
	return results
}

func (c *confirmation) add(host ids.Host, b beat, now time.Time) {
	c.hosts, c.streams, c.generations = append(c.hosts, uuid.UUID(host)), append(c.streams, b.stream), append(c.generations, b.generation)
	c.ages, c.lostAfter = append(c.ages, max(0, now.Sub(b.at).Milliseconds())), append(c.lostAfter, b.lostAfter)
	c.slack = append(c.slack, b.slack)
}

// part is the stretch that one statement takes.
func (c *confirmation) part(from int) confirmation {
	to := min(from+maxHostsPerQuery, len(c.hosts))
	return confirmation{
		hosts: c.hosts[from:to], streams: c.streams[from:to], generations: c.generations[from:to], ages: c.ages[from:to],
		lostAfter: c.lostAfter[from:to], slack: c.slack[from:to],
	}
}

// markHeard opens hosts again that had been silent.
func (g *Gateway) markHeard(ctx context.Context, hosts []uuid.UUID) error {
	if err := g.queries.MarkHeard(ctx, g.options.Pool, hosts); err != nil {
		return err
	}
	return g.queries.WakeScheduler(ctx, g.options.Pool)
}

// flushReports writes reports in transactions of bounded size; those of a transaction that fails wait for the next flush.
func (g *Gateway) flushReports(ctx context.Context, reports map[ids.Host]*agentpb.Report) error {
	var failure error
	batch := make(map[ids.Host]*agentpb.Report, min(len(reports), maxReportsPerTransaction))
	write := func() {
		ended, err := g.storeReports(ctx, batch)
		if err != nil {
			g.pending.putBack(batch)
			failure = err
		} else if len(ended) > 0 {
			failure = errors.Join(failure, g.bump(ctx, ended))
		}
		clear(batch)
	}
	for host, report := range reports {
		if batch[host] = report; len(batch) == maxReportsPerTransaction {
			write()
		}
	}
	if len(batch) > 0 {
		write()
	}
	return failure
}

func (g *Gateway) bump(ctx context.Context, hosts []ids.Host) error {
	all := make([]uuid.UUID, 0, len(hosts))
	for _, host := range hosts {
		all = append(all, uuid.UUID(host))
	}
	return g.queries.BumpDesired(ctx, g.options.Pool, all)
}

// pollLoop compares all streams with the tables: what a notification should have said and did not. The more streams there are, the
// more seldom it does.
func (g *Gateway) pollLoop(ctx context.Context) {
	for {
		timer := time.NewTimer(g.pollInterval())
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
			g.checkAll(ctx)
		}
	}
}

func (g *Gateway) pollInterval() time.Duration {
	forFleet := time.Duration(g.streams.Load()) * time.Second / maxPollsPerSecond
	return max(g.options.PollInterval, min(forFleet, maxPollInterval))
}

// listenLoop looks at hosts as soon as a notification names them.
func (g *Gateway) listenLoop(ctx context.Context) {
	stream, stop := g.options.Notifications.Subscribe(pgnotify.ChannelHost)
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return
		case payload := <-stream:
			if payload == "" {
				g.checkAll(ctx)
				continue
			}
			var named []*session
			for _, host := range pgnotify.List(payload) {
				if s := g.session(ids.Host(host)); s != nil {
					named = append(named, s)
				}
			}
			if len(named) > 0 {
				g.check(ctx, named)
			}
		}
	}
}

func (g *Gateway) checkAll(ctx context.Context) {
	sessions := g.allSessions()
	for len(sessions) > 0 {
		n := min(len(sessions), maxHostsPerQuery)
		g.check(ctx, sessions[:n])
		sessions = sessions[n:]
	}
}

// check ends the streams of hosts that lost their standing and wakes those whose desired state has changed.
func (g *Gateway) check(ctx context.Context, sessions []*session) {
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	hosts := make([]uuid.UUID, 0, len(sessions))
	for _, s := range sessions {
		hosts = append(hosts, uuid.UUID(s.host))
	}
	rows, err := g.queries.ConnectedHosts(ctx, g.options.Pool, hosts)
	if err != nil {
		if ctx.Err() == nil {
			g.log.WarnContext(ctx, "streams not compared with the database, trying again", "error", err)
		}
		return
	}
	byHost := make(map[ids.Host]*session, len(sessions))
	for _, s := range sessions {
		byHost[s.host] = s
	}
	for _, row := range rows {
		s := byHost[row.ID]
		err := standingError(row.State, row.StateReason)
		switch {
		case err != nil:
			g.tunnels.dropHost(row.ID)
			s.end(err)
		case row.State == StateLost:
			s.end(errLost)
		case row.State == StateVerifying && s.quarantined.Load():
			s.end(errVerify)
		case row.DesiredGeneration != s.sent.Load():
			s.poke()
		}
		if !row.Connected {
			s.alive.expose()
		}
	}
}

// sweepLoop marks hosts suspect that nobody has heard for longer than a heartbeat, and lost those that nobody has for too long. It waits
// while this process itself may be the reason: after its start and after writes that failed, agents are given the time to be heard again.
func (g *Gateway) sweepLoop(ctx context.Context) {
	g.flushFailed.CompareAndSwap(0, g.options.Now().UnixMilli())
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for tick := 0; ; tick++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			now := g.options.Now()
			late := g.exposeLate(now) // before the host is suspect
			if !late && !g.watches(now) && tick%sweepsToWait != 0 {
				continue
			}
			if err := g.sweep(ctx); err != nil && ctx.Err() == nil {
				g.flushFailed.Store(g.options.Now().UnixMilli())
				g.log.WarnContext(ctx, "silent hosts not looked for, trying again", "error", err)
			}
		}
	}
}

func (g *Gateway) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	hearing := g.options.Now().UnixMilli() - g.flushFailed.Load()
	if hearing <= g.options.LostAfter.Milliseconds() {
		return nil
	}
	slack, least := int32(g.slack().Milliseconds()), int32(minSuspectAfter.Milliseconds())
	if found, err := g.queries.AnySilent(ctx, g.options.Pool, hearing, slack, least); err != nil || !found {
		return err
	}
	lost, err := g.queries.MarkLost(ctx, g.options.Pool, reasonCordoned, reasonCordonedLost, reasonLost, hearing)
	if err != nil {
		return err
	}
	silent, err := g.queries.MarkSuspect(ctx, g.options.Pool, hearing, slack, least)
	if err != nil {
		return err
	}
	for _, host := range lost {
		g.metrics.lost.Inc()
		g.log.WarnContext(ctx, "host lost", "host_id", host.ID)
		if s := g.session(host.ID); s != nil && s.stream <= host.Stream {
			s.end(errLost)
		}
	}
	if silent == 0 && len(lost) == 0 {
		return nil
	}
	return g.queries.WakeScheduler(ctx, g.options.Pool)
}
