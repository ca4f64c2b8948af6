package deposits_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// spamChain is the real chain on which somebody has opened many accounts for every wallet, of two mints: one that exists and one that
// does not any more.
type spamChain struct {
	*chain.Client
	mint    chain.Address
	tooLong bool
	ofOurs  bool // more accounts of the platform's token than can be read, too
}

const spamPerMint = 150

func (c spamChain) TokenAccounts(ctx context.Context, owner chain.Address) ([]chain.TokenAccount, error) {
	accounts, err := c.Client.TokenAccounts(ctx, owner)
	if c.tooLong {
		return nil, fmt.Errorf("list: %w", chain.ErrTooLong)
	}
	for i := range 2 * spamPerMint {
		mint := c.mint
		if i%2 == 1 {
			mint = chain.Address{9, 9}
		}
		accounts = append(accounts, chain.TokenAccount{
			Address: chain.Address{7, owner[0], owner[1], byte(i >> 8), byte(i)}, Mint: mint, Owner: owner, Program: chain.TokenProgram,
		})
	}
	return accounts, err
}

func (c spamChain) TokenAccountsOf(ctx context.Context, owner, mint chain.Address) ([]chain.TokenAccount, chain.Slot, error) {
	if c.ofOurs {
		return nil, 0, fmt.Errorf("list: %w", chain.ErrTooLong)
	}
	return c.Client.TokenAccountsOf(ctx, owner, mint)
}

// TestSpamKeepsNobodyFromBeingCredited, and not all of it is followed.
func TestSpamKeepsNobodyFromBeingCredited(t *testing.T) {
	t.Parallel()
	for name, spam := range map[string]spamChain{
		"many": {}, "more than can be read": {tooLong: true}, "more of ours than can be read": {tooLong: true, ofOurs: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			mint, err := b.chain.CreateToken(t.Context(), chain.TokenProgram, 0)
			if err != nil {
				t.Fatal(err)
			}
			spam.Client, spam.mint = b.chain.Client(), mint
			b.Service, err = deposits.New(b.pool, b.book, spam, b.chain.Wallets, deposits.Config{
				TokenProgram: chain.TokenProgram, Treasury: b.chain.Treasury, Minimum: 1, Interval: time.Hour,
			}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			org, wallet := b.customer("Customer")
			b.send(wallet, 5)
			b.poll()
			b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), 5)
			var foreign, ours int
			err = b.pool.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE mint = $1), count(*) FILTER (WHERE mint = $2) FROM watched_accounts WHERE wallet = $3`,
				mint.String(), b.chain.Mint.String(), wallet.String()).Scan(&foreign, &ours)
			if err != nil || foreign > 100 || (foreign > 0) == spam.tooLong || ours != 1 {
				t.Errorf("%d accounts of a foreign token and %d of ours are followed, %v", foreign, ours, err)
			}
		})
	}
}
