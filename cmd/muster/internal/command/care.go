package command

import (
	"context"
	"net/http"
	"net/url"
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

// clusterChange is a command on one cluster that takes further arguments.
func (a *App) clusterChange(use, short, example string, further int, act func(context.Context, *client.Client, ids.Cluster, []string) error) *cobra.Command {
	var arguments []string
	cmd := a.clusterCommand(use, short, example, func(ctx context.Context, api *client.Client, id ids.Cluster) error {
		return act(ctx, api, id, arguments)
	})
	verb, rest, _ := strings.Cut(use, " ")
	cmd.Use, cmd.Args = strings.TrimSpace(verb+" CLUSTER "+rest), cobra.ExactArgs(1+further)
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		arguments = given[1:]
		return run(cmd, given)
	}
	return cmd
}

func (a *App) clusterExtend() *cobra.Command {
	var flags acceptFlags
	cmd := a.clusterChange("extend DURATION", "Book more time for a cluster: shows the price and asks", "muster cluster extend demo 6h", 1,
		func(ctx context.Context, api *client.Client, id ids.Cluster, arguments []string) error {
			return a.addTo(ctx, api, "/v1/clusters/"+id.String()+"/extension-quote", apiv1.ExtensionCreate{Duration: arguments[0]}, flags)
		})
	flags.addPrice(cmd)
	return cmd
}

func (a *App) clusterAddNodes() *cobra.Command {
	var flags acceptFlags
	var limit string
	cmd := a.clusterChange("add-nodes COUNT", "Book more nodes for a running cluster: shows the price and asks", "muster cluster add-nodes demo 2 --max-price 2.50", 1,
		func(ctx context.Context, api *client.Client, id ids.Cluster, arguments []string) error {
			count, err := strconv.Atoi(arguments[0])
			if err != nil {
				return fail(exitUsage, "%q is not a number of nodes", arguments[0])
			}
			return a.addTo(ctx, api, "/v1/clusters/"+id.String()+"/addition-quote", apiv1.AdditionCreate{NodeCount: count, MaxPricePerGPUHour: limit}, flags)
		})
	cmd.Long = "The nodes are like those the cluster has, and stay until its end. What runs goes on while they join."
	cmd.Flags().StringVar(&limit, "max-price", "", "most tokens per GPU-hour")
	flags.addPrice(cmd)
	return cmd
}

func (a *App) addTo(ctx context.Context, api *client.Client, path string, in any, flags acceptFlags) error {
	var quote apiv1.Quote
	if err := api.Post(ctx, path, in, &quote); err != nil {
		return err
	}
	return a.settle(ctx, api, quote, nil, flags)
}

