package statements

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// The kinds of a customer's movements.
const (
	kindDeposit    = "deposit"
	kindWithdrawal = "withdrawal"
	kindCredit     = "credit"
	kindOther      = "other"
	kindHold       = "hold"
	kindRelease    = "release"
)

// Balance is a customer's prepaid balance at a moment.
type Balance struct{ Available, Held money.Amount }

// Total is all of it.
func (b Balance) Total() money.Amount { return b.Available + b.Held }

// Totals sum a customer's statement up.
type Totals struct {
	Deposits, Withdrawals, Charges, Credits, Other money.Amount // Other is signed
	NotCharged                                     money.Amount
	MS                                             int64
}

// change is what the lines come to.
func (t Totals) change() money.Amount {
	return t.Deposits - t.Withdrawals - t.Charges + t.Credits + t.Other
}

// Cluster is one cluster's part of a statement.
type Cluster struct {
	ID         ids.Cluster
	Name       string
	GPUModel   string
	MS         int64
	Charged    money.Amount
	NotCharged money.Amount
	Leases     []Lease
	Credits    []Credit
}

// Customer is a customer's statement.
type Customer struct {
	Head
	Opening, Closing Balance
	Totals           Totals
	Clusters         []Cluster
	Movements        []Movement // of the whole balance, oldest first
	Holds            []Movement // within it: what is set aside is positive
	ChargeDays       int
	heldMoves        money.Amount // of Movements, what moved the held balance
}

// Customer makes a customer's statement.
func (s *Service) Customer(ctx context.Context, org ids.Org, period Period) (c Customer, err error) {
	if err := period.Validate(); err != nil {
		return Customer{}, err
	}
	err = s.snapshot(ctx, func(tx pgx.Tx) error {
		c, err = s.customer(ctx, tx, org, period)
		return err
	})
	return c, err
}

func (s *Service) customer(ctx context.Context, tx pgx.Tx, org ids.Org, period Period) (c Customer, err error) {
	if c.Head, err = s.head(ctx, tx, org, period); err != nil {
		return c, err
	}
	book, err := s.readBalances(ctx, tx, c.Head, ledger.CustomerAvailable, ledger.CustomerHeld)
	if err != nil {
		return c, err
	}
	c.Opening = Balance{book.opening[ledger.CustomerAvailable], book.opening[ledger.CustomerHeld]}
	c.Closing = Balance{book.closing[ledger.CustomerAvailable], book.closing[ledger.CustomerHeld]}
	if err := c.readLines(ctx, tx, s); err != nil {
		return c, err
	}
	err = c.tieOut(ctx, s)
	return c, err
}

func (c *Customer) readLines(ctx context.Context, tx pgx.Tx, s *Service) error {
	leases, err := readLeases(ctx, tx, c.Head, asCustomer)
	if err != nil {
		return err
	}
	credits, err := readCredits(ctx, tx, c.Head, asCustomer)
	if err != nil {
		return err
	}
	if err := c.addClusters(ctx, tx, leases, credits); err != nil {
		return err
	}
	if err := c.readMoves(ctx, tx, s, ledger.CustomerAvailable); err != nil || c.heldRest() == 0 {
		return err
	}
	// Something else moved the held balance: then its charges, too, are read one by one.
	return c.readMoves(ctx, tx, s, ledger.CustomerHeld)
}

func (c *Customer) readMoves(ctx context.Context, tx pgx.Tx, s *Service, account ledger.Kind) error {
	transfers, err := s.readTransfers(ctx, tx, c.Head, account)
	for _, t := range transfers {
		c.move(t)
	}
	return err
}

// heldRest is what the change of the held balance has beside holds and charges.
func (c *Customer) heldRest() money.Amount {
	rest := c.Closing.Held - c.Opening.Held + c.Totals.Charges
	for _, h := range c.Holds {
		rest -= h.Amount
	}
	return rest
}

