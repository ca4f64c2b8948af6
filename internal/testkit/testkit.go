package testkit

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	pollInterval = 10 * time.Millisecond
	seedVariable = "MUSTER_SEED"
)

// Eventually polls ok until it is true, and fails the test with the last thing it said when that takes longer than timeout.
func Eventually(t testing.TB, timeout time.Duration, ok func() (done bool, state string)) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		done, state := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", timeout, state)
		}
		time.Sleep(pollInterval)
	}
}

// LeakCheck fails the test if, when it ends, goroutines run that did not run before. It cannot tell whose they are: use it in
// tests that do not run in parallel, and Main for a whole package.
func LeakCheck(t testing.TB) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// Main runs a package's tests and fails it if they leave goroutines behind:
//
//	func TestMain(m *testing.M) { testkit.Main(m) }
func Main(m *testing.M) { goleak.VerifyTestMain(m) }

// Seed is a seed for the test's random choices, MUSTER_SEED if it is set. It is printed when the test fails, so that the same
// run can be had again.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64() //nolint:gosec // not a secret
	if s := os.Getenv(seedVariable); s != "" {
		fixed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("%s=%q is not a number", seedVariable, s)
		}
		seed = fixed
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("run again with %s=%d", seedVariable, seed)
		}
	})
	return seed
}
