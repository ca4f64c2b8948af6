package cluster_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
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
		cluster.Parked: cluster.NodeStopped,
	}[state]
	v := cluster.View{
		State: state, Now: now, PhaseAt: now.Add(-time.Second), Duration: 2 * time.Hour, Remaining: time.Hour, GPUsPerNode: 2, Places: []int{1, 2},
		Activity: cluster.Idle,
	}
	for ordinal := range 3 {
		v.Nodes = append(v.Nodes, newNode(v, ordinal, nodeState))
	}
	if state == cluster.Parked {
		v.Nodes[head].State = cluster.NodeAlive
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

// third is the node that add adds.
const third = 3

// add adds a node to a view.
func add(state cluster.NodeState) func(*cluster.View) {
	return func(v *cluster.View) {
		v.Places, v.Joining = append(v.Places, 3), []int{3}
		n := newNode(*v, 3, state)
		n.Since = v.Now.Add(-time.Second)
		v.Nodes = append(v.Nodes, n)
	}
}

// rayOfAll has every node of a view in Ray.
func rayOfAll(v *cluster.View) {
	v.Ray = nil
	for _, n := range v.Nodes {
		v.Ray = append(v.Ray, inRay(n, 2))
	}
}

func since(n int, ago time.Duration) func(*cluster.View) {
	return func(v *cluster.View) { v.Nodes[n].Since = now.Add(-ago) }
}

func asked(n int, ago time.Duration) func(*cluster.View) {
	return func(v *cluster.View) { v.Nodes[n].StoppingAt = now.Add(-ago) }
}

func drains(n int, d time.Duration) func(*cluster.View) {
	return func(v *cluster.View) { v.Nodes[n].Drain = d }
}

func replaced(times int) func(*cluster.View) {
	return func(v *cluster.View) { v.Replacements = times }
}

func unwanted(n int) func(*cluster.View) {
	return func(v *cluster.View) { v.Nodes[n].RemoveRequested = true }
}

func leased(n int) func(*cluster.View) {
	return func(v *cluster.View) { v.Nodes[n].Leased = true }
}

// removed is a view some time after a node was removed from it.
func removed(n int, state cluster.NodeState) func(*cluster.View) {
	return func(v *cluster.View) {
		v.Nodes[n].State, v.Nodes[n].RemoveRequested = state, true
		v.Places = slices.DeleteFunc(v.Places, func(place int) bool { return place == v.Nodes[n].Ordinal })
	}
}

func preempt(in time.Duration) func(*cluster.View) {
	return func(v *cluster.View) { v.PreemptAt = now.Add(in) }
}

func told(keys ...string) func(*cluster.View) {
	return func(v *cluster.View) { v.Notices = keys }
}

func left(d time.Duration) func(*cluster.View) {
	return func(v *cluster.View) { v.Remaining = d }
}

func booked(d time.Duration) func(*cluster.View) {
	return func(v *cluster.View) { v.Duration = d }
}

func balance(available, perHour money.Amount) func(*cluster.View) {
	return func(v *cluster.View) { v.Balance = &cluster.Balance{Available: available, PerHour: perHour} }
}

func parks(after time.Duration) func(*cluster.View) {
	return func(v *cluster.View) { v.ParkAfter = after }
}

func releases(after time.Duration) func(*cluster.View) {
	return func(v *cluster.View) { v.ReleaseAfter = after }
}

func active(ago time.Duration) func(*cluster.View) {
	return func(v *cluster.View) { v.ActiveAt = now.Add(-ago) }
}

func silent(d time.Duration) func(*cluster.View) {
	return func(v *cluster.View) { v.HeadSilent = d }
}

func busy(v *cluster.View) { v.Activity = cluster.Busy }

func unknown(v *cluster.View) { v.Activity = cluster.ActivityUnknown }

func resume(v *cluster.View) { v.ResumeRequested = true }

// outage is a control plane that began a moment ago.
func outage(v *cluster.View) { v.Epoch = now.Add(-time.Second) }

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

	stop, closed, remove, join []int // nodes of the view
	giveUp                     []int
	announce, forget           []string
	active                     bool
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
		{"a node's process ends", cluster.Ready, list(in(first, cluster.NodeFailed)), want{to: cluster.Degraded, reason: "within 10 minutes"}},
		{"the head's host is lost", cluster.Ready, list(lost(head, "lost")), platform("machine of the Ray head is lost")},
		{"the head's process ends", cluster.Ready, list(in(head, cluster.NodeFailed)), platform("Exit status 1.")},
		{"head and node are lost", cluster.Ready, list(lost(head, "lost"), lost(first, "lost")), platform("Ray head")},
		{"released while a host is lost", cluster.Ready, list(lost(first, "lost"), release), customer("Released")},

		{"a place is vacant", cluster.Degraded, list(in(first, cluster.NodeFailed)), want{replace: []int{1}}},
		{"whole again", cluster.Degraded, nil, want{to: cluster.Ready}},
		{"another fails meanwhile", cluster.Degraded, list(in(first, cluster.NodeFailed), lost(2, "lost")), want{fail: []int{2}}},
		{"replaced too often", cluster.Degraded, list(in(first, cluster.NodeFailed), func(v *cluster.View) { v.Replacements = 3 }), owner("more than 3 times")},
		{"not whole again in time", cluster.Degraded, list(in(first, cluster.NodeFailed), after(10*time.Minute+time.Second)), owner("whole again in time")},
		{"not whole, and Ray's summary is old", cluster.Degraded, list(in(first, cluster.NodeFailed), noRay, after(10*time.Minute+time.Second)), owner("whole again in time")},
		{"silent for too long", cluster.Degraded, list(noRay, silent(10*time.Minute), after(10*time.Minute+time.Second)), platform("whole again in time")},
		{"the head is lost while degraded", cluster.Degraded, list(lost(head, "lost")), platform("Ray head")},
		{"the time was used up as it failed", cluster.Degraded, list(usedUp), customer("used up")},

		{"nodes are stopping", cluster.Draining, nil, nothing},
		{"the head is asked last", cluster.Draining, list(stopAll, in(head, cluster.NodeAlive)), want{stop: []int{head}}},
		{"the head runs while a node stops", cluster.Draining, list(in(head, cluster.NodeAlive)), nothing},
		{"a node that was not asked yet", cluster.Draining, list(in(first, cluster.NodeAlive)), want{stop: []int{first}}},
		{"one drains for long", cluster.Draining, list(stopAll, in(first, cluster.NodeStopping), drains(first, 30*time.Second), after(61*time.Second)), nothing},
		{"one was asked later", cluster.Draining, list(stopAll, in(first, cluster.NodeStopping), after(61*time.Second), asked(first, time.Second)), nothing},
		{"all have stopped", cluster.Draining, list(stopAll), want{to: cluster.Released}},
		{"one does not stop in time", cluster.Draining, list(stopAll, in(first, cluster.NodeStopping), after(61*time.Second)), want{to: cluster.Released, fail: []int{first}}},
		{"one cannot say that it stopped", cluster.Draining, list(stopAll, in(first, cluster.NodeStopping), lost(first, "lost")), want{to: cluster.Released, fail: []int{first}}},
		{"one is lost and another still stops", cluster.Draining, list(lost(first, "lost")), nothing},
		{"released while draining", cluster.Draining, list(release), nothing},

		{"an added node starts", cluster.Ready, list(add(cluster.NodeStarting)), nothing},
		{"an added node has joined", cluster.Ready, list(add(cluster.NodeRunning), rayOfAll), want{join: []int{third}}},
		{"an added node joins late", cluster.Ready, list(after(time.Hour), add(cluster.NodeRunning)), nothing},
		{"an added node does not join in time", cluster.Ready, list(add(cluster.NodeRunning), since(third, 121*time.Second), after(time.Hour)), want{fail: []int{third}}},
		{"an added node's host is lost", cluster.Ready, list(add(cluster.NodeStarting), lost(third, "lost")), want{fail: []int{third}}},
		{"an added node brings too few GPUs", cluster.Ready, list(add(cluster.NodeRunning), rayOfAll, rayOf(third, oneGPU)), want{fail: []int{third}}},
		{"an added node has failed", cluster.Ready, list(add(cluster.NodeFailed)), want{replace: []int{3}}},
		{"an added node fails once more", cluster.Ready, list(add(cluster.NodeFailed), replaced(3)), want{giveUp: []int{3}, reason: "more than 3 times"}},
		{"another fails while one is added", cluster.Ready, list(add(cluster.NodeStarting), lost(first, "lost")), degraded},
		{"an added node fails while degraded", cluster.Degraded, list(add(cluster.NodeFailed)), want{to: cluster.Ready}},
		{"whole without the added node", cluster.Degraded, list(add(cluster.NodeStarting)), want{to: cluster.Ready}},
		{"whole, and the added node has joined", cluster.Degraded, list(add(cluster.NodeRunning), rayOfAll), want{to: cluster.Ready}},

		{"a node is not wanted", cluster.Ready, list(unwanted(first)), want{remove: []int{first}}},
		{"all are not wanted", cluster.Ready, list(unwanted(first), unwanted(2)), want{remove: []int{first}}},
		{"a failed node is not wanted", cluster.Ready, list(unwanted(first), in(first, cluster.NodeFailed)), want{remove: []int{first}}},
		{"a node is not wanted while degraded", cluster.Degraded, list(unwanted(first), in(2, cluster.NodeFailed)), want{remove: []int{first}}},
		{"an added node is not wanted", cluster.Ready, list(add(cluster.NodeStarting), unwanted(third)), want{remove: []int{third}}},
		{"the last one stays beside an added node", cluster.Ready, list(add(cluster.NodeStarting), unwanted(first), unwanted(2)), want{remove: []int{first}}},
		{"a removed node stops", cluster.Ready, list(removed(first, cluster.NodeStopping)), nothing},
		{"a removed node has stopped", cluster.Ready, list(removed(first, cluster.NodeStopped), leased(first)), want{closed: []int{first}}},
		{"a removed node is over", cluster.Ready, list(removed(2, cluster.NodeStopped)), nothing},
		{"a removed node's host is lost", cluster.Ready, list(removed(first, cluster.NodeStopping), lost(first, "lost")), want{fail: []int{first}}},
		{"a removed node does not stop", cluster.Ready, list(removed(first, cluster.NodeStopping), asked(first, 51*time.Second)), want{fail: []int{first}}},
		{"a removed node is in Ray still", cluster.Degraded, list(removed(first, cluster.NodeStopping)), want{to: cluster.Ready}},

		{"to be preempted", cluster.Ready, list(preempt(time.Minute)), want{announce: []string{"preempt"}}},
		{"told of the preemption", cluster.Ready, list(preempt(time.Minute), told("preempt")), nothing},
		{"preempted", cluster.Ready, list(preempt(0), told("preempt")), preempted},
		{"preempted at its start", cluster.Joining, list(preempt(0), told("preempt")), preempted},
		{"preempted while degraded", cluster.Degraded, list(preempt(-time.Second), in(first, cluster.NodeFailed)), preempted},
		{"released before it is preempted", cluster.Ready, list(preempt(0), release), customer("Released")},
		{"a parked cluster has nothing to preempt", cluster.Parked, list(preempt(0)), nothing},
		{"not preempted after all", cluster.Ready, list(told("preempt")), want{forget: []string{"preempt"}}},

		{"half an hour is left", cluster.Ready, list(left(30 * time.Minute)), want{announce: []string{"ends_30m"}}},
		{"half an hour is left and told", cluster.Ready, list(left(29*time.Minute), told("ends_30m")), nothing},
		{"five minutes are left", cluster.Ready, list(left(5*time.Minute), told("ends_30m")), want{announce: []string{"ends_5m"}}},
		{"five minutes are left at once", cluster.Ready, list(left(5 * time.Minute)), want{announce: []string{"ends_5m", "ends_30m"}}},
		{"booked for half an hour", cluster.Ready, list(left(20*time.Minute), booked(30*time.Minute)), nothing},
		{"time is left as it is degraded", cluster.Degraded, list(left(20*time.Minute), in(first, cluster.NodeStarting), noRay), nothing},
		{"the booking was extended", cluster.Ready, list(told("ends_30m", "ends_5m", "balance")), want{forget: []string{"ends_5m", "ends_30m", "balance"}}},
		{"no more time than was told", cluster.Ready, list(left(31*time.Minute), told("ends_30m")), nothing},
		{"the balance does not suffice", cluster.Ready, list(left(30*time.Minute), balance(99, 100)), want{announce: []string{"ends_30m", "balance"}}},
		{"the balance suffices", cluster.Ready, list(left(30*time.Minute), balance(100, 100)), want{announce: []string{"ends_30m"}}},
		{"the balance does not suffice later", cluster.Ready, list(left(time.Minute), told("ends_30m"), balance(99, 100)), want{announce: []string{"ends_5m", "balance"}}},

		{"idle for a while", cluster.Ready, list(parks(time.Hour), after(54*time.Minute)), nothing},
		{"idle, soon to be parked", cluster.Ready, list(parks(time.Hour), after(55*time.Minute)), want{announce: []string{"park"}}},
		{"idle for half of a short time", cluster.Ready, list(parks(2*time.Minute), after(time.Minute)), want{announce: []string{"park"}}},
		{"idle for as long as was set", cluster.Ready, list(parks(time.Hour), after(time.Hour), told("park")), want{to: cluster.Parked, reason: "parked"}},
		{"idle, never to be parked", cluster.Ready, list(after(100 * time.Hour)), nothing},
		{"a session was seen", cluster.Ready, list(parks(time.Hour), after(2*time.Hour), active(10*time.Minute), told("park")), want{forget: []string{"park"}}},
		{"something runs", cluster.Ready, list(parks(time.Hour), after(2*time.Hour), busy), want{active: true}},
		{"something runs as was seen", cluster.Ready, list(parks(time.Hour), after(2*time.Hour), busy, active(10*time.Second)), nothing},
		{"an old agent does not know", cluster.Ready, list(parks(time.Hour), after(2*time.Hour), unknown), want{active: true}},
		{"an old agent still does not know", cluster.Ready, list(parks(time.Hour), after(2*time.Hour), unknown, active(10*time.Second)), nothing},
		{"idle while a node is added", cluster.Ready, list(parks(time.Hour), after(2*time.Hour), add(cluster.NodeStarting)), nothing},
		{"idle while a node leaves", cluster.Ready, list(parks(time.Hour), after(2*time.Hour), told("park"), removed(first, cluster.NodeStopping), asked(first, time.Second)), nothing},

		{"parked", cluster.Parked, nil, nothing},
		{"parked for ever", cluster.Parked, list(after(1000 * time.Hour)), nothing},
		{"parked nodes stop", cluster.Parked, list(in(first, cluster.NodeStopping)), nothing},
		{"a parked node has stopped", cluster.Parked, list(leased(first)), want{closed: []int{first}}},
		{"a parked node does not stop", cluster.Parked, list(in(first, cluster.NodeStopping), after(51*time.Second)), want{fail: []int{first}}},
		{"a parked node's host is lost", cluster.Parked, list(in(first, cluster.NodeStopping), lost(first, "lost")), want{fail: []int{first}}},
		{"a parked node runs", cluster.Parked, list(in(first, cluster.NodeAlive)), want{stop: []int{first}}},
		{"resumed while nodes stop", cluster.Parked, list(in(first, cluster.NodeStopping), resume), nothing},
		{"resumed while leases are open", cluster.Parked, list(leased(first), resume), want{closed: []int{first}}},
		{"resumed", cluster.Parked, list(resume), want{to: cluster.Joining, replace: []int{1, 2}}},
		{"soon to be released", cluster.Parked, list(releases(time.Hour), after(55*time.Minute)), want{announce: []string{"release"}}},
		{"parked for as long as was set", cluster.Parked, list(releases(time.Hour), after(time.Hour), told("release")), customer("Parked for 60 minutes")},
		{"resumed at the last moment", cluster.Parked, list(releases(time.Hour), after(time.Hour), told("release"), resume), want{to: cluster.Joining, replace: []int{1, 2}}},
		{"released while parked", cluster.Parked, list(release), customer("Released")},
		{"the head is lost while parked", cluster.Parked, list(lost(head, "lost")), platform("machine of the Ray head is lost")},

		{"the head is silent for a moment", cluster.Ready, list(noRay, silent(time.Minute)), nothing},
		{"the head is silent", cluster.Ready, list(noRay, silent(61*time.Second)), want{to: cluster.Degraded, reason: "does not say"}},
		{"the head is silent still", cluster.Degraded, list(noRay, silent(5*time.Minute)), nothing},
		{"the head speaks again", cluster.Degraded, nil, want{to: cluster.Ready}},

		{"nobody acted while the hosts should begin", cluster.Reserved, list(after(time.Hour), outage), nothing},
		{"nobody acted while the head should start", cluster.Preparing, list(after(time.Hour), outage), nothing},
		{"nobody acted while nodes should join", cluster.Joining, list(rayOf(first, dead), after(time.Hour), outage), nothing},
		{"nobody acted while Ray should say something", cluster.Joining, list(noRay, after(time.Hour), outage), nothing},
		{"nobody acted while it was degraded", cluster.Degraded, list(in(first, cluster.NodeFailed), after(time.Hour), outage), want{replace: []int{1}}},
		{"nobody acted while it drained", cluster.Draining, list(after(time.Hour), outage), nothing},

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
	checkSteps(t, v, got, want)
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

// checkSteps checks what a decision does beside changing the state and failing and replacing nodes.
func checkSteps(t *testing.T, v cluster.View, got cluster.Decision, want want) {
	t.Helper()
	for what, nodes := range map[string]struct {
		got  []ids.Node
		want []int
	}{
		"stopped": {got.Stop, want.stop}, "closed": {got.Close, want.closed}, "removed": {got.Remove, want.remove}, "joined": {got.Join, want.join},
	} {
		var indexes []int
		for _, id := range nodes.got {
			indexes = append(indexes, slices.IndexFunc(v.Nodes, func(n cluster.Node) bool { return n.ID == id }))
		}
		if !slices.Equal(indexes, nodes.want) {
			t.Errorf("nodes %v are %s, want %v", indexes, what, nodes.want)
		}
	}
	var told []string
	for _, n := range got.Announce {
		told = append(told, n.Key)
	}
	if !slices.Equal(told, want.announce) || !slices.Equal(got.Forget, want.forget) || !slices.Equal(got.GiveUp, want.giveUp) || got.Active != want.active {
		t.Errorf("decided %+v, want %+v", got, want)
	}
}

func TestOneTextForTwoWarningsAtOnce(t *testing.T) {
	t.Parallel()
	v := view(cluster.Ready)
	v.Remaining = 4 * time.Minute
	told := cluster.Decide(v).Announce
	if len(told) != 2 || !strings.Contains(told[0].Text, "in 4 minutes") || told[1].Text != "" {
		t.Errorf("told %+v", told)
	}
}

var preempted = want{to: cluster.Draining, party: cluster.PartyPreempted, reason: "market booking"}

var degraded = want{to: cluster.Degraded, fail: []int{first}, reason: "within 10 minutes"}

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
			cluster.Reserved, cluster.Preparing, cluster.HeadUp, cluster.Joining, cluster.Ready, cluster.Ready, cluster.Degraded, cluster.Parked,
			cluster.Draining, cluster.Released, cluster.Failed,
		}).Draw(r, "state"),
		Now: now, PhaseAt: now.Add(-randomTime(r, "in phase")), ReleaseRequested: rarely(r, "released"),
		Duration: 2 * time.Hour, Remaining: time.Duration(rapid.SampledFrom([]int{0, 1, 1000, 3600}).Draw(r, "remaining")) * time.Second,
		Replacements: rapid.IntRange(0, 4).Draw(r, "replacements"), GPUsPerNode: rapid.IntRange(1, 2).Draw(r, "GPUs"),
		Activity: rapid.SampledFrom([]cluster.Activity{cluster.ActivityUnknown, cluster.Idle, cluster.Idle, cluster.Busy}).Draw(r, "activity"),
		ActiveAt: now.Add(-randomTime(r, "active")), ResumeRequested: !rarely(r, "not resumed"),
		Notices: rapid.SliceOfDistinct(rapid.SampledFrom([]string{"ends_30m", "ends_5m", "balance", "preempt", "park", "release"}), rapid.ID).Draw(r, "notices"),
	}
	for _, set := range []func(){
		func() { v.Epoch = now.Add(-randomTime(r, "epoch")) },
		func() { v.PreemptAt = now.Add(randomTime(r, "preempted in") - time.Minute) },
		func() { v.HeadSilent = randomTime(r, "silent") },
		func() { v.ParkAfter = randomTime(r, "parks after") },
		func() { v.ReleaseAfter = randomTime(r, "releases after") },
		func() {
			v.Balance = &cluster.Balance{Available: 1, PerHour: money.Amount(rapid.IntRange(1, 2).Draw(r, "per hour"))}
		},
	} {
		if rapid.Bool().Draw(r, "set") {
			set()
		}
	}
	randomNodes(r, &v)
	summarised := rapid.IntRange(0, 3).Draw(r, "no summary") != 0
	for _, n := range v.Nodes {
		if summarised && rapid.IntRange(0, 5).Draw(r, "unlisted") != 0 {
			ray := inRay(n, rapid.IntRange(v.GPUsPerNode-1, v.GPUsPerNode).Draw(r, "Ray's GPUs"))
			ray.Alive = n.State != cluster.NodeFailed && rapid.IntRange(0, 5).Draw(r, "dead") != 0
			v.Ray = append(v.Ray, ray)
		}
	}
	return v
}

