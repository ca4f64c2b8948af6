package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/muster-gpu/muster/api/identity"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

func TestADraftTellsWhoMadeItThatTheyCannotApprove(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	platform := b.org("Platform", true)
	maker, checker := b.member(platform, identity.Finance), b.member(platform, identity.Finance)
	const account = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
	run, batch := ids.New[ids.PayoutRun](), ids.New[ids.Batch]()
	b.exec(`INSERT INTO payout_runs (id, kind, requested_by, due_at) VALUES ($1, 'manual', $2, now())`, run, maker.me.UserID)
	b.exec(`INSERT INTO payout_batches (id, mint, total, payee_count, nonce_account, nonce_value, drafted_by, run_id) VALUES ($1, $2, 2000000, 1, $2, $2, $3, $4)`,
		batch, account, maker.me.UserID, run)
	for person, want := range map[*person]string{maker: "somebody else must approve it", checker: ""} {
		var draft apiv1.Batch
		b.do(request{method: get, path: "/v1/finance/batches/" + batch.String(), cookie: person.cookie}).is(http.StatusOK).decode(&draft)
		var of apiv1.PayoutRun
		b.do(request{method: get, path: "/v1/finance/runs/" + run.String(), cookie: person.cookie}).is(http.StatusOK).decode(&of)
		for _, told := range []string{draft.ApproveObstacle, of.ApproveObstacle} {
			if !strings.HasSuffix(told, want) || (want == "") != (told == "") {
				t.Errorf("told %q, want %q", told, want)
			}
		}
		if len(of.Progress) != 1 || of.Progress[0].State != stateDraft || of.Progress[0].PayeeCount != 1 || of.Progress[0].Total.BaseUnits != "2000000" {
			t.Errorf("progress: %+v", of.Progress)
		}
	}
}
