package command

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/internal/ids"
)

func (a *App) node() *cobra.Command {
	cmd := noun("node", groupOwner, "Your machines: join them, price them, see what they earn",
		a.nodeJoin(), a.nodeLs(), a.nodeWhy(), a.nodeEarningCheck(), a.nodePrice(), a.nodeAsk(),
		a.nodeSteer("drain", "Take no new clusters on a host; what runs goes on"), a.nodeSteer("undrain", "Take new clusters on a host again"),
		a.nodeMaintenance(), a.nodeRecheck(), a.nodeEarnings())
	cmd.Aliases = []string{"nodes", "host", "hosts"}
	return cmd
}

func (a *App) nodeJoin() *cobra.Command {
	var in apiv1.JoinTokenCreate
	cmd := &cobra.Command{
		Use: "join", Short: "Make a join token and print the command to run on the host",
		Long: "Makes a token that lets one host join once, and prints the command to run there. Whoever has the command can join a host to\n" +
			"your organisation until it expires.",
		Example: "muster node join --region eu-west --site oslo-1", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var token apiv1.JoinTokenCreated
			if err := api.Post(cmd.Context(), "/v1/join-tokens", in, &token); err != nil {
				return err
			}
			a.say("Run this on the host. It works once, until %s:", a.errPrinter().When(&token.ExpiresAt))
			return a.printer().Print(token, []string{token.ID.String()}, func(p *output.Page) { p.Line("%s", token.Command) })
		},
	}
	cmd.Flags().StringVar(&in.Region, "region", "", "where the host stands, such as eu-west")
	cmd.Flags().StringVar(&in.Site, "site", "", "data centre or room: nodes of one cluster prefer one site")
	cmd.Flags().StringVar(&in.Kind, "kind", "", "gpu, or head for operators of the platform (default: gpu)")
	_ = cmd.MarkFlagRequired("region")
	_ = cmd.RegisterFlagCompletionFunc("region", a.completeRegions())
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"gpu", "head"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *App) nodeLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List hosts: state, GPUs, price, and why one does not earn", Example: "muster node ls -o wide", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			hosts, err := list[apiv1.Host](cmd.Context(), api, "/v1/hosts", nil)
			if err != nil {
				return err
			}
			return a.printHosts(hosts)
		},
	}
}

func (a *App) printHosts(hosts []apiv1.Host) error {
	printer := a.printer()
	rows := make([][]output.Cell, len(hosts))
	for i, h := range hosts {
		seen := "-"
		if h.LastSeenAt != nil {
			seen = printer.Age(*h.LastSeenAt)
		}
		rows[i] = []output.Cell{
			output.Text(h.Name), output.State(h.State), output.Text(gpus(h)), output.Text(leased(h)), output.Text(price(h)), output.Text(h.Region),
			output.Text(first(h.Site, "-")), output.Text(h.ID.String()), output.Text(seen), output.Text(h.AgentVersion), output.Text(h.DriverVersion),
			output.Text(first(h.WhyNotEarning, "-")),
		}
	}
	return printer.Print(hosts, namesOf(hosts, hostKey), func(p *output.Page) {
		if len(hosts) == 0 {
			a.say("There is no host yet: `muster node join` brings one in.")
			return
		}
		p.Table([]output.Column{
			{Head: "NAME", Shrink: true},
			{Head: "STATE"},
			{Head: "GPUS"},
			{Head: "LEASED", Right: true},
			{Head: "PER GPU-HOUR", Right: true},
			{Head: "REGION"},
			{Head: "SITE", Wide: true},
			{Head: "ID", Wide: true},
			{Head: "SEEN", Right: true, Wide: true},
			{Head: "AGENT", Wide: true},
			{Head: "DRIVER", Wide: true},
			{Head: "WHY NOT EARNING", Shrink: true},
		}, rows)
	})
}

// gpus writes 4 H100, or 2 H100, 1 L40S.
func gpus(h apiv1.Host) string {
	if h.Kind == "head" {
		return "head"
	}
	counts := make(map[string]int)
	var models []string
	for _, g := range h.GPUs {
		if counts[g.Model]++; counts[g.Model] == 1 {
			models = append(models, g.Model)
		}
	}
	text := ""
	for i, model := range models {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%d %s", counts[model], model)
	}
	return first(text, "none")
}

func leased(h apiv1.Host) string {
	count := 0
	for _, g := range h.GPUs {
		if g.Leased {
			count++
		}
	}
	if len(h.GPUs) == 0 {
		return "-"
	}
	return strconv.Itoa(count)
}

func price(h apiv1.Host) string {
	switch {
	case h.Ask == nil:
		return "-"
	case !h.Ask.Active:
		return output.Money(h.Ask.PricePerGPUHour) + " (off)"
	default:
		return output.Money(h.Ask.PricePerGPUHour)
	}
}

