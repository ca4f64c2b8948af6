package devstack

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/muster-gpu/muster/api/client"
	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/proof"
	"github.com/muster-gpu/muster/worker/runtime/process"
)

const (
	tourNodes       = 2
	tourGPUsPerNode = 2
	wantedRatio     = 1.5
	readyBound      = 90 * time.Second
	jobBound        = 90 * time.Second
	releaseBound    = 60 * time.Second
	payoutBound     = 60 * time.Second
	jobSucceeded    = "SUCCEEDED"
)

//go:embed tourjob.py
var tourJob string

// TourResult is what happened on a tour. Amounts are base units.
type TourResult struct {
	BareRayReadySeconds float64  `json:"bare_ray_ready_s"` // the same Ray topology, started by hand
	ClusterReadySeconds float64  `json:"cluster_ready_s"`  // from the booking until the API says ready
	ReadyRatio          float64  `json:"ready_ratio"`
	JobStatus           string   `json:"job_status"`
	JobNodes            int      `json:"job_nodes"` // distinct nodes that the job's tasks ran on
	Charged             int64    `json:"charged_base_units"`
	OwnerPayable        int64    `json:"owner_payable_base_units"`
	Fee                 int64    `json:"fee_base_units"`
	Paid                int64    `json:"paid_base_units"` // read back from the chain
	PayoutSignatures    []string `json:"payout_signatures"`
	Differences         int      `json:"differences"`
	Verified            bool     `json:"verified"` // as by anybody, from the chain and the published manifests alone
	Seconds             float64  `json:"total_s"`
	OK                  bool     `json:"ok"`
}

func (r TourResult) ok() bool {
	return r.ReadyRatio > 0 && r.ReadyRatio <= wantedRatio && r.JobStatus == jobSucceeded && r.JobNodes == tourNodes &&
		r.Charged > 0 && r.Charged == r.OwnerPayable+r.Fee && r.Paid == r.OwnerPayable && len(r.PayoutSignatures) > 0 && r.Differences == 0 && r.Verified
}

// Tour starts a stack, walks through the whole loop on it as its three people would, and stops it.
func Tour(ctx context.Context, options Options, say func(format string, arguments ...any)) (result TourResult, err error) {
	began := time.Now()
	say("Starting the local stack")
	stack, err := Up(ctx, options)
	if err != nil {
		return TourResult{}, err
	}
	defer func() { err = errors.Join(err, stack.Stop()) }()
	t := &tour{Stack: stack, say: say}
	for _, step := range []func(context.Context) error{t.signIn, t.bare, t.book, t.compute, t.release, t.pay, t.reconcile, t.verify} {
		if err := step(ctx); err != nil {
			return t.result, fmt.Errorf("tour: %w (logs are in %s)", err, stack.path("logs"))
		}
	}
	t.result.Seconds = seconds(time.Since(began))
	t.result.OK = t.result.ok()
	return t.result, nil
}

type tour struct {
	*Stack
	say      func(string, ...any)
	engineer *client.Client
	finance  *client.Client
	cluster  apiv1.Cluster
	result   TourResult
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*100) / 100 }

func (t *tour) signIn(context.Context) (err error) {
	if t.engineer, err = t.Client(t.people.Engineer); err != nil {
		return err
	}
	t.finance, err = t.Client(t.people.Finance)
	return err
}

// bare measures what the cluster is compared with: the same nodes, started by hand on the same machine.
func (t *tour) bare(ctx context.Context) error {
	t.say("Starting the same Ray topology by hand, to compare with")
	ray, err := process.FindRay(t.options.RayVenv)
	if err != nil {
		return err
	}
	ready, err := process.Bare(ctx, process.BareOptions{Ray: ray, Nodes: tourNodes, GPUsPerNode: tourGPUsPerNode, FirstSlot: t.ports.slot + slotWindow/2})
	if err != nil {
		return fmt.Errorf("start Ray by hand: %w", err)
	}
	t.result.BareRayReadySeconds = seconds(ready)
	t.say("  ready after %.1f s", ready.Seconds())
	return nil
}

