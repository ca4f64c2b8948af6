package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/ledger"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var usdc = money.Currency{Symbol: "USDC", Mint: "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", Decimals: 6}

// book is a ledger over a database of its own.
type book struct {
	testing.TB
	*ledger.Ledger
	pool *pgxpool.Pool
}

func newBook(tb testing.TB) book {
	tb.Helper()
	return book{TB: tb, Ledger: ledger.New(usdc), pool: testkit.DB(tb)}
}

func (b book) org(name string) ids.Org {
	b.Helper()
	id := ids.New[ids.Org]()
	if _, err := b.pool.Exec(b.Context(), `INSERT INTO organisations (id, name) VALUES ($1, $2)`, id, name); err != nil {
		b.Fatal(err)
	}
	return id
}

func (b book) post(e ledger.Entry) (id ids.Entry, err error) {
	err = pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error {
		id, err = b.Post(b.Context(), tx, e)
		return err
	})
	return id, err
}

func (b book) mustPost(e ledger.Entry) ids.Entry {
	b.Helper()
	id, err := b.post(e)
	if err != nil {
		b.Fatalf("post %s: %v", e.Key, err)
	}
	return id
}

func (b book) wantBalance(a ledger.Account, want money.Amount) {
	b.Helper()
	got, err := b.Balance(b.Context(), b.pool, a)
	if err != nil || got != want {
		b.Errorf("%s has %d, %v; want %d", a.Kind, got, err, want)
	}
}

func (b book) wantSound() {
	b.Helper()
	if err := b.Check(b.Context(), b.pool); err != nil {
		b.Error(err)
	}
}

func deposit(org ids.Org, key string, amount money.Amount) ledger.Entry {
	return ledger.Entry{Key: key, Kind: ledger.KindDeposit, Legs: []ledger.Leg{{
		Debit: ledger.Of(ledger.ChainDeposits, org), Credit: ledger.Of(ledger.CustomerAvailable, org), Amount: amount,
	}}}
}

func TestMoneyGoesThroughEveryAccount(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	customer, owner := b.org("Customer"), b.org("Owner")
	available, held := ledger.Of(ledger.CustomerAvailable, customer), ledger.Of(ledger.CustomerHeld, customer)
	payable, inFlight := ledger.Of(ledger.OwnerPayable, owner), ledger.Of(ledger.PayoutInFlight, owner)
	fees, treasury, capital := ledger.Platform(ledger.PlatformFees), ledger.Platform(ledger.ChainTreasury), ledger.Platform(ledger.PlatformCapital)
	b.mustPost(deposit(customer, "deposit", 10_000_000))
	b.mustPost(ledger.Entry{Key: "hold", Kind: ledger.KindHold, Legs: []ledger.Leg{{Debit: available, Credit: held, Amount: 4_000_000}}})
	b.mustPost(ledger.Entry{Key: "charge", Kind: ledger.KindCharge, Legs: []ledger.Leg{
		{Debit: held, Credit: payable, Amount: 2_700_000}, {Debit: held, Credit: fees, Amount: 300_000},
	}})
	b.mustPost(ledger.Entry{Key: "release", Kind: ledger.KindRelease, Legs: []ledger.Leg{{Debit: held, Credit: available, Amount: 1_000_000}}})
	b.mustPost(ledger.Entry{Key: "fund", Kind: ledger.KindTreasuryFunding, Legs: []ledger.Leg{{Debit: treasury, Credit: capital, Amount: 5_000_000}}})
	b.mustPost(ledger.Entry{Key: "reserve", Kind: ledger.KindPayoutReserve, Legs: []ledger.Leg{{Debit: payable, Credit: inFlight, Amount: 2_700_000}}})
	b.mustPost(ledger.Entry{Key: "paid", Kind: ledger.KindPayoutPaid, Legs: []ledger.Leg{{Debit: inFlight, Credit: treasury, Amount: 2_700_000}}})
	for account, want := range map[ledger.Account]money.Amount{
		ledger.Of(ledger.ChainDeposits, customer): 10_000_000, available: 7_000_000, held: 0, payable: 0, inFlight: 0,
		fees: 300_000, treasury: 2_300_000, capital: 5_000_000,
	} {
		b.wantBalance(account, want)
	}
	b.wantSound()
}

