package cluster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/rayaddr"
	"github.com/muster-gpu/muster/scheduler/cluster"
)

// now is the time of all views.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// view is a cluster of a head and two GPU nodes with two GPUs each, all of them well, a moment after it entered a state.
func view(state cluster.State) cluster.View {
	nodeState := map[cluster.State]cluster.NodeState{
		cluster.Reserved: cluster.NodePlanned, cluster.Preparing: cluster.NodeStarting, cluster.HeadUp: cluster.NodeRunning,
		cluster.Joining: cluster.NodeRunning, cluster.Ready: cluster.NodeAlive, cluster.Degraded: cluster.NodeAlive,
		cluster.Draining: cluster.NodeStopping, cluster.Released: cluster.NodeStopped, cluster.Failed: cluster.NodeStopped,
	}[state]
	v := cluster.View{
		State: state, Now: now, PhaseAt: now.Add(-time.Second), Remaining: time.Hour, GPUsPerNode: 2, Places: []int{1, 2},
	}
	for ordinal := range 3 {
		v.Nodes = append(v.Nodes, newNode(v, ordinal, nodeState))
	}
	if state == cluster.Joining || state == cluster.Ready || state == cluster.Degraded {
		for _, n := range v.Nodes {
			v.Ray = append(v.Ray, inRay(n, 2))
		}
	}
	return v
}

// newNode makes the next node of a view, the head for ordinal 0.
func newNode(v cluster.View, ordinal int, state cluster.NodeState) cluster.Node {
	return cluster.Node{
		ID: ids.New[ids.Node](), HostID: ids.New[ids.Host](), Head: ordinal == 0, Ordinal: ordinal, State: state,
		Address: rayaddr.Address(len(v.Nodes)), HostState: "leased", GPUsWell: true, Since: v.PhaseAt,
	}
}

// inRay is how Ray lists a node that has joined.
func inRay(n cluster.Node, gpus int) cluster.RayNode {
	if n.Head {
		gpus = 0
	}
	return cluster.RayNode{Address: n.Address, Alive: true, GPUs: gpus, Head: n.Head}
}

// Nodes of a view.
const (
	head  = 0
	first = 1
)

func lost(n int, state string) func(*cluster.View) {
	return func(v *cluster.View) { v.Nodes[n].HostGone, v.Nodes[n].HostState = true, state }
}

func in(n int, state cluster.NodeState) func(*cluster.View) {
	return func(v *cluster.View) { v.Nodes[n].State, v.Nodes[n].Reason = state, "Exit status 1." }
}

func after(elapsed time.Duration) func(*cluster.View) {
	return func(v *cluster.View) {
		v.PhaseAt = now.Add(-elapsed)
		for i := range v.Nodes {
			v.Nodes[i].Since = v.PhaseAt
		}
	}
}

func rayOf(n int, change func(*cluster.RayNode)) func(*cluster.View) {
	return func(v *cluster.View) { change(&v.Ray[n]) }
}

func noRay(v *cluster.View) { v.Ray = nil }

// want is what is expected of a decision.
type want struct {
	to      cluster.State
	party   cluster.Party
	reason  string // part of it
	fail    []int  // nodes of the view
	replace []int
}

