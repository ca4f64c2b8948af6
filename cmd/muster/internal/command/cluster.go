package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

// A cluster's states that matter here.
const (
	stateReady    = "ready"
	stateReleased = "released"
	stateFailed   = "failed"
	stateSettled  = "settled" // ours: ended, and every token accounted for
)

const (
	readyTimeout   = 15 * time.Minute
	eventsPageSize = 200
)

func (a *App) cluster() *cobra.Command {
	cmd := noun("cluster", groupCustomer, "Book and use Ray clusters",
		a.clusterUp(), a.clusterLs(), a.clusterGet(), a.clusterWait(), a.clusterEnv(), a.clusterEvents(), a.clusterCost(), a.clusterExtend(),
		a.clusterAddNodes(), a.clusterRemoveNode(), a.clusterAutoStop(), a.clusterResume(), a.clusterDown())
	cmd.Aliases = []string{"clusters"}
	return cmd
}

// clusterCommand is a command on one cluster, found before act is called.
func (a *App) clusterCommand(use, short, example string, act func(context.Context, *client.Client, ids.Cluster) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " CLUSTER", Short: short, Example: example, Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeClusters(0),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			id, err := a.clusterID(cmd.Context(), api, arguments[0])
			if err != nil {
				return err
			}
			return act(cmd.Context(), api, id)
		},
	}
}

