package signer

import "github.com/gagliardetto/solana-go"

// Paths of the signer's HTTP interface.
const (
	pathAddresses = "/v1/addresses"
	pathDeposit   = "/v1/deposit-addresses/" // and an organisation id
	pathSign      = "/v1/signatures"

	maxRequestBytes  = 64 << 10
	maxResponseBytes = 64 << 10
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
}

type signRequest struct {
	Message []byte `json:"message"`
	Batch   Batch  `json:"batch"`
}

type signResponse struct {
	Signature solana.Signature `json:"signature"`
}

type depositResponse struct {
	Address solana.PublicKey `json:"address"`
}

type failure struct {
	Message string `json:"message"`
}
