package signer

import (
	"encoding/binary"
	"math"

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

// payoutChecker compares one message with the batch that it is said to pay.
type payoutChecker struct {
	frame
	batch  Batch
	payees map[solana.PublicKey]*payee // by token account
	memos  int
}

type payee struct {
	payout        Payout
	created, paid bool
}

// check returns what a message does if the policy allows it and it pays the batch, nothing more and nothing less.
func (c *payoutChecker) check(m *message) (checked, *Refusal) {
	var result checked
	total, refusal := c.loadBatch()
	if refusal != nil {
		return result, refusal
	}
	rest, refusal := c.open(m)
	if refusal != nil {
		return result, refusal
	}
	for i, instruction := range rest {
		if refusal := c.instruction(m, i+1, instruction); refusal != nil {
			return result, refusal
		}
	}
	if refusal := c.complete(m); refusal != nil {
		return result, refusal
	}
	return checked{nonce: nonceOf(m), total: total}, nil
}

func (c *payoutChecker) loadBatch() (total uint64, refusal *Refusal) {
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

func (c *payoutChecker) instruction(m *message, place int, in instruction) *Refusal {
	switch in.program {
	case solana.ComputeBudget:
		return c.computeBudget(m, place, in)
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

func (c *payoutChecker) createIdempotent(place int, in instruction) *Refusal {
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
	c.writes[account] = true
	return nil
}

func (c *payoutChecker) transferChecked(place int, in instruction) *Refusal {
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
	c.writes[source], c.writes[destination] = true, true
	return nil
}

func (c *payoutChecker) memo(in instruction) *Refusal {
	c.memos++
	if c.memos > 1 || len(in.accounts) != 0 || !isBatchMemo(in.data, c.batch.ID) {
		return refuse(RuleMemo, "the one memo must be the batch id %s, alone or followed by its manifest's root", c.batch.ID)
	}
	return nil
}

// complete checks what only the whole message shows.
func (c *payoutChecker) complete(m *message) *Refusal {
	for _, owed := range c.payees {
		if !owed.paid {
			return refuse(RulePayee, "the message does not pay %s", owed.payout.ID)
		}
	}
	if c.memos == 0 {
		return refuse(RuleMemo, "the message has no memo")
	}
	return c.close(m)
}
