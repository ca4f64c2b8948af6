package command

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
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

// States and purposes of a booking that matter here.
const (
	bookingBidding   = "bidding"
	bookingQuoted    = "quoted"
	bookingScheduled = "scheduled"
	purposeCluster   = "cluster"
	purposeExtension = "extension"
	chooseManual     = "manual"
)

// bidsGrace is how long after its window an auction may take to be priced.
const bidsGrace = 30 * time.Second

// acceptFlags say how a quote is accepted.
type acceptFlags struct {
	detach, dryRun, yes, wait bool
	timeout                   time.Duration
}

func (f *acceptFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&f.detach, "detach", "d", false, "do not wait until it is ready")
	cmd.Flags().BoolVarP(&f.wait, "wait", "w", true, "wait until it is ready")
	cmd.Flags().DurationVar(&f.timeout, "timeout", readyTimeout, "how long to wait; 0: as long as it takes")
	f.addPrice(cmd)
}

// addPrice adds those of a booking that nothing is waited for after.
func (f *acceptFlags) addPrice(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "show the quote and book nothing")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
}

type upFlags struct {
	specFlags
	acceptFlags
}

const upLong = "Asks for a quote, shows what it costs, asks, books, and shows the assembly until the cluster is ready. Ctrl-C stops watching;\n" +
	"the cluster goes on. What is set aside is the most that it can cost; what is not used comes back.\n\n" +
	"When nothing fits, the nearest clusters that do are listed, each with the command that books it.\n\n" +
	"Exits with 5 if nothing fits, 6 if the balance is too small, 124 if it is not ready in time."

func (a *App) clusterUp() *cobra.Command {
	var flags upFlags
	cmd := &cobra.Command{
		Use: "up", Short: "Book a cluster: shows the price, asks, and follows the assembly", Long: upLong,
		Example: "muster cluster up --gpu H100 --nodes 2 --gpus-per-node 2 --for 1h --name demo", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.up(cmd.Context(), &flags) },
	}
	flags.specFlags.add(a, cmd)
	flags.acceptFlags.add(cmd)
	cmd.Flags().StringVar(&flags.spec.ClusterName, "name", "", "name of the cluster")
	return cmd
}

func (a *App) book() *cobra.Command {
	var flags upFlags
	var quoteID string
	var bids []string
	cmd := &cobra.Command{
		Use: "book", Short: "Book a cluster, or a quote that you have", GroupID: groupCustomer,
		Long:    "With --quote it books what was quoted; without, it is `muster cluster up`.\n\n" + upLong,
		Example: "muster book --quote bk_01jd8xk4s3f5rtkq9m2v6w7x8y", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if quoteID == "" {
				return a.up(cmd.Context(), &flags)
			}
			api, err := a.client()
			if err != nil {
				return err
			}
			var quote apiv1.Quote
			if err := api.Get(cmd.Context(), "/v1/quotes/"+quoteID, nil, &quote); err != nil {
				return err
			}
			quote.Spec.ClusterName = first(flags.spec.ClusterName, quote.Spec.ClusterName)
			return a.settle(cmd.Context(), api, quote, bids, flags.acceptFlags)
		},
	}
	flags.specFlags.add(a, cmd)
	flags.acceptFlags.add(cmd)
	cmd.Flags().StringVar(&flags.spec.ClusterName, "name", "", "name of the cluster")
	cmd.Flags().StringVar(&quoteID, "quote", "", "the quote to book, from `muster quote` or a counter-offer")
	cmd.Flags().StringSliceVar(&bids, "bid", nil, "auction: take these bids, one a node")
	cmd.MarkFlagsMutuallyExclusive("quote", "gpu")
	return cmd
}

