package ledger

import (
	"crypto/sha256"
	"encoding/json"
	"strconv"

	"github.com/muster-gpu/muster/internal/ids"
)

// hash is the SHA-256 of the entry's canonical JSON: fixed field order, ids in text, amounts in base units.
func (e Entry) hash(mint string) []byte {
	var room [1024]byte // enough for most entries
	sum := sha256.Sum256(e.canonical(room[:0], mint))
	return sum[:]
}

// canonical appends the JSON that encoding/json would make of the entry without its key. Hashes of it are on record, so no byte of it may
// ever change. It is written by hand because reflection was a sixth of what posting costs outside the database.
func (e Entry) canonical(to []byte, mint string) []byte {
	to = appendString(append(to, `{"kind":`...), e.Kind)
	to = appendString(append(to, `,"mint":`...), mint)
	to = append(to, `,"legs":[`...)
	for i, leg := range e.Legs {
		if i > 0 {
			to = append(to, ',')
		}
		to = leg.Debit.appendJSON(append(to, `{"debit":`...))
		to = leg.Credit.appendJSON(append(to, `,"credit":`...))
		to = strconv.AppendInt(append(to, `,"amount":`...), int64(leg.Amount), 10)
		to = append(to, '}')
	}
	to = e.Refs.appendJSON(append(to, `],"refs":`...))
	to = appendString(append(to, `,"memo":`...), e.Memo)
	if e.Pend != nil {
		to = strconv.AppendInt(append(to, `,"pend":{"ttl_ms":`...), e.Pend.TTL.Milliseconds(), 10)
		to = append(to, '}')
	}
	if e.Settle != nil {
		to = appendString(append(to, `,"settle":{"pending":`...), e.Settle.Pending.String())
		to = strconv.AppendInt(append(to, `,"amount":`...), int64(e.Settle.Amount), 10)
		to = strconv.AppendBool(append(to, `,"expire":`...), e.Settle.expire)
		to = append(to, '}')
	}
	return append(to, '}')
}

func (a Account) appendJSON(to []byte) []byte {
	to = appendString(append(to, `{"kind":`...), string(a.Kind))
	if !a.Org.IsZero() {
		to = appendString(append(to, `,"org":`...), a.Org.String())
	}
	return append(to, '}')
}

func (r Refs) appendJSON(to []byte) []byte {
	to = append(to, '{')
	first := len(to)
	to = appendID(to, first, "booking", r.Booking)
	to = appendID(to, first, "cluster", r.Cluster)
	to = appendID(to, first, "lease", r.Lease)
	to = appendID(to, first, "deposit", r.Deposit)
	to = appendID(to, first, "batch", r.Batch)
	if r.Signature != "" {
		to = appendString(appendName(to, first, "signature"), r.Signature)
	}
	return append(to, '}')
}

// appendID appends a field unless it is zero. The object's first field begins at first.
func appendID[K ids.Kind](to []byte, first int, name string, id ids.ID[K]) []byte {
	if id.IsZero() {
		return to
	}
	return appendString(appendName(to, first, name), id.String())
}

func appendName(to []byte, first int, name string) []byte {
	if len(to) > first {
		to = append(to, ',')
	}
	return append(append(append(to, '"'), name...), `":`...)
}

// appendString quotes text. What JSON would escape is left to encoding/json.
func appendString(to []byte, text string) []byte {
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			quoted, err := json.Marshal(text)
			if err != nil {
				panic(err) // no string is refused
			}
			return append(to, quoted...)
		}
	}
	return append(append(append(to, '"'), text...), '"')
}
