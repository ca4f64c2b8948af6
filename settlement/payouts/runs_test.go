package payouts

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
)

func TestARunGoesOnAsNoncesComeFree(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	nonces := len(b.local.Nonces)
	owners := b.owners(t, (nonces+1)*MaxNewAccounts, false) // one batch more than there are nonces
	id, err := s.StartRun(t.Context(), b.drafter)
	check(t, err)
	first, err := s.PayoutRun(t.Context(), id)
	check(t, err)
	if first.State != runDrafting || first.BatchCount != nonces || first.Reason == "" {
		t.Fatalf("after the first round: %+v", first)
	}
	if _, err := s.StartRun(t.Context(), b.drafter); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a second run was begun: %v", err)
	}
	run(t, s, term)
	eventually(t, func() bool {
		_, _, err := s.ApproveRun(t.Context(), id, b.approver)
		if err != nil && errs.CodeOf(err) != errs.Conflict {
			t.Fatal(err)
		}
		now, err := s.PayoutRun(t.Context(), id)
		check(t, err)
		return now.State == runDone && b.allFinal(t, s, id)
	}, func() string { return "the run does not come to its end" })
	done, err := s.PayoutRun(t.Context(), id)
	check(t, err)
	if done.BatchCount != nonces+1 || done.PayeeCount != len(owners) || done.Total != money.Amount(len(owners)*token) || done.Rounds < 2 {
		t.Errorf("the run: %d batches, %d payees, %d base units, %d rounds", done.BatchCount, done.PayeeCount, done.Total, done.Rounds)
	}
	b.wantPaidOnce(t, owners...)
}

func (b *bench) allFinal(t *testing.T, s *Service, run ids.PayoutRun) bool {
	t.Helper()
	batches, err := s.Batches(t.Context(), BatchFilter{Run: run}, Page[ids.Batch]{})
	check(t, err)
	return !slices.ContainsFunc(batches, func(b Batch) bool { return b.State != stateFinalized })
}

// TestARunsPayeesArePagedAndFound: pages of one have each payee once, the largest amount first, and a filter finds what it names.
func TestARunsPayeesArePagedAndFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	owners := b.owners(t, 4, true)
	exec(t, b.pool, `UPDATE organisations SET payout_address = 'nonsense' WHERE id = $1`, owners[3].id)
	exec(t, b.pool, `UPDATE organisations SET name = 'Findable & Sons' WHERE id = $1`, owners[1].id)
	id, err := s.StartRun(t.Context(), b.drafter)
	check(t, err)
	var all []RunPayee
	for place := (RunPlace{}); ; place = all[len(all)-1].Place() {
		page, err := s.RunPayees(t.Context(), id, RunPayeeFilter{After: place, Limit: 1})
		check(t, err)
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
	}
	seen := map[ids.Org]bool{}
	for i, p := range all {
		seen[p.Org] = true
		if i > 0 && p.Amount > all[i-1].Amount {
			t.Errorf("%d comes after %d", p.Amount, all[i-1].Amount)
		}
	}
	if len(all) != len(owners) || len(seen) != len(owners) {
		t.Fatalf("pages of one have %d payees, %d organisations, want %d", len(all), len(seen), len(owners))
	}
	wallet := all[slices.IndexFunc(all, func(p RunPayee) bool { return p.Org == owners[2].id })].Wallet
	for name, c := range map[string]struct {
		filter RunPayeeFilter
		want   []ids.Org
	}{
		"left out":                {RunPayeeFilter{State: PayeesLeftOut}, []ids.Org{owners[3].id}},
		"of drafts, by name":      {RunPayeeFilter{State: stateDraft, Text: "findable &"}, []ids.Org{owners[1].id}},
		"in a batch, by address":  {RunPayeeFilter{State: PayeesDrafted, Text: wallet[:12]}, []ids.Org{owners[2].id}},
		"in a state that is none": {RunPayeeFilter{State: stateFinalized}, nil},
		"no pattern":              {RunPayeeFilter{Text: "%"}, nil},
	} {
		found, err := s.RunPayees(t.Context(), id, c.filter)
		check(t, err)
		var got []ids.Org
		for _, p := range found {
			got = append(got, p.Org)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: found %v, want %v", name, got, c.want)
		}
	}
	drafts, err := s.Batches(t.Context(), BatchFilter{Run: id, State: stateDraft}, Page[ids.Batch]{})
	check(t, err)
	none, err := s.Batches(t.Context(), BatchFilter{Run: id, State: stateFinalized}, Page[ids.Batch]{})
	check(t, err)
	if len(drafts) != 1 || len(none) != 0 {
		t.Errorf("the run has %d drafts and %d final batches", len(drafts), len(none))
	}
}