func TestSameKeyPostsOnce(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org := b.org("Customer")
	first := b.mustPost(deposit(org, "deposit:1", 5))
	if again := b.mustPost(deposit(org, "deposit:1", 5)); again != first {
		t.Errorf("the second posting is %s, want the first, %s", again, first)
	}
	for name, change := range map[string]func(*ledger.Entry){
		"another amount": func(e *ledger.Entry) { e.Legs[0].Amount = 6 },
		"another kind":   func(e *ledger.Entry) { e.Kind = ledger.KindSuspense },
		"another memo":   func(e *ledger.Entry) { e.Memo = "x" },
		"another ref":    func(e *ledger.Entry) { e.Refs.Signature = "5x" },
	} {
		entry := deposit(org, "deposit:1", 5)
		change(&entry)
		if _, err := b.post(entry); errs.CodeOf(err) != errs.Conflict {
			t.Errorf("%s under the same key gave %v, want a conflict", name, err)
		}
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 5)
	b.wantSound()
}

func TestRefusedDebitLeavesTheTransactionUsable(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org := b.org("Customer")
	b.mustPost(deposit(org, "deposit", 1_500_000))
	hold := func(key string, amount money.Amount) ledger.Entry {
		return ledger.Entry{Key: key, Kind: ledger.KindHold, Legs: []ledger.Leg{{
			Debit: ledger.Of(ledger.CustomerAvailable, org), Credit: ledger.Of(ledger.CustomerHeld, org), Amount: amount,
		}}}
	}
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		_, err := b.Post(t.Context(), tx, hold("too much", 2_000_000))
		var refusal *errs.Error
		if !errors.As(err, &refusal) || refusal.Code != errs.InsufficientFunds {
			t.Fatalf("the debit gave %v, want insufficient funds", err)
		}
		want := ledger.Shortfall{Account: ledger.CustomerAvailable, Needed: 2_000_000, Available: 1_500_000, Short: 500_000}
		if refusal.Details != want || !strings.Contains(refusal.Message, "0.500000 USDC short") {
			t.Errorf("the refusal says %q and %+v", refusal.Message, refusal.Details)
		}
		_, err = b.Post(t.Context(), tx, hold("enough", 1_500_000))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 0)
	b.wantBalance(ledger.Of(ledger.CustomerHeld, org), 1_500_000)
	if _, err := b.post(hold("too much", 1)); errs.CodeOf(err) != errs.InsufficientFunds {
		t.Errorf("the refused key is taken: %v", err)
	}
	b.wantSound()
}

func TestMalformedEntriesAreRefused(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org := b.org("Customer")
	good := deposit(org, "k", 1)
	for name, change := range map[string]func(*ledger.Entry){
		"no key":                func(e *ledger.Entry) { e.Key = "" },
		"no kind":               func(e *ledger.Entry) { e.Kind = "" },
		"no legs":               func(e *ledger.Entry) { e.Legs = nil },
		"zero amount":           func(e *ledger.Entry) { e.Legs[0].Amount = 0 },
		"negative amount":       func(e *ledger.Entry) { e.Legs[0].Amount = -1 },
		"both sides the same":   func(e *ledger.Entry) { e.Legs[0].Credit = e.Legs[0].Debit },
		"unknown kind":          func(e *ledger.Entry) { e.Legs[0].Debit.Kind = "mattress" },
		"organisation missing":  func(e *ledger.Entry) { e.Legs[0].Credit.Org = ids.Org{} },
		"organisation too many": func(e *ledger.Entry) { e.Legs[0].Debit = ledger.Of(ledger.ChainTreasury, org) },
	} {
		entry := good
		entry.Legs = append([]ledger.Leg(nil), good.Legs...)
		change(&entry)
		if _, err := b.post(entry); err == nil {
			t.Errorf("%s was posted", name)
		}
	}
	if _, err := b.post(deposit(org, "most", math.MaxInt64)); err != nil {
		t.Errorf("the greatest amount: %v", err)
	}
	if _, err := b.post(deposit(org, "beyond", 1)); err == nil {
		t.Error("a balance passed what an int64 holds")
	}
	b.wantSound()
}

