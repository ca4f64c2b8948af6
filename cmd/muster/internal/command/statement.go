package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	monthLayout   = "2006-01"
	hourDecimals  = 4 // of GPU-hours in tables
	exportMode    = 0o600
	bpsPerPercent = 100
)

func (a *App) statement() *cobra.Command {
	return noun("statement", groupCustomer, "What you were charged or earned in a period, why, and files for the accountants", a.statementShow(), a.statementExport())
}

// statementFlags choose whose statement of when.
type statementFlags struct {
	month, from, to string
	owner           bool
}

func (f *statementFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.month, "month", "", "a calendar month such as 2026-11; this one when nothing is said")
	cmd.Flags().StringVar(&f.from, "from", "", "first UTC day, such as 2026-11-01")
	cmd.Flags().StringVar(&f.to, "to", "", "the day after the last one")
	cmd.Flags().BoolVar(&f.owner, "owner", false, "what your hosts earned, instead of what you were charged")
	cmd.MarkFlagsMutuallyExclusive("month", "from")
	cmd.MarkFlagsMutuallyExclusive("month", "to")
}

// query is the period as the API takes it.
func (f *statementFlags) query(cmd *cobra.Command) (url.Values, error) {
	query := url.Values{}
	if f.month != "" {
		first, err := time.Parse(monthLayout, f.month)
		if err != nil {
			return nil, usageError(cmd, "--month %s is not a month such as 2026-11", f.month)
		}
		f.from, f.to = first.Format(time.DateOnly), first.AddDate(0, 1, 0).Format(time.DateOnly)
	}
	for name, value := range map[string]string{"from": f.from, "to": f.to} {
		if value == "" {
			continue
		}
		if _, err := time.Parse(time.DateOnly, value); err != nil {
			return nil, usageError(cmd, "--%s %s is not a day such as 2026-11-01", name, value)
		}
		query.Set(name, value)
	}
	return query, nil
}

func (f *statementFlags) path() string {
	if f.owner {
		return "/v1/earnings/statement"
	}
	return "/v1/statements"
}

func (a *App) statementShow() *cobra.Command {
	var flags statementFlags
	cmd := &cobra.Command{
		Use: "show", Short: "Show a statement: opening balance, every line, closing balance", Example: "muster statement show --month 2026-11", Args: cobra.NoArgs,
		Long: "Shows what a customer was charged, by cluster, and what was not charged and through whose fault; with --owner what hosts earned and\n" +
			"what was paid out. Opening balance and lines come to the closing balance, to the last base unit.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, err := flags.query(cmd)
			if err != nil {
				return err
			}
			if flags.owner {
				return a.showEarningsStatement(cmd.Context(), query)
			}
			return a.showStatement(cmd.Context(), query)
		},
	}
	flags.add(cmd)
	return cmd
}

func (a *App) statementExport() *cobra.Command {
	var flags statementFlags
	var focus, csv bool
	var file string
	cmd := &cobra.Command{
		Use: "export", Short: "Write a statement as CSV, or costs in the FOCUS format for FinOps tools", Example: "muster statement export --month 2026-11 --focus --file costs.csv",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query, err := flags.query(cmd)
			if err != nil {
				return err
			}
			if focus && flags.owner {
				return usageError(cmd, "--focus is about costs: it has no --owner")
			}
			path := flags.path()
			if focus {
				path += "/focus"
			} else {
				query.Set("format", "csv")
			}
			return a.export(cmd.Context(), path, query, file)
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&csv, "csv", false, "the statement itself, a line a row; this is what is written when nothing is said")
	cmd.Flags().BoolVar(&focus, "focus", false, "a FOCUS cost export, a row for each GPU and day")
	cmd.Flags().StringVarP(&file, "file", "f", "", "where to write it, a file that is not there yet; standard output when nothing is said")
	cmd.MarkFlagsMutuallyExclusive("csv", "focus")
	return cmd
}