// randomNodes gives a view a head, nodes at its places, some of which are being added, and some that were removed.
func randomNodes(r *rapid.T, v *cluster.View) {
	for place := range rapid.IntRange(1, 3).Draw(r, "places") {
		v.Places = append(v.Places, place+1)
	}
	known := len(v.Places)
	for place := range rapid.IntRange(0, 2).Draw(r, "added") {
		v.Places, v.Joining = append(v.Places, known+place+1), append(v.Joining, known+place+1)
	}
	known = len(v.Places)
	for ordinal := range known + 1 + rapid.IntRange(0, 1).Draw(r, "removed") {
		for range rapid.IntRange(0, 1).Draw(r, "failed before") {
			v.Nodes = append(v.Nodes, newNode(*v, ordinal, cluster.NodeFailed))
		}
		n := newNode(*v, ordinal, randomNodeState(r))
		n.HostGone, n.GPUsWell = rapid.IntRange(0, 9).Draw(r, "gone") == 0, rapid.IntRange(0, 9).Draw(r, "broken") != 0
		n.Since, n.RemoveRequested, n.Leased = now.Add(-randomTime(r, "since")), rarely(r, "unwanted"), rapid.Bool().Draw(r, "leased")
		if n.State == cluster.NodeStopping {
			n.StoppingAt = now.Add(-randomTime(r, "stopping"))
		}
		v.Nodes = append(v.Nodes, n)
	}
}

