// Command placement measures how long it takes to place a gang of 8 nodes with 8 GPUs each, within regions and under a price, on
// one fleet: in Muster's index, in kube-scheduler and in Nomad's batch scheduler, each in this process and alone in it while
// it is measured. It prints one logfmt line a figure, as DESIGN's benchmarks do, and talks on standard error.
//
//	go run ./placement    in bench/, or `make bench-placement`; the first build compiles both peers and takes minutes
//
// What makes the comparison fair, and where it leans:
//   - Every engine gets the same hosts and the same bookings, one at a time, and finds the same fleet for each. A booking's time
//     is that of deciding on all 8 nodes and holding their GPUs in the engine's own memory; nothing is written to a disk or
//     sent anywhere. Each decision is checked against the request.
//   - Peers do less: kube-scheduler's queue, permit and bind stages, Nomad's plan queue and both stores are left out, and so are
//     the pods and allocations that hold the GPUs which are not free.
//   - Peers answer another question: neither looks for the cheapest gang. Both run as they come (fewer hosts are looked at in a
//     large fleet), and once more as near to the cheapest as they can be told: kube-scheduler looking at all hosts, Nomad
//     with an affinity to low prices. markup says how much more their gangs cost than the cheapest ones.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/muster-gpu/muster/scheduler/placement"
	"github.com/muster-gpu/muster/scheduler/placement/placementtest"
)

const (
	kubeVersion  = "kube-scheduler-1.34.1"
	nomadVersion = "nomad-1.6.1"

	seed        = 4
	bookings    = 20_000 // of Muster; peers make the first of them
	minBookings = 5      // however long they take
	peerLimit   = 10 * time.Second
	scanLimit   = 5 * time.Second
)

// fleets are the sizes and the figure of each.
var fleets = []struct {
	hosts  int
	figure string
}{
	{5_000, "gang_5k_p99_us"},
	{100_000, "gang_p99_us"},
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "placement:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	largest := fleets[len(fleets)-1].hosts
	if _, err := fmt.Fprintf(out, "figure=index_mb value=%.1f unit=MB hosts=%d\n", indexMB(largest), largest); err != nil {
		return err
	}
	if err := compareChurn(out, placementtest.Fleet(seed, largest), placementtest.Bookings(seed, bookings)); err != nil {
		return err
	}
	for _, size := range fleets {
		fleet, requests := placementtest.Fleet(seed, size.hosts), placementtest.Bookings(seed, bookings)
		if err := compare(ctx, out, size.figure, fleet, requests); err != nil {
			return fmt.Errorf("%d hosts: %w", size.hosts, err)
		}
	}
	return nil
}

// compare prints Muster's figure beside each peer. Only one engine is in memory at a time.
func compare(ctx context.Context, out io.Writer, figure string, fleet []placement.Host, requests []placement.Request) error {
	ours, err := measure(newMuster(fleet), fleet, requests, peerLimit)
	if err != nil {
		return err
	}
	peers := []struct {
		limit time.Duration
		make  func(context.Context) (engine, error)
	}{
		{peerLimit, func(ctx context.Context) (engine, error) { return newKube(ctx, kubeVersion, fleet, 0) }},
		{peerLimit, func(ctx context.Context) (engine, error) {
			return newKube(ctx, kubeVersion+"-score-all", fleet, scoreAll)
		}},
		{peerLimit, func(context.Context) (engine, error) { return newNomad(nomadVersion, fleet, false) }},
		{peerLimit, func(context.Context) (engine, error) { return newNomad(nomadVersion+"-price-affinity", fleet, true) }},
		{scanLimit, func(context.Context) (engine, error) { return newScan(fleet), nil }},
	}
	for _, peer := range peers {
		name, theirs, err := measurePeer(ctx, peer.make, fleet, requests, peer.limit)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s hosts=%d bookings=%d p50=%.2f peer_bookings=%d peer_p50=%.2f peer_markup=%.1f%%\n",
			beside(figure, ours, name, theirs), len(fleet), len(ours.times), micros(ours.quantile(0.5)), len(theirs.times),
			micros(theirs.quantile(0.5)), 100*theirs.markup(ours)); err != nil {
			return err
		}
	}
	return nil
}

// measurePeer makes an engine, measures it and ends what it left running, so that the next one has the memory to itself.
func measurePeer(ctx context.Context, newEngine func(context.Context) (engine, error), fleet []placement.Host,
	requests []placement.Request, limit time.Duration,
) (string, result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e, err := newEngine(ctx)
	if err != nil {
		return "", result{}, err
	}
	fmt.Fprintf(os.Stderr, "placement: %s on %d hosts\n", e.name(), len(fleet))
	res, err := measure(e, fleet, requests, limit)
	return e.name(), res, err
}

func compareChurn(out io.Writer, fleet []placement.Host, requests []placement.Request) error {
	fmt.Fprintf(os.Stderr, "placement: on %d hosts that change\n", len(fleet))
	ours, rate, err := churn(indexMarket{newIndex(fleet)}, fleet, requests)
	if err != nil {
		return err
	}
	if want := churnShare * float64(len(fleet)); rate < churnWithin*want {
		return fmt.Errorf("only %.0f of %.0f hosts changed each second: the machine is too busy", rate, want)
	}
	theirs, theirRate, err := churn(newScan(fleet), fleet, requests)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s hosts=%d changes_per_s=%.0f bookings=%d p50=%.2f peer_p50=%.2f peer_changes_per_s=%.0f\n",
		beside("gang_churn_p99_us", ours, "linear-scan", theirs), len(fleet), rate, len(ours.times), micros(ours.quantile(0.5)),
		micros(theirs.quantile(0.5)), theirRate)
	return err
}

// beside is the part of a line that compares two p99.
func beside(figure string, ours result, peer string, theirs result) string {
	value, peerValue := micros(ours.quantile(0.99)), micros(theirs.quantile(0.99))
	return fmt.Sprintf("figure=%s value=%.2f unit=us peer=%s peer_value=%.2f ratio=%.4g", figure, value, peer, peerValue, peerValue/value)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// indexMB is what an index holds when the fleet that it was made from is gone, the hosts themselves included.
func indexMB(hosts int) float64 {
	before := heap()
	index := newIndex(placementtest.Fleet(seed, hosts))
	after := heap()
	runtime.KeepAlive(index)
	return float64(after-before) / 1e6
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers held
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
