package chain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/rpc"
	"golang.org/x/sync/errgroup"
)

const (
	// OverlapSlots are read again before a cursor: endpoints order the transactions of neighbouring slots inconsistently and
	// may show one late.
	OverlapSlots Slot = 64

	signaturesPerPage = 1_000 // a limit of getSignaturesForAddress
	// MaxHistory is how many transactions of one account a single call reads before it fails with ErrHistoryTooLong.
	MaxHistory = 100_000
	// fetchers bounds how many transactions are asked for at the same time.
	fetchers = 8

	unknownIndex = -1
)

var memoPrograms = []Address{
	solana.MustPublicKeyFromBase58("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"),
	solana.MustPublicKeyFromBase58("Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo"),
}

// Movements returns every change of a token account's balance in finalized history since a cursor, oldest first in the order
// of execution, and with them the failed transactions that named the account, which cost their fee.
//
// What lies at and a little before the cursor is returned again: callers know a movement by (Signature, token account). The
// cursor of the last movement is the next one to pass. The account must be the token account itself, not its owner's wallet,
// whose history lacks incoming transfers.
func (c *Client) Movements(ctx context.Context, tokenAccount Address, since Cursor) ([]Movement, error) {
	steps, err := c.stepsSince(ctx, tokenAccount, since)
	if err != nil {
		return nil, err
	}
	return readSteps(ctx, c, steps, movementsOf(tokenAccount))
}

// SignaturesFor returns the newest entries of an address's finalized history, newest first, from a state not older than minSlot.
func (c *Client) SignaturesFor(ctx context.Context, address Address, minSlot Slot, limit int) ([]SignatureInfo, error) {
	page, err := c.page(ctx, address, Signature{}, min(limit, signaturesPerPage), minSlot)
	if err != nil {
		return nil, err
	}
	infos := make([]SignatureInfo, len(page.entries))
	for i, entry := range page.entries {
		infos[i] = SignatureInfo{
			Signature: entry.Signature, Slot: Slot(entry.Slot), Err: jsonText(entry.Err), Memo: historyMemo(entry.Memo),
		}
	}
	return infos, nil
}

// Transaction returns a finalized transaction, or ErrNotFound.
func (c *Client) Transaction(ctx context.Context, signature Signature) (*Transaction, error) {
	result, decoded, err := c.transaction(ctx, signature)
	if err != nil {
		return nil, err
	}
	transaction := &Transaction{
		Signature: signature, Slot: Slot(result.Slot), BlockTime: blockTime(result.BlockTime), Err: jsonText(result.Meta.Err),
		Fee: result.Meta.Fee, Nonce: decoded.Message.RecentBlockhash, Memo: memoOf(decoded), Wire: result.Transaction.GetBinary(),
	}
	if result.Meta.ComputeUnitsConsumed != nil {
		transaction.Units = *result.Meta.ComputeUnitsConsumed
	}
	if len(result.Meta.PreBalances) > 0 && len(result.Meta.PostBalances) > 0 {
		transaction.Spent = excess(result.Meta.PreBalances[0], result.Meta.PostBalances[0])
	}
	transaction.Tokens, err = changedTokens(result.Meta, decoded)
	if err != nil {
		return nil, fmt.Errorf("transaction %s: %w", signature, err)
	}
	return transaction, nil
}