func rarely(r *rapid.T, label string) bool { return rapid.IntRange(0, 7).Draw(r, label) == 0 }

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
	cluster.Ready:     {cluster.Degraded, cluster.Parked, cluster.Draining},
	cluster.Parked:    {cluster.Joining, cluster.Draining},
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
		if (d.To == cluster.Draining) != (d.Party != "") {
			r.Fatalf("it enters %q on the account of %q", d.To, d.Party)
		}
		if d.To == cluster.Ready {
			checkWhole(r, v)
		}
		if len(d.Join) > 0 && v.State != cluster.Ready {
			r.Fatalf("nodes are billed while the cluster is %s", v.State)
		}
		if d.To == cluster.Parked && (v.Activity != cluster.Idle || v.ParkAfter == 0) {
			r.Fatalf("parked with the activity %d", v.Activity)
		}
		for _, f := range d.Fail {
			i := slices.IndexFunc(v.Nodes, func(n cluster.Node) bool { return n.ID == f.ID })
			if v.Nodes[i].Ended() {
				r.Fatalf("a node that is %s is given up", v.Nodes[i].State)
			}
		}
	})
}

// Whatever becomes of nodes that are being added, the cluster is as well as it would be without them.
func TestAddedNodesNeverDegrade(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		v := randomView(r)
		v.State = rapid.SampledFrom([]cluster.State{cluster.Ready, cluster.Degraded}).Draw(r, "running")
		bare := v
		bare.Places = slices.DeleteFunc(slices.Clone(v.Places), func(place int) bool { return slices.Contains(v.Joining, place) })
		bare.Joining = nil
		bare.Nodes = slices.DeleteFunc(slices.Clone(v.Nodes), func(n cluster.Node) bool { return slices.Contains(v.Joining, n.Ordinal) })
		bare.Ray = slices.DeleteFunc(slices.Clone(v.Ray), func(ray cluster.RayNode) bool {
			return !slices.ContainsFunc(bare.Nodes, func(n cluster.Node) bool { return n.Address == ray.Address })
		})
		if v.Ray != nil && bare.Ray == nil {
			bare.Ray = []cluster.RayNode{}
		}
		ends := func(v cluster.View) bool {
			to := cluster.Decide(v).To
			return to == cluster.Degraded || to == cluster.Draining
		}
		if ends(v) && !ends(bare) && len(cluster.Decide(bare).Remove) == 0 {
			r.Fatalf("with added nodes it would be %+v, without them %+v", cluster.Decide(v), cluster.Decide(bare))
		}
	})
}

