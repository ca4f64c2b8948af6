package market

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"math/bits"
	"slices"
	"strings"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market/query"
	"github.com/muster-gpu/muster/scheduler/placement"
)

// Offer is what one region has of one GPU model now, of the hosts that a filter lets through.
type Offer struct {
	GPUModel       string
	Region         string
	MemoryMiB      int64 // per GPU, the least of the hosts'
	FreeGPUs       int
	TotalGPUs      int
	Hosts          int // with a free GPU
	LargestNode    int
	PriceFrom      money.Amount // the cheapest free GPU's, per hour; zero without one, as the median
	PriceMedian    money.Amount
	SpotFrom       money.Amount // zero: no host takes spot bookings
	UtilisationBps int
	ReliabilityBps int // the median of the hosts
	Simulated      bool
}

// Page is a part of a list: Limit items after the cursor, which is the Next of the page before.
type Page struct {
	Cursor string
	Limit  int // zero: the most
}

// OffersPage is one page of offers.
type OffersPage struct {
	Offers []Offer
	Next   string // empty on the last page
	Total  int
}

// order compares two offers.
type order func(a, b Offer) int

// orders are the ways to sort offers; what has no price comes after what has one.
var orders = map[string]order{
	"price":       func(a, b Offer) int { return comparePrices(a.PriceFrom, b.PriceFrom) },
	"spot":        func(a, b Offer) int { return comparePrices(a.SpotFrom, b.SpotFrom) },
	"free":        func(a, b Offer) int { return cmp.Compare(a.FreeGPUs, b.FreeGPUs) },
	"vram":        func(a, b Offer) int { return cmp.Compare(a.MemoryMiB, b.MemoryMiB) },
	"model":       func(a, b Offer) int { return cmp.Compare(a.GPUModel, b.GPUModel) },
	"gpu":         func(a, b Offer) int { return cmp.Compare(a.GPUModel, b.GPUModel) },
	"region":      func(a, b Offer) int { return cmp.Compare(a.Region, b.Region) },
	"utilisation": func(a, b Offer) int { return cmp.Compare(a.UtilisationBps, b.UtilisationBps) },
	"reliability": func(a, b Offer) int { return cmp.Compare(a.ReliabilityBps, b.ReliabilityBps) },
}

const defaultOrder = "price"

func comparePrices(a, b money.Amount) int { return cmp.Compare(uint64(a-1), uint64(b-1)) } // zero wraps to the end

// orderOf reads the name of an order, with a minus for the reverse. Ties are broken by model and region, so that pages fit together.
func orderOf(name string) (order, error) {
	if name == "" {
		name = defaultOrder
	}
	plain, reverse := strings.CutPrefix(name, "-")
	by, known := orders[plain]
	if !known {
		return nil, errs.InvalidField("sort", "offers are sorted by price, spot, free, vram, model, region, utilisation or reliability, "+
			"with a minus before it for the reverse, not by %q", name)
	}
	return func(a, b Offer) int {
		if reverse {
			return cmp.Or(by(b, a), cmp.Compare(a.GPUModel, b.GPUModel), cmp.Compare(a.Region, b.Region))
		}
		return cmp.Or(by(a, b), cmp.Compare(a.GPUModel, b.GPUModel), cmp.Compare(a.Region, b.Region))
	}, nil
}

// Offers lists what can be booked now, by model and region.
func (s *Service) Offers(ctx context.Context, filter query.Filter, sort string, page Page) (OffersPage, error) {
	compare, err := orderOf(sort)
	if err != nil {
		return OffersPage{}, err
	}
	after, err := readCursor(page.Cursor, sort)
	if err != nil {
		return OffersPage{}, err
	}
	var shelves map[[2]string]*shelf
	if err := s.look(ctx, func(x *placement.Index) { shelves = gather(x, filter, s.ray) }); err != nil {
		return OffersPage{}, err
	}
	offers := make([]Offer, 0, len(shelves))
	for _, shelf := range shelves {
		offers = append(offers, shelf.total())
	}
	slices.SortFunc(offers, compare)
	result := OffersPage{Total: len(offers)}
	if after != nil {
		offers = slices.DeleteFunc(offers, func(o Offer) bool { return compare(o, after.Last) <= 0 })
	}
	limit := min(max(page.Limit, 0), maxPage)
	if limit == 0 {
		limit = maxPage
	}
	if len(offers) > limit {
		offers = offers[:limit]
		result.Next = writeCursor(cursor{sort, offers[limit-1]})
	}
	result.Offers = offers
	return result, nil
}

