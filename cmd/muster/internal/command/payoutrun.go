package command

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	runsPath     = "/v1/finance/runs"
	schedulePath = "/v1/finance/payout-schedule"
)

func runKey(r apiv1.PayoutRun) string { return r.ID.String() }

func (a *App) payoutRun() *cobra.Command {
	return &cobra.Command{
		Use: "run", Short: "Platform finance: draft batches of everything payable, in rounds as nonces come free", Args: cobra.NoArgs,
		Long: "Begins a payout run: batches of everything that is payable, withdrawals first. Nothing is sent before somebody else approves it,\n" +
			"batch by batch or the run as a whole: `muster payout approve RUN`.",
		Example: "muster payout run",
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var run apiv1.PayoutRun
			if err := api.Post(cmd.Context(), runsPath, nil, &run); err != nil {
				return err
			}
			if run.BatchCount > 0 {
				a.say("Look at it with `muster payout runs %s`, send it with `muster payout approve %s`.", run.ID, run.ID)
			}
			return a.printRun(run)
		},
	}
}

func (a *App) payoutRuns() *cobra.Command {
	return &cobra.Command{
		Use: "runs [RUN]", Short: "Platform finance: list payout runs, or show what became of each payee in one", Args: cobra.MaximumNArgs(1),
		Example: "muster payout runs prun_01jd8xk4s3f5rtkq9m2v6w7x8y",
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			runs, err := list[apiv1.PayoutRun](cmd.Context(), api, runsPath, nil)
			if err != nil {
				return err
			}
			if len(arguments) == 0 {
				return a.printRuns(runs)
			}
			found, err := pick("run", "payout runs", arguments[0], runs, runKey, func(apiv1.PayoutRun) string { return "" }, func(apiv1.PayoutRun) bool { return true })
			if err != nil {
				return err
			}
			if err := api.Get(cmd.Context(), runsPath+"/"+found.ID.String(), nil, &found); err != nil {
				return err
			}
			return a.printRun(found)
		},
	}
}

func (a *App) printRuns(runs []apiv1.PayoutRun) error {
	printer := a.printer()
	rows := make([][]output.Cell, len(runs))
	for i, r := range runs {
		rows[i] = []output.Cell{
			output.Text(r.ID.String()), output.Text(r.Kind), output.State(r.State), output.Text(output.Money(r.Total)), output.Text(strconv.Itoa(r.PayeeCount)),
			output.Text(strconv.Itoa(r.LeftOutCount)), output.Text(strconv.Itoa(r.BatchCount)), output.Text(printer.Age(r.StartedAt)),
			output.Text(first(r.RequestedBy, "the schedule")), output.Text(r.Reason),
		}
	}
	return printer.Print(runs, namesOf(runs, runKey), func(p *output.Page) {
		if len(runs) == 0 {
			a.say("There is no payout run yet: `muster payout run` begins one.")
			return
		}
		p.Table([]output.Column{
			{Head: "RUN"},
			{Head: "KIND"},
			{Head: "STATE"},
			{Head: "TOTAL", Right: true},
			{Head: "PAYEES", Right: true},
			{Head: "LEFT OUT", Right: true},
			{Head: "BATCHES", Right: true},
			{Head: "AGE", Right: true},
			{Head: "BY"},
			{Head: "NOTE", Shrink: true},
		}, rows)
	})
}

