package ledger_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// in runs do in a transaction of its own.
func (b book) in(do func(pgx.Tx) (ids.Entry, error)) (id ids.Entry, err error) {
	err = pgx.BeginFunc(b.Context(), b.pool, func(tx pgx.Tx) error {
		id, err = do(tx)
		return err
	})
	return id, err
}

func (b book) pend(key string, from, to ledger.Account, amount money.Amount, ttl time.Duration) (ids.Entry, error) {
	return b.in(func(tx pgx.Tx) (ids.Entry, error) {
		e := ledger.Entry{Key: key, Kind: "test_pend", Legs: []ledger.Leg{{Debit: from, Credit: to, Amount: amount}}}
		return b.Pend(b.Context(), tx, e, ttl)
	})
}

func (b book) mustPend(key string, from, to ledger.Account, amount money.Amount) ids.Entry {
	b.Helper()
	id, err := b.pend(key, from, to, amount, 0)
	if err != nil {
		b.Fatalf("pend %s: %v", key, err)
	}
	return id
}

func (b book) postPending(key string, pending ids.Entry, amount money.Amount) error {
	_, err := b.in(func(tx pgx.Tx) (ids.Entry, error) { return b.PostPending(b.Context(), tx, key, pending, amount) })
	return err
}

func (b book) void(key string, pending ids.Entry) error {
	_, err := b.in(func(tx pgx.Tx) (ids.Entry, error) { return b.Void(b.Context(), tx, key, pending) })
	return err
}

func (b book) wantAvailable(a ledger.Account, want money.Amount) {
	b.Helper()
	got, err := b.Available(b.Context(), b.pool, a)
	if err != nil || got != want {
		b.Errorf("%s has %d available, %v; want %d", a.Kind, got, err, want)
	}
}

func (b book) wantCode(err error, want errs.Code, what string) {
	b.Helper()
	if errs.CodeOf(err) != want {
		b.Errorf("%s gave %v, want %s", what, err, want)
	}
}

func TestPendingReservesUntilItEnds(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	customer, owner := b.org("Customer"), b.org("Owner")
	available, payable := ledger.Of(ledger.CustomerAvailable, customer), ledger.Of(ledger.OwnerPayable, owner)
	b.mustPost(deposit(customer, "d", 100))
	first, second := b.mustPend("p1", available, payable, 60), b.mustPend("p2", available, payable, 30)
	b.wantBalance(available, 100)
	b.wantAvailable(available, 10)
	b.wantSound()

	_, err := b.pend("p3", available, payable, 11, 0)
	b.wantCode(err, errs.InsufficientFunds, "a pending transfer above what is available")
	_, err = b.post(ledger.Entry{Key: "m", Kind: "test_move", Legs: []ledger.Leg{{Debit: available, Credit: payable, Amount: 11}}})
	b.wantCode(err, errs.InsufficientFunds, "a transfer of what is reserved")

	if err := errors.Join(b.postPending("post", first, 45), b.postPending("post", first, 45), b.void("void", second)); err != nil {
		t.Fatal(err)
	}
	b.wantBalance(available, 55)
	b.wantAvailable(available, 55)
	b.wantBalance(payable, 45)
	b.wantSound()
}

func TestPendingEndsOnce(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	customer := b.org("Customer")
	available, held := ledger.Of(ledger.CustomerAvailable, customer), ledger.Of(ledger.CustomerHeld, customer)
	moved := b.mustPost(deposit(customer, "d", 100))
	posted, voided := b.mustPend("p1", available, held, 10), b.mustPend("p2", available, held, 10)
	if err := errors.Join(b.postPending("post", posted, 10), b.void("void", voided)); err != nil {
		t.Fatal(err)
	}
	b.wantCode(b.postPending("again", posted, 10), errs.Conflict, "posting what is posted")
	b.wantCode(b.void("again", posted), errs.Conflict, "voiding what is posted")
	b.wantCode(b.postPending("again", voided, 1), errs.Conflict, "posting what is voided")
	b.wantCode(b.postPending("post", posted, 9), errs.Conflict, "another amount under the same key")
	b.wantCode(b.void("x", moved), errs.NotFound, "voiding an entry that is not pending")
	b.wantCode(b.postPending("x", ids.New[ids.Entry](), 1), errs.NotFound, "posting what is not there")
	third := b.mustPend("p3", available, held, 10)
	b.wantCode(b.postPending("x", third, 11), errs.Invalid, "posting more than is pending")
	b.wantBalance(held, 10)
	b.wantAvailable(available, 80)
	b.wantSound()
}

