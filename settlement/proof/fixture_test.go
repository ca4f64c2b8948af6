package proof_test

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/internal/chaintest"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
	"github.com/muster-gpu/muster/settlement/proof"
)

func TestMain(m *testing.M) { localchaintest.Main(m) }

const patience = 60 * time.Second

var memoProgram = solana.MustPublicKeyFromBase58("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")

// person is somebody with a wallet and an account of the token.
type person struct {
	key     solana.PrivateKey
	account chain.Address
}

func (p person) wallet() chain.Address { return p.key.PublicKey() }

// books are a treasury on a real chain, whose key the test has, and the directory in which its manifests are published. Who has the
// key can pay whatever they like: that is what verification is for.
type books struct {
	t                   *testing.T
	chain               *chaintest.Chain
	dir                 string
	genesis             string
	ada, grace, mallory person
	lease               ids.Lease // Ada's
	sealed              []*proof.Published
	sentAs              map[ids.Batch]chain.Signature
}

func newBooks(t *testing.T) *books {
	t.Helper()
	b := &books{t: t, chain: chaintest.Start(t), dir: t.TempDir(), lease: ids.New[ids.Lease](), sentAs: map[ids.Batch]chain.Signature{}}
	genesis, err := b.chain.Client().GenesisHash(t.Context())
	check(t, err)
	b.genesis = genesis.String()
	people := make(chan error)
	for _, p := range []*person{&b.ada, &b.grace, &b.mallory} {
		go func() {
			var err error
			if p.key, err = solana.NewRandomPrivateKey(); err == nil {
				p.account, err = b.chain.CreateTokenAccount(t.Context(), p.wallet())
			}
			people <- err
		}()
	}
	for range 3 {
		check(t, <-people)
	}
	return b
}

// earns is a payout of what some records come to.
func (b *books) earns(to person, records ...proof.Record) proof.Payout {
	p := proof.Payout{
		ID: ids.New[ids.Payout](), Purpose: proof.PurposeEarnings, Wallet: to.wallet().String(), TokenAccount: to.account.String(),
		Records: records, Adjustments: []proof.Adjustment{},
	}
	for _, r := range records {
		p.Amount += r.Amount
	}
	return p
}

// withdraws is a customer's payout.
func (b *books) withdraws(to person, amount money.Amount) proof.Payout {
	p := b.earns(to)
	p.Purpose, p.Amount, p.Records = proof.PurposeWithdrawal, amount, []proof.Record{}
	return p
}

// used is the piece of Ada's lease in which its charges went from one total to another.
func (b *books) used(before, after money.Amount) proof.Record {
	return record(b.lease, 2_000_000, 500, before, after)
}

// other is a record of some other lease.
func other(charged money.Amount) proof.Record {
	return record(ids.New[ids.Lease](), 1_900_000, 500, 0, charged)
}

// seal makes the next manifest and publishes it.
func (b *books) seal(payouts ...proof.Payout) *proof.Published {
	b.t.Helper()
	p := &proof.Published{State: proof.StatePaid, SealedAt: time.Now().UTC(), Manifest: proof.Manifest{Payouts: payouts, Head: proof.Head{
		Version: proof.Version, Network: b.genesis, Mint: b.chain.Mint.String(), Treasury: b.chain.TreasuryTokenAccount.String(),
		Batch: ids.New[ids.Batch](), Sequence: int64(len(b.sealed) + 1),
	}}}
	if len(b.sealed) > 0 {
		p.Manifest.Previous = b.sealed[len(b.sealed)-1].Root
	}
	b.reseal(p)
	b.sealed = append(b.sealed, p)
	return p
}

// reseal computes a manifest's root anew and publishes it.
func (b *books) reseal(p *proof.Published) {
	b.t.Helper()
	root, err := p.Manifest.Root()
	check(b.t, err)
	p.Root = root.String()
	b.publish(p)
}

func (b *books) publish(p *proof.Published) {
	b.t.Helper()
	text, err := json.Marshal(p)
	check(b.t, err)
	check(b.t, os.WriteFile(b.file(p), text, 0o600))
}

