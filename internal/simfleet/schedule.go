package simfleet

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/muster-gpu/muster/internal/money"
)

// EventKind is what happens to a host.
type EventKind string

// The kinds of events.
const (
	Join             EventKind = "join"               // the host is there from now on; before, it was not
	Flap             EventKind = "flap"               // its stream is cut for a while, what runs goes on
	Vanish           EventKind = "vanish"             // it is switched off for a while, and what ran is gone
	VanishInAssembly EventKind = "vanish_in_assembly" // it is switched off as soon as it begins to start a node
	PriceChange      EventKind = "price"              // its owner sets another price
	GPULost          EventKind = "gpu_lost"           // a GPU falls off the bus until the machine is restarted
	XID              EventKind = "xid"                // the driver reports a hardware error of a GPU
	ClockSkew        EventKind = "clock_skew"         // its clock is wrong for a while
)

var eventKinds = []EventKind{Join, Flap, Vanish, VanishInAssembly, PriceChange, GPULost, XID, ClockSkew}

// Event is something that happens to a host at a time after the fleet's start.
type Event struct {
	At   time.Duration
	Host int // index
	Kind EventKind
	For  time.Duration // of what passes by itself
	GPU  int           // GPULost, XID
	XID  int32
	Skew time.Duration
	Ask  Ask // PriceChange
}

func (e Event) String() string {
	text := fmt.Sprintf("%s host %d %s", e.At, e.Host, e.Kind)
	switch e.Kind {
	case PriceChange:
		return fmt.Sprintf("%s to %d", text, e.Ask.Price)
	case GPULost:
		return fmt.Sprintf("%s of GPU %d for %s", text, e.GPU, e.For)
	case XID:
		return fmt.Sprintf("%s %d of GPU %d for %s", text, e.XID, e.GPU, e.For)
	case ClockSkew:
		return fmt.Sprintf("%s of %s for %s", text, e.Skew, e.For)
	case Join:
		return text
	case Flap, Vanish, VanishInAssembly:
	}
	return fmt.Sprintf("%s for %s", text, e.For)
}

// Rates are how many events of a kind befall a fleet in the span of a plan.
type Rates map[EventKind]int

// xids are hardware errors of the kind that ends a GPU's use: double-bit ECC, fallen off the bus, a row remapping failure, contained ECC.
var xids = []int32{48, 79, 64, 95}

// Plan makes a schedule from a seed: all that passes by itself has passed at the end of span. Head hosts are left in peace: a cluster does
// not survive its head.
func Plan(seed uint64, hosts []Host, span time.Duration, rates Rates) []Event {
	rng := rand.New(rand.NewPCG(seed, 1<<32)) //nolint:gosec // a simulation's dice
	workers := slices.DeleteFunc(slices.Clone(hosts), func(h Host) bool { return h.Kind != KindGPU })
	if len(workers) == 0 {
		return nil
	}
	var events []Event
	joined := map[int]bool{}
	for _, kind := range eventKinds {
		for range rates[kind] {
			host := workers[rng.IntN(len(workers))]
			if kind == Join && joined[host.Index] {
				continue
			}
			joined[host.Index] = joined[host.Index] || kind == Join
			events = append(events, draw(rng, kind, host, span))
		}
	}
	slices.SortStableFunc(events, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Kind, b.Kind))
	})
	return events
}

func draw(rng *rand.Rand, kind EventKind, host Host, span time.Duration) Event {
	e := Event{
		Kind: kind, Host: host.Index, At: time.Duration(rng.Int64N(int64(span/2) + 1)), For: span/20 + time.Duration(rng.Int64N(int64(span/4)+1)),
	}
	switch kind {
	case Flap:
		e.For = span/100 + time.Duration(rng.Int64N(int64(span/20)+1))
	case PriceChange:
		e.For = 0
		e.Ask = host.Ask
		e.Ask.Price = max(e.Ask.Floor, e.Ask.Price*money.Amount(90+rng.IntN(21))/100)
	case GPULost:
		e.GPU = rng.IntN(host.GPUs)
	case XID:
		e.GPU, e.XID = rng.IntN(host.GPUs), xids[rng.IntN(len(xids))]
	case ClockSkew:
		e.Skew = time.Duration(10+rng.IntN(600)) * time.Second
		if rng.IntN(2) == 0 {
			e.Skew = -e.Skew
		}
	case Join:
		e.For = 0
	case Vanish, VanishInAssembly:
	}
	return e
}