func (a *App) clusterLs() *cobra.Command {
	var all bool
	var state string
	cmd := &cobra.Command{
		Use: "ls", Short: "List clusters that have not ended", Example: "muster cluster ls --all", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			query := url.Values{}
			if state != "" {
				query.Set("state", state)
			} else if !all {
				query.Set("state", liveState)
			}
			clusters, err := list[apiv1.Cluster](cmd.Context(), api, "/v1/clusters", query)
			if err != nil {
				return err
			}
			return a.printClusters(clusters)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that have ended")
	cmd.Flags().StringVar(&state, "state", "", "only those in this state")
	return cmd
}

func (a *App) printClusters(clusters []apiv1.Cluster) error {
	printer := a.printer()
	rows := make([][]output.Cell, len(clusters))
	for i, c := range clusters {
		rows[i] = []output.Cell{
			output.Text(c.Name), output.State(c.State), output.Text(shape(c)), output.Text(printer.Age(c.CreatedAt)), output.Text(c.ID.String()),
			output.Text(c.RayVersion), output.Text(yesNo(c.Billing)), output.Text(output.Time(c.ReadyAt)), output.Text(first(firstLine(c.EndReason), "-")),
		}
	}
	return printer.Print(clusters, namesOf(clusters, clusterKey), func(p *output.Page) {
		if len(clusters) == 0 {
			a.say("There is no such cluster: `muster cluster up` books one, `muster cluster ls --all` lists those that have ended.")
			return
		}
		p.Table([]output.Column{
			{Head: "NAME", Shrink: true},
			{Head: "STATE"},
			{Head: "GPUS"},
			{Head: "AGE", Right: true},
			{Head: "ID"},
			{Head: "RAY", Wide: true},
			{Head: "BILLING", Wide: true},
			{Head: "READY AT", Wide: true},
			{Head: "ENDED BECAUSE", Wide: true, Shrink: true},
		}, rows)
	})
}

func namesOf[T any](items []T, name func(T) string) []string {
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = name(item)
	}
	return names
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// shape writes 2 x 4 H100.
func shape(c apiv1.Cluster) string {
	return fmt.Sprintf("%d x %d %s", c.NodeCount, c.GPUsPerNode, c.GPUModel)
}

func (a *App) clusterGet() *cobra.Command {
	return a.clusterCommand("get", "Show a cluster: nodes, assembly, cost", "muster cluster get demo",
		func(ctx context.Context, api *client.Client, id ids.Cluster) error {
			cluster, err := getCluster(ctx, api, id)
			if err != nil {
				return err
			}
			return a.printCluster(cluster)
		})
}

func getCluster(ctx context.Context, api *client.Client, id ids.Cluster) (apiv1.Cluster, error) {
	var cluster apiv1.Cluster
	err := api.Get(ctx, "/v1/clusters/"+id.String(), nil, &cluster)
	return cluster, err
}

func (a *App) printCluster(c apiv1.Cluster) error {
	printer := a.printer()
	created := c.CreatedAt
	return printer.Print(c, []string{c.ID.String()}, func(p *output.Page) {
		p.Facts(
			output.Fact{Label: "Name", Value: output.Text(c.Name)}, output.Fact{Label: "Id", Value: output.Text(c.ID.String())},
			output.Fact{Label: "State", Value: output.State(c.State)}, output.Fact{Label: "GPUs", Value: output.Text(shape(c) + simulated(c.Simulated))},
			output.Fact{Label: "Ray", Value: output.Text(c.RayVersion)},
			output.Fact{Label: "Created", Value: output.Text(printer.When(&created))}, output.Fact{Label: "Ready", Value: output.Text(printer.When(c.ReadyAt))},
			output.Fact{Label: "Booked until", Value: output.Text(printer.When(c.EndsAt))},
			output.Fact{Label: "Preempted", Value: output.Cell{Text: printer.When(c.PreemptAt), Tone: output.Bad}},
			output.Fact{Label: "Auto-stop", Value: output.Text(autoStopText(c))}, output.Fact{Label: "Will be parked", Value: output.Text(ifIdle(printer.When(c.ParksAt)))},
			output.Fact{Label: "Will be released", Value: output.Text(printer.When(c.ReleasesAt))}, output.Fact{Label: "Ended", Value: output.Text(printer.When(c.EndedAt))},
			output.Fact{Label: "Because", Value: output.Text(a.brief(ended(c)))}, output.Fact{Label: "Settled", Value: output.Text(printer.When(c.SettledAt))},
			output.Fact{Label: "Replaced nodes", Value: output.Text(positive(c.Replacements))},
			output.Fact{Label: "Booking", Value: output.Text(c.BookingID.String()), Wide: true},
		)
		if len(c.Nodes) > 0 {
			p.Title("Nodes")
			p.Table(nodeColumns, a.nodeRows(c.Nodes))
		}
		if len(c.Phases) > 0 {
			p.Title("Assembly")
			phaseTable(p, c.Phases, printer.Now)
		}
		if c.Cost != nil {
			p.Title("Cost")
			p.Facts(costFacts(*c.Cost)...)
		}
		if c.Receipt != nil {
			made := c.Receipt.MadeAt
			p.Title("Delivery receipt")
			p.Facts(output.Fact{Label: "Made", Value: output.Text(printer.When(&made))}, output.Fact{Label: "SHA-256", Value: output.Text(c.Receipt.SHA256)})
		}
	})
}

func autoStopText(c apiv1.Cluster) string {
	var stages []string
	if c.AutoStop.ParkAfter != "" {
		stages = append(stages, "parked after "+c.AutoStop.ParkAfter+" idle")
	}
	if c.AutoStop.ReleaseAfter != "" {
		stages = append(stages, "released after "+c.AutoStop.ReleaseAfter+" parked")
	}
	return strings.Join(stages, ", ")
}

func ifIdle(when string) string {
	if when == "" {
		return ""
	}
	return when + " if it stays idle"
}

func simulated(is bool) string {
	if is {
		return " (simulated)"
	}
	return ""
}

func ended(c apiv1.Cluster) string {
	if c.FaultParty == "" || c.FaultParty == "customer" {
		return c.EndReason
	}
	return fmt.Sprintf("On account of: %s. %s", c.FaultParty, c.EndReason)
}

// brief is the first line of what may be many; -o wide shows all.
func (a *App) brief(text string) string {
	if a.printer().Format == output.Wide {
		return text
	}
	return firstLine(text)
}

func firstLine(text string) string {
	line, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if rest != "" {
		line += " ..."
	}
	return line
}

func positive(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// roleGPU is the role of the nodes that have GPUs.
const roleGPU = "gpu"

var nodeColumns = []output.Column{
	{Head: "ROLE"},
	{Head: "STATE"},
	{Head: "GPUS", Right: true},
	{Head: "REGION"},
	{Head: "PER GPU-HOUR", Right: true},
	{Head: "NODE"},
	{Head: "HOST", Wide: true},
	{Head: "ADDRESS", Wide: true},
	{Head: "REASON", Shrink: true},
}

func (a *App) nodeRows(nodes []apiv1.Node) [][]output.Cell {
	rows := make([][]output.Cell, len(nodes))
	for i, n := range nodes {
		role := n.Role
		if role == roleGPU {
			role = roleGPU + " " + strconv.Itoa(n.Ordinal)
		}
		rows[i] = []output.Cell{
			output.Text(role), output.State(n.State), output.Text(strconv.Itoa(n.GPUs)), output.Text(n.Region),
			output.Text(first(output.OptionalMoney(n.PricePerGPUHour), "-")), output.Text(n.ID.String()), output.Text(n.HostID.String()),
			output.Text(n.Address), output.Text(a.brief(n.Reason)),
		}
	}
	return rows
}

func phaseTable(p *output.Page, phases []apiv1.Phase, now time.Time) {
	rows := make([][]output.Cell, len(phases))
	for i, phase := range phases {
		took := lasted(phase, now)
		if phase.State == stateReleased || phase.State == stateFailed {
			took = ""
		}
		state := output.State(phase.State)
		if i < len(phases)-1 {
			state.Tone = output.Plain
		}
		rows[i] = []output.Cell{state, output.Text(took), output.Text(output.Time(&phase.EnteredAt))}
	}
	p.Table([]output.Column{{Head: "STATE"}, {Head: "FOR", Right: true}, {Head: "SINCE"}}, rows)
}

func lasted(phase apiv1.Phase, now time.Time) string {
	if phase.DurationMS != nil {
		return output.Duration(time.Duration(*phase.DurationMS) * time.Millisecond)
	}
	return output.Duration(now.Sub(phase.EnteredAt))
}

func costFacts(c apiv1.ClusterCost) []output.Fact {
	billed := fmt.Sprintf("%s of %s", output.Duration(time.Duration(c.BilledMS)*time.Millisecond), output.Duration(time.Duration(c.DurationMS)*time.Millisecond))
	refund := output.Fact{Label: "Returned if released now", Value: output.Text(output.Money(c.RefundNow))}
	if output.IsZero(c.RefundNow) {
		refund.Value = output.Cell{}
	}
	return []output.Fact{
		{Label: "Set aside", Value: output.Text(output.Money(c.Hold))},
		{Label: "Charged so far", Value: output.Cell{Text: output.Money(c.Charged), Tone: output.Bold}},
		{Label: "Per hour now", Value: output.Text(output.Money(c.PerHour))},
		{Label: "Billed time", Value: output.Text(billed)},
		refund,
		{Label: "Returned", Value: output.Text(output.Money(c.Refunded))},
	}
}

func (a *App) clusterCost() *cobra.Command {
	return a.clusterCommand("cost", "Show what a cluster has cost so far and would give back", "muster cluster cost demo",
		func(ctx context.Context, api *client.Client, id ids.Cluster) error {
			var cost apiv1.ClusterCost
			if err := api.Get(ctx, "/v1/clusters/"+id.String()+"/cost", nil, &cost); err != nil {
				return err
			}
			return a.printer().Print(cost, []string{output.Amount(cost.Charged)}, func(p *output.Page) { p.Facts(costFacts(cost)...) })
		})
}

func (a *App) clusterWait() *cobra.Command {
	var state string
	var timeout time.Duration
	cmd := a.clusterCommand("wait", "Wait until a cluster is ready, released or settled", "muster cluster wait demo --for ready --timeout 10m",
		func(ctx context.Context, api *client.Client, id ids.Cluster) error {
			cluster, err := a.waitForCluster(ctx, api, id, state, timeout)
			if err != nil {
				return err
			}
			return a.printCluster(cluster)
		})
	cmd.Long = "Waits and shows the progress. Exits with 0 once the state is reached, 1 if it cannot be reached any more, 124 when the time is up.\n" +
		"settled: ended, and every token accounted for."
	cmd.Flags().StringVar(&state, "for", stateReady, "ready, released or settled")
	cmd.Flags().DurationVar(&timeout, "timeout", readyTimeout, "how long to wait; 0: as long as it takes")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{stateReady, stateReleased, stateSettled}, cobra.ShellCompDirectiveNoFileComp))
	act := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if !isOneOf(state, []string{stateReady, stateReleased, stateSettled}) {
			return usageError(cmd, "--for %s is not something to wait for: use ready, released or settled", state)
		}
		return act(cmd, arguments)
	}
	return cmd
}

