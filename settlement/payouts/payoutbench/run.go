package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/time/rate"

	"github.com/muster-gpu/muster/internal/benchkit"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/payouts"
)

const (
	connections  = 48
	concurrency  = 32 // batches driven at the same time
	leadTerm     = 1
	legsAtOnce   = 250
	approvalWait = 200 * time.Millisecond
	runPatience  = 10 * time.Minute
	checkAtOnce  = 1_000 // balances read for the proof
)

// paced is the cluster, which takes so many transactions a second and not more; everything else is answered as fast as it can.
type paced struct {
	*chain.Client
	turns *rate.Limiter
}

func (p *paced) Send(ctx context.Context, wire []byte) (chain.Signature, error) {
	if err := p.turns.Wait(ctx); err != nil {
		return chain.Signature{}, err
	}
	return p.Client.Send(ctx, wire)
}

// run is a database in which every wallet of the world is owed something.
type run struct {
	*world
	database *benchkit.Database
	pool     *pgxpool.Pool // the database's
	book     *ledger.Ledger
	drafter  ids.User
	approver ids.User
}

func (w *world) measureRun(ctx context.Context) (err error) {
	r := &run{world: w, book: ledger.New(w.local.Currency()), drafter: ids.New[ids.User](), approver: ids.New[ids.User]()}
	if r.database, err = benchkit.NewDatabase(ctx, "payoutbench", connections); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.database.Drop()) }()
	r.pool = r.database.Pool
	note("owing each wallet its amount")
	if err := r.owe(ctx); err != nil {
		return fmt.Errorf("fill the books: %w", err)
	}
	before, err := r.balances(ctx)
	if err != nil {
		return err
	}
	idle, err := r.shares(ctx)
	if err != nil {
		return err
	}
	took, err := r.pay(ctx)
	if err != nil {
		return err
	}
	spent, err := r.shares(ctx)
	if err != nil {
		return err
	}
	spent = spent.minus(idle)
	memory, err := benchkit.PeakMemory(os.Getpid())
	if err != nil {
		return err
	}
	signerMemory, err := benchkit.PeakMemory(w.process.Process.Pid)
	if err != nil {
		return err
	}
	transactions, fees, err := r.proof(ctx, before)
	if err != nil {
		return err
	}
	figure("payout_100k_s value=%.3g unit=s payees=%d transactions=%d per_s=%d rate=%d lamports=%d nonces=%d",
		took.Seconds(), w.settings.payees, transactions, int(float64(w.settings.payees)/took.Seconds()), w.settings.rate, fees, len(w.nonces))
	figure("payout_100k_cpu_s value=%.3g unit=s service_s=%.3g signer_s=%.3g database_s=%.3g chain_s=%.3g",
		spent.total().Seconds(), spent.service.Seconds(), spent.signer.Seconds(), spent.database.Seconds(), spent.chain.Seconds())
	figure("payout_100k_mb value=%.4g unit=MB signer_mb=%.3g", memory, signerMemory)
	return nil
}

// owe makes an organisation of each wallet and credits its earnings.
func (r *run) owe(ctx context.Context) error {
	for user, wallet := range map[ids.User]string{r.drafter: "drafter", r.approver: "approver"} {
		if _, err := r.pool.Exec(ctx, `INSERT INTO users (id, wallet_address) VALUES ($1, $2)`, user, wallet); err != nil {
			return err
		}
	}
	_, err := r.pool.Exec(ctx, `INSERT INTO leadership (role, holder, term, expires_at) VALUES ('settlement', 'payoutbench', $1, 'infinity')`, leadTerm)
	if err != nil {
		return err
	}
	orgs := make([]ids.Org, len(r.wallets))
	_, err = r.pool.CopyFrom(ctx, pgx.Identifier{"organisations"}, []string{"id", "name", "payout_address"},
		pgx.CopyFromSlice(len(orgs), func(i int) ([]any, error) {
			orgs[i] = ids.New[ids.Org]()
			return []any{[16]byte(orgs[i]), fmt.Sprintf("owner %06d", i), r.wallets[i].String()}, nil
		}))
	if err != nil {
		return err
	}
	if err := r.post(ctx, "capital", []ledger.Leg{{
		Debit: ledger.Platform(ledger.ChainTreasury), Credit: ledger.Platform(ledger.PlatformCapital), Amount: capital,
	}}); err != nil {
		return err
	}
	for start := 0; start < len(orgs); start += legsAtOnce {
		var legs []ledger.Leg
		for _, org := range orgs[start:min(start+legsAtOnce, len(orgs))] {
			legs = append(legs, ledger.Leg{
				Debit: ledger.Platform(ledger.PlatformCapital), Credit: ledger.Of(ledger.OwnerPayable, org), Amount: amount,
			})
		}
		if err := r.post(ctx, "earned:"+strconv.Itoa(start), legs); err != nil {
			return err
		}
	}
	return benchkit.Settle(ctx, r.pool)
}

