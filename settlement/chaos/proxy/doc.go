// Package proxy stands between a client and a Solana endpoint and does to their calls what networks and providers do: answers get
// lost, transactions land late or twice, a provider lags, forgets or lies.
//
// A Proxy without rules passes everything through. A rule names a fault, the methods that it befalls and how often. Whether the
// n-th call of a method is befallen depends on the seed, the method and n alone, so a seed gives the same faults again as far as the
// client makes the same calls. Whatever the proxy says of the chain comes from the chain, but for the faults that are lies.
//
// It is for tests. A Proxy is safe for concurrent use; Close waits for what it still holds.
package proxy
