package market

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/muster-gpu/muster/scheduler/market/query"
	"github.com/muster-gpu/muster/scheduler/placement"
)

// names remembers which models and regions the fleet has had. A model that it does not know makes it look through the fleet once.
type names struct {
	mu      sync.Mutex
	models  map[string]string // the market's spelling by the lower-case one
	regions map[string]bool
}

// model returns the market's spelling of a model, or "" and all models that there are.
func (n *names) model(fleet Fleet, name string) (spelled string, all []string) {
	if name == "" {
		return "", nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	key := strings.ToLower(name)
	if n.models[key] == "" {
		n.learn(fleet)
	}
	if n.models[key] == "" {
		return "", slices.Sorted(maps.Values(n.models))
	}
	return n.models[key], nil
}

// within returns the regions that a name stands for, as it does in a query, in the order of their names; or all that there are.
func (n *names) within(fleet Fleet, name string) (regions []string, found bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.regions == nil {
		n.regions = make(map[string]bool)
	}
	fleet.Read(func(x *placement.Index) {
		for region := range x.Regions() {
			n.regions[region] = true
		}
	})
	all := slices.Sorted(maps.Keys(n.regions))
	regions = slices.DeleteFunc(slices.Clone(all), func(region string) bool { return !query.Within(region, name) })
	if len(regions) == 0 {
		return all, false
	}
	return regions, true
}

func (n *names) learn(fleet Fleet) {
	n.models = make(map[string]string)
	fleet.Read(func(x *placement.Index) {
		for h := range x.All() {
			if key := strings.ToLower(h.Model); n.models[key] == "" || h.Model < n.models[key] {
				n.models[key] = h.Model
			}
		}
	})
}
