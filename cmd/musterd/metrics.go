package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-gpu/muster/internal/leader"
	"github.com/muster-gpu/muster/scheduler/applier"
	"github.com/muster-gpu/muster/scheduler/cluster"
	schedulermetrics "github.com/muster-gpu/muster/scheduler/metrics"
	settlementmetrics "github.com/muster-gpu/muster/settlement/metrics"
)

// showShared registers the metrics of what every process has: the API's settles, polls and asks the chain too, when somebody
// wants to see the newest.
func (p *plane) showShared() {
	p.show(p.meter.Collectors(), p.deposits.Collectors(), p.chain.Collectors())
	p.registry.MustRegister(leader.Metrics(p.pool, holder(), p.log))
}

func (p *plane) showScheduler(clusters *applier.Applier, life *cluster.Lifecycle) {
	p.show(clusters.Collectors(), life.Collectors())
	p.registry.MustRegister(schedulermetrics.New(p.pool, p.log))
}

func (p *plane) showSettlement() { p.registry.MustRegister(settlementmetrics.New(p.pool, p.log)) }

func (p *plane) show(groups ...[]prometheus.Collector) {
	for _, group := range groups {
		p.registry.MustRegister(group...)
	}
}
