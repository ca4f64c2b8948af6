package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/proof"
)

// sealed puts a batch with one payout to an organisation and its manifest into the database, as the payouts leave them when it is signed.
func (b *bench) sealed(payee ids.Org) *proof.Manifest {
	b.t.Helper()
	at := time.Date(2026, 11, 22, 12, 0, 0, 123_456_000, time.UTC)
	m := &proof.Manifest{
		Head: proof.Head{Version: proof.Version, Network: "net", Mint: "mint", Treasury: "treasury", Batch: ids.New[ids.Batch](), Sequence: 1},
		Payouts: []proof.Payout{{
			ID: ids.New[ids.Payout](), Purpose: proof.PurposeEarnings, Wallet: "wallet", TokenAccount: "account", Amount: 1_899_993,
			Records: []proof.Record{{
				Lease: ids.New[ids.Lease](), From: at, To: at.Add(time.Hour), ToMS: 3_600_000, Price: 2_000_000, FeeBPS: 500, ChargedAfter: 2_000_000, Amount: 1_900_000,
			}},
			Adjustments: []proof.Adjustment{{At: at, Memo: "<half> an hour & more", Amount: -7}},
		}},
	}
	root, err := m.Root()
	fatal(b.t, err)
	document, err := m.Document()
	fatal(b.t, err)
	const address = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
	b.exec(`INSERT INTO payout_batches (id, mint, total, payee_count, nonce_account, nonce_value) VALUES ($1, $2, 1899993, 1, $2, $2)`, m.Batch, address)
	b.exec(`INSERT INTO payouts (id, batch_id, payee_org_id, wallet, token_account, creates_account, amount, sequence) VALUES ($1, $2, $3, $4, $4, false, 1899993, 1)`,
		m.Payouts[0].ID, m.Batch, payee, address)
	b.exec(`INSERT INTO manifests (batch_id, sequence, root, document) VALUES ($1, 1, $2, $3)`, m.Batch, root[:], string(document))
	b.exec(`INSERT INTO manifest_payouts (payout_id, batch_id, ordinal, payee_org_id, through_seq, carried) VALUES ($1, $2, 0, $3, 1, 0)`, m.Payouts[0].ID, m.Batch, payee)
	b.exec(`UPDATE payout_batches SET state = 'approved', approved_by = (SELECT id FROM users LIMIT 1), approved_at = now() WHERE id = $1`, m.Batch)
	b.exec(`UPDATE payout_batches SET state = 'signed', message = '\x00', signing_started_at = now() WHERE id = $1`, m.Batch)
	b.exec(`INSERT INTO payout_transactions (signature, batch_id, nonce_account, nonce_value, wire) VALUES (repeat('S', 88), $1, $2, $2, '\x00')`, m.Batch, address)
	return m
}

func TestManifestsArePublicAndLeadToTheirRoot(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := b.sealed(b.signIn(newPerson()).me.Organisations[0].OrgID)
	want, err := m.Root()
	fatal(t, err)

	var list apiv1.List[apiv1.ManifestSummary]
	b.do(request{method: get, path: "/v1/public/manifests"}).is(http.StatusOK).decode(&list)
	if len(list.Items) != 1 || list.Items[0].Batch != m.Batch || list.Items[0].Root != want.String() || list.Items[0].State != proof.StatePending || list.NextCursor != "" {
		t.Errorf("the list: %+v", list)
	}
	one := b.do(request{method: get, path: "/v1/public/manifests/" + m.Batch.String()}).is(http.StatusOK)
	var published proof.Published
	fatal(t, json.Unmarshal(one.body, &published))
	if root, err := published.Manifest.Root(); err != nil || root != want || published.Root != want.String() {
		t.Errorf("what is served has the root %s, %v, want %s: %s", root, err, want, one.body)
	}
	// Outsiders hash the text as it is served.
	document, err := m.Document()
	fatal(t, err)
	if !bytes.Contains(one.body, document) {
		t.Errorf("the canonical text is not in the answer:\n%s\n%s", document, one.body)
	}

	b.do(request{method: get, path: "/v1/public/manifests/" + ids.New[ids.Batch]().String()}).problem(http.StatusNotFound, "not_found")
	b.do(request{method: get, path: "/v1/public/manifests?from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z"}).problem(http.StatusUnprocessableEntity, "invalid")
	b.do(request{method: get, path: "/v1/public/manifests?cursor=x"}).problem(http.StatusUnprocessableEntity, "invalid")
	b.do(request{method: get, path: "/v1/public/manifests?to=2020-01-01T00:00:00Z"}).is(http.StatusOK).decode(&list)
	if len(list.Items) != 0 {
		t.Errorf("before the first: %+v", list)
	}
}

func TestAPayoutsProofIsForItsPayee(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	payee, stranger := b.org("Payee", false), b.org("Stranger", false)
	owner := b.member(payee, identity.Owner)
	m := b.sealed(payee)
	path := "/v1/payouts/" + m.Payouts[0].ID.String() + "/proof"
	var found apiv1.PayoutProof
	b.do(request{method: get, path: path, cookie: owner.cookie}).is(http.StatusOK).decode(&found)
	included := proof.Inclusion{Leaf: found.Leaf, Index: found.Index, Size: found.Size, Path: found.Path, Root: found.Root}
	if err := proof.CheckLeaf(included, m.Payouts[0].ID, found.Memo); err != nil || found.BatchID != m.Batch || len(found.Payout.Records) != 1 || found.Payout.Amount != "1899993" {
		t.Errorf("the proof: %v, %+v", err, found)
	}
	b.do(request{method: get, path: path, cookie: b.member(stranger, identity.Owner).cookie}).problem(http.StatusNotFound, "not_found")
	b.do(request{method: get, path: path}).problem(http.StatusUnauthorized, "unauthenticated")
}
