package api

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
)

func withKey(key string) map[string]string { return map[string]string{"Idempotency-Key": key} }

func TestSameKeyAndRequestGivesTheSameAnswer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.signIn(newPerson())
	r := request{method: post, path: "/v1/keys", cookie: p.cookie, header: withKey("once"), body: apiv1.KeyCreate{Name: "ci", Scopes: []string{"read"}, Days: 2}}
	first, second := b.do(r).is(http.StatusCreated), b.do(r).is(http.StatusCreated)
	var one, two apiv1.KeyCreated
	first.decode(&one)
	second.decode(&two)
	if one.Secret == "" || one.Secret != two.Secret || one.ID != two.ID {
		t.Fatalf("answers %s and %s", first.body, second.body)
	}
	var stored string
	fatal(t, b.pool.QueryRow(t.Context(), `SELECT string_agg(i::text, ' ') FROM idempotency_keys i`).Scan(&stored))
	if strings.Contains(stored, one.Secret) || strings.Contains(stored, "once") {
		t.Error("the database holds the secret or the key itself")
	}
	r.body = apiv1.KeyCreate{Name: "other", Scopes: []string{"read"}, Days: 2}
	b.do(r).problem(http.StatusConflict, "conflict")
	var keys apiv1.List[apiv1.Key]
	b.do(request{method: get, path: "/v1/keys", cookie: p.cookie}).is(http.StatusOK).decode(&keys)
	if len(keys.Items) != 1 {
		t.Errorf("%d keys were made, want 1", len(keys.Items))
	}
}

func TestKeyIsOfOnePersonOperationAndTarget(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	org := b.org("Owner", false)
	one, two := b.fixture(org), b.fixture(org)
	p, q := b.member(org, identity.Owner, identity.Admin), b.member(org, identity.Owner)
	drain := request{method: post, path: "/v1/hosts/" + one.host.String() + "/drain", cookie: p.cookie, header: withKey("k")}
	b.do(drain).is(http.StatusOK)
	b.do(drain).is(http.StatusOK)
	other := drain
	other.path = "/v1/hosts/" + two.host.String() + "/drain"
	b.do(other).problem(http.StatusConflict, "conflict")
	other.path = "/v1/hosts/" + one.host.String() + "/undrain"
	b.do(other).problem(http.StatusConflict, "conflict")
	other.cookie = q.cookie
	b.do(other).is(http.StatusOK)
}

func TestConcurrentRequestsWithOneKeyRunOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.signIn(newPerson())
	const clients = 12
	var together sync.WaitGroup
	statuses := make(chan int, clients)
	for range clients {
		together.Go(func() {
			statuses <- b.do(request{method: post, path: "/v1/organisations", cookie: p.cookie, header: withKey("one"), body: apiv1.OrgCreate{Name: "Only"}}).StatusCode
		})
	}
	together.Wait()
	close(statuses)
	for status := range statuses {
		if status != http.StatusCreated && status != http.StatusConflict {
			t.Errorf("status %d, want 201 or in flight", status)
		}
	}
	var founded int
	fatal(t, b.pool.QueryRow(t.Context(), `SELECT count(*) FROM organisations WHERE name = 'Only'`).Scan(&founded))
	if founded != 1 {
		t.Fatalf("%d organisations were founded, want 1", founded)
	}
}

func TestRefusalIsNotRemembered(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	f := b.fixture(b.org("Customer", false))
	p := b.member(f.org, identity.Owner)
	b.exec(`UPDATE hosts SET state = 'leased'`)
	retire := request{method: post, path: "/v1/hosts/" + f.host.String() + "/retire", cookie: p.cookie, header: withKey("k")}
	b.do(retire).problem(http.StatusConflict, "conflict")
	b.exec(`UPDATE nodes SET state = 'failed', ended_at = now()`)
	b.exec(`UPDATE hosts SET state = 'idle'`)
	b.do(retire).is(http.StatusOK)
}

// TestAbandonedReservationIsTakenOver: the process died between reserving the key and storing the answer.
func TestAbandonedReservationIsTakenOver(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.signIn(newPerson())
	who := caller{Principal: identity.Principal{User: p.me.UserID}, org: identity.Membership{Org: p.me.Organisations[0].OrgID}}
	ctx := context.WithValue(t.Context(), callerKey{}, who)
	in := &foundInput{KeyParam: KeyParam{IdempotencyKey: "k"}, Body: apiv1.OrgCreate{Name: "Late"}}
	at, err := placeFor(who, "create-organisation", "k", in)
	fatal(t, err)
	_, err = b.server.answers.reserve(ctx, at)
	fatal(t, err)
	runs := 0
	run := func(context.Context, *foundInput) (*output[apiv1.Membership], error) {
		runs++
		return answer(apiv1.Membership{Name: "Late"}), nil
	}
	_, err = repeatable(ctx, &b.server.answers, "create-organisation", in, run)
	if errs.CodeOf(err) != errs.Conflict || runs != 0 {
		t.Fatalf("error %v after %d runs, want in flight", err, runs)
	}
	b.exec(`UPDATE idempotency_keys SET created_at = now() - $1::interval`, 2*answerAbandoned)
	for range 2 {
		out, err := repeatable(ctx, &b.server.answers, "create-organisation", in, run)
		fatal(t, err)
		if out.Body.Name != "Late" {
			t.Fatalf("answer %+v", out)
		}
	}
	if runs != 1 {
		t.Fatalf("%d runs, want 1", runs)
	}
}

func TestOnlyMoneyAnswersAreKeptForEver(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	org := b.org("Customer", false)
	for _, operation := range []string{"create-key", "draft-batches"} {
		b.exec(`INSERT INTO idempotency_keys (org_id, key, operation, request_hash, created_at) VALUES ($1, $2, $2, '\x00', now() - interval '2 days')`, org, operation)
	}
	b.exec(`INSERT INTO idempotency_keys (org_id, key, operation, request_hash) VALUES ($1, 'new', 'create-key', '\x00')`, org)
	fatal(t, b.server.answers.queries.PurgeIdempotencyKeys(t.Context(), b.pool, answerLifetime, keptAnswers))
	var left string
	fatal(t, b.pool.QueryRow(t.Context(), `SELECT string_agg(key, ' ' ORDER BY key) FROM idempotency_keys`).Scan(&left))
	if left != "draft-batches new" {
		t.Fatalf("left %q", left)
	}
}
