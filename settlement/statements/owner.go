package statements

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// Owed is what an owner is owed at a moment.
type Owed struct{ Payable, InFlight money.Amount }

// Total is all of it.
func (o Owed) Total() money.Amount { return o.Payable + o.InFlight }

// OwnerTotals sum an owner's statement up.
type OwnerTotals struct {
	Gross, Fee, Paid, Other money.Amount // Other is signed
	NotEarned               money.Amount
	MS                      int64
}

// Net is what was earned.
func (t OwnerTotals) Net() money.Amount { return t.Gross - t.Fee }

// OwnerHost is one host's part of an owner's statement.
type OwnerHost struct {
	ID         ids.Host
	Name       string
	MS         int64
	Gross, Fee money.Amount
	NotEarned  money.Amount
	Leases     []Lease
	Credits    []Credit
}

// Net is what the host earned.
func (h OwnerHost) Net() money.Amount { return h.Gross - h.Fee }

// Owner is an owner's statement.
type Owner struct {
	Head
	Opening, Closing Owed
	Totals           OwnerTotals
	Hosts            []OwnerHost
	Payouts          []Movement // into payouts, out of them and paid; amounts are positive
	Movements        []Movement // whatever else moved what is owed

	reserved     money.Amount // by Payouts, from the payable balance
	payableMoves money.Amount // of Movements, what moved the payable balance
}

// Owner makes an owner's statement.
func (s *Service) Owner(ctx context.Context, org ids.Org, period Period) (Owner, error) {
	if err := period.Validate(); err != nil {
		return Owner{}, err
	}
	var o Owner
	err := s.snapshot(ctx, func(tx pgx.Tx) (err error) {
		if o.Head, err = s.head(ctx, tx, org, period); err != nil {
			return err
		}
		book, err := s.readBalances(ctx, tx, o.Head, ledger.OwnerPayable, ledger.PayoutInFlight)
		if err != nil {
			return err
		}
		o.Opening = Owed{book.opening[ledger.OwnerPayable], book.opening[ledger.PayoutInFlight]}
		o.Closing = Owed{book.closing[ledger.OwnerPayable], book.closing[ledger.PayoutInFlight]}
		if err := o.readLines(ctx, tx, s); err != nil {
			return err
		}
		return o.tieOut(ctx, s)
	})
	return o, err
}

func (o *Owner) readLines(ctx context.Context, tx pgx.Tx, s *Service) error {
	leases, err := readLeases(ctx, tx, o.Head, asOwner)
	if err != nil {
		return err
	}
	credits, err := readCredits(ctx, tx, o.Head, asOwner)
	if err != nil {
		return err
	}
	if err := o.addHosts(ctx, tx, leases, credits); err != nil {
		return err
	}
	if err := o.readMoves(ctx, tx, s, ledger.PayoutInFlight); err != nil || o.payableRest() == 0 {
		return err
	}
	// Something else moved the payable balance: then its earnings, too, are read one by one.
	return o.readMoves(ctx, tx, s, ledger.OwnerPayable)
}

func (o *Owner) readMoves(ctx context.Context, tx pgx.Tx, s *Service, account ledger.Kind) error {
	transfers, err := s.readTransfers(ctx, tx, o.Head, account)
	for _, t := range transfers {
		o.move(t)
	}
	return err
}

// payableRest is what the change of the payable balance has beside earnings and payouts.
func (o *Owner) payableRest() money.Amount {
	return o.Closing.Payable - o.Opening.Payable - o.Totals.Net() + o.reserved
}

// move adds a transfer to the lines that it belongs to. What moves into a payout or back is on both accounts; the one of payouts tells.
func (o *Owner) move(t transfer) {
	switch {
	case t.account == ledger.OwnerPayable && t.other == ledger.PayoutInFlight:
		return
	case t.account == ledger.OwnerPayable:
		o.payableMoves += t.Amount
	case t.other == ledger.OwnerPayable:
		o.reserved += t.Amount
		t.Kind, t.Text = ledger.KindPayoutReserve, "Put into a payout"
		if t.Amount < 0 {
			t.Kind, t.Text, t.Amount = ledger.KindPayoutReturn, "Taken back from a payout that did not happen", -t.Amount
		}
		o.Payouts = append(o.Payouts, t.Movement)
		return
	case t.other == ledger.ChainTreasury && t.Amount < 0:
		t.Kind, t.Text, t.Amount = ledger.KindPayoutPaid, "Paid out on chain", -t.Amount
		o.Payouts, o.Totals.Paid = append(o.Payouts, t.Movement), o.Totals.Paid+t.Amount
		return
	case t.other == ledger.CustomerAvailable:
		t.memo = "A withdrawal of the prepaid balance, which goes the way of payouts"
	}
	t.Kind, t.Text = kindOther, inWordsOf(t, "Another movement")
	o.Movements, o.Totals.Other = append(o.Movements, t.Movement), o.Totals.Other+t.Amount
}

// addHosts groups leases and credits, which come in the order of hosts.
func (o *Owner) addHosts(ctx context.Context, tx pgx.Tx, leases []Lease, credits []placed) error {
	at := make(map[ids.Host]int)
	for _, l := range leases {
		i, known := at[l.Host]
		if !known {
			i, at[l.Host] = len(o.Hosts), len(o.Hosts)
			o.Hosts = append(o.Hosts, OwnerHost{ID: l.Host, Name: l.HostName})
		}
		host := &o.Hosts[i]
		l.Name = "" // whose cluster it was is not the owner's to see
		host.Leases = append(host.Leases, l)
		host.MS, host.Gross, host.Fee = host.MS+l.MS, host.Gross+l.Charged, host.Fee+l.Fee
		o.Totals.MS, o.Totals.Gross, o.Totals.Fee = o.Totals.MS+l.MS, o.Totals.Gross+l.Charged, o.Totals.Fee+l.Fee
	}
	for _, credit := range credits {
		i, known := at[credit.host]
		if !known {
			host := OwnerHost{ID: credit.host}
			if err := tx.QueryRow(ctx, `SELECT name FROM hosts WHERE id = $1`, host.ID).Scan(&host.Name); err != nil {
				return fmt.Errorf("read host: %w", err)
			}
			i, at[credit.host] = len(o.Hosts), len(o.Hosts)
			o.Hosts = append(o.Hosts, host)
		}
		host := &o.Hosts[i]
		host.Credits = append(host.Credits, credit.Credit)
		host.NotEarned += credit.Amount
		o.Totals.NotEarned += credit.Amount
	}
	return nil
}

// tieOut compares the lines with the ledger's balances, of both parts.
func (o *Owner) tieOut(ctx context.Context, s *Service) error {
	if rest := o.payableRest(); rest != o.payableMoves {
		return s.mismatch(ctx, o.Head, "change of the payable balance", o.payableMoves, rest)
	}
	lines := o.Totals.Net() - o.Totals.Paid + o.Totals.Other
	if change := o.Closing.Total() - o.Opening.Total(); lines != change {
		return s.mismatch(ctx, o.Head, "change of what is owed", lines, change)
	}
	return nil
}

// payoutColumn is where a file has the amount of a payout's movement.
func payoutColumn(kind string) string {
	switch kind {
	case ledger.KindPayoutReserve:
		return "into_payout"
	case ledger.KindPayoutReturn:
		return "back"
	default:
		return "out"
	}
}
