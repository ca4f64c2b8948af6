package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/testkit"
)

func TestEveryCodeHasAStatusAndATitle(t *testing.T) {
	t.Parallel()
	want := map[errs.Code]int{
		errs.Invalid: 422, errs.Unauthenticated: 401, errs.Forbidden: 403, errs.NotFound: 404, errs.Conflict: 409, errs.Expired: 410,
		errs.InsufficientFunds: 402, errs.NoCapacity: 409, errs.TooLarge: 413, errs.RateLimited: 429, errs.Unavailable: 503, errs.Internal: 500,
	}
	for code, status := range want {
		p := newProblem("req_1", errs.New(code, "why"))
		if p.Status != status || p.Title == "" || p.RequestID != "req_1" {
			t.Errorf("%s: %+v, want status %d", code, p, status)
		}
	}
	if len(want) != len(statusOf) || len(want) != len(titleOf) {
		t.Errorf("%d codes are tested, %d have a status, %d a title", len(want), len(statusOf), len(titleOf))
	}
}

func TestOnlyDomainErrorsAreShown(t *testing.T) {
	t.Parallel()
	s := &Server{log: slog.New(slog.DiscardHandler)}
	hidden := errors.New("relation hosts has no column secret")
	for _, err := range []error{hidden, fmt.Errorf("wrapped: %w", hidden), errs.New(errs.Internal, "secret %d", 1), errs.New("unheard of", "secret")} {
		if p := s.problem(t.Context(), err); p.Status != http.StatusInternalServerError || strings.Contains(p.Detail, "secret") {
			t.Errorf("%v became %+v", err, p)
		}
	}
	shown := fmt.Errorf("store: %w", errs.New(errs.Conflict, "it is leased").WithDetails(map[string]string{"internal": "secret"}))
	if p := s.problem(t.Context(), shown); p.Detail != "it is leased" || p.Details != nil {
		t.Errorf("%+v, want the message without undocumented details", p)
	}
}

func TestOutagesAreUnavailableNotInternal(t *testing.T) {
	t.Parallel()
	_, refused := pgconn.Connect(t.Context(), "postgres://nobody@"+closedPort(t)+"/none?sslmode=disable")
	pool := testkit.DB(t)
	conn, err := pool.Acquire(t.Context())
	fatal(t, err)
	defer conn.Release()
	_, err = pool.Exec(t.Context(), `SELECT pg_terminate_backend($1)`, conn.Conn().PgConn().PID())
	fatal(t, err)
	_, terminated := conn.Exec(t.Context(), `SELECT 1`)
	for name, err := range map[string]error{"connection refused": refused, "server stopped": terminated, "timeout": context.DeadlineExceeded} {
		if err == nil || !isUnavailable(fmt.Errorf("query: %w", err)) {
			t.Errorf("%s: %v does not count as an outage", name, err)
		}
	}
	_, defect := pool.Exec(t.Context(), `SELECT nonsense`)
	if defect == nil || isUnavailable(defect) {
		t.Errorf("%v counts as an outage", defect)
	}
}
