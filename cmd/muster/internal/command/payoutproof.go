package command

import (
	"strconv"

	"github.com/spf13/cobra"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/proof"
)

func (a *App) payoutProof() *cobra.Command {
	return &cobra.Command{
		Use: "proof PAYOUT", Short: "Prove that one of your payouts is what its transaction was signed with", Example: "muster payout proof pay_01jd8xk4s3f5rtkq9m2v6w7x8y",
		Long: "Shows the usage that a payout is the sum of, and checks here, not at the server, that it leads to the Merkle root in the memo of the\n" +
			"transaction. Compare that memo in any explorer.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completePayouts(),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			payouts, err := list[apiv1.Payout](cmd.Context(), api, "/v1/payouts", nil)
			if err != nil {
				return err
			}
			payout, err := pick("payout", "payout ls", arguments[0], payouts, payoutKey, func(p apiv1.Payout) string { return p.Signature }, func(apiv1.Payout) bool { return true })
			if err != nil {
				return err
			}
			var answer apiv1.PayoutProof
			if err := api.Get(cmd.Context(), "/v1/payouts/"+payout.ID.String()+"/proof", nil, &answer); err != nil {
				return err
			}
			return a.printProof(payout, answer)
		},
	}
}

func (a *App) printProof(payout apiv1.Payout, p apiv1.PayoutProof) error {
	verified := proof.CheckLeaf(proof.Inclusion{Leaf: p.Leaf, Index: p.Index, Size: p.Size, Path: p.Path, Root: p.Root}, payout.ID, p.Memo)
	state := output.Cell{Text: "proven: the path leads from this payout to the root in the memo", Tone: output.Good}
	if verified != nil {
		state = output.Cell{Text: "NOT PROVEN: " + verified.Error(), Tone: output.Bad}
	}
	err := a.printer().Print(p, []string{payoutKey(payout)}, func(page *output.Page) {
		page.Facts(
			output.Fact{Label: "Payout", Value: output.Text(payout.ID.String())}, output.Fact{Label: "Amount", Value: output.Cell{Text: output.Money(payout.Amount), Tone: output.Bold}},
			output.Fact{Label: "Proof", Value: state}, output.Fact{Label: "Batch", Value: output.Text(p.BatchID.String())},
			output.Fact{Label: "Signature", Value: output.Text(first(p.Signature, "not final yet"))}, output.Fact{Label: "Memo", Value: output.Text(p.Memo)},
		)
		if len(p.Payout.Records) > 0 {
			page.Title("Usage")
			recordTable(page, payout.Amount, p.Payout.Records)
		}
		for _, adjustment := range p.Payout.Adjustments {
			page.Line("%s  %s base units  %s", output.Time(&adjustment.At), adjustment.Amount, adjustment.Memo)
		}
	})
	if err != nil || verified == nil {
		return err
	}
	return fail(exitFailed, "the proof does not hold: %w", verified)
}

func recordTable(p *output.Page, like apiv1.Money, records []apiv1.ManifestRecord) {
	rows := make([][]output.Cell, len(records))
	for i, r := range records {
		rows[i] = []output.Cell{
			output.Text(r.Lease), output.Text(output.Time(&r.From)), output.Text(output.Time(&r.To)), output.Textf("%d", r.ToMS-r.FromMS),
			output.Text(inTokens(like, r.PricePerGPUHour)), output.Text(inTokens(like, r.Amount)),
		}
	}
	p.Table([]output.Column{
		{Head: "LEASE"},
		{Head: "FROM"},
		{Head: "TO"},
		{Head: "GPU MS", Right: true},
		{Head: "PER GPU-HOUR", Right: true},
		{Head: "YOURS", Right: true},
	}, rows)
}

// inTokens writes base units as the token of another amount; what is no number stays as it is.
func inTokens(like apiv1.Money, units string) string {
	amount, err := strconv.ParseInt(units, 10, 64)
	if err != nil {
		return units
	}
	return tokenText(money.Currency{Decimals: like.Decimals}, money.Amount(amount))
}
