package command

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
)

func (a *App) offer() *cobra.Command {
	ls := a.offerLs()
	cmd := noun("offer", groupCustomer, "What can be booked now", ls, a.offerWhy())
	cmd.Aliases = []string{"offers"}
	return or(cmd, ls, func(arguments []string) bool { return len(arguments) == 0 || isQuery(arguments) })
}

// isQuery tells the conditions of an offer query from a mistyped verb.
func isQuery(arguments []string) bool {
	return strings.ContainsAny(arguments[0], "=<>~!")
}

func (a *App) offerLs() *cobra.Command {
	var model, region, sort string
	cmd := &cobra.Command{
		Use: "ls [QUERY]", Short: "List GPU models, where they are and what they cost",
		Long: "Lists what can be booked, by GPU model and region. QUERY keeps the hosts that pass every condition, such as\n" +
			"'gpu=H100,H200 vram>=80GB region=eu price<2.5 free>=8 reliability>=99 tier>=proven spot=true'. Operators are = != < <= > >= and ~\n" +
			"(contains); a comma means or; region=eu also means every eu-...",
		Example: "muster offer ls 'gpu=H100 vram>=80GB region=eu price<2.5' --sort price", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, conditions []string) error {
			if model != "" {
				conditions = append(conditions, "gpu="+model)
			}
			if region != "" {
				conditions = append(conditions, "region="+region)
			}
			return a.listOffers(cmd.Context(), strings.Join(conditions, " "), sort)
		},
	}
	cmd.Flags().StringVar(&model, "gpu", "", "only this GPU model, as gpu= in QUERY")
	cmd.Flags().StringVar(&region, "region", "", "only this region, as region= in QUERY")
	cmd.Flags().StringVar(&sort, "sort", "", strings.Join(offerSorts, ", ")+"; with - in front: the other way")
	_ = cmd.RegisterFlagCompletionFunc("gpu", a.completeModels())
	_ = cmd.RegisterFlagCompletionFunc("region", a.completeRegions())
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(offerSorts, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

var offerSorts = []string{"price", "free", "vram", "model", "region", "utilisation", "reliability", "spot"}

func (a *App) listOffers(ctx context.Context, query, sort string) error {
	api, err := a.public()
	if err != nil {
		return err
	}
	parameters := url.Values{}
	if query != "" {
		parameters.Set("q", query)
	}
	if sort != "" {
		parameters.Set("sort", sort)
	}
	offers, err := list[apiv1.Offer](ctx, api, "/v1/offers", parameters)
	if err != nil {
		return drawn(err, query)
	}
	return a.printOffers(offers, query != "")
}

// drawn shows where in a query the mistake is, if err says so.
func drawn(err error, query string) error {
	var problem *client.Error
	if !errors.As(err, &problem) {
		return err
	}
	for _, field := range problem.Errors {
		if field.Path != "query.q" || field.Position == nil {
			continue
		}
		return fail(exitUsage, "%s\n  %s\n  %s^", field.Message, query, strings.Repeat(" ", max(*field.Position, 0)))
	}
	return err
}

func (a *App) printOffers(offers []apiv1.Offer, filtered bool) error {
	names := make([]string, len(offers))
	rows := make([][]output.Cell, len(offers))
	for i, o := range offers {
		names[i] = o.GPUModel + "/" + o.Region
		kind, from := "", output.Money(o.PriceFrom)
		if o.Simulated {
			kind = "simulated"
		}
		if o.FreeGPUs == 0 {
			from = "-"
		}
		rows[i] = []output.Cell{
			output.Text(o.GPUModel), output.Text(o.Region), output.Text(memory(o.MemoryMiB)), output.Textf("%d of %d", o.FreeGPUs, o.TotalGPUs),
			output.Text(strconv.Itoa(o.LargestNode)), output.Text(from), output.Text(first(output.OptionalMoney(o.SpotFrom), "-")),
			output.Text(percent(o.UtilisationPercent)), output.Text(percent(o.ReliabilityPercent)), output.Text(strconv.Itoa(o.Hosts)),
			output.Text(first(output.OptionalMoney(o.PriceMedian), "-")),
			{Text: kind, Tone: output.Dim},
		}
	}
	return a.printer().Print(offers, names, func(p *output.Page) {
		switch {
		case len(offers) == 0 && filtered:
			a.say("Nothing is offered like that now: `muster offer ls` without conditions lists all there is.")
			return
		case len(offers) == 0:
			a.say("Nothing is offered now.")
			return
		}
		p.Table([]output.Column{
			{Head: "GPU"},
			{Head: "REGION"},
			{Head: "MEMORY", Right: true},
			{Head: "FREE", Right: true},
			{Head: "LARGEST NODE", Right: true},
			{Head: "PER GPU-HOUR", Right: true},
			{Head: "SPOT", Right: true},
			{Head: "IN USE", Right: true},
			{Head: "RELIABLE", Right: true},
			{Head: "HOSTS", Right: true, Wide: true},
			{Head: "MEDIAN", Right: true, Wide: true},
			{Head: ""},
		}, rows)
	})
}

func memory(mib int64) string {
	const mibPerGiB = 1024
	return strconv.FormatInt((mib+mibPerGiB/2)/mibPerGiB, 10) + " GiB"
}

// percent writes 62.5 %, with no more decimals than it has, and two at most.
func percent(value float64) string {
	text := strconv.FormatFloat(value, 'f', 2, 64)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".") + " %"
}