// hostCommand is a command on one host, found before act is called.
func (a *App) hostCommand(use, short, example string, args cobra.PositionalArgs, act func(context.Context, *client.Client, ids.Host, []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, Args: args, ValidArgsFunction: a.completeHosts(0),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			id, err := a.hostID(cmd.Context(), api, arguments[0])
			if err != nil {
				return err
			}
			return act(cmd.Context(), api, id, arguments[1:])
		},
	}
}

func (a *App) nodeWhy() *cobra.Command {
	return a.hostCommand("why HOST", "Show a host, its GPUs and why it does not earn", "muster node why rack-7", cobra.ExactArgs(1),
		func(ctx context.Context, api *client.Client, id ids.Host, _ []string) error {
			var host apiv1.Host
			if err := api.Get(ctx, "/v1/hosts/"+id.String(), nil, &host); err != nil {
				return err
			}
			return a.printHost(host)
		})
}

func (a *App) printHost(h apiv1.Host) error {
	printer := a.printer()
	enrolled := h.EnrolledAt
	earning := output.Cell{Text: first(h.WhyNotEarning, "It earns now."), Tone: output.Bold}
	return printer.Print(h, []string{h.ID.String()}, func(p *output.Page) {
		p.Facts(
			output.Fact{Label: "Name", Value: output.Text(h.Name)}, output.Fact{Label: "Id", Value: output.Text(h.ID.String())},
			output.Fact{Label: "Earning", Value: earning}, output.Fact{Label: "State", Value: output.State(h.State)},
			output.Fact{Label: "Because", Value: output.Text(h.StateReason)}, output.Fact{Label: "Price per GPU-hour", Value: output.Text(price(h))},
			output.Fact{Label: "Connected", Value: output.Text(connected(h))}, output.Fact{Label: "Last seen", Value: output.Text(printer.When(h.LastSeenAt))},
			output.Fact{Label: "Region", Value: output.Text(h.Region)}, output.Fact{Label: "Site", Value: output.Text(h.Site)},
			output.Fact{Label: "Standing", Value: output.Textf("%s, reliable %s of the time", first(h.Tier, "new"), percent(h.ReliabilityPercent))},
			output.Fact{Label: "Maintenance", Value: output.Text(nextWindow(printer, h))},
			output.Fact{Label: "Joined", Value: output.Text(printer.When(&enrolled))},
			output.Fact{Label: "Agent", Value: output.Text(h.AgentVersion)}, output.Fact{Label: "Driver", Value: output.Text(driver(h))},
			output.Fact{Label: "Certificate until", Value: output.Text(printer.When(h.CertificateExpiresAt)), Wide: true},
		)
		gatesTable(p, printer, h.Gates)
		if len(h.GPUs) == 0 {
			return
		}
		rows := make([][]output.Cell, len(h.GPUs))
		for i, g := range h.GPUs {
			health := output.Cell{Text: "healthy", Tone: output.Good}
			if !g.Healthy {
				health = output.Cell{Text: first(g.HealthNote, "not healthy"), Tone: output.Bad}
			}
			rows[i] = []output.Cell{
				output.Text(g.Model), output.Text(g.Product), output.Text(memory(g.MemoryMiB)), health, output.Text(yesNo(g.Leased)), output.Text(g.UUID),
			}
		}
		p.Title("GPUs" + simulated(h.Simulated))
		p.Table([]output.Column{
			{Head: "MODEL"}, {Head: "PRODUCT"}, {Head: "MEMORY", Right: true}, {Head: "HEALTH"}, {Head: "LEASED"}, {Head: "UUID", Wide: true},
		}, rows)
	})
}

// connected says whether a host is heard of, and how far away it is.
func connected(h apiv1.Host) string {
	text := yesNo(h.Connected)
	if h.Liveness == "suspect" {
		text = "silent for longer than a beat"
	}
	if h.RTTMS != nil {
		text += fmt.Sprintf(", %s ms away", strconv.FormatFloat(*h.RTTMS, 'f', -1, 64))
	}
	return text
}

func nextWindow(printer output.Printer, h apiv1.Host) string {
	if len(h.Maintenance) == 0 {
		return ""
	}
	next := h.Maintenance[0]
	return fmt.Sprintf("%s, for %s", printer.When(&next.StartsAt), output.Duration(next.EndsAt.Sub(next.StartsAt)))
}

