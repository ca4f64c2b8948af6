// Package query is the small language in which offers are searched:
//
//	gpu=H100,H200 vram>=80GB region=eu price<2.5
//
// A query is a list of conditions, separated by spaces, and a host matches when it meets all of them. A condition is a field, an
// operator and a value; several values, separated by commas, mean any of them (and with != none of them). Text that holds spaces or
// commas is put in double quotes. The fields, their operators and how their values are written are listed by Fields.
//
// What a host has not reported, such as its driver, meets no condition about it. Sizes are in powers of ten, as GPUs are sold; = on a
// size means the size that a device is sold under: an H100 of 81559 MiB is vram=80GB.
//
// Parse is the only way to make a Filter that filters. Its errors are *Error, which names the place; they carry an *errs.Error.
// A Filter is immutable and safe for concurrent use, and Parse reads back what its String writes as an equal one.
package query

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
)

// Bounds of a query.
const (
	MaxLength     = 400 // runes
	maxConditions = 20
	maxValues     = 20
)

// nominalPercent is how far a device's memory may lie from the size that it is sold under: an A100 of 80 GB has 85.9e9 bytes.
const nominalPercent = 8

// Filter tells which hosts match a query. The zero value matches all.
type Filter struct{ conditions []condition }

type condition struct {
	field  *field
	op     string
	values []value
}

// value is one value of a condition: text for fields of text, a number for all others; written is how String writes it.
type value struct {
	text    string
	number  int64
	written string
}

// Field describes a field of the language.
type Field struct {
	Name      string
	Meaning   string
	Operators []string
	Example   string
}

// Fields lists the language's fields in the order in which documentation shows them.
func Fields() []Field {
	list := make([]Field, len(fields))
	for i, f := range fields {
		list[i] = Field{Name: f.name, Meaning: f.meaning, Operators: slices.Clone(f.kind.operators()), Example: f.example}
	}
	return list
}

// IsZero reports whether every host matches.
func (f Filter) IsZero() bool { return len(f.conditions) == 0 }

// Match reports whether a host meets all conditions at a price per GPU-hour.
func (f Filter) Match(h *placement.Host, price money.Amount) bool {
	for i := range f.conditions {
		if !f.conditions[i].meets(h, price) {
			return false
		}
	}
	return true
}

// String writes the query in one spelling: equal filters are written alike.
func (f Filter) String() string {
	var b strings.Builder
	for i, c := range f.conditions {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(c.field.name + c.op)
		for n, v := range c.values {
			if n > 0 {
				b.WriteByte(',')
			}
			b.WriteString(v.written)
		}
	}
	return b.String()
}

func (c *condition) meets(h *placement.Host, price money.Amount) bool {
	if c.field.text != nil {
		return c.meetsText(c.field.text(h))
	}
	number, known := c.field.number(h, price)
	if !known {
		return false
	}
	if c.op == "!=" {
		return !slices.ContainsFunc(c.values, func(v value) bool { return c.field.equal(number, v.number) })
	}
	return slices.ContainsFunc(c.values, func(v value) bool { return c.meetsNumber(number, v.number) })
}

func (c *condition) meetsText(text string) bool {
	switch c.op {
	case "!=":
		return !slices.ContainsFunc(c.values, func(v value) bool { return c.field.same(text, v.text) })
	case "~":
		text = strings.ToLower(text)
		return slices.ContainsFunc(c.values, func(v value) bool { return strings.Contains(text, strings.ToLower(v.text)) })
	default:
		return slices.ContainsFunc(c.values, func(v value) bool { return c.field.same(text, v.text) })
	}
}

func (c *condition) meetsNumber(have, want int64) bool {
	switch c.op {
	case "<":
		return have < want
	case "<=":
		return have <= want
	case ">":
		return have > want
	case ">=":
		return have >= want
	default:
		return c.field.equal(have, want)
	}
}

// field is one field: either text or number reads it from a host.
type field struct {
	name    string
	kind    kind
	meaning string
	example string
	text    func(*placement.Host) string
	same    func(have, want string) bool
	number  func(*placement.Host, money.Amount) (n int64, known bool)
	nominal bool // equal means sold under the same size
}

func (f *field) equal(have, want int64) bool {
	if !f.nominal {
		return have == want
	}
	margin := want / 100 * nominalPercent
	return have >= want-margin && have <= want+margin
}

const bytesPerMiB = 1 << 20

