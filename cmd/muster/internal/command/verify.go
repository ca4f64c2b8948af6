package command

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/proof"
)

// verifyFlags say what is verified.
type verifyFlags struct {
	place    proof.Place
	from, to string
	asJSON   bool
	quiet    bool
}

func (a *App) verify() *cobra.Command {
	var flags verifyFlags
	cmd := &cobra.Command{
		Use: "verify", Short: "Check every transfer out of a treasury against the published manifests", GroupID: groupFinance, Args: cobra.NoArgs,
		Example: "muster verify --rpc https://api.mainnet-beta.solana.com --treasury ADDRESS --manifests https://muster.example --from 2026-11-01",
		Long: "Walks the treasury's token account on the chain. Each transaction that took tokens out must name a manifest, whose payees and amounts\n" +
			"must be those that the chain moved, and whose amounts must follow from the usage that it lists. Needs no login and no database: it\n" +
			"believes the chain, and of the manifests what their roots in the transactions confirm. Exits with 1 at the first difference.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			span, err := flags.span(cmd, a.Now())
			if err != nil {
				return err
			}
			return a.runVerify(cmd, flags, span)
		},
	}
	cmd.Flags().StringVar(&flags.place.RPC, "rpc", "", "a Solana RPC endpoint")
	cmd.Flags().StringVar(&flags.place.Treasury, "treasury", "", "the treasury's token account, or its wallet")
	cmd.Flags().StringVar(&flags.place.Manifests, "manifests", "", "where manifests are published: the address of a Muster, or a directory of files")
	cmd.Flags().StringVar(&flags.from, "from", "", "beginning of the period, by block time; the treasury's first transaction when absent")
	cmd.Flags().StringVar(&flags.to, "to", "", "its end; now when absent")
	cmd.Flags().BoolVar(&flags.asJSON, "json", false, "the same as -o json")
	cmd.Flags().BoolVarP(&flags.quiet, "quiet", "q", false, "do not tell of each batch")
	for _, name := range []string{"rpc", "treasury", "manifests"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

func (f *verifyFlags) span(cmd *cobra.Command, now time.Time) (span chain.Span, err error) {
	for _, end := range []struct {
		text string
		at   *time.Time
	}{{f.from, &span.From}, {f.to, &span.To}} {
		if end.text == "" {
			continue
		}
		if *end.at, err = moment(end.text, now); err != nil {
			return span, usageError(cmd, "%v", err)
		}
	}
	if !span.To.IsZero() && !span.From.Before(span.To) {
		return span, usageError(cmd, "--to %s is not after --from %s", f.to, f.from)
	}
	return span, nil
}

func (a *App) runVerify(cmd *cobra.Command, flags verifyFlags, span chain.Span) error {
	if flags.asJSON {
		a.flags.output = string(output.JSON)
	}
	flags.place.HTTP = &http.Client{Transport: a.transport()}
	ctx := cmd.Context()
	connection, err := proof.Connect(ctx, flags.place)
	if errs.CodeOf(err) == errs.Invalid {
		return usageError(cmd, "%v", err)
	}
	if err != nil {
		return fail(exitFailed, "nothing was verified: %w", err)
	}
	defer func() { _ = connection.Close() }() // it was only read from
	token := money.Currency{Decimals: connection.Decimals}
	var progress func(proof.Checked)
	if !flags.quiet {
		progress = func(c proof.Checked) {
			a.say("%s  %s  %6s  %16s  %s", c.At.Format("2006-01-02 15:04:05Z"), c.Batch, payees(c.Payouts), tokenText(token, c.Amount), c.Signature)
		}
	}
	report, err := connection.Verify(ctx, span, progress)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fail(exitFailed, "the period could not be verified to its end: %w", err)
	}
	return a.printVerdict(report, token)
}

func payees(count int) string { return counted(count, "payee", "payees") }

// tokenText writes an amount of whatever token the treasury has.
func tokenText(token money.Currency, a money.Amount) string {
	return output.Amount(apiv1.Money{Text: token.Format(a)})
}