func TestARunSaysWhatBecameOfEachPayee(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	owners := b.owners(t, 2, true)
	exec(t, b.pool, `UPDATE organisations SET payout_address = 'nonsense' WHERE id = $1`, owners[1].id)
	id, err := s.StartRun(t.Context(), b.drafter)
	check(t, err)
	got, err := s.PayoutRun(t.Context(), id)
	check(t, err)
	if got.State != runDone || got.PayeeCount != 1 || got.LeftOutCount != 1 || len(got.Payees) != 2 || got.RequestedBy != b.drafter {
		t.Fatalf("run: %+v", got)
	}
	if left := got.Payees[0]; left.Org != owners[1].id || !strings.Contains(left.Reason, "not a Solana address") || !left.Batch.IsZero() {
		t.Errorf("left out: %+v", left)
	}
	if paid := got.Payees[1]; paid.Org != owners[0].id || paid.Batch.IsZero() || paid.Amount != token {
		t.Errorf("drafted: %+v", paid)
	}
	list, err := s.PayoutRuns(t.Context(), Page[ids.PayoutRun]{})
	check(t, err)
	if len(list) != 1 || list[0].ID != id {
		t.Errorf("runs: %+v", list)
	}
}

func TestTheScheduleBeginsARunOnce(t *testing.T) {
	t.Parallel()
	for name, schedule := range map[string]Schedule{
		"by the clock":   {Enabled: true, EveryDays: 1},
		"by a threshold": {Enabled: true, Threshold: 2 * token},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			s := b.service(b.pool, b.cluster)
			b.owners(t, 2, true)
			check(t, s.SetSchedule(t.Context(), b.drafter, schedule))
			if schedule.EveryDays > 0 { // as if it had been set yesterday: today's run is due
				exec(t, b.pool, `UPDATE payout_schedule SET updated_at = now() - interval '1 day', starts_on = starts_on - 1`)
			}
			run(t, s, term)
			var runs []PayoutRun
			eventually(t, func() bool {
				var err error
				runs, err = s.PayoutRuns(t.Context(), Page[ids.PayoutRun]{})
				check(t, err)
				return len(runs) > 0 && runs[0].State == runDone
			}, func() string { return "no run was begun" })
			check(t, s.driveRuns(t.Context()))
			runs, err := s.PayoutRuns(t.Context(), Page[ids.PayoutRun]{})
			check(t, err)
			if len(runs) != 1 || runs[0].PayeeCount != 2 || !runs[0].RequestedBy.IsZero() {
				t.Errorf("runs: %+v", runs)
			}
		})
	}
}