// waitForCluster shows a cluster's progress until it has reached a state. Cancelling it leaves the cluster as it is.
func (a *App) waitForCluster(ctx context.Context, api *client.Client, id ids.Cluster, state string, timeout time.Duration) (apiv1.Cluster, error) {
	var cluster apiv1.Cluster
	view := a.newProgress()
	err := a.waitFor(ctx, timeout, func(ctx context.Context) (bool, error) {
		seen, err := getCluster(ctx, api, id)
		if err != nil {
			return false, err
		}
		cluster = seen
		view.show(cluster)
		return reached(cluster, state)
	})
	view.end()
	switch name := quote(first(cluster.Name, id.String())); {
	case errors.Is(err, context.Canceled):
		return cluster, fail(exitUsage, "detached: the cluster goes on. Come back with `muster cluster wait %s --for %s`, end it with `muster cluster down %s`", name, state, name)
	case errors.Is(err, errTimedOut):
		return cluster, fail(exitTimeout, "after %s the cluster is %s, not %s. It goes on: `muster cluster wait %s --for %s`",
			output.Duration(timeout), strings.ReplaceAll(cluster.State, "_", " "), state, name, state)
	}
	return cluster, err
}

func reached(c apiv1.Cluster, state string) (bool, error) {
	over := c.State == stateReleased || c.State == stateFailed
	switch {
	case state == stateReady && over:
		return false, fail(exitFailed, "the cluster ended before it was ready. %s\n`muster cluster get %s -o wide` tells all", firstLine(first(ended(c), c.State)), c.ID)
	case state == stateReleased:
		return over, nil
	case state == stateSettled:
		return c.SettledAt != nil, nil
	default:
		return c.State == state, nil
	}
}

