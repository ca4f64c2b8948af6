package payouts

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/signer"
	"github.com/muster-gpu/muster/settlement/txn"
)

// The generous budget of a first trial run, and what is added to what it used.
const (
	trialUnits  uint32 = 1_400_000
	trialLoaded uint32 = 64 << 20
	spareUnits         = 1_000

	minLoadedData uint32 = 2 << 20
	maxBudgets           = 1_024 // shapes of batches whose budget is remembered

	// checkedFor is how long after its draft, which looked at each payee's account, a batch does without a trial run of its own.
	checkedFor = time.Minute
	// triedFor is how long a trial run speaks for other batches of the same shape: what they share, such as the treasury's balance, changes.
	triedFor = 5 * time.Second
)

// buildMessage makes the message that pays a batch, in the cheapest format that the chain accepts. A trial run shows that it does
// with its budget; right after the draft, one of a moment ago of another batch of the same shape is enough. An error is what holds the
// batch up.
func (s *Service) buildMessage(ctx context.Context, b *work, keys signer.Addresses) ([]byte, error) {
	payees := make([]txn.Payee, len(b.payouts))
	creates := 0
	for i, p := range b.payouts {
		payees[i] = txn.Payee{Account: p.tokenAccount, Wallet: p.wallet, Amount: uint64(p.amount), Create: p.createAccount}
		if p.createAccount {
			creates++
		}
	}
	payout := &txn.Payout{Nonce: txn.Nonce{Account: b.nonceAccount, Value: b.nonceValue}, Payees: payees, Memo: b.memoText()}
	of := shape{payees: len(payees), creates: creates, memo: len(payout.Memo)}
	return s.compose(ctx, keys, of, b.checked && creates == 0,
		func(treasury *txn.Treasury, format txn.Format, budget txn.Budget) ([]byte, error) {
			payout.Budget = budget
			return treasury.Payout(format, payout)
		})
}

// buildCancel makes a message that consumes a batch's nonce and moves nothing.
func (s *Service) buildCancel(ctx context.Context, b *work, keys signer.Addresses) ([]byte, error) {
	cancel := &txn.Cancel{Nonce: txn.Nonce{Account: b.nonceAccount, Value: b.nonceValue}, Memo: b.id.String()}
	return s.compose(ctx, keys, shape{memo: len(cancel.Memo)}, false,
		func(treasury *txn.Treasury, format txn.Format, budget txn.Budget) ([]byte, error) {
			cancel.Budget = budget
			return treasury.Cancel(format, cancel)
		})
}

// layOut makes a message with a budget.
type layOut func(treasury *txn.Treasury, format txn.Format, budget txn.Budget) ([]byte, error)

// compose tries formats until the chain accepts one, and remembers which it refused. When nothing about the message is in question but
// its budget, one that is known for the shape is taken untried.
func (s *Service) compose(ctx context.Context, keys signer.Addresses, of shape, untried bool, lay layOut) ([]byte, error) {
	treasury, err := s.treasury(keys)
	if err != nil {
		return nil, err
	}
	for _, format := range s.formats.usable(time.Now(), keys.LookupTable != nil) {
		of.format = format
		var message []byte
		message, err = s.fit(ctx, treasury, keys, of, untried, lay)
		if err == nil {
			return message, nil
		}
		if !refusesFormat(format, err) {
			break
		}
		s.formats.refuse(format, time.Now())
		s.log.WarnContext(ctx, "the chain does not take this format of transactions", "format", format, "again_in", formatMemory, "error", err)
	}
	if errors.Is(err, txn.ErrTooLarge) {
		return nil, &trialError{text: "the chain takes smaller transactions only, which cannot pay this batch: cancel it and draft again (" + err.Error() + ")"}
	}
	return nil, err
}

