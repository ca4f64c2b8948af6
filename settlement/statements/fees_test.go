package statements_test

import (
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/statements"
)

func TestFeeSchedule(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	fees := statements.NewFees(b.pool)
	if _, err := fees.FeeBps(t.Context(), b.pool, b.customer); err == nil {
		t.Error("an empty schedule gave a fee")
	}
	for range 2 { // the second start of a process finds the first one's row, whatever is configured by then
		if current, err := fees.Begin(t.Context(), 250); err != nil || current != 250 {
			t.Fatalf("the first fee is %d, %v", current, err)
		}
	}
	if current, err := fees.Begin(t.Context(), 900); err != nil || current != 250 {
		t.Errorf("the configuration changed the fee to %d, %v", current, err)
	}
	if _, err := fees.Add(t.Context(), statements.Rate{Bps: 100, ValidFrom: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	added, err := fees.Add(t.Context(), statements.Rate{Org: b.customer, Bps: 50, Note: "pilot"})
	if err != nil || added.State != "current" || added.Name != "Customer" {
		t.Fatalf("added %+v, %v", added, err)
	}
	for org, want := range map[ids.Org]int{b.customer: 50, b.owner: 250, {}: 250} {
		if bps, err := fees.FeeBps(t.Context(), b.pool, org); err != nil || bps != want {
			t.Errorf("the fee of %s is %d, %v; want %d", org, bps, err, want)
		}
	}
	if _, err := fees.Add(t.Context(), statements.Rate{Bps: 200}); err != nil {
		t.Fatal(err)
	}
	list, err := fees.List(t.Context())
	if err != nil || len(list) != 4 || list[0].State != "coming" || list[1].Bps != 200 || list[1].State != "current" || list[2].Org != b.customer ||
		list[3].State != "past" || list[3].Bps != 250 {
		t.Errorf("the schedule is %+v, %v", list, err)
	}
}

func TestAFeeNeverChangesThePast(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	fees := statements.NewFees(b.pool)
	if _, err := fees.Begin(t.Context(), 250); err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(time.Hour).Truncate(time.Second)
	if _, err := fees.Add(t.Context(), statements.Rate{Bps: 1, ValidFrom: soon}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		rate statements.Rate
		want errs.Code
	}{
		"in the past":             {statements.Rate{Bps: 1, ValidFrom: time.Now().Add(-time.Minute)}, errs.Invalid},
		"in the past, for one":    {statements.Rate{Org: b.customer, Bps: 1, ValidFrom: time.Now().Add(-time.Minute)}, errs.Invalid},
		"more than all":           {statements.Rate{Bps: 10_001}, errs.Invalid},
		"negative":                {statements.Rate{Bps: -1}, errs.Invalid},
		"for nobody":              {statements.Rate{Org: ids.New[ids.Org](), Bps: 1}, errs.Invalid},
		"from the same moment on": {statements.Rate{Bps: 2, ValidFrom: soon}, errs.Conflict},
	} {
		if _, err := fees.Add(t.Context(), c.rate); errs.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	for _, sql := range []string{`UPDATE fee_schedule SET fee_bps = 0`, `DELETE FROM fee_schedule`, `TRUNCATE fee_schedule`} {
		if _, err := b.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s was allowed", sql)
		}
	}
}