// export writes a file of the API's. Nothing is left of one that did not come whole.
func (a *App) export(ctx context.Context, path string, query url.Values, name string) (err error) {
	api, err := a.client()
	if err != nil {
		return err
	}
	if name == "" || name == "-" {
		return api.Download(ctx, path, query, a.Out)
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, exportMode)
	if err != nil {
		return fail(exitFailed, "cannot write the file: %w", err)
	}
	size := &counter{to: file}
	if err := errors.Join(api.Download(ctx, path, query, size), file.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	a.say("Wrote %s, %d bytes.", name, size.bytes)
	return nil
}

// counter counts what is written.
type counter struct {
	to    io.Writer
	bytes int
}

// Write implements io.Writer.
func (c *counter) Write(data []byte) (int, error) {
	n, err := c.to.Write(data)
	c.bytes += n
	return n, err
}

func (a *App) showStatement(ctx context.Context, query url.Values) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	var s apiv1.Statement
	if err := api.Get(ctx, "/v1/statements", query, &s); err != nil {
		return err
	}
	return a.printer().Print(s, []string{output.Amount(s.Closing.Total)}, func(p *output.Page) {
		periodFacts(p, s.Period)
		p.Title("Balance")
		sumTable(p, []sumLine{
			{"Opening", s.Opening.Total, "", true},
			{"Deposits", s.Totals.Deposits, "+", false},
			{"Withdrawals", s.Totals.Withdrawals, "-", false},
			{"GPU time, " + hours(s.Totals.GPUHours) + " h", s.Totals.Charges, "-", true},
			{"Given back", s.Totals.Credits, "+", false},
			{"Other", s.Totals.Other, "+", false},
			{"Closing", s.Closing.Total, "", true},
			{"of it set aside", s.Closing.Held, "", false},
		})
		a.statementClusters(p, s)
		movementTable(p, "Movements", s.Movements)
		if a.printer().Format == output.Wide {
			movementTable(p, "Set aside and given back", s.Holds)
		}
	})
}

func (a *App) statementClusters(p *output.Page, s apiv1.Statement) {
	if len(s.Clusters) == 0 {
		return
	}
	var rows, leases [][]output.Cell
	var credits []namedCredit
	for _, c := range s.Clusters {
		rows = append(rows, []output.Cell{
			output.Text(c.Name), output.Text(c.GPUModel), output.Text(strconv.Itoa(len(c.Leases))), output.Text(hours(c.GPUHours)), output.Text(output.Money(c.Charged)),
			output.Text(unlessZero(c.NotCharged)), output.Text(c.ClusterID.String()),
		})
		for _, l := range c.Leases {
			leases = append(leases, []output.Cell{
				output.Text(c.Name), output.Text(l.LeaseID.String()), output.Text(l.Region), output.Text(output.Money(l.PricePerGPUHour)),
				output.Text(strconv.FormatInt(l.GPUMilliseconds, 10)), output.Text(output.Money(l.Charged)),
			})
		}
		credits = append(credits, named(c.Name, c.Credits)...)
	}
	p.Title("Clusters")
	p.Table([]output.Column{
		{Head: "CLUSTER"},
		{Head: "GPU"},
		{Head: "LEASES", Right: true},
		{Head: "GPU HOURS", Right: true},
		{Head: "CHARGED", Right: true},
		{Head: "NOT CHARGED", Right: true},
		{Head: "ID", Wide: true},
	}, rows)
	if a.printer().Format == output.Wide {
		p.Title("Leases")
		p.Table([]output.Column{
			{Head: "CLUSTER"}, {Head: "LEASE"}, {Head: "REGION"}, {Head: "PER GPU HOUR", Right: true}, {Head: "GPU MS", Right: true}, {Head: "CHARGED", Right: true},
		}, leases)
	}
	creditTable(p, "Not delivered, and so not charged", "CLUSTER", credits)
}

func (a *App) showEarningsStatement(ctx context.Context, query url.Values) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	var s apiv1.EarningsStatement
	if err := api.Get(ctx, "/v1/earnings/statement", query, &s); err != nil {
		return err
	}
	return a.printer().Print(s, []string{output.Amount(s.Closing.Total)}, func(p *output.Page) {
		periodFacts(p, s.Period)
		p.Title("What is owed to you")
		sumTable(p, []sumLine{
			{"Opening", s.Opening.Total, "", true},
			{"Charged to customers, " + hours(s.Totals.GPUHours) + " GPU h", s.Totals.Gross, "+", true},
			{"The platform's fee", s.Totals.Fee, "-", true},
			{"Paid out on chain", s.Totals.Paid, "-", false},
			{"Other", s.Totals.Other, "+", false},
			{"Closing", s.Closing.Total, "", true},
			{"of it in payouts under way", s.Closing.InFlight, "", false},
		})
		statementHosts(p, s)
		payoutMoves(p, s.Payouts)
		movementTable(p, "Other movements", s.Movements)
	})
}