func (a *App) printRun(r apiv1.PayoutRun) error {
	printer := a.printer()
	started := r.StartedAt
	return printer.Print(r, []string{runKey(r)}, func(p *output.Page) {
		p.Facts(
			output.Fact{Label: "Run", Value: output.Text(r.ID.String())}, output.Fact{Label: "State", Value: output.State(r.State)},
			output.Fact{Label: "Note", Value: output.Text(r.Reason)}, output.Fact{Label: "Total", Value: output.Cell{Text: output.Money(r.Total), Tone: output.Bold}},
			output.Fact{Label: "Begun", Value: output.Text(by(printer.When(&started), first(r.RequestedBy, "the schedule")))},
			output.Fact{Label: "Ended", Value: output.Text(printer.When(r.FinishedAt))},
			output.Fact{Label: "Payees", Value: output.Textf("%d in batches, %d left out", r.PayeeCount, r.LeftOutCount)},
			output.Fact{Label: "Batches", Value: output.Text(batchStates(r))},
		)
		if len(r.Payees) == 0 {
			return
		}
		rows := make([][]output.Cell, len(r.Payees))
		for i, payee := range r.Payees {
			batch := "-"
			if payee.BatchID != nil {
				batch = payee.BatchID.String()
			}
			rows[i] = []output.Cell{
				output.Text(payee.Name), output.Text(payee.Purpose), output.Text(output.Money(payee.Amount)), output.Text(batch),
				output.Text(payee.OrgID.String()), output.Text(payee.Reason),
			}
		}
		p.Title("Payees")
		p.Table([]output.Column{
			{Head: "ORGANISATION"}, {Head: "FOR"}, {Head: "AMOUNT", Right: true}, {Head: "BATCH"}, {Head: "ORG ID", Wide: true}, {Head: "LEFT OUT BECAUSE", Shrink: true},
		}, rows)
	})
}

// batchStates counts a run's batches by state, in the order of a batch's life.
func batchStates(r apiv1.PayoutRun) string {
	counts := make(map[string]int)
	for _, b := range r.Batches {
		counts[b.State]++
	}
	var texts []string
	for _, state := range []string{batchDraft, "approved", "signed", "sent", batchCancelling, batchFinalized, batchFailed, batchFrozen, batchCancelled} {
		if counts[state] > 0 {
			texts = append(texts, strconv.Itoa(counts[state])+" "+state)
		}
	}
	if len(r.Batches) < r.BatchCount { // the answer shows the newest
		texts = append(texts, strconv.Itoa(r.BatchCount-len(r.Batches))+" older ones")
	}
	return first(strings.Join(texts, ", "), "none")
}

// approveRun approves all drafts of a run.
func (a *App) approveRun(ctx context.Context, api *client.Client, id ids.PayoutRun, yes bool) error {
	var run apiv1.PayoutRun
	if err := api.Get(ctx, runsPath+"/"+id.String(), nil, &run); err != nil {
		return err
	}
	drafts := 0
	for _, b := range run.Batches {
		if b.State == batchDraft {
			drafts++
		}
	}
	if err := a.confirm(ctx, yes, "Approve %s of a run that pays %s to %s?", counted(drafts, "draft", "drafts"), output.Money(run.Total), payees(run.PayeeCount)); err != nil {
		return err
	}
	var done apiv1.RunApproval
	if err := api.Do(context.WithoutCancel(ctx), http.MethodPost, runsPath+"/"+id.String()+"/approve", nil, nil, nil, &done); err != nil {
		return err
	}
	return a.printer().Print(done, []string{id.String()}, func(p *output.Page) {
		p.Line("Approved, and paid now: %s. Waiting for another person: %d.", counted(done.Approved, "batch", "batches"), done.Waiting)
	})
}

// asRun reads an argument that is a run's id.
func asRun(argument string) (id ids.PayoutRun, ok bool) {
	err := id.UnmarshalText([]byte(argument))
	return id, err == nil && !id.IsZero()
}

func (a *App) payoutCancel() *cobra.Command {
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use: "cancel BATCH", Short: "Platform finance: drop a batch, also one that was sent and has not landed", Args: cobra.ExactArgs(1),
		Long: "A draft is dropped at once. Of a batch that was signed or sent, the nonce is consumed by another transaction: either that one lands and the\n" +
			"money is payable again, or the payment was faster and it is paid; never both. Of a frozen batch the nonce is consumed, so that it can be resolved.",
		Example: "muster payout cancel bat_01jd8xk4s3f5rtkq9m2v6w7x8y --reason 'wrong month'", ValidArgsFunction: a.completeBatches(),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			batch, err := getBatch(cmd.Context(), api, arguments[0])
			if err != nil {
				return err
			}
			if err := a.confirm(cmd.Context(), yes, "Cancel the %s batch of %s to %s?", batch.State, output.Money(batch.Total), payees(batch.PayeeCount)); err != nil {
				return err
			}
			return a.actOnBatch(cmd.Context(), api, batch, "cancel", apiv1.BatchCancel{Reason: reason})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the record")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	_ = cmd.MarkFlagRequired("reason")
	return cmd
}