func (a *App) quote() *cobra.Command {
	var flags specFlags
	cmd := &cobra.Command{
		Use: "quote", Short: "Show what a cluster costs, and book nothing", GroupID: groupCustomer,
		Long: "The price holds for a minute: `muster book --quote` books it. When nothing fits, the nearest clusters that do are listed, each\n" +
			"with the command that books it. Exits with 5 if nothing fits.",
		Example: "muster quote --min-vram 80GB --nodes 2 --region eu-north --same-site --for 24h", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.up(cmd.Context(), &upFlags{flags, acceptFlags{dryRun: true}})
		},
	}
	flags.add(a, cmd)
	return cmd
}

func (a *App) up(ctx context.Context, flags *upFlags) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	spec, err := flags.readSpec(a.Now())
	if err != nil {
		return err
	}
	var quote apiv1.Quote
	if err := api.Post(ctx, "/v1/quotes", spec, &quote); err != nil {
		return err
	}
	return a.settle(ctx, api, quote, nil, flags.acceptFlags)
}

// settle takes a quote to its end: the bids of an auction come in, the price is shown and agreed to, the cluster is waited for.
func (a *App) settle(ctx context.Context, api *client.Client, quote apiv1.Quote, bids []string, flags acceptFlags) error {
	quote, err := a.afterBids(ctx, api, quote)
	if err != nil {
		return err
	}
	if quote.Spec.Choose == chooseManual && len(bids) == 0 {
		return a.chooseBids(ctx, api, quote)
	}
	if flags.dryRun {
		printer := a.printer()
		return printer.Print(quote, []string{quote.ID.String()}, func(p *output.Page) {
			quotePage(p, quote, printer.Now)
			a.say("Book it: muster book --quote %s", quote.ID)
		})
	}
	if len(bids) == 0 {
		printer := a.errPrinter()
		if err := printer.Print(nil, nil, func(p *output.Page) { quotePage(p, quote, printer.Now) }); err != nil {
			return err
		}
	}
	if err := a.confirm(ctx, flags.yes, "%s", bookQuestion(quote, bids)); err != nil {
		return err
	}
	booking, err := a.accept(ctx, api, quote, bids)
	if err != nil {
		return err
	}
	return a.booked(ctx, api, booking, flags)
}

func bookQuestion(q apiv1.Quote, bids []string) string {
	switch {
	case len(bids) > 0:
		return fmt.Sprintf("Book these %d bids and set their price aside?", len(bids))
	case q.Purpose == purposeExtension:
		return fmt.Sprintf("Extend it and set aside another %s?", output.Money(q.Hold))
	default:
		return fmt.Sprintf("Book it and set aside %s?", output.Money(q.Hold))
	}
}

// afterBids waits until an auction's window has closed and its bids are priced. Other quotes it returns as they are.
func (a *App) afterBids(ctx context.Context, api *client.Client, quote apiv1.Quote) (apiv1.Quote, error) {
	if quote.State == bookingBidding {
		a.say("Hosts are bidding until %s.", a.errPrinter().When(quote.BidsCloseAt))
		limit := bidsGrace
		if quote.BidsCloseAt != nil {
			limit += max(quote.BidsCloseAt.Sub(a.Now()), 0)
		}
		err := a.waitFor(ctx, limit, func(ctx context.Context) (bool, error) {
			err := api.Get(ctx, "/v1/quotes/"+quote.ID.String(), nil, &quote)
			return quote.State != bookingBidding, err
		})
		if err != nil {
			return quote, err
		}
		if quote.State == "expired" {
			return quote, fail(exitNoCapacity, "too few hosts bid: `muster offer why` with the same flags tells what blocks, without --auction hosts' prices count")
		}
	}
	if quote.State != bookingQuoted {
		return quote, fail(exitFailed, "the quote is %s: ask for a new one", quote.State)
	}
	return quote, nil
}

