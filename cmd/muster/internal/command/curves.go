package command

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
)

// curves draws a market's history: one line for use, one for each price.
func curves(p *output.Page, points []apiv1.HistoryPoint) {
	used := make([]float64, len(points))
	for i, point := range points {
		used[i] = point.UtilisationPercent
	}
	cheapest := prices(points, func(point apiv1.HistoryPoint) *apiv1.Money { return point.PriceMin })
	median := prices(points, func(point apiv1.HistoryPoint) *apiv1.Money { return point.PriceMedian })
	p.Table([]output.Column{{Head: ""}, {Head: "OVER TIME"}, {Head: "LEAST", Right: true}, {Head: "MOST", Right: true}, {Head: "LAST", Right: true}}, [][]output.Cell{
		{
			output.Text("In use"), output.Text(output.Sparkline(used, historyPoints)), output.Text(percent(slices.Min(used))), output.Text(percent(slices.Max(used))),
			output.Text(percent(used[len(used)-1])),
		},
		cheapest.row("Cheapest"), median.row("Median"),
	})
}

// priceCurve is a price over time, nil where there is none.
type priceCurve []*apiv1.Money

func prices(points []apiv1.HistoryPoint, of func(apiv1.HistoryPoint) *apiv1.Money) priceCurve {
	curve := make(priceCurve, len(points))
	for i, point := range points {
		curve[i] = of(point)
	}
	return curve
}

func (c priceCurve) heights() []float64 {
	heights := make([]float64, len(c))
	for i, price := range c {
		heights[i] = math.NaN()
		if price != nil {
			heights[i] = float64(units(*price))
		}
	}
	return heights
}

func (c priceCurve) row(name string) []output.Cell {
	known := make([]apiv1.Money, 0, len(c))
	for _, price := range c {
		if price != nil {
			known = append(known, *price)
		}
	}
	if len(known) == 0 {
		return []output.Cell{output.Text(name), output.Text(""), output.Text("-"), output.Text("-"), output.Text("-")}
	}
	byAmount := func(a, b apiv1.Money) int { return cmp.Compare(units(a), units(b)) }
	return []output.Cell{
		output.Text(name), output.Text(output.Sparkline(c.heights(), historyPoints)), output.Text(output.Money(slices.MinFunc(known, byAmount))),
		output.Text(output.Money(slices.MaxFunc(known, byAmount))), output.Text(output.Money(known[len(known)-1])),
	}
}

// units is an amount to compare by; what is shown is the text that the API sent.
func units(m apiv1.Money) int64 {
	n, _ := strconv.ParseInt(m.BaseUnits, 10, 64)
	return n
}