func (b *books) file(p *proof.Published) string {
	return filepath.Join(b.dir, p.Manifest.Batch.String()+".json")
}

// pay pays a batch as its manifest says.
func (b *books) pay(p *proof.Published) chain.Signature {
	b.t.Helper()
	return b.send(p.Manifest.Batch.String()+" "+p.Root, paymentsOf(p)...)
}

// payment is a transfer out of the treasury.
type payment struct {
	to     chain.Address // a token account
	amount money.Amount
}

func paymentsOf(p *proof.Published) []payment {
	payments := make([]payment, len(p.Manifest.Payouts))
	for i, one := range p.Manifest.Payouts {
		payments[i] = payment{solana.MustPublicKeyFromBase58(one.TokenAccount), one.Amount}
	}
	return payments
}

// send pays out of the treasury in one transaction, signed with its key, and waits until that is final.
func (b *books) send(memo string, payments ...payment) chain.Signature {
	b.t.Helper()
	const transfer = 3 // the token program's plain Transfer
	key := b.chain.TreasuryKey
	var instructions []solana.Instruction
	for _, p := range payments {
		instructions = append(instructions, solana.NewInstruction(chain.TokenProgram, solana.AccountMetaSlice{
			solana.Meta(b.chain.TreasuryTokenAccount).WRITE(), solana.Meta(p.to).WRITE(), solana.Meta(key.PublicKey()).SIGNER(),
		}, binary.LittleEndian.AppendUint64([]byte{transfer}, uint64(p.amount))))
	}
	if memo != "" {
		instructions = append(instructions, solana.NewInstruction(memoProgram, nil, []byte(memo)))
	}
	blockhash, _, err := b.chain.Client().LatestBlockhash(b.t.Context(), chain.Confirmed)
	check(b.t, err)
	transaction, err := solana.NewTransaction(instructions, blockhash, solana.TransactionPayer(key.PublicKey()))
	check(b.t, err)
	_, err = transaction.Sign(func(solana.PublicKey) *solana.PrivateKey { return &key })
	check(b.t, err)
	wire, err := transaction.MarshalBinary()
	check(b.t, err)
	signature, err := b.chain.Client().Send(b.t.Context(), wire)
	check(b.t, err)
	testkit.Eventually(b.t, patience, func() (bool, string) {
		ended, err := b.chain.Client().Finalized(b.t.Context(), signature)
		check(b.t, err)
		failure, final := ended[signature]
		return final && failure == "", "the payment is not final: " + failure
	})
	return signature
}

// honest pays two batches: two owners' earnings, then more of them and a customer's withdrawal.
func (b *books) honest() {
	b.t.Helper()
	b.settle(b.earns(b.ada, b.used(0, 700_000)), b.earns(b.grace, other(1_234_567), other(89)))
	second := b.earns(b.ada, b.used(700_000, 900_001))
	second.Adjustments = append(second.Adjustments, proof.Adjustment{At: time.Now().UTC(), Memo: "A correction", Amount: -7})
	second.Amount -= 7
	b.settle(second, b.withdraws(b.grace, 555))
}

// settle seals and pays one batch.
func (b *books) settle(payouts ...proof.Payout) *proof.Published {
	b.t.Helper()
	p := b.seal(payouts...)
	b.paid(p, b.pay(p))
	return p
}

// paid notes a batch's transaction as the platform publishes it.
func (b *books) paid(p *proof.Published, signature chain.Signature) {
	b.t.Helper()
	b.sentAs[p.Manifest.Batch] = signature
	now := time.Now().UTC()
	p.State, p.Signature, p.PaidAt = proof.StatePaid, signature.String(), &now
	b.publish(p)
}

func (b *books) verify() proof.Report {
	b.t.Helper()
	return b.verifySource(proof.Directory(b.dir))
}

func (b *books) verifySource(source proof.Source) proof.Report {
	b.t.Helper()
	report, err := proof.Verify(b.t.Context(), b.chain.Client(), source, proof.Options{Treasury: b.chain.TreasuryTokenAccount})
	check(b.t, err)
	return report
}
