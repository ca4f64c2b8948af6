package command

import (
	"context"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/cmd/muster/internal/output"
)

func (a *App) booking() *cobra.Command {
	ls := a.bookingLs()
	cmd := noun("booking", groupCustomer, "What you have booked: now, for later, by auction", ls, a.bookingGet(), a.bookingBids(), a.bookingCancel())
	cmd.Aliases = []string{"bookings"}
	return or(cmd, ls, func(arguments []string) bool { return len(arguments) == 0 })
}

func (a *App) bookingLs() *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use: "ls", Short: "List bookings, newest first", Example: "muster booking ls --state scheduled", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			query := url.Values{}
			if state != "" {
				query.Set("state", state)
			}
			bookings, err := list[apiv1.Booking](cmd.Context(), api, "/v1/bookings", query)
			if err != nil {
				return err
			}
			return a.printBookings(bookings)
		},
	}
	states := []string{bookingBidding, bookingQuoted, bookingScheduled, "accepted", "expired", "refused", "cancelled"}
	cmd.Flags().StringVar(&state, "state", "", "only those in this state, such as scheduled")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(states, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *App) printBookings(bookings []apiv1.Booking) error {
	printer := a.printer()
	rows := make([][]output.Cell, len(bookings))
	for i, b := range bookings {
		cluster, starts := "-", "at once"
		if b.ClusterID != nil {
			cluster = b.ClusterID.String()
		}
		switch {
		case b.StartsAt != nil:
			starts = output.Time(b.StartsAt)
		case b.BidsCloseAt != nil && b.State == bookingBidding:
			starts = "bids until " + output.Time(b.BidsCloseAt)
		}
		rows[i] = []output.Cell{
			output.Text(b.ID.String()), output.State(b.State), output.Text(what(b)), output.Text(bookedTime(b.Spec)), output.Text(starts),
			output.Text(output.Money(b.PricePerHour)), output.Text(output.Money(b.Hold)), output.Text(printer.Age(b.CreatedAt)),
			output.Text(b.Kind), output.Text(cluster), output.Text(a.brief(fault(b))),
		}
	}
	return printer.Print(bookings, namesOf(bookings, func(b apiv1.Booking) string { return b.ID.String() }), func(p *output.Page) {
		if len(bookings) == 0 {
			a.say("There is no such booking: `muster book` makes one.")
			return
		}
		p.Table([]output.Column{
			{Head: "ID"},
			{Head: "STATE"},
			{Head: "WHAT", Shrink: true},
			{Head: "FOR"},
			{Head: "STARTS"},
			{Head: "PER HOUR", Right: true},
			{Head: "SET ASIDE", Right: true},
			{Head: "AGE", Right: true},
			{Head: "KIND", Wide: true},
			{Head: "CLUSTER", Wide: true},
			{Head: "BECAUSE", Shrink: true},
		}, rows)
	})
}

// what writes 2 x 4 H100, +1 node or +6h.
func what(b apiv1.Booking) string {
	switch b.Purpose {
	case purposeExtension:
		return "more time"
	case purposeCluster:
		return fmt.Sprintf("%d x %d %s", b.Spec.NodeCount, b.Spec.GPUsPerNode, first(b.GPUModel, b.Spec.GPUModel, "GPUs"))
	default:
		return fmt.Sprintf("+%d x %d %s", b.Spec.NodeCount, b.Spec.GPUsPerNode, first(b.GPUModel, b.Spec.GPUModel))
	}
}

func fault(b apiv1.Booking) string {
	if b.Refusal == nil {
		return ""
	}
	return b.Refusal.Detail
}

// bookingCommand is a command on one booking.
func (a *App) bookingCommand(use, short, example string, act func(context.Context, *client.Client, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " BOOKING", Short: short, Example: example, Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeBookings(),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			api, err := a.client()
			if err != nil {
				return err
			}
			return act(cmd.Context(), api, arguments[0])
		},
	}
}