func statementHosts(p *output.Page, s apiv1.EarningsStatement) {
	if len(s.Hosts) == 0 {
		return
	}
	var rows [][]output.Cell
	var credits []namedCredit
	for _, h := range s.Hosts {
		rows = append(rows, []output.Cell{
			output.Text(h.Name), output.Text(strconv.Itoa(len(h.Leases))), output.Text(hours(h.GPUHours)), output.Text(output.Money(h.Gross)),
			output.Text(output.Money(h.Fee)), output.Text(output.Money(h.Net)), output.Text(unlessZero(h.NotEarned)), output.Text(h.HostID.String()),
		})
		credits = append(credits, named(h.Name, h.Credits)...)
	}
	p.Title("Hosts")
	p.Table([]output.Column{
		{Head: "HOST"},
		{Head: "LEASES", Right: true},
		{Head: "GPU HOURS", Right: true},
		{Head: "GROSS", Right: true},
		{Head: "FEE", Right: true},
		{Head: "NET", Right: true},
		{Head: "NOT EARNED", Right: true},
		{Head: "ID", Wide: true},
	}, rows)
	creditTable(p, "Not delivered, and so not earned", "HOST", credits)
}

func payoutMoves(p *output.Page, moves []apiv1.EarningsPayout) {
	if len(moves) == 0 {
		return
	}
	words := map[string]string{"payout_reserve": "put into a payout", "payout_paid": "paid on chain", "payout_return": "taken back"}
	rows := make([][]output.Cell, len(moves))
	for i, m := range moves {
		batch := "-"
		if m.BatchID != nil {
			batch = m.BatchID.String()
		}
		rows[i] = []output.Cell{
			output.Text(output.Time(&m.At)), output.Text(first(words[m.Kind], m.Kind)), output.Text(output.Money(m.Amount)), output.Text(batch),
			output.Text(first(m.Signature, "-")),
		}
	}
	p.Title("Payouts")
	p.Table([]output.Column{{Head: "AT"}, {Head: "WHAT"}, {Head: "AMOUNT", Right: true}, {Head: "BATCH", Wide: true}, {Head: "SIGNATURE", Shrink: true}}, rows)
}

func periodFacts(p *output.Page, period apiv1.Period) {
	last := period.To.Add(-time.Second)
	until := ""
	if period.Open {
		until = ", so far"
	}
	p.Facts(
		output.Fact{Label: "Statement of", Value: output.Cell{Text: period.Name, Tone: output.Bold}},
		output.Fact{Label: "Period", Value: output.Textf("%s to %s UTC%s", period.From.UTC().Format(time.DateOnly), last.UTC().Format(time.DateOnly), until)},
		output.Fact{Label: "Made", Value: output.Text(output.Time(&period.MadeAt))},
	)
}

// sumLine is a line of the sum that a statement is.
type sumLine struct {
	text   string
	amount apiv1.Money
	sign   string
	always bool // also when it is nothing
}

func sumTable(p *output.Page, lines []sumLine) {
	var rows [][]output.Cell
	for _, l := range lines {
		if !l.always && output.IsZero(l.amount) {
			continue
		}
		amount := output.Money(l.amount)
		if text, negative := strings.CutPrefix(amount, "-"); negative {
			l.sign, amount = "-", text
		}
		tone := output.Plain
		if l.sign == "" && l.always {
			tone = output.Bold
		}
		rows = append(rows, []output.Cell{output.Text(l.text), output.Text(l.sign), {Text: amount, Tone: tone}})
	}
	p.Table([]output.Column{{Head: "LINE"}, {Head: ""}, {Head: "AMOUNT", Right: true}}, rows)
}

// namedCredit is a stretch that was not delivered, with what it belongs to.
type namedCredit struct {
	name string
	apiv1.StatementCredit
}

func named(name string, credits []apiv1.StatementCredit) []namedCredit {
	all := make([]namedCredit, len(credits))
	for i, c := range credits {
		all[i] = namedCredit{name, c}
	}
	return all
}

func creditTable(p *output.Page, title, head string, credits []namedCredit) {
	if len(credits) == 0 {
		return
	}
	rows := make([][]output.Cell, len(credits))
	for i, c := range credits {
		rows[i] = []output.Cell{
			output.Text(c.name), output.Text(output.Time(&c.From)), output.Text(output.Duration(c.To.Sub(c.From))), output.Text(output.Money(c.Amount)),
			output.Text(c.FaultParty), output.Text(c.Reason), output.Text(c.LeaseID.String()),
		}
	}
	p.Title(title)
	p.Table([]output.Column{
		{Head: head},
		{Head: "FROM"},
		{Head: "FOR", Right: true},
		{Head: "WOULD HAVE COST", Right: true},
		{Head: "FAULT"},
		{Head: "BECAUSE", Shrink: true},
		{Head: "LEASE", Wide: true},
	}, rows)
}

