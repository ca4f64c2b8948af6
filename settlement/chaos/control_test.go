package chaos_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/jackc/pgx/v5"

	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
)

// minControlSeeds make it all but certain that the first sending of one of the runs that are killed after it reaches the chain.
const minControlSeeds = 3

// careless is the CONTROL, and wrong on purpose: it pays a batch as package payouts does, in the same steps, but sends before it
// stores, and on a recent blockhash instead of a pinned nonce. Under the same crashes and faults it pays twice. Without it nobody
// could tell whether the crashes and faults would show such a fault in payouts.
type careless struct {
	*world
	key       solana.PrivateKey
	failpoint func(step string) error
}

// carelessSteps are those of payouts in the control's order: sent comes before bytes stored.
var carelessSteps = []string{"claimed", "message stored", "signature had", "sent", "bytes stored", "marked sent", "resolved"}

func newCareless(w *world, failpoint func(step string) error) *careless {
	w.Helper()
	return &careless{world: w, key: w.treasuryKey(), failpoint: failpoint}
}

// sentBatch is what the control stores, too late.
type sentBatch struct {
	signature chain.Signature
	expires   chain.Height
}

// pay drives the batch to its end, or until the failpoint kills it.
func (c *careless) pay(ctx context.Context) error {
	for ctx.Err() == nil {
		stored, found, err := c.stored(ctx)
		if err != nil {
			return err
		}
		if !found {
			if err := c.send(ctx); errors.Is(err, errKilled) {
				return err
			}
			continue // an error is taken for "it was not sent": the next round signs anew
		}
		ended, err := c.client.Finalized(ctx, stored.signature)
		if err != nil {
			continue
		}
		if _, final := ended[stored.signature]; final {
			return c.failpoint("resolved")
		}
		height, err := c.client.BlockHeight(ctx, chain.Finalized)
		if err == nil && height > stored.expires {
			if _, err := c.pool.Exec(ctx, `DELETE FROM careless_batches`); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// send signs and sends, and only then stores.
func (c *careless) send(ctx context.Context) error {
	if err := c.failpoint("claimed"); err != nil {
		return err
	}
	blockhash, expires, err := c.client.LatestBlockhash(ctx, chain.Finalized)
	if err != nil {
		return err
	}
	wire, signature, err := c.sign(blockhash)
	if err != nil {
		return err
	}
	for _, step := range []string{"message stored", "signature had"} {
		if err := c.failpoint(step); err != nil {
			return err
		}
	}
	if _, err := c.client.Send(ctx, wire); err != nil {
		return err
	}
	if err := c.failpoint("sent"); err != nil {
		return err
	}
	if _, err := c.pool.Exec(ctx, `INSERT INTO careless_batches VALUES ($1, $2)`, signature.String(), int64(expires)); err != nil {
		return err
	}
	if err := c.failpoint("bytes stored"); err != nil {
		return err
	}
	return c.failpoint("marked sent")
}

func (c *careless) sign(blockhash chain.Hash) (wire []byte, signature chain.Signature, err error) {
	const transfer = 3 // the token program's plain Transfer
	var instructions []solana.Instruction
	for _, p := range c.payees {
		account, err := chain.AssociatedTokenAccount(p.wallet, c.local.Mint, chain.TokenProgram)
		if err != nil {
			return nil, signature, err
		}
		instructions = append(instructions, solana.NewInstruction(chain.TokenProgram, solana.AccountMetaSlice{
			solana.Meta(c.local.TreasuryTokenAccount).WRITE(), solana.Meta(account).WRITE(), solana.Meta(c.local.Treasury).SIGNER(),
		}, binary.LittleEndian.AppendUint64([]byte{transfer}, uint64(p.earned))))
	}
	transaction, err := solana.NewTransaction(instructions, blockhash, solana.TransactionPayer(c.local.Treasury))
	if err != nil {
		return nil, signature, err
	}
	signatures, err := transaction.Sign(func(solana.PublicKey) *solana.PrivateKey { return &c.key })
	if err != nil {
		return nil, signature, err
	}
	wire, err = transaction.MarshalBinary()
	return wire, signatures[0], err
}

func (c *careless) stored(ctx context.Context) (b sentBatch, found bool, err error) {
	var signature string
	var expires int64
	err = c.pool.QueryRow(ctx, `SELECT signature, expires FROM careless_batches`).Scan(&signature, &expires)
	if errors.Is(err, pgx.ErrNoRows) {
		return b, false, nil
	}
	if err != nil {
		return b, false, err
	}
	b.expires = chain.Height(expires)
	b.signature, err = chain.ParseSignature(signature)
	return b, true, err
}

func TestTheControlThatSendsBeforeItStoresPaysTwice(t *testing.T) {
	t.Parallel()
	seed := testkit.Seed(t)
	total, runs := &tally{}, 0
	t.Run("steps", func(t *testing.T) {
		for _, step := range carelessSteps {
			count := *seedsPerStep
			if step == "sent" {
				count = max(count, minControlSeeds)
			}
			runs += count
			for i := range count {
				t.Run(fmt.Sprintf("%s/%d", step, seed+uint64(i)), func(t *testing.T) {
					t.Parallel()
					total.add(crashCareless(t, step, seed+uint64(i)))
				})
			}
		}
	})
	total.figures(t, "_control", seeds(seed, *seedsPerStep), runs)
	if total.double == 0 {
		t.Error("the control paid nobody twice: these crashes and faults would not show it in payouts either")
	}
}

func crashCareless(t *testing.T, step string, seed uint64) (payees, double, lost int) {
	t.Helper()
	w := newWorld(t, seed)
	w.exec(`CREATE TABLE careless_batches (signature text, expires bigint)`)
	w.earn(ownersPerRun)
	_, err := w.local.CreateTokenAccount(w.Context(), w.payees[ownersPerRun-1].wallet)
	w.check(err)
	w.weather()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	if err := newCareless(w, dieAt(step)).pay(ctx); !errors.Is(err, errKilled) {
		t.Fatalf("seed %d: the control was not killed at %q: %v", seed, step, err)
	}
	w.awaitBlock()
	w.check(newCareless(w, dieAt("")).pay(ctx))
	w.clear()
	w.awaitBlock() // what is still under way lands or expires
	for _, p := range w.payees {
		switch held := w.holds(p.wallet); {
		case held > uint64(p.earned):
			double++
		case held < uint64(p.earned):
			lost++
		}
	}
	return len(w.payees), double, lost
}

func dieAt(step string) func(at string) error {
	return func(at string) error {
		if at == step {
			return errKilled
		}
		return nil
	}
}

// awaitBlock waits for a few finalized blocks: a process takes longer to come back than a block lasts.
func (w *world) awaitBlock() {
	w.Helper()
	const blocks = 5
	before, err := w.truth.BlockHeight(w.Context(), chain.Finalized)
	w.check(err)
	testkit.Eventually(w, 30*time.Second, func() (bool, string) {
		now, err := w.truth.BlockHeight(w.Context(), chain.Finalized)
		return err == nil && now >= before+blocks, "no new blocks"
	})
}
