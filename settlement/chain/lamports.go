package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/rpc"
)

// LamportMovement is what one finalized transaction did to the lamports of one wallet.
type LamportMovement struct {
	Signature    Signature
	Slot         Slot
	IndexInBlock int    // with Slot, the order in which the cluster executed
	BlockTime    int64  // seconds since 1970; 0 when the cluster does not say
	Pre, Post    uint64 // lamports in the wallet before and after
	Err          string // empty if the transaction succeeded; a failed one cost its fee and moved nothing else
	Fee          uint64 // that the wallet paid; 0 if somebody else did
	Signatures   int    // that the fee was for
	Others       []LamportChange
}

// LamportChange is what a transaction did to the lamports of another account. A fee that the account paid is not in it.
type LamportChange struct {
	Account Address
	Change  int64
	Rent    bool // they make the account, or come back from one that is given up: a token account, a nonce, a lookup table
}

func (m *LamportMovement) step() step         { return step{m.Signature, m.Slot, m.IndexInBlock} }
func (m *LamportMovement) setIndex(index int) { m.IndexInBlock = index }

// LamportBalance returns a wallet's lamports at finalized, and the slot of that.
func (c *Client) LamportBalance(ctx context.Context, wallet Address) (Balance, error) {
	account, err := c.Account(ctx, Finalized, 0, wallet)
	if errors.Is(err, ErrNotFound) {
		slot, err := c.Slot(ctx, Finalized)
		return Balance{Slot: slot}, err
	}
	if err != nil {
		return Balance{}, err
	}
	return Balance{Amount: account.Lamports, Slot: account.Slot}, nil
}

// WalkLamports visits every change of a wallet's lamports in a stretch of finalized history, oldest first in the order of execution. Most of a
// history may only mention the wallet, which is no change: passed is told, now and then, before which slot all has been visited. The error of
// either ends the walk and is returned. A stretch that is too long is not visited: the mark that is returned then cuts it.
func (c *Client) WalkLamports(ctx context.Context, wallet Address, s Stretch, visit func(LamportMovement) error, passed func(Slot) error) (Mark, error) {
	steps, cut, err := c.stretch(ctx, wallet, s)
	if err != nil || cut != (Mark{}) {
		return cut, err
	}
	return Mark{}, walkSteps(ctx, c, steps, func(signature Signature, result *rpc.GetTransactionResult, decoded *solana.Transaction) (*LamportMovement, error) {
		return lamportMovementOf(wallet, signature, result, decoded)
	}, visit, passed)
}

// lamportMovementOf reads a wallet's movement from the balances recorded with a transaction; nil if nothing moved.
func lamportMovementOf(wallet Address, signature Signature, result *rpc.GetTransactionResult, decoded *solana.Transaction) (*LamportMovement, error) {
	meta := result.Meta
	keys := slices.Concat(decoded.Message.AccountKeys, meta.LoadedAddresses.Writable, meta.LoadedAddresses.ReadOnly)
	own := slices.Index(keys, wallet)
	if own < 0 {
		return nil, nil //nolint:nilnil // a history may list what only mentions the wallet; that is no error
	}
	if len(meta.PreBalances) != len(keys) || len(meta.PostBalances) != len(keys) {
		return nil, fmt.Errorf("transaction %s: the endpoint keeps balances of %d of its %d accounts", signature, len(meta.PostBalances), len(keys))
	}
	if meta.PreBalances[own] == meta.PostBalances[own] {
		return nil, nil //nolint:nilnil // as above
	}
	movement := &LamportMovement{
		Signature: signature, Slot: Slot(result.Slot), IndexInBlock: unknownIndex, Pre: meta.PreBalances[own], Post: meta.PostBalances[own],
		Err: jsonText(meta.Err), Signatures: int(decoded.Message.Header.NumRequiredSignatures),
	}
	if result.BlockTime != nil {
		movement.BlockTime = int64(*result.BlockTime)
	}
	if own == 0 {
		movement.Fee = meta.Fee
	}
	rents := rentAccounts(meta, decoded, keys)
	for i, key := range keys {
		change := int64(meta.PostBalances[i] - meta.PreBalances[i])
		if i == 0 {
			change += int64(meta.Fee)
		}
		if i != own && change != 0 {
			movement.Others = append(movement.Others, LamportChange{Account: key, Change: change, Rent: rents[key]})
		}
	}
	slices.SortFunc(movement.Others, func(a, b LamportChange) int { return bytes.Compare(a.Account[:], b.Account[:]) })
	return movement, nil
}

// Instructions of the system program that make an account for a program, or take lamports out of a nonce account.
const (
	systemCreateAccount         = 0
	systemCreateAccountWithSeed = 3
	systemWithdrawNonce         = 5
)

// rentAccounts are the accounts of a transaction whose lamports are rent: those that hold tokens, and those that its instructions make for
// a program or take rent out of.
func rentAccounts(meta *rpc.TransactionMeta, decoded *solana.Transaction, keys []Address) map[Address]bool {
	rents := map[Address]bool{}
	for _, balances := range [][]rpc.TokenBalance{meta.PreTokenBalances, meta.PostTokenBalances} {
		for _, balance := range balances {
			if int(balance.AccountIndex) < len(keys) {
				rents[keys[balance.AccountIndex]] = true
			}
		}
	}
	for _, instruction := range decoded.Message.Instructions {
		if int(instruction.ProgramIDIndex) >= len(keys) || len(instruction.Accounts) == 0 {
			continue
		}
		switch program := keys[instruction.ProgramIDIndex]; {
		case program == solana.SystemProgramID && len(instruction.Data) >= 4:
			if at := rentOfSystem(binary.LittleEndian.Uint32(instruction.Data)); at >= 0 && at < len(instruction.Accounts) {
				if index := int(instruction.Accounts[at]); index < len(keys) {
					rents[keys[index]] = true
				}
			}
		case program == solana.AddressLookupTableProgramID:
			if index := int(instruction.Accounts[0]); index < len(keys) {
				rents[keys[index]] = true // the table, in each of the program's instructions
			}
		}
	}
	return rents
}

// rentOfSystem is which account of an instruction of the system program holds rent, -1 for none.
func rentOfSystem(kind uint32) int {
	switch kind {
	case systemCreateAccount, systemCreateAccountWithSeed:
		return 1
	case systemWithdrawNonce:
		return 0
	}
	return -1
}
