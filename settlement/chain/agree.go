package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// maxRounds bounds how often two endpoints are asked in turn until both have passed the same slot.
	maxRounds = 4
	// maxApart is how far, in slots, one endpoint's word alone moves the slot that no answer may be older than.
	maxApart Slot = 32
	// historyTries is how often endpoints are asked for what one of them lacks: the history of some comes after their state.
	historyTries = 3
	historyDelay = 150 * time.Millisecond
)

// answer is what one endpoint said.
type answer[T any] struct {
	from  *endpoint
	value T
	slot  Slot
	err   error
}

// pairOf asks two endpoints at once, and others in the place of those that cannot answer. Less than two answers are an error.
func pairOf[T any](ctx context.Context, c *Client, ask func(ctx context.Context, e *endpoint) (T, Slot, error)) (a, b answer[T], err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ranked := c.ranked()
	answers := make(chan answer[T], len(ranked))
	asked := 0
	start := func() {
		e := ranked[asked]
		asked++
		go func() {
			value, slot, err := ask(ctx, e)
			answers <- answer[T]{from: e, value: value, slot: slot, err: err}
		}()
	}
	start()
	start()
	var had []answer[T]
	for pending := 2; pending > 0 && len(had) < 2; pending-- {
		got := <-answers
		switch {
		case got.err == nil:
			had = append(had, got)
		case !failsOver(got.err):
			return a, b, got.err
		default:
			err = got.err
			if asked < len(ranked) {
				start()
				pending++
			}
		}
	}
	if len(had) < 2 {
		return a, b, fmt.Errorf("fewer than two RPC endpoints answer, so that nothing can be compared: %w", err)
	}
	return had[0], had[1], nil
}

// first asks the endpoints one after another until one can answer. It is for what no money depends on.
func first[T any](ctx context.Context, c *Client, ask func(e *endpoint) (T, error)) (T, error) {
	var value T
	var err error
	for _, e := range c.ranked() {
		if value, err = ask(e); err == nil || !failsOver(err) || ctx.Err() != nil {
			break
		}
	}
	return value, err
}

// freshPair asks two endpoints for a state and puts their answers in order. Both are asked from the slot on that two have passed. The
// newer answer is from no slot before minSlot or what was seen: its endpoint is asked once more for that, and is ErrBehind if it falls short.
func freshPair[T any](ctx context.Context, c *Client, minSlot Slot, ask func(ctx context.Context, e *endpoint, minSlot Slot) (T, Slot, error),
) (older, newer answer[T], err error) {
	fresh, confirmed := max(minSlot, c.seenSlot()), max(minSlot, c.confirmedSlot())
	older, newer, err = pairOf(ctx, c, func(ctx context.Context, e *endpoint) (T, Slot, error) { return ask(ctx, e, confirmed) })
	if err != nil {
		return older, newer, err
	}
	if older.slot > newer.slot {
		older, newer = newer, older
	}
	if newer.slot >= fresh {
		return older, newer, nil
	}
	newer.value, newer.slot, err = ask(ctx, newer.from, fresh)
	if err == nil && newer.slot < fresh {
		err = fmt.Errorf("endpoint %s answers from slot %d, asked for slot %d: %w", newer.from.name, newer.slot, fresh, ErrBehind)
	}
	return older, newer, err
}

// agree reads a state that two endpoints confirm, from a slot not below minSlot nor below what was seen before. The answer that is
// from the older slot is asked for anew, from the newer one on, until both say the same. Two that stay apart are ErrDisagree.
// differ names what is not the same in two answers, "" if all is.
//
// Only the newer answer must be as new as what was seen before. To ask that of the older one too would have everybody wait, after each
// answer, for an endpoint that lags, and those who ask often would keep the others waiting for good.
func agree[T any](ctx context.Context, c *Client, minSlot Slot,
	ask func(ctx context.Context, e *endpoint, minSlot Slot) (T, Slot, error), differ func(a, b T) string,
) (T, Slot, error) {
	var none T
	if len(c.endpoints) == 1 {
		value, slot, err := ask(ctx, c.endpoints[0], max(minSlot, c.seenSlot()))
		if err == nil {
			c.saw(slot, slot)
		}
		return value, slot, err
	}
	older, newer, err := freshPair(ctx, c, minSlot, ask)
	if err != nil {
		return none, 0, err
	}
	stayed := 0 // rounds in a row in which an endpoint stayed with what it had said; they take turns
	var what string
	for range maxRounds {
		if older.slot > newer.slot {
			older, newer = newer, older
		}
		if what = differ(older.value, newer.value); what == "" {
			c.saw(older.slot, newer.slot)
			return newer.value, newer.slot, nil
		}
		if older.slot == newer.slot || stayed >= 2 {
			return none, 0, c.disagree(what, older.from, newer.from)
		}
		value, slot, err := ask(ctx, older.from, newer.slot)
		if err != nil {
			return none, 0, err
		}
		if slot < newer.slot {
			return none, 0, fmt.Errorf("%s: %w", what, ErrBehind)
		}
		if differ(value, older.value) == "" {
			stayed++
		} else {
			stayed = 0
		}
		older.value, older.slot = value, slot
	}
	return none, 0, fmt.Errorf("%s changes too fast to be compared: %w", what, ErrBehind)
}