func (a *App) clusterRemoveNode() *cobra.Command {
	var yes bool
	cmd := a.clusterChange("remove-node NODE", "Take a node out of a running cluster; its part of the hold comes back", "muster cluster remove-node demo node_01kpj020000000000000000001", 1,
		func(ctx context.Context, api *client.Client, id ids.Cluster, arguments []string) error {
			cluster, err := getCluster(ctx, api, id)
			if err != nil {
				return err
			}
			node, err := pick("node", "cluster get "+first(cluster.Name, id.String()), place(arguments[0]), cluster.Nodes,
				func(n apiv1.Node) string { return n.ID.String() },
				func(n apiv1.Node) string { return n.Role + strconv.Itoa(n.Ordinal) }, func(n apiv1.Node) bool { return n.EndedAt == nil })
			if err != nil {
				return err
			}
			if err := a.confirm(ctx, yes, "Take %s out of %s? What runs on it ends.", node.ID, first(cluster.Name, id.String())); err != nil {
				return err
			}
			if err := api.Do(context.WithoutCancel(ctx), http.MethodDelete, "/v1/clusters/"+id.String()+"/nodes/"+node.ID.String(), nil, nil, nil, &cluster); err != nil {
				return err
			}
			a.say("The node is being taken out.")
			return a.printCluster(cluster)
		})
	cmd.Long = "NODE is a node's id, its beginning, or its place: gpu 2, or just 2. Removing the last node is refused: release the cluster instead."
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// place reads a node's place as it is shown, gpu 2, or by its number alone. What is no place it leaves as it is.
func place(argument string) string {
	number := strings.TrimSpace(strings.TrimPrefix(argument, roleGPU))
	if _, err := strconv.Atoi(number); err != nil {
		return argument
	}
	return roleGPU + number
}

func (a *App) clusterAutoStop() *cobra.Command {
	var park, release time.Duration
	var off bool
	cmd := a.clusterCommand("auto-stop", "Say when an idle cluster gives its nodes back, and when it ends", "muster cluster auto-stop demo --park-after 30m --release-after 24h",
		func(ctx context.Context, api *client.Client, id ids.Cluster) error {
			rule := autoStop(park, release)
			if (rule == nil) != off {
				return fail(exitUsage, "give --park-after and --release-after, or --off")
			}
			if rule == nil {
				rule = &apiv1.AutoStop{}
			}
			var cluster apiv1.Cluster
			if err := api.Do(ctx, http.MethodPut, "/v1/clusters/"+id.String()+"/auto-stop", nil, nil, rule, &cluster); err != nil {
				return err
			}
			return a.printCluster(cluster)
		})
	cmd.Long = "Idle is a cluster without a running job, a busy task or an open session. First its GPU nodes are released and billing stops, while the\n" +
		"head stays: `muster cluster resume` brings the nodes back. Later the cluster is released. A stage that is left out is off."
	cmd.Flags().DurationVar(&park, "park-after", 0, "idle this long, release the GPU nodes and keep the head")
	cmd.Flags().DurationVar(&release, "release-after", 0, "parked this long, release the cluster")
	cmd.Flags().BoolVar(&off, "off", false, "never stop it")
	cmd.MarkFlagsMutuallyExclusive("off", "park-after")
	cmd.MarkFlagsMutuallyExclusive("off", "release-after")
	return cmd
}

func (a *App) clusterResume() *cobra.Command {
	var wait bool
	var timeout time.Duration
	cmd := a.clusterCommand("resume", "Bring the nodes of a parked cluster back", "muster cluster resume demo --wait",
		func(ctx context.Context, api *client.Client, id ids.Cluster) error {
			var cluster apiv1.Cluster
			err := api.Post(ctx, "/v1/clusters/"+id.String()+"/resume", nil, &cluster)
			if err == nil && wait {
				cluster, err = a.waitForCluster(ctx, api, id, stateReady, timeout)
			}
			if err != nil {
				return err
			}
			return a.printCluster(cluster)
		})
	cmd.Flags().BoolVarP(&wait, "wait", "w", false, "wait until it is ready")
	cmd.Flags().DurationVar(&timeout, "timeout", readyTimeout, "how long to wait; 0: as long as it takes")
	return cmd
}

func (a *App) runway() *cobra.Command {
	return &cobra.Command{
		Use: "runway", Short: "Show what clusters cost per hour, when they stop and how long the balance lasts", Example: "muster runway", Args: cobra.NoArgs,
		GroupID: groupCustomer,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var runway apiv1.Runway
			if err := api.Get(cmd.Context(), "/v1/wallet/runway", nil, &runway); err != nil {
				return err
			}
			return a.printRunway(runway)
		},
	}
}

func (a *App) printRunway(r apiv1.Runway) error {
	printer := a.printer()
	rows := make([][]output.Cell, len(r.Clusters))
	for i, c := range r.Clusters {
		rows[i] = []output.Cell{
			output.Text(first(c.Name, c.ClusterID.String())), output.State(c.State), output.Text(output.Money(c.PerHour)), output.Text(output.Money(c.HoldLeft)),
			output.Text(nextStop(printer, c)), output.Text(c.ClusterID.String()),
		}
	}
	left := ""
	if r.HoursLeft != nil {
		left = output.Duration(time.Duration(*r.HoursLeft*float64(time.Hour))) + " at this rate, beyond what is set aside"
	}
	return printer.Print(r, []string{output.Amount(r.BurnPerHour)}, func(p *output.Page) {
		facts := []output.Fact{
			{Label: "Spent per hour now", Value: output.Cell{Text: output.Money(r.BurnPerHour), Tone: output.Bold}},
			{Label: "Set aside, not spent", Value: output.Text(output.Money(r.HoldLeft))},
			{Label: "Available", Value: output.Text(output.Money(r.Available))},
			{Label: "That lasts", Value: output.Text(left)},
		}
		for _, warning := range r.Warnings {
			facts = append(facts, output.Fact{Label: "Warning", Value: output.Cell{Text: warning, Tone: output.Bad}})
		}
		p.Facts(facts...)
		if len(rows) == 0 {
			return
		}
		p.Title("Clusters")
		p.Table([]output.Column{
			{Head: "NAME", Shrink: true}, {Head: "STATE"}, {Head: "PER HOUR", Right: true}, {Head: "BACK IF RELEASED", Right: true}, {Head: "NEXT"}, {Head: "ID", Wide: true},
		}, rows)
	})
}

// nextStop is what comes first of a cluster's ends.
func nextStop(printer output.Printer, c apiv1.RunwayCluster) string {
	type end struct {
		at   *time.Time
		verb string
	}
	ends := slices.DeleteFunc([]end{{c.ParksAt, "parked"}, {c.ReleasesAt, "released"}, {c.StopsAt, "stops"}}, func(e end) bool { return e.at == nil })
	if len(ends) == 0 {
		return "-"
	}
	soonest := slices.MinFunc(ends, func(a, b end) int { return a.at.Compare(*b.at) })
	text := soonest.verb + " " + printer.When(soonest.at)
	if soonest.verb == "parked" {
		text += " if idle"
	}
	return text
}

