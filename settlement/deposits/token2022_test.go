package deposits_test

import (
	"encoding/binary"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/deposits"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// feeToken is a token of Token-2022 that keeps a hundredth of each transfer, and who has some.
type feeToken struct {
	mint   chain.Address
	sender solana.PrivateKey
}

const (
	feeDecimals = 6
	feeBps      = 100
	coin        = 1_000_000 // base units of it
)

func (b *bench) feeToken() feeToken {
	b.Helper()
	sender, err := b.chain.Engineer.Key()
	if err != nil {
		b.Fatal(err)
	}
	key, err := solana.NewRandomPrivateKey()
	if err != nil {
		b.Fatal(err)
	}
	const ( // sizes and instructions of Token-2022
		size           = 278 // a mint with the extension
		lamports       = 10_000_000
		createAccount  = 0
		transferFee    = 26
		initializeMint = 20
		mintTo         = 7
		capped         = math.MaxUint64
	)
	create := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(nil, createAccount), lamports)
	create = append(binary.LittleEndian.AppendUint64(create, size), chain.Token2022Program[:]...)
	fee := binary.LittleEndian.AppendUint16([]byte{transferFee, 0, 0, 0}, feeBps) // nobody may change it, nobody collects it
	fee = binary.LittleEndian.AppendUint64(fee, capped)
	authority := sender.PublicKey()
	initialize := append(append([]byte{initializeMint, feeDecimals}, authority[:]...), 0)
	token := feeToken{mint: key.PublicKey(), sender: sender}
	account, open := b.openAccount(token, authority)
	mint := solana.Meta(token.mint).WRITE()
	_, failure := b.chain.Execute(b, []solana.PrivateKey{sender, key},
		solana.NewInstruction(solana.SystemProgramID, solana.AccountMetaSlice{
			solana.Meta(authority).WRITE().SIGNER(), solana.Meta(token.mint).WRITE().SIGNER(),
		}, create),
		solana.NewInstruction(chain.Token2022Program, solana.AccountMetaSlice{mint}, fee),
		solana.NewInstruction(chain.Token2022Program, solana.AccountMetaSlice{mint}, initialize),
		open,
		solana.NewInstruction(chain.Token2022Program, solana.AccountMetaSlice{
			mint, solana.Meta(account).WRITE(), solana.Meta(authority).SIGNER(),
		}, binary.LittleEndian.AppendUint64([]byte{mintTo}, 100*coin)))
	if failure != "" {
		b.Fatal(failure)
	}
	return token
}

// openAccount makes the instruction that opens a wallet's own account of the token.
func (b *bench) openAccount(token feeToken, wallet chain.Address) (chain.Address, solana.Instruction) {
	b.Helper()
	const createIdempotent = 1
	account, err := chain.AssociatedTokenAccount(wallet, token.mint, chain.Token2022Program)
	if err != nil {
		b.Fatal(err)
	}
	return account, solana.NewInstruction(solana.SPLAssociatedTokenAccountProgramID, solana.AccountMetaSlice{
		solana.Meta(token.sender.PublicKey()).WRITE().SIGNER(), solana.Meta(account).WRITE(), solana.Meta(wallet),
		solana.Meta(token.mint), solana.Meta(solana.SystemProgramID), solana.Meta(chain.Token2022Program),
	}, []byte{createIdempotent})
}

// sendLess sends the token to a wallet, where less arrives.
func (b *bench) sendLess(token feeToken, wallet chain.Address, amount uint64) {
	b.Helper()
	const transferChecked = 12
	source, _ := b.openAccount(token, token.sender.PublicKey())
	account, open := b.openAccount(token, wallet)
	_, failure := b.chain.Execute(b, []solana.PrivateKey{token.sender}, open, solana.NewInstruction(chain.Token2022Program, solana.AccountMetaSlice{
		solana.Meta(source).WRITE(), solana.Meta(token.mint), solana.Meta(account).WRITE(), solana.Meta(token.sender.PublicKey()).SIGNER(),
	}, append(binary.LittleEndian.AppendUint64([]byte{transferChecked}, amount), feeDecimals)))
	if failure != "" {
		b.Fatal(failure)
	}
}

