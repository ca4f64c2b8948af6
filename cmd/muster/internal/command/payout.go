package command

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/internal/ids"
)

const payoutTimeout = 5 * time.Minute

// A batch's states that matter here.
const (
	batchDraft      = "draft"
	batchCancelling = "cancelling"
	batchFinalized  = "finalized"
	batchFailed     = "failed"
	batchFrozen     = "frozen"
	batchCancelled  = "cancelled"
)

func (a *App) payout() *cobra.Command {
	return noun("payout", groupOwner, "Payouts to owners: your own, and for platform finance all of them",
		a.payoutLs(), a.payoutGet(), a.payoutProof(), a.payoutPayable(), a.payoutDraft(), a.payoutBatches(), a.payoutBatch(), a.payoutApprove(),
		a.payoutRun(), a.payoutRuns(), a.payoutCancel(), a.payoutResolve(), a.payoutNonces(), a.payoutSchedule())
}

func (a *App) payoutLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List your payouts, newest first", Example: "muster payout ls", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			payouts, err := list[apiv1.Payout](cmd.Context(), api, "/v1/payouts", nil)
			if err != nil {
				return err
			}
			return a.printer().Print(payouts, namesOf(payouts, payoutKey), func(p *output.Page) {
				if len(payouts) == 0 {
					a.say("There is no payout yet: `muster node earnings` shows what is owed.")
					return
				}
				payoutTable(p, payouts, false)
			})
		},
	}
}

func payoutKey(p apiv1.Payout) string { return p.ID.String() }

func payoutTable(p *output.Page, payouts []apiv1.Payout, withPayee bool) {
	rows := make([][]output.Cell, len(payouts))
	for i, o := range payouts {
		rows[i] = []output.Cell{
			output.Text(o.ID.String()), output.Text(o.Payee), output.Text(first(o.Purpose, "-")), output.State(o.State), output.Text(output.Money(o.Amount)), output.Text(first(output.Time(o.FinalizedAt), "-")),
			output.Text(o.Address), output.Text(o.TokenAccount), output.Text(first(o.Signature, "-")),
		}
	}
	p.Table([]output.Column{
		{Head: "PAYOUT"},
		{Head: "PAYEE", Wide: !withPayee},
		{Head: "FOR", Wide: !withPayee},
		{Head: "STATE"},
		{Head: "AMOUNT", Right: true},
		{Head: "FINAL AT"},
		{Head: "WALLET", Wide: true},
		{Head: "TOKEN ACCOUNT", Wide: true},
		{Head: "SIGNATURE", Shrink: true, Wide: withPayee},
	}, rows)
}

func (a *App) payoutGet() *cobra.Command {
	return &cobra.Command{
		Use: "get PAYOUT", Short: "Show one of your payouts, with its transaction", Example: "muster payout get pay_01jd8xk4s3f5rtkq9m2v6w7x8y",
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
			return a.printPayout(cmd.Context(), payout)
		},
	}
}

func (a *App) printPayout(ctx context.Context, o apiv1.Payout) error {
	return a.printer().Print(o, []string{payoutKey(o)}, func(p *output.Page) {
		p.Facts(
			output.Fact{Label: "Payout", Value: output.Text(o.ID.String())}, output.Fact{Label: "Batch", Value: output.Text(o.BatchID.String())},
			output.Fact{Label: "Payee", Value: output.Text(o.Payee)}, output.Fact{Label: "Amount", Value: output.Cell{Text: output.Money(o.Amount), Tone: output.Bold}},
			output.Fact{Label: "State", Value: output.State(o.State)}, output.Fact{Label: "Wallet", Value: output.Text(o.Address)},
			output.Fact{Label: "Token account", Value: output.Text(o.TokenAccount)}, output.Fact{Label: "Signature", Value: output.Text(o.Signature)},
			output.Fact{Label: "Final", Value: output.Text(a.printer().When(o.FinalizedAt))},
			output.Fact{Label: "Explorer", Value: output.Text(a.explorer(ctx, o.Signature))},
		)
	})
}

// explorer is where a transaction can be looked at, if the network has such a place.
func (a *App) explorer(ctx context.Context, signature string) string {
	network, err := a.network(ctx)
	if signature == "" || err != nil {
		return ""
	}
	return strings.ReplaceAll(network.ExplorerTransaction, "{signature}", signature)
}