// move adds a transfer to the lines that it belongs to. What moves between the two parts of the balance is on both accounts; the available
// one tells.
func (c *Customer) move(t transfer) {
	t.Name = t.cluster
	switch {
	case t.account == ledger.CustomerAvailable && t.other == ledger.CustomerHeld:
		t.Amount = -t.Amount
		t.Kind, t.Text = holdInWords(t)
		c.Holds = append(c.Holds, t.Movement)
		return
	case t.account == ledger.CustomerHeld && t.other == ledger.CustomerAvailable:
		return
	}
	t.Kind, t.Text = customerInWords(t)
	c.Movements = append(c.Movements, t.Movement)
	if t.account == ledger.CustomerHeld {
		c.heldMoves += t.Amount
	}
	switch t.Kind {
	case kindDeposit:
		c.Totals.Deposits += t.Amount
	case kindWithdrawal:
		c.Totals.Withdrawals -= t.Amount
	case kindCredit:
		c.Totals.Credits += t.Amount
	default:
		c.Totals.Other += t.Amount
	}
}

func holdInWords(t transfer) (kind, text string) {
	if t.Amount > 0 {
		return kindHold, "Set aside for a booking"
	}
	return kindRelease, "The unused rest of a hold came back"
}

func customerInWords(t transfer) (kind, text string) {
	into := t.Amount > 0
	switch t.other {
	case ledger.ChainDeposits, ledger.ChainTreasury, ledger.ChainSuspense, ledger.Suspense:
		if into {
			return kindDeposit, "Deposit received"
		}
		return kindWithdrawal, "Sent out on chain"
	case ledger.PayoutInFlight:
		if into {
			return kindWithdrawal, "A withdrawal that did not happen came back"
		}
		return kindWithdrawal, "Withdrawn"
	case ledger.OwnerPayable, ledger.PlatformFees, ledger.PlatformCapital:
		if into {
			return kindCredit, inWordsOf(t, "Given back")
		}
	case ledger.CustomerAvailable, ledger.CustomerHeld: // between organisations
	}
	return kindOther, inWordsOf(t, "Another movement")
}

// inWordsOf is what an entry says of itself.
func inWordsOf(t transfer, otherwise string) string {
	if t.memo != "" {
		return t.memo
	}
	return otherwise
}

// addClusters groups leases and credits, which come in the order of clusters.
func (c *Customer) addClusters(ctx context.Context, tx pgx.Tx, leases []Lease, credits []placed) error {
	at := make(map[ids.Cluster]int)
	for _, l := range leases {
		i, known := at[l.Cluster]
		if !known {
			i, at[l.Cluster] = len(c.Clusters), len(c.Clusters)
			c.Clusters = append(c.Clusters, Cluster{ID: l.Cluster, Name: l.Name, GPUModel: l.GPUModel})
		}
		cluster := &c.Clusters[i]
		cluster.Leases = append(cluster.Leases, l)
		cluster.MS, cluster.Charged = cluster.MS+l.MS, cluster.Charged+l.Charged
		c.Totals.MS, c.Totals.Charges, c.ChargeDays = c.Totals.MS+l.MS, c.Totals.Charges+l.Charged, c.ChargeDays+l.Days
	}
	for _, credit := range credits {
		i, known := at[credit.cluster]
		if !known {
			cluster := Cluster{ID: credit.cluster}
			if err := tx.QueryRow(ctx, `SELECT name, gpu_model FROM clusters WHERE id = $1`, cluster.ID).Scan(&cluster.Name, &cluster.GPUModel); err != nil {
				return fmt.Errorf("read cluster: %w", err)
			}
			i, at[credit.cluster] = len(c.Clusters), len(c.Clusters)
			c.Clusters = append(c.Clusters, cluster)
		}
		cluster := &c.Clusters[i]
		cluster.Credits = append(cluster.Credits, credit.Credit)
		cluster.NotCharged += credit.Amount
		c.Totals.NotCharged += credit.Amount
	}
	return nil
}

// tieOut compares the lines with the ledger's balances, of both parts.
func (c *Customer) tieOut(ctx context.Context, s *Service) error {
	if rest := c.heldRest(); rest != c.heldMoves {
		return s.mismatch(ctx, c.Head, "change of the held balance", c.heldMoves, rest)
	}
	if change := c.Closing.Total() - c.Opening.Total(); c.Totals.change() != change {
		return s.mismatch(ctx, c.Head, "change of the balance", c.Totals.change(), change)
	}
	return nil
}
