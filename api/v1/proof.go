package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// ManifestSummary is a payout batch's manifest in the public list.
type ManifestSummary struct {
	Batch     ids.Batch  `json:"batch"`
	Sequence  int64      `json:"sequence" doc:"Counts manifests from 1, without a gap"`
	Root      string     `json:"root" doc:"The Merkle root, as the transaction's memo has it"`
	Previous  string     `json:"previous" doc:"The root of the manifest before; empty in the first"`
	State     string     `json:"state" enum:"pending,paid,void" doc:"void: nothing was paid, its records are in a later manifest"`
	Signature string     `json:"signature,omitempty" doc:"Of the transaction that paid it"`
	PaidAt    *time.Time `json:"paid_at,omitempty" doc:"The block's time"`
	SealedAt  time.Time  `json:"sealed_at"`
}

// PublishedManifest is a manifest with its root.
type PublishedManifest struct {
	Manifest  Manifest   `json:"manifest"`
	Root      string     `json:"root"`
	State     string     `json:"state" enum:"pending,paid,void"`
	Signature string     `json:"signature,omitempty"`
	PaidAt    *time.Time `json:"paid_at,omitempty"`
	SealedAt  time.Time  `json:"sealed_at"`
}

// Manifest says what a batch pays, and for what. Its Merkle tree (RFC 6962, SHA-256) has as leaf 0 this object without payouts, and
// then each payout, as compact JSON in this order of fields.
type Manifest struct {
	Version  int              `json:"version"`
	Network  string           `json:"network" doc:"The cluster's genesis hash"`
	Mint     string           `json:"mint"`
	Treasury string           `json:"treasury" doc:"The token account that pays"`
	Batch    ids.Batch        `json:"batch"`
	Sequence int64            `json:"sequence"`
	Previous string           `json:"previous"`
	Payouts  []ManifestPayout `json:"payouts"`
}

// ManifestPayout is one payee's part: its amount is the sum of its records and adjustments.
type ManifestPayout struct {
	ID           ids.Payout           `json:"payout"`
	Purpose      string               `json:"purpose" doc:"earnings, withdrawal, refund; only earnings have records"`
	Wallet       string               `json:"wallet"`
	TokenAccount string               `json:"token_account"`
	Amount       string               `json:"amount" doc:"Base units, like every amount here"`
	Records      []ManifestRecord     `json:"records"`
	Adjustments  []ManifestAdjustment `json:"adjustments" doc:"Corrections by hand and credits"`
}

// ManifestRecord is a piece of a lease's billed time. Milliseconds and charges count from the lease's beginning.
type ManifestRecord struct {
	Lease           string    `json:"lease"`
	From            time.Time `json:"from" doc:"When the piece's first charge was posted"`
	To              time.Time `json:"to" doc:"And the last"`
	FromMS          int64     `json:"from_ms"`
	ToMS            int64     `json:"to_ms"`
	PricePerGPUHour string    `json:"price_per_gpu_hour"`
	FeeBPS          int       `json:"fee_bps" doc:"The platform's share"`
	ChargedBefore   string    `json:"charged_before" doc:"To the customer"`
	ChargedAfter    string    `json:"charged_after"`
	Amount          string    `json:"amount" doc:"The owner's: what is left of the charges' difference without the platform's share"`
}

// ManifestAdjustment is a part of an amount that is no charge for usage.
type ManifestAdjustment struct {
	At     time.Time `json:"at"`
	Memo   string    `json:"memo"`
	Amount string    `json:"amount" doc:"May be negative"`
}

// PayoutProof proves that a payout is in the manifest whose root the transaction's memo has.
type PayoutProof struct {
	PayoutID  ids.Payout     `json:"payout_id"`
	BatchID   ids.Batch      `json:"batch_id"`
	State     string         `json:"state" enum:"pending,paid,void"`
	Signature string         `json:"signature,omitempty" doc:"Of the transaction whose memo is this; absent until it is final"`
	Memo      string         `json:"memo"`
	Payout    ManifestPayout `json:"payout" doc:"The leaf, read"`
	Leaf      string         `json:"leaf" doc:"The hashed text"`
	Index     int            `json:"index"`
	Size      int            `json:"size"`
	Path      []string       `json:"path" doc:"The neighbours' hashes from the leaf up, base64url"`
	Root      string         `json:"root"`
}
