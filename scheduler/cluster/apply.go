package cluster

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/scheduler/applier"
	"github.com/muster-gpu/muster/scheduler/schedulerdb"
)

// Kinds of events.
const (
	eventState   = "state"
	eventNode    = "node"
	eventReceipt = "receipt"
	eventNotice  = "notice"
)

// apply writes a decision. It reports whether the cluster moved, so that it is worth looking again at once.
func (l *Lifecycle) apply(ctx context.Context, tx pgx.Tx, v loaded, d Decision) (bool, error) {
	if d.nothing() {
		return false, nil
	}
	for _, write := range []func(context.Context, pgx.Tx, loaded, Decision) error{
		l.stopBilling, l.failNodes, l.askToStop, l.closeEnded, l.removeNodes, l.joinNodes, l.giveUp, l.tell, l.remember,
	} {
		if err := write(ctx, tx, v, d); err != nil {
			return false, err
		}
	}
	if len(d.Replace) > 0 && v.State == Parked {
		return true, l.resume(ctx, tx, v, d)
	}
	if len(d.Replace) > 0 {
		return l.replaceAll(ctx, tx, v, d.Replace)
	}
	if d.To == "" {
		return true, nil
	}
	return true, l.enter(ctx, tx, v, d)
}

// stopBilling ends the billing of a cluster that leaves ready.
func (l *Lifecycle) stopBilling(ctx context.Context, tx pgx.Tx, v loaded, d Decision) error {
	if v.State != Ready || d.To == "" {
		return nil
	}
	if err := l.queries.StopBilling(ctx, tx, v.cluster.ID, uuid.NullUUID{}); err != nil {
		return fmt.Errorf("stop billing: %w", err)
	}
	return nil
}

// enter moves the cluster to the decided state with what belongs to it.
func (l *Lifecycle) enter(ctx context.Context, tx pgx.Tx, v loaded, d Decision) error {
	switch d.To {
	case Ready:
		if err := l.startWhole(ctx, tx, v); err != nil {
			return err
		}
	case Draining, Parked:
		if err := l.stopNodes(ctx, tx, v.gpuNodes(), l.drainOf(v, d)); err != nil {
			return err
		}
	case Released:
		return l.finish(ctx, tx, v)
	case Reserved, Preparing, HeadUp, Joining, Degraded, Failed:
	}
	return l.setState(ctx, tx, v, d)
}

// drainOf is how long nodes may drain: not at all without the head, which Ray's drain needs.
func (l *Lifecycle) drainOf(v loaded, d Decision) time.Duration {
	if head, ok := v.head(); !ok || head.HostGone {
		return 0
	}
	return d.Drain
}

func (v loaded) gpuNodes() []Node {
	return slices.DeleteFunc(v.live(), func(n Node) bool { return n.Head })
}

func (l *Lifecycle) setState(ctx context.Context, tx pgx.Tx, v loaded, d Decision) error {
	endReason := ""
	if d.To == Draining {
		endReason = d.Reason
	}
	if err := l.queries.SetClusterState(ctx, tx, schedulerdb.SetClusterStateParams{
		State: string(d.To), EndsInMs: endsIn(v, d), FaultParty: optional(string(d.Party)), EndReason: endReason, ID: v.cluster.ID,
	}); err != nil {
		return fmt.Errorf("enter %s: %w", d.To, err)
	}
	state := string(d.To)
	return l.event(ctx, tx, schedulerdb.InsertEventParams{
		ClusterID: v.cluster.ID, Kind: eventState, State: &state, Message: d.Reason, FaultParty: optional(string(d.Party)),
	})
}

// endsIn is when the GPUs are expected to be free, after a change of state; nil leaves what is known.
func endsIn(v loaded, d Decision) *int64 {
	var in time.Duration
	switch d.To {
	case Draining, Parked:
		in = d.Drain
	case Joining, Degraded:
		in = v.Remaining
	case Reserved, Preparing, HeadUp, Ready, Released, Failed:
		return nil
	}
	ms := in.Milliseconds()
	return &ms
}

func (l *Lifecycle) event(ctx context.Context, tx pgx.Tx, e schedulerdb.InsertEventParams) error {
	if err := l.queries.InsertEvent(ctx, tx, e); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	return nil
}

