package command

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	liveState   = "live"
	maxNamedIDs = 5
)

// pick finds what an argument names: an id, the beginning of exactly one, or a name. Of several with one name it takes the only
// one that is preferred; items come newest first, and if none is preferred the newest is taken. The listing is the command that
// shows what there is.
func pick[T any](kind, listing, argument string, items []T, id, name func(T) string, preferred func(T) bool) (T, error) {
	var none T
	var named, begun []T
	for _, item := range items {
		switch {
		case id(item) == argument:
			return item, nil
		case name(item) == argument && argument != "":
			named = append(named, item)
		case strings.HasPrefix(id(item), argument):
			begun = append(begun, item)
		}
	}
	if live := slices.DeleteFunc(slices.Clone(named), func(item T) bool { return !preferred(item) }); len(live) > 0 {
		named = live
	} else if len(named) > 1 {
		named = named[:1]
	}
	found := slices.Concat(named, begun)
	switch {
	case len(named) == 1:
		return named[0], nil
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0:
		return none, fail(exitFailed, "there is no %s %q: `muster %s` lists what there is", kind, argument, listing)
	}
	candidates := make([]string, 0, maxNamedIDs)
	for _, item := range found[:min(maxNamedIDs, len(found))] {
		candidates = append(candidates, strings.TrimRight("\n  "+id(item)+"  "+name(item), " "))
	}
	return none, fail(exitUsage, "%q names %d of them, be more precise:%s", argument, len(found), strings.Join(candidates, ""))
}

// clusterID finds the cluster that an argument names.
func (a *App) clusterID(ctx context.Context, api *client.Client, argument string) (ids.Cluster, error) {
	var id ids.Cluster
	if err := id.UnmarshalText([]byte(argument)); err == nil && !id.IsZero() {
		return id, nil
	}
	clusters, err := list[apiv1.Cluster](ctx, api, "/v1/clusters", url.Values{})
	if err != nil {
		return id, err
	}
	found, err := pick("cluster", "cluster ls", argument, clusters, clusterKey, clusterName, func(c apiv1.Cluster) bool { return c.EndedAt == nil })
	return found.ID, err
}

func clusterKey(c apiv1.Cluster) string  { return c.ID.String() }
func clusterName(c apiv1.Cluster) string { return c.Name }

// hostID finds the host that an argument names.
func (a *App) hostID(ctx context.Context, api *client.Client, argument string) (ids.Host, error) {
	var id ids.Host
	if err := id.UnmarshalText([]byte(argument)); err == nil && !id.IsZero() {
		return id, nil
	}
	hosts, err := list[apiv1.Host](ctx, api, "/v1/hosts", nil)
	if err != nil {
		return id, err
	}
	found, err := pick("node", "node ls", argument, hosts, hostKey, hostName, func(h apiv1.Host) bool { return h.State != "retired" })
	return found.ID, err
}

func hostKey(h apiv1.Host) string  { return h.ID.String() }
func hostName(h apiv1.Host) string { return h.Name }
