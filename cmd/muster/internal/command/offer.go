package command

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
)

func (a *App) offer() *cobra.Command {
	return noun("offer", groupCustomer, "What can be booked now", a.offerLs(), a.offerWhy())
}

func (a *App) offerLs() *cobra.Command {
	var model, region string
	cmd := &cobra.Command{
		Use: "ls", Short: "List GPU models, where they are and what they cost", Example: "muster offer ls --gpu H100", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.public()
			if err != nil {
				return err
			}
			query := url.Values{}
			if model != "" {
				query.Set("gpu_model", model)
			}
			if region != "" {
				query.Set("region", region)
			}
			var offers apiv1.List[apiv1.Offer]
			if err := api.Get(cmd.Context(), "/v1/offers", query, &offers); err != nil {
				return err
			}
			return a.printOffers(offers.Items)
		},
	}
	cmd.Flags().StringVar(&model, "gpu", "", "only this GPU model")
	cmd.Flags().StringVar(&region, "region", "", "only this region")
	_ = cmd.RegisterFlagCompletionFunc("gpu", a.completeModels())
	_ = cmd.RegisterFlagCompletionFunc("region", a.completeRegions())
	return cmd
}

func (a *App) printOffers(offers []apiv1.Offer) error {
	names := make([]string, len(offers))
	rows := make([][]output.Cell, len(offers))
	for i, o := range offers {
		names[i] = o.GPUModel + "/" + o.Region
		kind := ""
		if o.Simulated {
			kind = "simulated"
		}
		rows[i] = []output.Cell{
			output.Text(o.GPUModel), output.Text(o.Region), output.Textf("%d of %d", o.FreeGPUs, o.TotalGPUs), output.Text(strconv.Itoa(o.Hosts)),
			output.Text(strconv.Itoa(o.LargestNode)), output.Text(memory(o.MemoryMiB)), output.Text(output.Money(o.PriceFrom)),
			{Text: kind, Tone: output.Dim},
		}
	}
	return a.printer().Print(offers, names, func(p *output.Page) {
		if len(offers) == 0 {
			a.say("Nothing is offered like that now: `muster offer ls` without conditions lists all there is.")
			return
		}
		p.Table([]output.Column{
			{Head: "GPU"},
			{Head: "REGION"},
			{Head: "FREE GPUS", Right: true},
			{Head: "HOSTS", Right: true},
			{Head: "LARGEST NODE", Right: true},
			{Head: "MEMORY", Right: true},
			{Head: "FROM, PER GPU-HOUR", Right: true},
			{Head: ""},
		}, rows)
	})
}

func memory(mib int64) string {
	const mibPerGiB = 1024
	return strconv.FormatInt((mib+mibPerGiB/2)/mibPerGiB, 10) + " GiB"
}

// specFlags describe the wanted cluster.
type specFlags struct{ spec apiv1.BookingSpec }

func (f *specFlags) add(a *App, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.spec.GPUModel, "gpu", "", "GPU model, as muster offer ls lists them")
	flags.IntVar(&f.spec.NodeCount, "nodes", 1, "GPU nodes; the Ray head comes on top and is free")
	flags.IntVar(&f.spec.GPUsPerNode, "gpus-per-node", 1, "GPUs of each node")
	flags.StringVar(&f.spec.Duration, "for", "1h", "how long, from ready: 30m, 6h, 2h30m")
	flags.StringSliceVar(&f.spec.Regions, "region", nil, "any of these regions (repeat or separate by commas; default: all)")
	flags.StringVar(&f.spec.MaxPricePerGPUHour, "max-price", "", "most tokens per GPU-hour")
	_ = cmd.RegisterFlagCompletionFunc("gpu", a.completeModels())
	_ = cmd.RegisterFlagCompletionFunc("region", a.completeRegions())
	_ = cmd.MarkFlagRequired("gpu")
}

func (a *App) offerWhy() *cobra.Command {
	var flags specFlags
	cmd := &cobra.Command{
		Use: "why", Short: "Explain whether a cluster fits, and what blocks if it does not",
		Long:    "Asks the server's matcher, without booking: how many hosts and GPUs are left after each condition. Exits with 5 if nothing fits.",
		Example: "muster offer why --gpu H100 --nodes 4 --gpus-per-node 2 --max-price 2.50", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.explainOffer(cmd.Context(), flags.spec) },
	}
	flags.add(a, cmd)
	return cmd
}

func (a *App) explainOffer(ctx context.Context, spec apiv1.BookingSpec) error {
	api, err := a.public()
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
	}); err != nil || explanation.Blocking == "" {
		return err
	}
	return &failure{exitNoCapacity, nil}
}

// funnel shows what is left after each condition.
func funnel(p *output.Page, e apiv1.Explanation) {
	rows := make([][]output.Cell, len(e.Funnel))
	for i, step := range e.Funnel {
		mark, tone := output.Cell{}, output.Plain
		if step.Condition == e.Blocking {
			mark, tone = output.Cell{Text: "<- too few", Tone: output.Bad}, output.Bad
		}
		rows[i] = []output.Cell{
			{Text: strings.ReplaceAll(step.Condition, "_", " "), Tone: tone}, output.Text(strconv.Itoa(step.Hosts)), output.Text(strconv.Itoa(step.GPUs)), mark,
		}
	}
	p.Table([]output.Column{{Head: "AFTER"}, {Head: "HOSTS", Right: true}, {Head: "GPUS", Right: true}, {Head: ""}}, rows)
}
