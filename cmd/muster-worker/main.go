// Command muster-worker lends a machine's GPUs to Muster: it enrols the machine, keeps it connected to the control plane and runs the
// Ray nodes that the control plane wants there. It only dials out.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/internal/errs"
)

// Exit codes: scripts tell a mistake in the call from a failure.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() { os.Exit(execute()) }

func execute() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := rootCommand().ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "muster-worker:", err)
	if errs.CodeOf(err) == errs.Invalid {
		return exitUsage
	}
	return exitFailure
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "muster-worker",
		Short: "Lend this machine's GPUs to Muster",
		Long: "muster-worker enrols this machine with a Muster control plane, keeps it connected and runs the Ray nodes that are\n" +
			"wanted there. It only dials out, and its private key never leaves the state directory.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(joinCommand(), runCommand(), probeCommand(), statusCommand(), versionCommand())
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version())
			return err
		},
	}
}

// version is the module's, or the commit that a development build was made from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}