func (a *App) bookingGet() *cobra.Command {
	return a.bookingCommand("get", "Show a booking and what became of it", "muster booking get bk_01jd8xk4s3f5rtkq9m2v6w7x8y",
		func(ctx context.Context, api *client.Client, id string) error {
			var booking apiv1.Booking
			if err := api.Get(ctx, "/v1/bookings/"+id, nil, &booking); err != nil {
				return err
			}
			return a.printBooking(booking)
		})
}

func (a *App) printBooking(b apiv1.Booking) error {
	printer := a.printer()
	cluster := ""
	if b.ClusterID != nil {
		cluster = b.ClusterID.String()
	}
	created := b.CreatedAt
	return printer.Print(b, []string{b.ID.String()}, func(p *output.Page) {
		p.Facts(
			output.Fact{Label: "Booking", Value: output.Text(b.ID.String())}, output.Fact{Label: "State", Value: output.State(b.State)},
			output.Fact{Label: "Because", Value: output.Text(fault(b))}, output.Fact{Label: "What", Value: output.Text(what(b))},
			output.Fact{Label: "Kind", Value: output.Text(b.Kind)}, output.Fact{Label: "For", Value: output.Text(bookedTime(b.Spec))},
			output.Fact{Label: "Bids until", Value: output.Text(printer.When(b.BidsCloseAt))}, output.Fact{Label: "Starts", Value: output.Text(printer.When(b.StartsAt))},
			output.Fact{Label: "Per hour", Value: output.Text(output.Money(b.PricePerHour))}, output.Fact{Label: "Set aside", Value: output.Text(output.Money(b.Hold))},
			output.Fact{Label: "Cluster", Value: output.Text(cluster)}, output.Fact{Label: "Quoted", Value: output.Text(printer.When(&created))},
			output.Fact{Label: "Decided", Value: output.Text(printer.When(b.DecidedAt))},
		)
	})
}

func (a *App) bookingBids() *cobra.Command {
	return a.bookingCommand("bids", "Show the bids of an auction whose window has closed", "muster booking bids bk_01jd8xk4s3f5rtkq9m2v6w7x8y",
		func(ctx context.Context, api *client.Client, id string) error {
			bids, err := list[apiv1.Bid](ctx, api, "/v1/quotes/"+id+"/bids", nil)
			if err != nil {
				return err
			}
			return a.printBids(bids)
		})
}

func (a *App) printBids(bids []apiv1.Bid) error {
	rows := make([][]output.Cell, len(bids))
	for i, b := range bids {
		mark := ""
		if b.Quoted {
			mark = "in the quote"
		}
		rows[i] = []output.Cell{
			output.Text(b.ID.String()), output.Text(output.Money(b.PricePerGPUHour)), output.Text(b.Region), output.Text(first(b.Site, "-")), output.State(b.State),
			output.Text(b.HostID.String()), output.Text(b.OwnerID.String()),
			{Text: mark, Tone: output.Good},
		}
	}
	return a.printer().Print(bids, namesOf(bids, func(b apiv1.Bid) string { return b.ID.String() }), func(p *output.Page) {
		if len(bids) == 0 {
			a.say("Nobody bid.")
			return
		}
		p.Table([]output.Column{
			{Head: "BID"},
			{Head: "PER GPU-HOUR", Right: true},
			{Head: "REGION"},
			{Head: "SITE"},
			{Head: "STATE"},
			{Head: "HOST", Wide: true},
			{Head: "OWNER", Wide: true},
			{Head: ""},
		}, rows)
	})
}

func (a *App) bookingCancel() *cobra.Command {
	return a.bookingCommand("cancel", "Give up a booking that has not started, or an auction; what is set aside comes back", "muster booking cancel bk_01jd8xk4s3f5rtkq9m2v6w7x8y",
		func(ctx context.Context, api *client.Client, id string) error {
			var booking apiv1.Booking
			if err := api.Post(ctx, "/v1/bookings/"+id+"/cancel", nil, &booking); err != nil {
				return err
			}
			return a.printBooking(booking)
		})
}