func (l *Lifecycle) nodeEvent(ctx context.Context, tx pgx.Tx, v loaded, node ids.Node, party Party, format string, args ...any) error {
	if err := l.event(ctx, tx, schedulerdb.InsertEventParams{
		ClusterID: v.cluster.ID, Kind: eventNode, NodeID: node, FaultParty: optional(string(party)), Message: fmt.Sprintf(format, args...),
	}); err != nil {
		return err
	}
	if err := l.queries.TouchCluster(ctx, tx, v.cluster.ID); err != nil {
		return fmt.Errorf("touch cluster: %w", err)
	}
	return nil
}

// failNodes gives nodes up. One that was to stop anyway is nobody's fault.
func (l *Lifecycle) failNodes(ctx context.Context, tx pgx.Tx, v loaded, d Decision) error {
	for _, failed := range d.Fail {
		if err := l.queries.SetNodeState(ctx, tx, string(NodeFailed), failed.Reason, failed.ID); err != nil {
			return fmt.Errorf("fail node: %w", err)
		}
		if err := l.endNode(ctx, tx, v, v.node(failed.ID), failed.Reason); err != nil {
			return err
		}
	}
	return nil
}

// endNode closes a failed node's leases, frees its host and tells the timeline.
func (l *Lifecycle) endNode(ctx context.Context, tx pgx.Tx, v loaded, n Node, reason string) error {
	if v.State == Draining || n.State == NodeStopping {
		return l.closeNode(ctx, tx, v, n, v.stopParty(), reason)
	}
	if err := l.nodeEvent(ctx, tx, v, n.ID, PartyOwner, "Node %d failed. %s", n.Ordinal, reason); err != nil {
		return err
	}
	return l.closeNode(ctx, tx, v, n, PartyOwner, reason)
}

// stopParty is on whose account nodes are asked to stop: that of the cluster's end, or of the customer, who removes and parks.
func (v loaded) stopParty() Party {
	if v.cluster.FaultParty != nil {
		return Party(*v.cluster.FaultParty)
	}
	return PartyCustomer
}

// closeNode closes an ended node's leases and frees its host.
func (l *Lifecycle) closeNode(ctx context.Context, tx pgx.Tx, v loaded, n Node, party Party, reason string) error {
	id := uuid.NullUUID{UUID: uuid.UUID(n.ID), Valid: true}
	if err := l.queries.StopBilling(ctx, tx, v.cluster.ID, id); err != nil {
		return fmt.Errorf("stop billing: %w", err)
	}
	account := string(party)
	if err := l.queries.CloseLeases(ctx, tx, &account, &reason, v.cluster.ID, id); err != nil {
		return fmt.Errorf("close leases: %w", err)
	}
	return l.freeHosts(ctx, tx, []uuid.UUID{uuid.UUID(n.HostID)})
}

func (l *Lifecycle) askToStop(ctx context.Context, tx pgx.Tx, v loaded, d Decision) error {
	nodes := make([]Node, len(d.Stop))
	for i, id := range d.Stop {
		nodes[i] = v.node(id)
	}
	return l.stopNodes(ctx, tx, nodes, l.drainOf(v, d))
}

// stopNodes asks hosts to stop nodes, after a drain.
func (l *Lifecycle) stopNodes(ctx context.Context, tx pgx.Tx, nodes []Node, drain time.Duration) error {
	var hosts []uuid.UUID
	for _, n := range nodes {
		if n.State == NodeStopping {
			continue
		}
		allowed := drain
		if n.Head || n.HostGone {
			allowed = 0
		}
		if err := l.queries.StopNode(ctx, tx, int32(allowed.Milliseconds()), n.ID); err != nil {
			return fmt.Errorf("stop node: %w", err)
		}
		hosts = append(hosts, uuid.UUID(n.HostID))
	}
	if len(hosts) == 0 {
		return nil
	}
	if err := l.queries.BumpDesired(ctx, tx, hosts); err != nil {
		return fmt.Errorf("wake hosts: %w", err)
	}
	return nil
}

// closeEnded closes what nodes left that are to have no successor.
func (l *Lifecycle) closeEnded(ctx context.Context, tx pgx.Tx, v loaded, d Decision) error {
	for _, id := range d.Close {
		reason := "Removed by the customer."
		if v.State == Parked {
			reason = "The cluster is parked."
		}
		if err := l.closeNode(ctx, tx, v, v.node(id), PartyCustomer, reason); err != nil {
			return err
		}
	}
	return nil
}