func TestPendingExpires(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	customer := b.org("Customer")
	available, held := ledger.Of(ledger.CustomerAvailable, customer), ledger.Of(ledger.CustomerHeld, customer)
	b.mustPost(deposit(customer, "d", 100))
	short, err := b.pend("short", available, held, 10, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	lasting, err := b.pend("lasting", available, held, 20, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	expire := func() (count int) {
		err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) (err error) {
			count, err = b.Expire(t.Context(), tx, 10)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return count
	}
	for deadline := time.Now().Add(10 * time.Second); expire() != 1; {
		if time.Now().After(deadline) {
			t.Fatal("the entry does not expire")
		}
	}
	if again := expire(); again != 0 {
		t.Errorf("%d more expired", again)
	}
	b.wantAvailable(available, 80)
	b.wantCode(b.postPending("late", short, 1), errs.Conflict, "posting what has expired")
	if err := b.postPending("in time", lasting, 20); err != nil {
		t.Error(err)
	}
	overdue, err := b.pend("overdue", available, held, 5, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.pool.Exec(t.Context(), `SELECT pg_sleep_until(expires_at + interval '1 millisecond') FROM ledger_pendings WHERE entry_id = $1`, overdue); err != nil {
		t.Fatal(err)
	}
	b.wantCode(b.postPending("too late", overdue, 5), errs.Expired, "posting after the time")
	if err := b.void("void", overdue); err != nil {
		t.Error(err)
	}
	b.wantAvailable(available, 80)
	b.wantSound()
}

// TestPendingsAreLinked: a refusal of one takes the others with it, and the ends of several come together.
func TestPendingsAreLinked(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	customer, owner := b.org("Customer"), b.org("Owner")
	available, payable := ledger.Of(ledger.CustomerAvailable, customer), ledger.Of(ledger.OwnerPayable, owner)
	pend := func(key string, amount money.Amount) ledger.Entry {
		return ledger.Entry{Key: key, Kind: "test_pend", Pend: &ledger.Pend{}, Legs: []ledger.Leg{{Debit: available, Credit: payable, Amount: amount}}}
	}
	postAll := func(entries ...ledger.Entry) (posted []ids.Entry, err error) {
		err = pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
			posted, err = b.PostAll(t.Context(), tx, entries)
			return err
		})
		return posted, err
	}
	_, err := postAll(deposit(customer, "d", 100), pend("a", 60), pend("b", 41))
	b.wantCode(err, errs.InsufficientFunds, "two pending transfers above the deposit")
	b.wantBalance(available, 0)
	posted, err := postAll(deposit(customer, "d", 100), pend("a", 60), pend("b", 40))
	if err != nil {
		t.Fatal(err)
	}
	b.wantAvailable(available, 0)
	settle := func(key string, pending ids.Entry, amount money.Amount) ledger.Entry {
		return ledger.Entry{Key: key, Kind: "test_end", Settle: &ledger.Settle{Pending: pending, Amount: amount}}
	}
	_, err = postAll(settle("x", posted[1], 60), settle("y", posted[2], 41))
	b.wantCode(err, errs.Invalid, "an end that posts too much, linked with a good one")
	_, err = postAll(settle("x", posted[1], 60), settle("y", posted[1], 0))
	b.wantCode(err, errs.Conflict, "two ends of one pending transfer")
	b.wantAvailable(available, 0)
	// What one end frees, a pending transfer of the same call takes again.
	if _, err := postAll(settle("x", posted[1], 50), settle("y", posted[2], 0), pend("c", 50)); err != nil {
		t.Fatal(err)
	}
	b.wantBalance(available, 50)
	b.wantAvailable(available, 0)
	b.wantBalance(payable, 50)
	b.wantSound()
}

// TestPendingOfAnAssetReservesTheCreditedSide: what lowers an asset is a credit.
func TestPendingOfAnAssetReservesTheCreditedSide(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	customer := b.org("Customer")
	chain, available := ledger.Of(ledger.ChainDeposits, customer), ledger.Of(ledger.CustomerAvailable, customer)
	b.mustPost(deposit(customer, "d", 100))
	arriving := b.mustPend("arriving", chain, available, 50)
	b.wantAvailable(chain, 100)
	b.wantAvailable(available, 100)
	leaving := b.mustPend("leaving", available, chain, 70)
	b.wantAvailable(chain, 30)
	b.wantAvailable(available, 30)
	if err := errors.Join(b.postPending("a", arriving, 50), b.postPending("l", leaving, 70)); err != nil {
		t.Fatal(err)
	}
	b.wantAvailable(chain, 80)
	b.wantAvailable(available, 80)
	b.wantSound()
}

// TestSchemaGuardsPendings writes what the code would not.
func TestSchemaGuardsPendings(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	customer := b.org("Customer")
	available, held := ledger.Of(ledger.CustomerAvailable, customer), ledger.Of(ledger.CustomerHeld, customer)
	b.mustPost(deposit(customer, "d", 100))
	if err := b.void("v", b.mustPend("ended", available, held, 10)); err != nil {
		t.Fatal(err)
	}
	b.mustPend("open", available, held, 40)
	const entry = `WITH e AS (INSERT INTO ledger_entries (id, key, input_hash, kind, mint) SELECT gen_random_uuid(), 'x', sha256('x'), 'test', mint FROM ledger_pendings LIMIT 1 RETURNING id) `
	const open = `(SELECT entry_id FROM ledger_open_pendings)`
	for name, sql := range map[string]string{
		"an end that moves nothing":    entry + `INSERT INTO ledger_settlements SELECT ` + open + `, e.id, 'posted', 40, now() FROM e`,
		"an end of too much":           entry + `INSERT INTO ledger_settlements SELECT ` + open + `, e.id, 'posted', 41, now() FROM e`,
		"an expiry without a time":     entry + `INSERT INTO ledger_settlements SELECT ` + open + `, e.id, 'expired', 0, now() FROM e`,
		"a second end":                 entry + `INSERT INTO ledger_settlements SELECT pending_id, e.id, 'voided', 0, now() FROM ledger_settlements, e`,
		"a reservation without an end": `INSERT INTO ledger_reservations SELECT a.id, a.reserved_seq + 1, ` + open + `, -40, 0 FROM ledger_accounts a WHERE a.kind = 'customer_available'`,
		"a reservation of its own":     `INSERT INTO ledger_reservations SELECT a.id, a.reserved_seq + 1, ` + open + `, 40, 80 FROM ledger_accounts a WHERE a.kind = 'customer_available'`,
		"less reserved":                `UPDATE ledger_accounts SET reserved = 0`,
		"an altered end":               `UPDATE ledger_settlements SET amount = 1`,
		"an altered pending transfer":  `UPDATE ledger_pendings SET amount = 1`,
		"a deleted reservation":        `DELETE FROM ledger_reservations`,
		"a truncated table":            `TRUNCATE ledger_pendings CASCADE`,
	} {
		if _, err := b.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	b.wantAvailable(available, 60)
	b.wantSound()
}

// TestCheckFindsTamperingWithPendings alters rows as somebody with the database's superuser could.
func TestCheckFindsTamperingWithPendings(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"less reserved":         `UPDATE ledger_accounts SET reserved = 1 WHERE kind = 'customer_available'`,
		"an altered amount":     `UPDATE ledger_pendings SET amount = 1`,
		"a missing end":         `DELETE FROM ledger_settlements`,
		"an end of another sum": `UPDATE ledger_settlements SET amount = 9 WHERE outcome = 'posted'`,
		"a missing reservation": `DELETE FROM ledger_reservations WHERE change < 0`,
		"not listed":            `DELETE FROM ledger_open_pendings`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBook(t)
			customer := b.org("Customer")
			available, held := ledger.Of(ledger.CustomerAvailable, customer), ledger.Of(ledger.CustomerHeld, customer)
			b.mustPost(deposit(customer, "d", 100))
			if err := b.postPending("post", b.mustPend("a", available, held, 10), 10); err != nil {
				t.Fatal(err)
			}
			b.mustPend("b", available, held, 20)
			b.wantSound()
			err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), `SET LOCAL session_replication_role = replica`)
				if err == nil {
					_, err = tx.Exec(t.Context(), sql)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			var problems *ledger.ProblemsError
			if err := b.Check(t.Context(), b.pool); !errors.As(err, &problems) {
				t.Errorf("the check gave %v", err)
			}
		})
	}
}

