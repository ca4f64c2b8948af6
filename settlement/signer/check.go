package signer

import (
	"encoding/base64"
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

// Instruction codes of the programs that the treasury uses.
const (
	systemAdvanceNonce   = 4
	tokenTransferChecked = 12
	ataCreateIdempotent  = 1
	budgetUnitLimit      = 2
	budgetUnitPrice      = 3
	budgetLoadedData     = 4
	microLamports        = 1_000_000
	maxComputeUnits      = 1_400_000
	rootBytes            = 32
)

var memoProgram = solana.MustPublicKeyFromBase58("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")

// rules are what every message is held to.
type rules struct {
	policy   Policy
	treasury solana.PublicKey
	source   solana.PublicKey // the treasury's token account
}

// checked is what an allowed message does.
type checked struct {
	nonce nonceUse
	total uint64
}

// frame checks what all messages have in common: who signs, the nonce that is advanced first, and the fee.
type frame struct {
	rules
	budget map[byte]uint64
	writes map[solana.PublicKey]bool // what the instructions change
}

// open checks a message's signers, of whom the treasury is the first, and its first instruction. It returns the instructions that
// are left to check.
func (f *frame) open(m *message, others ...solana.PublicKey) ([]instruction, *Refusal) {
	if m.signatures != 1+len(others) || m.keys[0] != f.treasury {
		return nil, refuse(RuleSigner, "the treasury %s must be the fee payer, and one of exactly %d signers", f.treasury, 1+len(others))
	}
	for i, other := range others {
		if m.keys[1+i] != other {
			return nil, refuse(RuleSigner, "the treasury and %s must sign, not %s", other, m.keys[1+i])
		}
	}
	if len(m.instructions) == 0 {
		return nil, refuse(RuleInstruction, "the message has no instructions")
	}
	f.budget, f.writes = map[byte]uint64{}, map[solana.PublicKey]bool{f.treasury: true}
	return m.instructions[1:], f.advanceNonce(m, m.instructions[0])
}

func (f *frame) advanceNonce(m *message, first instruction) *Refusal {
	if first.program != solana.SystemProgramID || len(first.data) != 4 ||
		binary.LittleEndian.Uint32(first.data) != systemAdvanceNonce || len(first.accounts) != 3 {
		return refuse(RuleNonce, "the first instruction must advance a durable nonce")
	}
	if first.accounts[1] != solana.SysVarRecentBlockHashesPubkey || first.accounts[2] != f.treasury {
		return refuse(RuleNonce, "the nonce must be advanced by the treasury")
	}
	nonce := first.accounts[0]
	if !slices.Contains(f.policy.Nonces, nonce) {
		return refuse(RuleNonce, "the nonce account %s is not on the policy's list", nonce)
	}
	if int(first.places[0]) >= m.statics {
		return refuse(RuleNonce, "the nonce account %s is taken from a lookup table, where a cluster does not find it", nonce)
	}
	f.writes[nonce] = true
	return nil
}

func (f *frame) computeBudget(m *message, place int, in instruction) *Refusal {
	if m.version == 1 || len(in.accounts) != 0 || len(in.data) == 0 {
		return refuse(RuleInstruction, "instruction %d sets a compute budget where it has no meaning", place)
	}
	var value uint64
	code := in.data[0]
	switch {
	case (code == budgetUnitLimit || code == budgetLoadedData) && len(in.data) == 5:
		value = uint64(binary.LittleEndian.Uint32(in.data[1:]))
	case code == budgetUnitPrice && len(in.data) == 9:
		value = binary.LittleEndian.Uint64(in.data[1:])
	default:
		return refuse(RuleInstruction, "instruction %d is no known compute budget", place)
	}
	if _, twice := f.budget[code]; twice {
		return refuse(RuleInstruction, "instruction %d sets the same compute budget again", place)
	}
	f.budget[code] = value
	return nil
}

// close checks what only the whole message shows: that it may change exactly the accounts that its instructions change, and what
// it pays for being taken early.
func (f *frame) close(m *message) *Refusal {
	for i, key := range m.keys {
		if m.writable[i] != f.writes[key] {
			return refuse(RuleInstruction, "the account %s is marked as writable where it is only read, or the other way round", key)
		}
	}
	fee := m.priorityFee
	if price, priced := f.budget[budgetUnitPrice]; priced {
		units, limited := f.budget[budgetUnitLimit]
		if !limited || units > maxComputeUnits {
			return refuse(RuleFee, "a price per compute unit needs a limit of at most %d units", maxComputeUnits)
		}
		high, low := bits.Mul64(price, units)
		if high != 0 {
			return refuse(RuleFee, "the priority fee overflows")
		}
		fee = low / microLamports
		if low%microLamports != 0 {
			fee++
		}
	}
	if fee > f.policy.MaxPriorityFee {
		return refuse(RuleFee, "the priority fee is %d lamports, at most %d are allowed", fee, f.policy.MaxPriorityFee)
	}
	return nil
}

// nonceOf is the nonce that an opened message lives by.
func nonceOf(m *message) nonceUse { return nonceUse{m.instructions[0].accounts[0], m.lifetime} }

// isBatchMemo reports whether a memo is a batch's id, alone or before the root of its manifest.
func isBatchMemo(text []byte, id ids.Batch) bool {
	name, root, rooted := strings.Cut(string(text), " ")
	if name != id.String() || !rooted {
		return name == id.String()
	}
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(root)
	return err == nil && len(decoded) == rootBytes && !strings.ContainsAny(root, "\r\n")
}