func (a *App) payoutPayable() *cobra.Command {
	return &cobra.Command{
		Use: "payable", Short: "Platform finance: what a payout run would pay now", Example: "muster payout payable", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var payable apiv1.PayableSummary
			if err := api.Get(cmd.Context(), "/v1/finance/payable", nil, &payable); err != nil {
				return err
			}
			return a.printPayable(payable)
		},
	}
}

func (a *App) printPayable(s apiv1.PayableSummary) error {
	names := namesOf(s.Payees, func(p apiv1.Payee) string { return p.OrgID.String() })
	return a.printer().Print(s, names, func(p *output.Page) {
		p.Facts(
			output.Fact{Label: "Would be paid", Value: output.Cell{Text: output.Money(s.Total), Tone: output.Bold}},
			output.Fact{Label: "Treasury on chain", Value: output.Text(first(output.OptionalMoney(s.Treasury), "the chain does not answer"))},
			output.Fact{Label: "Least payout", Value: output.Text(output.Money(s.Minimum))},
		)
		if len(s.Payees) > 0 {
			p.Title("Payees")
			payeeTable(p, s.Payees, false)
		}
		if len(s.LeftOut) > 0 {
			p.Title("Left out")
			payeeTable(p, s.LeftOut, true)
		}
	})
}

func payeeTable(p *output.Page, payees []apiv1.Payee, leftOut bool) {
	rows := make([][]output.Cell, len(payees))
	for i, payee := range payees {
		rows[i] = []output.Cell{
			output.Text(payee.Name), output.Text(output.Money(payee.Amount)), output.Text(first(payee.Address, "-")), output.Text(payee.OrgID.String()), output.Text(payee.Reason),
		}
	}
	columns := []output.Column{{Head: "PAYEE"}, {Head: "AMOUNT", Right: true}, {Head: "WALLET"}, {Head: "ORG ID", Wide: true}, {Head: "BECAUSE"}}
	if !leftOut {
		columns[len(columns)-1].Head = ""
	}
	p.Table(columns, rows)
}

func (a *App) payoutDraft() *cobra.Command {
	return &cobra.Command{
		Use: "draft", Short: "Platform finance: draft batches of what is payable; nothing is sent", Example: "muster payout draft", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var drafts apiv1.List[apiv1.Batch]
			if err := api.Post(cmd.Context(), "/v1/finance/batches", nil, &drafts); err != nil {
				return err
			}
			if len(drafts.Items) > 0 {
				a.say("Look at each with `muster payout batch`, send it with `muster payout approve`.")
			}
			return a.printBatches(drafts.Items, "Nothing is payable now: `muster payout payable` tells why.")
		},
	}
}

func batchKey(b apiv1.Batch) string { return b.ID.String() }

func (a *App) payoutBatches() *cobra.Command {
	return &cobra.Command{
		Use: "batches", Short: "Platform finance: list batches, newest first", Example: "muster payout batches", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			batches, err := list[apiv1.Batch](cmd.Context(), api, "/v1/finance/batches", nil)
			if err != nil {
				return err
			}
			return a.printBatches(batches, "There is no batch yet: `muster payout draft` makes one.")
		},
	}
}

func (a *App) printBatches(batches []apiv1.Batch, none string) error {
	printer := a.printer()
	rows := make([][]output.Cell, len(batches))
	for i, b := range batches {
		rows[i] = []output.Cell{
			output.Text(b.ID.String()), output.State(b.State), output.Text(output.Money(b.Total)), output.Text(strconv.Itoa(b.PayeeCount)),
			output.Text(printer.Age(b.CreatedAt)), output.Text(first(b.DraftedBy, "-")), output.Text(first(b.ApprovedBy, "-")),
			output.Text(first(output.Time(b.FinalizedAt), "-")), output.Text(first(b.Signature, "-")), output.Text(b.StateReason),
		}
	}
	return printer.Print(batches, namesOf(batches, batchKey), func(p *output.Page) {
		if len(batches) == 0 {
			a.say("%s", none)
			return
		}
		p.Table([]output.Column{
			{Head: "BATCH"},
			{Head: "STATE"},
			{Head: "TOTAL", Right: true},
			{Head: "PAYEES", Right: true},
			{Head: "AGE", Right: true},
			{Head: "DRAFTED BY"},
			{Head: "APPROVED BY"},
			{Head: "FINAL AT", Wide: true},
			{Head: "SIGNATURE", Wide: true},
			{Head: "NOTE", Shrink: true},
		}, rows)
	})
}

