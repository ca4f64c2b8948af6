package payouts

import (
	"testing"

	"github.com/gagliardetto/solana-go"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/txn"
)

// roomIn is what a transaction of a format can pay.
func roomIn(t *testing.T, format txn.Format) capacity {
	t.Helper()
	address := func() chain.Address { return solana.NewWallet().PublicKey() }
	keys := txn.Keys{Treasury: address(), TokenAccount: address(), Mint: address(), TokenProgram: chain.TokenProgram}
	treasury, err := txn.New(keys, &txn.Table{Address: address(), Addresses: []chain.Address{keys.TokenAccount, keys.Mint, {1}, {2}, {3}}})
	check(t, err)
	return capacity{treasury: treasury, format: format}
}

// plan distributes payees that are all known.
func plan(candidates []candidate, limit money.Amount, room capacity) (groups []group) {
	p := planner{limit: limit, room: room}
	for _, payee := range candidates {
		groups = append(groups, p.add(payee)...)
	}
	return append(groups, p.rest()...)
}

func TestPlanPlacesEveryPayeeOnceWithinAllBounds(t *testing.T) {
	t.Parallel()
	rooms := []capacity{roomIn(t, txn.V1), roomIn(t, txn.V0), roomIn(t, txn.Legacy)}
	rapid.Check(t, func(t *rapid.T) {
		const limit = 1_000
		room := rapid.SampledFrom(rooms).Draw(t, "format")
		candidates := make([]candidate, rapid.IntRange(0, 300).Draw(t, "payees"))
		for i := range candidates {
			candidates[i] = candidate{
				org: ids.New[ids.Org](), amount: money.Amount(rapid.IntRange(1, limit).Draw(t, "amount")),
				tokenAccount:  chain.Address{byte(rapid.IntRange(0, 255).Draw(t, "account"))}, // some share one
				createAccount: rapid.Bool().Draw(t, "create"),
			}
		}
		placed := map[ids.Org]bool{}
		for _, g := range plan(candidates, limit, room) {
			accounts, creates, listed, total := map[chain.Address]bool{}, 0, 0, money.Amount(0)
			for _, payee := range g.payees {
				if placed[payee.org] || accounts[payee.tokenAccount] {
					t.Fatal("a payee or a token account is in a plan twice")
				}
				placed[payee.org], accounts[payee.tokenAccount] = true, true
				total += payee.amount
				if payee.createAccount {
					creates++
				}
				if room.treasury.Lists(payee.tokenAccount) {
					listed++
				}
			}
			if total != g.total || total > limit || creates != g.creates || !room.fits(len(g.payees), creates, listed) {
				t.Fatalf("%d payees, %d new accounts, %d base units do not fit", len(g.payees), creates, total)
			}
		}
		if len(placed) != len(candidates) {
			t.Fatalf("%d of %d payees are placed", len(placed), len(candidates))
		}
	})
}

func TestFitsKnowsWhatAClusterTakes(t *testing.T) {
	t.Parallel()
	room := roomIn(t, txn.V1)
	for _, test := range []struct {
		payees, creates int
		want            bool
	}{
		{56, 0, true},
		{57, 0, false}, // the 65th account
		{54, 1, true},
		{55, 1, false}, // the 65th account again: the creating program and the wallet
		{22, 8, true},  // executed on the local chain by TestOneTransactionCreatesAsManyAccountsAsThePlanSays
		{23, 8, false}, // the 65th instruction, counting those that programs call
		{9, 9, false},
	} {
		if got := room.fits(test.payees, test.creates, 0); got != test.want {
			t.Errorf("%d payees with %d new accounts: %v, want %v", test.payees, test.creates, got, test.want)
		}
	}
}
