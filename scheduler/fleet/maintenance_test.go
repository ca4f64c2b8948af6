package fleet_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

// careTerm is the term that lead gives.
const careTerm = 7

// lead makes the test the scheduler's leader.
func (b *bundle) lead() *fleet.Care {
	b.t.Helper()
	b.exec(`INSERT INTO leadership (role, holder, term, expires_at) VALUES ('scheduler', 'test', $1, now() + interval '1 hour')`, careTerm)
	return fleet.NewCare(b.pool, b.quietLog())
}

func (b *bundle) plan(host ids.Host, starts, ends time.Duration) fleet.Window {
	b.t.Helper()
	now := query[time.Time](b, `SELECT clock_timestamp()`)
	w, err := b.registry.PlanMaintenance(b.t.Context(), b.org, ids.User{}, host, fleet.WindowPlan{StartsAt: now.Add(starts), EndsAt: now.Add(ends), Note: "new fans"})
	if err != nil {
		b.t.Fatal(err)
	}
	return w
}

// look lets the care do what is due.
func (b *bundle) look(care *fleet.Care) {
	b.t.Helper()
	if err := care.Windows(b.t.Context(), careTerm); err != nil {
		b.t.Fatal(err)
	}
}

// over moves a window into the past.
func (b *bundle) over(w fleet.Window) {
	b.t.Helper()
	b.exec(`UPDATE maintenance_windows SET starts_at = starts_at - interval '10 days', ends_at = now() - interval '1 second' WHERE id = $1`, w.ID)
}

func (b *bundle) stateOf(host ids.Host) string {
	b.t.Helper()
	return query[string](b, `SELECT state || ': ' || state_reason FROM hosts WHERE id = $1`, host)
}

func TestMaintenancePlansAreChecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	now := query[time.Time](b, `SELECT clock_timestamp()`)
	b.plan(m.id, 24*time.Hour, 30*time.Hour)
	for name, c := range map[string]struct {
		host   ids.Host
		starts time.Duration
		ends   time.Duration
		note   string
		code   errs.Code
		says   string
	}{
		"in the past":        {m.id, -time.Hour, time.Hour, "", errs.Invalid, "begins in the past"},
		"too far ahead":      {m.id, 400 * 24 * time.Hour, 401 * 24 * time.Hour, "", errs.Invalid, "366 days ahead"},
		"ends first":         {m.id, 2 * time.Hour, time.Hour, "", errs.Invalid, "must end after"},
		"too long":           {m.id, time.Hour, 31*24*time.Hour + 2*time.Hour, "", errs.Invalid, "at most 30 days"},
		"a long note":        {m.id, time.Hour, 2 * time.Hour, strings.Repeat("é", 201), errs.Invalid, "200 characters"},
		"overlaps":           {m.id, 20 * time.Hour, 25 * time.Hour, "", errs.Conflict, "overlaps"},
		"overlaps within":    {m.id, 25 * time.Hour, 26 * time.Hour, "", errs.Conflict, "overlaps"},
		"nobody's host":      {ids.New[ids.Host](), time.Hour, 2 * time.Hour, "", errs.NotFound, "no host"},
		"a note of no value": {m.id, time.Hour, 2 * time.Hour, "a\x00b", errs.Invalid, "note"},
	} {
		plan := fleet.WindowPlan{StartsAt: now.Add(c.starts), EndsAt: now.Add(c.ends), Note: c.note}
		_, err := b.registry.PlanMaintenance(t.Context(), b.org, ids.User{}, c.host, plan)
		if errs.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.plan(m.id, 30*time.Hour, 31*time.Hour) // one may follow another at once
	if _, err := b.registry.PlanMaintenance(t.Context(), b.newOrg(false), ids.User{}, m.id, fleet.WindowPlan{StartsAt: now, EndsAt: now.Add(time.Hour)}); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("another owner planned a window: %v", err)
	}
	for i := range 48 {
		b.plan(m.id, time.Duration(100+i)*time.Hour, time.Duration(101+i)*time.Hour)
	}
	_, err := b.registry.PlanMaintenance(t.Context(), b.org, ids.User{}, m.id, fleet.WindowPlan{StartsAt: now.Add(500 * time.Hour), EndsAt: now.Add(501 * time.Hour)})
	if errs.CodeOf(err) != errs.Conflict || !strings.Contains(err.Error(), "50 windows") {
		t.Errorf("the 51st window: %v", err)
	}
}