func (a *App) payoutResolve() *cobra.Command {
	var paid, notPaid, note string
	cmd := &cobra.Command{
		Use: "resolve BATCH", Short: "Platform finance: say how a frozen batch ended, with the transaction that shows it", Args: cobra.ExactArgs(1),
		Long: "The transaction is read from the chain and must show what you say: --paid, that it moved exactly the batch's amounts to its payees; --not-paid,\n" +
			"that it consumed the batch's nonce and gave the payees nothing. One person proposes, another runs the same command to confirm.",
		Example: "muster payout resolve bat_01jd8xk4s3f5rtkq9m2v6w7x8y --not-paid SIGNATURE --note 'advanced by hand'", ValidArgsFunction: a.completeBatches(),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			batch, err := getBatch(cmd.Context(), api, arguments[0])
			if err != nil {
				return err
			}
			body := apiv1.BatchResolve{Outcome: "paid", Signature: paid, Note: note}
			if notPaid != "" {
				body.Outcome, body.Signature = "not_paid", notPaid
			}
			return a.actOnBatch(cmd.Context(), api, batch, "resolve", body)
		},
	}
	cmd.Flags().StringVar(&paid, "paid", "", "signature of the transaction that paid it")
	cmd.Flags().StringVar(&notPaid, "not-paid", "", "signature of the transaction that consumed its nonce instead")
	cmd.Flags().StringVar(&note, "note", "", "what was found, for the record")
	cmd.MarkFlagsOneRequired("paid", "not-paid")
	cmd.MarkFlagsMutuallyExclusive("paid", "not-paid")
	_ = cmd.MarkFlagRequired("note")
	return cmd
}

func (a *App) actOnBatch(ctx context.Context, api *client.Client, batch apiv1.Batch, action string, body any) error {
	path := "/v1/finance/batches/" + batch.ID.String() + "/" + action
	if err := api.Do(context.WithoutCancel(ctx), http.MethodPost, path, nil, nil, body, &batch); err != nil {
		return err
	}
	if batch.State == batchCancelling {
		a.say("Its nonce is being consumed. `muster payout batch %s` shows which of the two landed.", batch.ID)
	}
	if r := batch.Resolution; r != nil && r.ConfirmedAt == nil {
		a.say("Proposed. Somebody else confirms it with the same command.")
	}
	return a.printBatch(a.printer(), batch)
}