func TestHistoryIsPagedWithRunningBalances(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org := b.org("Customer")
	available := ledger.Of(ledger.CustomerAvailable, org)
	for i := range 5 {
		b.mustPost(deposit(org, fmt.Sprint("deposit:", i), 10))
		b.mustPost(ledger.Entry{Key: fmt.Sprint("hold:", i), Kind: ledger.KindHold, Memo: "a hold", Legs: []ledger.Leg{
			{Debit: available, Credit: ledger.Of(ledger.CustomerHeld, org), Amount: 3},
		}})
	}
	var lines []ledger.Line
	page := ledger.Page{Limit: 3}
	for {
		part, err := b.History(t.Context(), b.pool, available, page)
		if err != nil {
			t.Fatal(err)
		}
		if len(part) == 0 {
			break
		}
		lines = append(lines, part...)
		page.Before = part[len(part)-1].Seq
	}
	if len(lines) != 10 {
		t.Fatalf("%d lines, want 10", len(lines))
	}
	var balance money.Amount
	for i := range lines {
		line := lines[len(lines)-1-i]
		balance += line.Change
		if line.Seq != int64(i+1) || line.Balance != balance {
			t.Errorf("line %d has place %d and balance %d, want %d", i, line.Seq, line.Balance, balance)
		}
	}
	last := lines[0]
	if last.Kind != ledger.KindHold || last.Change != -3 || !last.Debit || last.Other.Kind != ledger.CustomerHeld || last.Memo != "a hold" {
		t.Errorf("the newest line is %+v", last)
	}
}

func TestHoldIsOncePerBooking(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org := b.org("Customer")
	b.mustPost(deposit(org, "deposit", 100))
	booking := ids.New[ids.Booking]()
	_, err := b.pool.Exec(t.Context(), `
		INSERT INTO bookings (id, org_id, gpu_model, node_count, gpus_per_node, duration_ms, fee_bps, plan, hold_base_units, expires_at)
		VALUES ($1, $2, 'H100', 1, 1, 1000, 100, '{}', 60, now())`, booking, org)
	if err != nil {
		t.Fatal(err)
	}
	hold := func(amount money.Amount) error {
		return pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error { return b.Hold(t.Context(), tx, org, booking, amount) })
	}
	if err := errors.Join(hold(60), hold(60)); err != nil {
		t.Fatal(err)
	}
	b.wantBalance(ledger.Of(ledger.CustomerHeld, org), 60)
	if err := hold(61); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("another amount gave %v, want a conflict", err)
	}
}

func TestPostedRowsAreImmutable(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org := b.org("Customer")
	b.mustPost(deposit(org, "deposit", 100))
	for _, sql := range []string{
		`UPDATE ledger_entries SET memo = 'x'`, `DELETE FROM ledger_entries`, `TRUNCATE ledger_entries CASCADE`,
		`UPDATE ledger_transfers SET amount = 1`, `DELETE FROM ledger_transfers`, `TRUNCATE ledger_transfers`,
		`UPDATE ledger_accounts SET balance = 1`, `UPDATE ledger_accounts SET balance = balance + 1, last_seq = last_seq + 1`,
		`UPDATE ledger_accounts SET kind = 'owner_payable' WHERE kind = 'customer_available'`, `DELETE FROM ledger_accounts`,
	} {
		_, err := b.pool.Exec(t.Context(), sql)
		var pg *pgconn.PgError
		if !errors.As(err, &pg) {
			t.Errorf("%s was accepted", sql)
		}
	}
	b.wantSound()
}