// removeNodes takes nodes and their places out. They are billed no longer, and their GPUs are free when they have stopped.
func (l *Lifecycle) removeNodes(ctx context.Context, tx pgx.Tx, v loaded, d Decision) error {
	for _, id := range d.Remove {
		n := v.node(id)
		if err := l.queries.StopBilling(ctx, tx, v.cluster.ID, uuid.NullUUID{UUID: uuid.UUID(id), Valid: true}); err != nil {
			return fmt.Errorf("stop billing: %w", err)
		}
		if !n.Ended() {
			if err := l.stopNodes(ctx, tx, []Node{n}, l.drainOf(v, d)); err != nil {
				return err
			}
		}
		if err := l.nodeEvent(ctx, tx, v, id, PartyCustomer, "Node %d leaves the cluster as you wished: it is billed no longer, drains and stops.", n.Ordinal); err != nil {
			return err
		}
		v.Places, v.Joining = without(v.Places, n.Ordinal), without(v.Joining, n.Ordinal)
	}
	if len(d.Remove) == 0 {
		return nil
	}
	return l.setPlaces(ctx, tx, v)
}

func (l *Lifecycle) setPlaces(ctx context.Context, tx pgx.Tx, v loaded) error {
	if err := l.queries.SetPlaces(ctx, tx, ordinals(v.Places), ordinals(v.Joining), v.cluster.ID); err != nil {
		return fmt.Errorf("change places: %w", err)
	}
	return nil
}

// joinNodes delivers nodes that were added: they are part of the cluster and billed from now on.
func (l *Lifecycle) joinNodes(ctx context.Context, tx pgx.Tx, v loaded, d Decision) error {
	if len(d.Join) == 0 {
		return nil
	}
	for _, id := range d.Join {
		v.Joining = without(v.Joining, v.node(id).Ordinal)
	}
	if err := l.setPlaces(ctx, tx, v); err != nil {
		return err
	}
	for _, id := range d.Join {
		if err := l.nodeEvent(ctx, tx, v, id, "", "Node %d has joined the cluster. It is billed from now on.", v.node(id).Ordinal); err != nil {
			return err
		}
	}
	return l.deliver(ctx, tx, v, d.Join)
}

// giveUp takes out places that were to be added and cannot be filled. What was held for them comes back at the cluster's end.
func (l *Lifecycle) giveUp(ctx context.Context, tx pgx.Tx, v loaded, d Decision) error {
	for _, place := range d.GiveUp {
		if err := l.giveUpPlace(ctx, tx, v, place, d.Reason); err != nil {
			return err
		}
		v.Places, v.Joining = without(v.Places, place), without(v.Joining, place)
	}
	return nil
}

func (l *Lifecycle) giveUpPlace(ctx context.Context, tx pgx.Tx, v loaded, place int, reason string) error {
	if err := l.endReported(ctx, tx, v, place); err != nil {
		return err
	}
	if err := l.nodeEvent(ctx, tx, v, ids.Node{}, PartyOwner,
		"Node %d could not be added: %s. The cluster goes on without it, and what was held for it comes back at the end.", place, reason); err != nil {
		return err
	}
	v.Places, v.Joining = without(v.Places, place), without(v.Joining, place)
	return l.setPlaces(ctx, tx, v)
}

// tell writes notices to the timeline, and which of them stand.
func (l *Lifecycle) tell(ctx context.Context, tx pgx.Tx, v loaded, d Decision) error {
	if len(d.Announce)+len(d.Forget) == 0 {
		return nil
	}
	standing := slices.DeleteFunc(slices.Clone(v.Notices), func(key string) bool { return slices.Contains(d.Forget, key) })
	for _, n := range d.Announce {
		standing = append(standing, n.Key)
		if n.Text == "" {
			continue
		}
		if err := l.event(ctx, tx, schedulerdb.InsertEventParams{ClusterID: v.cluster.ID, Kind: eventNotice, Message: n.Text}); err != nil {
			return err
		}
	}
	if err := l.queries.SetNotices(ctx, tx, standing, v.cluster.ID); err != nil {
		return fmt.Errorf("remember notices: %w", err)
	}
	return nil
}

func (l *Lifecycle) remember(ctx context.Context, tx pgx.Tx, v loaded, d Decision) error {
	if !d.Active {
		return nil
	}
	if err := l.queries.SetActive(ctx, tx, v.cluster.ID); err != nil {
		return fmt.Errorf("remember activity: %w", err)
	}
	return nil
}

