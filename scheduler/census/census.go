// Package census keeps the fleet as placement sees it in memory, equal to the database.
//
// A process has one Census. Sync brings its index up to date: the first call reads every host, each further one the feed
// fleet_changes, which triggers write beside everything that matters to placement, and the hosts named there. When nothing has
// changed that is one indexed query.
//
// # Nothing is missed
//
// Transactions commit in another order than they number themselves. So a look at the feed remembers the oldest transaction that
// had not ended at that look (pg_snapshot_xmin) and the next one starts from there; rows seen twice are dropped by their ids. The
// hosts are read after the feed, so that whatever the feed announced is visible, and what comes later is announced later.
//
// The leader purges rows that ended before an xmin of ten minutes ago. A reader that has not looked for half of that, or finds
// more changes than a reading of everything is worth, reads everything.
//
// # Claims
//
// The applier takes GPUs in memory before its transaction commits, and the database cannot show them to a Sync meanwhile. A
// Claim remembers what was taken and lays it over whatever is read until the transaction is visible to the look; one that does
// not commit has its hosts read again.
//
// # Locking
//
// Read and the methods of Claim are safe for concurrent use and never wait for the database. Concurrent calls of Sync share one
// look: a caller is served by any that began after its call. Errors are the database's, wrapped; the index is then as before and
// the next Sync makes up for it.
package census

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market/pricing"
	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

const (
	feedKept     = 10 * time.Minute // rows of the feed, after all who could miss them have ended
	maxBehind    = feedKept / 2     // a reader that has not looked for longer reads everything
	maxFeedRows  = 50_000           // so does one that finds more changes
	hostsAtOnce  = 5_000            // read in one go: bounds memory
	syncTimeout  = time.Minute      // the first load included
	warmInterval = time.Second
	catchUpLooks = 10 // a look that takes longer than warmInterval has more to read when it ends
	planEach     = "force_custom_plan"
	planAuto     = "auto"
)

// Head is an operator's host that can take a Ray head.
type Head struct {
	ID      ids.Host
	Machine string
	Region  string
	Runtime string
	Images  []string // the versions of Ray that it can run
}

// Census is the fleet of one database. Make it with New.
type Census struct {
	pool    *pgxpool.Pool
	queries *schedulerdb.Queries
	log     *slog.Logger
	clock   func() time.Time

	// The look: who holds the token may read and change these.
	token    chan struct{}
	begun    atomic.Int64 // number of the look that began last
	complete int64        // number of the last one that succeeded
	lookedAt time.Time    // by clock; zero before the first load
	since    uint64       // the last look's xmin
	seen     map[int64]struct{}
	priced   time.Time // the minute whose prices the index has

	mu       sync.RWMutex
	index    *placement.Index
	machines map[ids.Host]string
	heads    []Head // by id
	moving   map[ids.Host]ask
	market   map[place]int       // utilisation in basis points
	stale    map[ids.Host]bool   // to be read at the next look, whatever the feed says
	reread   map[string]struct{} // machines of hosts that were read again; nil: nobody asks
	claims   []*Claim            // not yet visible to a look
	own      map[uint64]struct{} // transactions whose rows in the feed are known
}

type place struct{ model, region string }

// ask is what the prices of a host are worked out from.
type ask struct {
	base, floor money.Amount
	rules       pricing.Rules
}

// New makes an empty census; the first Sync fills it.
func New(pool *pgxpool.Pool, log *slog.Logger) *Census {
	return &Census{
		pool: pool, queries: schedulerdb.New(), log: log, clock: time.Now, token: make(chan struct{}, 1),
		index: placement.NewIndex(), machines: make(map[ids.Host]string), moving: make(map[ids.Host]ask), market: make(map[place]int),
		seen: make(map[int64]struct{}), stale: make(map[ids.Host]bool), own: make(map[uint64]struct{}),
	}
}

// Read calls look with the index, which it must neither change nor keep.
func (c *Census) Read(look func(x *placement.Index)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	look(c.index)
}

// Machine is the machine that a host is on, "" for one that is not known.
func (c *Census) Machine(host ids.Host) string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.machines[host]
}

// Heads are the operators' hosts that can take a Ray head now, by id.
func (c *Census) Heads() []Head {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Clone(c.heads)
}

// Reread are the machines of which a host was read again since the last call, in no order. The first call only begins the count.
func (c *Census) Reread() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	machines := slices.Collect(maps.Keys(c.reread))
	c.reread = make(map[string]struct{})
	return machines
}

// Stale has hosts read again by the next Sync.
func (c *Census) Stale(hosts ...ids.Host) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, host := range hosts {
		c.stale[host] = true
	}
}

