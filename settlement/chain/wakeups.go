package chain

import (
	"context"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/gagliardetto/solana-go/rpc"
	"github.com/gagliardetto/solana-go/rpc/ws"
)

const (
	maxWatchedAccounts  = 1_000
	firstReconnectDelay = 500 * time.Millisecond
	maxReconnectDelay   = 30 * time.Second
)

// Wakeups signals when one of the accounts may have changed at finalized. It is a hint: signals are merged, may be late, may be
// missing and may be false, so whoever waits on it also polls. It reconnects by itself, to the endpoints in turn, signalling after each connection,
// watches at most 1,000 accounts, and closes the channel when ctx ends.
func (c *Client) Wakeups(ctx context.Context, accounts []Address) <-chan struct{} {
	wake := make(chan struct{}, 1)
	accounts = accounts[:min(len(accounts), maxWatchedAccounts)]
	go func() {
		defer close(wake)
		delay := firstReconnectDelay
		for turn := 0; ctx.Err() == nil; turn++ {
			began := time.Now()
			watch(ctx, c.endpoints[turn%len(c.endpoints)].websocketURL, accounts, wake)
			if time.Since(began) > maxReconnectDelay {
				delay = firstReconnectDelay
			}
			if !sleep(ctx, delay) {
				return
			}
			delay = min(2*delay, maxReconnectDelay)
		}
	}()
	return wake
}

// watch holds one connection until it breaks or ctx ends.
func watch(ctx context.Context, url string, accounts []Address, wake chan<- struct{}) {
	connection, err := ws.Connect(ctx, url)
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	watching := 0
	for _, account := range accounts {
		subscription, err := connection.AccountSubscribe(account, rpc.CommitmentFinalized)
		if err != nil {
			break
		}
		watching++
		go func() {
			defer func() { done <- struct{}{} }()
			defer cancel() // one broken subscription means a broken connection
			for {
				if change, err := subscription.Recv(ctx); err != nil || change == nil {
					return
				}
				signal(wake)
			}
		}()
	}
	signal(wake)
	if watching == len(accounts) {
		<-ctx.Done()
	}
	cancel()
	connection.Close()
	for range watching {
		<-done
	}
}

func signal(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// websocketURL follows the convention of Solana's tools: the port after the HTTP port, or the same default port.
func websocketURL(endpoint url.URL) string {
	endpoint.Scheme = map[string]string{"http": "ws", "https": "wss"}[endpoint.Scheme]
	if port, err := strconv.Atoi(endpoint.Port()); err == nil {
		endpoint.Host = net.JoinHostPort(endpoint.Hostname(), strconv.Itoa(port+1))
	}
	return endpoint.String()
}
