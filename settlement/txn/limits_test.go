package txn_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/settlement/txn"
)

// Lengths of memos.
const (
	shortMemo = 19
	idMemo    = 30 // a batch's id
	fullMemo  = 74 // with the root of its manifest
)

func newKey(t *testing.T) solana.PrivateKey {
	t.Helper()
	key, err := solana.NewRandomPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// fixture is a treasury with a table that lists what all its messages use, but for the nonce.
type fixture struct {
	key      solana.PrivateKey
	treasury *txn.Treasury
	payout   *txn.Payout
}

func newFixture(t *testing.T, payees int, listed ...solana.PublicKey) fixture {
	t.Helper()
	key := newKey(t)
	f := fixture{key: key, payout: &txn.Payout{
		Nonce:  txn.Nonce{Account: newKey(t).PublicKey(), Value: solana.Hash(newKey(t).PublicKey())},
		Memo:   strings.Repeat("m", fullMemo),
		Budget: txn.Budget{Units: 10_000, LoadedData: 2 << 20, PriorityFee: 800},
	}}
	for range payees {
		f.payout.Payees = append(f.payout.Payees, txn.Payee{Account: newKey(t).PublicKey(), Wallet: newKey(t).PublicKey(), Amount: 1})
	}
	keys := txn.Keys{
		Treasury: key.PublicKey(), TokenAccount: newKey(t).PublicKey(), Mint: newKey(t).PublicKey(), TokenProgram: solana.TokenProgramID, Decimals: 6,
	}
	var err error
	f.treasury, err = txn.New(keys, &txn.Table{
		Address: newKey(t).PublicKey(), Addresses: append([]solana.PublicKey{keys.TokenAccount, keys.Mint}, listed...),
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestHowManyPayeesAFormatHolds(t *testing.T) {
	t.Parallel()
	plain, sysvar := newFixture(t, 1).treasury, newFixture(t, 1, solana.SysVarRecentBlockHashesPubkey).treasury
	for _, test := range []struct {
		treasury *txn.Treasury
		format   txn.Format
		memo     int
		want     int
	}{
		{plain, txn.V1, shortMemo, 56},
		{plain, txn.V1, txn.MaxMemo, 56},
		{plain, txn.V0, shortMemo, 45},
		{plain, txn.V0, idMemo, 44},
		{plain, txn.V0, fullMemo, 42},
		{sysvar, txn.V0, shortMemo, 47},
		{sysvar, txn.V0, fullMemo, 44},
		{plain, txn.Legacy, shortMemo, 16},
		{plain, txn.Legacy, fullMemo, 15},
	} {
		if got := test.treasury.Most(test.format, test.memo); got != test.want {
			t.Errorf("%s with a memo of %d bytes: %d payees, want %d", test.format, test.memo, got, test.want)
		}
	}
	for creates, want := range map[int]bool{8: true, 10: true, 11: false} {
		if got := plain.Fits(txn.V1, txn.Load{Payees: creates, Creates: creates, Memo: fullMemo}); got != want {
			t.Errorf("%d new accounts fit: %v, want %v", creates, got, want)
		}
	}
}

func TestMessagesThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(f *fixture){
		"nobody":                 func(f *fixture) { f.payout.Payees = nil },
		"nothing":                func(f *fixture) { f.payout.Payees[1].Amount = 0 },
		"the same account twice": func(f *fixture) { f.payout.Payees[1].Account = f.payout.Payees[0].Account },
		"the treasury itself":    func(f *fixture) { f.payout.Payees[1].Account = f.key.PublicKey() },
		"a program":              func(f *fixture) { f.payout.Payees[1].Account = solana.TokenProgramID },
		"the nonce":              func(f *fixture) { f.payout.Payees[1].Account = f.payout.Nonce.Account },
		"a wallet that is a payee": func(f *fixture) {
			f.payout.Payees[1].Create, f.payout.Payees[1].Wallet = true, f.payout.Payees[0].Account
		},
		"no compute units":       func(f *fixture) { f.payout.Budget.Units = 0 },
		"too many compute units": func(f *fixture) { f.payout.Budget.Units = 1_400_001 },
		"no loaded data":         func(f *fixture) { f.payout.Budget.LoadedData = 0 },
		"a long memo":            func(f *fixture) { f.payout.Memo = strings.Repeat("m", txn.MaxMemo+1) },
	} {
		f := newFixture(t, 2)
		if _, err := f.treasury.Payout(txn.V1, f.payout); err != nil {
			t.Errorf("%s: before the change: %v", name, err)
		}
		change(&f)
		if message, err := f.treasury.Payout(txn.V1, f.payout); err == nil || errors.Is(err, txn.ErrTooLarge) {
			t.Errorf("%s: a message of %d bytes (%v)", name, len(message), err)
		}
	}
}

func TestVersion0NeedsATable(t *testing.T) {
	t.Parallel()
	treasury, err := txn.New(txn.Keys{
		Treasury: newKey(t).PublicKey(), TokenAccount: newKey(t).PublicKey(), Mint: newKey(t).PublicKey(), TokenProgram: solana.TokenProgramID,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := treasury.Most(txn.V0, 0); got != 0 {
		t.Errorf("without a table, %d payees fit", got)
	}
	if _, err := treasury.Payout(txn.V0, newFixture(t, 1).payout); err == nil {
		t.Error("a message without a table")
	}
}

func TestTheNonceIsNeverLookedUp(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 3)
	nonce := f.payout.Nonce.Account
	f = newFixture(t, 3, nonce)
	f.payout.Nonce.Account = nonce
	message, err := f.treasury.Payout(txn.V0, f.payout)
	if err != nil {
		t.Fatal(err)
	}
	var decoded solana.Message
	if err := decoded.UnmarshalBase64(base64.StdEncoding.EncodeToString(message)); err != nil {
		t.Fatal(err)
	}
	if !decoded.AccountKeys.Contains(nonce) {
		t.Error("the nonce account is not among the message's own accounts")
	}
}

func TestPayoutsAreLaidOutWithoutAllocations(t *testing.T) { //nolint:paralleltest // it counts what the process allocates
	f := newFixture(t, txn.MaxPayees)
	buffer := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		var err error
		if buffer, err = f.treasury.AppendPayout(buffer[:0], txn.V1, f.payout); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestJoinVerifiesEachSignature(t *testing.T) {
	t.Parallel()
	f, wallet := newFixture(t, 1), newKey(t)
	message, err := f.treasury.Sweep(txn.V1, &txn.Sweep{
		Nonce: f.payout.Nonce, Wallet: wallet.PublicKey(), Source: newKey(t).PublicKey(), Amount: 1, Budget: f.payout.Budget,
	})
	if err != nil {
		t.Fatal(err)
	}
	sign := func(key solana.PrivateKey) solana.Signature {
		return solana.SignatureFromBytes(ed25519.Sign(ed25519.PrivateKey(key), message))
	}
	wire, err := txn.Join(message, sign(f.key), sign(wallet))
	if err != nil {
		t.Fatal(err)
	}
	transaction, err := solana.TransactionFromBytes(wire)
	if err != nil || transaction.VerifySignatures() != nil {
		t.Errorf("solana-go does not take the transaction: %v", err)
	}
	for name, signatures := range map[string][]solana.Signature{
		"one is missing":  {sign(f.key)},
		"the wrong order": {sign(wallet), sign(f.key)},
		"another's":       {sign(f.key), sign(newKey(t))},
	} {
		if _, err := txn.Join(message, signatures...); err == nil {
			t.Errorf("%s: joined", name)
		}
	}
	for _, message := range [][]byte{nil, {0x81}, {0x82, 1}, message[:40]} {
		if _, err := txn.Unsigned(message); err == nil {
			t.Errorf("%x is taken for a message", message)
		}
	}
}
