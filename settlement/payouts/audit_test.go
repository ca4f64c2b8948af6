package payouts

import (
	"slices"
	"testing"

	"github.com/muster-gpu/muster/internal/audit"
)

func TestWhatPeopleDoIsLogged(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.owners(t, 1, true)
	s := b.service(b.pool, b.cluster)
	batches := b.approved(t, s)
	check(t, s.Cancel(t.Context(), batches[0], b.approver, "The owner asked for it."))
	check(t, s.SetSchedule(t.Context(), b.drafter, Schedule{Enabled: true, EveryDays: 7}))
	if err := s.Cancel(t.Context(), batches[0], b.approver, "Twice."); err == nil {
		t.Error("cancelled twice")
	}
	lines, err := audit.List(t.Context(), b.pool, 0, 0)
	check(t, err)
	var got []string
	for _, line := range slices.Backward(lines) {
		got = append(got, line.Action)
	}
	if want := []string{"run.start", "batch.approve", "batch.cancel", "schedule.set"}; !slices.Equal(got, want) {
		t.Errorf("logged are %v, want %v", got, want)
	}
	if lines[1].By != b.approver || lines[1].Subject != batches[0].String() {
		t.Errorf("the cancellation is logged as %+v", lines[1])
	}
}