// disagree counts an alarm. Which of two endpoints is right cannot be known here, so nothing is returned.
func (c *Client) disagree(what string, a, b *endpoint) error {
	c.disagreements.Inc()
	return fmt.Errorf("%w: endpoints %s and %s about %s", ErrDisagree, a.name, b.name, what)
}

// seenSlot is the slot below which no answer is taken.
func (c *Client) seenSlot() Slot { return Slot(c.seen.Load()) }

// confirmedSlot is the slot below which no endpoint's confirmation is taken: two have passed it.
func (c *Client) confirmedSlot() Slot { return Slot(c.confirmed.Load()) }

// saw raises these slots to those of two answers that agree. What was seen is not raised far ahead of the older one: an endpoint that
// makes slots up must not shut out those that do not.
func (c *Client) saw(older, newer Slot) {
	raise(&c.seen, min(newer, older+maxApart))
	raise(&c.confirmed, older)
}

func raise(to *atomic.Uint64, slot Slot) {
	for {
		seen := to.Load()
		if uint64(slot) <= seen || to.CompareAndSwap(seen, uint64(slot)) {
			return
		}
	}
}

// confirmed asks two endpoints about history until merge finds that they agree. merge returns an error that wraps ErrDisagree or
// ErrBehind where one lacks what the other has; that may be for a moment only.
func confirmed[T any](ctx context.Context, c *Client, ask func(ctx context.Context, e *endpoint) (T, error),
	merge func(a, b answer[T]) (T, error),
) (T, error) {
	if len(c.endpoints) == 1 {
		return ask(ctx, c.endpoints[0])
	}
	var none T
	for try := 1; ; try++ {
		a, b, err := pairOf(ctx, c, func(ctx context.Context, e *endpoint) (T, Slot, error) {
			value, err := ask(ctx, e)
			return value, 0, err
		})
		if err != nil {
			return none, err
		}
		value, err := merge(a, b)
		if err == nil || !errors.Is(err, errApart) {
			return value, err
		}
		if try == historyTries {
			return none, c.apart(ctx, err, a.from, b.from)
		}
		if !sleep(ctx, historyDelay) {
			return none, context.Cause(ctx)
		}
	}
}

// errApart is what a merge returns where the endpoints do not show the same.
var errApart = errors.New("not both endpoints show")

// apartError says who lacks what, and from which slot on it must be there.
type apartError struct {
	what    string
	slot    Slot
	lacking *endpoint // nil: both have it, but differently
}

func (e *apartError) Error() string        { return errApart.Error() + " " + e.what }
func (e *apartError) Is(target error) bool { return target == errApart }

// apart tells an endpoint that lags from one that has passed the slot and still lacks what the other shows.
func (c *Client) apart(ctx context.Context, err error, a, b *endpoint) error {
	var gap *apartError
	if errors.As(err, &gap) && gap.lacking != nil {
		slot, err := gap.lacking.finalizedSlot(ctx)
		if err != nil {
			return err
		}
		if slot < gap.slot {
			return fmt.Errorf("%s: %w", gap.what, ErrBehind)
		}
	}
	if gap == nil {
		return c.disagree(err.Error(), a, b)
	}
	return c.disagree(gap.what, a, b)
}

// differentAccount names the first account that is not the same in both lists.
func differentAccount(addresses []Address) func(a, b []*Account) string {
	return func(a, b []*Account) string {
		for i, address := range addresses {
			if !sameAccount(a[i], b[i]) {
				return "account " + address.String()
			}
		}
		return ""
	}
}

func sameAccount(a, b *Account) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Lamports == b.Lamports && a.Owner == b.Owner && bytes.Equal(a.Data, b.Data)
}