func movementTable(p *output.Page, title string, movements []apiv1.StatementMovement) {
	if len(movements) == 0 {
		return
	}
	rows := make([][]output.Cell, len(movements))
	for i, m := range movements {
		rows[i] = []output.Cell{
			output.Text(output.Time(&m.At)), output.Text(m.Kind), output.Text(output.Money(m.Amount)), output.Text(m.Text), output.Text(first(m.Signature, "-")),
		}
	}
	p.Title(title)
	p.Table([]output.Column{{Head: "AT"}, {Head: "KIND"}, {Head: "AMOUNT", Right: true}, {Head: "WHAT"}, {Head: "SIGNATURE", Shrink: true, Wide: true}}, rows)
}

// hours shortens decimal GPU-hours.
func hours(text string) string {
	whole, decimals, found := strings.Cut(text, ".")
	if !found {
		return text
	}
	return whole + "." + decimals[:min(len(decimals), hourDecimals)]
}

func unlessZero(m apiv1.Money) string {
	if output.IsZero(m) {
		return "-"
	}
	return output.Money(m)
}

func (a *App) fee() *cobra.Command {
	return noun("fee", groupFinance, "The platform's share of what customers pay, over time", a.feeLs(), a.feeSet())
}

func (a *App) feeLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the fees: to come, in force, and past", Example: "muster fee ls", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var rates apiv1.List[apiv1.FeeRate]
			if err := api.Get(cmd.Context(), "/v1/finance/fees", nil, &rates); err != nil {
				return err
			}
			return a.printFees(rates.Items)
		},
	}
}

func (a *App) printFees(rates []apiv1.FeeRate) error {
	names := namesOf(rates, func(r apiv1.FeeRate) string { return strconv.Itoa(r.FeeBps) })
	return a.printer().Print(rates, names, func(p *output.Page) {
		rows := make([][]output.Cell, len(rates))
		for i, r := range rates {
			rows[i] = []output.Cell{
				output.Text(first(r.Organisation, "everybody")), output.Text(r.Percent + " %"), output.Text(feeStart(r)), output.State(r.State),
				output.Text(first(r.CreatedBy, "-")), output.Text(r.Note),
			}
		}
		p.Table([]output.Column{{Head: "FOR"}, {Head: "FEE", Right: true}, {Head: "FROM"}, {Head: "STATE"}, {Head: "BY"}, {Head: "NOTE", Shrink: true}}, rows)
	})
}

// feeStart is when a fee took effect; the first one was in force from the beginning.
func feeStart(r apiv1.FeeRate) string {
	if r.ValidFrom.Unix() == 0 {
		return "the beginning"
	}
	return output.Time(&r.ValidFrom)
}

func (a *App) feeSet() *cobra.Command {
	var customer, from, note string
	var yes bool
	cmd := &cobra.Command{
		Use: "set PERCENT", Short: "Change the fee from now or a later time on; what has been booked keeps its own", Example: "muster fee set 2.25 --from 2026-12-01 --note 'as announced'",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			bps, err := basisPoints(arguments[0])
			if err != nil {
				return usageError(cmd, "%v", err)
			}
			body := apiv1.FeeCreate{FeeBps: bps, Note: note}
			if customer != "" {
				body.OrgID = new(ids.Org)
				if err := body.OrgID.UnmarshalText([]byte(customer)); err != nil {
					return usageError(cmd, "--customer: %v", err)
				}
			}
			if from != "" {
				at, err := time.Parse(time.DateOnly, from)
				if err != nil {
					return usageError(cmd, "--from %s is not a day such as 2026-12-01", from)
				}
				body.ValidFrom = &at
			}
			return a.setFee(cmd.Context(), body, yes, first(customer, "everybody"), first(from, "now"))
		},
	}
	cmd.Flags().StringVar(&customer, "customer", "", "only for the bookings of this organisation")
	cmd.Flags().StringVar(&from, "from", "", "from the beginning of this UTC day on, which must not have begun; now when nothing is said")
	cmd.Flags().StringVar(&note, "note", "", "why")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *App) setFee(ctx context.Context, body apiv1.FeeCreate, yes bool, who, when string) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	if err := a.confirm(ctx, yes, "Set the fee of %s to %d basis points from %s on?", who, body.FeeBps, when); err != nil {
		return err
	}
	var added apiv1.FeeRate
	if err := api.Post(ctx, "/v1/finance/fees", body, &added); err != nil {
		return err
	}
	return a.printFees([]apiv1.FeeRate{added})
}

// basisPoints reads a percentage of at most two decimals.
func basisPoints(text string) (int, error) {
	percent, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	bps := int(percent*bpsPerPercent + 0.5) //nolint:mnd // rounds
	if err != nil || percent < 0 || percent > 100 || strconv.FormatFloat(percent*bpsPerPercent, 'f', 6, 64) != strconv.FormatFloat(float64(bps), 'f', 6, 64) {
		return 0, fmt.Errorf("%s is not a percentage such as 2.25, with at most two decimals", text)
	}
	return bps, nil
}
