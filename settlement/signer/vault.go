package signer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/gagliardetto/solana-go"
)

// vault decides and signs. All decisions are taken one after another under its lock.
type vault struct {
	keys   *keys
	policy Policy
	source solana.PublicKey
	now    func() time.Time

	mu      sync.Mutex
	journal *journal
}

func newVault(k *keys, policy Policy, j *journal, now func() time.Time) (*vault, error) {
	source, _, err := solana.FindAssociatedTokenAddressWithProgram(k.address(), policy.Mint, policy.TokenProgram)
	if err != nil {
		return nil, fmt.Errorf("derive the treasury's token account: %w", err)
	}
	return &vault{keys: k, policy: policy, source: source, journal: j, now: now}, nil
}

// sign returns the treasury's signature of a message, a *Refusal, or an error of the journal. The signature is in the journal,
// on disk, before it is returned.
func (v *vault) sign(message []byte, batch Batch) (solana.Signature, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	request, err := hashRequest(message, batch)
	if err != nil {
		return solana.Signature{}, err
	}
	if before := v.journal.batches[batch.ID]; before != nil {
		if !bytes.Equal(before.Request, request) {
			return solana.Signature{}, refuse(RuleBatchChanged, "%s was signed before with other content", batch.ID)
		}
		return before.Signature, nil
	}
	parsed, refusal := parse(message)
	if refusal != nil {
		return solana.Signature{}, refusal
	}
	c := checker{policy: v.policy, treasury: v.keys.address(), source: v.source, batch: batch}
	does, refusal := c.check(parsed)
	if refusal != nil {
		return solana.Signature{}, refusal
	}
	if refusal := v.journal.conflicts(batch, nonceUse{does.nonceAccount, does.nonceValue}); refusal != nil {
		return solana.Signature{}, refusal
	}
	now := v.now().UTC()
	if before := v.journal.signedSince(now.Add(-dayWindow)); before+does.total > v.policy.MaxBaseUnitsPerDay {
		return solana.Signature{}, refuse(RuleDayCap, "%d base units were signed in 24 hours, and %d more would pass the cap of %d",
			before, does.total, v.policy.MaxBaseUnitsPerDay)
	}
	signature := solana.SignatureFromBytes(ed25519.Sign(v.keys.treasury, message))
	err = v.journal.append(&record{
		At: now, Batch: batch.ID, Request: request, NonceAccount: does.nonceAccount, NonceValue: does.nonceValue,
		Total: does.total, Payouts: batch.Payouts, Signature: signature,
	})
	if err != nil {
		return solana.Signature{}, err
	}
	return signature, nil
}

func hashRequest(message []byte, batch Batch) ([]byte, error) {
	text, err := json.Marshal(signRequest{Message: message, Batch: batch})
	if err != nil {
		return nil, fmt.Errorf("hash request: %w", err)
	}
	sum := sha256.Sum256(text)
	return sum[:], nil
}
