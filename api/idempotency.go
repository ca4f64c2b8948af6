package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/api/identity/identitydb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/seal"
)

const (
	answerLifetime  = 24 * time.Hour
	answerAbandoned = 2 * time.Minute // longer than any request lasts
	answerWrite     = 5 * time.Second
	purgeInterval   = time.Hour
)

// keptAnswers are those operations that move money: their keys are never forgotten.
var keptAnswers = []string{"create-booking", "draft-batches", "approve-batch"}

// answers remembers the outcome of mutations by the caller's Idempotency-Key.
//
// A key is reserved before its operation runs and completed after it. If the process dies in between, the reservation stays in
// flight until it counts as abandoned; then a retry with the same request takes it over and runs the operation again. That is
// safe because every operation here is: it either repeats itself to the same end (bookings by their quote, approvals, releases,
// prices, fees, drains, revocations, cancellations, drafts, which find nothing left to draft), or what the first run made is never
// heard of again (a key or token whose secret nobody has, an empty organisation, a quote), or the second is told of what the first
// made (a maintenance window, which overlaps with itself). A refusal is not remembered: its cause may be gone
// at the next try.
//
// Answers are stored sealed, because some carry a secret.
type answers struct {
	pool    *pgxpool.Pool
	queries *identitydb.Queries
	box     *seal.Box
}

func newAnswers(pool *pgxpool.Pool, box *seal.Box) answers {
	return answers{pool: pool, queries: identitydb.New(), box: box}
}

// place is where an answer is kept, and what it answers.
type place struct {
	org       ids.Org
	key       string
	operation string
	request   []byte // hash
}

// repeatable runs an operation once for each idempotency key. Without a key, or where the input takes none, it just runs it.
func repeatable[I, O any](ctx context.Context, a *answers, operation string, in *I, handle func(context.Context, *I) (*O, error)) (*O, error) {
	keyed, ok := any(in).(interface{ idempotencyKey() string })
	if !ok || keyed.idempotencyKey() == "" {
		return handle(ctx, in)
	}
	at, err := placeFor(callerOf(ctx), operation, keyed.idempotencyKey(), in)
	if err != nil {
		return nil, err
	}
	stored, err := a.reserve(ctx, at)
	if err != nil {
		return nil, err
	}
	out := new(O)
	if stored != "" {
		return out, json.Unmarshal([]byte(stored), out)
	}
	out, err = handle(ctx, in)
	return out, errors.Join(err, a.finish(ctx, at, out, err))
}

// placeFor scopes a key to its person and organisation, for personal operations their first one.
func placeFor(who caller, operation, key string, in any) (place, error) {
	org := who.org.Org
	if org.IsZero() && len(who.Memberships) > 0 {
		org = who.Memberships[0].Org
	}
	if org.IsZero() {
		return place{}, errs.InvalidField("header.Idempotency-Key", "a key needs an organisation, and you belong to none: leave it out")
	}
	body, err := json.Marshal(in)
	if err != nil {
		return place{}, fmt.Errorf("hash request: %w", err)
	}
	scoped := sha256.Sum256([]byte(who.User.String() + "\x00" + key))
	request := sha256.Sum256(body)
	return place{org: org, key: hex.EncodeToString(scoped[:]), operation: operation, request: request[:]}, nil
}

// reserve claims a key. It returns the stored answer if the same request was answered before.
func (a *answers) reserve(ctx context.Context, at place) (string, error) {
	claimed, err := a.queries.ReserveIdempotencyKey(ctx, a.pool, identitydb.ReserveIdempotencyKeyParams{
		OrgID: at.org, Key: at.key, Operation: at.operation, RequestHash: at.request, Abandoned: answerAbandoned,
	})
	if err != nil {
		return "", fmt.Errorf("reserve idempotency key: %w", err)
	}
	if claimed == 1 {
		return "", nil
	}
	row, err := a.queries.IdempotencyKey(ctx, a.pool, at.org, at.key)
	switch {
	case errors.Is(err, pgx.ErrNoRows) || err == nil && row.Response == nil && sameRequest(row, at):
		return "", errs.New(errs.Conflict, "a request with this Idempotency-Key is being worked on: ask again in a moment")
	case err != nil:
		return "", fmt.Errorf("read idempotency key: %w", err)
	case !sameRequest(row, at):
		return "", errs.New(errs.Conflict, "this Idempotency-Key was used with another request: use a new key")
	}
	var sealed []byte
	if err := json.Unmarshal(row.Response, &sealed); err != nil {
		return "", fmt.Errorf("read stored answer: %w", err)
	}
	return a.box.Unseal(sealed)
}

func sameRequest(row identitydb.IdempotencyKeyRow, at place) bool {
	return row.Operation == at.operation && bytes.Equal(row.RequestHash, at.request)
}

// finish stores the answer, or gives the key back after a refusal. It does so even when the caller has gone.
func (a *answers) finish(ctx context.Context, at place, out any, failure error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWrite)
	defer cancel()
	if failure != nil {
		if err := a.queries.ForgetIdempotencyKey(ctx, a.pool, at.org, at.key); err != nil {
			return fmt.Errorf("forget idempotency key: %w", err)
		}
		return nil
	}
	body, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("store answer: %w", err)
	}
	sealed, err := json.Marshal(a.box.Seal(string(body)))
	if err != nil {
		return fmt.Errorf("store answer: %w", err)
	}
	if err := a.queries.CompleteIdempotencyKey(ctx, a.pool, sealed, at.org, at.key); err != nil {
		return fmt.Errorf("store answer: %w", err)
	}
	return nil
}

func (a *answers) purge(ctx context.Context, log *slog.Logger) error {
	ticker := time.NewTicker(purgeInterval)
	defer ticker.Stop()
	for {
		if err := a.queries.PurgeIdempotencyKeys(ctx, a.pool, answerLifetime, keptAnswers); err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "idempotency keys not purged", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