// checkWhole checks that every planned node, and no stranger, is alive in a fresh summary with its GPUs. Nodes that come or go may be.
func checkWhole(r *rapid.T, v cluster.View) {
	alive := make(map[string]cluster.RayNode)
	for _, ray := range v.Ray {
		if ray.Alive {
			alive[ray.Address] = ray
		}
	}
	places := make(map[int]bool)
	for _, n := range v.Nodes {
		if n.Ended() {
			continue
		}
		ray, joined := alive[n.Address]
		delete(alive, n.Address)
		if !n.Head && (slices.Contains(v.Joining, n.Ordinal) || !slices.Contains(v.Places, n.Ordinal)) {
			continue
		}
		if !joined || ray.Head != n.Head || !n.Head && ray.GPUs != v.GPUsPerNode || n.HostGone || !n.GPUsWell && !n.Head {
			r.Fatalf("ready with %+v, in Ray %+v", n, ray)
		}
		places[n.Ordinal] = true
	}
	if len(places) != len(v.Places)-len(v.Joining)+1 || len(alive) != 0 {
		r.Fatalf("ready with the places %v and strangers %v", places, alive)
	}
}

func TestRepeatedDecisionsEnd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		v := randomView(r)
		drained := v.State == cluster.Draining
		const limit = 40 // states, failures, notices and replacements that a cluster of six can pass at one moment
		for range limit {
			d := cluster.Decide(v)
			if isNothing(d) {
				return
			}
			apply(&v, d)
			checkBilled(r, v)
			if drained = drained || v.State == cluster.Draining; drained && v.State != cluster.Draining && v.State != cluster.Released {
				r.Fatalf("it left draining for %s", v.State)
			}
		}
		r.Fatalf("after %d decisions it still wants to change: %+v", limit, cluster.Decide(v))
	})
}

