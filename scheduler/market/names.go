package market

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/muster-gpu/muster/scheduler/placement"
)

// names remembers which models and regions the fleet has had. A name that it does not know makes it look through the fleet once.
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

// region reports whether there is a region, or else which there are.
func (n *names) region(fleet Fleet, name string) (all []string, found bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.regions[name] {
		n.learn(fleet)
	}
	if !n.regions[name] {
		return slices.Sorted(maps.Keys(n.regions)), false
	}
	return nil, true
}

func (n *names) learn(fleet Fleet) {
	n.models, n.regions = make(map[string]string), make(map[string]bool)
	fleet.Read(func(x *placement.Index) {
		for h := range x.All() {
			n.regions[h.Region] = true
			if key := strings.ToLower(h.Model); n.models[key] == "" || h.Model < n.models[key] {
				n.models[key] = h.Model
			}
		}
	})
}
