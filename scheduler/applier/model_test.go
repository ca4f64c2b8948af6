package applier_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/seal"
	"github.com/muster-gpu/muster/scheduler/applier"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/market"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

const quotedPrice = money.Amount(1_000_000)

// storedEscrow keeps holds in a table, so that they share the applier's transaction. It refuses holds of broke.
type storedEscrow struct{ broke ids.Org }

func (e storedEscrow) HoldAll(ctx context.Context, tx pgx.Tx, holds []applier.EscrowHold) (map[ids.Booking]*errs.Error, error) {
	refused := make(map[ids.Booking]*errs.Error)
	for _, hold := range holds {
		if hold.Org == e.broke {
			refused[hold.Booking] = errs.New(errs.InsufficientFunds, "nothing is there")
			continue
		}
		if _, err := tx.Exec(ctx, `INSERT INTO test_holds (booking_id, amount) VALUES ($1, $2)`, hold.Booking, hold.Amount); err != nil {
			return nil, err
		}
	}
	return refused, nil
}

func (storedEscrow) Release(ctx context.Context, tx pgx.Tx, _ ids.Org, booking ids.Booking, amount money.Amount) error {
	tag, err := tx.Exec(ctx, `DELETE FROM test_holds WHERE booking_id = $1 AND amount = $2`, booking, amount)
	if err == nil && tag.RowsAffected() != 1 {
		return errs.New(errs.Conflict, "%d are not held for %s", amount, booking)
	}
	return err
}

// model is a small fleet that many use at once.
type model struct {
	*schedulertest.World
	fleet    *census.Census
	applier  *applier.Applier
	hosts    []ids.Host
	term     atomic.Int64
	customer [2]ids.Org // the second has no money
}

func newModel(t *testing.T) *model {
	t.Helper()
	m := &model{World: schedulertest.New(t)}
	m.Exec(`CREATE TABLE test_holds (booking_id uuid PRIMARY KEY, amount bigint NOT NULL)`)
	m.customer = [2]ids.Org{m.Customer, m.AddOrg("Broke")}
	m.AddHead()
	for i := range 4 {
		m.hosts = append(m.hosts, m.AddHost("H100", 1+i%2, quotedPrice, "eu"))
	}
	box, err := seal.New(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	m.fleet = census.New(m.Pool, log)
	m.applier = applier.New(m.Pool, pgnotify.New(m.Pool, log), m.fleet, storedEscrow{broke: m.customer[1]}, box, "2.60.0", log)
	m.term.Store(schedulertest.Term)
	return m
}

// step is what one user does; n varies whom it concerns.
type step struct {
	kind string
	n    int
}

func steps() *rapid.Generator[[]step] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{
			kind: rapid.SampledFrom([]string{
				"book", "book", "gang", "broke", "later", "preempting", "release", "release", "extend", "add", "cancel", "connect", "health", "price",
				"apply", "apply", "apply", "term",
			}).Draw(t, "kind"),
			n: rapid.IntRange(0, 50).Draw(t, "n"),
		}
	}), 2, 8)
}

// do takes a step. An error is one that must not happen.
func (m *model) do(ctx context.Context, s step) error {
	switch s.kind {
	case "book":
		return m.request(ctx, s, 1, "", nil)
	case "gang":
		return m.request(ctx, s, 2, "", nil)
	case "broke":
		return m.request(ctx, s, 1, "org_id = '"+sqlID(m.customer[1])+"'", nil)
	case "later":
		return m.request(ctx, s, 1, "starts_at = clock_timestamp() + interval '200 milliseconds'", nil)
	case "preempting":
		return m.request(ctx, s, 1, `plan = jsonb_set(plan, '{0,preempts}', 'true')`, nil)
	case "extend", "add":
		return m.changeCluster(ctx, s)
	case "release":
		return m.release(ctx, s.n)
	case "cancel":
		return m.cancel(ctx)
	case "apply":
		return m.apply(ctx)
	case "term":
		var term int64
		err := m.Pool.QueryRow(ctx, `UPDATE leadership SET term = term + 1 RETURNING term`).Scan(&term)
		m.term.Store(max(term, m.term.Load()))
		return err
	}
	host := m.hosts[s.n%len(m.hosts)]
	_, err := m.Pool.Exec(ctx, map[string]string{
		"connect": `UPDATE hosts SET connected = NOT connected WHERE id = $1`,
		"health":  `UPDATE gpus SET healthy = NOT healthy WHERE host_id = $1 AND ordinal = 0`,
		"price":   `UPDATE asks SET price_per_gpu_hour = 3000000 - price_per_gpu_hour WHERE host_id = $1`,
	}[s.kind], host)
	return err
}

func sqlID[K ids.Kind](id ids.ID[K]) string {
	v, _ := id.Value()
	s, _ := v.(string)
	return s
}