func (t *tour) book(ctx context.Context) error {
	var quote apiv1.Quote
	if err := t.engineer.Post(ctx, "/v1/quotes", apiv1.BookingSpec{
		GPUModel: "H100", NodeCount: tourNodes, GPUsPerNode: tourGPUsPerNode, Duration: "1h", ClusterName: "tour",
	}, &quote); err != nil {
		return fmt.Errorf("quote: %w", err)
	}
	t.say("Booking %d nodes with %d simulated H100 each for an hour: %s %s an hour, %s set aside",
		tourNodes, tourGPUsPerNode, quote.PricePerHour.Text, quote.PricePerHour.Currency, quote.Hold.Text)
	began := time.Now()
	var booking apiv1.Booking
	if err := t.engineer.Post(ctx, "/v1/bookings", apiv1.BookingCreate{QuoteID: quote.ID}, &booking); err != nil {
		return fmt.Errorf("book: %w", err)
	}
	if booking.ClusterID == nil {
		return fmt.Errorf("book: the booking is %s", booking.State)
	}
	t.cluster.ID = *booking.ClusterID
	if err := t.waitForState(ctx, "ready", readyBound); err != nil {
		return err
	}
	t.result.ClusterReadySeconds = seconds(time.Since(began))
	t.result.ReadyRatio = math.Round(t.result.ClusterReadySeconds/t.result.BareRayReadySeconds*1000) / 1000
	t.say("  cluster %s is ready after %.1f s: %.2f times as long as by hand", t.cluster.ID, t.result.ClusterReadySeconds, t.result.ReadyRatio)
	return nil
}

func (t *tour) waitForState(ctx context.Context, state string, bound time.Duration) error {
	return waitFor(ctx, "the cluster is not "+state, bound, func(ctx context.Context) error {
		if err := t.engineer.Get(ctx, "/v1/clusters/"+t.cluster.ID.String(), nil, &t.cluster); err != nil {
			return err
		}
		if t.cluster.State != state {
			return fmt.Errorf("it is %s %s", t.cluster.State, t.cluster.EndReason)
		}
		return nil
	})
}