// cursor is the last offer of a page as it was then: the next page begins after it, whatever has changed since.
type cursor struct {
	Sort string
	Last Offer
}

func writeCursor(c cursor) string {
	document, err := json.Marshal(c)
	if err != nil {
		panic("market: an offer is not JSON: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(document)
}

func readCursor(text, sort string) (*cursor, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // the beginning has no offer before it
	}
	var c cursor
	document, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(document, &c)
	}
	if err != nil || c.Sort != sort {
		return nil, errs.InvalidField("cursor", "this is not a cursor of this list: give next_cursor of the page before, with the same sort")
	}
	return &c, nil
}

// shelf collects the hosts of one offer.
type shelf struct {
	offer       Offer
	leased      int
	prices      prices
	reliability []int
}

// gather sorts all open hosts that a filter lets through, and that can start the Ray of new clusters, into shelves. Whoever changes the fleet waits for it, so sums are for later.
func gather(x *placement.Index, filter query.Filter, rayVersion string) map[[2]string]*shelf {
	shelves := make(map[[2]string]*shelf)
	var h placement.Host
	for h = range x.All() {
		if !h.Open || !slices.Contains(h.Images, rayVersion) || !filter.Match(&h, h.Prices[placement.Hourly]) {
			continue
		}
		key := [2]string{h.Model, h.Region}
		if shelves[key] == nil {
			shelves[key] = &shelf{offer: Offer{GPUModel: h.Model, Region: h.Region, MemoryMiB: h.MemoryMiB}}
		}
		shelves[key].add(&h)
	}
	return shelves
}

func (s *shelf) add(h *placement.Host) {
	o := &s.offer
	o.MemoryMiB = min(o.MemoryMiB, h.MemoryMiB)
	o.TotalGPUs += bits.OnesCount64(h.Well)
	o.Simulated = o.Simulated || h.Simulated
	s.leased += bits.OnesCount64(h.Well & h.Leased)
	s.reliability = append(s.reliability, h.Reliability)
	free := bits.OnesCount64(h.FreeFor(placement.Request{}))
	if free == 0 {
		return
	}
	o.FreeGPUs += free
	o.Hosts++
	o.LargestNode = max(o.LargestNode, free)
	s.prices.add(h.Prices[placement.Hourly], free)
	if spot := h.Prices[placement.Spot]; spot > 0 && (o.SpotFrom == 0 || spot < o.SpotFrom) {
		o.SpotFrom = spot
	}
}

func (s *shelf) total() Offer {
	const whole = 10_000
	o := s.offer
	if o.TotalGPUs > 0 {
		o.UtilisationBps = s.leased * whole / o.TotalGPUs
	}
	o.PriceFrom, o.PriceMedian = s.prices.least(), s.prices.median()
	slices.Sort(s.reliability)
	o.ReliabilityBps = s.reliability[len(s.reliability)/2]
	return o
}

// prices are those of free GPUs, with how many ask each.
type prices struct {
	asked []price
	gpus  int
}

type price struct {
	amount money.Amount
	gpus   int
}

func (p *prices) add(amount money.Amount, gpus int) {
	if amount > 0 && gpus > 0 {
		p.asked = append(p.asked, price{amount, gpus})
		p.gpus += gpus
	}
}

func (p *prices) least() money.Amount {
	if len(p.asked) == 0 {
		return 0
	}
	return slices.MinFunc(p.asked, comparePrice).amount
}

// median is the price of the GPU in the middle, the lower of two.
func (p *prices) median() money.Amount {
	slices.SortFunc(p.asked, comparePrice)
	before := 0
	for _, asked := range p.asked {
		if before += asked.gpus; 2*before >= p.gpus {
			return asked.amount
		}
	}
	return 0
}

func comparePrice(a, b price) int { return cmp.Compare(a.amount, b.amount) }