func isNothing(d cluster.Decision) bool {
	d.Drain = 0
	return reflect.DeepEqual(d, cluster.Decision{})
}

// checkBilled checks that the nodes which work for the customer, as far as the view tells, are billed nowhere but in a ready cluster: in
// a parked one, none that is not ending lives.
func checkBilled(r *rapid.T, v cluster.View) {
	if v.State != cluster.Parked {
		return
	}
	for _, n := range v.Nodes {
		if !n.Head && !n.Ended() && n.State != cluster.NodeStopping {
			r.Fatalf("a parked cluster has a node that is %s", n.State)
		}
	}
}

// apply does to a view what the lifecycle does to the tables.
func apply(v *cluster.View, d cluster.Decision) {
	node := func(id ids.Node) *cluster.Node {
		return &v.Nodes[slices.IndexFunc(v.Nodes, func(n cluster.Node) bool { return n.ID == id })]
	}
	without := func(places []int, place int) []int {
		return slices.DeleteFunc(slices.Clone(places), func(p int) bool { return p == place })
	}
	stop := func(n *cluster.Node) {
		if !n.Ended() && n.State != cluster.NodeStopping {
			n.State, n.StoppingAt, n.Drain = cluster.NodeStopping, v.Now, d.Drain
		}
	}
	for _, f := range d.Fail {
		node(f.ID).State, node(f.ID).Leased = cluster.NodeFailed, false
	}
	for _, id := range d.Stop {
		stop(node(id))
	}
	for _, id := range d.Close {
		node(id).Leased = false
	}
	for _, id := range d.Remove {
		stop(node(id))
		v.Places, v.Joining = without(v.Places, node(id).Ordinal), without(v.Joining, node(id).Ordinal)
	}
	for _, id := range d.Join {
		node(id).State = cluster.NodeAlive
		v.Joining = without(v.Joining, node(id).Ordinal)
	}
	for _, place := range d.GiveUp {
		v.Places, v.Joining = without(v.Places, place), without(v.Joining, place)
	}
	for _, n := range d.Announce {
		v.Notices = append(v.Notices, n.Key)
	}
	v.Notices = slices.DeleteFunc(slices.Clone(v.Notices), func(key string) bool { return slices.Contains(d.Forget, key) })
	if d.Active {
		v.ActiveAt = v.Now
	}
	for _, place := range d.Replace {
		n := newNode(*v, place, cluster.NodePlanned)
		n.Since = v.Now
		v.Nodes = append(v.Nodes, n)
		if v.State != cluster.Parked {
			v.Replacements++
		}
	}
	enter(v, d, stop)
}

func enter(v *cluster.View, d cluster.Decision, stop func(*cluster.Node)) {
	if d.To == "" {
		return
	}
	v.State, v.PhaseAt, v.ResumeRequested = d.To, v.Now, false
	for i, n := range v.Nodes {
		core := slices.Contains(v.Places, n.Ordinal) && !slices.Contains(v.Joining, n.Ordinal)
		switch {
		case n.Ended():
		case d.To == cluster.Ready && (n.Head || core):
			v.Nodes[i].State = cluster.NodeAlive
		case (d.To == cluster.Draining || d.To == cluster.Parked) && !n.Head:
			stop(&v.Nodes[i])
		}
	}
	if d.To == cluster.Parked {
		v.PreemptAt = time.Time{}
	}
}
