package localnet_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"
	associatedtokenaccount "github.com/gagliardetto/solana-go/programs/associated-token-account"
	"github.com/gagliardetto/solana-go/programs/memo"
	"github.com/gagliardetto/solana-go/programs/system"
	"github.com/gagliardetto/solana-go/programs/token"
	"github.com/gagliardetto/solana-go/rpc"
	"github.com/gagliardetto/solana-go/rpc/ws"

	"github.com/muster-gpu/muster/deploy/localnet"
)

const (
	testTimeout  = 2 * time.Minute
	pollEvery    = 20 * time.Millisecond
	decimals     = 6
	signatureFee = 5000
)

// chain is a server of a test's own with solana-go clients and a funded payer.
type chain struct {
	t      *testing.T
	ctx    context.Context
	server *localnet.Server
	rpc    *rpc.Client
	payer  solana.PrivateKey
}

func startChain(t *testing.T) *chain {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	server, err := localnet.Start(ctx, localnet.Options{StateDir: t.TempDir(), Slot: 100 * time.Millisecond, FinalizeSlots: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	c := &chain{t: t, ctx: ctx, server: server, rpc: rpc.New(server.RPCURL()), payer: newKey(t)}
	signature, err := c.rpc.RequestAirdrop(ctx, c.payer.PublicKey(), 10*solana.LAMPORTS_PER_SOL, rpc.CommitmentConfirmed)
	if err != nil {
		t.Fatal(err)
	}
	c.await(signature, rpc.ConfirmationStatusFinalized)
	return c
}

func TestTokenTransferByV1TransactionWithDurableNonce(t *testing.T) {
	t.Parallel()
	c := startChain(t)
	mint := c.createMint()
	from := c.tokenAccount(mint, c.payer.PublicKey(), 1_000_000)
	payee := newKey(t).PublicKey()
	to := c.tokenAccount(mint, payee, 0)
	nonce := c.createNonce()
	value := c.nonceValue(nonce)

	pay := token.NewTransferCheckedInstruction(250_000, decimals, from, mint, to, c.payer.PublicKey(), nil).Build()
	budget := solana.TransactionConfig{}.WithComputeUnitLimit(100_000).WithLoadedAccountsDataSizeLimit(1_000_000).WithPriorityFee(800)
	tx := c.sign(value, []solana.Instruction{c.advance(nonce), pay, memoOf(c.payer, "batch 1")}, nil, solana.TransactionV1Config(budget))
	signature := c.send(tx, false)

	landed := c.transaction(signature)
	if landed.Meta.Err != nil {
		t.Fatalf("the transfer failed: %v", landed.Meta.Err)
	}
	if landed.Version != 1 {
		t.Errorf("version %v, want 1", landed.Version)
	}
	if want := uint64(signatureFee + 800); landed.Meta.Fee != want {
		t.Errorf("fee %d, want %d", landed.Meta.Fee, want)
	}
	decoded, err := landed.Transaction.GetTransaction()
	if err != nil {
		t.Fatal(err)
	}
	wantBalances(t, "pre", decoded, landed.Meta.PreTokenBalances, map[solana.PublicKey]string{from: "1000000", to: "0"})
	wantBalances(t, "post", decoded, landed.Meta.PostTokenBalances, map[solana.PublicKey]string{from: "750000", to: "250000"})
	for _, balance := range landed.Meta.PostTokenBalances {
		if decoded.Message.AccountKeys[balance.AccountIndex] == to && *balance.Owner != payee {
			t.Errorf("owner %s, want %s", balance.Owner, payee)
		}
	}
	if c.nonceValue(nonce) == value {
		t.Error("the nonce did not advance")
	}
	for _, account := range []solana.PublicKey{to, nonce} {
		history := c.history(account)
		if len(history) == 0 || history[0].Signature != signature {
			t.Errorf("history of %s does not begin with %s", account, signature)
		}
	}
}

func TestFailedNonceTransactionUsesUpItsNonceAndPays(t *testing.T) {
	t.Parallel()
	c := startChain(t)
	nonce := c.createNonce()
	value := c.nonceValue(nonce)
	before := c.balance(c.payer.PublicKey())
	tooMuch := system.NewTransferInstruction(before*10, c.payer.PublicKey(), newKey(t).PublicKey()).Build()
	tx := c.sign(value, []solana.Instruction{c.advance(nonce), tooMuch}, nil)
	signature := c.send(tx, true)

	landed := c.transaction(signature)
	if landed.Meta.Err == nil {
		t.Fatal("the transaction succeeded")
	}
	if c.nonceValue(nonce) == value {
		t.Error("the nonce was not used up")
	}
	if after := c.balance(c.payer.PublicKey()); after != before-signatureFee {
		t.Errorf("balance %d, want %d", after, before-signatureFee)
	}
	c.send(tx, true)
	if after := c.balance(c.payer.PublicKey()); after != before-signatureFee {
		t.Errorf("the replay was charged: balance %d", after)
	}
}

func TestSignatureSubscription(t *testing.T) {
	t.Parallel()
	c := startChain(t)
	socket, err := ws.Connect(c.ctx, c.server.WSURL())
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, level := range []rpc.CommitmentType{rpc.CommitmentProcessed, rpc.CommitmentConfirmed, rpc.CommitmentFinalized} {
		tx := c.sign(c.blockhash(), []solana.Instruction{memoOf(c.payer, string(level))}, nil)
		subscription, err := socket.SignatureSubscribe(tx.Signatures[0], level)
		if err != nil {
			t.Fatal(err)
		}
		c.send(tx, false)
		result, err := subscription.Recv(c.ctx)
		if err != nil {
			t.Fatalf("%s: %v", level, err)
		}
		if result.Value.Err != nil {
			t.Errorf("%s: %v", level, result.Value.Err)
		}
		subscription.Unsubscribe()
	}
}

func TestStateOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	options := localnet.Options{StateDir: t.TempDir()}
	first, err := localnet.Start(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	owner := newKey(t).PublicKey()
	if _, err := rpc.New(first.RPCURL()).RequestAirdrop(ctx, owner, solana.LAMPORTS_PER_SOL, rpc.CommitmentProcessed); err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	second, err := localnet.Start(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	if second.GenesisHash() != first.GenesisHash() {
		t.Error("the restart began another chain")
	}
	balance, err := rpc.New(second.RPCURL()).GetBalance(ctx, owner, rpc.CommitmentProcessed)
	if err != nil {
		t.Fatal(err)
	}
	if balance.Value != solana.LAMPORTS_PER_SOL {
		t.Errorf("balance %d after the restart", balance.Value)
	}
	if err := second.Stop(); err != nil {
		t.Fatal(err)
	}
}

func TestStartSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := localnet.Start(context.Background(), localnet.Options{StateDir: t.TempDir(), ServerJS: t.TempDir() + "/server.js"})
	if err == nil {
		t.Fatal("a missing server started")
	}
}

// ---- building and sending ----

func (c *chain) createMint() solana.PublicKey {
	c.t.Helper()
	mint := newKey(c.t)
	create := system.NewCreateAccountInstruction(c.rent(82), 82, solana.TokenProgramID, c.payer.PublicKey(), mint.PublicKey()).Build()
	initialize := token.NewInitializeMint2Instruction(decimals, c.payer.PublicKey(), c.payer.PublicKey(), mint.PublicKey()).Build()
	c.land([]solana.Instruction{create, initialize}, mint)
	return mint.PublicKey()
}

func (c *chain) tokenAccount(mint, owner solana.PublicKey, amount uint64) solana.PublicKey {
	c.t.Helper()
	address, _, err := solana.FindAssociatedTokenAddress(owner, mint)
	if err != nil {
		c.t.Fatal(err)
	}
	create := associatedtokenaccount.NewCreateIdempotentInstruction(c.payer.PublicKey(), owner, mint).Build()
	fill := token.NewMintToInstruction(amount, mint, address, c.payer.PublicKey(), nil).Build()
	c.land([]solana.Instruction{create, fill})
	return address
}

func (c *chain) createNonce() solana.PublicKey {
	c.t.Helper()
	nonce := newKey(c.t)
	create := system.NewCreateAccountInstruction(c.rent(solana.NonceStateSize), solana.NonceStateSize, solana.SystemProgramID, c.payer.PublicKey(), nonce.PublicKey()).Build()
	initialize := system.NewInitializeNonceAccountInstruction(c.payer.PublicKey(), nonce.PublicKey(), solana.SysVarRecentBlockHashesPubkey, solana.SysVarRentPubkey).Build()
	c.land([]solana.Instruction{create, initialize}, nonce)
	return nonce.PublicKey()
}

func (c *chain) advance(nonce solana.PublicKey) solana.Instruction {
	return system.NewAdvanceNonceAccountInstruction(nonce, solana.SysVarRecentBlockHashesPubkey, c.payer.PublicKey()).Build()
}

// land sends with a fresh blockhash and waits until the transaction is confirmed.
func (c *chain) land(instructions []solana.Instruction, signers ...solana.PrivateKey) {
	c.t.Helper()
	c.await(c.send(c.sign(c.blockhash(), instructions, signers), false), rpc.ConfirmationStatusConfirmed)
}

func (c *chain) sign(lifetime solana.Hash, instructions []solana.Instruction, signers []solana.PrivateKey, options ...solana.TransactionOption) *solana.Transaction {
	c.t.Helper()
	options = append(options, solana.TransactionPayer(c.payer.PublicKey()))
	tx, err := solana.NewTransaction(instructions, lifetime, options...)
	if err != nil {
		c.t.Fatal(err)
	}
	keys := append([]solana.PrivateKey{c.payer}, signers...)
	_, err = tx.Sign(func(public solana.PublicKey) *solana.PrivateKey {
		for i := range keys {
			if keys[i].PublicKey() == public {
				return &keys[i]
			}
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return tx
}

func (c *chain) send(tx *solana.Transaction, skipPreflight bool) solana.Signature {
	c.t.Helper()
	options := rpc.TransactionOpts{SkipPreflight: skipPreflight, PreflightCommitment: rpc.CommitmentProcessed}
	signature, err := c.rpc.SendTransactionWithOpts(c.ctx, tx, options)
	if err != nil {
		c.t.Fatal(err)
	}
	return signature
}

// ---- reading ----

func (c *chain) await(signature solana.Signature, level rpc.ConfirmationStatusType) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%s %s", signature, level), func() (bool, error) {
		statuses, err := c.rpc.GetSignatureStatuses(c.ctx, true, signature)
		if err != nil || len(statuses.Value) == 0 || statuses.Value[0] == nil {
			return false, err
		}
		status := statuses.Value[0].ConfirmationStatus
		return status == level || status == rpc.ConfirmationStatusFinalized, nil
	})
}

func (c *chain) transaction(signature solana.Signature) *rpc.GetTransactionResult {
	c.t.Helper()
	c.await(signature, rpc.ConfirmationStatusConfirmed)
	newest := uint64(1)
	options := &rpc.GetTransactionOpts{Encoding: solana.EncodingBase64, Commitment: rpc.CommitmentConfirmed, MaxSupportedTransactionVersion: &newest}
	result, err := c.rpc.GetTransaction(c.ctx, signature, options)
	if err != nil {
		c.t.Fatal(err)
	}
	return result
}

func (c *chain) history(account solana.PublicKey) []*rpc.TransactionSignature {
	c.t.Helper()
	found, err := c.rpc.GetSignaturesForAddressWithOpts(c.ctx, account, &rpc.GetSignaturesForAddressOpts{Commitment: rpc.CommitmentConfirmed})
	if err != nil {
		c.t.Fatal(err)
	}
	return found
}

func (c *chain) nonceValue(account solana.PublicKey) solana.Hash {
	c.t.Helper()
	info, err := c.rpc.GetAccountInfoWithOpts(c.ctx, account, &rpc.GetAccountInfoOpts{Commitment: rpc.CommitmentProcessed, Encoding: solana.EncodingBase64})
	if err != nil {
		c.t.Fatal(err)
	}
	versions, err := solana.DecodeNonceVersions(info.Value.Data.GetBinary())
	if err != nil {
		c.t.Fatal(err)
	}
	if !versions.State.IsInitialized() {
		c.t.Fatalf("nonce %s is not initialized", account)
	}
	return versions.State.Data.Blockhash()
}

func (c *chain) balance(account solana.PublicKey) uint64 {
	c.t.Helper()
	result, err := c.rpc.GetBalance(c.ctx, account, rpc.CommitmentProcessed)
	if err != nil {
		c.t.Fatal(err)
	}
	return result.Value
}

func (c *chain) blockhash() solana.Hash {
	c.t.Helper()
	latest, err := c.rpc.GetLatestBlockhash(c.ctx, rpc.CommitmentConfirmed)
	if err != nil {
		c.t.Fatal(err)
	}
	return latest.Value.Blockhash
}

func (c *chain) rent(size uint64) uint64 {
	c.t.Helper()
	lamports, err := c.rpc.GetMinimumBalanceForRentExemption(c.ctx, size, rpc.CommitmentConfirmed)
	if err != nil {
		c.t.Fatal(err)
	}
	return lamports
}

// eventually polls until probe answers true or the test's time is over.
func (c *chain) eventually(what string, probe func() (bool, error)) {
	c.t.Helper()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		done, err := probe()
		if err != nil {
			c.t.Fatalf("%s: %v", what, err)
		}
		if done {
			return
		}
		select {
		case <-ticker.C:
		case <-c.ctx.Done():
			c.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func wantBalances(t *testing.T, name string, tx *solana.Transaction, got []rpc.TokenBalance, want map[solana.PublicKey]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d token balances, want %d", name, len(got), len(want))
	}
	for _, balance := range got {
		account := tx.Message.AccountKeys[balance.AccountIndex]
		if balance.UiTokenAmount.Amount != want[account] {
			t.Errorf("%s: %s holds %s, want %s", name, account, balance.UiTokenAmount.Amount, want[account])
		}
	}
}

func memoOf(signer solana.PrivateKey, text string) solana.Instruction {
	return memo.NewMemoInstruction(bytes.Clone([]byte(text)), signer.PublicKey()).Build()
}

func newKey(t *testing.T) solana.PrivateKey {
	t.Helper()
	key, err := solana.NewRandomPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
