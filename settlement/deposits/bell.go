package deposits

import (
	"context"
	"slices"

	"github.com/muster-gpu/muster/settlement/chain"
)

// bell rings when a watched account may have changed. It follows the set of accounts as it grows.
type bell struct {
	chain    Chain
	accounts []chain.Address
	wake     <-chan struct{}
	cancel   context.CancelFunc
}

func newBell(client Chain) *bell { return &bell{chain: client, cancel: func() {}} }

// watch subscribes anew if the accounts are others than before.
func (b *bell) watch(ctx context.Context, accounts []chain.Address) {
	if len(accounts) == 0 || slices.Equal(accounts, b.accounts) {
		return
	}
	b.stop()
	ctx, b.cancel = context.WithCancel(ctx)
	b.accounts, b.wake = accounts, b.chain.Wakeups(ctx, accounts)
}

// rings is a channel that is ready when the bell rang; a stopped one never is.
func (b *bell) rings() <-chan struct{} { return b.wake }

// stop ends the subscription and waits until it is gone.
func (b *bell) stop() {
	b.cancel()
	if b.wake == nil {
		return
	}
	for range b.wake {
	}
	b.wake = nil
}
