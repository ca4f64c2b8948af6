package api

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/payouts"
)

// Payouts is what the API needs of payouts; *payouts.Service is one.
type Payouts interface {
	Payable(ctx context.Context) (payouts.Payable, error)
	Draft(ctx context.Context, by ids.User) ([]ids.Batch, error)
	Approve(ctx context.Context, id ids.Batch, by ids.User) error
	Cancel(ctx context.Context, id ids.Batch, by ids.User, reason string) error
	Resolve(ctx context.Context, id ids.Batch, by ids.User, evidence payouts.Evidence) error
	Batch(ctx context.Context, id ids.Batch) (payouts.Batch, error)
	Batches(ctx context.Context, filter payouts.BatchFilter, page payouts.Page[ids.Batch]) ([]payouts.Batch, error)
	OwnerPayouts(ctx context.Context, org ids.Org, page payouts.Page[ids.Payout]) ([]payouts.Payout, error)

	StartRun(ctx context.Context, by ids.User) (ids.PayoutRun, error)
	ApproveRun(ctx context.Context, id ids.PayoutRun, by ids.User) (approved, waiting int, err error)
	PayoutRun(ctx context.Context, id ids.PayoutRun) (payouts.PayoutRun, error)
	RunSummary(ctx context.Context, id ids.PayoutRun) (payouts.PayoutRun, error)
	RunPayees(ctx context.Context, id ids.PayoutRun, filter payouts.RunPayeeFilter) ([]payouts.RunPayee, error)
	PayoutRuns(ctx context.Context, page payouts.Page[ids.PayoutRun]) ([]payouts.PayoutRun, error)
	Schedule(ctx context.Context) (payouts.Schedule, error)
	SetSchedule(ctx context.Context, by ids.User, schedule payouts.Schedule) error
	Nonces(ctx context.Context) (payouts.NoncePool, error)
	FeePayer(ctx context.Context) (payouts.FeePayer, error)
	WhyNotApprove(ctx context.Context, batch *payouts.Batch, by ids.User) (string, error)
	WhyNotApproveRun(ctx context.Context, id ids.PayoutRun, by ids.User) (string, error)
	Minimum() money.Amount

	Withdraw(ctx context.Context, org ids.Org, by ids.User, amount money.Amount, address string) (ids.Withdrawal, error)
	CancelWithdrawal(ctx context.Context, org ids.Org, id ids.Withdrawal) error
	Withdrawal(ctx context.Context, org ids.Org, id ids.Withdrawal) (payouts.Withdrawal, error)
	Withdrawals(ctx context.Context, org ids.Org, page payouts.Page[ids.Withdrawal]) ([]payouts.Withdrawal, error)
}

type (
	batchBody[T any] struct {
		OrgParam
		KeyParam
		ID   ids.Batch `path:"id" json:"id"`
		Body T         `json:"body"`
	}
	runInput struct {
		OrgParam
		ID    ids.PayoutRun `path:"id"`
		Brief bool          `query:"brief" doc:"Without payees and batches, which have lists of their own"`
	}
	runPayeesInput struct {
		OrgParam
		PageParams
		ID    ids.PayoutRun `path:"id"`
		State string        `query:"state" enum:"left_out,drafted,draft,approved,signed,sent,cancelling,finalized,failed,frozen,cancelled" doc:"left_out: in no batch; drafted: in one; else those whose batch is in this state"`
		Query string        `query:"q" maxLength:"100" doc:"Part of a payee's name, or the beginning of a wallet address, token account or signature"`
	}
	runMutation struct {
		OrgParam
		KeyParam
		ID ids.PayoutRun `path:"id" json:"id"`
	}
	withdrawalMutation struct {
		OrgParam
		KeyParam
		ID ids.Withdrawal `path:"id" json:"id"`
	}
)

const (
	clockLayout = "15:04"
	dateLayout  = "2006-01-02"
)

