package signer

import (
	"github.com/gagliardetto/solana-go"

	"github.com/muster-gpu/muster/internal/ids"
)

// Paths of the signer's HTTP interface.
const (
	pathAddresses = "/v1/addresses"
	pathDeposit   = "/v1/deposit-addresses/" // and an organisation id
	pathSign      = "/v1/signatures"

	maxRequests      = 128 // in one call
	maxRequestBytes  = 4 << 20
	maxResponseBytes = 256 << 10
)

// Addresses are the public side of the signer's keys and policy.
type Addresses struct {
	Treasury             solana.PublicKey   `json:"treasury"` // also the fee payer and the nonces' authority
	TreasuryTokenAccount solana.PublicKey   `json:"treasury_token_account"`
	Mint                 solana.PublicKey   `json:"mint"`
	TokenProgram         solana.PublicKey   `json:"token_program"`
	Decimals             uint8              `json:"decimals"`
	Nonces               []solana.PublicKey `json:"nonce_accounts"`
	MaxPriorityFee       uint64             `json:"max_priority_fee_lamports"`
	MaxPayoutsPerBatch   int                `json:"max_payouts_per_batch"`
	MaxBaseUnitsPerBatch uint64             `json:"max_base_units_per_batch"`
	MaxBaseUnitsPerSweep uint64             `json:"max_base_units_per_sweep"` // 0: nothing is swept
	LookupTable          *LookupTable       `json:"lookup_table,omitempty"`   // the policy's first; nil if it lists none
}

// request is one message to sign, and what it is said to do: one of the three. Its JSON text is hashed into the journal.
type request struct {
	Message []byte    `json:"message"`
	Batch   *Batch    `json:"batch,omitempty"`
	Cancel  ids.Batch `json:"cancel,omitzero"`
	Sweep   *Sweep    `json:"sweep,omitempty"`
}

// Order is a message that pays a batch, one of many to sign.
type Order struct {
	Message []byte
	Batch   Batch
}

// Answer is what the signer says to one of many requests: signatures in the order of the message's signers, or a refusal.
type Answer struct {
	Signatures []solana.Signature `json:"signatures,omitempty"`
	Refusal    *Refusal           `json:"refusal,omitempty"`
}

type signRequest struct {
	Requests []request `json:"requests"`
}

type signResponse struct {
	Answers []Answer `json:"answers"`
}

type depositResponse struct {
	Address solana.PublicKey `json:"address"`
}

type failure struct {
	Message string `json:"message"`
}

// kind and id say what a request is about, for logs.
func (r *request) kind() string {
	switch {
	case r.Batch != nil:
		return "batch"
	case r.Sweep != nil:
		return kindSweep
	default:
		return kindCancel
	}
}

// signers is how many sign the request's message.
func (r *request) signers() int {
	if r.Sweep != nil {
		return 2
	}
	return 1
}

func (r *request) id() string {
	switch {
	case r.Batch != nil:
		return r.Batch.ID.String()
	case r.Sweep != nil:
		return r.Sweep.ID.String()
	default:
		return r.Cancel.String()
	}
}
