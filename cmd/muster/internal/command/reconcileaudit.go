package command

import (
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

func (a *App) reconcileAudit() *cobra.Command {
	var person, action, subject, from, to, file string
	cmd := &cobra.Command{
		Use: "audit", Short: "Write who did what in finance as CSV, oldest first", Args: cobra.NoArgs,
		Example: "muster reconcile audit --person Ada --from 2026-11-01 --to 2026-11-30 --file audit.csv",
		Long: "Writes the audit log. Its whole chain of hashes is checked first, also the lines that are left out: an altered log is an error.\n" +
			"With --person, --action, --subject, --from or --to it writes only such lines, and a first row that says so.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			for name, value := range map[string]string{"person": person, "action": action, "subject": subject} {
				if value != "" {
					query.Set(name, value)
				}
			}
			for _, day := range []struct {
				name, value string
				later       int // the API wants the moment after the last day
			}{{"from", from, 0}, {"to", to, 1}} {
				if day.value == "" {
					continue
				}
				at, err := time.Parse(time.DateOnly, day.value)
				if err != nil {
					return usageError(cmd, "--%s %s is not a day such as 2026-11-01", day.name, day.value)
				}
				query.Set(day.name, at.AddDate(0, 0, day.later).Format(time.RFC3339))
			}
			return a.export(cmd.Context(), "/v1/finance/audit-log/file", query, file)
		},
	}
	cmd.Flags().StringVar(&person, "person", "", "only of people with this in their name")
	cmd.Flags().StringVar(&action, "action", "", "only this action, such as batch.approve")
	cmd.Flags().StringVar(&subject, "subject", "", "only what was done to this id")
	cmd.Flags().StringVar(&from, "from", "", "first UTC day, such as 2026-11-01")
	cmd.Flags().StringVar(&to, "to", "", "last UTC day, which is included")
	cmd.Flags().StringVarP(&file, "file", "f", "", "where to write it, a file that is not there yet; standard output when nothing is said")
	return cmd
}