func TestTheScheduleSaysWhenItFalls(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC) // a Monday
	at := func(day, hour int) time.Time { return time.Date(2026, 11, day, hour, 0, 0, 0, time.UTC) }
	for name, test := range map[string]struct {
		schedule   Schedule
		now        time.Time
		last, next time.Time
	}{
		"every three days":      {Schedule{EveryDays: 3, At: 6 * time.Hour, StartsOn: start}, at(6, 12), at(5, 6), at(8, 6)},
		"at the very minute":    {Schedule{EveryDays: 3, At: 6 * time.Hour, StartsOn: start}, at(5, 6), at(5, 6), at(8, 6)},
		"before it begins":      {Schedule{EveryDays: 1, At: 6 * time.Hour, StartsOn: start}, at(1, 12), time.Time{}, at(2, 6)},
		"Mondays and Thursdays": {Schedule{Weekdays: []time.Weekday{time.Monday, time.Thursday}, StartsOn: start}, at(6, 12), at(5, 0), at(9, 0)},
	} {
		if got := test.schedule.last(test.now); !got.Equal(test.last) {
			t.Errorf("%s: last %s, want %s", name, got, test.last)
		}
		if got := test.schedule.next(test.now); got == nil || !got.Equal(test.next) {
			t.Errorf("%s: next %s, want %s", name, got, test.next)
		}
	}
	if (Schedule{StartsOn: start}).next(start) != nil {
		t.Error("a schedule without days has a next run")
	}
}

func TestNoTimeOfAScheduleIsBetweenLastAndNext(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		schedule := Schedule{
			EveryDays: rapid.IntRange(1, 40).Draw(t, "days"), At: time.Duration(rapid.IntRange(0, 1439).Draw(t, "minute")) * time.Minute, StartsOn: start,
		}
		now := start.Add(time.Duration(rapid.IntRange(0, 60*24*365).Draw(t, "now")) * time.Minute)
		last, next := schedule.last(now), schedule.next(now)
		if next == nil || !next.After(now) || last.After(now) {
			t.Fatalf("now %s: last %s, next %s", now, last, next)
		}
		if !last.IsZero() && next.Sub(last) != time.Duration(schedule.EveryDays)*day {
			t.Fatalf("from %s to %s is not %d days", last, next, schedule.EveryDays)
		}
	})
}

func TestAScheduleThatMakesNoSenseIsRefused(t *testing.T) {
	t.Parallel()
	for name, schedule := range map[string]Schedule{
		"nothing":            {Enabled: true},
		"both":               {Enabled: true, EveryDays: 1, Weekdays: []time.Weekday{time.Monday}},
		"no such weekday":    {Enabled: true, Weekdays: []time.Weekday{7}},
		"an eternity":        {Enabled: true, EveryDays: 367},
		"no time of the day": {Enabled: true, EveryDays: 1, At: day},
	} {
		if err := schedule.validate(); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestALargeBatchNeedsTwoApprovers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	second := ids.New[ids.User]()
	exec(t, b.pool, `INSERT INTO users (id, wallet_address) VALUES ($1, 'second')`, second)
	s := New(b.pool, b.ledger, b.cluster, b.keys, Options{DualAbove: token, Log: b.log})
	b.owners(t, 2, true)
	batches, err := s.Draft(t.Context(), b.drafter)
	check(t, err)
	if err := s.Approve(t.Context(), batches[0], b.drafter); errs.CodeOf(err) != errs.Forbidden {
		t.Errorf("the drafter approved: %v", err)
	}
	b.wantObstacle(t, s, batches[0], b.drafter, "you drafted")
	b.wantObstacle(t, s, batches[0], b.approver, "")
	check(t, s.Approve(t.Context(), batches[0], b.approver))
	b.wantObstacle(t, s, batches[0], b.approver, "you have approved")
	b.wantObstacle(t, s, batches[0], second, "")
	if batch := b.state(t, s, batches[0]); batch.State != stateDraft || len(batch.Approvals) != 1 || batch.ApprovalsNeeded != 2 {
		t.Fatalf("after the first approval: %+v", batch)
	}
	if err := s.Approve(t.Context(), batches[0], b.approver); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("one person approved twice: %v", err)
	}
	if batch := b.state(t, s, batches[0]); batch.State != stateDraft {
		t.Fatalf("a replayed approval counted: %s", batch.State)
	}
	check(t, s.Approve(t.Context(), batches[0], second))
	if batch := b.state(t, s, batches[0]); batch.State != stateApproved || len(batch.Approvals) != 2 || batch.ApprovedBy != second {
		t.Errorf("after the second approval: %+v", batch)
	}
}