func (a *App) payoutNonces() *cobra.Command {
	return &cobra.Command{
		Use: "nonces", Short: "Platform finance: the signer's nonces, of which each live batch holds one", Example: "muster payout nonces", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var pool apiv1.NoncePool
			if err := api.Get(cmd.Context(), "/v1/finance/nonces", nil, &pool); err != nil {
				return err
			}
			rows := make([][]output.Cell, len(pool.Nonces))
			for i, n := range pool.Nonces {
				batch := "-"
				if n.BatchID != nil {
					batch = n.BatchID.String()
				}
				rows[i] = []output.Cell{output.Text(n.Account), output.State(n.State), output.Text(batch), output.Text(n.Value), output.Text(n.Problem)}
			}
			return a.printer().Print(pool, namesOf(pool.Nonces, func(n apiv1.Nonce) string { return n.Account }), func(p *output.Page) {
				p.Facts(
					output.Fact{Label: "Nonces", Value: output.Textf("%d free, %d held, %d unusable", pool.Free, pool.Held, pool.Unusable)},
					output.Fact{Label: "Rent in lamports", Value: output.Text(strconv.FormatInt(pool.RentTotal, 10))},
					output.Fact{Label: "Warning", Value: output.Text(pool.Warning)},
				)
				if len(rows) == 0 {
					return
				}
				p.Title("Accounts")
				p.Table([]output.Column{{Head: "NONCE ACCOUNT"}, {Head: "STATE"}, {Head: "BATCH"}, {Head: "VALUE", Wide: true}, {Head: "PROBLEM", Shrink: true}}, rows)
			})
		},
	}
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func (a *App) payoutSchedule() *cobra.Command {
	var set apiv1.PayoutScheduleSet
	var on []string
	var off bool
	cmd := &cobra.Command{
		Use: "schedule", Short: "Platform finance: show or set when payout runs begin by themselves", Args: cobra.NoArgs,
		Example: "muster payout schedule --on mon,thu --at 06:00 --threshold 5000",
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var schedule apiv1.PayoutSchedule
			switch {
			case off || set.EveryDays != 0 || len(on) > 0 || set.Threshold != "":
			case cmd.Flags().Changed("at") || cmd.Flags().Changed("from"):
				return usageError(cmd, "say also which runs begin then: --on, --every-days or --threshold. The schedule is replaced as a whole")
			default:
				if err := api.Get(cmd.Context(), schedulePath, nil, &schedule); err != nil {
					return err
				}
				return a.printSchedule(schedule)
			}
			set.Enabled = !off
			for _, name := range on {
				day := -1
				for i, known := range weekdays {
					if strings.EqualFold(name, known) {
						day = i
					}
				}
				if day < 0 {
					return fail(exitUsage, "%q is no weekday: write them as %s", name, strings.Join(weekdays, ","))
				}
				set.Weekdays = append(set.Weekdays, day)
			}
			if err := api.Do(cmd.Context(), http.MethodPut, schedulePath, nil, nil, set, &schedule); err != nil {
				return err
			}
			return a.printSchedule(schedule)
		},
	}
	cmd.Flags().IntVar(&set.EveryDays, "every-days", 0, "a run each so many days")
	cmd.Flags().StringSliceVar(&on, "on", nil, "a run on these weekdays: mon,thu")
	cmd.Flags().StringVar(&set.At, "at", "06:00", "time of the UTC day")
	cmd.Flags().StringVar(&set.StartsOn, "from", "", "first UTC date, YYYY-MM-DD; today when absent")
	cmd.Flags().StringVar(&set.Threshold, "threshold", "", "also a run when so many tokens are payable")
	cmd.Flags().BoolVar(&off, "off", false, "no runs by themselves")
	return cmd
}

func (a *App) printSchedule(s apiv1.PayoutSchedule) error {
	printer := a.printer()
	when := "not by the clock"
	switch {
	case !s.Enabled:
		when = "off: runs are begun by hand"
	case s.EveryDays > 0:
		when = "every " + counted(s.EveryDays, "day", "days") + " at " + s.At + " UTC, counted from " + s.StartsOn
	case len(s.Weekdays) > 0:
		names := make([]string, len(s.Weekdays))
		for i, day := range s.Weekdays {
			names[i] = weekdays[day]
		}
		when = strings.Join(names, ", ") + " at " + s.At + " UTC"
	}
	return printer.Print(s, []string{when}, func(p *output.Page) {
		p.Facts(
			output.Fact{Label: "Runs begin", Value: output.Text(when)},
			output.Fact{Label: "Also at", Value: output.Text(payableOf(s))},
			output.Fact{Label: "Next", Value: output.Text(printer.When(s.NextAt))},
			output.Fact{Label: "Set", Value: output.Text(by(printer.When(s.UpdatedAt), s.UpdatedBy))},
		)
	})
}

// payableOf is how much payable begins a run, if the schedule is on.
func payableOf(s apiv1.PayoutSchedule) string {
	if s.Threshold == nil || !s.Enabled {
		return ""
	}
	return output.Money(*s.Threshold) + " payable"
}