func TestSchemaRefusesWhatTheCodeWouldNotWrite(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org := b.org("Customer")
	b.mustPost(deposit(org, "deposit", 100))
	for name, sql := range map[string]string{
		"overdraft": `WITH moved AS (
				INSERT INTO ledger_transfers (id, entry_id, ordinal, mint, debit_account, credit_account, amount, debit_seq, credit_seq, debit_balance, credit_balance)
				SELECT gen_random_uuid(), e.id, 9, a.mint, a.id, d.id, 101, 2, 2, -1, -1
				FROM ledger_accounts a, ledger_accounts d, ledger_entries e
				WHERE a.kind = 'customer_available' AND d.kind = 'chain_deposits' RETURNING debit_account)
			UPDATE ledger_accounts SET balance = -1, last_seq = 2 WHERE id = (SELECT debit_account FROM moved)`,
		"two mints in a transfer": `INSERT INTO ledger_transfers (id, entry_id, ordinal, mint, debit_account, credit_account, amount, debit_seq, credit_seq, debit_balance, credit_balance)
			SELECT gen_random_uuid(), e.id, 9, repeat('1', 32), a.id, d.id, 1, 2, 2, 0, 0
			FROM ledger_accounts a, ledger_accounts d, ledger_entries e WHERE a.kind = 'customer_available' AND d.kind = 'chain_deposits'`,
		"an account without its organisation": `INSERT INTO ledger_accounts (id, kind, mint) VALUES (gen_random_uuid(), 'customer_held', repeat('1', 32))`,
		"a second account of the same name": `INSERT INTO ledger_accounts (id, kind, org_id, mint)
			SELECT gen_random_uuid(), kind, org_id, mint FROM ledger_accounts`,
	} {
		if _, err := b.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	b.wantSound()
}

// TestCheckFindsTampering alters rows as somebody with the database's superuser could.
func TestCheckFindsTampering(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"an altered amount":       `UPDATE ledger_transfers SET amount = 99`,
		"an altered balance":      `UPDATE ledger_accounts SET balance = 99 WHERE kind = 'customer_available'`,
		"a missing transfer":      `DELETE FROM ledger_transfers`,
		"both balances altered":   `UPDATE ledger_accounts SET balance = 99`,
		"altered running balance": `UPDATE ledger_transfers SET credit_balance = 99`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBook(t)
			b.mustPost(deposit(b.org("Customer"), "deposit", 100))
			b.wantSound()
			err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), `SET LOCAL session_replication_role = replica`); err != nil {
					return err
				}
				_, err := tx.Exec(t.Context(), sql)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			var problems *ledger.ProblemsError
			if err := b.Check(t.Context(), b.pool); !errors.As(err, &problems) || len(problems.Problems) == 0 {
				t.Errorf("the check gave %v", err)
			}
		})
	}
}

func TestManyPostersOnOneHotAccount(t *testing.T) {
	t.Parallel()
	const posters, rounds = 50, 6
	b := newBook(t)
	org := b.org("Customer")
	b.mustPost(deposit(org, "start", 100))
	orgs := make([]ids.Org, 5)
	for i := range orgs {
		orgs[i] = b.org(fmt.Sprint("Owner ", i))
	}
	group, ctx := errgroup.WithContext(t.Context())
	refused := make(chan struct{}, posters*rounds)
	for i := range posters {
		group.Go(func() error {
			for j := range rounds {
				// Two posters share each key, so half of the postings are repeats.
				key := fmt.Sprintf("move:%d:%d", i/2, j)
				err := move(ctx, b, key, org, orgs[(i/2+j)%len(orgs)])
				if errs.CodeOf(err) == errs.InsufficientFunds {
					refused <- struct{}{}
					continue
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 0)
	var owed money.Amount
	for _, owner := range orgs {
		balance, err := b.Balance(t.Context(), b.pool, ledger.Of(ledger.OwnerPayable, owner))
		if err != nil {
			t.Fatal(err)
		}
		owed += balance
	}
	if owed != 100 || len(refused) != posters*rounds-200 {
		t.Errorf("%d of 100 moved, %d refused", owed, len(refused))
	}
	b.wantSound()
}

func move(ctx context.Context, b book, key string, from, to ids.Org) error {
	return pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		_, err := b.Post(ctx, tx, ledger.Entry{Key: key, Kind: "test_move", Legs: []ledger.Leg{
			{Debit: ledger.Of(ledger.CustomerAvailable, from), Credit: ledger.Of(ledger.OwnerPayable, to), Amount: 1},
		}})
		return err
	})
}
