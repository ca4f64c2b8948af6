package close_test

import (
	"bytes"
	"encoding/csv"
	"strconv"
	"strings"
	"testing"
)

const wallet = "CXhAjgLWgsP7HyKYLsFWUUY8LyZQWpEoTH2WzvJVqcVd"

// spendSOL writes a journal: a top-up in February, and in March a payout that made an account and a transaction that failed.
func (b *books) spendSOL() {
	b.Helper()
	b.exec(`WITH written AS (
			INSERT INTO sol_transactions (wallet, seq, signature, slot, at, failed, before, after, previous_seq) VALUES
				($1, 1, repeat('1', 64), 10, '2026-02-28 23:59:59Z', false, 0, 10000000000, NULL),
				($1, 2, repeat('2', 64), 11, '2026-03-01 00:00:00Z', false, 10000000000, 9997957220, 1),
				($1, 3, repeat('3', 64), 12, '2026-03-31 23:59:59Z', true, 9997957220, 9997952220, 2))
		INSERT INTO sol_lines (wallet, seq, ordinal, kind, lamports, other) VALUES
			($1, 1, 1, 'top_up', 10000000000, 'somebody'), ($1, 2, 1, 'base_fee', -5000, ''), ($1, 2, 2, 'priority_fee', -2050, ''),
			($1, 2, 3, 'rent_out', -2035730, 'account'), ($1, 3, 1, 'base_fee', -5000, '')`, wallet)
}

func TestSOLIsFrozenWithTheMonth(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.spendSOL()
	b.reconciled("clean", 0)
	c, err := b.Close(t.Context(), march(t), b.one)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Figures.SOL) != 1 || c.Figures.SOL[0].Opening != 10_000_000_000 || c.Figures.SOL[0].Closing != 9_997_952_220 || c.Figures.SOL[0].Failed != 1 {
		t.Fatalf("the figures are %+v", c.Figures.SOL)
	}
	sum := c.Figures.SOL[0].Opening
	for _, k := range c.Figures.SOL[0].Kinds {
		sum += k.Lamports
	}
	if sum != c.Figures.SOL[0].Closing {
		t.Errorf("opening and kinds add up to %d", sum)
	}
	if intact, err := b.Check(t.Context(), c); err != nil || !intact {
		t.Errorf("right after closing: %t, %v", intact, err)
	}
	var page bytes.Buffer
	if err := b.Report(&page, c, nil, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10.000000000", "9.997952220", "-0.002035730", "Base fees", "5110", wallet} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	// What came later is of another month; what is added to a closed one shows.
	b.exec(`WITH written AS (INSERT INTO sol_transactions (wallet, seq, signature, slot, at, failed, before, after, previous_seq)
			VALUES ($1, 4, repeat('4', 64), 13, '2026-04-01 00:00:00Z', false, 9997952220, 9997947220, 3))
		INSERT INTO sol_lines (wallet, seq, ordinal, kind, lamports) VALUES ($1, 4, 1, 'base_fee', -5000)`, wallet)
	if intact, err := b.Check(t.Context(), c); err != nil || !intact {
		t.Errorf("after April's first: %t, %v", intact, err)
	}
	b.exec(`WITH written AS (INSERT INTO sol_transactions (wallet, seq, signature, slot, at, failed, before, after, previous_seq)
			VALUES ($1, 5, repeat('5', 64), 14, '2026-03-31 00:00:00Z', false, 9997947220, 9997942220, 4))
		INSERT INTO sol_lines (wallet, seq, ordinal, kind, lamports) VALUES ($1, 5, 1, 'base_fee', -5000)`, wallet)
	if intact, err := b.Check(t.Context(), c); err != nil || intact {
		t.Errorf("with one more in March: %t, %v", intact, err)
	}
}

// TestMonthClosedBeforeTheSOLJournalStaysIntact: its figures have no SOL, whatever the journal says of it now.
func TestMonthClosedBeforeTheSOLJournalStaysIntact(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.reconciled("clean", 0)
	c, err := b.Close(t.Context(), march(t), b.one)
	if err != nil {
		t.Fatal(err)
	}
	b.spendSOL()
	if intact, err := b.Check(t.Context(), c); err != nil || !intact || c.Figures.SOL != nil {
		t.Errorf("%t, %v, %+v", intact, err, c.Figures.SOL)
	}
}

// TestSOLJournalFilesBalance: each entry's debits are its credits, and the wallet's account ends with what it changed in the month.
func TestSOLJournalFilesBalance(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.spendSOL()
	var quickBooks, xero bytes.Buffer
	if err := b.QuickBooksSOL(t.Context(), &quickBooks, march(t)); err != nil {
		t.Fatal(err)
	}
	if err := b.XeroSOL(t.Context(), &xero, march(t)); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&quickBooks).ReadAll()
	if err != nil || len(rows) != 1+2*4 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if row := rows[6]; row[2] != "Rent of accounts on the chain" || row[3] != "0.002035730" || row[5] != "rent_out: account" {
		t.Errorf("the rent's row is %q", row)
	}
	rows, err = csv.NewReader(&xero).ReadAll()
	if err != nil || len(rows) != 1+2*4 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	sum, onWallet := 0.0, 0.0
	for _, row := range rows[1:] {
		amount, err := strconv.ParseFloat(row[5], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += amount
		if row[3] == "1040" {
			onWallet += amount
		}
	}
	if sum > 1e-12 || sum < -1e-12 || strconv.FormatFloat(onWallet, 'f', 9, 64) != "-0.002047780" {
		t.Errorf("the file adds up to %g, the wallet's account to %.9f", sum, onWallet)
	}
}

// TestCryptioHasEveryLamport: what went out in SOL and the fees are what the wallet had less, each once.
func TestCryptioHasEveryLamport(t *testing.T) {
	t.Parallel()
	b := newBooks(t)
	b.spendSOL()
	var file bytes.Buffer
	if err := b.Cryptio(t.Context(), &file, march(t)); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	spent := 0.0
	for _, row := range rows[1:] {
		for asset, volume := range map[int]int{7: 8, 11: 12} {
			if row[asset] != "SOL" {
				continue
			}
			amount, err := strconv.ParseFloat(row[volume], 64)
			if err != nil {
				t.Fatal(err)
			}
			spent += amount
		}
	}
	if strconv.FormatFloat(spent, 'f', 9, 64) != "0.002047780" {
		t.Errorf("%.9f SOL were spent in %q", spent, rows)
	}
}
