package signer

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/gagliardetto/solana-go"
	"golang.org/x/sync/errgroup"
)

// vault decides and signs. What depends on earlier signatures is decided under its lock, one request after another.
type vault struct {
	keys   *keys
	policy Policy
	source solana.PublicKey
	tables tables
	now    func() time.Time

	mu      sync.Mutex
	journal *journal
}

func newVault(k *keys, policy Policy, j *journal, now func() time.Time) (*vault, error) {
	if !policy.Treasury.IsZero() && policy.Treasury != k.treasury.Address() {
		return nil, fmt.Errorf("the key is that of %s, the policy is for the treasury %s", k.treasury.Address(), policy.Treasury)
	}
	source, _, err := solana.FindAssociatedTokenAddressWithProgram(k.treasury.Address(), policy.Mint, policy.TokenProgram)
	if err != nil {
		return nil, fmt.Errorf("derive the treasury's token account: %w", err)
	}
	return &vault{keys: k, policy: policy, source: source, tables: policy.tables(), journal: j, now: now}, nil
}

// judgement is what is known of a request without its history.
type judgement struct {
	entry   *record
	refusal *Refusal
}

// sign answers requests, each with signatures or a refusal. They are in the journal, on disk, before anything is signed. An error
// is one of the journal or of the keys; asking again is safe.
func (v *vault) sign(ctx context.Context, requests []request) ([]Answer, error) {
	judged := make([]judgement, len(requests))
	if err := atOnce(ctx, runtime.GOMAXPROCS(0), len(requests), func(_ context.Context, i int) (err error) {
		judged[i], err = v.judge(&requests[i])
		return err
	}); err != nil {
		return nil, err
	}
	answers, err := v.record(judged)
	if err != nil {
		return nil, err
	}
	err = atOnce(ctx, v.keys.treasury.AtOnce(), len(requests), func(ctx context.Context, i int) (err error) {
		if answers[i].Refusal == nil {
			answers[i].Signatures, err = v.signatures(ctx, &requests[i])
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return answers, nil
}

func atOnce(ctx context.Context, limit, n int, do func(ctx context.Context, i int) error) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(limit)
	for i := range n {
		group.Go(func() error { return do(groupCtx, i) })
	}
	return group.Wait()
}

// judge compares a message with the policy and with what it is said to do.
func (v *vault) judge(r *request) (judgement, error) {
	hash, err := r.hash()
	entry := &record{Request: hash}
	return judgement{entry, v.check(r, entry)}, err
}

// check completes a record by what the request says and its message does.
func (v *vault) check(r *request, entry *record) *Refusal {
	common := frame{rules: rules{policy: v.policy, treasury: v.keys.treasury.Address(), source: v.source}}
	var check func(*message) (checked, *Refusal)
	switch {
	case r.said() != 1:
		return refuse(RuleMalformed, "a request is for one of a batch, a cancellation and a sweep")
	case r.Batch != nil:
		entry.Batch, entry.Payouts = r.Batch.ID, r.Batch.Payouts
		check = (&payoutChecker{frame: common, batch: *r.Batch}).check
	case r.Sweep != nil:
		entry.Kind, entry.Sweep = kindSweep, r.Sweep
		check = (&sweepChecker{frame: common, sweep: *r.Sweep, deposit: v.keys.deposit(r.Sweep.Org)}).check
	default:
		entry.Kind, entry.Batch = kindCancel, r.Cancel
		check = (&cancelChecker{frame: common, batch: r.Cancel}).check
	}
	parsed, refusal := parse(r.Message, v.tables)
	if refusal != nil {
		return refusal
	}
	does, refusal := check(parsed)
	entry.NonceAccount, entry.NonceValue, entry.Total = does.nonce.account, does.nonce.value, does.total
	return refusal
}

// record decides by what was signed before, and puts what is new into the journal.
func (v *vault) record(judged []judgement) ([]Answer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	answers := make([]Answer, len(judged))
	var fresh []*record
	now := v.now().UTC()
	for i, j := range judged {
		if j.entry.valid() && v.journal.known(j.entry) {
			continue
		}
		refusal := j.refusal
		if refusal == nil {
			refusal = v.journal.conflicts(j.entry)
		} else if j.entry.Kind == kindBatch && v.journal.has(j.entry.Batch) {
			refusal = refuse(RuleBatchChanged, "%s was signed before with other content", j.entry.Batch)
		}
		if refusal == nil {
			j.entry.At = now
			refusal = v.capped(j.entry)
		}
		if answers[i].Refusal = refusal; refusal == nil {
			v.journal.remember(j.entry)
			fresh = append(fresh, j.entry)
		}
	}
	if err := v.journal.append(fresh); err != nil {
		return nil, err
	}
	return answers, nil
}

func (v *vault) capped(entry *record) *Refusal {
	before, messages := v.journal.signedSince(entry.Kind, entry.At.Add(-dayWindow))
	if most := v.policy.messagesPerDay(); messages >= most {
		return refuse(RuleDayCap, "%d messages were signed in 24 hours, which is the cap", most)
	}
	limit, rule := v.policy.MaxBaseUnitsPerDay, RuleDayCap
	if entry.Kind == kindSweep {
		limit, rule = v.policy.MaxBaseUnitsSweptPerDay, RuleSweepCap
	}
	if entry.Kind != kindCancel && before+entry.Total > limit {
		return refuse(rule, "%d base units were signed in 24 hours, and %d more would pass the cap of %d", before, entry.Total, limit)
	}
	return nil
}

// signatures are those that a message needs, in the order of its signers.
func (v *vault) signatures(ctx context.Context, r *request) ([]solana.Signature, error) {
	signature, err := v.keys.treasury.Sign(ctx, r.Message)
	if err != nil || r.Sweep == nil {
		return []solana.Signature{signature}, err
	}
	second, err := v.keys.depositKey(r.Sweep.Org).Sign(ctx, r.Message)
	return []solana.Signature{signature, second}, err
}

func (r *request) said() (things int) {
	for _, said := range []bool{r.Batch != nil, !r.Cancel.IsZero(), r.Sweep != nil} {
		if said {
			things++
		}
	}
	return things
}

func (r *request) hash() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("hash request: %w", err)
	}
	sum := sha256.Sum256(text)
	return sum[:], nil
}
