package rayproxy

import (
	"context"
	"sync"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

const (
	touchInterval = 30 * time.Second // a cluster in use is told of once in this time
	touchTimeout  = 5 * time.Second
)

// Sessions is told that somebody is using a cluster's Ray, so that it does not count as idle.
type Sessions interface {
	Touch(ctx context.Context, cluster ids.Cluster) error
}

// touches remembers which clusters were told of lately. It is safe for concurrent use.
type touches struct {
	mu   sync.Mutex
	last map[ids.Cluster]time.Time
}

// due reports whether a cluster is to be told of now, and takes it as told.
func (t *touches) due(cluster ids.Cluster, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.last[cluster]) < touchInterval {
		return false
	}
	for other, at := range t.last {
		if now.Sub(at) >= touchInterval {
			delete(t.last, other)
		}
	}
	t.last[cluster] = now
	return true
}

// touch tells of a session. It outlives the request, which may be shorter; what fails is tried again with the next one.
func (p *Proxy) touch(ctx context.Context, cluster ids.Cluster) {
	if !p.touched.due(cluster, time.Now()) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), touchTimeout)
	defer cancel()
	if err := p.options.Sessions.Touch(ctx, cluster); err != nil {
		p.options.Log.WarnContext(ctx, "session not noted", "cluster_id", cluster, "error", err)
	}
}
