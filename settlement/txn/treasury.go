package txn

import (
	"errors"
	"fmt"

	"github.com/gagliardetto/solana-go"
)

var (
	systemProgram = solana.SystemProgramID
	sysvar        = solana.SysVarRecentBlockHashesPubkey
	ataProgram    = solana.SPLAssociatedTokenAccountProgramID
	budgetProgram = solana.ComputeBudget
	memoProgram   = solana.MustPublicKeyFromBase58("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
)

// Keys are what stays the same from message to message.
type Keys struct {
	Treasury     solana.PublicKey // pays the fees, signs, and advances the nonces
	TokenAccount solana.PublicKey // the treasury's
	Mint         solana.PublicKey
	TokenProgram solana.PublicKey
	Decimals     uint8
}

// Table is a lookup table as it is on the chain, at least one slot old.
type Table struct {
	Address   solana.PublicKey
	Addresses []solana.PublicKey
}

// Treasury lays out the messages of one treasury and token.
type Treasury struct {
	keys   Keys
	table  *Table
	listed map[solana.PublicKey]uint8 // where the table has an address

	// Accounts that all messages of a kind read, in order: the fixed part of each list.
	shapes [formats][2]shape
}

const formats = 3

// shape is what payouts of one format have in common, without and with accounts to create.
type shape struct {
	readonly     []entry // in the message
	listed       []entry // in the table
	accounts     int     // all but those of payees
	instructions int     // all but those of payees and the memo
	bytes        int     // all but those of payees and the memo
}

// New lays out what a treasury's messages have in common. Without a table, there are no messages in V0.
func New(keys Keys, table *Table) (*Treasury, error) {
	if keys.Treasury.IsZero() || keys.TokenAccount.IsZero() || keys.Mint.IsZero() || keys.TokenProgram.IsZero() {
		return nil, errors.New("lay out a treasury's messages: an address is missing")
	}
	t := &Treasury{keys: keys}
	if table != nil {
		if table.Address.IsZero() || len(table.Addresses) == 0 || len(table.Addresses) > maxTable {
			return nil, fmt.Errorf("lay out a treasury's messages: a lookup table has an address and 1 to %d entries", maxTable)
		}
		t.table = &Table{Address: table.Address, Addresses: append([]solana.PublicKey(nil), table.Addresses...)}
		t.listed = make(map[solana.PublicKey]uint8, len(table.Addresses))
		for i, address := range table.Addresses {
			if _, twice := t.listed[address]; !twice {
				t.listed[address] = uint8(i)
			}
		}
	}
	for _, f := range []Format{V1, V0, Legacy} {
		t.shapes[f] = [2]shape{t.newShape(f, false), t.newShape(f, true)}
	}
	return t, nil
}

// Lists reports whether the lookup table holds an address.
func (t *Treasury) Lists(address solana.PublicKey) bool {
	_, listed := t.listed[address]
	return listed
}

func (t *Treasury) shape(f Format, creates bool) *shape {
	if creates {
		return &t.shapes[f][1]
	}
	return &t.shapes[f][0]
}

func (t *Treasury) newShape(f Format, creates bool) shape {
	var r roster
	r.read(t, f, slotMint, &t.keys.Mint)
	r.read(t, f, slotSysvar, &sysvar)
	r.invoke(slotSystem, &systemProgram)
	r.invoke(slotToken, &t.keys.TokenProgram)
	r.invoke(slotMemo, &memoProgram)
	if f != V1 {
		r.invoke(slotBudget, &budgetProgram)
	}
	if creates {
		r.invoke(slotATA, &ataProgram)
	}
	r.sort()
	s := shape{
		readonly: append([]entry(nil), r.readonly[:r.readonlys]...), listed: append([]entry(nil), r.listedReadonly[:r.listedReadonlys]...),
		instructions: 1,
	}
	const writable = 3 // treasury, its token account and the nonce
	s.accounts = writable + len(s.readonly) + len(s.listed)
	static := s.accounts - len(s.listed)
	if _, listed := t.listed[t.keys.TokenAccount]; listed && f == V0 {
		static--
	}
	s.bytes = fixedBytes(f) + addressBytes*static
	if f == V0 {
		s.bytes += s.accounts - static // an index each
	}
	if f != V1 {
		s.instructions += 2
	}
	return s
}

// fixedBytes is a payout's size without its memo, payees and accounts, signature included.
func fixedBytes(f Format) int {
	const header, lifetime, advance = 3, 32, 3 + 4
	switch f {
	case V1:
		const version, mask, counts, config = 1, 4, 2, 16
		return signatureBytes + version + header + mask + lifetime + counts + config + headBytes + advance
	case V0:
		const version, lookups = 1, 1 + addressBytes + 2
		return version + lookups + fixedBytes(Legacy)
	default:
		const counts, budget = 3, 3 + 5 + 3 + 9 // of signatures, accounts and instructions; units and their price
		return counts + signatureBytes + header + lifetime + instructionBytes + advance + budget
	}
}

// What an instruction takes beside its accounts and data.
const (
	headBytes        = 4 // in V1
	instructionBytes = 3 // in the older formats
)

// size is a payout's, signature included.
func (t *Treasury) size(f Format, l Load) int {
	head := instructionBytes
	if f == V1 {
		head = headBytes
	}
	size := t.shape(f, l.Creates > 0).bytes
	if l.Memo > 0 {
		size += head + l.Memo
	} else {
		size -= addressBytes // the memo program
	}
	size += l.Payees * (head + transferAccounts + transferData)
	size += l.Creates * (head + createAccounts + createData + addressBytes) // with the wallet
	if f == V0 {
		return size + l.Listed + (l.Payees-l.Listed)*addressBytes
	}
	return size + l.Payees*addressBytes
}

// Instruction codes, and how long the instructions of payees are.
const (
	systemAdvanceNonce   = 4
	tokenTransferChecked = 12
	ataCreateIdempotent  = 1
	budgetUnitLimit      = 2
	budgetUnitPrice      = 3
	microLamports        = 1_000_000
	maxUnits             = 1_400_000

	transferAccounts = 4
	transferData     = 10
	createAccounts   = 6
	createData       = 1
)