func (a *App) printVerdict(r proof.Report, token money.Currency) error {
	err := a.printer().Print(r, []string{verdict(r)}, func(p *output.Page) {
		tone := output.Good
		if !r.Verified {
			tone = output.Bad
		}
		p.Facts(output.Fact{Label: "Verdict", Value: output.Cell{Text: verdict(r), Tone: tone}})
		if r.Difference != nil {
			p.Title("First difference")
			differenceFacts(p, r.Difference, token)
			p.Title("Before it")
		} else {
			p.Title("Checked")
		}
		reportFacts(p, r, token)
	})
	if err != nil || r.Verified {
		return err
	}
	return fail(exitFailed, "the chain and the manifests differ")
}

func verdict(r proof.Report) string {
	switch {
	case !r.Verified:
		return "DIFFERS"
	case r.Batches == 0:
		return "VERIFIED: nothing left the treasury"
	default:
		return "VERIFIED: the chain and the manifests agree"
	}
}

func differenceFacts(p *output.Page, d *proof.Difference, token money.Currency) {
	facts := []output.Fact{
		{Label: "Kind", Value: output.Cell{Text: strings.ReplaceAll(d.Kind, "_", " "), Tone: output.Bad}},
		{Label: "What", Value: output.Text(d.Text)},
		{Label: "Signature", Value: output.Text(d.Signature)},
	}
	if !d.Batch.IsZero() {
		facts = append(facts, output.Fact{Label: "Batch", Value: output.Text(d.Batch.String())})
	}
	if !d.At.IsZero() {
		facts = append(facts, output.Fact{Label: "At", Value: output.Text(output.Time(&d.At))})
	}
	if d.Chain != nil {
		facts = append(facts, output.Fact{Label: "The chain moved", Value: output.Text(tokenText(token, *d.Chain))})
	}
	if d.Manifest != nil {
		facts = append(facts, output.Fact{Label: "The manifest says", Value: output.Text(tokenText(token, *d.Manifest))})
	}
	p.Facts(facts...)
}

func reportFacts(p *output.Page, r proof.Report, token money.Currency) {
	text := func(a money.Amount) output.Cell { return output.Text(tokenText(token, a)) }
	adjustments := "none"
	if r.Adjustments > 0 {
		adjustments = fmt.Sprintf("%d, together %s: look at them", r.Adjustments, tokenText(token, r.Adjusted))
	}
	p.Facts(
		output.Fact{Label: "Treasury", Value: output.Text(r.Treasury)},
		output.Fact{Label: "Token", Value: output.Text(r.Mint)},
		output.Fact{Label: "Network", Value: output.Text(r.Network), Wide: true},
		output.Fact{Label: "Period", Value: output.Text(period(r))},
		output.Fact{Label: "Transactions", Value: output.Text(strconv.Itoa(r.Transactions))},
		output.Fact{Label: "Opening balance", Value: text(r.Opening)}, output.Fact{Label: "In", Value: text(r.In)},
		output.Fact{Label: "Out", Value: text(r.Out)}, output.Fact{Label: "Closing balance", Value: text(r.Closing)},
		output.Fact{Label: "Batches", Value: output.Textf("%d, with %d payouts", r.Batches, r.Payouts)},
		output.Fact{Label: "Earnings", Value: text(r.Earnings)}, output.Fact{Label: "Withdrawals, refunds", Value: text(r.Withdrawals)},
		output.Fact{Label: "Usage records", Value: output.Textf("%d, %.2f GPU-hours", r.Records, r.Usage.Hours())},
		output.Fact{Label: "Adjustments", Value: output.Text(adjustments)},
		output.Fact{Label: "Not paid yet", Value: output.Textf("%d batches", r.Pending)},
	)
}

func period(r proof.Report) string {
	from, to := "the first transaction", fmt.Sprintf("slot %d", r.Slot)
	if !r.From.IsZero() {
		from = output.Time(&r.From)
	}
	if !r.To.IsZero() {
		to = output.Time(&r.To)
	}
	return from + " to " + to
}