func (a *App) clusterEnv() *cobra.Command {
	var format string
	cmd := a.clusterCommand("env", "Print the environment that opens a cluster to stock Ray", `eval "$(muster cluster env demo)" && ray job list`,
		func(ctx context.Context, api *client.Client, id ids.Cluster) error {
			token, err := rayToken(ctx, api, id)
			if err != nil {
				return err
			}
			if !a.printer().ForPeople() {
				return a.printer().Print(token, []string{token.Token}, nil)
			}
			text, err := environment(token.Env, format)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(a.Out, text)
			a.say("# Good for %s, until %s.", output.Duration(token.ExpiresAt.Sub(a.Now()).Round(time.Minute)), output.Time(&token.ExpiresAt))
			return err
		})
	cmd.Long = "Prints RAY_API_SERVER_ADDRESS, RAY_AUTH_MODE and RAY_AUTH_TOKEN for `ray job` and Ray's JobSubmissionClient. The token opens this\n" +
		"cluster only, for an hour; run the command again for a new one."
	cmd.Flags().StringVar(&format, "format", "sh", "sh, fish, powershell, dotenv or json")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"sh", "fish", "powershell", "dotenv", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func rayToken(ctx context.Context, api *client.Client, id ids.Cluster) (apiv1.RayToken, error) {
	var token apiv1.RayToken
	err := api.Post(ctx, "/v1/clusters/"+id.String()+"/ray-token", nil, &token)
	return token, err
}

// environment writes variables in a shell's words.
func environment(env map[string]string, format string) (string, error) {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value := env[name]
		switch format {
		case "sh":
			fmt.Fprintf(&text, "export %s=%s\n", name, quote(value))
		case "fish":
			fmt.Fprintf(&text, "set -gx %s '%s';\n", name, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value))
		case "powershell":
			fmt.Fprintf(&text, "$env:%s = '%s'\n", name, strings.ReplaceAll(value, "'", "''"))
		case "dotenv":
			fmt.Fprintf(&text, "%s=%s\n", name, value)
		case "json":
			encoded, err := json.MarshalIndent(env, "", "  ")
			return string(encoded) + "\n", err
		default:
			return "", fail(exitUsage, "--format %s is not known: use sh, fish, powershell, dotenv or json", format)
		}
	}
	return text.String(), nil
}

