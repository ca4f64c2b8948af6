package inventory

import (
	"context"
	"flag"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/muster-gpu/muster/internal/errs"
)

// LibraryFlag is the probe's one flag: the NVML library to load instead of the system's.
const LibraryFlag = "nvml-library"

// ProbeMain is the child process of a Prober: it reads the GPUs and writes an Inventory, as JSON, to stdout. What NVML reports
// as an error stands in the inventory. It loads NVML into its own process and may never return; only a Prober should run it.
func ProbeMain(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("probe", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	name := flags.String(LibraryFlag, defaultLibrary, "NVML library to load")
	if err := flags.Parse(args); err != nil {
		return errs.New(errs.Invalid, "the probe's arguments are wrong: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	answer, err := protojson.Marshal(readNVML(*name, *name != defaultLibrary))
	if err != nil {
		return fmt.Errorf("encode the inventory: %w", err)
	}
	_, err = stdout.Write(answer)
	return err
}
