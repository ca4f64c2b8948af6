package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
)

// LibraryFlag names the NVML library for the probe to load instead of the system's.
const LibraryFlag = "nvml-library"

// answer is what a probe writes: an Inventory and a Health message, as protojson.
type answer struct {
	Inventory json.RawMessage `json:"inventory"`
	Health    json.RawMessage `json:"health"`
}

// ProbeMain is the child process of a Prober: it reads the GPUs and writes an Inventory and their Health, as JSON, to stdout, or with
// WatchFlag one line an error of a GPU until it is killed. What NVML reports as an error stands in the inventory. It loads NVML
// into its own process and may never return; only a Prober should run it.
func ProbeMain(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("probe", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	name := flags.String(LibraryFlag, defaultLibrary, "NVML library to load")
	watch := flags.Bool(WatchFlag, false, "wait for errors of the GPUs")
	if err := flags.Parse(args); err != nil {
		return errs.New(errs.Invalid, "the probe's arguments are wrong: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if *watch {
		return watchNVML(ctx, *name, stdout)
	}
	inventory, health := readNVML(*name, *name != defaultLibrary)
	inventoryText, err := protojson.Marshal(inventory)
	healthText, healthErr := protojson.Marshal(&agentpb.Health{Gpus: health})
	if err := errors.Join(err, healthErr); err != nil {
		return fmt.Errorf("encode what the GPUs say: %w", err)
	}
	return json.NewEncoder(stdout).Encode(answer{Inventory: inventoryText, Health: healthText})
}