// request stores an accepted quote on some hosts, with a change of its row.
func (m *model) request(ctx context.Context, s step, nodes int, change string, target *ids.Cluster) error {
	var lines []market.Line
	for i := range nodes {
		lines = append(lines, market.Line{HostID: m.hosts[(s.n+i)%len(m.hosts)], Price: quotedPrice})
	}
	plan, err := json.Marshal(lines)
	if err != nil {
		return err
	}
	kind, maxPrice := "market", (*int64)(nil)
	if s.n%5 == 0 && change == "" && target == nil {
		limit := int64(quotedPrice)
		kind, maxPrice = "spot", &limit
	}
	purpose := "cluster"
	if target != nil {
		purpose = map[string]string{"add": "addition", "extend": "extension"}[s.kind]
	}
	if change != "" {
		change = ", " + change
	}
	booking := ids.New[ids.Booking]()
	return pgx.BeginFunc(ctx, m.Pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO bookings (id, org_id, gpu_model, node_count, gpus_per_node, duration_ms, fee_bps, plan, hold_base_units, expires_at,
				kind, max_price_per_gpu_hour, purpose, target_cluster_id)
			VALUES ($1, $2, 'H100', $3, 1, 3600000, 250, $4, $5, now() + interval '1 minute', $6, $7, $8, $9)`,
			booking, m.customer[0], nodes, plan, quotedPrice*money.Amount(nodes), kind, maxPrice, purpose, target)
		if err == nil {
			_, err = tx.Exec(ctx, `UPDATE bookings SET requested_at = now()`+change+` WHERE id = $1`, booking)
		}
		return err
	})
}

func (m *model) someCluster(ctx context.Context, tx pgx.Tx, n int) (id ids.Cluster, found bool, err error) {
	// One row is locked at a time: a query that locks what it looks for can wait with another locked, and two such for each other.
	err = tx.QueryRow(ctx, `SELECT id FROM clusters WHERE ended_at IS NULL AND id =
		(SELECT id FROM clusters WHERE ended_at IS NULL ORDER BY md5(id::text || $1::int) LIMIT 1) FOR UPDATE`, n).Scan(&id)
	if err == pgx.ErrNoRows { //nolint:errorlint // QueryRow returns it bare
		return id, false, nil
	}
	return id, err == nil, err
}

// changeCluster makes a cluster ready and asks for more of it.
func (m *model) changeCluster(ctx context.Context, s step) error {
	var target ids.Cluster
	var found bool
	err := pgx.BeginFunc(ctx, m.Pool, func(tx pgx.Tx) (err error) {
		if target, found, err = m.someCluster(ctx, tx, s.n); err != nil || !found {
			return err
		}
		for _, next := range [][2]string{{"reserved", "preparing"}, {"preparing", "head_up"}, {"head_up", "joining"}, {"joining", "ready"}} {
			if _, err := tx.Exec(ctx, `UPDATE clusters SET state = $3 WHERE id = $1 AND state = $2`, target, next[0], next[1]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || !found {
		return err
	}
	return m.request(ctx, s, 1, "", &target)
}

func (m *model) release(ctx context.Context, n int) error {
	return pgx.BeginFunc(ctx, m.Pool, func(tx pgx.Tx) error {
		id, found, err := m.someCluster(ctx, tx, n)
		if err != nil || !found {
			return err
		}
		for _, sql := range []string{
			`UPDATE leases SET state = 'closed', closed_at = clock_timestamp() WHERE cluster_id = $1 AND state <> 'closed'`,
			`UPDATE nodes SET state = 'failed', ended_at = clock_timestamp() WHERE cluster_id = $1 AND ended_at IS NULL`,
			`UPDATE clusters SET state = 'draining', fault_party = 'customer' WHERE id = $1`,
			`UPDATE clusters SET state = 'released', ended_at = clock_timestamp() WHERE id = $1`,
		} {
			if _, err := tx.Exec(ctx, sql, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// cancel ends a scheduled booking as the market does.
func (m *model) cancel(ctx context.Context) error {
	return pgx.BeginFunc(ctx, m.Pool, func(tx pgx.Tx) error {
		var id ids.Booking
		var hold money.Amount
		err := tx.QueryRow(ctx, `SELECT id, hold_base_units FROM bookings WHERE state = 'scheduled' LIMIT 1 FOR UPDATE SKIP LOCKED`).Scan(&id, &hold)
		if err == pgx.ErrNoRows { //nolint:errorlint // QueryRow returns it bare
			return nil
		}
		if err != nil {
			return err
		}
		if err := (storedEscrow{}).Release(ctx, tx, ids.Org{}, id, hold); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE reservations SET released_at = clock_timestamp() WHERE booking_id = $1 AND released_at IS NULL`, id); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE bookings SET state = 'cancelled' WHERE id = $1`, id)
		return err
	})
}

// apply decides under the term that this process believes in, which may have passed.
func (m *model) apply(ctx context.Context) error {
	_, err := m.applier.Apply(ctx, m.term.Load())
	if err != nil && strings.Contains(err.Error(), "has passed") {
		return nil
	}
	return err
}

// check looks for what must never be.
func (m *model) check(t *rapid.T) {
	for what, sql := range map[string]string{
		"pairs of leases held one GPU at a time": `SELECT count(*) FROM leases a JOIN leases b ON a.gpu_id = b.gpu_id AND a.id < b.id
			AND tstzrange(a.opened_at, a.closed_at) && tstzrange(b.opened_at, b.closed_at)`,
		"accepted bookings have no cluster": `SELECT count(*) FROM bookings b WHERE b.state = 'accepted' AND b.purpose = 'cluster'
			AND NOT EXISTS (SELECT 1 FROM clusters c WHERE c.booking_id = b.id)`,
		"clusters are of bookings that were not accepted": `SELECT count(*) FROM clusters c JOIN bookings b ON b.id = c.booking_id WHERE b.state <> 'accepted'`,
		"bookings hold money or not, against their state": `SELECT count(*) FROM bookings b LEFT JOIN test_holds h ON h.booking_id = b.id
			WHERE (h.booking_id IS NOT NULL) <> (b.state IN ('accepted', 'scheduled'))`,
		"clusters hold something else than their bookings": `SELECT count(*) FROM clusters c WHERE c.hold_base_units <>
			(SELECT sum(h.amount) FROM test_holds h JOIN bookings b ON b.id = h.booking_id WHERE b.id = c.booking_id OR b.target_cluster_id = c.id AND b.state = 'accepted')`,
		"clusters hold something else than their leases cost for the booked time": `SELECT count(*) FROM clusters c WHERE c.hold_base_units <>
			(SELECT sum(l.price_per_gpu_hour) FROM leases l WHERE l.cluster_id = c.id)
			+ (SELECT coalesce(sum(b.hold_base_units), 0) FROM bookings b WHERE b.target_cluster_id = c.id AND b.state = 'accepted' AND b.purpose = 'extension')
			AND NOT EXISTS (SELECT 1 FROM bookings b WHERE b.id = c.booking_id AND b.starts_at IS NOT NULL)`,
		"clusters do not have their places": `SELECT count(*) FROM clusters c WHERE c.node_count <>
			(SELECT count(DISTINCT n.ordinal) FROM nodes n WHERE n.cluster_id = c.id AND n.role = 'gpu')`,
		"bookings hold reservations that have ended for them": `SELECT count(*) FROM reservations r JOIN bookings b ON b.id = r.booking_id
			WHERE r.released_at IS NULL AND b.state <> 'scheduled'`,
		"bookings of the one without money were accepted": `SELECT count(*) FROM bookings WHERE org_id = '` + sqlID(m.customer[1]) + `' AND state = 'accepted'`,
	} {
		if found := m.Count(sql); found != 0 {
			t.Fatalf("%d %s", found, what)
		}
	}
}

func TestNoGPUIsLeasedTwiceWhateverHappensAtOnce(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	rapid.Check(t, func(t *rapid.T) {
		users := rapid.SliceOfN(steps(), 3, 4).Draw(t, "users")
		m.Exec(`UPDATE hosts SET connected = true WHERE NOT connected`)
		m.Exec(`UPDATE gpus SET healthy = true WHERE NOT healthy`)
		failures := make(chan error, len(users)*8)
		var group sync.WaitGroup
		for _, user := range users {
			group.Go(func() {
				for _, s := range user {
					if err := m.do(m.Context(), s); err != nil {
						failures <- err
						return
					}
				}
			})
		}
		group.Wait()
		close(failures)
		for err := range failures {
			t.Fatal(err)
		}
		if err := m.apply(m.Context()); err != nil {
			t.Fatal(err)
		}
		m.check(t)
		m.compare(t)
	})
}

// compare holds the applier's census to the database.
func (m *model) compare(t *rapid.T) {
	fresh := census.New(m.Pool, slog.New(slog.DiscardHandler))
	for _, c := range []*census.Census{fresh, m.fleet} {
		if err := c.Sync(m.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	want, got := leased(fresh), leased(m.fleet)
	for host, gpus := range want {
		if got[host] != gpus {
			t.Fatalf("the census has %b of %s leased, the database %b", got[host], host, gpus)
		}
	}
}

func TestTheLastGPUGoesToExactlyOne(t *testing.T) {
	t.Parallel()
	const tries = 1000
	m := newModel(t)
	m.Exec(`UPDATE hosts SET connected = false WHERE id <> $1 AND kind = 'gpu'`, m.hosts[0])
	for try := range tries {
		var racers sync.WaitGroup
		for range 2 {
			racers.Go(func() {
				if err := m.request(t.Context(), step{n: 4 + 4*(try%2)}, 1, "", nil); err != nil {
					t.Error(err)
				}
				if err := m.apply(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		racers.Wait()
		accepted, refused := m.Count(`SELECT count(*) FROM bookings WHERE state = 'accepted'`), m.Count(`SELECT count(*) FROM bookings WHERE state = 'refused'`)
		if want := int64(try + 1); accepted != want || refused != want {
			t.Fatalf("after %d tries %d were accepted and %d refused", want, accepted, refused)
		}
		m.Exec(`UPDATE leases SET state = 'closed', closed_at = clock_timestamp() WHERE state <> 'closed'`)
		m.Exec(`UPDATE nodes SET state = 'failed', ended_at = clock_timestamp() WHERE ended_at IS NULL`)
	}
}