func gatesTable(p *output.Page, printer output.Printer, gates []apiv1.Gate) {
	if len(gates) == 0 {
		return
	}
	rows := make([][]output.Cell, len(gates))
	for i, g := range gates {
		rows[i] = []output.Cell{
			output.Text(g.Gate), output.State(g.State), output.Text(first(g.Measured, "-")), output.Text(first(g.Required, "-")), output.Text(printer.Age(g.Since)),
			output.Text(g.Fix),
		}
	}
	p.Title("Health gates")
	p.Table([]output.Column{
		{Head: "GATE"}, {Head: "RESULT"}, {Head: "MEASURED", Shrink: true}, {Head: "REQUIRED", Shrink: true}, {Head: "FOR", Right: true}, {Head: "WHAT TO DO", Shrink: true},
	}, rows)
}

func driver(h apiv1.Host) string {
	if h.DriverVersion == "" {
		return ""
	}
	return fmt.Sprintf("%s, CUDA %s", h.DriverVersion, first(h.CUDAVersion, "unknown"))
}

func (a *App) nodePrice() *cobra.Command {
	var off bool
	cmd := a.hostCommand("price HOST [TOKENS]", "Set what a GPU of a host costs per hour, and offer it", "muster node price rack-7 1.90", cobra.RangeArgs(1, 2),
		func(ctx context.Context, api *client.Client, id ids.Host, arguments []string) error {
			path := "/v1/hosts/" + id.String()
			var host apiv1.Host
			if err := api.Get(ctx, path, nil, &host); err != nil {
				return err
			}
			ask := askOf(host)
			ask.Active = !off
			if len(arguments) == 1 {
				ask.PricePerGPUHour = arguments[0]
			}
			if ask.PricePerGPUHour == "" {
				return fail(exitUsage, "the host has no price yet: give one, such as `muster node price %s 1.90`", host.Name)
			}
			if err := api.Do(ctx, http.MethodPut, path+"/ask", nil, nil, ask, &host); err != nil {
				return err
			}
			return a.printHosts([]apiv1.Host{host})
		})
	cmd.Long = "Sets the price per GPU-hour in tokens for bookings from now on; clusters that run keep theirs. Without TOKENS the price stays and\n" +
		"the offer is switched on, or off with --off. Floor and rules stay: `muster node ask` sets those."
	cmd.Flags().BoolVar(&off, "off", false, "keep the price and take no new clusters")
	return cmd
}

func (a *App) nodeSteer(verb, short string) *cobra.Command {
	return a.hostCommand(verb+" HOST", short, "muster node "+verb+" rack-7", cobra.ExactArgs(1),
		func(ctx context.Context, api *client.Client, id ids.Host, _ []string) error {
			var host apiv1.Host
			if err := api.Post(ctx, "/v1/hosts/"+id.String()+"/"+verb, nil, &host); err != nil {
				return err
			}
			return a.printHosts([]apiv1.Host{host})
		})
}

func (a *App) nodeEarnings() *cobra.Command {
	var days bool
	cmd := &cobra.Command{
		Use: "earnings", Short: "Show what your hosts have earned", Example: "muster node earnings --days", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			var earnings apiv1.Earnings
			if err := api.Get(cmd.Context(), "/v1/earnings", nil, &earnings); err != nil {
				return err
			}
			return a.printEarnings(earnings, days)
		},
	}
	cmd.Flags().BoolVar(&days, "days", false, "by day too")
	return cmd
}

func (a *App) printEarnings(e apiv1.Earnings, days bool) error {
	return a.printer().Print(e, []string{output.Amount(e.Payable)}, func(p *output.Page) {
		p.Facts(
			output.Fact{Label: "To be paid", Value: output.Cell{Text: output.Money(e.Payable), Tone: output.Bold}},
			output.Fact{Label: "On its way", Value: output.Text(output.Money(e.InFlight))}, output.Fact{Label: "Paid", Value: output.Text(output.Money(e.Paid))},
		)
		if len(e.Hosts) > 0 {
			rows := make([][]output.Cell, len(e.Hosts))
			for i, h := range e.Hosts {
				rows[i] = []output.Cell{output.Text(h.Name), output.Text(output.Money(h.Earned)), output.Text(h.GPUHours), output.Text(h.HostID.String())}
			}
			p.Title("By host")
			p.Table([]output.Column{{Head: "HOST"}, {Head: "EARNED", Right: true}, {Head: "GPU-HOURS", Right: true}, {Head: "ID", Wide: true}}, rows)
		}
		if days && len(e.Days) > 0 {
			rows := make([][]output.Cell, len(e.Days))
			for i, d := range e.Days {
				rows[i] = []output.Cell{output.Text(d.Day), output.Text(output.Money(d.Earned)), output.Text(output.Money(d.Paid))}
			}
			p.Title("By day (UTC)")
			p.Table([]output.Column{{Head: "DAY"}, {Head: "EARNED", Right: true}, {Head: "PAID", Right: true}}, rows)
		}
	})
}