func (a *App) offerWhy() *cobra.Command {
	var flags specFlags
	cmd := &cobra.Command{
		Use: "why", Short: "Explain whether a cluster fits, what blocks if it does not, and what would fit",
		Long: "Asks the server's matcher, without booking: how many hosts and GPUs are left after each condition, how many GPUs each excludes by\n" +
			"itself, and the nearest clusters that fit. Exits with 5 if nothing fits.",
		Example: "muster offer why --gpu H100 --nodes 4 --gpus-per-node 2 --max-price 2.50", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.explainOffer(cmd.Context(), &flags) },
	}
	flags.add(a, cmd)
	return cmd
}

func (a *App) explainOffer(ctx context.Context, flags *specFlags) error {
	api, err := a.public()
	if err != nil {
		return err
	}
	spec, err := flags.readSpec(a.Now())
	if err != nil {
		return err
	}
	var explanation apiv1.Explanation
	if err := api.Post(ctx, "/v1/explain", spec, &explanation); err != nil {
		return err
	}
	if err := a.printer().Print(explanation, []string{first(explanation.Blocking, "fits")}, func(p *output.Page) {
		p.Line("%s", first(explanation.Summary, "It fits."))
		p.Line("")
		funnel(p, explanation)
		changes(p, explanation.Changes, a.Now())
	}); err != nil || explanation.Blocking == "" {
		return err
	}
	return &failure{exitNoCapacity, nil}
}

// funnel shows what is left after each condition that takes something away.
func funnel(p *output.Page, e apiv1.Explanation) {
	rows := make([][]output.Cell, 0, len(e.Funnel))
	for i, step := range e.Funnel {
		if i > 0 && step.Excludes == 0 && step.Condition != e.Blocking && step.Hosts == e.Funnel[i-1].Hosts && step.GPUs == e.Funnel[i-1].GPUs {
			continue // it takes nothing away
		}
		mark, tone := output.Cell{}, output.Plain
		if step.Condition == e.Blocking {
			mark, tone = output.Cell{Text: "<- too few", Tone: output.Bad}, output.Bad
		}
		excludes := "-"
		if step.Excludes > 0 {
			excludes = strconv.Itoa(step.Excludes)
		}
		rows = append(rows, []output.Cell{
			{Text: strings.ReplaceAll(step.Condition, "_", " "), Tone: tone},
			output.Text(strconv.Itoa(step.Hosts)), output.Text(strconv.Itoa(step.GPUs)),
			output.Text(excludes), mark,
		})
	}
	p.Table([]output.Column{
		{Head: "AFTER"}, {Head: "HOSTS", Right: true}, {Head: "GPUS", Right: true}, {Head: "GPUS IT ALONE EXCLUDES", Right: true}, {Head: ""},
	}, rows)
}

// changes lists what would fit, with the command that books it where there is a quote.
func changes(p *output.Page, all []apiv1.Change, now time.Time) {
	if len(all) == 0 {
		return
	}
	p.Title("What fits instead")
	rows := make([][]output.Cell, len(all))
	var expires *time.Time
	for i, c := range all {
		command := ""
		if c.QuoteID != nil {
			command = "muster book --quote " + c.QuoteID.String()
		}
		if c.ExpiresAt != nil && (expires == nil || c.ExpiresAt.Before(*expires)) {
			expires = c.ExpiresAt
		}
		rows[i] = []output.Cell{output.Text(strconv.Itoa(i + 1)), output.Text(c.Summary), output.Text(output.Money(c.PricePerHour)), {Text: command, Tone: output.Bold}}
	}
	book := output.Column{Head: "BOOK IT WITH"}
	if expires == nil {
		book.Head = ""
	}
	p.Table([]output.Column{{Head: "", Right: true}, {Head: "CHANGE", Shrink: true}, {Head: "PER HOUR", Right: true}, book}, rows)
	if expires != nil {
		p.Line("The prices hold for %s, until %s.", output.Duration(expires.Sub(now).Round(time.Second)), output.Time(expires))
	}
}