// chooseBids shows the bids of an auction, to be booked by hand. Programs get the quote, as of any other: `muster booking bids` has these.
func (a *App) chooseBids(ctx context.Context, api *client.Client, quote apiv1.Quote) error {
	if printer := a.printer(); !printer.ForPeople() {
		return printer.Print(quote, []string{quote.ID.String()}, nil)
	}
	all, err := list[apiv1.Bid](ctx, api, "/v1/quotes/"+quote.ID.String()+"/bids", nil)
	if err != nil {
		return err
	}
	if err := a.printBids(all); err != nil {
		return err
	}
	var cheapest []string
	for _, bid := range all {
		if bid.Quoted {
			cheapest = append(cheapest, bid.ID.String())
		}
	}
	a.say("Take %d of them until %s, here the cheapest:\n  muster book --quote %s --bid %s",
		quote.Spec.NodeCount, a.errPrinter().When(&quote.ExpiresAt), quote.ID, strings.Join(cheapest, ","))
	return nil
}

// accept books a quote. An interruption does not cut it short, so that it is known whether it is booked.
func (a *App) accept(ctx context.Context, api *client.Client, quote apiv1.Quote, bids []string) (booking apiv1.Booking, err error) {
	in := apiv1.BookingCreate{QuoteID: quote.ID, ClusterName: quote.Spec.ClusterName}
	for _, text := range bids {
		var bid ids.Bid
		if err := bid.UnmarshalText([]byte(text)); err != nil {
			return booking, fail(exitUsage, "--bid %s: %w", text, err)
		}
		in.BidIDs = append(in.BidIDs, bid)
	}
	ctx = context.WithoutCancel(ctx)
	for range bookingTries {
		err = api.Do(ctx, http.MethodPost, "/v1/bookings", nil, http.Header{"Idempotency-Key": {quote.ID.String()}}, in, &booking)
		if err == nil || !isPassing(err) {
			break
		}
		time.Sleep(a.Poll)
	}
	if err != nil && isPassing(err) {
		return booking, fmt.Errorf("%w\nIt is not known whether it was booked: see `muster booking ls`", err)
	}
	return booking, err
}

// booked tells what an accepted booking became, and follows a new cluster.
func (a *App) booked(ctx context.Context, api *client.Client, booking apiv1.Booking, flags acceptFlags) error {
	switch {
	case booking.State == bookingScheduled:
		a.say("Booked. It starts at %s, and the money is set aside: `muster booking ls` lists it, `muster booking cancel %s` gives it up.",
			a.errPrinter().When(booking.StartsAt), booking.ID)
		return a.printer().Print(booking, []string{booking.ID.String()}, func(p *output.Page) { p.Line("%s", booking.ID) })
	case booking.ClusterID == nil:
		return fail(exitFailed, "the booking is %s", booking.State)
	}
	id := *booking.ClusterID
	if booking.Purpose != purposeCluster && booking.Purpose != "" {
		return a.changed(ctx, api, id, booking)
	}
	a.say("Booked cluster %s.", id)
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
	if !cluster.RayReachable {
		a.say("\nIts hosts are simulated: it can be watched and released, but no Ray runs on it.")
		return nil
	}
	a.say("\nNext:\n  muster job submit %s --working-dir . --follow -- python job.py\n  eval \"$(muster cluster env %s)\"   # then `ray job submit` and the like\n  muster cluster down %s",
		quote(cluster.Name), quote(cluster.Name), quote(cluster.Name))
	return nil
}

// changed shows a cluster that has been extended or is getting more nodes.
func (a *App) changed(ctx context.Context, api *client.Client, id ids.Cluster, booking apiv1.Booking) error {
	cluster, err := getCluster(ctx, api, id)
	if err != nil {
		return err
	}
	name := first(cluster.Name, id.String())
	if booking.Purpose == purposeExtension {
		a.say("Extended %s.", name)
	} else {
		more := "1 more node joins"
		if n := booking.Spec.NodeCount; n != 1 {
			more = fmt.Sprintf("%d more nodes join", n)
		}
		a.say("%s %s: `muster cluster events %s --follow` shows it.", more, name, quote(name))
	}
	return a.printCluster(cluster)
}

