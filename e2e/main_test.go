// Package e2e tests Muster from the outside: one local stack of real parts, driven through its API, its command line, stock Ray and
// a browser, with parts of it killed on the way.
//
// The stack is started once for the package, on free ports and in a temporary folder. Tests that kill parts run alone (they do
// not call t.Parallel), so that they disturb nobody.
package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/devstack"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
)

const (
	readyBound  = 3 * time.Minute // under the race detector's and other tests' load
	settleBound = 2 * time.Minute
	pollEvery   = 200 * time.Millisecond
)

// shared is the package's stack.
var shared struct {
	stack *devstack.Stack
	venv  string
	root  string
	bin   string
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "muster-e2e-")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := up(dir); err != nil {
		return fail(err)
	}
	status := m.Run()
	if err := shared.stack.Stop(); err != nil {
		return fail(err)
	}
	return status
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

// up builds the programs of this tree and starts the stack with them.
func up(dir string) (err error) {
	if shared.root, err = testkit.RepositoryRoot(); err != nil {
		return err
	}
	shared.bin = filepath.Join(dir, "bin")
	build := exec.Command("go", "build", "-o", shared.bin+string(filepath.Separator), "./cmd/musterd", "./cmd/muster-worker")
	build.Dir = shared.root
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, output)
	}
	shared.venv = filepath.Join(shared.root, ".cache", "ray")
	if _, err := os.Stat(filepath.Join(shared.venv, "bin", "ray")); err != nil {
		return fmt.Errorf("Ray is missing, run make setup: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	shared.stack, err = devstack.Up(ctx, devstack.Options{
		Root: shared.root, Dir: filepath.Join(dir, "stack"), Musterd: filepath.Join(shared.bin, "musterd"),
		Worker: filepath.Join(shared.bin, "muster-worker"), RayVenv: shared.venv, Cache: filepath.Join(shared.root, ".cache"),
		Split: true,
		Log:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	return err
}

// Stack returns the shared stack.
func Stack(t *testing.T) *devstack.Stack {
	t.Helper()
	return shared.stack
}

// as calls the API as a person of the stack.
func as(t *testing.T, person devstack.Person) *client.Client {
	t.Helper()
	c, err := shared.stack.Client(person)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// book books a cluster of simulated H100s and waits until it is ready.
func book(t *testing.T, nodes, gpusPerNode int) apiv1.Cluster {
	t.Helper()
	engineer := as(t, shared.stack.People().Engineer)
	var quote apiv1.Quote
	if err := engineer.Post(t.Context(), "/v1/quotes", apiv1.BookingSpec{
		GPUModel: "H100", NodeCount: nodes, GPUsPerNode: gpusPerNode, Duration: "1h", ClusterName: t.Name(),
	}, &quote); err != nil {
		t.Fatalf("quote: %v", err)
	}
	var booking apiv1.Booking
	if err := engineer.Post(t.Context(), "/v1/bookings", apiv1.BookingCreate{QuoteID: quote.ID}, &booking); err != nil {
		t.Fatalf("book: %v", err)
	}
	return waitForCluster(t, *booking.ClusterID, readyBound, func(c apiv1.Cluster) bool { return c.State == "ready" })
}

// waitForCluster polls a cluster until it is as wanted. The API may be away meanwhile.
func waitForCluster(t *testing.T, id ids.Cluster, bound time.Duration, wanted func(apiv1.Cluster) bool) apiv1.Cluster {
	t.Helper()
	engineer := as(t, shared.stack.People().Engineer)
	var cluster apiv1.Cluster
	// A customer's pace: the API counts requests.
	pace := time.NewTicker(pollEvery)
	defer pace.Stop()
	testkit.Eventually(t, bound, func() (bool, string) {
		<-pace.C
		var now apiv1.Cluster
		if err := engineer.Get(t.Context(), "/v1/clusters/"+id.String(), nil, &now); err != nil {
			return false, err.Error()
		}
		cluster = now
		if !wanted(now) && now.EndedAt != nil && now.SettledAt != nil {
			t.Fatalf("cluster %s has ended: %s: %s%s", id, now.State, now.EndReason, timeline(t, now))
		}
		return wanted(now), fmt.Sprintf("cluster %s is %s %s", id, now.State, now.EndReason)
	})
	return cluster
}

// release ends a cluster and waits until it is settled.
func release(t *testing.T, id ids.Cluster) apiv1.Cluster {
	t.Helper()
	engineer := as(t, shared.stack.People().Engineer)
	testkit.Eventually(t, settleBound, func() (bool, string) {
		err := engineer.Post(t.Context(), "/v1/clusters/"+id.String()+"/release", nil, nil)
		return err == nil, fmt.Sprint(err)
	})
	return waitForCluster(t, id, settleBound, func(c apiv1.Cluster) bool { return c.SettledAt != nil })
}

// timeline is a cluster's events and nodes as text, for failure messages.
func timeline(t *testing.T, cluster apiv1.Cluster) (text string) {
	t.Helper()
	var events apiv1.List[apiv1.ClusterEvent]
	path := "/v1/clusters/" + cluster.ID.String() + "/events"
	if err := as(t, shared.stack.People().Engineer).Get(t.Context(), path, nil, &events); err != nil {
		return err.Error()
	}
	for _, e := range events.Items {
		text += fmt.Sprintf("\n  %s %s", e.At.Format(time.TimeOnly), e.Message)
	}
	for _, n := range cluster.Nodes {
		text += fmt.Sprintf("\n  node %d %s %s: %s", n.Ordinal, n.Role, n.State, n.Reason)
	}
	return text
}