// replaceAll fills places whose nodes have failed, as far as hosts fit. Without one, an assembling cluster ends, a degraded one waits
// within its limit, and a place that was to be added is given up.
func (l *Lifecycle) replaceAll(ctx context.Context, tx pgx.Tx, v loaded, vacant []int) (moved bool, err error) {
	for _, place := range vacant {
		if err := l.endReported(ctx, tx, v, place); err != nil {
			return false, err
		}
		host, err := l.fill(ctx, tx, v, place, true, nil)
		switch {
		case errs.CodeOf(err) == errs.NoCapacity && slices.Contains(v.Joining, place):
			return true, l.giveUpPlace(ctx, tx, v, place, err.Error())
		case errs.CodeOf(err) == errs.NoCapacity && v.State == Degraded:
			continue
		case errs.CodeOf(err) == errs.NoCapacity:
			return true, l.enter(ctx, tx, v, Decision{
				To: Draining, Drain: drainAtEnd, Party: PartyOwner, Reason: fmt.Sprintf("Node %d failed and cannot be replaced: %s.", place, err),
			})
		case err != nil:
			return false, err
		}
		if err := l.queries.CountReplacement(ctx, tx, v.cluster.ID); err != nil {
			return false, fmt.Errorf("count replacement: %w", err)
		}
		// The next place is filled at the next look, which sees what this one took.
		return true, l.nodeEvent(ctx, tx, v, ids.Node{}, "", "Node %d is being replaced by host %s.", place, host)
	}
	return false, nil
}

// fill places a node where others were, at no more than they cost the customer. Hosts that the cluster uses are left out, and those of
// others. A host that failed it is taken again if there is no other, and once only: what Ray died of need not be the host's fault.
func (l *Lifecycle) fill(ctx context.Context, tx pgx.Tx, v loaded, place int, waiveFee bool, others []ids.Host) (ids.Host, error) {
	r := applier.Replacement{
		Cluster: v.cluster, Ordinal: int32(place), WaiveFee: waiveFee, Regions: v.cluster.Regions, Exclude: slices.Clone(others),
	}
	r.Cluster.ForecastEnd = v.Now.Add(v.Remaining) // for the host must be free until then
	var failed, again []ids.Host
	for _, n := range v.Nodes {
		if n.Head {
			continue
		}
		switch n.State {
		case NodeStopped:
		case NodeFailed:
			if slices.Contains(failed, n.HostID) {
				again = append(again, n.HostID)
			}
			failed = append(failed, n.HostID)
		default:
			r.Exclude = append(r.Exclude, n.HostID)
		}
		if n.Ordinal != place {
			continue
		}
		price, err := l.queries.NodePrice(ctx, tx, n.ID)
		if err != nil {
			return ids.Host{}, fmt.Errorf("read price: %w", err)
		}
		if r.MaxPrice == 0 || price < r.MaxPrice {
			r.MaxPrice = price
		}
	}
	inUse := r.Exclude
	r.Exclude = slices.Concat(inUse, failed)
	host, err := l.replacer.Replace(ctx, tx, r)
	if errs.CodeOf(err) == errs.NoCapacity && len(failed) > 0 {
		r.Exclude = slices.Concat(inUse, again)
		host, err = l.replacer.Replace(ctx, tx, r)
	}
	return host, err
}

// endReported closes what the nodes of a place left that their agents, not this package, declared failed.
func (l *Lifecycle) endReported(ctx context.Context, tx pgx.Tx, v loaded, place int) error {
	for _, n := range v.Nodes {
		if n.Head || n.Ordinal != place || !n.Ended() || !n.Leased {
			continue
		}
		if err := l.endNode(ctx, tx, v, n, n.Reason); err != nil {
			return err
		}
	}
	return nil
}

// resume places all nodes of a parked cluster again, or none: then it stays parked.
func (l *Lifecycle) resume(ctx context.Context, tx pgx.Tx, v loaded, d Decision) error {
	err := pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error {
		var taken []ids.Host
		for _, place := range d.Replace {
			host, err := l.fill(ctx, savepoint, v, place, false, taken)
			if err != nil {
				return err
			}
			taken = append(taken, host)
		}
		return nil
	})
	if errs.CodeOf(err) == errs.NoCapacity {
		if err := l.queries.ForgetResume(ctx, tx, v.cluster.ID); err != nil {
			return fmt.Errorf("forget the wish to resume: %w", err)
		}
		return l.event(ctx, tx, schedulerdb.InsertEventParams{ClusterID: v.cluster.ID, Kind: eventNotice, Message: fmt.Sprintf(
			"The cluster cannot be resumed now: not enough hosts are free at no more than the old price, for %s. It stays parked; try again later, or release it.",
			count(len(d.Replace), "node"))})
	}
	if err != nil {
		return err
	}
	return l.enter(ctx, tx, v, d)
}

