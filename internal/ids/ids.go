// Package ids gives every stored object a typed, time-ordered identifier.
//
// An identifier is a UUIDv7: sixteen bytes, ordered by creation time, stored in Postgres as uuid. People and programs see it
// as a prefix, an underscore and 26 characters of lower-case Crockford base32 (the TypeID text form), for example
// "cl_01jd8xk4s3f5rtkq9m2v6w7x8y". The prefix names the kind, and each kind is a Go type of its own, so that a host's id
// cannot be passed where a cluster's is meant.
//
// Values are comparable, usable as map keys, and safe to copy. The zero value is "no id"; it is stored as NULL.
package ids

import (
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// Kind names one kind of object by the prefix of its text form.
type Kind interface{ Prefix() string }

// ID is the identifier of an object of kind K.
type ID[K Kind] [16]byte

const (
	textLength = 26 // 128 bits in digits of five bits, the first digit holding three
	digits     = "0123456789abcdefghjkmnpqrstvwxyz"
)

// New returns a fresh id. It panics only if the system's random source fails.
func New[I ~[16]byte]() I { return I(uuid.Must(uuid.NewV7())) }

// Parse reads the text form. The error says which prefix was expected.
func Parse[K Kind](text string) (ID[K], error) {
	var id ID[K]
	err := id.UnmarshalText([]byte(text))
	return id, err
}

// IsZero reports whether the id is absent.
func (id ID[K]) IsZero() bool { return id == ID[K]{} }

// String returns the text form, or "" for the zero id.
func (id ID[K]) String() string {
	if id.IsZero() {
		return ""
	}
	var kind K
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	var text [textLength]byte
	for i := textLength - 1; i >= 0; i-- {
		text[i] = digits[lo&31]
		hi, lo = hi>>5, lo>>5|hi<<59
	}
	return kind.Prefix() + "_" + string(text[:])
}

// MarshalText implements encoding.TextMarshaler.
func (id ID[K]) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Empty text is the zero id.
func (id *ID[K]) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*id = ID[K]{}
		return nil
	}
	var kind K
	body, found := strings.CutPrefix(string(text), kind.Prefix()+"_")
	if !found || len(body) != textLength || body[0] > '7' {
		return fmt.Errorf("%q is not an id of the form %s_ followed by %d characters", text, kind.Prefix(), textLength)
	}
	var hi, lo uint64
	for _, c := range body {
		digit := strings.IndexRune(digits, c)
		if digit < 0 {
			return fmt.Errorf("%q is not a %s_ id: %q is not one of its characters", text, kind.Prefix(), c)
		}
		hi, lo = hi<<5|lo>>59, lo<<5|uint64(digit)
	}
	binary.BigEndian.PutUint64(id[:8], hi)
	binary.BigEndian.PutUint64(id[8:], lo)
	return nil
}

// Value implements driver.Valuer: the canonical uuid text, or NULL for the zero id.
func (id ID[K]) Value() (driver.Value, error) {
	if id.IsZero() {
		return nil, nil //nolint:nilnil // database/sql spells NULL as a nil value without an error.
	}
	return uuid.UUID(id).String(), nil
}

// Scan implements sql.Scanner for uuid columns; NULL gives the zero id.
func (id *ID[K]) Scan(src any) error {
	if src == nil {
		*id = ID[K]{}
		return nil
	}
	var u uuid.UUID
	if err := u.Scan(src); err != nil {
		return fmt.Errorf("scan id: %w", err)
	}
	*id = ID[K](u)
	return nil
}
