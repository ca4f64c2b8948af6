// Command musterd is Muster's control plane.
//
//	musterd serve     the roles api, scheduler and settlement, in one process or several over one PostgreSQL
//	musterd signer    holds the treasury's key, apart from everything else
//	musterd up        the whole of Muster on this machine, for trying it and for developing
//	musterd tour      the same without a console: books, computes, pays and proves, then stops
//
// It only parses, wires and runs; what is wired is documented where it lives.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api"
	"github.com/muster-gpu/muster/internal/config"
)

// version is set by the build (-ldflags -X main.version=...).
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "musterd:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use: "musterd", Short: "Muster's control plane", SilenceUsage: true, SilenceErrors: true, Version: version,
	}
	cmd.AddCommand(serveCommand(), migrateCommand(), signerCommand(), upCommand(), tourCommand(), configCommand(), openAPICommand())
	return cmd
}

func configCommand() *cobra.Command {
	return &cobra.Command{
		Use: "config", Short: "Print a configuration file with every setting", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), config.Sample())
			return err
		},
	}
}

func openAPICommand() *cobra.Command {
	return &cobra.Command{
		Use: "openapi", Short: "Print the API's OpenAPI document", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			document, err := api.Spec()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(document)
			return err
		},
	}
}

// newLogger logs to standard error; standard output belongs to what a command prints.
func newLogger(settings config.Log) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(settings.Level)); err != nil {
		return nil, err
	}
	options := &slog.HandlerOptions{Level: level}
	if settings.Format == "text" {
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
}
