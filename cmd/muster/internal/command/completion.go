package command

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
)

// completionBound is how long the shell waits for the server; then it completes nothing.
const completionBound = time.Second

type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

func (a *App) completeContexts(_ *cobra.Command, arguments []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(arguments) > 0 || a.load() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return beginning(a.file.Names(), begun), cobra.ShellCompDirectiveNoFileComp
}

func beginning(all []string, begun string) []string {
	return slices.DeleteFunc(all, func(text string) bool { return !strings.HasPrefix(text, begun) })
}

// completeFrom asks the server for what the argument at position could be.
func completeFrom[T any](a *App, position int, path func(arguments []string) string, describe func(T) []string) completer {
	return func(cmd *cobra.Command, arguments []string, begun string) ([]string, cobra.ShellCompDirective) {
		const nothing = cobra.ShellCompDirectiveNoFileComp
		if position >= 0 && len(arguments) != position || a.load() != nil {
			return nil, nothing
		}
		api, err := a.public()
		if err != nil {
			return nil, nothing
		}
		ctx, cancel := context.WithTimeout(commandContext(cmd), completionBound)
		defer cancel()
		return beginning(askFor(ctx, api, path(arguments), describe), begun), nothing
	}
}

func askFor[T any](ctx context.Context, api *client.Client, path string, describe func(T) []string) []string {
	var page apiv1.List[T]
	if path == "" || api.Get(ctx, path, nil, &page) != nil {
		return nil
	}
	var words []string
	for _, item := range page.Items {
		words = append(words, describe(item)...)
	}
	slices.Sort(words)
	return slices.Compact(words)
}

func commandContext(cmd *cobra.Command) context.Context {
	if ctx := cmd.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}

func always(path string) func([]string) string { return func([]string) string { return path } }

// completeClusters offers names, and ids of clusters without one.
func (a *App) completeClusters(position int) completer {
	return completeFrom(a, position, always("/v1/clusters"), func(c apiv1.Cluster) []string {
		return []string{first(c.Name, c.ID.String()) + "\t" + strings.ReplaceAll(c.State, "_", " ")}
	})
}

func (a *App) completeBookings() completer {
	return completeFrom(a, 0, always("/v1/bookings"), func(b apiv1.Booking) []string { return []string{b.ID.String() + "\t" + b.State} })
}

func (a *App) completeHosts(position int) completer {
	return completeFrom(a, position, always("/v1/hosts"), func(h apiv1.Host) []string {
		return []string{first(h.Name, h.ID.String()) + "\t" + h.State}
	})
}

// completeClusterJobs offers clusters, then the jobs of the one that was given.
func (a *App) completeClusterJobs(cmd *cobra.Command, arguments []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(arguments) == 0 {
		return a.completeClusters(0)(cmd, arguments, begun)
	}
	return completeFrom(a, 1, func(arguments []string) string {
		api, err := a.client()
		if err != nil {
			return ""
		}
		ctx, cancel := context.WithTimeout(commandContext(cmd), completionBound)
		defer cancel()
		id, err := a.clusterID(ctx, api, arguments[0])
		if err != nil {
			return ""
		}
		return "/v1/clusters/" + id.String() + "/jobs"
	}, func(j apiv1.Job) []string { return []string{j.ID + "\t" + strings.ToLower(j.Status)} })(cmd, arguments, begun)
}

func (a *App) completeModels() completer {
	return completeFrom(a, -1, always("/v1/offers"), func(o apiv1.Offer) []string { return []string{o.GPUModel} })
}

func (a *App) completeRegions() completer {
	return completeFrom(a, -1, always("/v1/offers"), func(o apiv1.Offer) []string { return []string{o.Region} })
}

func (a *App) completeBatches() completer {
	return completeFrom(a, 0, always("/v1/finance/batches"), func(b apiv1.Batch) []string { return []string{b.ID.String() + "\t" + b.State} })
}

func (a *App) completePayouts() completer {
	return completeFrom(a, 0, always("/v1/payouts"), func(p apiv1.Payout) []string { return []string{p.ID.String() + "\t" + p.State} })
}

func (a *App) completeReconciliations() completer {
	return completeFrom(a, 0, always("/v1/finance/reconciliations"), func(r apiv1.Reconciliation) []string {
		return []string{r.ID.String() + "\t" + r.State}
	})
}
