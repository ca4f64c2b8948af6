package chain_test

import (
	"bytes"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/gagliardetto/solana-go"
	tokenprogram "github.com/gagliardetto/solana-go/programs/token"

	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/internal/chaintest"
)

func TestTokenAccountsOfOneMintSayWhoElseControlsThem(t *testing.T) {
	t.Parallel()
	local := chaintest.Start(t)
	delegate, closer := newKey(t).PublicKey(), newKey(t).PublicKey()
	account := local.TreasuryTokenAccount
	_, failure := local.Execute(t, []solana.PrivateKey{local.TreasuryKey},
		tokenprogram.NewApproveInstruction(17, account, delegate, local.Treasury, nil).Build(),
		tokenprogram.NewSetAuthorityInstruction(tokenprogram.AuthorityCloseAccount, closer, account, local.Treasury, nil).Build())
	if failure != "" {
		t.Fatal(failure)
	}
	other, err := local.CreateToken(t.Context(), chain.Token2022Program, 3)
	check(t, err)
	_, err = local.MintOther(t.Context(), other, local.Treasury, 7)
	check(t, err)
	ours, slot, err := local.Client().TokenAccountsOf(t.Context(), local.Treasury, local.Mint)
	check(t, err)
	if len(ours) != 1 || slot == 0 || ours[0].Address != account || ours[0].Delegate != delegate || ours[0].Delegated != 17 || ours[0].CloseAuthority != closer {
		t.Errorf("the accounts of our token are %+v at %d", ours, slot)
	}
	theirs, _, err := local.Client().TokenAccountsOf(t.Context(), local.Treasury, other)
	check(t, err)
	if len(theirs) != 1 || theirs[0].Amount != 7 || !theirs[0].Delegate.IsZero() || theirs[0].Delegated != 0 || !theirs[0].CloseAuthority.IsZero() {
		t.Errorf("the accounts of the other token are %+v", theirs)
	}
	mints, err := local.Client().Mints(t.Context(), local.Mint, account, other)
	check(t, err)
	if len(mints) != 2 || mints[other].Decimals != 3 || mints[other].Program != chain.Token2022Program {
		t.Errorf("the mints are %+v", mints)
	}
}

// TestAnAnswerThatIsTooLongIsAnErrorOfItsOwn, and is not asked for again.
func TestAnAnswerThatIsTooLongIsAnErrorOfItsOwn(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	client := against(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte(`{"jsonrpc":"2.0","id":1,"result":{"context":{"slot":1},"value":["`))
		for range 33 {
			if _, err := w.Write(bytes.Repeat([]byte("a"), 1<<20)); err != nil {
				return // the client has read enough
			}
		}
		_, _ = w.Write([]byte(`"]}}`))
	})
	if _, err := client.TokenAccounts(t.Context(), newKey(t).PublicKey()); !errors.Is(err, chain.ErrTooLong) {
		t.Errorf("the error is %v", err)
	}
	if asked.Load() != 1 {
		t.Errorf("it was asked for %d times", asked.Load())
	}
}