func batchID(ctx context.Context, api *client.Client, argument string) (ids.Batch, error) {
	var id ids.Batch
	if err := id.UnmarshalText([]byte(argument)); err == nil && !id.IsZero() {
		return id, nil
	}
	batches, err := list[apiv1.Batch](ctx, api, "/v1/finance/batches", nil)
	if err != nil {
		return id, err
	}
	found, err := pick("batch", "payout batches", argument, batches, batchKey, func(apiv1.Batch) string { return "" }, func(apiv1.Batch) bool { return true })
	return found.ID, err
}

func getBatch(ctx context.Context, api *client.Client, argument string) (apiv1.Batch, error) {
	var batch apiv1.Batch
	id, err := batchID(ctx, api, argument)
	if err != nil {
		return batch, err
	}
	err = api.Get(ctx, "/v1/finance/batches/"+id.String(), nil, &batch)
	return batch, err
}

func (a *App) payoutBatch() *cobra.Command {
	return &cobra.Command{
		Use: "batch BATCH", Short: "Platform finance: show a batch, its payees and its transaction", Example: "muster payout batch bat_01jd8xk4s3f5rtkq9m2v6w7x8y",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeBatches(),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			batch, err := getBatch(cmd.Context(), api, arguments[0])
			if err != nil {
				return err
			}
			return a.printBatch(a.printer(), batch)
		},
	}
}

func (a *App) printBatch(printer output.Printer, b apiv1.Batch) error {
	created := b.CreatedAt
	run := ""
	if b.RunID != nil {
		run = b.RunID.String()
	}
	return printer.Print(b, []string{batchKey(b)}, func(p *output.Page) {
		p.Facts(
			output.Fact{Label: "Batch", Value: output.Text(b.ID.String())}, output.Fact{Label: "Run", Value: output.Text(run), Wide: true},
			output.Fact{Label: "State", Value: output.State(b.State)},
			output.Fact{Label: "Note", Value: output.Text(b.StateReason)}, output.Fact{Label: "Total", Value: output.Cell{Text: output.Money(b.Total), Tone: output.Bold}},
			output.Fact{Label: "Drafted", Value: output.Text(by(printer.When(&created), first(b.DraftedBy, "the schedule")))},
			output.Fact{Label: "Approvals", Value: output.Text(approvals(b))},
			output.Fact{Label: "Approved", Value: output.Text(by(printer.When(b.ApprovedAt), b.ApprovedBy))},
			output.Fact{Label: "Sent", Value: output.Text(printer.When(b.SentAt))}, output.Fact{Label: "Final", Value: output.Text(printer.When(b.FinalizedAt))},
			output.Fact{Label: "Signature", Value: output.Text(b.Signature)}, output.Fact{Label: "Slot", Value: output.Text(number(b.Slot))},
			output.Fact{Label: "Fee in lamports", Value: output.Text(number(b.FeeLamports))},
			output.Fact{Label: "Rent in lamports", Value: output.Text(number(b.RentLamports)), Wide: true},
			output.Fact{Label: "Nonce account", Value: output.Text(b.NonceAccount), Wide: true}, output.Fact{Label: "Nonce", Value: output.Text(b.NonceValue), Wide: true},
			output.Fact{Label: "Memo", Value: output.Text(b.Memo), Wide: true},
		)
		if c := b.Cancellation; c != nil {
			asked := c.AskedAt
			p.Title("Cancellation")
			p.Facts(
				output.Fact{Label: "Asked", Value: output.Text(by(printer.When(&asked), c.AskedBy))},
				output.Fact{Label: "Sent", Value: output.Text(printer.When(c.SentAt))},
				output.Fact{Label: "Signature", Value: output.Text(c.Signature)}, output.Fact{Label: "Slot", Value: output.Text(number(c.Slot))},
			)
		}
		if r := b.Resolution; r != nil {
			proposed := r.ProposedAt
			p.Title("Resolution")
			p.Facts(
				output.Fact{Label: "Outcome", Value: output.State(r.Outcome)}, output.Fact{Label: "Shown by", Value: output.Text(r.Signature)},
				output.Fact{Label: "Note", Value: output.Text(r.Note)},
				output.Fact{Label: "Proposed", Value: output.Text(by(printer.When(&proposed), r.ProposedBy))},
				output.Fact{Label: "Confirmed", Value: output.Text(first(by(printer.When(r.ConfirmedAt), r.ConfirmedBy), "not yet: by another person"))},
			)
		}
		if len(b.Payouts) > 0 {
			p.Title("Payouts")
			payoutTable(p, b.Payouts, true)
		}
	})
}

