// Command specgen writes the API's OpenAPI document to the file named by its argument. `make generate` runs it.
package main

import (
	"fmt"
	"os"

	"github.com/muster-gpu/muster/api"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "specgen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("give the file to write, not %d arguments", len(args))
	}
	spec, err := api.Spec()
	if err != nil {
		return err
	}
	return os.WriteFile(args[0], spec, 0o644) //nolint:gosec // the document is public
}