// fit gives a message the budget that it needs. What batches of a shape need is remembered, so that mostly one trial run is enough.
func (s *Service) fit(ctx context.Context, treasury *txn.Treasury, keys signer.Addresses, of shape, untried bool, lay layOut) ([]byte, error) {
	if known, at, found := s.budgets.of(of); found {
		known.PriorityFee = s.priorityFee(ctx, keys, known.Units)
		if message, err := lay(treasury, of.format, known); err == nil {
			if untried && time.Since(at) < triedFor {
				return message, nil
			}
			if _, err := s.try(ctx, message); err == nil {
				s.budgets.remember(of, known)
				return message, nil
			}
		}
		s.budgets.forget(of)
	}
	message, err := lay(treasury, of.format, txn.Budget{Units: trialUnits, LoadedData: trialLoaded, PriorityFee: s.priorityFee(ctx, keys, 0)})
	if err != nil {
		return nil, err
	}
	used, err := s.try(ctx, message)
	if err != nil {
		return nil, err
	}
	budget := txn.Budget{Units: unitLimit(used.Units), LoadedData: loadedLimit(used.LoadedDataSize)}
	budget.PriorityFee = s.priorityFee(ctx, keys, budget.Units)
	if message, err = lay(treasury, of.format, budget); err != nil {
		return nil, err
	}
	if _, err = s.try(ctx, message); err != nil {
		return nil, err
	}
	s.budgets.remember(of, budget)
	return message, nil
}

// try runs a message without sending it.
func (s *Service) try(ctx context.Context, message []byte) (chain.Simulation, error) {
	wire, err := txn.Unsigned(message)
	if err != nil {
		return chain.Simulation{}, fmt.Errorf("try the transaction: %w", err)
	}
	simulation, err := s.chain.Simulate(ctx, chain.Confirmed, 0, wire)
	if err != nil {
		return chain.Simulation{}, fmt.Errorf("try the transaction: %w", err)
	}
	if simulation.Err != "" {
		return chain.Simulation{}, &trialError{reason: simulation.Err, text: wouldFail + simulation.Err}
	}
	return simulation, nil
}

// trialError says that the batch cannot be paid by a transaction now.
type trialError struct {
	reason string // the chain's; empty if it was not asked
	text   string
}

const wouldFail = "the transaction would fail on the chain now (is the treasury short of tokens or SOL?): "

func (e *trialError) Error() string { return e.text }

// unitLimit leaves a fifth for accounts that change between the trial and the landing.
func unitLimit(used uint64) uint32 { return uint32(min(used+used/5+spareUnits, uint64(trialUnits))) }

// loadedLimit has a floor: endpoints count differently, some without the programs' own data, and a higher limit costs no fee.
func loadedLimit(used uint32) uint32 { return min(max(used+used/5, minLoadedData), trialLoaded) }

// shape is what decides how much a message uses.
type shape struct {
	format                txn.Format
	payees, creates, memo int
}

// budgets remembers what shapes of messages need. It is safe for concurrent use.
type budgets struct {
	mu    sync.Mutex
	known map[shape]tried
}

// tried is a budget with which a message of a shape has passed a trial run, and when.
type tried struct {
	budget txn.Budget
	at     time.Time
}

func (b *budgets) of(s shape) (budget txn.Budget, at time.Time, found bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known, found := b.known[s]
	return known.budget, known.at, found
}

func (b *budgets) remember(s shape, budget txn.Budget) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, found := b.known[s]; b.known == nil || (!found && len(b.known) >= maxBudgets) {
		b.known = map[shape]tried{}
	}
	b.known[s] = tried{budget, time.Now()}
}

// forgetAll lets every shape be tried again: the chain did otherwise than in the trial runs.
func (b *budgets) forgetAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known = nil
}

func (b *budgets) forget(s shape) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.known, s)
}

// memoText is what the batch's transaction says of itself.
func (b *work) memoText() string {
	if b.memo != "" {
		return b.memo
	}
	return b.id.String()
}

// assemble joins a stored message and its signature to the bytes that are sent, and verifies them.
func assemble(message []byte, signature chain.Signature) ([]byte, error) {
	return txn.Join(message, signature)
}