// approvals says how far a draft is from being paid.
func approvals(b apiv1.Batch) string {
	if b.State != batchDraft || b.ApprovalsNeeded == 0 {
		return ""
	}
	names := make([]string, len(b.Approvals))
	for i, one := range b.Approvals {
		names[i] = one.By
	}
	text := strconv.Itoa(len(names)) + " of " + strconv.Itoa(b.ApprovalsNeeded)
	if len(names) > 0 {
		text += ": " + strings.Join(names, ", ")
	}
	return text
}

func counted(count int, one, many string) string {
	if count == 1 {
		return "1 " + one
	}
	return strconv.Itoa(count) + " " + many
}

func by(when, who string) string {
	if when == "" || who == "" {
		return when
	}
	return when + " by " + who
}

func number(n *int64) string {
	if n == nil {
		return ""
	}
	return strconv.FormatInt(*n, 10)
}

func (a *App) payoutApprove() *cobra.Command {
	var yes, wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "approve BATCH|RUN", Short: "Platform finance: have a batch, or all drafts of a run, signed and sent", Example: "muster payout approve bat_01jd8xk4s3f5rtkq9m2v6w7x8y --wait",
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeBatches(),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			if run, ok := asRun(arguments[0]); ok {
				return a.approveRun(cmd.Context(), api, run, yes)
			}
			return a.approve(cmd.Context(), api, arguments[0], yes, wait, timeout)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVarP(&wait, "wait", "w", false, "wait until it is final on the chain")
	cmd.Flags().DurationVar(&timeout, "timeout", payoutTimeout, "how long to wait; 0: as long as it takes")
	return cmd
}

func (a *App) approve(ctx context.Context, api *client.Client, argument string, yes, wait bool, timeout time.Duration) error {
	batch, err := getBatch(ctx, api, argument)
	if err != nil {
		return err
	}
	if err := a.printBatch(a.errPrinter(), batch); err != nil {
		return err
	}
	if err := a.confirm(ctx, yes, "Pay %s to %s?", output.Money(batch.Total), payees(batch.PayeeCount)); err != nil {
		return err
	}
	path := "/v1/finance/batches/" + batch.ID.String()
	if err := api.Do(context.WithoutCancel(ctx), http.MethodPost, path+"/approve", nil, nil, nil, &batch); err != nil {
		return err
	}
	if batch.State == batchDraft {
		a.say("Approved by you. It waits for another person.")
		return a.printBatch(a.printer(), batch)
	}
	if !wait {
		a.say("Approved. `muster payout batch %s` shows how it goes.", batch.ID)
		return a.printBatch(a.printer(), batch)
	}
	told := ""
	err = a.waitFor(ctx, timeout, func(ctx context.Context) (bool, error) {
		if err := api.Get(ctx, path, nil, &batch); err != nil {
			return false, err
		}
		if line := first(batch.StateReason, batch.State); line != told {
			told = line
			a.say("%s  %s", a.Now().UTC().Format("15:04:05Z"), line)
		}
		return slices.Contains([]string{batchFinalized, batchFailed, batchFrozen, batchCancelled}, batch.State), nil
	})
	switch {
	case errors.Is(err, context.Canceled):
		return fail(exitUsage, "detached: the payout goes on. `muster payout batch %s` shows how", batch.ID)
	case errors.Is(err, errTimedOut):
		return fail(exitTimeout, "after %s the batch is %s. It goes on: `muster payout batch %s`", output.Duration(timeout), batch.State, batch.ID)
	case err != nil:
		return err
	}
	if err := a.printBatch(a.printer(), batch); err != nil || batch.State == batchFinalized {
		return err
	}
	return fail(exitFailed, "the batch is %s: %s", batch.State, first(batch.StateReason, "no reason was given"))
}
