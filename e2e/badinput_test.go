package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
)

const (
	problemType  = "application/problem+json"
	requestBound = 30 * time.Second
	agentBound   = 30 * time.Second
)

// request is a call as a customer's program makes it.
type request struct {
	key    string // API key; empty: none
	method string
	path   string
	body   string
	repeat string // Idempotency-Key; empty: none
}

// send makes a call and returns the status, the media type and the body of the answer.
func send(t *testing.T, r request) (status int, media string, body []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), requestBound)
	defer cancel()
	call, err := http.NewRequestWithContext(ctx, r.method, shared.stack.ConsoleURL()+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	if r.body != "" {
		call.Header.Set("Content-Type", "application/json")
	}
	if r.key != "" {
		call.Header.Set("Authorization", "Bearer "+r.key)
	}
	if r.repeat != "" {
		call.Header.Set("Idempotency-Key", r.repeat)
	}
	response, err := http.DefaultClient.Do(call)
	if err != nil {
		t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	return response.StatusCode, response.Header.Get("Content-Type"), body
}

// succeed makes a call that must succeed and reads its answer.
func succeed(t *testing.T, r request, out any) {
	t.Helper()
	status, _, body := send(t, r)
	if status >= http.StatusMultipleChoices {
		t.Fatalf("%s %s: %d: %s", r.method, r.path, status, body)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(body, out); err != nil {
		t.Fatalf("%s %s: %v: %s", r.method, r.path, err, body)
	}
}

// refusal is what a bad request must get.
type refusal struct {
	request
	status int
	code   string
	says   string // part of the detail
	field  string // an input that errors must name; empty: none
}

// refuse makes a call that must be refused, and returns the problem's details as JSON.
func refuse(t *testing.T, want refusal) json.RawMessage {
	t.Helper()
	status, media, body := send(t, want.request)
	var problem struct {
		apiv1.Problem
		Details json.RawMessage `json:"details"`
	}
	if err := json.Unmarshal(body, &problem); err != nil || media != problemType {
		t.Fatalf("%d, %s, %v: %.300s", status, media, err, body)
	}
	if status != want.status || problem.Status != want.status || problem.Code != want.code || !strings.Contains(problem.Detail, want.says) ||
		problem.Title == "" || problem.RequestID == "" {
		t.Errorf("got %d: %s\nwant %d, %s, %q", status, body, want.status, want.code, want.says)
	}
	for _, field := range problem.Errors {
		if want.field != "" && strings.HasSuffix(field.Path, want.field) {
			return problem.Details
		}
	}
	if want.field != "" {
		t.Errorf("no error names %s: %s", want.field, body)
	}
	return problem.Details
}

// spec is a booking that fits, with some inputs changed.
func spec(changes map[string]any) string {
	inputs := map[string]any{"gpu_model": "H100", "node_count": 1, "gpus_per_node": 1, "duration": "30m"}
	for name, value := range changes {
		inputs[name] = value
	}
	encoded, err := json.Marshal(inputs)
	if err != nil {
		panic(err)
	}
	return string(encoded)
}

// stranger is somebody with every role in an organisation of their own, and no money.
type stranger struct {
	key             string
	expired, reader string // further keys
}

func newStranger(t *testing.T) stranger {
	t.Helper()
	service, err := identity.New(shared.stack.Pool(), identity.SignInConfig{
		Domain: "localhost", URI: shared.stack.ConsoleURL(), ChainID: "solana:localnet", Statement: "Sign in.",
	})
	if err != nil {
		t.Fatal(err)
	}
	var wallet chain.Address
	_, _ = rand.Read(wallet[:])
	org, err := service.SeedOrg(t.Context(), "Stranger", false, "")
	if err != nil {
		t.Fatal(err)
	}
	user, err := service.SeedUser(t.Context(), wallet.String(), "Sam Stranger", []identity.Seed{
		{Org: org, Roles: []identity.Role{identity.Engineer, identity.Owner, identity.Finance, identity.Admin}},
	})
	if err != nil {
		t.Fatal(err)
	}
	mint := func(name string, scopes ...identity.Scope) string {
		secret, err := service.MintKey(t.Context(), org, user, identity.KeySpec{Name: name, Scopes: scopes, Days: 1})
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	s := stranger{key: mint("all", identity.Scopes...), expired: mint("expired", identity.Scopes...), reader: mint("reader", identity.ScopeRead)}
	execute(t, `UPDATE api_keys SET created_at = now() - interval '2 days', expires_at = now() - interval '1 second' WHERE org_id = $1 AND name = 'expired'`, org)
	return s
}

func execute(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := shared.stack.Pool().Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// belongings counts what a request that is refused must not leave behind.
func belongings(t *testing.T) string {
	t.Helper()
	var counts string
	err := shared.stack.Pool().QueryRow(t.Context(), `
		SELECT format('clusters %s, nodes %s, open leases %s, accepted %s, holds %s, batches %s, asks %s, hosts %s',
			(SELECT count(*) FROM clusters), (SELECT count(*) FROM nodes), (SELECT count(*) FROM leases WHERE state <> 'closed'),
			(SELECT count(*) FROM bookings WHERE state = 'accepted'), (SELECT count(*) FROM ledger_entries WHERE kind = 'hold'),
			(SELECT count(*) FROM payout_batches),
			(SELECT string_agg(format('%s %s', price_per_gpu_hour, active), ';' ORDER BY id) FROM asks),
			(SELECT string_agg(format('%s %s', name, state), ';' ORDER BY id) FROM hosts))`).Scan(&counts)
	if err != nil {
		t.Fatal(err)
	}
	return counts
}

// TestBadInput makes every mistake that a caller can make, as a customer's program would, and looks for what it left behind.
func TestBadInput(t *testing.T) {
	engineer, owner, finance := shared.stack.People().Engineer.APIKey, shared.stack.People().Owner.APIKey, shared.stack.People().Finance.APIKey
	other := newStranger(t)
	cluster := bookTwice(t, engineer)
	var hosts apiv1.List[apiv1.Host]
	succeed(t, request{key: owner, method: http.MethodGet, path: "/v1/hosts"}, &hosts)
	if len(hosts.Items) == 0 {
		t.Fatal("the owner has no hosts")
	}
	host := "/v1/hosts/" + hosts.Items[0].ID.String()
	var quote apiv1.Quote
	succeed(t, request{key: engineer, method: http.MethodPost, path: "/v1/quotes", body: spec(nil)}, &quote)
	before := belongings(t)

	quoted := func(key string, changes map[string]any) request {
		return request{key: key, method: http.MethodPost, path: "/v1/quotes", body: spec(changes)}
	}
	get := func(key, path string) request { return request{key: key, method: http.MethodGet, path: path} }
	post := func(key, path, body string) request {
		return request{key: key, method: http.MethodPost, path: path, body: body}
	}
	priced := func(price string) request {
		return request{key: owner, method: http.MethodPut, path: host + "/ask", body: fmt.Sprintf(`{"price_per_gpu_hour": %q, "active": true}`, price)}
	}
	huge := spec(map[string]any{"cluster_name": strings.Repeat("x", 10<<20)})
	book := fmt.Sprintf(`{"quote_id": %q}`, quote.ID)
	const invalid, absent = http.StatusUnprocessableEntity, http.StatusNotFound
	for name, want := range map[string]refusal{
		"unknown GPU model":      {quoted(engineer, map[string]any{"gpu_model": "H999"}), invalid, "invalid", `there is no GPU model "H999"; there`, "gpu_model"},
		"unknown region":         {quoted(engineer, map[string]any{"regions": []string{"moon"}}), invalid, "invalid", `there is no region "moon"; there`, "regions[0]"},
		"no nodes":               {quoted(engineer, map[string]any{"node_count": 0}), invalid, "invalid", "between 1 and", "node_count"},
		"negative nodes":         {quoted(engineer, map[string]any{"node_count": -1}), invalid, "invalid", "between 1 and", "node_count"},
		"too many nodes":         {quoted(engineer, map[string]any{"node_count": 513}), invalid, "invalid", "between 1 and", "node_count"},
		"nodes beyond integers":  {quoted(engineer, map[string]any{"node_count": 1e30}), invalid, "invalid", "too large or not whole", "node_count"},
		"no GPUs":                {quoted(engineer, map[string]any{"gpus_per_node": 0}), invalid, "invalid", "between 1 and", "gpus_per_node"},
		"half a node":            {quoted(engineer, map[string]any{"node_count": 1.5}), invalid, "invalid", "integer", "node_count"},
		"negative duration":      {quoted(engineer, map[string]any{"duration": "-1h"}), invalid, "invalid", "between 1m and 720h", "duration"},
		"no duration":            {quoted(engineer, map[string]any{"duration": "0s"}), invalid, "invalid", "between 1m and 720h", "duration"},
		"overlong duration":      {quoted(engineer, map[string]any{"duration": "721h"}), invalid, "invalid", "between 1m and 720h", "duration"},
		"duration beyond int64":  {quoted(engineer, map[string]any{"duration": "99999999999h"}), invalid, "invalid", "write it like 30m", "duration"},
		"malformed duration":     {quoted(engineer, map[string]any{"duration": "an hour"}), invalid, "invalid", "write it like 30m", "duration"},
		"overlong name":          {quoted(engineer, map[string]any{"cluster_name": strings.Repeat("x", 81)}), invalid, "invalid", "80", "cluster_name"},
		"limit that is too fine": {quoted(engineer, map[string]any{"max_price_per_gpu_hour": "1.2345678"}), invalid, "invalid", "has 7 decimals, and USDC has only 6", "max_price_per_gpu_hour"},
		"limit that is negative": {quoted(engineer, map[string]any{"max_price_per_gpu_hour": "-1"}), invalid, "invalid", "", "max_price_per_gpu_hour"},
		"price that is too fine": {priced("1.9000001"), invalid, "invalid", "has 7 decimals, and USDC has only 6", "price_per_gpu_hour"},
		"price of zero":          {priced("0"), invalid, "invalid", "above zero", "price_per_gpu_hour"},
		"price that is negative": {priced("-1"), invalid, "invalid", "", "price_per_gpu_hour"},
		"price that is no price": {priced("1e3"), invalid, "invalid", "", "price_per_gpu_hour"},

		"malformed JSON": {post(engineer, "/v1/quotes", `{"gpu_model": `), http.StatusBadRequest, "invalid", "not valid JSON", ""},
		"no body":        {post(engineer, "/v1/quotes", ""), http.StatusBadRequest, "invalid", "body", ""},
		"another type":   {post(engineer, "/v1/quotes", `[1]`), invalid, "invalid", "object", ""},
		"10 MB body":     {post(engineer, "/v1/quotes", huge), http.StatusRequestEntityTooLarge, "too_large", "larger than", ""},
		"unknown field":  {quoted(engineer, map[string]any{"nodes": 2}), invalid, "invalid", "nodes", "nodes"},
		"missing field":  {post(engineer, "/v1/quotes", `{"gpu_model": "H100"}`), invalid, "invalid", "", ""},
		"malformed id":   {get(engineer, "/v1/clusters/17"), invalid, "invalid", "", ""},
		"id of another kind": {
			get(engineer, "/v1/clusters/"+quote.ID.String()), invalid, "invalid", "", "",
		},

		"no key":          {get("", "/v1/clusters"), http.StatusUnauthorized, "unauthenticated", "sign in", ""},
		"garbled key":     {get("mst_garbled", "/v1/clusters"), http.StatusUnauthorized, "unauthenticated", "key", ""},
		"mistyped key":    {get(engineer[:len(engineer)-1]+"_", "/v1/clusters"), http.StatusUnauthorized, "unauthenticated", "key", ""},
		"expired key":     {get(other.expired, "/v1/clusters"), http.StatusUnauthorized, "unauthenticated", "key", ""},
		"wrong role":      {quoted(owner, nil), http.StatusForbidden, "forbidden", "engineer", ""},
		"another role":    {post(engineer, "/v1/join-tokens", `{"region": "eu-north"}`), http.StatusForbidden, "forbidden", "owner", ""},
		"not of the firm": {post(other.key, "/v1/finance/batches", ""), http.StatusForbidden, "forbidden", "", ""},
		"wrong scope":     {quoted(other.reader, nil), http.StatusForbidden, "forbidden", "book", ""},

		"another organisation's cluster":  {get(other.key, "/v1/clusters/"+cluster.String()), absent, "not_found", "there is no cluster", ""},
		"release of another's cluster":    {post(other.key, "/v1/clusters/"+cluster.String()+"/release", ""), absent, "not_found", "there is no cluster", ""},
		"events of another's cluster":     {get(other.key, "/v1/clusters/"+cluster.String()+"/events"), absent, "not_found", "there is no cluster", ""},
		"cost of another's cluster":       {get(other.key, "/v1/clusters/"+cluster.String()+"/cost"), absent, "not_found", "there is no cluster", ""},
		"Ray token for another's cluster": {post(other.key, "/v1/clusters/"+cluster.String()+"/ray-token", ""), absent, "not_found", "there is no cluster", ""},
		"jobs of another's cluster":       {get(other.key, "/v1/clusters/"+cluster.String()+"/jobs"), absent, "not_found", "there is no cluster", ""},
		"another organisation's host":     {get(other.key, host), absent, "not_found", "there is no", ""},
		"price of another's host":         {request{key: other.key, method: http.MethodPut, path: host + "/ask", body: `{"price_per_gpu_hour": "1", "active": true}`}, absent, "not_found", "there is no", ""},
		"retirement of another's host":    {post(other.key, host+"/retire", ""), absent, "not_found", "there is no", ""},
		"another organisation's quote":    {get(other.key, "/v1/quotes/"+quote.ID.String()), absent, "not_found", "there is no quote", ""},
		"booking of another's quote":      {post(other.key, "/v1/bookings", book), absent, "not_found", "there is no quote", ""},
		"another organisation's batch":    {get(finance, "/v1/finance/batches/"+ids.New[ids.Batch]().String()), absent, "not_found", "there is no", ""},
		"approval of no batch":            {post(finance, "/v1/finance/batches/"+ids.New[ids.Batch]().String()+"/approve", ""), absent, "not_found", "there is no", ""},
		"organisation that is another's":  {get(other.key, "/v1/clusters?org="+shared.stack.People().Engineer.Org.String()), absent, "not_found", "that you belong to", ""},

		"no such path":   {get(engineer, "/v1/nonsense"), absent, "not_found", "/docs", ""},
		"no such method": {request{key: engineer, method: http.MethodDelete, path: "/v1/quotes"}, http.StatusMethodNotAllowed, "invalid", "DELETE is not possible", ""},
	} {
		t.Run(name, func(t *testing.T) { refuse(t, want) })
	}
	t.Run("without capacity", func(t *testing.T) { refuseCapacity(t, quoted, engineer) })
	t.Run("without funds", func(t *testing.T) { refuseFunds(t, engineer, other.key) })
	t.Run("expired quote", func(t *testing.T) {
		execute(t, `UPDATE bookings SET quoted_at = now() - interval '1 hour', expires_at = now() - interval '1 second' WHERE id = $1`, quote.ID)
		refuse(t, refusal{post(engineer, "/v1/bookings", book), http.StatusGone, "expired", "ask for a new one", ""})
	})
	t.Run("join tokens", func(t *testing.T) { refuseJoinTokens(t, owner) })
	if after := belongings(t); after != before {
		t.Errorf("bad requests left something behind:\nbefore %s\nafter  %s", before, after)
	}
	checkBooks(t)
}

// bookTwice books under one idempotency key, twice, then with another body; the cluster is released and settled.
func bookTwice(t *testing.T, key string) ids.Cluster {
	t.Helper()
	quotes := make([]apiv1.Quote, 2)
	for i := range quotes {
		succeed(t, request{key: key, method: http.MethodPost, path: "/v1/quotes", body: spec(nil)}, &quotes[i])
	}
	booking := request{key: key, method: http.MethodPost, path: "/v1/bookings", body: fmt.Sprintf(`{"quote_id": %q}`, quotes[0].ID), repeat: rand.Text()}
	first, _, answer := send(t, booking)
	second, _, again := send(t, booking)
	if first != http.StatusCreated || first != second || !bytes.Equal(answer, again) {
		t.Fatalf("the same request has two answers:\n%d: %s\n%d: %s", first, answer, second, again)
	}
	var booked apiv1.Booking
	if err := json.Unmarshal(answer, &booked); err != nil || booked.ClusterID == nil {
		t.Fatalf("%v: %s", err, answer)
	}
	booking.body = fmt.Sprintf(`{"quote_id": %q}`, quotes[1].ID)
	refuse(t, refusal{request: booking, status: http.StatusConflict, code: "conflict", says: "another request"})
	var clusters int
	if err := shared.stack.Pool().QueryRow(t.Context(), `SELECT count(*) FROM clusters WHERE booking_id = ANY ($1::uuid[])`,
		[]string{uuid.UUID(quotes[0].ID).String(), uuid.UUID(quotes[1].ID).String()}).Scan(&clusters); err != nil || clusters != 1 {
		t.Errorf("%d clusters, %v, from one booking", clusters, err)
	}
	release(t, *booked.ClusterID)
	return *booked.ClusterID
}

// refuseCapacity asks for more than there is, in each dimension.
func refuseCapacity(t *testing.T, quoted func(string, map[string]any) request, key string) {
	for blocking, changes := range map[string]map[string]any{
		"node_count":    {"node_count": 3}, // a host each, and there are no more
		"gpus_per_node": {"gpus_per_node": 5},
		"price":         {"max_price_per_gpu_hour": "0.5"},
	} {
		details := refuse(t, refusal{request: quoted(key, changes), status: http.StatusConflict, code: "no_capacity"})
		var explained apiv1.Explanation
		if err := json.Unmarshal(details, &explained); err != nil || explained.Blocking != blocking || explained.Summary == "" || len(explained.Funnel) == 0 {
			t.Errorf("want %s to block: %v: %s", blocking, err, details)
		}
	}
}

// refuseFunds books more than the customer can pay, and something without any money.
func refuseFunds(t *testing.T, keys ...string) {
	for _, key := range keys {
		var quote apiv1.Quote
		succeed(t, request{key: key, method: http.MethodPost, path: "/v1/quotes", body: spec(map[string]any{
			"node_count": 2, "gpus_per_node": 4, "duration": "720h",
		})}, &quote)
		details := refuse(t, refusal{
			request{key: key, method: http.MethodPost, path: "/v1/bookings", body: fmt.Sprintf(`{"quote_id": %q}`, quote.ID)},
			http.StatusPaymentRequired, "insufficient_funds", "", "",
		})
		var shortfall apiv1.Shortfall
		if err := json.Unmarshal(details, &shortfall); err != nil {
			t.Fatalf("%v: %s", err, details)
		}
		needed, available, short := number(t, shortfall.Needed), number(t, shortfall.Available), number(t, shortfall.Short)
		if needed != number(t, quote.Hold) || available != number(t, quote.Available) || short != needed-available || short <= 0 || shortfall.Short.Text == "" {
			t.Errorf("of a hold of %s: %s", quote.Hold.Text, details)
		}
		var booking apiv1.Booking
		succeed(t, request{key: key, method: http.MethodGet, path: "/v1/bookings/" + quote.ID.String()}, &booking)
		if booking.State != "refused" || booking.ClusterID != nil {
			t.Errorf("the booking is %+v", booking)
		}
	}
}

// refuseJoinTokens joins as an owner would, with tokens that are not good any more.
func refuseJoinTokens(t *testing.T, owner string) {
	made := func() apiv1.JoinTokenCreated {
		var token apiv1.JoinTokenCreated
		succeed(t, request{key: owner, method: http.MethodPost, path: "/v1/join-tokens", body: `{"region": "eu-north"}`}, &token)
		return token
	}
	used, expired, revoked := made(), made(), made()
	if output, err := join(t, used); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	t.Cleanup(func() { forgetHost(t, used.ID) })
	execute(t, `UPDATE join_tokens SET expires_at = now() - interval '1 second' WHERE id = $1`, expired.ID)
	succeed(t, request{key: owner, method: http.MethodDelete, path: "/v1/join-tokens/" + revoked.ID.String()}, nil)
	for says, token := range map[string]apiv1.JoinTokenCreated{
		"the join token has been used": used, "the join token has expired": expired, "the join token has been revoked": revoked,
	} {
		output, err := join(t, token, "--run", "--ray-venv", shared.venv)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !strings.Contains(output, says) || !strings.Contains(output, "make a new one") {
			t.Errorf("want %q, got %v: %s", says, err, output)
		}
	}
	forgetHost(t, used.ID)
}

// join runs the command that the console shows, as a new machine.
func join(t *testing.T, token apiv1.JoinTokenCreated, further ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), agentBound)
	defer cancel()
	words := strings.Fields(strings.TrimSuffix(token.Command, " --run"))
	arguments := slices.Concat(words[1:], []string{"--no-gpus", "--name", "passer-by", "--state-dir", filepath.Join(t.TempDir(), "state")}, further)
	cmd := exec.CommandContext(ctx, filepath.Join(shared.bin, words[0]), arguments...)
	cmd.Env = os.Environ()
	output, err := cmd.CombinedOutput()
	return string(output), err
}

// forgetHost removes a host that only enrolled, so that the stack has its own hosts again.
func forgetHost(t *testing.T, token ids.JoinToken) {
	t.Helper()
	const host = `(SELECT host_id FROM join_tokens WHERE id = $1)`
	ctx := context.WithoutCancel(t.Context())
	var name string
	if err := shared.stack.Pool().QueryRow(ctx, `SELECT coalesce(min(name), '') FROM hosts WHERE id = `+host, token).Scan(&name); err != nil {
		t.Fatal(err)
	}
	if name == "" {
		return
	}
	if name != "passer-by" {
		t.Errorf("the host joined as %q", name)
	}
	if _, err := shared.stack.Pool().Exec(ctx, `
		WITH spent AS (DELETE FROM join_tokens WHERE id = $1 RETURNING host_id) DELETE FROM hosts WHERE id IN (SELECT host_id FROM spent)`, token); err != nil {
		t.Fatal(err)
	}
}

// TestDepositsThatCannotBeCredited sends another token and dust to a customer's deposit address, on the chain.
func TestDepositsThatCannotBeCredited(t *testing.T) {
	engineer, finance := as(t, shared.stack.People().Engineer), as(t, shared.stack.People().Finance)
	var before, after apiv1.Wallet
	if err := engineer.Get(t.Context(), "/v1/wallet", nil, &before); err != nil {
		t.Fatal(err)
	}
	address, err := chain.ParseAddress(before.DepositAddress)
	if err != nil {
		t.Fatal(err)
	}
	other, err := shared.stack.Chain().CreateToken(t.Context(), chain.TokenProgram, 9)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := shared.stack.Chain().MintOther(t.Context(), other, address, 5_000_000_000)
	if err != nil {
		t.Fatal(err)
	}
	dust, err := shared.stack.Chain().MintTo(t.Context(), address, uint64(number(t, before.MinimumDeposit)-1))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]apiv1.Deposit{}
	testkit.Eventually(t, settleBound, func() (bool, string) {
		var list apiv1.List[apiv1.Deposit]
		if err := finance.Get(t.Context(), "/v1/finance/suspense", nil, &list); err != nil {
			return false, err.Error()
		}
		for _, deposit := range list.Items {
			found[deposit.Signature] = deposit
		}
		return found[wrong.String()].ID != ids.Deposit{} && found[dust.String()].ID != ids.Deposit{}, fmt.Sprintf("in suspense are %v", found)
	})
	if d := found[wrong.String()]; d.Mint != other.String() || d.Amount != "5.000000000" || d.State != "suspense" || !strings.Contains(d.Reason, "another token") {
		t.Errorf("the wrong token is %+v", d)
	}
	if d := found[dust.String()]; d.State != "suspense" || !strings.Contains(d.Reason, "less than the minimum of "+before.MinimumDeposit.Text) {
		t.Errorf("the dust is %+v", d)
	}
	if err := engineer.Get(t.Context(), "/v1/wallet", nil, &after); err != nil {
		t.Fatal(err)
	}
	if before.Available != after.Available || before.Held != after.Held {
		t.Errorf("the balance went from %+v to %+v", before, after)
	}
	if err := ledger.New(shared.stack.Chain().Currency()).Check(t.Context(), shared.stack.Pool()); err != nil {
		t.Error(err)
	}
	checkBooks(t)
}
