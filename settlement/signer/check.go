package signer

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

// Batch is what the asker says that a message pays.
type Batch struct {
	ID      ids.Batch `json:"id"`
	Payouts []Payout  `json:"payouts"`
}

// Payout is one payee's part of a batch.
type Payout struct {
	ID       ids.Payout       `json:"id"`
	Payee    ids.Org          `json:"payee"`
	Sequence uint64           `json:"sequence"` // counts the payee's signed payouts from 1
	Wallet   solana.PublicKey `json:"wallet"`   // paid into its associated token account
	Amount   uint64           `json:"amount"`   // base units
}

// Instruction codes of the programs that a payout uses.
const (
	systemAdvanceNonce   = 4
	tokenTransferChecked = 12
	ataCreateIdempotent  = 1
	budgetUnitLimit      = 2
	budgetUnitPrice      = 3
	budgetLoadedData     = 4
	microLamports        = 1_000_000
	maxComputeUnits      = 1_400_000
)

var memoProgram = solana.MustPublicKeyFromBase58("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")

// checked is what an allowed message does.
type checked struct {
	nonceAccount solana.PublicKey
	nonceValue   solana.Hash
	total        uint64
}

// checker compares one message with the policy and with the batch that it is said to pay.
type checker struct {
	policy   Policy
	treasury solana.PublicKey
	source   solana.PublicKey // the treasury's token account
	batch    Batch

	payees  map[solana.PublicKey]*payee // by token account
	budget  map[byte]uint64
	memos   int
	version int
}

type payee struct {
	payout        Payout
	created, paid bool
}

// check returns what a message does if the policy allows it and it pays the batch, nothing more and nothing less.
func (c *checker) check(m *message) (checked, *Refusal) {
	var result checked
	total, refusal := c.loadBatch()
	if refusal != nil {
		return result, refusal
	}
	if m.signatures != 1 || m.keys[0] != c.treasury {
		return result, refuse(RuleSigner, "the treasury %s must be the only signer", c.treasury)
	}
	if len(m.instructions) == 0 {
		return result, refuse(RuleInstruction, "the message has no instructions")
	}
	if refusal := c.advanceNonce(m.instructions[0]); refusal != nil {
		return result, refusal
	}
	c.version, c.budget = m.version, map[byte]uint64{}
	for i, instruction := range m.instructions[1:] {
		if refusal := c.instruction(i+1, instruction); refusal != nil {
			return result, refusal
		}
	}
	if refusal := c.complete(m); refusal != nil {
		return result, refusal
	}
	return checked{nonceAccount: m.instructions[0].accounts[0], nonceValue: m.lifetime, total: total}, nil
}

func (c *checker) loadBatch() (total uint64, refusal *Refusal) {
	if n := len(c.batch.Payouts); c.batch.ID.IsZero() || n == 0 || n > c.policy.MaxPayoutsPerBatch {
		return 0, refuse(RuleBatchSize, "a batch has an id and 1 to %d payouts, this has %d", c.policy.MaxPayoutsPerBatch, n)
	}
	c.payees = make(map[solana.PublicKey]*payee, len(c.batch.Payouts))
	orgs, payouts := map[ids.Org]bool{}, map[ids.Payout]bool{}
	for _, payout := range c.batch.Payouts {
		if payout.ID.IsZero() || payout.Payee.IsZero() || payouts[payout.ID] || orgs[payout.Payee] {
			return 0, refuse(RulePayee, "a payout or its payee is missing or listed twice")
		}
		orgs[payout.Payee], payouts[payout.ID] = true, true
		if payout.Amount == 0 || payout.Amount > math.MaxInt64 {
			return 0, refuse(RuleAmount, "%s pays %d base units", payout.ID, payout.Amount)
		}
		account, _, err := solana.FindAssociatedTokenAddressWithProgram(payout.Wallet, c.policy.Mint, c.policy.TokenProgram)
		if err != nil || account == c.source || c.payees[account] != nil {
			return 0, refuse(RulePayee, "%s pays the treasury itself, or a wallet that another payout pays", payout.ID)
		}
		c.payees[account] = &payee{payout: payout}
		if total += payout.Amount; total > c.policy.MaxBaseUnitsPerBatch {
			return 0, refuse(RuleBatchCap, "the batch pays more than %d base units", c.policy.MaxBaseUnitsPerBatch)
		}
	}
	return total, nil
}

