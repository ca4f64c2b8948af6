package signer

import (
	"encoding/binary"
	"math"

	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

// Sweep is what the asker says that a message moves from a customer's deposit wallet to the treasury.
type Sweep struct {
	ID     ids.Sweep `json:"id"`
	Org    ids.Org   `json:"org"`    // whose deposit wallet
	Amount uint64    `json:"amount"` // base units
}

// sweepChecker compares one message with the sweep that it is said to be.
type sweepChecker struct {
	frame
	sweep   Sweep
	deposit solana.PublicKey // the organisation's deposit wallet

	from  solana.PublicKey // its token account
	moved bool
	memos int
}

func (c *sweepChecker) check(m *message) (checked, *Refusal) {
	if refusal := c.load(); refusal != nil {
		return checked{}, refusal
	}
	rest, refusal := c.open(m, c.deposit)
	if refusal != nil {
		return checked{}, refusal
	}
	for i, in := range rest {
		switch in.program {
		case solana.ComputeBudget:
			refusal = c.computeBudget(m, i+1, in)
		case c.policy.TokenProgram:
			refusal = c.transfer(i+1, in)
		case memoProgram:
			if c.memos++; c.memos > 1 || len(in.accounts) != 0 || string(in.data) != c.sweep.ID.String() {
				refusal = refuse(RuleMemo, "a sweep's memo must be its id %s", c.sweep.ID)
			}
		default:
			refusal = refuse(RuleInstruction, "instruction %d calls the program %s, a sweep only moves tokens", i+1, in.program)
		}
		if refusal != nil {
			return checked{}, refusal
		}
	}
	if !c.moved {
		return checked{}, refuse(RuleAmount, "the message moves nothing")
	}
	return checked{nonce: nonceOf(m), total: c.sweep.Amount}, c.close(m)
}

func (c *sweepChecker) load() *Refusal {
	switch {
	case c.sweep.ID.IsZero() || c.sweep.Org.IsZero():
		return refuse(RuleSweep, "a sweep has an id and an organisation")
	case c.sweep.Amount == 0 || c.sweep.Amount > math.MaxInt64:
		return refuse(RuleAmount, "%s moves %d base units", c.sweep.ID, c.sweep.Amount)
	case c.sweep.Amount > c.policy.MaxBaseUnitsPerSweep:
		return refuse(RuleSweepCap, "%s moves %d base units, the policy allows %d", c.sweep.ID, c.sweep.Amount, c.policy.MaxBaseUnitsPerSweep)
	}
	var err error
	c.from, _, err = solana.FindAssociatedTokenAddressWithProgram(c.deposit, c.policy.Mint, c.policy.TokenProgram)
	if err != nil {
		return refuse(RuleSource, "%s has no token account to sweep", c.deposit)
	}
	return nil
}

func (c *sweepChecker) transfer(place int, in instruction) *Refusal {
	if len(in.data) != 10 || in.data[0] != tokenTransferChecked || len(in.accounts) != 4 {
		return refuse(RuleInstruction, "instruction %d of the token program is not TransferChecked", place)
	}
	source, mint, destination, authority := in.accounts[0], in.accounts[1], in.accounts[2], in.accounts[3]
	switch amount := binary.LittleEndian.Uint64(in.data[1:9]); {
	case mint != c.policy.Mint || in.data[9] != c.policy.Decimals:
		return refuse(RuleMint, "instruction %d transfers the mint %s with %d decimals", place, mint, in.data[9])
	case source != c.from || authority != c.deposit:
		return refuse(RuleSource, "instruction %d sweeps %s by the authority of %s, the deposit of %s is in %s", place, source, authority,
			c.sweep.Org, c.from)
	case destination != c.source:
		return refuse(RulePayee, "instruction %d sweeps into %s, which is not the treasury's token account", place, destination)
	case c.moved:
		return refuse(RuleAmount, "instruction %d moves tokens again", place)
	case amount != c.sweep.Amount:
		return refuse(RuleAmount, "instruction %d moves %d base units, %s is of %d", place, amount, c.sweep.ID, c.sweep.Amount)
	}
	c.moved = true
	c.writes[source], c.writes[destination] = true, true
	return nil
}
