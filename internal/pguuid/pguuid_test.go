package pguuid_test

import (
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/pguuid"
	"github.com/muster-gpu/muster/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func connect(t testing.TB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), testkit.DatabaseURL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	if err := pguuid.Register(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestIdsTravelUnchanged(t *testing.T) {
	t.Parallel()
	conn := connect(t)
	id := uuid.New()
	for name, c := range map[string]struct {
		sql   string
		value any
		want  string
	}{
		"an id":              {`SELECT $1::uuid::text`, id, id.String()},
		"a pointer":          {`SELECT $1::uuid::text`, &id, id.String()},
		"none":               {`SELECT coalesce($1::uuid::text, 'none')`, (*uuid.UUID)(nil), "none"},
		"a nullable id":      {`SELECT $1::uuid::text`, uuid.NullUUID{UUID: id, Valid: true}, id.String()},
		"an absent one":      {`SELECT coalesce($1::uuid::text, 'none')`, uuid.NullUUID{}, "none"},
		"a named id":         {`SELECT $1::uuid::text`, ids.Host(id), id.String()},
		"an id as text":      {`SELECT $1::text`, id, id.String()},
		"an id within JSON":  {`SELECT $1::jsonb->>'id'`, map[string]any{"id": id}, id.String()},
		"an array":           {`SELECT array_to_string($1::uuid[], ' ')`, []uuid.UUID{id, uuid.Nil}, id.String() + " " + uuid.Nil.String()},
		"an empty array":     {`SELECT cardinality($1::uuid[])::text`, []uuid.UUID{}, "0"},
		"an array of few":    {`SELECT array_to_string($1::uuid[], ' ', '-')`, []*uuid.UUID{&id, nil}, id.String() + " -"},
		"an array as a null": {`SELECT coalesce(cardinality($1::uuid[])::text, 'none')`, []uuid.UUID(nil), "none"},
	} {
		var got string
		if err := conn.QueryRow(t.Context(), c.sql, c.value).Scan(&got); err != nil || got != c.want {
			t.Errorf("%s arrives as %q, %v, not %q", name, got, err, c.want)
		}
	}
}

func TestIdsAreReadBack(t *testing.T) {
	t.Parallel()
	conn := connect(t)
	sent := []uuid.UUID{uuid.New(), uuid.New()}
	var got []uuid.UUID
	var one uuid.UUID
	if err := conn.QueryRow(t.Context(), `SELECT $1::uuid[], $2::uuid`, sent, sent[0]).Scan(&got, &one); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, sent) || one != sent[0] {
		t.Errorf("%v and %v came back as %v and %v", sent, sent[0], got, one)
	}
}
