package inventory_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/muster-gpu/muster/internal/fakenvml"
	"github.com/muster-gpu/muster/worker/inventory"
)

// probeChildEnv makes this test binary the probe child, so that the tests drive a real process that loads a real library.
const probeChildEnv = "MUSTER_TEST_PROBE_CHILD"

var fakeLibrary string

func TestMain(m *testing.M) {
	if os.Getenv(probeChildEnv) != "" {
		if err := inventory.ProbeMain(context.Background(), os.Args[1:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "muster-inventory-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fakeLibrary, err = fakenvml.Build(context.Background(), dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
