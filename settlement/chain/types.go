package chain

import (
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/gagliardetto/solana-go/rpc"
)

// solana-go's types under the names that settlement uses.
type (
	// Address is an account's.
	Address = solana.PublicKey
	// Signature is a transaction's first, and so its name.
	Signature = solana.Signature
	// Hash is a blockhash or a nonce's value.
	Hash = solana.Hash
)

// The token programs.
var (
	TokenProgram     = solana.TokenProgramID
	Token2022Program = solana.Token2022ProgramID
)

// Slot is a position in the cluster's time; some slots have no block.
type Slot uint64

// Height counts blocks.
type Height uint64

// Commitment is how settled the state is that a read is answered from.
type Commitment string

// The commitments. Confirmed and Processed may still be undone.
const (
	Finalized Commitment = Commitment(rpc.CommitmentFinalized)
	Confirmed Commitment = Commitment(rpc.CommitmentConfirmed)
	Processed Commitment = Commitment(rpc.CommitmentProcessed)
)

// Cursor is a place in an account's history. The zero Cursor is its beginning.
type Cursor struct{ Slot Slot }

// Movement is what one finalized transaction did to one token account.
type Movement struct {
	Signature      Signature
	Slot           Slot
	IndexInBlock   int       // with Slot, the order in which the cluster executed
	BlockTime      time.Time // zero when the cluster does not say
	Pre, Post      uint64    // base units in the account before and after
	Mint           Address
	Owner          Address // of the token account after the transaction
	Program        Address // which token program holds the account
	Err            string  // empty if the transaction succeeded; a failed one moved nothing and still cost its fee
	Counterparties []Counterparty
	Fee            uint64 // lamports, paid by the transaction's first signer
	FeePayer       Address
	Memo           string
}

// Counterparty is a token account whose balance a transaction changed; with a Movement, another one of the same mint.
type Counterparty struct {
	TokenAccount Address
	Mint         Address
	Owner        Address
	Pre, Post    uint64
}

// Cursor is the place of the movement in its account's history.
func (m Movement) Cursor() Cursor { return Cursor{Slot: m.Slot} }

// Received is how many base units came in, 0 if none did.
func (m Movement) Received() uint64 { return excess(m.Post, m.Pre) }

// Sent is how many base units went out, 0 if none did.
func (m Movement) Sent() uint64 { return excess(m.Pre, m.Post) }

func excess(a, b uint64) uint64 {
	if a > b {
		return a - b
	}
	return 0
}

// Account is any account of the cluster, as read at Slot.
type Account struct {
	Address  Address
	Lamports uint64
	Owner    Address // the program it belongs to
	Data     []byte
	Slot     Slot
}

// TokenAccount is an account of one of the token programs.
type TokenAccount struct {
	Address Address
	Mint    Address
	Owner   Address // the wallet that may spend from it; SetAuthority can change it
	Program Address
	Amount  uint64
	Frozen  bool

	// Who else may do something with it; zero: nobody.
	Delegate       Address
	Delegated      uint64 // how much the delegate may take
	CloseAuthority Address

	Slot Slot
}

// Mint describes a token.
type Mint struct {
	Address    Address
	Program    Address
	Decimals   int
	Supply     uint64
	Extensions []Extension // of a Token-2022 mint: some charge fees, run hooks on transfers or let others take tokens away
}

// Balance is a token account's amount at a slot.
type Balance struct {
	Amount uint64
	Slot   Slot
}

// Nonce is a durable nonce account's content.
type Nonce struct {
	Authority Address
	Value     Hash
	Slot      Slot
}

// SignatureInfo is one entry of an address's history, newest first.
type SignatureInfo struct {
	Signature Signature
	Slot      Slot
	Err       string
	Memo      string
}

// Transaction is a finalized transaction.
type Transaction struct {
	Signature Signature
	Slot      Slot
	BlockTime time.Time
	Err       string // empty if it succeeded
	Fee       uint64 // lamports
	Units     uint64 // compute units it used
	Spent     uint64 // lamports that its payer had less afterwards, the fee included
	Nonce     Hash   // its lifetime field: the nonce value it consumed, or a recent blockhash
	Memo      string
	Wire      []byte
	Tokens    []Counterparty // of which token accounts it changed the balance, of any mint, in the order of addresses
}

// Simulation is how a transaction would end now.
type Simulation struct {
	Err            string // empty if it would succeed
	Units          uint64
	LoadedDataSize uint32 // bytes of accounts loaded; 0 when the endpoint does not say
	Logs           []string
}
