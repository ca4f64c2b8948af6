package close

import (
	"slices"
	"strings"

	"github.com/muster-gpu/muster/internal/money"
)

// ChartTotal is what a month's figures say of one account of the chart of accounts, over all organisations.
type ChartTotal struct {
	Name, Code                       string
	Organisations                    int // that have an account of this kind
	Opening, Debits, Credits, Closed money.Amount
}

// Chart adds a month's frozen figures up by the chart of accounts, in the order of the accounts' codes.
func (f Figures) Chart() []ChartTotal {
	at := map[string]int{}
	var totals []ChartTotal
	for _, a := range f.Accounts {
		name, code := chartOf(a.Kind)
		i, known := at[a.Kind]
		if !known {
			i = len(totals)
			at[a.Kind] = i
			totals = append(totals, ChartTotal{Name: name, Code: code})
		}
		t := &totals[i]
		if a.Org != "" {
			t.Organisations++
		}
		t.Opening, t.Debits, t.Credits, t.Closed = t.Opening+a.Opening, t.Debits+a.Debits, t.Credits+a.Credits, t.Closed+a.Closing
	}
	slices.SortStableFunc(totals, func(a, b ChartTotal) int { return strings.Compare(a.Code, b.Code) })
	return totals
}
