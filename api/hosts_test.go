package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
)

// window is a maintenance between two spans from now.
func window(from, to time.Duration) apiv1.MaintenanceCreate {
	now := time.Now().Truncate(time.Second)
	return apiv1.MaintenanceCreate{StartsAt: now.Add(from), EndsAt: now.Add(to), Note: "new PSU"}
}

func TestMaintenanceIsPlannedAndGivenUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Owner", false))
	p := b.member(f.org, identity.Owner)
	path := "/v1/hosts/" + f.host.String() + "/maintenance"
	var planned, cancelled apiv1.Maintenance
	b.do(request{method: post, path: path, cookie: p.cookie, body: window(50*time.Hour, 52*time.Hour)}).is(http.StatusCreated).decode(&planned)
	if planned.State != "planned" || planned.Note != "new PSU" || planned.HostID != f.host {
		t.Errorf("planned %+v", planned)
	}
	b.do(request{method: post, path: path, cookie: p.cookie, body: window(51*time.Hour, 53*time.Hour)}).problem(http.StatusConflict, "conflict")
	wrong := b.do(request{method: post, path: path, cookie: p.cookie, body: window(2*time.Hour, time.Hour)}).problem(http.StatusUnprocessableEntity, "invalid")
	if len(wrong.Errors) != 1 || !strings.HasPrefix(wrong.Errors[0].Path, "body.") {
		t.Errorf("errors %+v, want the input that is wrong", wrong.Errors)
	}
	var host apiv1.Host
	b.do(request{method: get, path: "/v1/hosts/" + f.host.String(), cookie: p.cookie}).is(http.StatusOK).decode(&host)
	if len(host.Maintenance) != 1 || host.Maintenance[0].ID != planned.ID || host.Tier != "new" || host.Liveness == "" {
		t.Errorf("host %+v, want the window, a standing and a liveness", host)
	}
	for range 2 { // asking twice is no error
		b.do(request{method: post, path: path + "/" + planned.ID.String() + "/cancel", cookie: p.cookie}).is(http.StatusOK).decode(&cancelled)
	}
	if cancelled.State != "cancelled" || cancelled.CancelledAt == nil {
		t.Errorf("cancelled %+v", cancelled)
	}
	var list apiv1.List[apiv1.Maintenance]
	b.do(request{method: get, path: path, cookie: p.cookie}).is(http.StatusOK).decode(&list)
	if len(list.Items) != 1 || list.Items[0].State != "cancelled" {
		t.Errorf("windows %+v", list.Items)
	}
}

func TestEarningIsCheckedStepByStep(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Owner", false))
	p := b.member(f.org, identity.Owner)
	var check apiv1.EarningCheck
	b.do(request{method: get, path: "/v1/hosts/" + f.host.String() + "/earning-check", cookie: p.cookie}).is(http.StatusOK).decode(&check)
	if check.Summary == "" || len(check.Checks) < 5 || check.Checks[0].Check != "connected" {
		t.Errorf("check %+v", check)
	}
	for _, step := range check.Checks {
		if step.State == "fail" && step.Fix == "" {
			t.Errorf("%s fails and says not what to do", step.Check)
		}
	}
}

func TestAFailingGateIsWhyAHostDoesNotEarn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Owner", false))
	p := b.member(f.org, identity.Owner)
	b.exec(`INSERT INTO host_gates (host_id, gate, state, measured, required, fix) VALUES ($1, 'clock', 'fail', '41 s fast', 'within 5 s', 'run an NTP client')`, f.host)
	b.exec(`UPDATE hosts SET failing_gate = 'clock' WHERE id = $1`, f.host)
	var host apiv1.Host
	b.do(request{method: get, path: "/v1/hosts/" + f.host.String(), cookie: p.cookie}).is(http.StatusOK).decode(&host)
	if !strings.Contains(host.WhyNotEarning, "clock: 41 s fast") || !strings.Contains(host.WhyNotEarning, "run an NTP client") {
		t.Errorf("it does not earn: %q", host.WhyNotEarning)
	}
	if len(host.Gates) == 0 || host.Gates[0].Since.IsZero() {
		t.Errorf("gates %+v", host.Gates)
	}
}
