package command

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
)

const withdrawalsPath = "/v1/wallet/withdrawals"

func withdrawalKey(w apiv1.Withdrawal) string { return w.ID.String() }

func (a *App) walletWithdraw() *cobra.Command {
	var yes bool
	var cancel string
	var create apiv1.WithdrawalCreate
	cmd := &cobra.Command{
		Use: "withdraw [AMOUNT]", Short: "Have prepaid balance sent back, or list what was", Args: cobra.MaximumNArgs(1),
		Long: "Sends tokens of the available balance to the organisation's own payout address, with the platform's next payout run. The amount leaves the\n" +
			"balance at once, and comes back if the withdrawal is cancelled. Without an amount, lists the withdrawals.",
		Example: "muster wallet withdraw 25.5 --to 7xKXtg2CW87d97TXJSDpbD5jBkheTqA83TZRuJosgAsU",
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			switch {
			case cancel != "":
				return a.cancelWithdrawal(cmd.Context(), api, cancel)
			case len(arguments) == 0:
				return a.showWithdrawals(cmd.Context(), api)
			case create.Address == "":
				return fail(exitUsage, "say with --to where the tokens go: the organisation's payout address, no other is possible")
			}
			create.Amount = arguments[0]
			if err := a.confirm(cmd.Context(), yes, "Send %s of the prepaid balance to %s?", create.Amount, create.Address); err != nil {
				return err
			}
			var made apiv1.Withdrawal
			if err := api.Post(cmd.Context(), withdrawalsPath, create, &made); err != nil {
				return err
			}
			a.say("It goes out with the next payout run: `muster wallet withdraw` shows how it goes.")
			return a.printWithdrawals([]apiv1.Withdrawal{made})
		},
	}
	cmd.Flags().StringVar(&create.Address, "to", "", "the organisation's payout address, as a check")
	cmd.Flags().StringVar(&cancel, "cancel", "", "give up this withdrawal instead, if no batch has it yet")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *App) cancelWithdrawal(ctx context.Context, api *client.Client, argument string) error {
	known, err := list[apiv1.Withdrawal](ctx, api, withdrawalsPath, nil)
	if err != nil {
		return err
	}
	found, err := pick("withdrawal", "wallet withdraw", argument, known, withdrawalKey, func(apiv1.Withdrawal) string { return "" }, func(apiv1.Withdrawal) bool { return true })
	if err != nil {
		return err
	}
	if err := api.Post(ctx, withdrawalsPath+"/"+found.ID.String()+"/cancel", nil, &found); err != nil {
		return err
	}
	return a.printWithdrawals([]apiv1.Withdrawal{found})
}

func (a *App) showWithdrawals(ctx context.Context, api *client.Client) error {
	known, err := list[apiv1.Withdrawal](ctx, api, withdrawalsPath, nil)
	if err != nil {
		return err
	}
	return a.printWithdrawals(known)
}

func (a *App) printWithdrawals(withdrawals []apiv1.Withdrawal) error {
	rows := make([][]output.Cell, len(withdrawals))
	for i, w := range withdrawals {
		asked := w.RequestedAt
		rows[i] = []output.Cell{
			output.Text(w.ID.String()), output.Text(w.Purpose), output.State(w.State), output.Text(output.Money(w.Amount)), output.Text(w.Address), output.Text(output.Time(&asked)),
			output.Text(first(output.Time(w.EndedAt), "-")), output.Text(first(w.Signature, "-")), output.Text(w.Attention),
		}
	}
	return a.printer().Print(withdrawals, namesOf(withdrawals, withdrawalKey), func(p *output.Page) {
		if len(withdrawals) == 0 {
			a.say("Nothing was withdrawn yet: `muster wallet withdraw AMOUNT --to ADDRESS`.")
			return
		}
		p.Table([]output.Column{
			{Head: "WITHDRAWAL"},
			{Head: "KIND"},
			{Head: "STATE"},
			{Head: "AMOUNT", Right: true},
			{Head: "TO"},
			{Head: "ASKED", Wide: true},
			{Head: "ENDED"},
			{Head: "SIGNATURE", Wide: true},
			{Head: "NOTE", Shrink: true},
		}, rows)
	})
}
