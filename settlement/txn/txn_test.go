package txn_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/gagliardetto/solana-go"
	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/settlement/txn"
)

func address(t *rapid.T, label string) (key solana.PublicKey) {
	copy(key[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, label))
	key[31] ^= 0x55 // rapid likes zeros, which are the system program's address
	key[0] |= 1
	return key
}

func drawKeys(t *rapid.T) txn.Keys {
	return txn.Keys{
		Treasury: address(t, "treasury"), TokenAccount: address(t, "token account"), Mint: address(t, "mint"),
		TokenProgram: rapid.SampledFrom([]solana.PublicKey{solana.TokenProgramID, solana.Token2022ProgramID}).Draw(t, "program"),
		Decimals:     rapid.Byte().Draw(t, "decimals"),
	}
}

func drawBudget(t *rapid.T) txn.Budget {
	return txn.Budget{
		Units: rapid.Uint32Range(1, 1_400_000).Draw(t, "units"), LoadedData: rapid.Uint32Range(1, 64<<20).Draw(t, "loaded data"),
		PriorityFee: rapid.Uint64Range(0, 1_000_000).Draw(t, "priority fee"),
	}
}

func drawNonce(t *rapid.T) txn.Nonce {
	return txn.Nonce{Account: address(t, "nonce"), Value: solana.Hash(address(t, "nonce value"))}
}

func drawMemo(t *rapid.T) string {
	return strings.Repeat("m", rapid.IntRange(0, txn.MaxMemo).Draw(t, "memo"))
}

func drawPayees(t *rapid.T) []txn.Payee {
	payees := make([]txn.Payee, rapid.IntRange(1, txn.MaxPayees).Draw(t, "payees"))
	creates := rapid.IntRange(0, 10).Draw(t, "creates")
	for i := range payees {
		payees[i] = txn.Payee{Account: address(t, "account"), Amount: rapid.Uint64Min(1).Draw(t, "amount")}
		if i < creates {
			payees[i].Create, payees[i].Wallet = true, address(t, "wallet")
		}
	}
	return rapid.Permutation(payees).Draw(t, "order")
}

// drawTable lists some of the accounts that a message may use, and others; never the nonce, which solana-go's builder would
// move into the table.
func drawTable(t *rapid.T, keys txn.Keys, payees []txn.Payee) *txn.Table {
	table := &txn.Table{Address: address(t, "table"), Addresses: []solana.PublicKey{address(t, "another account"), solana.SystemProgramID, keys.Treasury}}
	for _, candidate := range []solana.PublicKey{keys.TokenAccount, keys.Mint, solana.SysVarRecentBlockHashesPubkey} {
		if rapid.Bool().Draw(t, "listed") {
			table.Addresses = append(table.Addresses, candidate)
		}
	}
	for _, payee := range payees {
		if rapid.Bool().Draw(t, "listed") {
			table.Addresses = append(table.Addresses, payee.Account)
		}
		if payee.Create && rapid.Bool().Draw(t, "listed") {
			table.Addresses = append(table.Addresses, payee.Wallet)
		}
	}
	table.Addresses = rapid.Permutation(table.Addresses).Draw(t, "order of the table")
	return table
}

var formats = []txn.Format{txn.V1, txn.V0, txn.Legacy}

func limitOf(f txn.Format) int {
	if f == txn.V1 {
		return 4096
	}
	return 1232
}

// distinct reports whether no key is drawn twice, which such messages refuse.
func distinct(keys ...solana.PublicKey) bool {
	seen := map[solana.PublicKey]bool{}
	for _, key := range keys {
		if seen[key] {
			return false
		}
		seen[key] = true
	}
	return true
}

func TestPayoutsAreTheBytesOfSolanaGosBuilder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		keys, nonce, payees := drawKeys(t), drawNonce(t), drawPayees(t)
		used := []solana.PublicKey{keys.Treasury, keys.TokenAccount, keys.Mint, nonce.Account}
		for _, payee := range payees {
			used = append(used, payee.Account)
			if payee.Create {
				used = append(used, payee.Wallet)
			}
		}
		if !distinct(used...) {
			t.Skip("an address was drawn twice")
		}
		table := drawTable(t, keys, payees)
		treasury, err := txn.New(keys, table)
		if err != nil {
			t.Fatal(err)
		}
		payout := &txn.Payout{Nonce: nonce, Payees: payees, Memo: drawMemo(t), Budget: drawBudget(t)}
		for _, f := range formats {
			wantSame(t, f, keys, table, treasury, payout)
		}
	})
}

func wantSame(t *rapid.T, f txn.Format, keys txn.Keys, table *txn.Table, treasury *txn.Treasury, payout *txn.Payout) {
	load := txn.Load{Payees: len(payout.Payees), Memo: len(payout.Memo)}
	for _, payee := range payout.Payees {
		if payee.Create {
			load.Creates++
		}
		if f == txn.V0 && treasury.Lists(payee.Account) {
			load.Listed++
		}
	}
	message, err := treasury.Payout(f, payout)
	if !treasury.Fits(f, load) {
		if !errors.Is(err, txn.ErrTooLarge) {
			t.Fatalf("%s: %+v does not fit, and building it says %v", f, load, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %+v: %v", f, load, err)
	}
	want, wire := wireOf(t, built(t, f, keys, table, payout.Nonce, payout.Budget, payoutInstructions(keys, payout)))
	if !bytes.Equal(message, want) {
		t.Fatalf("%s: the message is\n%x, solana-go's\n%x", f, message, want)
	}
	if got, err := txn.Unsigned(message); err != nil || !bytes.Equal(got, wire) {
		t.Fatalf("%s: the transaction is not solana-go's: %v", f, err)
	}
	if len(wire) > limitOf(f) {
		t.Fatalf("%s: %d bytes are said to fit", f, len(wire))
	}
}

func TestCancelsAndSweepsAreTheBytesOfSolanaGosBuilder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		keys, nonce, text, budget := drawKeys(t), drawNonce(t), drawMemo(t), drawBudget(t)
		sweep := &txn.Sweep{
			Nonce: nonce, Wallet: address(t, "wallet"), Source: address(t, "source"), Amount: rapid.Uint64Min(1).Draw(t, "amount"), Memo: text, Budget: budget,
		}
		if !distinct(keys.Treasury, keys.TokenAccount, keys.Mint, nonce.Account, sweep.Wallet, sweep.Source) {
			t.Skip("an address was drawn twice")
		}
		table := drawTable(t, keys, []txn.Payee{{Account: sweep.Source}})
		treasury, err := txn.New(keys, table)
		if err != nil {
			t.Fatal(err)
		}
		move := transfer(keys, sweep.Source, keys.TokenAccount, sweep.Wallet, sweep.Amount)
		for _, f := range formats {
			got, err := treasury.Cancel(f, &txn.Cancel{Nonce: nonce, Memo: text, Budget: budget})
			want, _ := wireOf(t, built(t, f, keys, table, nonce, budget, memo(text)))
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: the cancellation is\n%x (%v), solana-go's\n%x", f, got, err, want)
			}
			got, err = treasury.Sweep(f, sweep)
			want, wire := wireOf(t, built(t, f, keys, table, nonce, budget, append([]solana.Instruction{move}, memo(text)...)))
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: the sweep is\n%x (%v), solana-go's\n%x", f, got, err, want)
			}
			if unsigned, err := txn.Unsigned(got); err != nil || !bytes.Equal(unsigned, wire) {
				t.Fatalf("%s: the sweep's transaction is not solana-go's: %v", f, err)
			}
		}
	})
}