func TestDecide(t *testing.T) {
	t.Parallel()
	nothing := want{}
	for _, c := range []struct {
		name    string
		state   cluster.State
		changes []func(*cluster.View)
		want    want
	}{
		{"hosts have not begun", cluster.Reserved, nil, nothing},
		{"one has begun", cluster.Reserved, list(in(first, cluster.NodeStarting)), want{to: cluster.Preparing}},
		{"none begins in time", cluster.Reserved, list(after(15*time.Minute + time.Second)), platform("begin in time")},
		{"released before it began", cluster.Reserved, list(release), customer("Released")},
		{"a host is lost before it began", cluster.Reserved, list(lost(first, "lost")), want{fail: []int{first}}},

		{"the head starts", cluster.Preparing, nil, nothing},
		{"the head runs", cluster.Preparing, list(in(head, cluster.NodeRunning)), want{to: cluster.HeadUp}},
		{"the head starts too slowly", cluster.Preparing, list(after(91 * time.Second)), platform("did not start in time")},
		{"a GPU node fails at its start", cluster.Preparing, list(in(first, cluster.NodeFailed)), want{replace: []int{1}}},

		{"the head is up", cluster.HeadUp, nil, want{to: cluster.Joining, reason: "2 nodes"}},

		{"all have joined", cluster.Joining, nil, want{to: cluster.Ready}},
		{"Ray says nothing", cluster.Joining, list(noRay), nothing},
		{"Ray still says nothing", cluster.Joining, list(noRay, after(3*time.Minute)), nothing},
		{"Ray never says anything", cluster.Joining, list(noRay, after(5*time.Minute+time.Second)), platform("did not say")},
		{"never as booked", cluster.Joining, list(stranger, after(10*time.Minute+time.Second)), platform("as booked in time")},
		{"Ray lists one as dead", cluster.Joining, list(rayOf(first, dead)), nothing},
		{"one does not join in time", cluster.Joining, list(rayOf(first, dead), after(121*time.Second)), want{fail: []int{first}}},
		{"one brings too few GPUs", cluster.Joining, list(rayOf(first, oneGPU)), want{fail: []int{first}}},
		{"a stranger has joined", cluster.Joining, list(stranger), nothing},
		{"a dead stranger is listed", cluster.Joining, list(stranger, lastDead), want{to: cluster.Ready}},
		{"a node has joined that was not told to start", cluster.Joining, list(in(first, cluster.NodePlanned)), nothing},
		{"an address was dead before", cluster.Joining, list(deadBefore), want{to: cluster.Ready}},
		{"Ray has another head", cluster.Joining, list(rayOf(head, func(r *cluster.RayNode) { r.Head = false })), nothing},

		{"all is well", cluster.Ready, nil, nothing},
		{"Ray is silent for a moment", cluster.Ready, list(noRay), nothing},
		{"the time is used up", cluster.Ready, list(usedUp), customer("used up")},
		{"released", cluster.Ready, list(release), customer("Released")},
		{"a GPU host is lost", cluster.Ready, list(lost(first, "lost")), degraded},
		{"a GPU host is quarantined", cluster.Ready, list(lost(first, "quarantined")), degraded},
		{"a GPU fails", cluster.Ready, list(func(v *cluster.View) { v.Nodes[first].GPUsWell = false }), degraded},
		{"Ray loses a node", cluster.Ready, list(rayOf(first, dead)), degraded},
		{"a node loses a GPU in Ray", cluster.Ready, list(rayOf(first, oneGPU)), degraded},
		{"a node's process ends", cluster.Ready, list(in(first, cluster.NodeFailed)), want{to: cluster.Degraded}},
		{"the head's host is lost", cluster.Ready, list(lost(head, "lost")), platform("machine of the Ray head is lost")},
		{"the head's process ends", cluster.Ready, list(in(head, cluster.NodeFailed)), platform("Exit status 1.")},
		{"head and node are lost", cluster.Ready, list(lost(head, "lost"), lost(first, "lost")), platform("Ray head")},
		{"released while a host is lost", cluster.Ready, list(lost(first, "lost"), release), customer("Released")},

		{"a place is vacant", cluster.Degraded, list(in(first, cluster.NodeFailed)), want{replace: []int{1}}},
		{"whole again", cluster.Degraded, nil, want{to: cluster.Ready}},
		{"another fails meanwhile", cluster.Degraded, list(in(first, cluster.NodeFailed), lost(2, "lost")), want{fail: []int{2}}},
		{"replaced too often", cluster.Degraded, list(in(first, cluster.NodeFailed), func(v *cluster.View) { v.Replacements = 3 }), owner("more than 3 times")},
		{"not whole again in time", cluster.Degraded, list(in(first, cluster.NodeFailed), after(10*time.Minute+time.Second)), platform("whole again in time")},
		{"the head is lost while degraded", cluster.Degraded, list(lost(head, "lost")), platform("Ray head")},
		{"the time was used up as it failed", cluster.Degraded, list(usedUp), customer("used up")},

		{"nodes are stopping", cluster.Draining, nil, nothing},
		{"all have stopped", cluster.Draining, list(stopAll), want{to: cluster.Released}},
		{"one does not stop in time", cluster.Draining, list(stopAll, in(first, cluster.NodeStopping), after(61*time.Second)), want{to: cluster.Released, fail: []int{first}}},
		{"one cannot say that it stopped", cluster.Draining, list(stopAll, in(first, cluster.NodeStopping), lost(first, "lost")), want{to: cluster.Released, fail: []int{first}}},
		{"one is lost and another still stops", cluster.Draining, list(lost(first, "lost")), nothing},
		{"released while draining", cluster.Draining, list(release), nothing},

		{"ended", cluster.Released, list(lost(head, "lost"), release), nothing},
		{"failed", cluster.Failed, list(lost(head, "lost"), release), nothing},
	} {
		t.Run(fmt.Sprintf("%s/%s", c.state, c.name), func(t *testing.T) {
			t.Parallel()
			v := view(c.state)
			for _, change := range c.changes {
				change(&v)
			}
			checkDecision(t, v, cluster.Decide(v), c.want)
		})
	}
}

