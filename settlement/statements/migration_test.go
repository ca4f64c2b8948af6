package statements_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/migrations"
)

// leaseDay is a row of lease_days.
type leaseDay struct {
	Lease   ids.Lease
	Day     string
	Charged money.Amount
	Fee     money.Amount
	MS      int64
}

func (b *bench) leaseDays() []leaseDay {
	b.Helper()
	rows, err := b.pool.Query(b.Context(), `SELECT lease_id, day::text, charged, fee, billed_ms FROM lease_days ORDER BY lease_id, day`)
	if err != nil {
		b.Fatal(err)
	}
	days, err := pgx.CollectRows(rows, pgx.RowToStructByPos[leaseDay])
	if err != nil {
		b.Fatal(err)
	}
	return days
}

// TestTheMigrationFindsWhatWasPostedBefore runs the statement that fills lease_days from the ledger of an older version, and compares
// with what metering wrote.
func TestTheMigrationFindsWhatWasPostedBefore(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deposit(20_000_000)
	c := b.cluster("training", 5_000_000, 777, 2_500_000, 1_999_999)
	for day := range int64(3) {
		if day > 0 {
			b.age()
		}
		c.use(0, day*1_000_000, day*1_000_000+333_333)
		c.use(1, day*1_000_000, day*1_000_000+77_777*(day+1))
		b.settle()
	}
	want := b.leaseDays()
	b.exec(`TRUNCATE lease_days`)
	text, err := migrations.FS.ReadFile("00009_statements.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, fill, _ := strings.Cut(string(text), "INSERT INTO lease_days ")
	fill, _, _ = strings.Cut(fill, ";\n")
	b.exec("INSERT INTO lease_days " + fill)
	have := b.leaseDays()
	if len(want) != 6 || len(have) != len(want) {
		t.Fatalf("%d days are found, there were %d", len(have), len(want))
	}
	wantMS, haveMS := map[ids.Lease]int64{}, map[ids.Lease]int64{}
	for i, w := range want {
		h := have[i]
		wantMS[w.Lease] += w.MS
		haveMS[h.Lease] += h.MS
		// The time of a day was not noted: it follows from the charges, to what a base unit is worth.
		if h.Lease != w.Lease || h.Day != w.Day || h.Charged != w.Charged || h.Fee != w.Fee || h.MS < w.MS-10 || h.MS > w.MS+10 {
			t.Errorf("found %+v, want %+v", h, w)
		}
	}
	for lease, ms := range wantMS {
		if haveMS[lease] != ms {
			t.Errorf("%s has %d ms, want %d", lease, haveMS[lease], ms)
		}
	}
}
