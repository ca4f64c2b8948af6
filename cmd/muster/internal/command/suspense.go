package command

import (
	"net/http"

	"github.com/spf13/cobra"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/internal/ids"
)

func (a *App) suspense() *cobra.Command {
	return noun("suspense", groupFinance, "Deposits that could not be credited, and those on their way to the treasury", a.suspenseLs(), a.suspenseDecide(), a.suspenseSweeps())
}

func (a *App) suspenseLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List what is in suspense and why, newest first", Example: "muster suspense ls", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			deposits, err := list[apiv1.Deposit](cmd.Context(), api, "/v1/finance/suspense", nil)
			if err != nil {
				return err
			}
			return a.printSuspense(deposits)
		},
	}
}

func (a *App) printSuspense(deposits []apiv1.Deposit) error {
	printer := a.printer()
	rows := make([][]output.Cell, len(deposits))
	for i, d := range deposits {
		rows[i] = []output.Cell{
			output.Text(d.ID.String()), output.State(suspenseState(d)), output.Text(d.Amount), output.Text(shortMint(d.Mint)),
			output.Text(printer.Age(d.At)), output.Text(first(d.Customer, "-")), output.Text(first(d.Sender, "-")), output.Text(first(d.Signature, "-")),
			output.Text(suspenseNote(d)),
		}
	}
	return printer.Print(deposits, namesOf(deposits, func(d apiv1.Deposit) string { return d.ID.String() }), func(p *output.Page) {
		if len(deposits) == 0 {
			a.say("Nothing is in suspense: every deposit belongs to somebody.")
			return
		}
		p.Table([]output.Column{
			{Head: "DEPOSIT"},
			{Head: "STATE"},
			{Head: "AMOUNT", Right: true},
			{Head: "MINT"},
			{Head: "AGE", Right: true},
			{Head: "SENT TO"},
			{Head: "FROM", Shrink: true},
			{Head: "SIGNATURE", Wide: true},
			{Head: "NOTE", Shrink: true},
		}, rows)
	})
}

// suspenseState tells a refund that was decided on from one that was paid.
func suspenseState(d apiv1.Deposit) string {
	if d.Refund != nil && d.Refund.State != "paid" {
		return "refund " + d.Refund.State
	}
	return first(d.Outcome, "waits")
}

// suspenseNote is what there is to know: what holds a refund up, why it was decided so, or why nothing was.
func suspenseNote(d apiv1.Deposit) string {
	if d.Refund != nil && d.Refund.Attention != "" {
		return d.Refund.Attention
	}
	return first(d.Note, d.Reason)
}

// shortMint is enough of a mint's address to tell it from others in a table.
func shortMint(mint string) string {
	const ends = 4
	if len(mint) <= 2*ends {
		return mint
	}
	return mint[:ends] + "..." + mint[len(mint)-ends:]
}

// consequences are what is asked about before tokens move.
var consequences = map[string]string{
	"credited": "credit the tokens to the customer, for good",
	"kept":     "keep the tokens as the platform's own, for good",
	"refunded": "send the tokens back to the wallet that they came from",
}

func (a *App) suspenseDecide() *cobra.Command {
	var outcome, note, creditTo, inNameOf string
	var yes bool
	cmd := &cobra.Command{
		Use: "decide DEPOSIT", Short: "Credit tokens to a customer, keep them, send them back, or hold them further",
		Long: "refunded sends tokens back to the wallet that they came from, with the next payout run, once somebody else has approved its batch. That wallet\n" +
			"may be an exchange's, which credits nobody: ask the sender first. Until a batch has it, another decision takes a refund back. Everything\n" +
			"else that moves tokens is final. Tokens of a foreign mint can only be held.",
		Example: "muster suspense decide dep_01jd8xk4s3f5rtkq9m2v6w7x8y --outcome credited --note \"The customer asked for it.\"",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			var id ids.Deposit
			if err := id.UnmarshalText([]byte(arguments[0])); err != nil {
				return usageError(cmd, "%v: `muster suspense ls` lists them", err)
			}
			body := apiv1.SuspenseDecision{Outcome: outcome, Note: note}
			if org := first(creditTo, inNameOf); org != "" {
				body.OrgID = new(ids.Org)
				if err := body.OrgID.UnmarshalText([]byte(org)); err != nil {
					return usageError(cmd, "%v", err)
				}
			}
			api, err := a.client()
			if err != nil {
				return err
			}
			if consequence := consequences[outcome]; consequence != "" {
				if err := a.confirm(cmd.Context(), yes, "%s: %s?", id, consequence); err != nil {
					return err
				}
			}
			var decided apiv1.Deposit
			if err := api.Do(cmd.Context(), http.MethodPost, "/v1/finance/suspense/"+id.String()+"/decision", nil, nil, body, &decided); err != nil {
				return err
			}
			if decided.Refund != nil {
				a.say("It goes to %s with the next payout run: `muster payout run` begins one.", decided.Refund.Address)
			}
			return a.printSuspense([]apiv1.Deposit{decided})
		},
	}
	cmd.Flags().StringVar(&outcome, "outcome", "", "credited, kept, refunded or held")
	cmd.Flags().StringVar(&note, "note", "", "why")
	cmd.Flags().StringVar(&creditTo, "credit-to", "", "organisation to credit; the one whose address they were sent to when nothing is said")
	cmd.Flags().StringVar(&inNameOf, "in-name-of", "", "organisation in whose name tokens that reached the treasury's wallet are refunded")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.MarkFlagsMutuallyExclusive("credit-to", "in-name-of")
	_ = cmd.MarkFlagRequired("outcome")
	_ = cmd.MarkFlagRequired("note")
	_ = cmd.RegisterFlagCompletionFunc("outcome", cobra.FixedCompletions([]string{"credited", "kept", "refunded", "held"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *App) suspenseSweeps() *cobra.Command {
	return &cobra.Command{
		Use: "sweeps", Short: "List deposits on their way to the treasury, newest first", Example: "muster suspense sweeps", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			sweeps, err := list[apiv1.Sweep](cmd.Context(), api, "/v1/finance/sweeps", nil)
			if err != nil {
				return err
			}
			printer := a.printer()
			rows := make([][]output.Cell, len(sweeps))
			for i, s := range sweeps {
				rows[i] = []output.Cell{
					output.Text(s.ID.String()), output.Text(s.Customer), output.State(s.State), output.Text(output.Money(s.Amount)),
					output.Text(printer.Age(s.PlannedAt)), output.Text(first(output.Time(s.EndedAt), "-")), output.Text(first(s.Signature, "-")),
					output.Text(first(s.Reason, s.Attention)),
				}
			}
			return printer.Print(sweeps, namesOf(sweeps, func(s apiv1.Sweep) string { return s.ID.String() }), func(p *output.Page) {
				if len(sweeps) == 0 {
					a.say("No deposit was moved to the treasury yet.")
					return
				}
				p.Table([]output.Column{
					{Head: "SWEEP"},
					{Head: "CUSTOMER"},
					{Head: "STATE"},
					{Head: "AMOUNT", Right: true},
					{Head: "AGE", Right: true},
					{Head: "ENDED"},
					{Head: "SIGNATURE", Wide: true},
					{Head: "NOTE", Shrink: true},
				}, rows)
			})
		},
	}
}