func TestOverlapOfTwoAtOnceIsAConflict(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	now := query[time.Time](b, `SELECT clock_timestamp()`)
	const both = 8
	results := make(chan error, both)
	for range both {
		go func() {
			_, err := b.registry.PlanMaintenance(context.Background(), b.org, ids.User{}, m.id, fleet.WindowPlan{StartsAt: now.Add(time.Hour), EndsAt: now.Add(2 * time.Hour)})
			results <- err
		}()
	}
	planned := 0
	for range both {
		if err := <-results; err == nil {
			planned++
		} else if errs.CodeOf(err) != errs.Conflict {
			t.Error(err)
		}
	}
	if planned != 1 {
		t.Errorf("%d were planned", planned)
	}
}

func TestMaintenanceDrainsAndOpensTheHost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	care := b.lead()
	m, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	cluster := b.cluster() // forecast to run for an hour
	node := b.node(cluster, m.id, "gpu", 0)
	b.usage(cluster, m.id, node)
	far, near := b.plan(m.id, 5*time.Hour, 6*time.Hour), b.plan(m.id, -time.Second, time.Hour)
	b.look(care)
	notices := query[string](b, `SELECT coalesce(string_agg(message, '|' ORDER BY seq), '') FROM cluster_events WHERE kind = 'notice' AND cluster_id = $1`, cluster)
	if strings.Count(notices, "|") != 0 || !strings.Contains(notices, "has begun") || !strings.Contains(notices, "new fans") {
		t.Errorf("the customer was told %q", notices)
	}
	if got := b.stateOf(m.id); got != "draining: in a maintenance window of its owner's" {
		t.Errorf("in its window the host is %s", got)
	}
	b.look(care) // nothing is done twice
	if n := query[int](b, `SELECT count(*) FROM cluster_events WHERE kind = 'notice'`); n != 1 {
		t.Errorf("%d notices", n)
	}
	if err := b.registry.Uncordon(t.Context(), b.org, m.id); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("uncordoned in maintenance: %v", err)
	}
	view, err := b.registry.Host(t.Context(), b.org, m.id)
	if err != nil || len(view.Windows) != 2 || view.Windows[0].ID != near.ID || view.Windows[0].State != fleet.WindowBegun || view.Windows[1].ID != far.ID {
		t.Errorf("%+v, %v", view.Windows, err)
	}
	b.over(near)
	b.look(care)
	if got := b.stateOf(m.id); got != "leased: " {
		t.Errorf("after its window the host is %s", got)
	}
	list, err := b.registry.Maintenance(t.Context(), b.org, m.id)
	if err != nil || len(list) != 2 || list[0].State != fleet.WindowPlanned || list[1].State != fleet.WindowEnded || list[1].EndedAt == nil {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestCustomersAreToldOfMaintenanceAhead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	care := b.lead()
	m, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	cluster := b.cluster()
	b.usage(cluster, m.id, b.node(cluster, m.id, "gpu", 0))
	b.plan(m.id, 30*time.Minute, 2*time.Hour)
	b.look(care)
	if got := query[string](b, `SELECT message FROM cluster_events WHERE kind = 'notice'`); !strings.Contains(got, "plans maintenance from") {
		t.Errorf("told %q", got)
	}
	if got := b.stateOf(m.id); !strings.HasPrefix(got, "idle") {
		t.Errorf("before its window the host is %s", got)
	}
}

