package signer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/gagliardetto/solana-go"
)

// Limits of the policy file.
const (
	maxPolicyBytes  = 4 << 20
	maxNonces       = 2048
	maxLookupTables = 256

	defaultMessagesPerDay = 10_000
)

// Policy is what the signer may sign. It is a file of the signer's own, read at start.
//
// The programs that a message may call are not a setting: the system program to advance a nonce, compute budget, associated token
// accounts, token_program and memo.
type Policy struct {
	// Treasury, if given, is the only key that the signer starts with. Tokens leave its associated token account and no other.
	Treasury solana.PublicKey `json:"treasury,omitzero"`

	Mint         solana.PublicKey   `json:"mint"`
	TokenProgram solana.PublicKey   `json:"token_program"`
	Decimals     uint8              `json:"decimals"`
	Nonces       []solana.PublicKey `json:"nonce_accounts"`

	// The lookup tables that messages of version 0 may use, with their contents: the signer asks no cluster for them.
	LookupTables []LookupTable `json:"lookup_tables,omitempty"`

	MaxPayoutsPerBatch   int    `json:"max_payouts_per_batch"`
	MaxBaseUnitsPerBatch uint64 `json:"max_base_units_per_batch"`
	MaxBaseUnitsPerDay   uint64 `json:"max_base_units_per_day"` // in any 24 hours
	MaxPriorityFee       uint64 `json:"max_priority_fee_lamports"`
	MaxMessagesPerDay    int    `json:"max_messages_per_day,omitempty"` // of any kind, since each costs SOL; 0 means 10,000

	// What may be moved from customers' deposit wallets to the treasury. It is not part of the caps on payouts; without caps of its
	// own nothing is swept.
	MaxBaseUnitsPerSweep    uint64 `json:"max_base_units_per_sweep"`
	MaxBaseUnitsSweptPerDay uint64 `json:"max_base_units_swept_per_day"` // in any 24 hours
}

// LookupTable is a lookup table and what it holds, or held once: a cluster only ever appends.
type LookupTable struct {
	Address   solana.PublicKey   `json:"address"`
	Addresses []solana.PublicKey `json:"addresses"`
}

func (p Policy) firstTable() *LookupTable {
	if len(p.LookupTables) == 0 {
		return nil
	}
	return &p.LookupTables[0]
}

func (p Policy) messagesPerDay() int {
	if p.MaxMessagesPerDay == 0 {
		return defaultMessagesPerDay
	}
	return p.MaxMessagesPerDay
}

func (p Policy) tables() tables {
	known := tables{}
	for _, table := range p.LookupTables {
		known[table.Address] = table.Addresses
	}
	return known
}

// Validate says which settings are wrong, and how.
func (p Policy) Validate() error {
	switch {
	case p.Mint.IsZero():
		return errors.New("mint is missing: name the address of the token that is paid out")
	case p.TokenProgram != solana.TokenProgramID && p.TokenProgram != solana.Token2022ProgramID:
		return fmt.Errorf("token_program must be the program that owns the mint, %s or %s", solana.TokenProgramID, solana.Token2022ProgramID)
	case p.MaxPayoutsPerBatch < 1 || p.MaxPayoutsPerBatch > maxAccounts:
		return fmt.Errorf("max_payouts_per_batch must be 1 to %d", maxAccounts)
	}
	return errors.Join(p.validateNonces(), p.validateCaps(), p.validateTables())
}

func (p Policy) validateNonces() error {
	if n := len(p.Nonces); n == 0 || n > maxNonces {
		return fmt.Errorf("nonce_accounts must list 1 to %d accounts", maxNonces)
	}
	seen := map[solana.PublicKey]bool{}
	for _, nonce := range p.Nonces {
		if nonce.IsZero() || seen[nonce] {
			return fmt.Errorf("nonce_accounts lists %s twice, or an empty address", nonce)
		}
		seen[nonce] = true
	}
	return nil
}

func (p Policy) validateCaps() error {
	switch {
	case p.MaxBaseUnitsPerBatch == 0 || p.MaxBaseUnitsPerDay > math.MaxInt64:
		return fmt.Errorf("max_base_units_per_batch and max_base_units_per_day must be 1 to %d", int64(math.MaxInt64))
	case p.MaxBaseUnitsPerDay < p.MaxBaseUnitsPerBatch:
		return errors.New("max_base_units_per_day must not be less than max_base_units_per_batch")
	case p.MaxBaseUnitsSweptPerDay > math.MaxInt64:
		return fmt.Errorf("max_base_units_swept_per_day must be at most %d", int64(math.MaxInt64))
	case p.MaxBaseUnitsSweptPerDay < p.MaxBaseUnitsPerSweep:
		return errors.New("max_base_units_swept_per_day must not be less than max_base_units_per_sweep")
	case p.MaxMessagesPerDay < 0:
		return errors.New("max_messages_per_day must not be negative")
	case p.MaxPriorityFee > solana.LAMPORTS_PER_SOL:
		return fmt.Errorf("max_priority_fee_lamports is %d, more than 1 SOL a transaction", p.MaxPriorityFee)
	default:
		return nil
	}
}

func (p Policy) validateTables() error {
	if len(p.LookupTables) > maxLookupTables {
		return fmt.Errorf("lookup_tables lists %d tables, at most %d are allowed", len(p.LookupTables), maxLookupTables)
	}
	seen := map[solana.PublicKey]bool{}
	for _, table := range p.LookupTables {
		if table.Address.IsZero() || seen[table.Address] {
			return fmt.Errorf("lookup_tables lists %s twice, or an empty address", table.Address)
		}
		if n := len(table.Addresses); n == 0 || n > maxTableAddresses {
			return fmt.Errorf("the lookup table %s has %d addresses, it must have 1 to %d", table.Address, n, maxTableAddresses)
		}
		seen[table.Address] = true
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
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Policy{}, fmt.Errorf("signer policy %s: more follows the policy", path)
	}
	if err := policy.Validate(); err != nil {
		return Policy{}, fmt.Errorf("signer policy %s: %w", path, err)
	}
	return policy, nil
}

// CheckPolicy says what is wrong with a policy file.
func CheckPolicy(path string) error {
	_, err := readPolicy(path)
	return err
}