// wantObstacle compares what a person is told before they try to approve; nothing is wanted where they can.
func (b *bench) wantObstacle(t *testing.T, s *Service, id ids.Batch, by ids.User, want string) {
	t.Helper()
	batch := b.state(t, s, id)
	why, err := s.WhyNotApprove(t.Context(), &batch, by)
	if err != nil || !strings.Contains(why, want) || (want == "") != (why == "") {
		t.Errorf("told %q, want %q: %v", why, want, err)
	}
}

func (b *bench) state(t *testing.T, s *Service, id ids.Batch) Batch {
	t.Helper()
	batch, err := s.Batch(t.Context(), id)
	check(t, err)
	return batch
}

func TestARunIsApprovedBySomebodyElseAndWaitsWhereTwoAreNeeded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := New(b.pool, b.ledger, b.cluster, b.keys, Options{DualAbove: 2 * token, Log: b.log})
	b.owners(t, 2, true)
	rich := newOwner(t)
	b.earns(t, b.pool, rich, 3*token)
	id, err := s.StartRun(t.Context(), b.drafter)
	check(t, err)
	if _, _, err := s.ApproveRun(t.Context(), id, b.drafter); errs.CodeOf(err) != errs.Forbidden {
		t.Errorf("who began the run approved it: %v", err)
	}
	for by, want := range map[ids.User]string{b.drafter: "you started", b.approver: ""} {
		if why, err := s.WhyNotApproveRun(t.Context(), id, by); err != nil || !strings.Contains(why, want) || (want == "") != (why == "") {
			t.Errorf("told %q, want %q: %v", why, want, err)
		}
	}
	approved, waiting, err := s.ApproveRun(t.Context(), id, b.approver)
	if err != nil || approved != 0 || waiting != 1 { // all fit one batch of 5 tokens
		t.Errorf("approved %d, waiting %d: %v", approved, waiting, err)
	}
	if why, err := s.WhyNotApproveRun(t.Context(), id, b.approver); err != nil || !strings.Contains(why, "you have approved") {
		t.Errorf("who approved is told %q: %v", why, err)
	}
	got, err := s.PayoutRun(t.Context(), id)
	check(t, err)
	if want := (RunProgress{State: stateDraft, Batches: 1, Payees: 3, Total: 5 * token}); len(got.Progress) != 1 || got.Progress[0] != want {
		t.Errorf("progress: %+v", got.Progress)
	}
	if _, _, err := s.ApproveRun(t.Context(), ids.New[ids.PayoutRun](), b.approver); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a run that there is not: %v", err)
	}
}

// refusing is a manifest that cannot be sealed.
type refusing struct{}

func (refusing) Seal(context.Context, pgx.Tx, ids.Batch) (string, error) {
	return "", errors.New("the records do not come to the amount")
}

func TestADraftWhoseManifestCannotBeSealedLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 1, true)
	s := New(b.pool, b.ledger, b.cluster, b.keys, Options{Manifests: refusing{}, Log: b.log})
	if _, err := s.Draft(t.Context(), b.drafter); err == nil {
		t.Fatal("drafted without a manifest")
	}
	list, err := s.Batches(t.Context(), BatchFilter{}, Page[ids.Batch]{})
	check(t, err)
	if due := b.books(t, b.pool, ledger.OwnerPayable, owners[0].id); len(list) != 0 || due != token {
		t.Errorf("%d batches, %d due", len(list), due)
	}
	sound := b.service(b.pool, b.cluster) // and it can be drafted again
	if batches, err := sound.Draft(t.Context(), b.drafter); err != nil || len(batches) != 1 {
		t.Errorf("afterwards: %v, %v", batches, err)
	}
}

// sealing gives every batch the same root.
type sealing struct{}

const someRoot = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"

func (sealing) Seal(_ context.Context, _ pgx.Tx, batch ids.Batch) (string, error) {
	return batch.String() + " " + someRoot, nil
}

