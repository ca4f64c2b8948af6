package soljournal

import (
	"fmt"
	"math"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
)

// The kinds of line.
const (
	BaseFee     = "base_fee"
	PriorityFee = "priority_fee"
	RentOut     = "rent_out"
	RentBack    = "rent_back"
	TopUp       = "top_up"
	Sent        = "sent"
)

// Kinds are all kinds of line, in the order in which they are shown.
var Kinds = []string{BaseFee, PriorityFee, RentOut, RentBack, TopUp, Sent}

// lamportsPerSignature is the cluster's base fee.
const lamportsPerSignature = 5_000

// line is a part of what a transaction did to the wallet's lamports.
type line struct {
	kind     string
	lamports money.Amount // what the wallet has more afterwards
	other    string
}

// linesOf says what a transaction's change is made of. The lines add up to it.
//
// Where the accounts on the other side gave or got just what the wallet got or gave, each has a line of its own. In a transaction in which
// others paid each other too, nobody can say whose lamports went where: the wallet's part is one line then, without an account.
func linesOf(m chain.LamportMovement) ([]line, error) {
	if m.Pre > math.MaxInt64 || m.Post > math.MaxInt64 || m.Fee > math.MaxInt64 {
		return nil, fmt.Errorf("transaction %s leaves more lamports than there can be", m.Signature)
	}
	var lines []line
	add := func(kind string, lamports money.Amount, other string) {
		if lamports != 0 {
			lines = append(lines, line{kind, lamports, other})
		}
	}
	base := min(m.Fee, uint64(m.Signatures)*lamportsPerSignature)
	add(BaseFee, -money.Amount(base), "")
	add(PriorityFee, -money.Amount(m.Fee-base), "")
	moved := money.Amount(m.Post) - money.Amount(m.Pre) + money.Amount(m.Fee)
	opposite := func(c chain.LamportChange) bool { return (c.Change < 0) == (moved > 0) }
	sum := money.Amount(0)
	for _, c := range m.Others {
		if opposite(c) {
			sum -= money.Amount(c.Change)
		}
	}
	if moved == 0 {
		return lines, nil
	}
	if sum != moved {
		add(kindOf(moved, false), moved, "")
		return lines, nil
	}
	for _, c := range m.Others {
		if opposite(c) {
			add(kindOf(moved, c.Rent), -money.Amount(c.Change), c.Account.String())
		}
	}
	return lines, nil
}

func kindOf(moved money.Amount, rent bool) string {
	switch {
	case moved < 0 && rent:
		return RentOut
	case moved < 0:
		return Sent
	case rent:
		return RentBack
	default:
		return TopUp
	}
}
