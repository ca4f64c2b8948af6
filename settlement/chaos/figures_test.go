package chaos_test

import (
	"fmt"
	"os"
	"testing"
)

// figure writes a line to the file that MUSTER_FIGURES names, for `make chaos`, and to the test's log.
func figure(tb testing.TB, line string) {
	tb.Helper()
	tb.Log(line)
	path := os.Getenv("MUSTER_FIGURES")
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Error(err)
		return
	}
	if _, err := fmt.Fprintln(file, line); err != nil {
		tb.Error(err)
	}
	if err := file.Close(); err != nil {
		tb.Error(err)
	}
}
