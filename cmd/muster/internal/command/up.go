package command

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
	"github.com/muster-gpu/muster/internal/ids"
)

// bookingTries is how often a booking is asked for while the server cannot be reached: a quote is booked once, however often
// it is accepted.
const bookingTries = 3

type upFlags struct {
	specFlags
	detach, dryRun, yes, wait bool
	timeout                   time.Duration
}

func (a *App) clusterUp() *cobra.Command {
	var flags upFlags
	cmd := &cobra.Command{
		Use: "up", Short: "Book a cluster: shows the price, asks, and follows the assembly",
		Long: "Asks for a quote, shows what it costs, asks, books, and shows the assembly until the cluster is ready. Ctrl-C stops watching;\n" +
			"the cluster goes on. What is set aside is the most that it can cost; what is not used comes back.\n\n" +
			"Exits with 5 if nothing fits, 6 if the balance is too small, 124 if it is not ready in time.",
		Example: "muster cluster up --gpu H100 --nodes 2 --gpus-per-node 2 --for 1h --name demo", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.up(cmd.Context(), flags) },
	}
	flags.add(a, cmd)
	cmd.Flags().StringVar(&flags.spec.ClusterName, "name", "", "name of the cluster")
	cmd.Flags().BoolVarP(&flags.detach, "detach", "d", false, "do not wait until it is ready")
	cmd.Flags().BoolVarP(&flags.wait, "wait", "w", true, "wait until it is ready")
	cmd.Flags().DurationVar(&flags.timeout, "timeout", readyTimeout, "how long to wait; 0: as long as it takes")
	cmd.Flags().BoolVar(&flags.dryRun, "dry-run", false, "show the quote and book nothing")
	cmd.Flags().BoolVarP(&flags.yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *App) up(ctx context.Context, flags upFlags) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	var quote apiv1.Quote
	if err := api.Post(ctx, "/v1/quotes", flags.spec, &quote); err != nil {
		return err
	}
	if flags.dryRun {
		printer := a.printer()
		return printer.Print(quote, []string{quote.ID.String()}, func(p *output.Page) { quotePage(p, quote, printer.Now) })
	}
	printer := a.errPrinter()
	if err := printer.Print(nil, nil, func(p *output.Page) { quotePage(p, quote, printer.Now) }); err != nil {
		return err
	}
	if err := a.confirm(ctx, flags.yes, "Book it and set aside %s?", output.Money(quote.Hold)); err != nil {
		return err
	}
	id, err := a.book(ctx, api, quote)
	if err != nil {
		return err
	}
	if flags.detach || !flags.wait {
		return a.detached(ctx, api, id)
	}
	cluster, err := a.waitForCluster(ctx, api, id, stateReady, flags.timeout)
	if err != nil {
		return err
	}
	if err := a.printCluster(cluster); err != nil {
		return err
	}
	a.say("\nNext:\n  muster job submit %s --working-dir . --follow -- python job.py\n  eval \"$(muster cluster env %s)\"   # then `ray job submit` and the like\n  muster cluster down %s",
		cluster.Name, cluster.Name, cluster.Name)
	return nil
}

// book accepts a quote. An interruption does not cut it short, so that it is known whether there is a cluster.
func (a *App) book(ctx context.Context, api *client.Client, quote apiv1.Quote) (id ids.Cluster, err error) {
	ctx = context.WithoutCancel(ctx)
	var booking apiv1.Booking
	for range bookingTries {
		err = api.Do(ctx, http.MethodPost, "/v1/bookings", nil, http.Header{"Idempotency-Key": {quote.ID.String()}},
			apiv1.BookingCreate{QuoteID: quote.ID, ClusterName: quote.Spec.ClusterName}, &booking)
		if err == nil || !isPassing(err) {
			break
		}
		time.Sleep(a.Poll)
	}
	switch {
	case err != nil && isPassing(err):
		return id, fmt.Errorf("%w\nIt is not known whether the cluster was booked: see `muster cluster ls`", err)
	case err != nil:
		return id, err
	case booking.ClusterID == nil:
		return id, fail(exitFailed, "the booking was %s", booking.State)
	}
	a.say("Booked cluster %s.", booking.ClusterID)
	return *booking.ClusterID, nil
}

func (a *App) detached(ctx context.Context, api *client.Client, id ids.Cluster) error {
	cluster, err := getCluster(ctx, api, id)
	if err != nil {
		return err
	}
	a.say("It is being assembled: `muster cluster wait %s` waits until it is ready.", cluster.Name)
	return a.printer().Print(cluster, []string{id.String()}, func(p *output.Page) { p.Line("%s", id) })
}

func quotePage(p *output.Page, q apiv1.Quote, now time.Time) {
	rows := make([][]output.Cell, len(q.Lines))
	for i, line := range q.Lines {
		rows[i] = []output.Cell{
			output.Text(strconv.Itoa(i + 1)), output.Textf("%d %s", line.GPUs, line.GPUModel), output.Text(line.Region), output.Text(first(line.Site, "-")),
			output.Text(output.Money(line.PricePerGPUHour)), output.Text(line.HostID.String()),
		}
	}
	p.Table([]output.Column{
		{Head: "NODE", Right: true}, {Head: "GPUS"}, {Head: "REGION"}, {Head: "SITE"}, {Head: "PER GPU-HOUR", Right: true}, {Head: "HOST", Wide: true},
	}, rows)
	p.Line("")
	kind := ""
	if q.Simulated {
		kind = "Some of these devices are simulated."
	}
	p.Facts(
		output.Fact{Label: "Per hour", Value: output.Text(output.Money(q.PricePerHour) + ", everything included")},
		output.Fact{Label: "Set aside for " + q.Spec.Duration, Value: output.Cell{Text: output.Money(q.Hold), Tone: output.Bold}},
		output.Fact{Label: "  of it owners receive", Value: output.Text(output.Money(q.OwnersReceive))},
		output.Fact{Label: "  of it platform fee", Value: output.Text(output.Money(q.PlatformFee))},
		output.Fact{Label: "Back if released at half time", Value: output.Text(output.Money(q.RefundHalfway))},
		output.Fact{Label: "Your balance", Value: output.Text(output.Money(q.Available))},
		output.Fact{Label: "Price holds", Value: output.Textf("%s, until %s", output.Duration(q.ExpiresAt.Sub(now).Round(time.Second)), output.Time(&q.ExpiresAt))},
		output.Fact{Label: "Note", Value: output.Cell{Text: kind, Tone: output.Busy}},
	)
}