func (a *App) market() *cobra.Command {
	return noun("market", groupCustomer, "How prices and use of GPUs went", a.marketHistory())
}

// historyPoints is how many steps are asked for: as many as a line of the terminal shows.
const historyPoints = 60

func (a *App) marketHistory() *cobra.Command {
	var region, from, to string
	var step time.Duration
	cmd := &cobra.Command{
		Use: "history GPU", Short: "Show how a GPU model's price and use went", Example: "muster market history H100 --region eu-north --from -7d", Args: cobra.ExactArgs(1),
		Long:              "Draws the cheapest and the median price of free GPUs, and how many are leased. -o wide lists the points.",
		ValidArgsFunction: a.completeModels(),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			query, err := historyQuery(arguments[0], region, from, to, step, a.Now())
			if err != nil {
				return err
			}
			api, err := a.public()
			if err != nil {
				return err
			}
			var history apiv1.MarketHistory
			if err := api.Get(cmd.Context(), "/v1/market/history", query, &history); err != nil {
				return err
			}
			return a.printHistory(history)
		},
	}
	cmd.Flags().StringVar(&region, "region", "", "only this region")
	cmd.Flags().StringVar(&from, "from", "-24h", "the beginning: -7d, -24h, or a time such as 2026-11-20")
	cmd.Flags().StringVar(&to, "to", "", "the end (default: now)")
	cmd.Flags().DurationVar(&step, "step", 0, "how far apart the points are (default: what fits a line)")
	_ = cmd.RegisterFlagCompletionFunc("region", a.completeRegions())
	return cmd
}

func historyQuery(model, region, from, to string, step time.Duration, now time.Time) (url.Values, error) {
	begin, err := past(from, now)
	if err != nil {
		return nil, fail(exitUsage, "--from %w", err)
	}
	end := now.UTC()
	if to != "" {
		if end, err = past(to, now); err != nil {
			return nil, fail(exitUsage, "--to %w", err)
		}
	}
	if !begin.Before(end) {
		return nil, fail(exitUsage, "--from %s is not before the end", from)
	}
	if step == 0 {
		step = max(end.Sub(begin)/historyPoints, time.Minute).Truncate(time.Minute)
	}
	query := url.Values{
		"gpu_model": {model}, "from": {begin.Format(time.RFC3339)}, "to": {end.Format(time.RFC3339)}, "step": {step.String()},
	}
	if region != "" {
		query.Set("region", region)
	}
	return query, nil
}

// past reads a time, or how long ago it is: -7d, -24h.
func past(text string, now time.Time) (time.Time, error) {
	if back, found := strings.CutPrefix(text, "-"); found {
		if days, isDays := strings.CutSuffix(back, "d"); isDays {
			if n, err := strconv.Atoi(days); err == nil {
				return now.UTC().AddDate(0, 0, -n), nil
			}
		}
		if d, err := time.ParseDuration(back); err == nil {
			return now.UTC().Add(-d), nil
		}
	}
	return moment(text, now)
}

func (a *App) printHistory(h apiv1.MarketHistory) error {
	where := first(h.Region, "all regions")
	rows := make([][]output.Cell, len(h.Points))
	names := make([]string, len(h.Points))
	for i, point := range h.Points {
		names[i] = output.Time(&point.At)
		rows[i] = []output.Cell{
			output.Text(names[i]), output.Textf("%d of %d", point.Leased, point.GPUs), output.Text(percent(point.UtilisationPercent)),
			output.Text(first(output.OptionalMoney(point.PriceMin), "-")), output.Text(first(output.OptionalMoney(point.PriceMedian), "-")),
		}
	}
	printer := a.printer()
	return printer.Print(h, names, func(p *output.Page) {
		if len(h.Points) == 0 {
			a.say("There are no samples of %s in %s in that time: `muster offer ls` lists what there is.", h.GPUModel, where)
			return
		}
		p.Line("%s in %s, %s to %s, a point each %s", h.GPUModel, where, output.Time(&h.From), output.Time(&h.To), output.Duration(time.Duration(h.StepMS)*time.Millisecond))
		p.Line("")
		curves(p, h.Points)
		if printer.Format == output.Wide {
			p.Line("")
			p.Table([]output.Column{
				{Head: "AT"}, {Head: "LEASED", Right: true}, {Head: "IN USE", Right: true}, {Head: "CHEAPEST", Right: true}, {Head: "MEDIAN", Right: true},
			}, rows)
		}
	})
}
