package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/internal/config"
	"github.com/muster-gpu/muster/settlement/signer"
)

func signerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "signer", Short: "Hold the treasury's key and sign what the policy allows"}
	cmd.AddCommand(signerInitCommand(), signerServeCommand())
	return cmd
}

func signerInitCommand() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use: "init", Short: "Make the treasury's key and print its address", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			treasury, err := signer.Init(key)
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), treasury)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&key, "key", "/etc/muster/treasury.key", "file to make; an existing one is never replaced")
	return cmd
}

func signerServeCommand() *cobra.Command {
	var options signer.Options
	cmd := &cobra.Command{
		Use: "serve", Short: "Sign payouts over a unix socket", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(config.Default().Log)
			if err != nil {
				return err
			}
			options.Log = log
			return signer.Serve(cmd.Context(), options)
		},
	}
	cmd.Flags().StringVar(&options.Socket, "socket", "/run/muster/signer.sock", "unix socket to serve on")
	cmd.Flags().StringVar(&options.KeyFile, "key", "/etc/muster/treasury.key", "the treasury's key, made by musterd signer init")
	cmd.Flags().StringVar(&options.PolicyFile, "policy", "/etc/muster/signer-policy.json", "what may be signed")
	cmd.Flags().StringVar(&options.JournalDir, "journal", "/var/lib/muster/signer", "folder of the journal of what has been signed")
	return cmd
}
