package manifests_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/localchain"
	"github.com/muster-gpu/muster/settlement/localchain/localchaintest"
	"github.com/muster-gpu/muster/settlement/payouts"
	"github.com/muster-gpu/muster/settlement/proof"
	"github.com/muster-gpu/muster/settlement/proof/manifests"
	"github.com/muster-gpu/muster/settlement/signer"
)

func TestMain(m *testing.M) { localchaintest.Main(m) }

const (
	patience = 60 * time.Second
	term     = 7
)

// published is a service as a source of manifests, with the API left out.
type published struct{ *manifests.Service }

func (p published) Manifest(ctx context.Context, batch ids.Batch) (*proof.Published, error) {
	found, err := p.Published(ctx, batch)
	if errs.CodeOf(err) == errs.NotFound {
		return nil, proof.ErrNoManifest
	}
	return found, err
}

func (p published) List(ctx context.Context, visit func(proof.Summary) error) error {
	var after ids.Batch
	for {
		page, err := p.Service.List(ctx, manifests.Span{}, after, 2)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, summary := range page {
			if err := visit(summary); err != nil {
				return err
			}
		}
		after = page[len(page)-1].Batch
	}
}

// platform is a bench whose payouts are made on a real chain by a real signer.
type platform struct {
	*bench
	local   *localchain.Chain
	payouts *payouts.Service
	drafter ids.User
}

func newPlatform(t *testing.T) *platform {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	dir := t.TempDir()
	files := signer.Options{
		Socket: filepath.Join(dir, "s"), KeyFile: filepath.Join(dir, "key"), JournalDir: filepath.Join(dir, "journal"), PolicyFile: filepath.Join(dir, "policy"), Log: log,
	}
	treasury, err := signer.Init(files.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	p := &platform{local: localchaintest.New(t, treasury, 1_000_000_000), drafter: ids.New[ids.User]()}
	genesis, err := p.local.Client().GenesisHash(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.bench = newBenchOf(t, p.local.Currency(), manifests.Config{
		Network: genesis.String(), Mint: p.local.Mint.String(), Treasury: p.local.TreasuryTokenAccount.String(),
	})
	p.check(p.local.Policy().WriteFile(files.PolicyFile))
	p.background(func(ctx context.Context, ready func()) error {
		files.Ready = ready
		return signer.Serve(ctx, files)
	})
	keys := signer.NewClient(files.Socket)
	t.Cleanup(keys.Close)
	p.exec(`INSERT INTO users (id, wallet_address) VALUES ($1, 'drafter')`, p.drafter)
	p.exec(`INSERT INTO leadership (role, holder, term, expires_at) VALUES ('settlement', 'test', $1, 'infinity')`, term)
	p.exec(`UPDATE organisations SET payout_address = $2 WHERE id = $1`, p.owner, p.local.Owner.Address.String())
	p.exec(`UPDATE organisations SET payout_address = $2 WHERE id = $1`, p.customer, p.local.Engineer.Address.String())
	p.payouts = payouts.New(p.pool, p.book, p.local.Client(), keys, payouts.Options{
		Minimum: 1, Poll: 20 * time.Millisecond, Rebroadcast: 200 * time.Millisecond, Retry: 50 * time.Millisecond, Manifests: p.Service, Log: log,
	})
	p.background(func(ctx context.Context, ready func()) error {
		ready()
		return p.payouts.Run(ctx, term)
	})
	return p
}

// background runs a part until the test ends.
func (p *platform) background(run func(ctx context.Context, ready func()) error) {
	p.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.Context()))
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		p.Fatal(err)
	}
	p.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			p.Error(err)
		}
	})
}

// pay drafts what is payable, approves it and waits until it is final.
func (p *platform) pay() []ids.Batch {
	p.Helper()
	batches, err := p.payouts.Draft(p.Context(), p.drafter)
	p.check(err)
	for _, id := range batches {
		p.check(p.payouts.Approve(p.Context(), id, p.user))
		testkit.Eventually(p, patience, func() (bool, string) {
			batch, err := p.payouts.Batch(p.Context(), id)
			p.check(err)
			return batch.State == "finalized", "the batch is " + batch.State + ": " + batch.StateReason + batch.Attention
		})
	}
	return batches
}

func (p *platform) verify() proof.Report {
	p.Helper()
	report, err := proof.Verify(p.Context(), p.local.Client(), published{p.Service}, proof.Options{Treasury: p.local.TreasuryTokenAccount})
	p.check(err)
	return report
}

// TestAnHonestPlatformIsVerified: usage is charged, owners and a customer are paid by the signer on the chain, a draft is dropped, and
// whoever looks finds every token explained.
func TestAnHonestPlatformIsVerified(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	one, two := p.lease(), p.lease()
	p.used(one, 30*time.Minute)
	first := p.pay()
	p.used(two, 45*time.Minute)
	dropped, err := p.payouts.Draft(t.Context(), p.drafter)
	p.check(err)
	p.check(p.payouts.Cancel(t.Context(), dropped[0], p.user, "a test"))
	p.used(one, 50*time.Minute)
	p.post("correction", "correction", "A degraded quarter", ledger.Leg{
		Debit: ledger.Of(ledger.OwnerPayable, p.owner), Credit: ledger.Platform(ledger.PlatformCapital), Amount: 1_234,
	})
	_, err = p.payouts.Withdraw(t.Context(), p.customer, p.user, 5_000_000, p.local.Engineer.Address.String())
	p.check(err)
	second := p.pay()

	report := p.verify()
	if !report.Verified {
		t.Fatalf("the honest run does not pass: %+v", report.Difference)
	}
	due := money.Amount(0)
	for _, charged := range []money.Amount{cost(50 * time.Minute), cost(45 * time.Minute)} {
		due += charged - money.Share(charged, feeBPS)
	}
	if report.Batches != len(first)+len(second) || report.Records != 3 || report.Earnings != due-1_234 || report.Withdrawals != 5_000_000 ||
		report.Adjustments != 1 || report.Adjusted != -1_234 || report.Usage.Round(time.Second) != 95*time.Minute || report.Pending != 0 {
		t.Errorf("the report: %+v, due %d", report, due)
	}
	paid, err := p.payouts.OwnerPayouts(t.Context(), p.owner, payouts.Page[ids.Payout]{})
	p.check(err)
	for _, payout := range paid {
		p.wantProven(payout)
	}
	if len(paid) != 2 {
		t.Errorf("the owner has %d payouts, want 2: %+v", len(paid), paid)
	}
}

// wantProven follows an owner's proof to the memo that the chain has.
func (p *platform) wantProven(payout payouts.Payout) {
	p.Helper()
	found, err := p.Inclusion(p.Context(), p.owner, payout.ID)
	p.check(err)
	signature, err := chain.ParseSignature(found.Signature)
	p.check(err)
	landed, err := p.local.Client().Transaction(p.Context(), signature)
	p.check(err)
	if found.Signature != payout.Signature || landed.Memo != found.Memo {
		p.Errorf("payout %s: the proof is for %q in %s, the chain has %q", payout.ID, found.Memo, found.Signature, landed.Memo)
	}
	p.check(proof.CheckLeaf(found.Proof, payout.ID, landed.Memo))
}