// compute runs a job by Ray's own command line, through the API.
func (t *tour) compute(ctx context.Context) error {
	var token apiv1.RayToken
	if err := t.engineer.Post(ctx, "/v1/clusters/"+t.cluster.ID.String()+"/ray-token", nil, &token); err != nil {
		return fmt.Errorf("make a Ray token: %w", err)
	}
	directory, err := os.MkdirTemp("", "muster-tour-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(directory) }()
	if err := os.WriteFile(filepath.Join(directory, "job.py"), []byte(tourJob), 0o600); err != nil {
		return err
	}
	t.say("Running `ray job submit --working-dir . -- python job.py` on it")
	ctx, cancel := context.WithTimeout(ctx, jobBound)
	defer cancel()
	submit := exec.CommandContext(ctx, filepath.Join(t.options.RayVenv, "bin", "ray"), "job", "submit", "--working-dir", directory, "--", "python", "job.py")
	submit.Env = os.Environ()
	for name, value := range token.Env {
		submit.Env = append(submit.Env, name+"="+value)
	}
	output, err := submit.CombinedOutput()
	if err != nil {
		return fmt.Errorf("ray job submit: %w\n%s", err, output)
	}
	var jobs apiv1.List[apiv1.Job]
	if err := t.engineer.Get(ctx, "/v1/clusters/"+t.cluster.ID.String()+"/jobs", nil, &jobs); err != nil {
		return fmt.Errorf("list jobs: %w", err)
	}
	if len(jobs.Items) == 0 {
		return errors.New("the job is not listed")
	}
	t.result.JobStatus = jobs.Items[0].Status
	t.result.JobNodes, err = jobNodes(string(output))
	t.say("  the job %s on %d nodes", t.result.JobStatus, t.result.JobNodes)
	return err
}

// jobNodes reads the job's own line about the nodes that its tasks ran on.
func jobNodes(output string) (int, error) {
	for line := range strings.SplitSeq(output, "\n") {
		_, document, found := strings.Cut(line, "muster-tour ")
		if !found || !strings.HasPrefix(document, "{") {
			continue
		}
		var report struct {
			Nodes []string `json:"nodes"`
		}
		if err := json.Unmarshal([]byte(document), &report); err != nil {
			return 0, fmt.Errorf("read the job's report: %w", err)
		}
		return len(report.Nodes), nil
	}
	return 0, fmt.Errorf("the job reported nothing:\n%s", output)
}

func (t *tour) release(ctx context.Context) error {
	t.say("Releasing the cluster")
	if err := t.engineer.Post(ctx, "/v1/clusters/"+t.cluster.ID.String()+"/release", nil, nil); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	err := waitFor(ctx, "the cluster is not settled", releaseBound, func(ctx context.Context) error {
		if err := t.engineer.Get(ctx, "/v1/clusters/"+t.cluster.ID.String(), nil, &t.cluster); err != nil {
			return err
		}
		if t.cluster.SettledAt == nil {
			return fmt.Errorf("it is %s", t.cluster.State)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if t.result.Charged, err = strconv.ParseInt(t.cluster.Cost.Charged.BaseUnits, 10, 64); err != nil {
		return err
	}
	fee, err := ledger.New(t.chain.Currency()).Balance(ctx, t.pool, ledger.Platform(ledger.PlatformFees))
	t.result.Fee = int64(fee)
	t.say("  charged %s %s, %s returned", t.cluster.Cost.Charged.Text, t.cluster.Cost.Charged.Currency, t.cluster.Cost.Refunded.Text)
	return err
}

func (t *tour) pay(ctx context.Context) error {
	var payable apiv1.PayableSummary
	if err := t.finance.Get(ctx, "/v1/finance/payable", nil, &payable); err != nil {
		return fmt.Errorf("read what is payable: %w", err)
	}
	var err error
	if t.result.OwnerPayable, err = strconv.ParseInt(payable.Total.BaseUnits, 10, 64); err != nil {
		return err
	}
	t.say("Paying %s %s to %d owners on the chain", payable.Total.Text, payable.Total.Currency, len(payable.Payees))
	var drafts apiv1.List[apiv1.Batch]
	if err := t.finance.Post(ctx, "/v1/finance/batches", nil, &drafts); err != nil {
		return fmt.Errorf("draft payouts: %w", err)
	}
	for _, draft := range drafts.Items {
		if err := t.payBatch(ctx, draft.ID); err != nil {
			return err
		}
	}
	return t.readBack(ctx)
}

func (t *tour) payBatch(ctx context.Context, id ids.Batch) error {
	path := "/v1/finance/batches/" + id.String()
	if err := t.finance.Post(ctx, path+"/approve", nil, nil); err != nil {
		return fmt.Errorf("approve batch: %w", err)
	}
	var batch apiv1.Batch
	err := waitFor(ctx, "the batch is not final", payoutBound, func(ctx context.Context) error {
		if err := t.finance.Get(ctx, path, nil, &batch); err != nil {
			return err
		}
		if batch.State != "finalized" {
			return fmt.Errorf("it is %s %s", batch.State, batch.StateReason)
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.say("  final in transaction %s", batch.Signature)
	t.result.PayoutSignatures = append(t.result.PayoutSignatures, batch.Signature)
	return nil
}

// readBack asks the chain, not the ledger, what the owners' wallets hold: on a fresh stack exactly what they were paid.
func (t *tour) readBack(ctx context.Context) error {
	fjord, err := t.wallet("fjord")
	if err != nil {
		return err
	}
	for _, text := range []string{t.people.Owner.Address, fjord} {
		wallet, err := chain.ParseAddress(text)
		if err != nil {
			return err
		}
		account, err := chain.AssociatedTokenAccount(wallet, t.chain.Mint, chain.TokenProgram)
		if err != nil {
			return err
		}
		balance, err := t.chain.Client().TokenBalance(ctx, account, 0)
		if err != nil {
			return fmt.Errorf("read the owner's token account: %w", err)
		}
		t.result.Paid += int64(balance.Amount)
	}
	return nil
}

func (t *tour) reconcile(ctx context.Context) error {
	var run apiv1.Reconciliation
	if err := t.finance.Do(ctx, "POST", "/v1/finance/reconciliations", url.Values{}, nil, nil, &run); err != nil {
		return fmt.Errorf("reconcile: %w", err)
	}
	if run.State != "clean" && run.State != "differences" {
		return fmt.Errorf("reconcile: the run %s: %s", run.State, run.Reason)
	}
	t.result.Differences = run.DifferenceCount
	t.say("Reconciled ledger and chain: %d transfers match, %d differences", run.Matched, run.DifferenceCount)
	return nil
}

// verify checks the payouts as an outsider would.
func (t *tour) verify(ctx context.Context) error {
	place, err := proof.Connect(ctx, proof.Place{
		RPC: t.RPCURL(), Treasury: t.chain.TreasuryTokenAccount.String(), Manifests: t.ConsoleURL(), HTTP: http.DefaultClient,
	})
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	report, err := place.Verify(ctx, chain.Span{}, nil)
	if err = errors.Join(err, place.Close()); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	t.result.Verified = report.Verified
	if difference := report.Difference; difference != nil {
		t.say("Verified from chain and manifests: %s", difference.Text)
	} else {
		t.say("Verified from chain and manifests alone: %d batches of %d payouts, %d usage records", report.Batches, report.Payouts, report.Records)
	}
	return nil
}