func (s *Server) registerPayouts() {
	missing := []int{notFound}
	down := []int{notFound, http.StatusServiceUnavailable}
	register(s, endpoint{id: "list-payout-runs", method: get, path: "/v1/finance/runs", tag: tagFinance, summary: "List payout runs"}, s.listRuns)
	register(s, endpoint{
		id: "start-payout-run", method: post, path: "/v1/finance/runs", tag: tagFinance, summary: "Draft batches of everything that is payable",
		doc:    "Nothing is paid before it is approved. Where there are more batches than free nonces, the run goes on as they come free.",
		status: created, codes: []int{http.StatusServiceUnavailable},
	}, s.startRun)
	register(s, endpoint{
		id: "get-payout-run", method: get, path: "/v1/finance/runs/{id}", tag: tagFinance,
		summary: "Read a run with what became of each payee", codes: missing,
	}, s.getRun)
	register(s, endpoint{
		id: "list-run-payees", method: get, path: "/v1/finance/runs/{id}/payees", tag: tagFinance, summary: "List a run's payees, the largest amounts first",
	}, s.listRunPayees)
	register(s, endpoint{
		id: "approve-payout-run", method: post, path: "/v1/finance/runs/{id}/approve", tag: tagFinance,
		summary: "Approve all drafts that a run has made so far", codes: missing,
	}, s.approveRun)
	register(s, endpoint{
		id: "get-payout-schedule", method: get, path: "/v1/finance/payout-schedule", tag: tagFinance, summary: "When runs begin by themselves",
	}, s.getSchedule)
	register(s, endpoint{
		id: "set-payout-schedule", method: put, path: "/v1/finance/payout-schedule", tag: tagFinance, summary: "Change when runs begin by themselves",
	}, s.setSchedule)
	register(s, endpoint{
		id: "cancel-batch", method: post, path: "/v1/finance/batches/{id}/cancel", tag: tagFinance, summary: "Drop a batch",
		doc: "A draft at once. One that was signed or sent is cancelling until its nonce is consumed: by the cancellation, and the money is " +
			"payable again, or by its own transaction, and it is paid. Of a frozen one the nonce is consumed, so that it can be resolved.",
		codes: missing,
	}, s.cancelBatch)
	register(s, endpoint{
		id: "resolve-batch", method: post, path: "/v1/finance/batches/{id}/resolve", tag: tagFinance, summary: "Say how a frozen batch ended",
		doc:   "The transaction that shows it is read from the chain and checked. One person proposes, another sends the same to confirm.",
		codes: down,
	}, s.resolveBatch)
	register(s, endpoint{
		id: "list-nonces", method: get, path: "/v1/finance/nonces", tag: tagFinance, summary: "The signer's durable nonces and what holds them",
	}, s.getNonces)

	register(s, endpoint{
		id: "list-withdrawals", method: get, path: "/v1/wallet/withdrawals", tag: tagWallet, summary: "List withdrawals",
	}, s.listWithdrawals)
	register(s, endpoint{
		id: "create-withdrawal", method: post, path: "/v1/wallet/withdrawals", tag: tagWallet, summary: "Have prepaid balance sent back",
		doc: "To the organisation's payout address, with the next payout run. The amount leaves the balance at once.", status: created,
		codes: []int{http.StatusPaymentRequired, http.StatusServiceUnavailable},
	}, s.createWithdrawal)
	register(s, endpoint{
		id: "cancel-withdrawal", method: post, path: "/v1/wallet/withdrawals/{id}/cancel", tag: tagWallet,
		summary: "Give up a withdrawal that no batch has yet", codes: missing,
	}, s.cancelWithdrawal)
}