func (c *checker) advanceNonce(first instruction) *Refusal {
	if first.program != solana.SystemProgramID || len(first.data) != 4 ||
		binary.LittleEndian.Uint32(first.data) != systemAdvanceNonce || len(first.accounts) != 3 {
		return refuse(RuleNonce, "the first instruction must advance a durable nonce")
	}
	if first.accounts[1] != solana.SysVarRecentBlockHashesPubkey || first.accounts[2] != c.treasury {
		return refuse(RuleNonce, "the nonce must be advanced by the treasury")
	}
	for _, nonce := range c.policy.Nonces {
		if nonce == first.accounts[0] {
			return nil
		}
	}
	return refuse(RuleNonce, "the nonce account %s is not on the policy's list", first.accounts[0])
}

func (c *checker) instruction(place int, in instruction) *Refusal {
	switch in.program {
	case solana.ComputeBudget:
		return c.computeBudget(place, in)
	case solana.SPLAssociatedTokenAccountProgramID:
		return c.createIdempotent(place, in)
	case c.policy.TokenProgram:
		return c.transferChecked(place, in)
	case memoProgram:
		return c.memo(in)
	case solana.Token2022ProgramID, solana.TokenProgramID:
		return refuse(RuleMint, "instruction %d is for the token program %s, the policy's is %s", place, in.program, c.policy.TokenProgram)
	default:
		return refuse(RuleInstruction, "instruction %d calls the program %s", place, in.program)
	}
}

func (c *checker) computeBudget(place int, in instruction) *Refusal {
	if c.version == 1 || len(in.accounts) != 0 || len(in.data) == 0 {
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
	if _, twice := c.budget[code]; twice {
		return refuse(RuleInstruction, "instruction %d sets the same compute budget again", place)
	}
	c.budget[code] = value
	return nil
}

func (c *checker) createIdempotent(place int, in instruction) *Refusal {
	if len(in.data) != 1 || in.data[0] != ataCreateIdempotent || len(in.accounts) != 6 {
		return refuse(RuleInstruction, "instruction %d is not CreateIdempotent", place)
	}
	payer, account, wallet, mint := in.accounts[0], in.accounts[1], in.accounts[2], in.accounts[3]
	owed := c.payees[account]
	switch {
	case payer != c.treasury || in.accounts[4] != solana.SystemProgramID:
		return refuse(RuleInstruction, "instruction %d does not create an account on the treasury's behalf", place)
	case mint != c.policy.Mint || in.accounts[5] != c.policy.TokenProgram:
		return refuse(RuleMint, "instruction %d creates an account of the mint %s", place, mint)
	case owed == nil || owed.payout.Wallet != wallet || owed.created:
		return refuse(RulePayee, "instruction %d creates a token account for %s, which the batch does not call for", place, wallet)
	}
	owed.created = true
	return nil
}

func (c *checker) transferChecked(place int, in instruction) *Refusal {
	if len(in.data) != 10 || in.data[0] != tokenTransferChecked || len(in.accounts) != 4 {
		return refuse(RuleInstruction, "instruction %d of the token program is not TransferChecked", place)
	}
	source, mint, destination, authority := in.accounts[0], in.accounts[1], in.accounts[2], in.accounts[3]
	amount := binary.LittleEndian.Uint64(in.data[1:9])
	owed := c.payees[destination]
	switch {
	case mint != c.policy.Mint || in.data[9] != c.policy.Decimals:
		return refuse(RuleMint, "instruction %d transfers the mint %s with %d decimals", place, mint, in.data[9])
	case source != c.source || authority != c.treasury:
		return refuse(RuleSource, "instruction %d transfers out of %s by the authority of %s", place, source, authority)
	case owed == nil:
		return refuse(RulePayee, "instruction %d pays %s, which the batch does not", place, destination)
	case owed.paid:
		return refuse(RulePayee, "instruction %d pays %s again", place, destination)
	case owed.payout.Amount != amount:
		return refuse(RuleAmount, "instruction %d pays %d base units for %s, which is of %d", place, amount, owed.payout.ID,
			owed.payout.Amount)
	}
	owed.paid = true
	return nil
}

func (c *checker) memo(in instruction) *Refusal {
	c.memos++
	if c.memos > 1 || len(in.accounts) != 0 || string(in.data) != c.batch.ID.String() {
		return refuse(RuleMemo, "the one memo must be the batch id %s", c.batch.ID)
	}
	return nil
}

// complete checks what only the whole message shows.
func (c *checker) complete(m *message) *Refusal {
	for _, owed := range c.payees {
		if !owed.paid {
			return refuse(RulePayee, "the message does not pay %s", owed.payout.ID)
		}
	}
	if c.memos == 0 {
		return refuse(RuleMemo, "the message has no memo")
	}
	fee := m.priorityFee
	if price, priced := c.budget[budgetUnitPrice]; priced {
		units, limited := c.budget[budgetUnitLimit]
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
	if fee > c.policy.MaxPriorityFee {
		return refuse(RuleFee, "the priority fee is %d lamports, at most %d are allowed", fee, c.policy.MaxPriorityFee)
	}
	return nil
}
