package command

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

const docsFile = "../../../../docs/cli.md"

// TestDocumentationIsThatOfTheCommands holds docs/cli.md to the tree of commands; -update writes it.
func TestDocumentationIsThatOfTheCommands(t *testing.T) {
	t.Parallel()
	golden(t, docsFile, documentation((&App{}).root()))
}

func TestEveryCommandIsDescribedAndHasAnExample(t *testing.T) {
	t.Parallel()
	walk((&App{}).root(), func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: its description is %q", cmd.CommandPath(), cmd.Short)
		}
		if !cmd.HasSubCommands() && !strings.HasPrefix(strings.TrimSpace(cmd.Example), "muster ") && !strings.HasPrefix(strings.TrimSpace(cmd.Example), "eval ") {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
	})
}

// walk visits the commands of ours, not those that cobra adds.
func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	for _, sub := range cmd.Commands() {
		if sub.Name() == "help" || sub.Name() == "completion" {
			continue
		}
		visit(sub)
		walk(sub, visit)
	}
}

func documentation(root *cobra.Command) string {
	var text strings.Builder
	text.WriteString(docsHead)
	walk(root, func(cmd *cobra.Command) {
		if !cmd.HasSubCommands() {
			return
		}
		fmt.Fprintf(&text, "\n## %s\n\n%s.%s\n\n| command | what it does | example |\n|---|---|---|\n",
			strings.TrimPrefix(cmd.CommandPath(), "muster "), cmd.Short, aliases(cmd))
		for _, sub := range cmd.Commands() {
			if !sub.HasSubCommands() {
				row(&text, sub)
			}
		}
	})
	text.WriteString("\n## Booking, set-up and the rest\n\n| command | what it does | example |\n|---|---|---|\n")
	for _, cmd := range root.Commands() {
		if !cmd.HasSubCommands() && cmd.Name() != "help" {
			row(&text, cmd)
		}
	}
	text.WriteString("| `muster completion SHELL` | Completion for bash, zsh, fish or powershell; it asks the server for names and ids | `source <(muster completion bash)` |\n")
	return text.String()
}

func aliases(cmd *cobra.Command) string {
	if len(cmd.Aliases) == 0 {
		return ""
	}
	return " Also `muster " + strings.Join(cmd.Aliases, "`, `muster ") + "`."
}

func row(text *strings.Builder, cmd *cobra.Command) {
	escape := strings.NewReplacer("|", `\|`)
	fmt.Fprintf(text, "| `%s %s` | %s | `%s` |\n", cmd.Parent().CommandPath(), cmd.Use, cmd.Short, escape.Replace(strings.TrimSpace(cmd.Example)))
}

const docsHead = `# The command line

` + "`muster`" + ` is a client of the [API](../api/v1/ROUTES.md) and nothing else. ` + "`muster COMMAND --help`" + ` lists a command's flags.

- Where and as whom: a flag (` + "`--server`, `--org`, `--context`" + `) wins over the environment (` + "`MUSTER_SERVER`, `MUSTER_API_KEY`, `MUSTER_ORG`,\n  `MUSTER_CONTEXT`" + `), which wins over the current context of ` + "`$XDG_CONFIG_HOME/muster/config.yaml`" + `. A context's key goes to its own server only.
- Output: ` + "`-o table|wide|json|yaml|name`" + `. Data goes to standard output, everything else to standard error. JSON is the API's own documents,
  a list as one array. Tables are not cut when piped. ` + "`NO_COLOR`" + ` is honoured.
- Clusters and hosts are named by id, by the beginning of an id, or by name.
- What costs shows the price and asks. Without a terminal it wants ` + "`--yes`" + `.
- Ctrl-C stops waiting. It never ends a cluster, a job or a payout.

| exit code | meaning |
|---:|---|
| 0 | done |
| 1 | failed |
| 2 | wrong usage, or cancelled |
| 4 | not logged in |
| 5 | nothing fits |
| 6 | not enough funds |
| 100, 101, 102, 103 | the job failed, goes on, is not there, was stopped |
| 124 | the time to wait was up |
`