func checkDecision(t *testing.T, v cluster.View, got cluster.Decision, want want) {
	t.Helper()
	if got.To != want.to || got.Party != want.party || !strings.Contains(got.Reason, want.reason) || !slices.Equal(got.Replace, want.replace) {
		t.Errorf("decided %+v, want %+v", got, want)
	}
	if got.To != "" && got.To != cluster.Released && got.Reason == "" {
		t.Errorf("entering %s has no reason", got.To)
	}
	var failed []int
	for _, f := range got.Fail {
		failed = append(failed, slices.IndexFunc(v.Nodes, func(n cluster.Node) bool { return n.ID == f.ID }))
		if f.Reason == "" {
			t.Errorf("a node is given up without a reason")
		}
	}
	if !slices.Equal(failed, want.fail) {
		t.Errorf("nodes %v are given up, want %v", failed, want.fail)
	}
}

var degraded = want{to: cluster.Degraded, fail: []int{first}}

func platform(reason string) want {
	return want{to: cluster.Draining, party: cluster.PartyPlatform, reason: reason}
}

func customer(reason string) want {
	return want{to: cluster.Draining, party: cluster.PartyCustomer, reason: reason}
}

func owner(reason string) want {
	return want{to: cluster.Draining, party: cluster.PartyOwner, reason: reason}
}

func list(changes ...func(*cluster.View)) []func(*cluster.View) { return changes }

func release(v *cluster.View) { v.ReleaseRequested = true }

func usedUp(v *cluster.View) { v.Remaining = 0 }

func dead(r *cluster.RayNode) { r.Alive = false }

func oneGPU(r *cluster.RayNode) { r.GPUs = 1 }

func stranger(v *cluster.View) {
	v.Ray = append(v.Ray, cluster.RayNode{Address: "127.77.9.9", Alive: true, GPUs: 2})
}

func lastDead(v *cluster.View) { v.Ray[len(v.Ray)-1].Alive = false }

func deadBefore(v *cluster.View) {
	gone := v.Ray[first]
	gone.Alive = false
	v.Ray = append(v.Ray, gone)
}

func stopAll(v *cluster.View) {
	for i := range v.Nodes {
		v.Nodes[i].State = cluster.NodeStopped
	}
}

// randomView is any view that the tables could give.
func randomView(r *rapid.T) cluster.View {
	v := cluster.View{
		State: rapid.SampledFrom([]cluster.State{
			cluster.Reserved, cluster.Preparing, cluster.HeadUp, cluster.Joining, cluster.Ready, cluster.Degraded, cluster.Draining,
			cluster.Released, cluster.Failed,
		}).Draw(r, "state"),
		Now: now, PhaseAt: now.Add(-randomTime(r, "in phase")), ReleaseRequested: rapid.IntRange(0, 7).Draw(r, "released") == 0,
		Remaining:    time.Duration(rapid.SampledFrom([]int{0, 1, 3600}).Draw(r, "remaining")) * time.Second,
		Replacements: rapid.IntRange(0, 4).Draw(r, "replacements"), GPUsPerNode: rapid.IntRange(1, 2).Draw(r, "GPUs"),
	}
	for place := range rapid.IntRange(1, 3).Draw(r, "places") {
		v.Places = append(v.Places, place+1)
	}
	summarised := rapid.IntRange(0, 3).Draw(r, "no summary") != 0
	for ordinal := range len(v.Places) + 1 {
		for range rapid.IntRange(0, 1).Draw(r, "failed before") {
			v.Nodes = append(v.Nodes, newNode(v, ordinal, cluster.NodeFailed))
		}
		n := newNode(v, ordinal, randomNodeState(r))
		n.HostGone, n.GPUsWell = rapid.IntRange(0, 9).Draw(r, "gone") == 0, rapid.IntRange(0, 9).Draw(r, "broken") != 0
		n.Since = now.Add(-randomTime(r, "since"))
		v.Nodes = append(v.Nodes, n)
	}
	for _, n := range v.Nodes {
		if summarised && rapid.IntRange(0, 5).Draw(r, "unlisted") != 0 {
			ray := inRay(n, rapid.IntRange(v.GPUsPerNode-1, v.GPUsPerNode).Draw(r, "Ray's GPUs"))
			ray.Alive = n.State != cluster.NodeFailed && rapid.IntRange(0, 5).Draw(r, "dead") != 0
			v.Ray = append(v.Ray, ray)
		}
	}
	return v
}

func randomTime(r *rapid.T, label string) time.Duration {
	return rapid.SampledFrom([]time.Duration{time.Second, 100 * time.Second, 4 * time.Minute, time.Hour}).Draw(r, label)
}

