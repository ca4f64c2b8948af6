package command

import (
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
)

func holdingKey(h apiv1.TokenHolding) string { return h.ID.String() }

func (a *App) reconcileHoldings() *cobra.Command {
	kind := ""
	cmd := &cobra.Command{
		Use: "holdings", Short: "List token accounts of the platform's wallets that the ledger does not mirror", Example: "muster reconcile holdings --kind settlement",
		Long: "As the newest comparisons saw them. What an account of the platform's token holds is a difference as well, until it is explained. Other\n" +
			"tokens are shown only: anybody can send any token to any wallet, so they are counted nowhere and keep no month from being closed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			query := url.Values{}
			if kind != "" {
				query.Set("kind", kind)
			}
			holdings, err := list[apiv1.TokenHolding](cmd.Context(), api, "/v1/finance/holdings", query)
			if err != nil {
				return err
			}
			return a.printHoldings(holdings)
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "", "settlement: of the platform's token; foreign: of others")
	return cmd
}

func (a *App) printHoldings(holdings []apiv1.TokenHolding) error {
	printer := a.printer()
	rows := make([][]output.Cell, len(holdings))
	for i, h := range holdings {
		changed := "-"
		if h.ChangedAt != nil {
			changed = printer.Age(*h.ChangedAt)
		}
		rows[i] = []output.Cell{
			output.Text(h.Kind), output.Text(h.Amount), output.Text(shortMint(h.Mint)), output.Text(h.InSuspense), output.Text(first(h.Customer, "treasury")),
			output.Text(printer.Age(h.FirstSeen)), output.Text(printer.Age(h.LastSeen)), output.Text(changed), output.Text(h.Account),
			output.Text(h.Mint), output.Text(holdingKey(h)), output.Text(h.Note),
		}
	}
	return printer.Print(holdings, namesOf(holdings, holdingKey), func(p *output.Page) {
		if len(holdings) == 0 {
			a.say("There are none: all that the platform's wallets hold is in accounts that the ledger mirrors.")
			return
		}
		p.Table([]output.Column{
			{Head: "KIND"},
			{Head: "AMOUNT", Right: true},
			{Head: "TOKEN"},
			{Head: "IN SUSPENSE", Right: true},
			{Head: "WALLET OF"},
			{Head: "FIRST SEEN", Right: true},
			{Head: "LAST SEEN", Right: true},
			{Head: "CHANGED", Right: true},
			{Head: "ACCOUNT", Wide: true},
			{Head: "MINT", Wide: true},
			{Head: "HOLDING", Wide: true},
			{Head: "NOTE", Shrink: true},
		}, rows)
	})
}

// surveyTable says how far a comparison has looked for further token accounts.
func surveyTable(p *output.Page, s *apiv1.HoldingsSurvey) {
	if s == nil {
		return
	}
	p.Title("Token accounts that the ledger does not mirror")
	p.Facts(
		output.Fact{Label: "Wallets asked", Value: output.Text(strconv.Itoa(s.Asked) + " of " + strconv.Itoa(s.Wallets))},
		output.Fact{Label: "Of the platform's token", Value: output.Text(strconv.Itoa(s.Settlement))},
		output.Fact{Label: "Of other tokens", Value: output.Text(strconv.Itoa(s.Foreign))},
		output.Fact{Label: "Counted, not listed", Value: output.Text(strconv.FormatInt(s.LeftOut, 10))},
		output.Fact{Label: "Wallets with too many", Value: output.Text(strconv.Itoa(s.TooMany))},
	)
}