func (r *run) post(ctx context.Context, key string, legs []ledger.Leg) error {
	return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		_, err := r.book.Post(ctx, tx, ledger.Entry{Key: key, Kind: "test", Legs: legs})
		return err
	})
}

// pay makes one run of everything that is owed, as an operator and an approver do, and waits until the last batch is final and
// booked. A person's time to approve is no part of it: each batch is approved as soon as it is there.
func (r *run) pay(ctx context.Context) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, runPatience, errors.New("the run took too long"))
	defer cancel()
	stopProfile, err := profile(r.settings.profile)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stopProfile()) }()
	cluster := &paced{Client: r.cluster, turns: rate.NewLimiter(rate.Limit(r.settings.rate), 1)}
	service := payouts.New(r.pool, r.book, cluster, r.keys, payouts.Options{Concurrency: concurrency, Log: r.log})
	work, stop := context.WithCancel(ctx)
	worked := make(chan error, 1)
	go func() { worked <- service.Run(work, leadTerm) }()
	defer func() {
		stop()
		err = errors.Join(err, <-worked)
	}()
	began := time.Now()
	drafted := make(chan error, 1)
	go func() {
		_, err := service.StartRun(ctx, r.drafter)
		note("first round drafted after %.1f s", time.Since(began).Seconds())
		drafted <- err
	}()
	ticker := time.NewTicker(approvalWait)
	defer ticker.Stop()
	for {
		if err := r.approve(ctx, service); err != nil {
			return 0, err
		}
		if done, err := r.done(ctx, time.Since(began)); done || err != nil {
			return time.Since(began), err
		}
		select {
		case err := <-drafted:
			if err != nil {
				return 0, err
			}
			drafted = nil // the service makes the other rounds by itself
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// approve lets everything be paid that is drafted so far.
func (r *run) approve(ctx context.Context, service *payouts.Service) error {
	var id ids.PayoutRun
	err := r.pool.QueryRow(ctx, `SELECT id FROM payout_runs`).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // it has not begun
	}
	if err != nil {
		return err
	}
	// When nothing is drafted at this moment, that is a conflict.
	if _, _, err := service.ApproveRun(ctx, id, r.approver); err != nil && errs.CodeOf(err) != errs.Conflict {
		return err
	}
	return nil
}

func profile(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return file.Close()
	}, nil
}

// done reports whether every payee was paid. A batch that ended otherwise is an error.
func (r *run) done(ctx context.Context, after time.Duration) (bool, error) {
	var paid, finalized, sent, bad int
	err := r.pool.QueryRow(ctx, `
		SELECT coalesce(sum(payee_count) FILTER (WHERE state = 'finalized'), 0), count(*) FILTER (WHERE state = 'finalized'),
		       count(*) FILTER (WHERE state = 'sent'), count(*) FILTER (WHERE state IN ('failed', 'frozen', 'cancelled'))
		FROM payout_batches`).Scan(&paid, &finalized, &sent, &bad)
	if err != nil {
		return false, err
	}
	if bad > 0 {
		return false, fmt.Errorf("%d batches failed or were frozen", bad)
	}
	note("%5.1f s: %d payees paid, %d batches final, %d sent", after.Seconds(), paid, finalized, sent)
	return paid == r.settings.payees, nil
}

// proof compares the chain with what was owed: each wallet got its amount once, and the ledger owes nobody anything.
func (r *run) proof(ctx context.Context, before []uint64) (transactions int, lamports int64, err error) {
	after, err := r.balances(ctx)
	if err != nil {
		return 0, 0, err
	}
	for i := range after {
		if after[i] != before[i]+amount {
			return 0, 0, fmt.Errorf("%s got %d, want %d", r.wallets[i], after[i]-before[i], uint64(amount))
		}
	}
	var owed int64
	err = r.pool.QueryRow(ctx, `SELECT coalesce(sum(balance), 0) FROM ledger_accounts WHERE kind IN ($1, $2)`,
		ledger.OwnerPayable, ledger.PayoutInFlight).Scan(&owed)
	if err != nil {
		return 0, 0, err
	}
	if owed != 0 {
		return 0, 0, fmt.Errorf("the ledger still owes %d", owed)
	}
	err = r.pool.QueryRow(ctx, `SELECT count(*), coalesce(sum(fee_lamports), 0) FROM payout_transactions`).Scan(&transactions, &lamports)
	return transactions, lamports, err
}

// balances reads what is in each wallet's token account.
func (r *run) balances(ctx context.Context) ([]uint64, error) {
	balances := make([]uint64, 0, len(r.accounts))
	for start := 0; start < len(r.accounts); start += checkAtOnce {
		accounts, err := r.cluster.Accounts(ctx, chain.Finalized, 0, r.accounts[start:min(start+checkAtOnce, len(r.accounts))]...)
		if err != nil {
			return nil, err
		}
		for _, account := range accounts {
			if account == nil {
				return nil, errors.New("a wallet's token account is not there")
			}
			held, err := chain.DecodeTokenAccount(account)
			if err != nil {
				return nil, err
			}
			balances = append(balances, held.Amount)
		}
	}
	return balances, nil
}