func TestCancelledMaintenance(t *testing.T) {
	t.Parallel()
	b := setup(t)
	care := b.lead()
	m, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	ctx := t.Context()
	begun, planned := b.plan(m.id, 0, time.Hour), b.plan(m.id, 2*time.Hour, 3*time.Hour)
	b.look(care)
	for _, w := range []fleet.Window{begun, planned, begun} {
		got, err := b.registry.CancelMaintenance(ctx, b.org, m.id, w.ID)
		if err != nil || got.State != fleet.WindowCancelled || (got.EndedAt != nil) != (w.ID == begun.ID) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if got := b.stateOf(m.id); got != "idle: " {
		t.Errorf("the host is %s", got)
	}
	b.plan(m.id, 2*time.Hour, 4*time.Hour) // its time is free again
	if _, err := b.registry.CancelMaintenance(ctx, b.org, m.id, ids.New[ids.Maintenance]()); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("a window that does not exist: %v", err)
	}
}

func TestMaintenanceBesideCordonLossAndRetirement(t *testing.T) {
	t.Parallel()
	b := setup(t)
	care := b.lead()
	ctx := t.Context()
	cordoned, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	retired, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-1"))
	lost := b.enrol(fleet.KindGPU)
	stream, cut := context.WithCancel(t.Context())
	defer cut()
	s := lost.open(stream, "machine")
	s.keepBeating()
	s.present(saneInventory(gpu(0, "GPU-2")))
	b.waitForState(lost.id, fleet.StateIdle)
	window, _, lostWindow := b.plan(cordoned.id, 0, time.Hour), b.plan(retired.id, 0, time.Hour), b.plan(lost.id, 0, time.Hour)
	b.look(care)
	// Cordoned in its window, the host stays closed after it.
	if err := b.registry.Cordon(ctx, b.org, cordoned.id); err != nil {
		t.Fatal(err)
	}
	b.over(window)
	b.look(care)
	if got := b.stateOf(cordoned.id); got != "draining: cordoned by its owner" {
		t.Errorf("the cordoned host is %s", got)
	}
	if err := b.registry.Uncordon(ctx, b.org, cordoned.id); err != nil || !strings.HasPrefix(b.stateOf(cordoned.id), "idle") {
		t.Errorf("uncordoned it is %s, %v", b.stateOf(cordoned.id), err)
	}
	if err := b.registry.Retire(ctx, b.org, retired.id); err != nil {
		t.Fatal(err)
	}
	b.look(care)
	if list, err := b.registry.Maintenance(ctx, b.org, retired.id); err != nil || list[0].State != fleet.WindowCancelled || !strings.HasPrefix(b.stateOf(retired.id), "retired") {
		t.Errorf("%+v of a host that is %s, %v", list, b.stateOf(retired.id), err)
	}
	// Switched off in its window, the host comes back to the rest of it, and is open afterwards.
	cut()
	b.waitForState(lost.id, fleet.StateLost)
	back := lost.connect()
	back.keepBeating()
	back.present(saneInventory(gpu(0, "GPU-2")))
	b.waitForState(lost.id, fleet.StateDraining)
	b.over(lostWindow)
	b.look(care)
	if got := b.stateOf(lost.id); got != "idle: " {
		t.Errorf("the host that was switched off is %s", got)
	}
}

func TestCareOfAnOldLeaderIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	care := b.lead()
	m, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	b.plan(m.id, 0, time.Hour)
	old := int64(careTerm - 1)
	ctx := t.Context()
	failures := []error{care.Windows(ctx, old), care.Observe(ctx, old, time.Minute), care.Count(ctx, old), care.Score(ctx, old)}
	if i := slices.IndexFunc(failures, func(err error) bool { return err == nil || !strings.Contains(err.Error(), "has passed") }); i >= 0 {
		t.Errorf("write %d: %v", i, failures[i])
	}
	if got := b.stateOf(m.id); !strings.HasPrefix(got, "idle") {
		t.Errorf("the host is %s", got)
	}
	if err := care.Run(ctx, old); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("an old leader's care ended with %v", err)
	}
}

func TestCareRunsUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	care := b.lead()
	m, _ := b.idle(fleet.KindGPU, gpu(0, "GPU-0"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- care.Run(ctx, careTerm) }()
	b.plan(m.id, 0, time.Hour)
	b.waitForState(m.id, fleet.StateDraining)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
