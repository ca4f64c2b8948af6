package api

import (
	"context"
	"net/url"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/metering"
)

// Meter is what the API needs of usage and balances; *metering.Meter is one.
type Meter interface {
	Wallet(ctx context.Context, org ids.Org) (metering.Wallet, error)
	Transfers(ctx context.Context, org ids.Org, before ids.Transfer, limit int) ([]metering.StatementLine, error)
	ClusterCost(ctx context.Context, org ids.Org, cluster ids.Cluster) (metering.ClusterCost, error)
	Earnings(ctx context.Context, org ids.Org) (metering.Earnings, error)
}

// Deposits is what the API needs of incoming transfers; *deposits.Service is one.
type Deposits interface {
	Address(ctx context.Context, org ids.Org) (deposits.Address, error)
	Deposits(ctx context.Context, org ids.Org, before ids.Deposit, limit int) ([]deposits.Deposit, error)
	Suspense(ctx context.Context, before ids.Deposit, limit int) ([]deposits.Deposit, error)
	Decide(ctx context.Context, id ids.Deposit, decision deposits.Decision) (deposits.Deposit, error)
	Minimum() money.Amount
}

// Faucet sends test tokens to an organisation's deposit address and returns the transaction's signature. Only a local network
// has one.
type Faucet interface {
	Drip(ctx context.Context, org ids.Org, amount money.Amount) (signature string, err error)
}

// maxFaucet is the most that the faucet gives at once, in whole tokens.
const maxFaucet = "10000"

func (s *Server) getWallet(ctx context.Context, _ *orgInput) (*output[apiv1.Wallet], error) {
	org := callerOf(ctx).org.Org
	wallet, err := s.Meter.Wallet(ctx, org)
	if err != nil {
		return nil, err
	}
	address, err := s.Deposits.Address(ctx, org)
	if err != nil {
		return nil, err
	}
	return answer(apiv1.Wallet{
		Available: s.money(wallet.Available), Held: s.money(wallet.Held), SpendPerHour: s.money(wallet.SpendPerHour),
		DepositAddress: address.Wallet, DepositTokenAccount: address.TokenAccount, MinimumDeposit: s.money(s.Deposits.Minimum()),
		MinimumWithdrawal: s.money(s.Payouts.Minimum()),
		SolanaPayURL:      "solana:" + address.Wallet + "?" + url.Values{"spl-token": {s.Currency.Mint}, "label": {"Muster"}}.Encode(),
	}), nil
}

func (s *Server) listWalletLines(ctx context.Context, in *orgListInput) (*output[apiv1.List[apiv1.WalletLine]], error) {
	from, err := readCursor(ids.Transfer{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	lines, err := s.Meter.Transfers(ctx, callerOf(ctx).org.Org, from, in.Limit)
	if err != nil {
		return nil, err
	}
	return page(lines, in.Limit, func(l metering.StatementLine) ids.Transfer { return l.Transfer }, s.wireWalletLine), nil
}

func (s *Server) listDeposits(ctx context.Context, in *orgListInput) (*output[apiv1.List[apiv1.Deposit]], error) {
	from, err := readCursor(ids.Deposit{}, in.Cursor)
	if err != nil {
		return nil, err
	}
	rows, err := s.Deposits.Deposits(ctx, callerOf(ctx).org.Org, from, in.Limit)
	if err != nil {
		return nil, err
	}
	return page(rows, in.Limit, func(d deposits.Deposit) ids.Deposit { return d.ID }, wireDeposit), nil
}

func (s *Server) useFaucet(ctx context.Context, in *orgBody[apiv1.FaucetRequest]) (*output[apiv1.FaucetResult], error) {
	amount, err := s.amount("body.amount", in.Body.Amount)
	if err != nil {
		return nil, err
	}
	most, err := s.Currency.Parse(maxFaucet)
	if err != nil {
		return nil, err
	}
	if amount <= 0 || amount > most {
		return nil, errs.InvalidField("body.amount", "the faucet gives more than 0 and at most %s %s", maxFaucet, s.Currency.Symbol)
	}
	signature, err := s.Faucet.Drip(ctx, callerOf(ctx).org.Org, amount)
	if err != nil {
		return nil, err
	}
	return answer(apiv1.FaucetResult{Signature: signature, Amount: s.money(amount)}), nil
}

// accountNames are the ledger's accounts in a customer's and owner's words.
var accountNames = map[ledger.Kind]string{
	ledger.CustomerAvailable: "available", ledger.CustomerHeld: "held", ledger.OwnerPayable: "payable", ledger.PayoutInFlight: "in_flight",
}

func (s *Server) wireWalletLine(l metering.StatementLine) apiv1.WalletLine {
	return apiv1.WalletLine{
		ID: l.Transfer, At: l.At, Kind: l.Kind, Text: l.Text, Account: accountNames[l.Account], Amount: s.money(l.Amount),
		Balance: s.money(l.Balance), ClusterID: optional(l.Cluster), Signature: l.Signature,
	}
}

// wireDeposit shows a deposit as its customer may see it: without the operator's note.
func wireDeposit(d deposits.Deposit) apiv1.Deposit {
	wire := apiv1.Deposit{
		ID: d.ID, At: d.At, Amount: d.Amount, Mint: d.Mint, State: d.State, Reason: d.Reason, Signature: d.Signature, Customer: d.Customer, Sender: d.Sender,
		Outcome: d.Outcome,
	}
	if r := d.Refund; r != nil {
		wire.Refund = &apiv1.Refund{ID: r.ID, Address: r.Wallet, State: r.State, Attention: r.Attention, BatchID: optional(r.Batch)}
	}
	return wire
}
