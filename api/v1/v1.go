// Package apiv1 holds the wire types of the HTTP API: what a request or answer looks like, and nothing of how it is served.
//
// The server's OpenAPI document is made from these types, and the CLI decodes answers into them, so the two cannot drift apart.
// Token amounts are Money: exact decimal text for people and base units as text for programs, never a JSON number. Times are
// RFC 3339 in UTC. Ids carry a prefix that names the kind ("cl_..."). Lists come newest first.
package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// Money is an exact token amount.
type Money struct {
	BaseUnits string `json:"base_units" doc:"Integer number of base units, as text" example:"41280000"`
	Text      string `json:"text" doc:"The same in whole tokens, exact decimal text" example:"41.280000"`
	Currency  string `json:"currency" doc:"Symbol of the token" example:"USDC"`
	Decimals  int    `json:"decimals" doc:"Decimals of the token's mint" example:"6"`
}

// Problem is an error answer (RFC 9457, application/problem+json).
type Problem struct {
	Type      string         `json:"type" doc:"about:blank, or an address that documents the code"`
	Title     string         `json:"title"`
	Status    int            `json:"status"`
	Code      string         `json:"code" doc:"What programs act on" example:"insufficient_funds"`
	Detail    string         `json:"detail" doc:"What is wrong and what to do"`
	RequestID string         `json:"request_id"`
	Errors    []ProblemField `json:"errors,omitempty" doc:"Which inputs are wrong"`
	Details   any            `json:"details,omitempty" doc:"Depends on the code: Shortfall for insufficient_funds, Explanation for no_capacity"`
}

// ProblemField names one wrong input.
type ProblemField struct {
	Path     string `json:"path" example:"body.node_count"`
	Message  string `json:"message"`
	Position *int   `json:"position,omitempty" doc:"In a text with a grammar of its own, such as query.q: how many characters into it, from 0"`
}

// Shortfall says what is missing for a booking.
type Shortfall struct {
	Needed    Money `json:"needed"`
	Available Money `json:"available"`
	Short     Money `json:"short"`
}

// Network says which chain and token this Muster uses.
type Network struct {
	Name                string         `json:"name" enum:"local,devnet,mainnet" doc:"local: a development chain on this machine"`
	GenesisHash         string         `json:"genesis_hash"`
	Mint                string         `json:"mint"`
	Symbol              string         `json:"symbol"`
	Decimals            int            `json:"decimals"`
	Treasury            string         `json:"treasury" doc:"The treasury's token account"`
	ExplorerTransaction string         `json:"explorer_transaction,omitempty" doc:"Address template, {signature} to be replaced; absent on a local chain"`
	SignInDomain        string         `json:"sign_in_domain"`
	SignInChain         string         `json:"sign_in_chain" example:"solana:localnet"`
	Version             string         `json:"version" doc:"Of this Muster"`
	BurnerWallets       []BurnerWallet `json:"burner_wallets,omitempty" doc:"Local network only: wallets to sign in with, keys included. Worthless by construction."`
}

// BurnerWallet is a development wallet of the local network. Its key is public.
type BurnerWallet struct {
	Name      string `json:"name" example:"Ada, ML engineer"`
	Role      string `json:"role" enum:"engineer,owner,finance"`
	Address   string `json:"address"`
	SecretKey string `json:"secret_key" doc:"Base64 of the 64-byte Ed25519 key"`
}

// NonceRequest asks for the fields of a sign-in message.
type NonceRequest struct {
	Address string `json:"address" doc:"The wallet's public key, base58" minLength:"32" maxLength:"44"`
}

// SignInInput is what the wallet is asked to sign (Sign in with Solana). The server also sets a cookie that binds it to this browser.
type SignInInput struct {
	Domain         string    `json:"domain"`
	Address        string    `json:"address"`
	Statement      string    `json:"statement"`
	URI            string    `json:"uri"`
	Version        string    `json:"version"`
	ChainID        string    `json:"chain_id"`
	Nonce          string    `json:"nonce"`
	IssuedAt       time.Time `json:"issued_at"`
	ExpirationTime time.Time `json:"expiration_time"`
	Message        string    `json:"message" doc:"The exact text that a wallet signs for these fields"`
}

// SignInRequest returns what the wallet signed.
type SignInRequest struct {
	Address       string `json:"address" minLength:"32" maxLength:"44"`
	SignedMessage string `json:"signed_message" doc:"Base64 of the signed bytes" maxLength:"4096"`
	Signature     string `json:"signature" doc:"Base64 of the 64-byte signature" maxLength:"128"`
}

// Me is the signed-in person (or the owner of the API key) and where they may act.
type Me struct {
	UserID        ids.User     `json:"user_id"`
	Name          string       `json:"name"`
	WalletAddress string       `json:"wallet_address"`
	Organisations []Membership `json:"organisations"`
	KeyScopes     []string     `json:"key_scopes,omitempty" doc:"With an API key: what it may do"`
}

// Membership is a person's place in one organisation.
type Membership struct {
	OrgID         ids.Org  `json:"org_id"`
	Name          string   `json:"name"`
	Platform      bool     `json:"platform" doc:"The organisation that runs this Muster"`
	Roles         []string `json:"roles" doc:"engineer, owner, finance, admin, operator"`
	PayoutAddress string   `json:"payout_address,omitempty" doc:"Wallet that earnings are paid to"`
}

// OrgCreate founds an organisation; the caller gets engineer, owner, finance and admin in it.
type OrgCreate struct {
	Name string `json:"name" minLength:"1" maxLength:"80"`
}

// PayoutAddressSet changes where earnings go. It wants a wallet signature of the last five minutes.
type PayoutAddressSet struct {
	Address string `json:"address" doc:"A wallet, not a token account" minLength:"32" maxLength:"44"`
}

// Member is somebody of an organisation.
type Member struct {
	UserID        ids.User  `json:"user_id"`
	Name          string    `json:"name"`
	WalletAddress string    `json:"wallet_address"`
	Roles         []string  `json:"roles"`
	Since         time.Time `json:"since"`
}

// MemberPut adds a wallet to an organisation or changes its roles; no roles removes it.
type MemberPut struct {
	WalletAddress string   `json:"wallet_address" minLength:"32" maxLength:"44"`
	Name          string   `json:"name,omitempty" maxLength:"80"`
	Roles         []string `json:"roles" maxItems:"5"`
}

// Key is an API key without its secret.
type Key struct {
	ID         ids.Key    `json:"id"`
	Name       string     `json:"name"`
	Hint       string     `json:"hint" doc:"How the key begins" example:"mst_3fQ"`
	Scopes     []string   `json:"scopes"`
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  time.Time  `json:"expires_at"`
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`
}

// KeyCreate asks for an API key of one organisation.
type KeyCreate struct {
	Name   string   `json:"name" minLength:"1" maxLength:"80"`
	Scopes []string `json:"scopes" doc:"read, book, jobs, wallet, hosts, finance" minItems:"1" maxItems:"8"`
	Days   int      `json:"days,omitempty" doc:"How long it lasts" minimum:"1" maximum:"90" default:"90"`
}

// KeyCreated carries the secret, this once.
type KeyCreated struct {
	Key
	Secret string `json:"secret" example:"mst_..."`
}
