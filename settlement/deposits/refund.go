package deposits

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/payouts"
)

// Refunds sends tokens out; *payouts.Service is one.
type Refunds interface {
	// Request stores what is to be sent out with the next run, and puts it in flight in the ledger.
	Request(ctx context.Context, tx pgx.Tx, r payouts.Request) (ids.Withdrawal, error)
	// GiveUpRefund takes a request back. What is in a batch already is errs.Conflict.
	GiveUpRefund(ctx context.Context, tx pgx.Tx, id ids.Withdrawal) error
}

// Refund is how far one has come.
type Refund struct {
	ID        ids.Withdrawal
	Wallet    string
	State     string // requested, drafted or paid
	Attention string // why it is not paid yet
	Batch     ids.Batch
}

// sender is the one wallet that the tokens of a movement came from; zero if there are several, or none because they were issued.
func (w watched) sender(m chain.Movement) (sender chain.Address) {
	for _, c := range m.Counterparties {
		switch {
		case c.Post >= c.Pre:
		case c.Owner.IsZero() || (!sender.IsZero() && sender != c.Owner):
			return chain.Address{}
		default:
			sender = c.Owner
		}
	}
	return sender
}

// allowRefund says what stands against sending an arrival back.
func (s *Service) allowRefund(w suspended, d Decision) error {
	switch {
	case s.config.Refunds == nil:
		return errs.New(errs.Unavailable, "this process sends nothing out: it can only be credited, kept or held")
	case w.sender == "":
		return errs.InvalidField("outcome", "who sent it is not known: it was issued, came from several wallets, or came before senders were noted")
	case w.sender == s.config.Treasury.String():
		return errs.InvalidField("outcome", "the treasury itself sent it: there is nobody to refund")
	case w.org.IsZero() && d.Org.IsZero():
		return errs.InvalidField("org_id", "it reached the treasury's wallet, which is nobody's: name the organisation in whose name it is refunded")
	case !w.org.IsZero() && !d.Org.IsZero() && d.Org != w.org:
		return errs.InvalidField("org_id", "it is refunded to the wallet that sent it, in the name of the organisation whose address that used: name no other")
	}
	return nil
}

// refund asks for the tokens to be sent back, in the decision's transaction. The deposit's id is the reference, so that only one
// refund of it can live.
func (s *Service) refund(ctx context.Context, tx pgx.Tx, id ids.Deposit, w suspended, d Decision) (ids.Withdrawal, error) {
	org := w.org
	if org.IsZero() {
		org = d.Org
	}
	refund, err := s.config.Refunds.Request(ctx, tx, payouts.Request{
		Org: org, Purpose: payouts.PurposeRefund, From: ledger.Platform(ledger.Suspense), Amount: w.amount, Wallet: w.sender,
		Reference: id.String(), Refs: ledger.Refs{Deposit: id}, By: d.By,
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == foreignKeyViolation && pg.ConstraintName == "withdrawals_org_id_fkey" {
		return refund, errs.New(errs.NotFound, "there is no organisation %s", d.Org)
	}
	if err != nil {
		return refund, fmt.Errorf("ask for the refund: %w", err)
	}
	return refund, nil
}