func (a *App) detached(ctx context.Context, api *client.Client, id ids.Cluster) error {
	cluster, err := getCluster(ctx, api, id)
	if err != nil {
		return err
	}
	a.say("It is being assembled: `muster cluster wait %s` waits until it is ready.", quote(cluster.Name))
	return a.printer().Print(cluster, []string{id.String()}, func(p *output.Page) { p.Line("%s", id) })
}

func quotePage(p *output.Page, q apiv1.Quote, now time.Time) {
	if q.Purpose == purposeExtension {
		quoteFacts(p, q, now)
		return
	}
	rows := make([][]output.Cell, len(q.Lines))
	for i, line := range q.Lines {
		rows[i] = []output.Cell{
			output.Text(strconv.Itoa(i + 1)), output.Textf("%d %s", line.GPUs, line.GPUModel), output.Text(line.Region), output.Text(first(line.Site, "-")),
			output.Text(output.Money(line.PricePerGPUHour)), output.Text(output.Money(line.Amount)), output.Text(line.HostID.String()), output.Text(line.OwnerID.String()),
		}
	}
	p.Table([]output.Column{
		{Head: "NODE", Right: true},
		{Head: "GPUS"},
		{Head: "REGION"},
		{Head: "SITE"},
		{Head: "PER GPU-HOUR", Right: true},
		{Head: "FOR " + strings.ToUpper(bookedTime(q.Spec)), Right: true},
		{Head: "HOST", Wide: true},
		{Head: "OWNER", Wide: true},
	}, rows)
	p.Line("")
	quoteFacts(p, q, now)
}

func quoteFacts(p *output.Page, q apiv1.Quote, now time.Time) {
	facts := []output.Fact{
		{Label: "Per hour", Value: output.Text(output.Money(q.PricePerHour) + ", everything included")},
		{Label: "Set aside for " + bookedTime(q.Spec), Value: output.Cell{Text: output.Money(q.Hold), Tone: output.Bold}},
		{Label: "  of it owners receive", Value: output.Text(output.Money(q.OwnersReceive))},
		{Label: "  of it platform fee", Value: output.Text(output.Money(q.PlatformFee))},
		{Label: "Price", Value: output.Text(q.PriceNote)},
		{Label: "Saved by it", Value: output.Cell{Text: output.OptionalMoney(q.Saved), Tone: output.Good}},
		{Label: "Back if released at half time", Value: output.Text(output.Money(q.RefundHalfway))},
		{Label: "Farthest nodes", Value: output.Text(farthest(q))},
		{Label: "Starts", Value: output.Text(output.Time(q.StartsAt))},
		{Label: "Your balance", Value: output.Text(output.Money(q.Available))},
		{Label: "Price holds", Value: output.Textf("%s, until %s", output.Duration(q.ExpiresAt.Sub(now).Round(time.Second)), output.Time(&q.ExpiresAt))},
	}
	for _, note := range quoteNotes(q) {
		facts = append(facts, output.Fact{Label: "Note", Value: output.Cell{Text: note, Tone: output.Busy}})
	}
	p.Facts(facts...)
}

// bookedTime is a booking's length in people's precision.
func bookedTime(spec apiv1.BookingSpec) string {
	d, err := time.ParseDuration(spec.Duration)
	if err != nil {
		return spec.Duration
	}
	return output.Duration(d.Round(time.Second))
}

func farthest(q apiv1.Quote) string {
	switch {
	case q.WorstRTTMS == nil || len(q.Lines) < 2 || q.Purpose == purposeExtension:
		return ""
	case *q.WorstRTTMS == 0:
		return "on one site"
	default:
		return fmt.Sprintf("%s ms apart, at most", strconv.FormatFloat(*q.WorstRTTMS, 'f', -1, 64))
	}
}

func quoteNotes(q apiv1.Quote) []string {
	var notes []string
	if q.Preempts {
		notes = append(notes, "It takes GPUs from spot bookings, which have a minute to drain.")
	}
	if q.Simulated {
		notes = append(notes, "Some of these devices are simulated.")
	}
	return notes
}
