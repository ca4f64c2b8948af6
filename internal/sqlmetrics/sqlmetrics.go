// Package sqlmetrics makes Prometheus gauges of what the database knows.
//
// A Collector runs its queries when it is scraped, in one read-only transaction that is bounded in time, and answers scrapes that
// follow soon from memory. If a query fails, the gauges are left out of that scrape, and muster_database_gauges_up of the collector
// is 0: a scrape never fails and never shows old values as new.
//
// Gauges are of the whole deployment: every process that registers a collector shows the same, so aggregate with max, not sum.
package sqlmetrics

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	timeout  = 2 * time.Second
	freshFor = 5 * time.Second
	maxRows  = 64 // of one gauge: labels are of small, closed sets
)

// Gauge is a gauge and its query, whose columns are the labels' texts, in order, and then the value as a double.
type Gauge struct {
	Name   string
	Help   string
	Labels []string
	SQL    string
	Args   []any
}

// Collector implements prometheus.Collector. Make it with New; it is safe for concurrent use.
type Collector struct {
	pool   *pgxpool.Pool
	log    *slog.Logger
	gauges []Gauge
	descs  []*prometheus.Desc
	up     *prometheus.Desc
	now    func() time.Time

	mu     sync.Mutex // held during the queries, so that scrapes do not pile up on the database
	readAt time.Time
	read   []prometheus.Metric
}

// New makes a collector; name tells it from others.
func New(pool *pgxpool.Pool, log *slog.Logger, name string, gauges ...Gauge) *Collector {
	c := &Collector{
		pool: pool, log: log, gauges: gauges, now: time.Now,
		up: prometheus.NewDesc("muster_database_gauges_up", "Whether the gauges of a collector could be read from the database.", nil,
			prometheus.Labels{"collector": name}),
	}
	for _, g := range gauges {
		c.descs = append(c.descs, prometheus.NewDesc(g.Name, g.Help, g.Labels, nil))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range append(c.descs, c.up) {
		out <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	for _, metric := range c.metrics() {
		out <- metric
	}
}

func (c *Collector) metrics() []prometheus.Metric {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.read != nil && c.now().Sub(c.readAt) < freshFor {
		return c.read
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	metrics, err := c.query(ctx)
	up := 1.0
	if err != nil {
		c.log.WarnContext(ctx, "gauges not read from the database", "error", err)
		metrics, up = nil, 0
	}
	metrics = append(metrics, prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up))
	c.read, c.readAt = metrics, c.now()
	return c.read
}

func (c *Collector) query(ctx context.Context) ([]prometheus.Metric, error) {
	var metrics []prometheus.Metric
	err := pgx.BeginTxFunc(ctx, c.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		for i, gauge := range c.gauges {
			found, err := read(ctx, tx, gauge, c.descs[i])
			if err != nil {
				return fmt.Errorf("%s: %w", gauge.Name, err)
			}
			metrics = append(metrics, found...)
		}
		return nil
	})
	return metrics, err
}

func read(ctx context.Context, tx pgx.Tx, gauge Gauge, desc *prometheus.Desc) ([]prometheus.Metric, error) {
	rows, err := tx.Query(ctx, gauge.SQL, gauge.Args...)
	if err != nil {
		return nil, err
	}
	metrics, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (prometheus.Metric, error) {
		var value float64
		labels := make([]string, len(gauge.Labels))
		into := make([]any, 0, len(labels)+1)
		for i := range labels {
			into = append(into, &labels[i])
		}
		if err := row.Scan(append(into, &value)...); err != nil {
			return nil, err
		}
		return prometheus.NewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	})
	if err == nil && len(metrics) > maxRows {
		return nil, fmt.Errorf("%d rows are more than a gauge may have", len(metrics))
	}
	return metrics, err
}