func TestTheManifestsRootIsOnTheChain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 1, true)
	s := New(b.pool, b.ledger, b.cluster, b.keys, Options{Manifests: sealing{}, Poll: 20 * time.Millisecond, Log: b.log})
	batches := b.approved(t, s)
	run(t, s, term)
	batch := reach(t, s, batches[0], stateFinalized)
	landed, err := b.cluster.Transaction(t.Context(), mustSignature(t, batch.Signature))
	check(t, err)
	if want := batches[0].String() + " " + someRoot; landed.Memo != want || batch.Memo != want {
		t.Errorf("on chain %q, stored %q, want %q", landed.Memo, batch.Memo, want)
	}
	b.wantPaidOnce(t, owners...)
}

func TestEarningsAboveTheSignersCapArePaidOverSeveralRuns(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.stopSigner()
	policy := b.local.Policy()
	policy.MaxBaseUnitsPerBatch, policy.MaxBaseUnitsPerDay = 2*token, 100*token
	check(t, policy.WriteFile(b.files.PolicyFile))
	b.startSigner(t)
	rich := newOwner(t)
	b.earns(t, b.pool, rich, 5*token)
	s := b.service(b.pool, b.cluster)
	run(t, s, term)
	for _, want := range []money.Amount{2 * token, 2 * token, token} {
		batches := b.approved(t, s)
		if batch := reach(t, s, batches[0], stateFinalized); batch.Total != want {
			t.Fatalf("paid %d, want %d", batch.Total, want)
		}
	}
	if held := b.holds(t, rich.address()); held != 5*token {
		t.Errorf("the owner holds %d", held)
	}
}

func TestTwoOrganisationsWithOneWalletArePaidInDifferentTransactions(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	one := b.owners(t, 1, true)[0]
	other := owner{id: ids.New[ids.Org](), wallet: one.wallet}
	b.earns(t, b.pool, other, token)
	s := b.service(b.pool, b.cluster)
	batches := b.approved(t, s)
	if len(batches) != 2 {
		t.Fatalf("%d batches, want 2", len(batches))
	}
	run(t, s, term)
	for _, id := range batches {
		reach(t, s, id, stateFinalized)
	}
	if held := b.holds(t, one.address()); held != 2*token {
		t.Errorf("the wallet holds %d", held)
	}
}

func TestAClosedTokenAccountIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	owners := b.owners(t, 1, false)
	s := b.service(b.pool, b.cluster)
	run(t, s, term)
	batches := b.approved(t, s)
	batch := reach(t, s, batches[0], stateFinalized)
	if batch.RentLamports == nil || *batch.RentLamports == 0 {
		t.Errorf("the rent of the new account is not recorded: %v", batch.RentLamports)
	}
	b.earns(t, b.pool, owners[0], token)
	check(t, b.local.Leave(t.Context(), owners[0].wallet, newOwner(t).address(), token))
	if again, err := s.Draft(t.Context(), b.drafter); err != nil || len(again) != 0 {
		t.Fatalf("drafted %v, %v", again, err)
	}
	left, err := s.Payable(t.Context())
	check(t, err)
	if len(left.LeftOut) != 1 || !strings.Contains(left.LeftOut[0].Reason, "was closed") {
		t.Errorf("left out: %+v", left.LeftOut)
	}
}

func TestATokenThatChangedIsNotPaidIn(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(mint *chain.Account) *chain.Account{
		"decimals":   func(m *chain.Account) *chain.Account { m.Data[mintDecimalsAt]++; return m },
		"extensions": func(m *chain.Account) *chain.Account { m.Data = append(m.Data, make([]byte, 100)...); return m },
		"gone":       func(*chain.Account) *chain.Account { return nil },
		"program":    func(m *chain.Account) *chain.Account { m.Owner = chain.Token2022Program; return m },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.owners(t, 1, true)
			s := b.service(b.pool, &minting{Chain: b.cluster, mint: b.local.Mint, change: change})
			if _, err := s.Draft(t.Context(), b.drafter); errs.CodeOf(err) != errs.Conflict || !strings.Contains(err.Error(), "payout token") {
				t.Errorf("drafting ended with %v", err)
			}
		})
	}
}

