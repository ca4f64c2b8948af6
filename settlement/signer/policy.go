package signer

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/gagliardetto/solana-go"
)

const maxPolicyBytes = 64 << 10

// Policy is what the signer may sign. It is a file of the signer's own, read at start.
type Policy struct {
	Mint         solana.PublicKey   `json:"mint"`
	TokenProgram solana.PublicKey   `json:"token_program"`
	Decimals     uint8              `json:"decimals"`
	Nonces       []solana.PublicKey `json:"nonce_accounts"`

	MaxPayoutsPerBatch   int    `json:"max_payouts_per_batch"`
	MaxBaseUnitsPerBatch uint64 `json:"max_base_units_per_batch"`
	MaxBaseUnitsPerDay   uint64 `json:"max_base_units_per_day"` // in any 24 hours
	MaxPriorityFee       uint64 `json:"max_priority_fee_lamports"`

	// What may be moved from customers' deposit wallets to the treasury. It is not part of the caps on payouts; without caps of its
	// own nothing is swept.
	MaxBaseUnitsPerSweep    uint64 `json:"max_base_units_per_sweep"`
	MaxBaseUnitsSweptPerDay uint64 `json:"max_base_units_swept_per_day"` // in any 24 hours
}

// Validate names the first thing that is wrong.
func (p Policy) Validate() error {
	switch {
	case p.Mint.IsZero():
		return fmt.Errorf("mint is missing")
	case p.TokenProgram != solana.TokenProgramID && p.TokenProgram != solana.Token2022ProgramID:
		return fmt.Errorf("token_program must be one of Solana's two token programs")
	case len(p.Nonces) == 0:
		return fmt.Errorf("nonce_accounts is empty")
	case p.MaxPayoutsPerBatch < 1 || p.MaxPayoutsPerBatch > maxAccounts:
		return fmt.Errorf("max_payouts_per_batch must be 1 to %d", maxAccounts)
	case p.MaxBaseUnitsPerBatch == 0 || p.MaxBaseUnitsPerDay > math.MaxInt64:
		return fmt.Errorf("max_base_units_per_batch and max_base_units_per_day must be 1 to %d", int64(math.MaxInt64))
	case p.MaxBaseUnitsPerDay < p.MaxBaseUnitsPerBatch:
		return fmt.Errorf("max_base_units_per_day must not be less than max_base_units_per_batch")
	case p.MaxBaseUnitsSweptPerDay > math.MaxInt64:
		return fmt.Errorf("max_base_units_swept_per_day must be at most %d", int64(math.MaxInt64))
	case p.MaxBaseUnitsSweptPerDay < p.MaxBaseUnitsPerSweep:
		return fmt.Errorf("max_base_units_swept_per_day must not be less than max_base_units_per_sweep")
	}
	return nil
}

// WriteFile stores the policy where Serve reads it, for its owner only, replacing an older one as a whole.
func (p Policy) WriteFile(path string) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("signer policy: %w", err)
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("signer policy: %w", err)
	}
	fresh := path + ".new"
	if err := os.WriteFile(fresh, append(text, '\n'), privateMode); err != nil {
		return fmt.Errorf("signer policy: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("signer policy: %w", err)
	}
	return nil
}

func readPolicy(path string) (Policy, error) {
	text, err := readPrivate(path, maxPolicyBytes)
	if err != nil {
		return Policy{}, fmt.Errorf("signer policy: %w", err)
	}
	var policy Policy
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&policy); err != nil {
		return Policy{}, fmt.Errorf("signer policy %s: %w", path, err)
	}
	if err := policy.Validate(); err != nil {
		return Policy{}, fmt.Errorf("signer policy %s: %w", path, err)
	}
	return policy, nil
}
