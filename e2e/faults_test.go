package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/ledger"
)

// kill ends a part of the stack with SIGKILL and waits until another has taken its place.
func kill(t *testing.T, part string) {
	t.Helper()
	before := shared.stack.Pid(part)
	if before == 0 {
		t.Fatalf("there is no part %s", part)
	}
	t.Logf("kill -9 %s (%d)", part, before)
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, settleBound, func() (bool, string) {
		now := shared.stack.Pid(part)
		return now != 0 && now != before, fmt.Sprintf("%s is not running again", part)
	})
}

// TestKillingEveryPartLosesNothing kills each part while a cluster runs and again while its owners are paid: the cluster goes on,
// the payout happens once, and the ledger balances.
func TestKillingEveryPartLosesNothing(t *testing.T) {
	cluster := book(t, 2, 1)
	for _, part := range []string{"musterd", "scheduler", "settlement", "fjord", "ridge", "head", "signer", "postgres", "localnet"} {
		kill(t, part)
		after := waitForCluster(t, cluster.ID, settleBound, func(c apiv1.Cluster) bool { return c.State == "ready" && c.Billing })
		if after.Replacements != 0 {
			t.Fatalf("killing %s cost a node", part)
		}
	}
	waitForHosts(t)
	// Metering goes on: heartbeats confirm time again, and settlement charges it.
	waitForCluster(t, cluster.ID, settleBound, func(c apiv1.Cluster) bool { return number(t, c.Cost.Charged) > 0 })
	released := release(t, cluster.ID)
	payEveryoneUnderFire(t)
	checkBooks(t)
	if charged := number(t, released.Cost.Charged); charged <= 0 || charged > number(t, released.Cost.Hold) {
		t.Errorf("charged %d of a hold of %d", charged, number(t, released.Cost.Hold))
	}
}

// waitForHosts waits until every agent is back.
func waitForHosts(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, settleBound, func() (bool, string) {
		var away int
		err := shared.stack.Pool().QueryRow(t.Context(), `SELECT count(*) FROM hosts WHERE NOT connected`).Scan(&away)
		return err == nil && away == 0, fmt.Sprintf("%d hosts are away, %v", away, err)
	})
}

// payEveryoneUnderFire drafts and approves all payouts and kills what works on them until they are final.
func payEveryoneUnderFire(t *testing.T) {
	t.Helper()
	finance := as(t, shared.stack.People().Finance)
	var drafts apiv1.List[apiv1.Batch]
	testkit.Eventually(t, settleBound, func() (bool, string) {
		err := finance.Post(t.Context(), "/v1/finance/batches", nil, &drafts)
		return err == nil, fmt.Sprint(err)
	})
	if len(drafts.Items) == 0 {
		t.Fatal("nothing was drafted")
	}
	for _, draft := range drafts.Items {
		path := "/v1/finance/batches/" + draft.ID.String()
		if err := finance.Post(t.Context(), path+"/approve", nil, nil); err != nil {
			t.Fatalf("approve: %v", err)
		}
		for _, part := range []string{"settlement", "signer", "postgres", "musterd"} {
			kill(t, part)
		}
		testkit.Eventually(t, settleBound, func() (bool, string) {
			var batch apiv1.Batch
			err := finance.Get(t.Context(), path, nil, &batch)
			return err == nil && batch.State == "finalized", fmt.Sprintf("batch is %s %s, %v", batch.State, batch.StateReason, err)
		})
	}
}

// checkBooks replays the ledger and compares it with the chain.
func checkBooks(t *testing.T) {
	t.Helper()
	book := ledger.New(shared.stack.Chain().Currency())
	if err := book.Check(t.Context(), shared.stack.Pool()); err != nil {
		t.Errorf("the ledger does not balance: %v", err)
	}
	finance := as(t, shared.stack.People().Finance)
	var run apiv1.Reconciliation
	testkit.Eventually(t, settleBound, func() (bool, string) {
		err := finance.Post(t.Context(), "/v1/finance/reconciliations", nil, &run)
		return err == nil, fmt.Sprint(err)
	})
	if run.State != "clean" || run.DifferenceCount != 0 {
		t.Errorf("reconciliation is %s with %d differences: %+v", run.State, run.DifferenceCount, run.Differences)
	}
}

func number(t *testing.T, amount apiv1.Money) int64 {
	t.Helper()
	n, err := strconv.ParseInt(amount.BaseUnits, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestADeadNodeIsReplaced kills a node's Ray; the cluster gets another host's and is not charged meanwhile.
func TestADeadNodeIsReplaced(t *testing.T) {
	cluster := book(t, 1, 1)
	var victim apiv1.Node
	for _, node := range cluster.Nodes {
		if node.Role == "gpu" {
			victim = node
		}
	}
	if killed := killProcessesOf(t, victim.ID); killed == 0 {
		t.Fatal("the node has no processes")
	}
	after := waitForCluster(t, cluster.ID, readyBound, func(c apiv1.Cluster) bool { return c.State == "ready" && c.Replacements == 1 })
	for _, node := range after.Nodes {
		if node.Role == "gpu" && node.State == "alive" && node.HostID == victim.HostID {
			t.Error("the replacement is on the host that failed")
		}
	}
	var degraded time.Duration
	for _, phase := range after.Phases {
		if phase.State == "degraded" && phase.DurationMS != nil {
			degraded = time.Duration(*phase.DurationMS) * time.Millisecond
		}
	}
	if degraded == 0 {
		t.Error("the timeline does not show the cluster degraded")
	}
	released := release(t, cluster.ID)
	life := released.EndedAt.Sub(*released.ReadyAt)
	if billed := time.Duration(released.Cost.BilledMS) * time.Millisecond; billed > life-degraded+time.Second {
		t.Errorf("billed %s of %s, of which it was degraded for %s", billed, life, degraded)
	}
}

// killProcessesOf kills everything that carries a node's id in its environment, as Ray's processes do.
func killProcessesOf(t *testing.T, node ids.Node) (killed int) {
	t.Helper()
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range environments {
		environment, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(environment, []byte("MUSTER_NODE_ID="+node.String())) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		if syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	return killed
}