func TestBalancesAndHistoryAtAnyTime(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	org := b.org("Customer")
	available, held := ledger.Of(ledger.CustomerAvailable, org), ledger.Of(ledger.CustomerHeld, org)
	var times []time.Time
	var balances []money.Amount
	before := b.clock()
	for i, change := range []money.Amount{100, -30, 20, -5, -5, 40} {
		if change > 0 {
			b.mustPost(deposit(org, string(rune('a'+i)), change))
		} else {
			b.mustPost(ledger.Entry{Key: string(rune('a' + i)), Kind: ledger.KindHold, Legs: []ledger.Leg{{Debit: available, Credit: held, Amount: -change}}})
		}
		times = append(times, b.clock())
		got, err := b.Balance(t.Context(), b.pool, available)
		if err != nil {
			t.Fatal(err)
		}
		balances = append(balances, got)
	}
	at := func(when time.Time) money.Amount {
		got, err := b.BalanceAt(t.Context(), b.pool, available, when)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := at(before); got != 0 {
		t.Errorf("before the first transfer there were %d", got)
	}
	for i, when := range times {
		if got := at(when); got != balances[i] {
			t.Errorf("after transfer %d there were %d, want %d", i, got, balances[i])
		}
	}
	lines, err := b.History(t.Context(), b.pool, available, ledger.Page{After: times[1], Until: times[4]})
	if err != nil || len(lines) != 3 {
		t.Fatalf("the history between two times is %+v, %v", lines, err)
	}
	var sum money.Amount
	for _, line := range lines {
		sum += line.Change
	}
	if sum != at(times[4])-at(times[1]) {
		t.Errorf("the history between two times comes to %d, the balances differ by %d", sum, at(times[4])-at(times[1]))
	}
	if got, err := b.BalanceAt(t.Context(), b.pool, ledger.Of(ledger.OwnerPayable, org), times[0]); got != 0 || err != nil {
		t.Errorf("an account that is not there had %d, %v", got, err)
	}
}

func (b book) clock() (now time.Time) {
	b.Helper()
	if err := b.pool.QueryRow(b.Context(), `SELECT clock_timestamp()`).Scan(&now); err != nil {
		b.Fatal(err)
	}
	return now
}