// Finalized reports which signatures are finalized, searching the endpoints' whole history. The answer is the error text of
// the transaction ("" for success) by signature; one that is unknown or not finalized yet is absent.
func (c *Client) Finalized(ctx context.Context, signatures ...Signature) (map[Signature]string, error) {
	parts := slices.Collect(slices.Chunk(signatures, maxStatusesPerRead))
	found := make([][]*ending, len(parts))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(fetchers)
	for i, part := range parts {
		group.Go(func() (err error) {
			found[i], err = confirmed(groupCtx, c, func(ctx context.Context, e *endpoint) ([]*ending, error) { return e.endings(ctx, part) },
				func(a, b answer[[]*ending]) ([]*ending, error) { return mergeEndings(part, a, b) })
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	ended := make(map[Signature]string, len(signatures))
	for i, part := range parts {
		for j, end := range found[i] {
			if end != nil {
				ended[part[j]] = end.failure
			}
		}
	}
	return ended, nil
}

// stepsSince pages backwards through an account's history until it has passed the cursor and the overlap before it, and lists what it came
// by, oldest first.
func (c *Client) stepsSince(ctx context.Context, account Address, since Cursor) ([]step, error) {
	floor := Slot(0)
	if since.Slot > OverlapSlots {
		floor = since.Slot - OverlapSlots
	}
	var steps []step
	var before Signature
	for {
		page, err := c.page(ctx, account, before, c.pageSize, since.Slot)
		if err != nil {
			return nil, err
		}
		for _, entry := range page.entries {
			if Slot(entry.Slot) >= floor {
				steps = append(steps, stepOf(entry))
			}
		}
		if len(steps) > MaxHistory {
			return nil, fmt.Errorf("account %s: %w", account, ErrHistoryTooLong)
		}
		if page.last() || Slot(page.entries[len(page.entries)-1].Slot) < floor {
			slices.Reverse(steps)
			return steps, nil
		}
		before = page.entries[len(page.entries)-1].Signature
	}
}

func (c *Client) transaction(ctx context.Context, signature Signature) (*rpc.GetTransactionResult, *solana.Transaction, error) {
	result, err := confirmed(ctx, c, func(ctx context.Context, e *endpoint) (*rpc.GetTransactionResult, error) {
		return e.transaction(ctx, signature)
	}, func(a, b answer[*rpc.GetTransactionResult]) (*rpc.GetTransactionResult, error) {
		return mergeTransactions(signature, a, b)
	})
	if err != nil {
		return nil, nil, err
	}
	if result == nil {
		return nil, nil, fmt.Errorf("transaction %s: %w", signature, ErrNotFound)
	}
	decoded, err := solana.TransactionFromBytes(result.Transaction.GetBinary())
	if err != nil {
		return nil, nil, fmt.Errorf("decode transaction %s: %w", signature, err)
	}
	return result, decoded, nil
}

func (c *Client) blockIndices(ctx context.Context, slot Slot) (map[Signature]int, error) {
	version, rewards := highestTransactionVersion, false
	block, err := first(ctx, c, func(e *endpoint) (*rpc.GetBlockResult, error) {
		return e.rpc.GetBlockWithOpts(ctx, uint64(slot), &rpc.GetBlockOpts{
			TransactionDetails: rpc.TransactionDetailsSignatures, Rewards: &rewards, Commitment: rpc.CommitmentFinalized,
			MaxSupportedTransactionVersion: &version,
		})
	})
	if err != nil {
		return nil, err
	}
	indices := make(map[Signature]int, len(block.Signatures))
	for i, signature := range block.Signatures {
		indices[signature] = i
	}
	return indices, nil
}

// movementsOf reads what transactions did to one token account.
func movementsOf(tokenAccount Address) reader[Movement] {
	return func(signature Signature, result *rpc.GetTransactionResult, decoded *solana.Transaction) (*Movement, error) {
		return movementOf(tokenAccount, signature, result, decoded)
	}
}

// movementOf reads a token account's movement from the balances recorded with a transaction; nil if nothing moved.
func movementOf(tokenAccount Address, signature Signature, result *rpc.GetTransactionResult, decoded *solana.Transaction,
) (*Movement, error) {
	keys := slices.Concat(decoded.Message.AccountKeys, result.Meta.LoadedAddresses.Writable, result.Meta.LoadedAddresses.ReadOnly)
	own := slices.Index(keys, tokenAccount)
	changes, err := tokenChanges(result.Meta)
	if err != nil {
		return nil, fmt.Errorf("transaction %s: %w", signature, err)
	}
	change, found := changes[own]
	failure := jsonText(result.Meta.Err)
	if own < 0 || !found || (change.pre == change.post && failure == "") {
		return nil, nil //nolint:nilnil // most transactions that name an account move nothing in it; that is no error.
	}
	movement := &Movement{
		Signature: signature, Slot: Slot(result.Slot), IndexInBlock: unknownIndex, BlockTime: blockTime(result.BlockTime),
		Pre: change.pre, Post: change.post, Mint: change.mint, Owner: change.owner, Program: change.program, Err: failure,
		Fee: result.Meta.Fee, FeePayer: keys[0], Memo: memoOf(decoded),
	}
	for index, other := range changes {
		if index == own || other.mint != change.mint || other.pre == other.post || index >= len(keys) {
			continue
		}
		movement.Counterparties = append(movement.Counterparties,
			Counterparty{TokenAccount: keys[index], Mint: other.mint, Owner: other.owner, Pre: other.pre, Post: other.post})
	}
	slices.SortFunc(movement.Counterparties, func(a, b Counterparty) int {
		return slices.Compare(a.TokenAccount[:], b.TokenAccount[:])
	})
	return movement, nil
}

// changedTokens lists the token accounts whose balance a transaction changed.
func changedTokens(meta *rpc.TransactionMeta, decoded *solana.Transaction) ([]Counterparty, error) {
	changes, err := tokenChanges(meta)
	if err != nil {
		return nil, err
	}
	keys := slices.Concat(decoded.Message.AccountKeys, meta.LoadedAddresses.Writable, meta.LoadedAddresses.ReadOnly)
	var changed []Counterparty
	for index, change := range changes {
		if index >= len(keys) {
			return nil, errors.New("a token balance is of no account of the transaction")
		}
		if change.pre != change.post {
			changed = append(changed, Counterparty{
				TokenAccount: keys[index], Mint: change.mint, Owner: change.owner, Pre: change.pre, Post: change.post,
			})
		}
	}
	slices.SortFunc(changed, func(a, b Counterparty) int { return slices.Compare(a.TokenAccount[:], b.TokenAccount[:]) })
	return changed, nil
}

type tokenChange struct {
	pre, post            uint64
	mint, owner, program Address
}

// tokenChanges joins the balances before and after by account index. An account that is absent on one side held nothing then.
func tokenChanges(meta *rpc.TransactionMeta) (map[int]*tokenChange, error) {
	changes := make(map[int]*tokenChange, len(meta.PostTokenBalances))
	for side, balances := range [][]rpc.TokenBalance{meta.PreTokenBalances, meta.PostTokenBalances} {
		for _, balance := range balances {
			if balance.UiTokenAmount == nil {
				return nil, errors.New("a token balance has no amount")
			}
			amount, err := strconv.ParseUint(balance.UiTokenAmount.Amount, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("token balance %q is not a number", balance.UiTokenAmount.Amount)
			}
			change := changes[int(balance.AccountIndex)]
			if change == nil {
				change = &tokenChange{}
				changes[int(balance.AccountIndex)] = change
			}
			change.mint = balance.Mint
			if balance.Owner != nil {
				change.owner = *balance.Owner
			}
			if balance.ProgramId != nil {
				change.program = *balance.ProgramId
			}
			if side == 0 {
				change.pre = amount
			} else {
				change.post = amount
			}
		}
	}
	return changes, nil
}

func memoOf(transaction *solana.Transaction) string {
	var memos []string
	for _, instruction := range transaction.Message.Instructions {
		program, err := transaction.Message.Program(instruction.ProgramIDIndex)
		if err == nil && slices.Contains(memoPrograms, program) {
			memos = append(memos, strings.ToValidUTF8(string(instruction.Data), "\uFFFD"))
		}
	}
	return strings.Join(memos, "; ")
}

// historyMemo strips the "[length] " that getSignaturesForAddress puts before a memo.
func historyMemo(memo *string) string {
	if memo == nil {
		return ""
	}
	if _, text, found := strings.Cut(*memo, "] "); found && strings.HasPrefix(*memo, "[") {
		return text
	}
	return *memo
}

func blockTime(seconds *solana.UnixTimeSeconds) time.Time {
	if seconds == nil {
		return time.Time{}
	}
	return seconds.Time().UTC()
}
