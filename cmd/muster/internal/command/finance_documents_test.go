package command

import (
	"net/http"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

const testWalletAddress = "DBGdHHKpD5bb16TsqccXdQEQszXYZXGaF5AGYX4xqePk"

var (
	runID      = fixed[ids.PayoutRun](1)
	largeID    = fixed[ids.Batch](3)
	sentID     = fixed[ids.Batch](4)
	frozenID   = fixed[ids.Batch](5)
	resolvedID = fixed[ids.Batch](6)
)

// financeDocuments are the answers about payout runs, withdrawals and suspense.
func financeDocuments() map[string]any {
	const batches = "/v1/finance/batches/"
	suspense := testSuspense()
	run := testRun()
	run.Payees, run.Batches = nil, nil
	return map[string]any{
		"GET /v1/finance/runs": items(run, testScheduledRun()), "POST /v1/finance/runs": testRun(), "GET /v1/finance/runs/" + runID.String(): testRun(),
		"POST /v1/finance/runs/" + runID.String() + "/approve": apiv1.RunApproval{Approved: 1, Waiting: 2},
		"GET " + batches + largeID.String():                    largeBatch(), "POST " + batches + largeID.String() + "/approve": approvedOnce(),
		"GET " + batches + sentID.String(): sentBatch(), "POST " + batches + sentID.String() + "/cancel": cancellingBatch(),
		"GET " + batches + frozenID.String(): frozenBatch(frozenID), "POST " + batches + frozenID.String() + "/resolve": proposedBatch(frozenID),
		"GET " + batches + resolvedID.String(): resolvedBatch(),
		"GET /v1/finance/nonces":               testNonces(),
		"GET /v1/finance/payout-schedule":      apiv1.PayoutSchedule{At: "06:00", StartsOn: "2026-11-01", Threshold: pointer(tokens("5000000000", "5000.000000")), Enabled: true, UpdatedBy: "Fin, finance", UpdatedAt: pointer(ago(24 * time.Hour))},
		"PUT /v1/finance/payout-schedule": apiv1.PayoutSchedule{
			Enabled: true, Weekdays: []int{1, 4}, At: "07:30", StartsOn: "2026-11-22", Threshold: pointer(tokens("5000000000", "5000.000000")),
			NextAt: pointer(time.Date(2026, 11, 23, 7, 30, 0, 0, time.UTC)), UpdatedBy: "Fin, finance", UpdatedAt: &testNow,
		},
		"GET /v1/wallet/withdrawals": items(testWithdrawals()...), "POST /v1/wallet/withdrawals": newWithdrawal(),
		"POST /v1/wallet/withdrawals/" + fixed[ids.Withdrawal](1).String() + "/cancel": cancelledWithdrawal(),
		"GET /v1/finance/suspense": items(suspense...), "GET /v1/finance/sweeps": items(testSweeps()...),
		"POST /v1/finance/suspense/" + fixed[ids.Deposit](3).String() + "/decision": decided(suspense[2], "credited", "Asked-for."),
		"POST /v1/finance/suspense/" + fixed[ids.Deposit](4).String() + "/decision": suspense[1],
		"POST /v1/finance/suspense/" + fixed[ids.Deposit](8).String() + "/decision": suspense[6],
		"POST /v1/finance/suspense/" + fixed[ids.Deposit](5).String() + "/decision": problem(http.StatusUnprocessableEntity, codeInvalid,
			"who sent it is not known: it was issued, came from several wallets, or came before senders were noted"),
	}
}

func testRun() apiv1.PayoutRun {
	return apiv1.PayoutRun{
		ID: runID, Kind: "manual", State: "drafting", Reason: "it waits for free nonces", RequestedBy: "Fin, finance", StartedAt: ago(5 * time.Minute), Rounds: 2,
		BatchCount: 3, PayeeCount: 58, LeftOutCount: 1, Total: tokens("7421500000", "7421.500000"),
		Payees: []apiv1.RunPayee{
			{OrgID: fixed[ids.Org](3), Name: "Fjord Systems", Purpose: "earnings", Amount: tokens("9000000", "9.000000"), Reason: "the token account 4dg4 is frozen by the token's issuer"},
			{OrgID: testOrg, Name: "Northwind Labs", Purpose: "withdrawal", Amount: tokens("25500000", "25.500000"), BatchID: &largeID},
			{OrgID: fixed[ids.Org](2), Name: "Ridge Compute", Purpose: "earnings", Amount: tokens("120000000", "120.000000"), BatchID: &draftID},
		},
		Batches: []apiv1.Batch{testBatch(draftID, "draft"), largeBatch(), sentBatch()},
	}
}

func testScheduledRun() apiv1.PayoutRun {
	return apiv1.PayoutRun{
		ID: fixed[ids.PayoutRun](2), Kind: "scheduled", State: "done", StartedAt: ago(74 * time.Hour), FinishedAt: pointer(ago(74 * time.Hour)), Rounds: 1,
		BatchCount: 1, PayeeCount: 1, Total: tokens("120000000", "120.000000"),
	}
}

// largeBatch is above the limit of one person's approval.
func largeBatch() apiv1.Batch {
	b := testBatch(largeID, "draft")
	b.RunID, b.ApprovalsNeeded, b.Total, b.PayeeCount = &runID, 2, tokens("7301500000", "7301.500000"), 2
	b.Payouts[0].Amount = tokens("7276000000", "7276.000000")
	withdrawn := testPayout("draft")
	withdrawn.ID, withdrawn.Payee, withdrawn.Purpose, withdrawn.Amount = fixed[ids.Payout](2), "Northwind Labs", "withdrawal", tokens("25500000", "25.500000")
	b.Payouts = append(b.Payouts, withdrawn)
	return b
}

func approvedOnce() apiv1.Batch {
	b := largeBatch()
	b.Approvals = []apiv1.BatchApproval{{By: "Olga", At: testNow}}
	return b
}

func sentBatch() apiv1.Batch {
	b := testBatch(sentID, "sent")
	b.RunID, b.ApprovalsNeeded, b.ApprovedBy, b.ApprovedAt, b.SentAt = &runID, 1, "Olga", pointer(ago(time.Hour)), pointer(ago(time.Hour))
	b.Signature, b.NonceAccount, b.NonceValue = testSignature, "9vpsmXhZYMpvhCKiVoX5U8b1iKpfwJaFpPEEXF7hRm9N", "3sCEN3hFJ4bbrwdBMTKVZRmyhUKx4RzLYoxHXJcmvnEV"
	b.Memo = sentID.String() + " 5e3f8a"
	b.Payouts[0].Signature = testSignature
	return b
}

func cancellingBatch() apiv1.Batch {
	b := sentBatch()
	b.State, b.StateReason = batchCancelling, "wrong-month"
	b.Cancellation = &apiv1.BatchCancellation{AskedBy: "Fin, finance", AskedAt: testNow}
	return b
}

func frozenBatch(id ids.Batch) apiv1.Batch {
	b := sentBatch()
	b.ID, b.State, b.StateReason = id, batchFrozen, "the nonce was consumed, but not by this batch"
	return b
}

func proposedBatch(id ids.Batch) apiv1.Batch {
	b := frozenBatch(id)
	b.Resolution = &apiv1.BatchResolution{Outcome: "not_paid", Signature: testSignature, Note: "advanced-by-hand", ProposedBy: "Fin, finance", ProposedAt: testNow}
	return b
}

func resolvedBatch() apiv1.Batch {
	b := proposedBatch(resolvedID)
	b.State, b.StateReason = batchCancelled, "advanced-by-hand"
	b.Resolution.ConfirmedBy, b.Resolution.ConfirmedAt = "Olga", &testNow
	return b
}

func testNonces() apiv1.NoncePool {
	return apiv1.NoncePool{
		Free: 1, Held: 1, Unusable: 1, Warning: "one nonce is free: runs of more batches wait; add nonces to the signer's policy", RentTotal: 4_343_040,
		Nonces: []apiv1.Nonce{
			{Account: "9vpsmXhZYMpvhCKiVoX5U8b1iKpfwJaFpPEEXF7hRm9N", State: "held", BatchID: &sentID, Value: "3sCEN3hFJ4bbrwdBMTKVZRmyhUKx4RzLYoxHXJcmvnEV"},
			{Account: "CktRuQ2mttgRGkXJtyksdKHjUdc2C4TgDzyB98oEzy8", State: "free", Value: "8sLbNZoA1cfnvMJLPfp98ZLAnFSYCFApfJKMbiXNLwxj"},
			{Account: "HpYNwxjFh2FbJUQh8iKs2NBYb7bR2kzzJZT3vcGj5fBx", State: "unusable", Problem: "its authority is another wallet than the treasury"},
		},
	}
}

func testWithdrawals() []apiv1.Withdrawal {
	return []apiv1.Withdrawal{
		{
			ID: fixed[ids.Withdrawal](1), Purpose: "withdrawal", State: "requested", Amount: tokens("25500000", "25.500000"), Address: testWalletAddress,
			RequestedBy: "Ada, ML engineer", RequestedAt: ago(time.Minute), Attention: "its batch paid nothing; it goes out with the next run",
		},
		{
			ID: fixed[ids.Withdrawal](2), Purpose: "refund", State: "paid", Amount: tokens("1000", "0.001000"), Address: "7xKXtg2CW87d97TXJSDpbD5jBkheTqA83TZRuJosgAsU",
			RequestedAt: ago(48 * time.Hour), EndedAt: pointer(ago(26 * time.Hour)), BatchID: &finalID, Signature: testSignature,
		},
	}
}

func newWithdrawal() apiv1.Withdrawal {
	w := testWithdrawals()[0]
	w.Attention = ""
	return w
}

func cancelledWithdrawal() apiv1.Withdrawal {
	w := testWithdrawals()[0]
	w.State, w.Attention, w.EndedAt = "cancelled", "", &testNow
	return w
}

func testSuspense() []apiv1.Deposit {
	const sender = "7xKXtg2CW87d97TXJSDpbD5jBkheTqA83TZRuJosgAsU"
	of := func(n byte, amount, reason string, age time.Duration) apiv1.Deposit {
		return apiv1.Deposit{
			ID: fixed[ids.Deposit](n), At: ago(age), Amount: amount, Mint: testNetwork("").Mint, State: "suspense", Reason: reason, Signature: testSignature,
			Customer: "Northwind Labs", Sender: sender,
		}
	}
	const small = "it is less than the minimum of 0.01 USDC"
	foreign := of(5, "7.000000000", "it is another token than USDC", 30*time.Hour)
	foreign.Mint, foreign.Sender = "So11111111111111111111111111111111111111112", ""
	going, paid := decided(of(4, "0.009000", small, 2*time.Hour), "refunded", "Sent-by-mistake."), decided(of(6, "0.001000", small, 48*time.Hour), "refunded", "The sender asked for it.")
	going.Refund = &apiv1.Refund{ID: fixed[ids.Withdrawal](3), Address: sender, State: "requested"}
	paid.Refund = &apiv1.Refund{ID: fixed[ids.Withdrawal](2), Address: sender, State: "paid", BatchID: &finalID}
	stuck := decided(of(7, "0.002000", small, 49*time.Hour), "refunded", "The sender asked for it.")
	stuck.Refund = &apiv1.Refund{ID: fixed[ids.Withdrawal](4), Address: sender, State: "requested", Attention: "the token account 4dg4 is frozen by the token's issuer"}
	stray := of(8, "12.500000", "it was sent to another token account than the deposit address's own", 72*time.Hour)
	stray.Customer = ""
	return []apiv1.Deposit{of(2, "0.001000", small, time.Minute), going, of(3, "0.005000", small, 3*time.Hour), foreign, paid, stuck, decided(stray, "held", "Asked the sender.")}
}

func decided(d apiv1.Deposit, outcome, note string) apiv1.Deposit {
	d.Outcome, d.Note = outcome, note
	return d
}

func testSweeps() []apiv1.Sweep {
	return []apiv1.Sweep{
		{ID: fixed[ids.Sweep](1), OrgID: testOrg, Customer: "Northwind Labs", Amount: tokens("1000000000", "1000.000000"), State: "signed", Signature: testSignature, PlannedAt: ago(time.Minute), Attention: "the chain does not answer"},
		{ID: fixed[ids.Sweep](2), OrgID: testOrg, Customer: "Northwind Labs", Amount: tokens("5000000", "5.000000"), State: "finalized", Signature: testSignature, PlannedAt: ago(26 * time.Hour), EndedAt: pointer(ago(26 * time.Hour)), FeeLamports: pointer(int64(10_800))},
		{ID: fixed[ids.Sweep](3), OrgID: fixed[ids.Org](2), Customer: "Ridge Compute", Amount: tokens("7000000", "7.000000"), State: "failed", PlannedAt: ago(27 * time.Hour), EndedAt: pointer(ago(27 * time.Hour)), Reason: "the signer refused: more is swept today than the policy allows"},
	}
}