// TestATransferFeeIsNeitherCreditedNorOverlooked sends a token that keeps a part: once as a foreign one, and once as the platform's own.
func TestATransferFeeIsNeitherCreditedNorOverlooked(t *testing.T) {
	t.Parallel()
	const arrives = coin - coin*feeBps/10_000
	b := newBench(t)
	token := b.feeToken()
	book := ledger.New(money.Currency{Symbol: "FEE", Mint: token.mint.String(), Decimals: feeDecimals})
	_, wallet := b.customer("Sends a foreign token")
	b.sendLess(token, wallet, coin)
	b.poll()
	if got := b.balance(book, ledger.Platform(ledger.Suspense)); got != arrives {
		t.Errorf("%d of the foreign token are in suspense, %d arrived", got, arrives)
	}

	own, err := deposits.New(b.pool, book, b.chain.Client(), b.chain.Wallets, deposits.Config{
		TokenProgram: chain.Token2022Program, Treasury: b.chain.Treasury, Minimum: 1, Interval: time.Hour,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b.Service = own
	org, wallet := b.customer("Sends the platform's own")
	b.sendLess(token, wallet, coin)
	b.poll()
	for account, want := range map[ledger.Account]money.Amount{
		ledger.Of(ledger.CustomerAvailable, org): 0, ledger.Of(ledger.ChainDeposits, org): arrives, ledger.Platform(ledger.Suspense): 2 * arrives,
	} {
		if got := b.balance(book, account); got != want {
			t.Errorf("%s has %d, want %d", account.Kind, got, want)
		}
	}
	list, err := b.Suspense(t.Context(), ids.Deposit{}, 1)
	if err != nil || len(list) != 1 || list[0].Org != org || list[0].Amount != "0.990000" || !strings.Contains(list[0].Reason, "the extension 1 of Token-2022") {
		t.Errorf("in suspense is %+v, %v", list, err)
	}
	b.wantSound()
	if err := book.Check(t.Context(), b.pool); err != nil {
		t.Error(err)
	}
}

// TestAStrangersTokenCannotHoldAnAccountUp: whoever issues a token can send more of it than a ledger's account can count.
func TestAStrangersTokenCannotHoldAnAccountUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, wallet := b.customer("Customer")
	strange, err := b.chain.CreateToken(t.Context(), chain.TokenProgram, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, amount := range []uint64{math.MaxInt64, math.MaxInt64, 1} {
		if _, err := b.chain.MintOther(t.Context(), strange, wallet, amount); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			b.poll()
		}
	}
	list, err := b.Suspense(t.Context(), ids.Deposit{}, 0)
	if err != nil || len(list) != 3 {
		t.Errorf("in suspense are %+v, %v", list, err)
	}
	b.wantSound()
}

// TestAnAccountThatIsOpenedAgainForAnotherToken has a stranger give a customer's wallet an account, keep the right to close it, and open it
// anew for the platform's token.
func TestAnAccountThatIsOpenedAgainForAnotherToken(t *testing.T) {
	t.Parallel()
	const ( // instructions of the token program, and a kind of authority
		initializeAccount = 18
		setAuthority      = 6
		closeAccount      = 9
		toClose           = 3
		toOwn             = 2
		size, lamports    = 165, 10_000_000
	)
	b := newBench(t)
	org, wallet := b.customer("Customer")
	stranger, err := b.chain.Engineer.Key()
	if err != nil {
		t.Fatal(err)
	}
	strange, err := b.chain.CreateToken(t.Context(), chain.TokenProgram, 0)
	if err != nil {
		t.Fatal(err)
	}
	account, err := solana.NewRandomPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	by, at := solana.Meta(stranger.PublicKey()).SIGNER(), solana.Meta(account.PublicKey()).WRITE()
	token := func(data []byte, accounts ...*solana.AccountMeta) solana.Instruction {
		return solana.NewInstruction(chain.TokenProgram, accounts, data)
	}
	authority := func(kind byte, to chain.Address) solana.Instruction {
		return token(append([]byte{setAuthority, kind, 1}, to[:]...), at, by)
	}
	open := func(mint, owner chain.Address) []solana.Instruction {
		create := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(make([]byte, 4), lamports), size)
		return []solana.Instruction{
			solana.NewInstruction(solana.SystemProgramID, solana.AccountMetaSlice{
				solana.Meta(stranger.PublicKey()).WRITE().SIGNER(), solana.Meta(account.PublicKey()).WRITE().SIGNER(),
			}, append(create, chain.TokenProgram[:]...)),
			token(append([]byte{initializeAccount}, owner[:]...), at, solana.Meta(mint)),
		}
	}
	execute := func(instructions ...solana.Instruction) {
		if _, failure := b.chain.Execute(t, []solana.PrivateKey{stranger, account}, instructions...); failure != "" {
			t.Fatal(failure)
		}
	}
	execute(append(open(strange, stranger.PublicKey()), authority(toClose, stranger.PublicKey()), authority(toOwn, wallet))...)
	b.poll() // from here on it is watched, for the strange token
	if _, failure := b.chain.Execute(t, []solana.PrivateKey{stranger}, token([]byte{closeAccount}, at, solana.Meta(stranger.PublicKey()).WRITE(), by)); failure != "" {
		t.Fatal(failure)
	}
	execute(open(b.chain.Mint, wallet)...)
	b.send(stranger.PublicKey(), coin)
	b.chain.TransferToAccount(t, account.PublicKey(), coin)
	b.poll()
	b.wantBalance(ledger.Platform(ledger.Suspense), coin)
	list, err := b.Suspense(t.Context(), ids.Deposit{}, 1)
	if err != nil || len(list) != 1 || list[0].Amount != "1.000000" || !strings.Contains(list[0].Reason, "another token account") {
		t.Fatalf("in suspense is %+v, %v", list, err)
	}
	if _, err := b.Decide(t.Context(), list[0].ID, deposits.Decision{Outcome: deposits.OutcomeCredited, Note: "It is the customer's.", By: b.person()}); err != nil {
		t.Error(err)
	}
	b.wantBalance(ledger.Of(ledger.CustomerAvailable, org), coin)
	b.wantSound()
}
