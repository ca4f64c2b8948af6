// Package pguuid has pgx send a uuid.UUID as what it is: sixteen bytes.
//
// Left alone, pgx finds that the type has a Value method, turns each id into text, and looks for a plan again for each element of an
// array: some microseconds an id, which in statements over thousands of hosts is most of their cost. What is stored and read does not change.
package pguuid

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Register teaches a connection. It is a pool's AfterConnect; its error is always nil.
func Register(_ context.Context, conn *pgx.Conn) error {
	m := conn.TypeMap()
	m.TryWrapEncodePlanFuncs = append([]pgtype.TryWrapEncodePlanFunc{wrap}, m.TryWrapEncodePlanFuncs...)
	return nil
}

func wrap(value any) (pgtype.WrappedEncodePlanNextSetter, any, bool) {
	id, ok := value.(uuid.UUID)
	if !ok {
		return nil, nil, false
	}
	return &plan{}, pgtype.UUID{Bytes: id, Valid: true}, true
}

// plan encodes a uuid.UUID by the plan for a pgtype.UUID.
type plan struct{ next pgtype.EncodePlan }

// SetNext implements pgtype.WrappedEncodePlanNextSetter.
func (p *plan) SetNext(next pgtype.EncodePlan) { p.next = next }

// Encode implements pgtype.EncodePlan.
func (p *plan) Encode(value any, buf []byte) ([]byte, error) {
	id, _ := value.(uuid.UUID) // wrap made the plan for nothing else
	return p.next.Encode(pgtype.UUID{Bytes: id, Valid: true}, buf)
}
