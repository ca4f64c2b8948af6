package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/internal/devstack"
)

func tourCommand() *cobra.Command {
	flags := &stackFlags{}
	cmd := &cobra.Command{
		Use: "tour", Short: "Walk through the whole loop on a fresh local stack", Args: cobra.NoArgs,
		Long: "Starts a fresh local stack, books a two-node Ray cluster, runs a real Ray job on it, releases it, pays its owners on the local\n" +
			"chain and reconciles. The last line of standard output is one JSON object of what happened; the exit status is 0 if all of it is\n" +
			"as it should be.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := os.RemoveAll(flags.dir); err != nil {
				return err
			}
			options, err := flags.options(printStep)
			if err != nil {
				return err
			}
			result, err := devstack.Tour(cmd.Context(), options, func(format string, arguments ...any) { fmt.Printf(format+"\n", arguments...) })
			if err != nil {
				return err
			}
			line, err := json.Marshal(result)
			if err != nil {
				return err
			}
			fmt.Println(string(line))
			if !result.OK {
				return fmt.Errorf("the tour did not go as it should: see the line above, and the logs in %s", options.Dir)
			}
			return nil
		},
	}
	flags.add(cmd, "var/tour", 0, 0, 0)
	return cmd
}
