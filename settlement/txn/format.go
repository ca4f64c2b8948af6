package txn

import (
	"errors"
	"fmt"
)

// Format is a transaction's wire format.
type Format uint8

// The formats, the cheapest per payee first.
const (
	V1 Format = iota
	V0
	Legacy
)

// ErrTooLarge means that a format cannot hold a message.
var ErrTooLarge = errors.New("the message is too large for its format")

// String is the format's name in logs and views.
func (f Format) String() string {
	switch f {
	case V1:
		return "v1"
	case V0:
		return "v0"
	case Legacy:
		return "legacy"
	default:
		return fmt.Sprintf("format %d", uint8(f))
	}
}

// Limits of the cluster.
const (
	maxBytesV1     = 4096
	maxBytes       = 1232 // of the older formats
	maxAccounts    = 64
	maxTrace       = 64 // instructions, with those that programs call
	createTrace    = 5  // CreateIdempotent and the four calls that it makes
	maxTable       = 256
	signatureBytes = 64
	addressBytes   = 32
)

// MaxMemo is the longest memo, in bytes: a batch's id, and the root of its manifest.
const MaxMemo = 120

// Load is what a payout's message carries, as far as its size goes.
type Load struct {
	Payees  int // all of them
	Creates int // those whose token account is made
	Listed  int // those whose token account is in the lookup table
	Memo    int // bytes
}

// Fits reports whether one transaction of a format can carry a load.
func (t *Treasury) Fits(f Format, l Load) bool {
	within := func(n, most int) bool { return n >= 0 && n <= most }
	if l.Payees == 0 || !within(l.Payees, MaxPayees) || !within(l.Creates, l.Payees) || !within(l.Listed, l.Payees) || !within(l.Memo, MaxMemo) {
		return false
	}
	if f > Legacy || (f == V0 && t.table == nil) {
		return false
	}
	shape := t.shape(f, l.Creates > 0)
	accounts := shape.accounts + l.Payees + l.Creates
	trace := shape.instructions + l.Payees + createTrace*l.Creates + 1
	if l.Memo == 0 {
		accounts, trace = accounts-1, trace-1
	}
	return accounts <= maxAccounts && trace <= maxTrace && t.size(f, l) <= limit(f)
}

// Most is how many payees with accounts of their own a transaction can pay; in V0, payees that the table lists.
func (t *Treasury) Most(f Format, memo int) int {
	most := 0
	for n := 1; n <= MaxPayees && t.Fits(f, Load{Payees: n, Listed: n, Memo: memo}); n++ {
		most = n
	}
	return most
}

func limit(f Format) int {
	if f == V1 {
		return maxBytesV1
	}
	return maxBytes
}