// randomNodeState is mostly one of a node that works, so that whole clusters are met too.
func randomNodeState(r *rapid.T) cluster.NodeState {
	return rapid.SampledFrom([]cluster.NodeState{
		cluster.NodeAlive, cluster.NodeAlive, cluster.NodeAlive, cluster.NodeRunning, cluster.NodeRunning, cluster.NodeRunning,
		cluster.NodePlanned, cluster.NodeStarting, cluster.NodeStopping, cluster.NodeStopped, cluster.NodeFailed,
	}).Draw(r, "node")
}

// followers are the states that may follow each, as drawn in the package's documentation.
var followers = map[cluster.State][]cluster.State{
	cluster.Reserved:  {cluster.Preparing, cluster.Draining},
	cluster.Preparing: {cluster.HeadUp, cluster.Draining},
	cluster.HeadUp:    {cluster.Joining, cluster.Draining},
	cluster.Joining:   {cluster.Ready, cluster.Draining},
	cluster.Ready:     {cluster.Degraded, cluster.Draining},
	cluster.Degraded:  {cluster.Ready, cluster.Draining},
	cluster.Draining:  {cluster.Released},
}

func TestDecisionsKeepTheirPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		v := randomView(r)
		d := cluster.Decide(v)
		if d.To != "" && !slices.Contains(followers[v.State], d.To) {
			r.Fatalf("%s -> %s", v.State, d.To)
		}
		if d.To == cluster.Draining && d.Party == "" {
			r.Fatal("it ends on nobody's account")
		}
		if d.To == cluster.Ready {
			checkWhole(r, v)
		}
		for _, f := range d.Fail {
			i := slices.IndexFunc(v.Nodes, func(n cluster.Node) bool { return n.ID == f.ID })
			if s := v.Nodes[i].State; s == cluster.NodeFailed || s == cluster.NodeStopped {
				r.Fatalf("a node that is %s is given up", s)
			}
		}
	})
}

// checkWhole checks that every planned node, and no other, is alive in a fresh summary with its GPUs.
func checkWhole(r *rapid.T, v cluster.View) {
	alive := make(map[string]cluster.RayNode)
	for _, ray := range v.Ray {
		if ray.Alive {
			alive[ray.Address] = ray
		}
	}
	places := make(map[int]bool)
	for _, n := range v.Nodes {
		if n.State == cluster.NodeFailed || n.State == cluster.NodeStopped {
			continue
		}
		ray, joined := alive[n.Address]
		if !joined || ray.Head != n.Head || !n.Head && ray.GPUs != v.GPUsPerNode || n.HostGone || !n.GPUsWell && !n.Head {
			r.Fatalf("ready with %+v, in Ray %+v", n, ray)
		}
		places[n.Ordinal] = true
		delete(alive, n.Address)
	}
	if len(places) != len(v.Places)+1 || len(alive) != 0 {
		r.Fatalf("ready with the places %v and strangers %v", places, alive)
	}
}

func TestRepeatedDecisionsEnd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		v := randomView(r)
		drained := v.State == cluster.Draining
		const limit = 24 // states, failures and replacements that a cluster of three can pass at one moment
		for range limit {
			d := cluster.Decide(v)
			if d.To == "" && len(d.Fail) == 0 && len(d.Replace) == 0 {
				return
			}
			apply(&v, d)
			if drained = drained || v.State == cluster.Draining; drained && v.State != cluster.Draining && v.State != cluster.Released {
				r.Fatalf("it left draining for %s", v.State)
			}
		}
		r.Fatalf("after %d decisions it still wants to change: %+v", limit, cluster.Decide(v))
	})
}

// apply does to a view what the lifecycle does to the tables.
func apply(v *cluster.View, d cluster.Decision) {
	for _, f := range d.Fail {
		i := slices.IndexFunc(v.Nodes, func(n cluster.Node) bool { return n.ID == f.ID })
		v.Nodes[i].State = cluster.NodeFailed
	}
	for _, place := range d.Replace {
		n := newNode(*v, place, cluster.NodePlanned)
		n.Since = v.Now
		v.Nodes = append(v.Nodes, n)
		v.Replacements++
	}
	if d.To == "" {
		return
	}
	v.State, v.PhaseAt = d.To, v.Now
	for i, n := range v.Nodes {
		switch {
		case n.State == cluster.NodeFailed || n.State == cluster.NodeStopped:
		case d.To == cluster.Ready:
			v.Nodes[i].State = cluster.NodeAlive
		case d.To == cluster.Draining:
			v.Nodes[i].State = cluster.NodeStopping
		}
	}
}
