package applier_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/muster-gpu/muster/internal/pgnotify"
	"github.com/muster-gpu/muster/internal/seal"
	"github.com/muster-gpu/muster/scheduler/applier"
	"github.com/muster-gpu/muster/scheduler/census"
	"github.com/muster-gpu/muster/scheduler/schedulertest"
)

func TestAHeadRunsTheClustersRay(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.AddHost("H100", 4, 1_000_000, "us")
	newer := w.AddHead()
	w.Exec(`UPDATE hosts SET images = '{2.61.0}' WHERE id = $1`, newer)
	spec := schedulertest.Spec(1, 1)
	for range 3 { // of two heads, the one with fewer nodes would be next
		w.Book(spec)
	}
	if n := w.Count(`SELECT count(*) FROM nodes WHERE host_id = $1`, newer); n != 0 {
		t.Errorf("%d heads are on a machine with another Ray", n)
	}
	w.Exec(`UPDATE hosts SET images = '{2.61.0}' WHERE kind = 'head'`)
	refused := w.Accept(w.Quote(spec))
	if refused.State != "refused" || !strings.Contains(refused.Refusal().Error(), "the Ray head with Ray 2.60.0") {
		t.Errorf("without a head that can run it: %s, %v", refused.State, refused.Refusal())
	}
}

func TestANewLeaderGivesOutNoPlaceThatIsInUse(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.AddHost("H100", 4, 1_000_000, "eu")
	w.Book(schedulertest.Spec(1, 1))
	w.Book(schedulertest.Spec(1, 1))

	box, err := seal.New(seal.NewKey())
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	next := applier.New(w.Pool, pgnotify.New(w.Pool, log), census.New(w.Pool, log), w.Escrow, box, "2.60.0", log)
	for range 2 { // it reads the machines for the first, and knows them for the second
		quote := w.Quote(schedulertest.Spec(1, 1))
		w.Exec(`UPDATE bookings SET requested_at = now() WHERE id = $1`, quote.ID)
		if n, err := next.Apply(t.Context(), schedulertest.Term); err != nil || n != 1 {
			t.Fatalf("it decided %d: %v", n, err)
		}
		if state := w.state(quote.ID); state != "accepted" {
			t.Fatalf("the booking is %s", state)
		}
	}
	if said.Len() > 0 { // the index on open places would have refused the batch
		t.Errorf("it had to try again: %s", &said)
	}
	if n := w.Count(`SELECT count(DISTINCT (machine_id, slot)) FROM nodes`); n != 8 {
		t.Errorf("%d places for 8 nodes", n)
	}
}
