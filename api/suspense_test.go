package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// suspended is dust that a wallet has sent to an organisation's deposit address.
func (b *bench) suspended(org ids.Org, sender *string) ids.Deposit {
	b.t.Helper()
	const account = "4dg432DGaxgfMwJYujjPGcNboHfku1q1zb1A9LHrAKp9"
	id := ids.New[ids.Deposit]()
	mint := b.server.Currency.Mint
	b.exec(`INSERT INTO watched_accounts (token_account, wallet, org_id, mint, program, decimals) VALUES ($1, $1, $2, $3, $3, 6) ON CONFLICT DO NOTHING`,
		account, org, mint)
	b.exec(`INSERT INTO deposits (id, org_id, signature, token_account, mint, decimals, amount, slot, disposition, reason, sender)
	        VALUES ($1, $2, $3, $4, $5, 6, 9000, 1, 'suspense', 'it is too little', $6)`, id, org, id.String(), account, mint, sender)
	book := ledger.New(b.server.Currency)
	fatal(b.t, pgx.BeginFunc(b.t.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := book.Post(b.t.Context(), tx, ledger.Entry{Key: "deposit:" + id.String(), Kind: ledger.KindSuspense, Legs: []ledger.Leg{{
			Debit: ledger.Of(ledger.ChainDeposits, org), Credit: ledger.Platform(ledger.Suspense), Amount: 9000,
		}}})
		return err
	}))
	return id
}

func TestFinanceRefundsTokensInSuspense(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	platform, customer := b.org("Muster", true), b.org("Northwind Labs", false)
	finance, stranger := b.member(platform, identity.Finance), b.member(customer, identity.Finance)
	sender := "7xKXtg2CW87d97TXJSDpbD5jBkheTqA83TZRuJosgAsU"
	known, unknown := b.suspended(customer, &sender), b.suspended(customer, nil)
	decide := func(p *person, id ids.Deposit) *reply {
		return b.do(request{
			method: post, path: "/v1/finance/suspense/" + id.String() + "/decision", cookie: p.cookie,
			body: apiv1.SuspenseDecision{Outcome: "refunded", Note: "sent by mistake"},
		})
	}
	decide(stranger, known).is(http.StatusForbidden)
	refused := decide(finance, unknown)
	if refused.StatusCode < http.StatusBadRequest || !strings.Contains(string(refused.body), "who sent it is not known") {
		t.Errorf("a refund to nobody gave %d: %s", refused.StatusCode, refused.body)
	}
	var decided apiv1.Deposit
	for range 2 { // pressed twice
		decide(finance, known).is(http.StatusOK).decode(&decided)
		if r := decided.Refund; decided.Outcome != "refunded" || r == nil || r.Address != sender || r.State != "requested" || r.BatchID != nil {
			t.Fatalf("decided: %+v, refund %+v", decided, decided.Refund)
		}
	}
	var list apiv1.List[apiv1.Deposit]
	b.do(request{method: get, path: "/v1/finance/suspense", cookie: finance.cookie}).is(http.StatusOK).decode(&list)
	if len(list.Items) != 2 || list.Items[1].Customer != "Northwind Labs" || list.Items[1].Sender != sender || list.Items[0].Sender != "" || list.Items[0].Refund != nil {
		t.Errorf("in suspense: %+v", list.Items)
	}
	if d := list.Items[1]; d.DecidedBy == "" || d.DecidedAt == nil || list.Items[0].DecidedBy != "" || list.Items[0].DecidedAt != nil {
		t.Errorf("decided by %q at %v, and of the one that waits by %q at %v", d.DecidedBy, d.DecidedAt, list.Items[0].DecidedBy, list.Items[0].DecidedAt)
	}
	var seen apiv1.List[apiv1.Deposit]
	b.do(request{method: get, path: "/v1/wallet/deposits", cookie: stranger.cookie}).is(http.StatusOK).decode(&seen)
	if len(seen.Items) != 2 || list.Items[1].Note != "sent by mistake" {
		t.Fatalf("finance sees the note %q, the customer %d deposits", list.Items[1].Note, len(seen.Items))
	}
	for _, d := range seen.Items {
		if d.Note != "" || d.DecidedBy != "" {
			t.Errorf("the customer sees the operator's note %q by %q", d.Note, d.DecidedBy)
		}
	}
	for query, want := range map[string]int{"": 1, "?action=suspense.refunded": 1, "?subject=" + known.String(): 1, "?subject=" + unknown.String(): 0, "?person=nobody": 0, "?to=2020-01-01T00:00:00Z": 0} {
		var log apiv1.List[apiv1.AuditLine]
		b.do(request{method: get, path: "/v1/finance/audit-log" + query, cookie: finance.cookie}).is(http.StatusOK).decode(&log)
		if len(log.Items) != want {
			t.Errorf("the audit log of %q has %d lines, want %d: %+v", query, len(log.Items), want, log.Items)
		}
	}
	for query, want := range map[string]string{"": `"muster_audit_log.csv"`, "?action=none": `"muster_audit_log_filtered.csv"`} {
		export := b.do(request{method: get, path: "/v1/finance/audit-log/file" + query, cookie: finance.cookie}).is(http.StatusOK)
		if name := export.Header.Get("Content-Disposition"); !strings.HasSuffix(name, want) || strings.Contains(string(export.body), known.String()) != (query == "") {
			t.Errorf("the audit log of %q is in the file %s: %s", query, name, export.body)
		}
	}
	var withdrawals apiv1.List[apiv1.Withdrawal]
	b.do(request{method: get, path: "/v1/wallet/withdrawals", cookie: stranger.cookie}).is(http.StatusOK).decode(&withdrawals)
	if len(withdrawals.Items) != 1 || withdrawals.Items[0].Purpose != "refund" || withdrawals.Items[0].ID != decided.Refund.ID {
		t.Errorf("withdrawals: %+v", withdrawals.Items)
	}
}
