package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/worker/agent"
	"github.com/muster-gpu/muster/worker/inventory"
)

const probeName = "probe"

// probeCommand is the child in which NVML is loaded: a driver that hangs hangs this process only.
func probeCommand() *cobra.Command {
	return &cobra.Command{
		Use:                probeName + " [--" + inventory.LibraryFlag + " PATH]",
		Short:              "Print what NVML says of this machine's GPUs, as JSON",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && (args[0] == "-h" || args[0] == "--help") {
				return cmd.Help()
			}
			return inventory.ProbeMain(cmd.Context(), args, cmd.OutOrStdout())
		},
	}
}

func statusCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show who this host is and whether it is connected, as JSON",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := agent.ReadStatus(dir)
			if err != nil {
				return err
			}
			encoder := json.NewEncoder(cmd.OutOrStdout())
			encoder.SetIndent("", "  ")
			return encoder.Encode(status)
		},
	}
	addStateFlag(cmd, &dir)
	return cmd
}
