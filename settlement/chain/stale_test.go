package chain_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/muster-gpu/muster/settlement/chain"
)

// TestAnswersFromBeforeTheSlotAskedForAreNotTaken has two providers that agree, and both disregard the minimum context slot.
func TestAnswersFromBeforeTheSlotAskedForAreNotTaken(t *testing.T) {
	t.Parallel()
	const at = 100
	stale := func(accounts int) string {
		value := "null"
		for range accounts - 1 {
			value += ",null"
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":1,"result":{"context":{"slot":%d},"value":[%s]}}`, at, value)
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	for accounts := 1; accounts <= 2; accounts++ { // one is compared as a whole, of several each by itself
		client, err := chain.New(chain.Config{URLs: []string{stale(accounts), stale(accounts)}})
		check(t, err)
		t.Cleanup(func() { check(t, client.Close()) })
		addresses := make([]chain.Address, accounts)
		for i := range addresses {
			addresses[i] = newKey(t).PublicKey()
		}
		if _, err := client.Accounts(t.Context(), chain.Finalized, at, addresses...); err != nil {
			t.Errorf("%d accounts at the slot that was asked for: %v", accounts, err)
		}
		if _, err := client.Accounts(t.Context(), chain.Finalized, at+1, addresses...); !errors.Is(err, chain.ErrBehind) {
			t.Errorf("%d accounts from before the slot that was asked for: %v", accounts, err)
		}
	}
}