// minting is a cluster whose mint a test changes.
type minting struct {
	Chain
	mint   chain.Address
	change func(*chain.Account) *chain.Account
}

func (m *minting) Accounts(ctx context.Context, commitment chain.Commitment, minSlot chain.Slot, addresses ...chain.Address) ([]*chain.Account, error) {
	accounts, err := m.Chain.Accounts(ctx, commitment, minSlot, addresses...)
	for i, address := range addresses {
		if err == nil && address == m.mint {
			accounts[i] = m.change(accounts[i])
		}
	}
	return accounts, err
}

func TestAnAccountsExtensionsAreRead(t *testing.T) {
	t.Parallel()
	extension := func(kind byte, length int) []byte {
		return append([]byte{kind, 0, byte(length), 0}, make([]byte, length)...)
	}
	base := make([]byte, extensionsAt)
	for name, test := range map[string]struct {
		data []byte
		want bool
	}{
		"none":                     {make([]byte, 165), true},
		"immutable owner":          {append(slices.Clone(base), extension(extensionImmutableOwner, 0)...), true},
		"memo on transfer":         {append(slices.Clone(base), extension(8, 1)...), false},
		"hidden behind another":    {append(append(slices.Clone(base), extension(extensionImmutableOwner, 0)...), extension(8, 1)...), false},
		"an end that is cut short": {append(slices.Clone(base), extensionImmutableOwner, 0, 9, 0), false},
	} {
		if got := plain(test.data); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestThePriorityFeeHasAFloorAndACap(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		prices []uint64
		units  uint32
		want   uint64
	}{
		{nil, 10_000, 800},
		{[]uint64{0, 0, 0, 0}, 10_000, 800},
		{[]uint64{1_000_000, 200_000, 0, 0}, 10_000, 2_000},
		{[]uint64{1 << 40}, 10_000, 50_000},
		{[]uint64{1 << 63}, 1 << 31, 50_000}, // the product overflows
	} {
		if got := clampFee(percentile(test.prices, feePercentile), test.units, 800, 50_000); got != test.want {
			t.Errorf("%v for %d units: %d lamports, want %d", test.prices, test.units, got, test.want)
		}
	}
}

func TestTheNoncePoolIsShownAndWarnsWhenFewAreFree(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.service(b.pool, b.cluster)
	check(t, s.watchNonces(t.Context()))
	pool, err := s.Nonces(t.Context())
	check(t, err)
	total := len(b.local.Nonces)
	if pool.Free != total || pool.Held != 0 || pool.Warning != "" || pool.Rent == 0 {
		t.Fatalf("pool: %+v", pool)
	}
	payer, err := s.FeePayer(t.Context())
	check(t, err)
	if payer.Address != b.local.Treasury.String() || payer.Lamports == nil || *payer.Lamports < fewLamports || payer.Warning != "" || payer.Fees != 0 {
		t.Errorf("fee payer: %+v", payer)
	}
	if warning := feeWarning(fewLamports - 1); !strings.Contains(warning, "0.1000 SOL") {
		t.Errorf("a poor fee payer: %q", warning)
	}
	b.owners(t, total*MaxNewAccounts, false)
	batches, err := s.Draft(t.Context(), b.drafter)
	check(t, err)
	pool, err = s.Nonces(t.Context())
	check(t, err)
	if pool.Held != len(batches) || pool.Free != 0 || !strings.Contains(pool.Warning, "held") {
		t.Errorf("with every nonce held: %+v", pool)
	}
	if slices.ContainsFunc(pool.Nonces, func(n Nonce) bool { return n.State != nonceHeld || n.Batch.IsZero() }) {
		t.Errorf("nonces: %+v", pool.Nonces)
	}
}
