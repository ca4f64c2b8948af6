package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/cluster"
)

func TestAutoStopIsSetAndSwitchedOff(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Customer", false))
	p := b.member(f.org, identity.Engineer)
	path := "/v1/clusters/" + f.cluster.String() + "/auto-stop"
	var c apiv1.Cluster
	b.do(request{method: put, path: path, cookie: p.cookie, body: apiv1.AutoStop{ParkAfter: "30m", ReleaseAfter: "24h"}}).is(http.StatusOK).decode(&c)
	if c.AutoStop != (apiv1.AutoStop{ParkAfter: "30m", ReleaseAfter: "24h"}) || !c.RayReachable {
		t.Errorf("cluster %+v", c)
	}
	for text, field := range map[string]string{"soon": "body.park_after", "-5m": "body.park_after", "1s": "body.park_after"} {
		wrong := b.do(request{method: put, path: path, cookie: p.cookie, body: apiv1.AutoStop{ParkAfter: text}}).problem(http.StatusUnprocessableEntity, "invalid")
		if len(wrong.Errors) != 1 || wrong.Errors[0].Path != field {
			t.Errorf("%s: errors %+v, want %s", text, wrong.Errors, field)
		}
	}
	var off apiv1.Cluster
	b.do(request{method: put, path: path, cookie: p.cookie, body: apiv1.AutoStop{}}).is(http.StatusOK).decode(&off)
	if off.AutoStop != (apiv1.AutoStop{}) {
		t.Errorf("it is still on: %+v", off.AutoStop)
	}
}

func TestWhatARunningClusterCannotDo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Customer", false))
	p := b.member(f.org, identity.Engineer)
	path := "/v1/clusters/" + f.cluster.String()
	b.do(request{method: post, path: path + "/resume", cookie: p.cookie}).problem(http.StatusConflict, "conflict")
	b.do(request{method: del, path: path + "/nodes/" + ids.New[ids.Node]().String(), cookie: p.cookie}).problem(http.StatusNotFound, "not_found")
	b.do(request{method: del, path: path + "/nodes/" + f.node.String(), cookie: p.cookie}).problem(http.StatusConflict, "conflict")
}

func TestNothingOfRayOnSimulatedHosts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Customer", false))
	p := b.member(f.org, identity.Engineer)
	b.exec(`UPDATE nodes SET role = 'head', gpus = 0 WHERE id = $1`, f.node)
	b.exec(`UPDATE clusters SET runtime = 'simulated' WHERE id = $1`, f.cluster)
	path := "/v1/clusters/" + f.cluster.String()
	var c apiv1.Cluster
	b.do(request{method: get, path: path, cookie: p.cookie}).is(http.StatusOK).decode(&c)
	if c.RayReachable {
		t.Error("its Ray is said to be reachable")
	}
	for _, r := range []request{{method: post, path: path + "/ray-token"}, {method: post, path: path + "/dashboard-ticket"}, {method: get, path: path + "/jobs"}} {
		r.cookie = p.cookie
		if refused := b.do(r).problem(http.StatusConflict, "conflict"); !strings.Contains(refused.Detail, "simulated") {
			t.Errorf("%s: %q", r.path, refused.Detail)
		}
	}
}

func TestRunwayTellsWhatStopsFirst(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Customer", false))
	p := b.member(f.org, identity.Finance)
	var runway apiv1.Runway
	b.do(request{method: get, path: "/v1/wallet/runway", cookie: p.cookie}).is(http.StatusOK).decode(&runway)
	if len(runway.Clusters) != 1 || runway.Clusters[0].ClusterID != f.cluster || runway.BurnPerHour.Text != "0.000000" || runway.HoursLeft != nil {
		t.Errorf("runway %+v", runway)
	}
}

func TestRunwayWarnsOfWhatIsNear(t *testing.T) {
	t.Parallel()
	s := newBench(t).server
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *time.Time { moment := now.Add(d); return &moment }
	calm := cluster.RunwayCluster{Name: "calm", State: "ready", PerHour: 2_000_000, Plan: cluster.Plan{EndsAt: at(30 * time.Hour)}}
	ending := cluster.RunwayCluster{Name: "ending", State: "ready", PerHour: 2_000_000, Plan: cluster.Plan{EndsAt: at(25 * time.Minute)}}
	parked := cluster.RunwayCluster{Name: "parked", State: "parked", Plan: cluster.Plan{ReleasesAt: at(5 * time.Minute)}}
	wire := s.wireRunway(cluster.Runway{PerHour: 4_000_000, Clusters: []cluster.RunwayCluster{parked, calm, ending}}, 10_000_000, now)
	names := make([]string, len(wire.Clusters))
	for i, c := range wire.Clusters {
		names[i] = c.Name
	}
	if !slices.Equal(names, []string{"ending", "calm", "parked"}) {
		t.Errorf("in order %v, want the first to stop first", names)
	}
	want := []string{"ending stops at 20:25 UTC, in 25m: ", "parked is parked and is released at 20:05 UTC: ", "The balance of 10.00 USDC pays for 2h30m more "}
	if len(wire.Warnings) != len(want) {
		t.Fatalf("warnings %q", wire.Warnings)
	}
	for i, text := range want {
		if !strings.HasPrefix(wire.Warnings[i], text) {
			t.Errorf("warning %q, want %q", wire.Warnings[i], text)
		}
	}
	if quiet := s.wireRunway(cluster.Runway{PerHour: 1, Clusters: []cluster.RunwayCluster{calm}}, 10_000_000, now); len(quiet.Warnings) != 0 {
		t.Errorf("all is well, and it warns: %q", quiet.Warnings)
	}
}
