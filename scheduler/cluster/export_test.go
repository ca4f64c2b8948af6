package cluster

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// Backdate makes a head's silence older than it is.
func (l *Lifecycle) Backdate(id ids.Cluster, by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if since, known := l.silent[id]; known {
		l.silent[id] = since.Add(-by)
	}
}