// quote makes one word of a POSIX shell out of any text.
func quote(text string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,"
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func (a *App) clusterEvents() *cobra.Command {
	var follow bool
	var since time.Duration
	cmd := a.clusterCommand("events", "Show what happened to a cluster, oldest first", "muster cluster events demo --follow",
		func(ctx context.Context, api *client.Client, id ids.Cluster) error {
			return a.showEvents(ctx, api, id, since, follow)
		})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the cluster has ended, or Ctrl-C")
	cmd.Flags().DurationVar(&since, "since", 0, "only what happened in this time, such as 30m")
	return cmd
}

func (a *App) showEvents(ctx context.Context, api *client.Client, id ids.Cluster, since time.Duration, follow bool) error {
	events, err := eventsAfter(ctx, api, id, 0)
	if err != nil {
		return err
	}
	last := lastSeq(events, 0)
	if since > 0 {
		events = slices.DeleteFunc(events, func(e apiv1.ClusterEvent) bool { return e.At.Before(a.Now().Add(-since)) })
	}
	if !follow {
		return a.printEvents(events, true)
	}
	if !a.printer().ForPeople() {
		return fail(exitUsage, "--follow writes for people only: leave out -o")
	}
	if err := a.printEvents(events, true); err != nil {
		return err
	}
	return a.waitFor(ctx, 0, func(ctx context.Context) (bool, error) {
		cluster, err := getCluster(ctx, api, id)
		if err != nil {
			return false, err
		}
		fresh, err := eventsAfter(ctx, api, id, last)
		if err != nil {
			return false, err
		}
		last = lastSeq(fresh, last)
		if err := a.printEvents(fresh, false); err != nil {
			return false, err
		}
		return cluster.SettledAt != nil && len(fresh) == 0, nil
	})
}

func lastSeq(events []apiv1.ClusterEvent, before int64) int64 {
	if len(events) == 0 {
		return before
	}
	return events[len(events)-1].Seq
}

func eventsAfter(ctx context.Context, api *client.Client, id ids.Cluster, after int64) ([]apiv1.ClusterEvent, error) {
	events := []apiv1.ClusterEvent{}
	for range maxPages {
		var page apiv1.List[apiv1.ClusterEvent]
		query := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {strconv.Itoa(eventsPageSize)}}
		if err := api.Get(ctx, "/v1/clusters/"+id.String()+"/events", query, &page); err != nil {
			return nil, err
		}
		events = append(events, page.Items...)
		if len(page.Items) < eventsPageSize {
			break
		}
		after = lastSeq(events, after)
	}
	return events, nil
}

func (a *App) printEvents(events []apiv1.ClusterEvent, withHead bool) error {
	rows := make([][]output.Cell, len(events))
	for i, e := range events {
		rows[i] = []output.Cell{output.Text(output.Time(&e.At)), output.Text(e.Kind), output.State(e.State), output.Text(a.brief(e.Message))}
	}
	names := namesOf(events, func(e apiv1.ClusterEvent) string { return strconv.FormatInt(e.Seq, 10) })
	return a.printer().Print(events, names, func(p *output.Page) {
		if withHead {
			p.Table([]output.Column{{Head: "AT"}, {Head: "KIND"}, {Head: "STATE"}, {Head: "WHAT"}}, rows)
			return
		}
		for _, row := range rows {
			p.Line("%s  %s", row[0].Text, row[3].Text)
		}
	})
}

func (a *App) clusterDown() *cobra.Command {
	var yes, wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "down CLUSTER...", Short: "Release clusters: what is left of the hold comes back", Example: "muster cluster down demo --yes",
		Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.completeClusters(-1),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			for _, argument := range arguments {
				id, err := a.clusterID(cmd.Context(), api, argument)
				if err != nil {
					return err
				}
				if err := a.release(cmd.Context(), api, id, yes, wait, timeout); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVarP(&wait, "wait", "w", false, "wait until it is settled")
	cmd.Flags().DurationVar(&timeout, "timeout", readyTimeout, "how long to wait; 0: as long as it takes")
	return cmd
}

func (a *App) release(ctx context.Context, api *client.Client, id ids.Cluster, yes, wait bool, timeout time.Duration) error {
	cluster, err := getCluster(ctx, api, id)
	if err != nil {
		return err
	}
	name := first(cluster.Name, id.String())
	if cluster.EndedAt != nil {
		a.say("%s has ended already.", name)
		return a.printer().Print(cluster, []string{id.String()}, func(*output.Page) {})
	}
	if cluster.Cost != nil {
		a.say("%s is %s: charged %s so far, %s comes back now.", name, strings.ReplaceAll(cluster.State, "_", " "),
			output.Money(cluster.Cost.Charged), output.Money(cluster.Cost.RefundNow))
	}
	if err := a.confirm(ctx, yes, "Release %s and end its jobs?", name); err != nil {
		return err
	}
	// Once agreed to, an interruption must not leave it open whether it happened.
	if err := api.Do(context.WithoutCancel(ctx), http.MethodPost, "/v1/clusters/"+id.String()+"/release", nil, nil, nil, &cluster); err != nil {
		return err
	}
	if !wait {
		a.say("%s is being released: `muster cluster wait %s --for settled` waits for the bill.", name, id)
		return a.printer().Print(cluster, []string{id.String()}, func(*output.Page) {})
	}
	if cluster, err = a.waitForCluster(ctx, api, id, stateSettled, timeout); err != nil {
		return err
	}
	return a.printCluster(cluster)
}
