package txn

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/gagliardetto/solana-go"
)

// MaxPayees is how many payees any transaction can pay: a version 1 message has 64 accounts, of which the rest is 8.
const MaxPayees = 56

// Slots name the accounts of a message until their places in its list are known.
const (
	slotTreasury = iota
	slotWallet   // the other signer, of a sweep
	slotNonce
	slotSource // that tokens leave
	slotTarget // that tokens of a sweep reach
	slotMint
	slotSysvar
	slotSystem
	slotToken
	slotMemo
	slotBudget
	slotATA
	fixedSlots
	slotPayee = fixedSlots            // and so many more
	slotOwner = slotPayee + MaxPayees // the wallets of those whose account is made
	slots     = slotOwner + MaxPayees
)

// entry is an account of a message.
type entry struct {
	key   *solana.PublicKey
	order uint64 // the key's first bytes, which nearly always decide
	slot  uint8
	place uint8 // in the lookup table
}

func newEntry(slot uint8, key *solana.PublicKey) entry {
	return entry{key: key, order: binary.BigEndian.Uint64(key[:8]), slot: slot}
}

func compareEntries(a, b entry) int {
	switch {
	case a.order < b.order:
		return -1
	case a.order > b.order:
		return 1
	default:
		return bytes.Compare(a.key[:], b.key[:])
	}
}

// roster collects the accounts of one message and gives each its index. It lives on the stack.
type roster struct {
	signers        [2]entry // the treasury, and another one that is only read
	writable       [MaxPayees + 3]entry
	readonly       [MaxPayees + fixedSlots]entry
	listedWritable [MaxPayees + 3]entry
	listedReadonly [MaxPayees + fixedSlots]entry

	signersLen, writables, readonlys, listedWritables, listedReadonlys int

	index [slots]uint8
}

func (r *roster) sign(slot uint8, key *solana.PublicKey) {
	r.signers[r.signersLen] = newEntry(slot, key)
	r.signersLen++
}

// write adds an account that the message changes.
func (r *roster) write(t *Treasury, f Format, slot uint8, key *solana.PublicKey) {
	e := newEntry(slot, key)
	if f == V0 {
		if place, listed := t.listed[*key]; listed {
			e.place = place
			r.listedWritable[r.listedWritables] = e
			r.listedWritables++
			return
		}
	}
	r.pin(e)
}

// pin adds a changed account that no table may hold.
func (r *roster) pin(e entry) {
	r.writable[r.writables] = e
	r.writables++
}

// read adds an account that the message only looks at.
func (r *roster) read(t *Treasury, f Format, slot uint8, key *solana.PublicKey) {
	e := newEntry(slot, key)
	if f == V0 {
		if place, listed := t.listed[*key]; listed {
			e.place = place
			r.listedReadonly[r.listedReadonlys] = e
			r.listedReadonlys++
			return
		}
	}
	r.readonly[r.readonlys] = e
	r.readonlys++
}

// invoke adds a program, which no table may hold.
func (r *roster) invoke(slot uint8, key *solana.PublicKey) {
	r.readonly[r.readonlys] = newEntry(slot, key)
	r.readonlys++
}

// start takes over what payouts of a format have in common.
func (r *roster) start(s *shape) {
	r.readonlys = copy(r.readonly[:], s.readonly)
	r.listedReadonlys = copy(r.listedReadonly[:], s.listed)
}

// drop removes a program that this message does without.
func (r *roster) drop(slot uint8) {
	kept := slices.DeleteFunc(r.readonly[:r.readonlys], func(e entry) bool { return e.slot == slot })
	r.readonlys = len(kept)
}

func (r *roster) sort() {
	slices.SortFunc(r.writable[:r.writables], compareEntries)
	slices.SortFunc(r.readonly[:r.readonlys], compareEntries)
	slices.SortFunc(r.listedWritable[:r.listedWritables], compareEntries)
	slices.SortFunc(r.listedReadonly[:r.listedReadonlys], compareEntries)
}

func (r *roster) statics() int { return r.signersLen + r.writables + r.readonlys }

func (r *roster) accounts() int { return r.statics() + r.listedWritables + r.listedReadonlys }

// close orders the accounts and gives each its index. An account can have one part only.
func (r *roster) close() error {
	r.sort()
	if err := r.distinct(); err != nil {
		return err
	}
	next := uint8(0)
	for _, list := range [][]entry{
		r.signers[:r.signersLen], r.writable[:r.writables], r.readonly[:r.readonlys],
		r.listedWritable[:r.listedWritables], r.listedReadonly[:r.listedReadonlys],
	} {
		for i := range list {
			r.index[list[i].slot] = next
			next++
		}
	}
	return nil
}

func (r *roster) distinct() error {
	if twice := common(r.writable[:r.writables], r.readonly[:r.readonlys]); twice != nil {
		return partsError(twice)
	}
	if twice := common(r.listedWritable[:r.listedWritables], r.listedReadonly[:r.listedReadonlys]); twice != nil {
		return partsError(twice)
	}
	for i, signer := range r.signers[:r.signersLen] {
		if i > 0 && *signer.key == *r.signers[0].key {
			return partsError(signer.key)
		}
		// Signers are in no table's part of the message, but a table may list one, and a payee may be one.
		for _, list := range [][]entry{
			r.writable[:r.writables], r.readonly[:r.readonlys], r.listedWritable[:r.listedWritables], r.listedReadonly[:r.listedReadonlys],
		} {
			for j := range list {
				if list[j].order == signer.order && *list[j].key == *signer.key {
					return partsError(signer.key)
				}
			}
		}
	}
	return nil
}

// common walks two ordered lists and returns a key that is there twice.
func common(a, b []entry) *solana.PublicKey {
	var last *solana.PublicKey
	var order uint64
	for len(a) > 0 || len(b) > 0 {
		var e entry
		if len(b) == 0 || (len(a) > 0 && compareEntries(a[0], b[0]) <= 0) {
			e, a = a[0], a[1:]
		} else {
			e, b = b[0], b[1:]
		}
		if last != nil && order == e.order && *last == *e.key {
			return e.key
		}
		last, order = e.key, e.order
	}
	return nil
}

func partsError(key *solana.PublicKey) error {
	return fmt.Errorf("the account %s would have two parts in one message", *key)
}
