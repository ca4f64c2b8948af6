package e2e

import (
	"net/http"
	"testing"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

// TestAClusterChangesWhileItLives adds a node to a running cluster, takes the first one out, has the cluster parked when it is idle, and
// resumes it, all with real Ray.
func TestAClusterChangesWhileItLives(t *testing.T) {
	cluster := book(t, 1, 2)
	path := "/v1/clusters/" + cluster.ID.String()
	engineer := as(t, shared.stack.People().Engineer)
	var quote apiv1.Quote
	if err := engineer.Post(t.Context(), path+"/addition-quote", apiv1.AdditionCreate{NodeCount: 1}, &quote); err != nil {
		t.Fatalf("quote a node: %v", err)
	}
	if err := engineer.Post(t.Context(), "/v1/bookings", apiv1.BookingCreate{QuoteID: quote.ID}, nil); err != nil {
		t.Fatalf("add a node: %v", err)
	}
	grown := waitForCluster(t, cluster.ID, readyBound, func(c apiv1.Cluster) bool { return c.NodeCount == 2 && len(alive(c)) == 2 })
	if grown.State != "ready" || grown.ReadyAt == nil || !grown.ReadyAt.Equal(*cluster.ReadyAt) {
		t.Errorf("with a node added the cluster is %s:%s", grown.State, timeline(t, grown))
	}

	first := alive(grown)[0]
	if err := engineer.Do(t.Context(), http.MethodDelete, path+"/nodes/"+first.ID.String(), nil, nil, nil, nil); err != nil {
		t.Fatalf("remove a node: %v", err)
	}
	shrunk := waitForCluster(t, cluster.ID, readyBound, func(c apiv1.Cluster) bool { return c.NodeCount == 1 && node(c, first.ID).State == "stopped" })
	if shrunk.State != "ready" || shrunk.Replacements != grown.Replacements {
		t.Errorf("with a node removed the cluster is %s after %d replacements:%s", shrunk.State, shrunk.Replacements, timeline(t, shrunk))
	}

	if err := engineer.Do(t.Context(), http.MethodPut, path+"/auto-stop", nil, nil, apiv1.AutoStop{ParkAfter: "1m"}, nil); err != nil {
		t.Fatalf("set auto-stop: %v", err)
	}
	// The minute is not waited for; that Ray is idle, its head has to say.
	execute(t, `UPDATE clusters SET phase_at = phase_at - interval '2 minutes', active_at = active_at - interval '2 minutes' WHERE id = $1`, cluster.ID)
	waitForCluster(t, cluster.ID, readyBound, func(c apiv1.Cluster) bool { return c.State == "parked" && len(alive(c)) == 0 })
	if err := engineer.Post(t.Context(), path+"/resume", nil, nil); err != nil {
		t.Fatalf("resume: %v", err)
	}
	resumed := waitForCluster(t, cluster.ID, readyBound, func(c apiv1.Cluster) bool { return c.State == "ready" })
	if len(alive(resumed)) != 1 || resumed.Replacements != grown.Replacements {
		t.Errorf("resumed, the cluster has %d nodes after %d replacements:%s", len(alive(resumed)), resumed.Replacements, timeline(t, resumed))
	}
	if released := release(t, cluster.ID); released.State != "released" || released.FaultParty != "customer" {
		t.Errorf("at its end the cluster is %s on account of %s:%s", released.State, released.FaultParty, timeline(t, released))
	}
}

// alive are a cluster's GPU nodes that are part of it.
func alive(c apiv1.Cluster) (nodes []apiv1.Node) {
	for _, n := range c.Nodes {
		if n.Role == "gpu" && n.State == "alive" {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

func node(c apiv1.Cluster, id ids.Node) apiv1.Node {
	for _, n := range c.Nodes {
		if n.ID == id {
			return n
		}
	}
	return apiv1.Node{}
}
