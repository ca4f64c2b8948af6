// Package localchain furnishes a development chain: a test token, the treasury's capital and nonces, and wallets for three people.
//
// Setup is level-triggered: it keeps only keys on disk and creates on the chain whatever is missing there, so it may be run
// again after a crash, after a restart, and against a chain that was emptied. What is there already is left as it is.
//
// It refuses to work on a public cluster, whatever the URL, by the cluster's genesis hash. The keys that it makes are for
// play: the mint's authority can make any number of test tokens.
//
// A Chain is safe for concurrent use.
package localchain