var fields = []*field{
	{
		name: "gpu", kind: kindText, meaning: "GPU model", example: "gpu=H100", same: strings.EqualFold,
		text: func(h *placement.Host) string { return h.Model },
	},
	{
		name: "region", kind: kindText, meaning: "region; eu is all of eu-west, eu-north and so on", example: "region=eu", same: Within,
		text: func(h *placement.Host) string { return h.Region },
	},
	{
		name: "price", kind: kindPrice, meaning: "price per GPU-hour", example: "price<2.5",
		number: func(_ *placement.Host, price money.Amount) (int64, bool) { return int64(price), price > 0 },
	},
	{
		name: "vram", kind: kindSize, meaning: "memory of a GPU", example: "vram>=80GB", nominal: true,
		number: func(h *placement.Host, _ money.Amount) (int64, bool) { return known(h.MemoryMiB * bytesPerMiB) },
	},
	{
		name: "free", kind: kindCount, meaning: "free GPUs on the host", example: "free>=4",
		number: func(h *placement.Host, _ money.Amount) (int64, bool) { return free(h), true },
	},
	{
		name: "gpus", kind: kindCount, meaning: "GPUs on the host", example: "gpus=8",
		number: func(h *placement.Host, _ money.Amount) (int64, bool) { return int64(h.GPUs), true },
	},
	{
		name: "compute", kind: kindTenths, meaning: "compute capability", example: "compute>=9.0",
		number: func(h *placement.Host, _ money.Amount) (int64, bool) { return known(int64(h.Compute)) },
	},
	{
		name: "cpus", kind: kindCount, meaning: "CPUs of the host", example: "cpus>=32",
		number: func(h *placement.Host, _ money.Amount) (int64, bool) { return known(int64(h.CPUs)) },
	},
	{
		name: "memory", kind: kindSize, meaning: "memory of the host", example: "memory>=256GB", nominal: true,
		number: func(h *placement.Host, _ money.Amount) (int64, bool) { return known(h.MemoryBytes) },
	},
	{
		name: "disk", kind: kindSize, meaning: "free disk of the host", example: "disk>=1TB", nominal: true,
		number: func(h *placement.Host, _ money.Amount) (int64, bool) { return known(h.DiskBytes) },
	},
	{
		name: "driver", kind: kindCount, meaning: "major version of the GPU driver", example: "driver>=570",
		number: func(h *placement.Host, _ money.Amount) (int64, bool) { return known(int64(h.Driver)) },
	},
	{
		name: "reliability", kind: kindPercent, meaning: "percent of the observed time that the host was online", example: "reliability>=99.5",
		number: func(h *placement.Host, _ money.Amount) (int64, bool) { return int64(h.Reliability), true },
	},
	{
		name: "tier", kind: kindTier, meaning: "standing of the host: new, proven or trusted", example: "tier>=proven",
		number: func(h *placement.Host, _ money.Amount) (int64, bool) { return int64(h.Tier), true },
	},
	{
		name: "spot", kind: kindBool, meaning: "takes spot bookings", example: "spot=true",
		number: func(h *placement.Host, _ money.Amount) (int64, bool) {
			return truth(h.Prices[placement.Spot] > 0), true
		},
	},
	{
		name: "simulated", kind: kindBool, meaning: "its devices are simulated", example: "simulated=false",
		number: func(h *placement.Host, _ money.Amount) (int64, bool) { return truth(h.Simulated), true },
	},
}

func fieldOf(name string) *field {
	i := slices.IndexFunc(fields, func(f *field) bool { return strings.EqualFold(f.name, name) })
	if i < 0 {
		return nil
	}
	return fields[i]
}

// Within reports whether a region is another or a part of it: eu-west is within eu-west and within eu.
func Within(have, want string) bool {
	return strings.EqualFold(have, want) ||
		len(have) > len(want) && have[len(want)] == '-' && strings.EqualFold(have[:len(want)], want)
}

func free(h *placement.Host) int64 { return int64(bits.OnesCount64(h.Well &^ h.Leased)) }

func known(n int64) (int64, bool) { return n, n > 0 }

func truth(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

// Equal reports whether two filters are the same conditions in the same order.
func (f Filter) Equal(other Filter) bool {
	return slices.EqualFunc(f.conditions, other.conditions, func(a, b condition) bool {
		return a.field == b.field && a.op == b.op && slices.Equal(a.values, b.values)
	})
}