// Sync makes the index show at least what was committed when it was called. db is a transaction
// that has not written anything placement sees and that prefers indexes; nil has the census begin one.
func (c *Census) Sync(ctx context.Context, db schedulerdb.DBTX) error {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	begun := c.begun.Load()
	select {
	case c.token <- struct{}{}:
		defer func() { <-c.token }()
	case <-ctx.Done():
		return fmt.Errorf("read the fleet: %w", ctx.Err())
	}
	if c.complete > begun {
		return nil // another caller's look began after this call
	}
	number := c.begun.Add(1)
	if err := c.lookIn(ctx, db); err != nil {
		return fmt.Errorf("read the fleet: %w", err)
	}
	c.complete = number
	return nil
}

// Run keeps the census warm until ctx ends, so that nobody has to wait for what has gathered. It is a lifecycle.Func, ready when the
// fleet has been read and what changed meanwhile too, so that a process that leads or serves after it does so at once; a database that
// does not answer, or a fleet that changes faster than it can be read, holds up nobody.
func (c *Census) Run(ctx context.Context, ready func()) error {
	tick := time.NewTicker(warmInterval)
	defer tick.Stop()
	for looks := 1; ; looks++ {
		start := c.clock()
		err := c.Sync(ctx, nil)
		if err != nil && ctx.Err() == nil {
			c.log.WarnContext(ctx, "the fleet could not be read, it will be tried again", "error", err)
		}
		if err != nil || c.clock().Sub(start) < warmInterval || looks >= catchUpLooks {
			ready()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// lookIn looks in the caller's transaction or in one of its own. Plans are kept, and one that was made while the tables were small
// would read all of a large one for every host: so it is made without that choice.
func (c *Census) lookIn(ctx context.Context, db schedulerdb.DBTX) error {
	if db != nil {
		return c.look(ctx, db)
	}
	return pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) error {
		if err := c.queries.PreferIndexes(ctx, tx); err != nil {
			return err
		}
		return c.look(ctx, tx)
	})
}

// look reads the feed and what it names.
func (c *Census) look(ctx context.Context, db schedulerdb.DBTX) error {
	start := c.clock()
	since := pgtype.Uint64{Uint64: c.since, Valid: true}
	all := c.lookedAt.IsZero() || start.Sub(c.lookedAt) > maxBehind
	if all {
		since.Uint64 = math.MaxUint64 // only the snapshot
	}
	feed, err := c.queries.FleetChanges(ctx, db, since, maxFeedRows+1)
	if err != nil {
		return err
	}
	snapshot, err := parseSnapshot(feed[0].Snapshot)
	if err != nil {
		return err
	}
	now := feed[0].Now
	// The fleet is read with plans for as much as there is now: one that was kept from when there were no leases would look through all
	// of them for each GPU.
	if err := c.queries.PlanCacheMode(ctx, db, planEach); err != nil {
		return err
	}
	if all || len(feed) > maxFeedRows {
		err = c.load(ctx, db, snapshot, now)
	} else {
		err = c.update(ctx, db, snapshot, now, feed)
	}
	if err != nil {
		return err
	}
	c.remember(feed, snapshot)
	c.lookedAt = start
	if err := c.reprice(ctx, db, now); err != nil {
		return err
	}
	return c.queries.PlanCacheMode(ctx, db, planAuto)
}

// remember notes how far the feed was read.
func (c *Census) remember(feed []schedulerdb.FleetChangesRow, s snapshot) {
	c.since = s.xmin
	seen := make(map[int64]struct{})
	for _, row := range feed {
		if row.ID != 0 && row.Xid.Uint64 >= s.xmin {
			seen[row.ID] = struct{}{}
		}
	}
	c.seen = seen
	c.mu.Lock()
	defer c.mu.Unlock()
	for xid := range c.own {
		if xid < s.xmin {
			delete(c.own, xid)
		}
	}
	c.claims = slices.DeleteFunc(c.claims, func(k *Claim) bool { return k.committed && s.sees(k.xid) })
}

// update reads again the hosts that the feed names.
func (c *Census) update(ctx context.Context, db schedulerdb.DBTX, s snapshot, now time.Time, feed []schedulerdb.FleetChangesRow) error {
	changed, stale := c.changed(feed)
	for chunk := range slices.Chunk(changed, hostsAtOnce) {
		read, err := c.read(ctx, db, chunk, now)
		if err != nil {
			c.Stale(stale...)
			return err
		}
		c.mu.Lock()
		for _, host := range chunk {
			if machine, known := c.machines[ids.Host(host)]; known && c.reread != nil {
				c.reread[machine] = struct{}{}
			}
			c.put(host, read[ids.Host(host)])
			c.overlay(c.index, ids.Host(host), s)
		}
		c.mu.Unlock()
	}
	return nil
}

// changed are the hosts to read, and of them those that only Stale has named, which it takes over.
func (c *Census) changed(feed []schedulerdb.FleetChangesRow) (hosts []uuid.UUID, stale []ids.Host) {
	named := make(map[uuid.UUID]bool)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, row := range feed {
		if _, known := c.own[row.Xid.Uint64]; known {
			continue
		}
		if _, known := c.seen[row.ID]; known {
			continue
		}
		for _, host := range row.Hosts {
			named[host] = true
		}
	}
	for host := range c.stale {
		stale = append(stale, host)
		named[uuid.UUID(host)] = true
	}
	clear(c.stale)
	for host := range named {
		hosts = append(hosts, host)
	}
	return hosts, stale
}

// load reads every host into a new index and swaps it in.
func (c *Census) load(ctx context.Context, db schedulerdb.DBTX, s snapshot, now time.Time) error {
	if err := c.readMarket(ctx, db); err != nil {
		return err
	}
	fresh := New(c.pool, c.log)
	fresh.market = c.market
	c.mu.Lock()
	stale := c.stale
	c.stale = make(map[ids.Host]bool)
	c.mu.Unlock()
	for after := uuid.Nil; ; {
		page, err := c.queries.CensusPage(ctx, db, after, hostsAtOnce)
		if err != nil || len(page) == 0 {
			if err == nil {
				break
			}
			c.Stale(slices.Collect(maps.Keys(stale))...)
			return err
		}
		read, err := c.read(ctx, db, page, now)
		if err != nil {
			c.Stale(slices.Collect(maps.Keys(stale))...)
			return err
		}
		for _, host := range page {
			fresh.put(host, read[ids.Host(host)])
		}
		after = page[len(page)-1]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index, c.machines, c.heads, c.moving = fresh.index, fresh.machines, fresh.heads, fresh.moving
	for _, claim := range c.claims {
		for host := range claim.byHost {
			c.overlay(c.index, host, s)
		}
	}
	return nil
}

// put replaces one host by what was read of it; a nil reading removes it. The caller holds the write lock or the only reference.
func (c *Census) put(id uuid.UUID, r *reading) {
	host := ids.Host(id)
	delete(c.moving, host)
	at, isHead := slices.BinarySearchFunc(c.heads, host, func(h Head, id ids.Host) int { return slices.Compare(h.ID[:], id[:]) })
	if isHead {
		c.heads = slices.Delete(c.heads, at, at+1)
	}
	if r == nil {
		delete(c.machines, host)
		c.index.Remove(host)
		return
	}
	c.machines[host] = r.machine
	if r.head {
		c.heads = slices.Insert(c.heads, at, Head{ID: host, Machine: r.machine, Region: r.host.Region, Runtime: r.host.Runtime, Images: r.host.Images})
	}
	if r.ask.rules.Moves() {
		c.moving[host] = r.ask
	}
	for _, old := range c.index.Of(host) {
		if !slices.ContainsFunc(r.models, func(h placement.Host) bool { return h.Model == old.Model }) {
			c.index.Remove(host)
			break
		}
	}
	for _, h := range r.models {
		c.index.Put(h)
	}
}

// reprice works out the prices that follow the time or the market, once a minute.
func (c *Census) reprice(ctx context.Context, db schedulerdb.DBTX, now time.Time) error {
	minute := now.Truncate(time.Minute)
	if c.priced.Equal(minute) {
		return nil
	}
	if err := c.readMarket(ctx, db); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for host, ask := range c.moving {
		for _, h := range c.index.Of(host) {
			if prices := c.prices(ask, h.Model, h.Region, minute); prices != h.Prices {
				h.Prices = prices
				c.index.Put(h)
			}
		}
	}
	c.priced = minute
	return nil
}

func (c *Census) readMarket(ctx context.Context, db schedulerdb.DBTX) error {
	rows, err := c.queries.Utilisation(ctx, db)
	if err != nil {
		return err
	}
	market := make(map[place]int, len(rows))
	for _, row := range rows {
		market[place{row.GPUModel, row.Region}] = int(row.Bps)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.market = market
	return nil
}

// prices are a host's in the minute of a time.
func (c *Census) prices(a ask, model, region string, at time.Time) [placement.Classes]money.Amount {
	utilisation, sampled := c.market[place{model, region}]
	if !sampled {
		utilisation = pricing.UtilisationUnknown
	}
	return pricing.Effective(a.base, a.floor, a.rules, at.Truncate(time.Minute).UTC(), utilisation)
}