func (s *Server) listRuns(ctx context.Context, in *orgListInput) (*output[apiv1.List[apiv1.PayoutRun]], error) {
	from, err := readCursor(ids.PayoutRun{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	runs, err := s.Payouts.PayoutRuns(ctx, payouts.Page[ids.PayoutRun]{Before: from, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	people := make([]ids.User, len(runs))
	for i, run := range runs {
		people[i] = run.RequestedBy
	}
	names, err := s.Identity.Names(ctx, people)
	if err != nil {
		return nil, err
	}
	return page(runs, in.Limit, func(r payouts.PayoutRun) ids.PayoutRun { return r.ID }, func(r payouts.PayoutRun) apiv1.PayoutRun {
		return s.wireRun(r, names)
	}), nil
}

func (s *Server) startRun(ctx context.Context, _ *orgMutation) (*output[apiv1.PayoutRun], error) {
	id, err := s.Payouts.StartRun(ctx, callerOf(ctx).User)
	if err != nil {
		return nil, err
	}
	return s.run(ctx, id)
}

func (s *Server) getRun(ctx context.Context, in *runInput) (*output[apiv1.PayoutRun], error) {
	if !in.Brief {
		return s.run(ctx, in.ID)
	}
	run, err := s.Payouts.RunSummary(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return s.wireRunFor(ctx, run)
}

func (s *Server) listRunPayees(ctx context.Context, in *runPayeesInput) (*output[apiv1.List[apiv1.RunPayee]], error) {
	after, err := readRunPlace(in.Cursor)
	if err != nil {
		return nil, err
	}
	payees, err := s.Payouts.RunPayees(ctx, in.ID, payouts.RunPayeeFilter{State: in.State, Text: strings.TrimSpace(in.Query), After: after, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	out := whole(payees, s.wireRunPayee)
	if len(payees) == in.Limit {
		out.Body.NextCursor = cursorOfRunPlace(payees[len(payees)-1].Place())
	}
	return out, nil
}

func cursorOfRunPlace(p payouts.RunPlace) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %x %s", p.Amount, p.ID, p.Purpose))
}

// readRunPlace reads a cursor; the empty one is the beginning.
func readRunPlace(cursor string) (p payouts.RunPlace, err error) {
	if cursor == "" {
		return p, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	var id []byte
	if err == nil {
		_, err = fmt.Sscanf(string(text), "%d %x %s", &p.Amount, &id, &p.Purpose)
	}
	if err != nil || p.Amount <= 0 || copy(p.ID[:], id) != len(p.ID) {
		return p, errs.InvalidField("query.cursor", "this is not a cursor of this list: give next_cursor of the page before")
	}
	return p, nil
}

func (s *Server) run(ctx context.Context, id ids.PayoutRun) (*output[apiv1.PayoutRun], error) {
	run, err := s.Payouts.PayoutRun(ctx, id)
	if err != nil {
		return nil, err
	}
	batches, err := s.Payouts.Batches(ctx, payouts.BatchFilter{Run: id}, payouts.Page[ids.Batch]{})
	if err != nil {
		return nil, err
	}
	wireBatch, err := s.batchWriter(ctx, batches...)
	if err != nil {
		return nil, err
	}
	out, err := s.wireRunFor(ctx, run)
	if err != nil {
		return nil, err
	}
	out.Body.Batches = convert(batches, wireBatch)
	return out, nil
}

// wireRunFor is a run as its caller may act on it.
func (s *Server) wireRunFor(ctx context.Context, run payouts.PayoutRun) (*output[apiv1.PayoutRun], error) {
	names, err := s.Identity.Names(ctx, []ids.User{run.RequestedBy})
	if err != nil {
		return nil, err
	}
	wire := s.wireRun(run, names)
	if slices.ContainsFunc(run.Progress, func(p payouts.RunProgress) bool { return p.State == stateDraft }) {
		if wire.ApproveObstacle, err = s.Payouts.WhyNotApproveRun(ctx, run.ID, callerOf(ctx).User); err != nil {
			return nil, err
		}
	}
	return answer(wire), nil
}

func (s *Server) approveRun(ctx context.Context, in *runMutation) (*output[apiv1.RunApproval], error) {
	approved, waiting, err := s.Payouts.ApproveRun(ctx, in.ID, callerOf(ctx).User)
	if err != nil {
		return nil, err
	}
	return answer(apiv1.RunApproval{Approved: approved, Waiting: waiting}), nil
}

func (s *Server) getSchedule(ctx context.Context, _ *orgInput) (*output[apiv1.PayoutSchedule], error) {
	return s.schedule(ctx)
}

func (s *Server) schedule(ctx context.Context) (*output[apiv1.PayoutSchedule], error) {
	schedule, err := s.Payouts.Schedule(ctx)
	if err != nil {
		return nil, err
	}
	names, err := s.Identity.Names(ctx, []ids.User{schedule.UpdatedBy})
	if err != nil {
		return nil, err
	}
	wire := apiv1.PayoutSchedule{
		Enabled: schedule.Enabled, EveryDays: schedule.EveryDays, StartsOn: schedule.StartsOn.Format(dateLayout), NextAt: schedule.NextAt,
		At: fmt.Sprintf("%02d:%02d", int(schedule.At.Hours()), int(schedule.At.Minutes())%60), Threshold: s.moneyIf(schedule.Threshold),
		UpdatedBy: names[schedule.UpdatedBy], UpdatedAt: schedule.UpdatedAt,
	}
	for _, day := range schedule.Weekdays {
		wire.Weekdays = append(wire.Weekdays, int(day))
	}
	return answer(wire), nil
}

func (s *Server) setSchedule(ctx context.Context, in *orgBody[apiv1.PayoutScheduleSet]) (*output[apiv1.PayoutSchedule], error) {
	at, err := time.Parse(clockLayout, in.Body.At)
	if err != nil {
		return nil, errs.InvalidField("body.at", "write the time of day as HH:MM, in UTC")
	}
	schedule := payouts.Schedule{
		Enabled: in.Body.Enabled, EveryDays: in.Body.EveryDays, At: time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute,
	}
	if in.Body.StartsOn != "" {
		if schedule.StartsOn, err = time.Parse(dateLayout, in.Body.StartsOn); err != nil {
			return nil, errs.InvalidField("body.starts_on", "write the date as YYYY-MM-DD")
		}
	}
	if in.Body.Threshold != "" {
		if schedule.Threshold, err = s.amount("body.threshold", in.Body.Threshold); err != nil {
			return nil, err
		}
	}
	for _, day := range in.Body.Weekdays {
		schedule.Weekdays = append(schedule.Weekdays, time.Weekday(day))
	}
	if err := s.Payouts.SetSchedule(ctx, callerOf(ctx).User, schedule); err != nil {
		return nil, err
	}
	return s.schedule(ctx)
}

func (s *Server) cancelBatch(ctx context.Context, in *batchBody[apiv1.BatchCancel]) (*output[apiv1.Batch], error) {
	if err := s.Payouts.Cancel(ctx, in.ID, callerOf(ctx).User, in.Body.Reason); err != nil {
		return nil, err
	}
	return s.batch(ctx, in.ID)
}

func (s *Server) resolveBatch(ctx context.Context, in *batchBody[apiv1.BatchResolve]) (*output[apiv1.Batch], error) {
	evidence := payouts.Evidence{Paid: in.Body.Outcome == payouts.OutcomePaid, Signature: in.Body.Signature, Note: in.Body.Note}
	if err := s.Payouts.Resolve(ctx, in.ID, callerOf(ctx).User, evidence); err != nil {
		return nil, err
	}
	return s.batch(ctx, in.ID)
}

func (s *Server) getNonces(ctx context.Context, _ *orgInput) (*output[apiv1.NoncePool], error) {
	pool, err := s.Payouts.Nonces(ctx)
	if err != nil {
		return nil, err
	}
	payer, err := s.Payouts.FeePayer(ctx)
	if err != nil {
		return nil, err
	}
	return answer(apiv1.NoncePool{
		FeePayer: apiv1.FeePayer{
			Address: payer.Address, Lamports: payer.Lamports, Days: payer.Days, FeeLamports: payer.Fees, RentLamports: payer.Rent,
			Warning: payer.Warning,
		},
		Free: pool.Free, Held: pool.Held, Unusable: pool.Unusable, Warning: pool.Warning, RentTotal: pool.Rent,
		Nonces: convert(pool.Nonces, func(n payouts.Nonce) apiv1.Nonce {
			return apiv1.Nonce{
				Account: n.Account, State: n.State, BatchID: optional(n.Batch), Value: n.Value, Problem: n.Problem, CheckedAt: n.CheckedAt,
			}
		}),
	}), nil
}

func (s *Server) listWithdrawals(ctx context.Context, in *orgListInput) (*output[apiv1.List[apiv1.Withdrawal]], error) {
	from, err := readCursor(ids.Withdrawal{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	rows, err := s.Payouts.Withdrawals(ctx, callerOf(ctx).org.Org, payouts.Page[ids.Withdrawal]{Before: from, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	names, err := s.withdrawalNames(ctx, rows...)
	if err != nil {
		return nil, err
	}
	return page(rows, in.Limit, func(w payouts.Withdrawal) ids.Withdrawal { return w.ID }, func(w payouts.Withdrawal) apiv1.Withdrawal {
		return s.wireWithdrawal(w, names)
	}), nil
}

func (s *Server) createWithdrawal(ctx context.Context, in *orgBody[apiv1.WithdrawalCreate]) (*output[apiv1.Withdrawal], error) {
	amount, err := s.amount("body.amount", in.Body.Amount)
	if err != nil {
		return nil, err
	}
	caller := callerOf(ctx)
	id, err := s.Payouts.Withdraw(ctx, caller.org.Org, caller.User, amount, in.Body.Address)
	if err != nil {
		return nil, err
	}
	return s.withdrawal(ctx, id)
}

func (s *Server) cancelWithdrawal(ctx context.Context, in *withdrawalMutation) (*output[apiv1.Withdrawal], error) {
	if err := s.Payouts.CancelWithdrawal(ctx, callerOf(ctx).org.Org, in.ID); err != nil {
		return nil, err
	}
	return s.withdrawal(ctx, in.ID)
}

func (s *Server) withdrawal(ctx context.Context, id ids.Withdrawal) (*output[apiv1.Withdrawal], error) {
	w, err := s.Payouts.Withdrawal(ctx, callerOf(ctx).org.Org, id)
	if err != nil {
		return nil, err
	}
	names, err := s.withdrawalNames(ctx, w)
	if err != nil {
		return nil, err
	}
	return answer(s.wireWithdrawal(w, names)), nil
}

func (s *Server) withdrawalNames(ctx context.Context, rows ...payouts.Withdrawal) (map[ids.User]string, error) {
	people := make([]ids.User, len(rows))
	for i, w := range rows {
		people[i] = w.RequestedBy
	}
	return s.Identity.Names(ctx, people)
}

func (s *Server) wireWithdrawal(w payouts.Withdrawal, names map[ids.User]string) apiv1.Withdrawal {
	return apiv1.Withdrawal{
		ID: w.ID, Purpose: w.Purpose, State: w.State, Attention: w.Attention, Amount: s.money(w.Amount), Address: w.Wallet,
		RequestedBy: names[w.RequestedBy], RequestedAt: w.RequestedAt, EndedAt: w.EndedAt, BatchID: optional(w.Batch), Signature: w.Signature,
	}
}

func (s *Server) wireRun(r payouts.PayoutRun, names map[ids.User]string) apiv1.PayoutRun {
	return apiv1.PayoutRun{
		ID: r.ID, Kind: r.Kind, State: r.State, Reason: r.Reason, ScheduledFor: r.ScheduledFor, RequestedBy: names[r.RequestedBy],
		StartedAt: r.StartedAt, FinishedAt: r.FinishedAt, Rounds: r.Rounds, BatchCount: r.BatchCount, PayeeCount: r.PayeeCount,
		LeftOutCount: r.LeftOutCount, Total: s.money(r.Total), Payees: convert(r.Payees, s.wireRunPayee),
		Progress: convert(r.Progress, func(p payouts.RunProgress) apiv1.RunProgress {
			return apiv1.RunProgress{
				State: p.State, BatchCount: p.Batches, PayeeCount: p.Payees, Total: s.money(p.Total), FeeLamports: p.FeeLamports, RentLamports: p.RentLamports,
			}
		}),
	}
}

func (s *Server) wireRunPayee(p payouts.RunPayee) apiv1.RunPayee {
	return apiv1.RunPayee{
		OrgID: p.Org, Name: p.Name, Purpose: p.Purpose, Amount: s.money(p.Amount), BatchID: optional(p.Batch), Reason: p.Reason, State: p.State,
		Address: p.Wallet, TokenAccount: p.TokenAccount, Signature: p.Signature,
	}
}