// startWhole makes the whole cluster ready.
func (l *Lifecycle) startWhole(ctx context.Context, tx pgx.Tx, v loaded) error {
	nodes := v.at(v.core())
	delivered := make([]ids.Node, len(nodes))
	for i, n := range nodes {
		delivered[i] = n.ID
	}
	if head, ok := v.head(); ok {
		if err := l.markAlive(ctx, tx, head); err != nil {
			return err
		}
	}
	return l.deliver(ctx, tx, v, delivered)
}

// deliver makes the delivery receipt of the cluster with the nodes that are new in it, marks those alive and starts their billing.
func (l *Lifecycle) deliver(ctx context.Context, tx pgx.Tx, v loaded, delivered []ids.Node) error {
	document, err := l.receipt(ctx, tx, v)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(document)
	if err := l.queries.InsertReceipt(ctx, tx, v.cluster.ID, string(document), hash[:]); err != nil {
		return fmt.Errorf("write receipt: %w", err)
	}
	nodes := make([]uuid.UUID, len(delivered))
	for i, id := range delivered {
		nodes[i] = uuid.UUID(id)
		if err := l.markAlive(ctx, tx, v.node(id)); err != nil {
			return err
		}
	}
	if err := l.queries.StartBilling(ctx, tx, v.cluster.ID, nodes, v.Remaining); err != nil {
		return fmt.Errorf("start billing: %w", err)
	}
	return l.event(ctx, tx, schedulerdb.InsertEventParams{
		ClusterID: v.cluster.ID, Kind: eventReceipt, Message: fmt.Sprintf("Delivered as booked; receipt %x.", hash[:8]),
	})
}

func (l *Lifecycle) markAlive(ctx context.Context, tx pgx.Tx, n Node) error {
	var path []NodeState
	switch n.State {
	case NodeStarting:
		path = []NodeState{NodeRunning, NodeAlive}
	case NodeRunning:
		path = []NodeState{NodeAlive}
	case NodePlanned, NodeAlive, NodeStopping, NodeStopped, NodeFailed:
	}
	for _, state := range path {
		if err := l.queries.SetNodeState(ctx, tx, string(state), "", n.ID); err != nil {
			return fmt.Errorf("mark node %s: %w", state, err)
		}
	}
	return nil
}

// finish ends a drained cluster: its leases close, its hosts are free, and settlement is told.
func (l *Lifecycle) finish(ctx context.Context, tx pgx.Tx, v loaded) error {
	party, reason := Party(*v.cluster.FaultParty), v.cluster.EndReason
	if err := l.queries.CloseLeases(ctx, tx, v.cluster.FaultParty, &reason, v.cluster.ID, uuid.NullUUID{}); err != nil {
		return fmt.Errorf("close leases: %w", err)
	}
	var hosts []uuid.UUID
	for _, n := range v.Nodes {
		hosts = append(hosts, uuid.UUID(n.HostID))
	}
	if err := l.freeHosts(ctx, tx, hosts); err != nil {
		return err
	}
	to, message := Released, "Released. What was not used goes back to the balance."
	if party == PartyOwner || party == PartyPlatform {
		to, message = Failed, "Ended by a failure. What was not delivered is not charged."
	}
	if err := l.setState(ctx, tx, v, Decision{To: to, Party: party, Reason: message}); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "SELECT pg_notify($1, '')", pgnotify.ChannelSettlement)
	return err
}

func (l *Lifecycle) freeHosts(ctx context.Context, tx pgx.Tx, hosts []uuid.UUID) error {
	if err := l.queries.MarkHostsLeased(ctx, tx, hosts); err != nil {
		return fmt.Errorf("free hosts: %w", err)
	}
	if err := l.queries.BumpDesired(ctx, tx, hosts); err != nil {
		return fmt.Errorf("wake hosts: %w", err)
	}
	return nil
}

func ordinals(places []int) []int32 {
	all := make([]int32, len(places))
	for i, place := range places {
		all[i] = int32(place)
	}
	return all
}

// without is a list less one place; the list itself stays as it is.
func without(places []int, place int) []int {
	return slices.DeleteFunc(slices.Clone(places), func(p int) bool { return p == place })
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
