package chaos_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gagliardetto/solana-go"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/settlement/chain"
	"github.com/muster-gpu/muster/settlement/chaos/proxy"
	"github.com/muster-gpu/muster/settlement/ledger"
	"github.com/muster-gpu/muster/settlement/payouts"
	"github.com/muster-gpu/muster/settlement/signer"
)

// says waits until a batch shows people a text.
func (w *world) says(text string) {
	w.Helper()
	testkit.Eventually(w, patience, func() (bool, string) {
		attention := w.attention()
		return strings.Contains(attention, text), "the batches do not say " + text + ": " + attention
	})
}

// wantSettled expects every batch to be paid, exactly.
func (w *world) wantSettled() {
	w.Helper()
	if stuck := w.settle(); stuck != 0 {
		w.Errorf("seed %d: %d batches have not ended", w.seed, stuck)
	}
	w.clear()
	w.wantPaid()
}

func TestTwoSettlementProcessesAtOncePayOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Seed(t))
	w.earn(2*payouts.MaxNewAccounts + 1)
	w.weather()
	w.draft()
	first := w.run(w.worker(w.newPool(nil), nil), w.term)
	second := w.run(w.worker(w.newPool(nil), nil), w.term) // as after a split: both believe that they lead
	w.lead(w.term + 1)
	w.run(w.worker(w.newPool(nil), nil), w.term)
	w.wantSettled()
	for _, stop := range []func() error{first, second} {
		if err := stop(); err != nil && !errors.Is(err, payouts.ErrDeposed) {
			t.Errorf("a deposed worker ended with %v", err)
		}
	}
}

func TestClockJumpsDelayPayoutsAndRepeatNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Seed(t))
	w.exec(`
		CREATE SCHEMA jump;
		CREATE TABLE jump.clock (ahead interval NOT NULL);
		INSERT INTO jump.clock VALUES ('0');
		CREATE FUNCTION jump.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
		    'SELECT pg_catalog.clock_timestamp() + ahead FROM jump.clock';
		CREATE FUNCTION jump.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS
		    'SELECT pg_catalog.now() + ahead FROM jump.clock'`)
	jumping := func(c *pgxpool.Config) { // the jumping clock comes before PostgreSQL's own
		c.ConnConfig.RuntimeParams["search_path"] = "jump, pg_catalog, public"
	}
	w.wantJump(jumping)
	w.earn(ownersPerRun)
	w.weather()
	w.draft()
	var jumps sync.WaitGroup
	done := make(chan struct{})
	w.run(w.worker(w.newPool(jumping), nil), w.term) // two, since a jump makes claims end before their time
	w.run(w.worker(w.newPool(jumping), nil), w.term)
	jumps.Go(func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for i := 0; ; i++ {
			ahead := [...]string{"1 hour", "-1 hour", "0", "2 hours"}[i%4]
			if _, err := w.pool.Exec(w.Context(), `UPDATE jump.clock SET ahead = $1::text::interval`, ahead); err != nil {
				return // the test has ended
			}
			select {
			case <-done:
				return
			case <-ticker.C:
			}
		}
	})
	if stuck := w.settle(); stuck != 0 {
		t.Errorf("%d batches have not ended", stuck)
	}
	close(done)
	jumps.Wait()
	w.clear()
	w.wantPaid()
}

// wantJump makes sure that processes see the jumping clock.
func (w *world) wantJump(jumping func(*pgxpool.Config)) {
	w.Helper()
	w.exec(`UPDATE jump.clock SET ahead = '1 hour'`)
	var ahead time.Duration
	err := w.newPool(jumping).QueryRow(w.Context(), `SELECT clock_timestamp() - pg_catalog.clock_timestamp()`).Scan(&ahead)
	if err != nil || ahead < 59*time.Minute {
		w.Fatalf("the clock is %s ahead, it should be an hour: %v", ahead, err)
	}
}

func TestASignerThatIsDownHoldsPayoutsUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Seed(t))
	w.earn(ownersPerRun)
	w.draft()
	w.weather()
	w.stopSigner()
	w.run(w.worker(w.newPool(nil), nil), w.term)
	w.says(signer.ErrUnavailable.Error())
	if double, lost := w.audit(); double != 0 || lost != 0 {
		t.Errorf("without a signer %d were paid too much, %d too little", double, lost)
	}
	w.startSigner()
	w.wantSettled()
}

func TestASignerThatRefusesHoldsPayoutsUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Seed(t))
	w.earn(ownersPerRun)
	w.draft()
	w.weather()
	w.stopSigner()
	strict := w.local.Policy()
	strict.MaxBaseUnitsPerBatch, strict.MaxBaseUnitsPerDay = token, token
	w.check(strict.WriteFile(w.files.PolicyFile))
	w.startSigner()
	w.run(w.worker(w.newPool(nil), nil), w.term)
	w.says(string(signer.RuleBatchCap))
	w.stopSigner()
	w.check(w.local.Policy().WriteFile(w.files.PolicyFile))
	w.startSigner()
	w.wantSettled()
}

func TestANonceThatSomebodyElseAdvancedIsAnAlarmAndPaysNobody(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]string{"before signing": "", "after signing": "bytes stored"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, testkit.Seed(t))
			w.earn(ownersPerRun)
			w.draft()
			if step != "" {
				w.runAndKill(step)
				w.lead(w.term + 1)
			}
			w.advanceNonces()
			w.weather()
			w.run(w.worker(w.newPool(nil), nil), w.term)
			w.says("frozen: the ")
			w.clear()
			for _, p := range w.payees {
				if held := w.holds(p.wallet); held != 0 {
					t.Errorf("a payee was paid %d", held)
				}
				if flying := w.balance(ledger.Of(ledger.PayoutInFlight, p.org)); flying != p.earned {
					t.Errorf("%d is in flight, want %d to stay until a person has decided", flying, p.earned)
				}
			}
			if again := w.draft(); len(again) != 0 {
				t.Error("payees of a frozen batch were drafted again")
			}
			w.check(w.book.Check(w.Context(), w.pool))
		})
	}
}

// advanceNonces consumes the pinned nonces with the treasury's key, as its thief could.
func (w *world) advanceNonces() {
	w.Helper()
	const advance = 4 // the system program's
	key := w.treasuryKey()
	var instructions []solana.Instruction
	for _, nonce := range w.local.Nonces {
		instructions = append(instructions, solana.NewInstruction(solana.SystemProgramID, solana.AccountMetaSlice{
			solana.Meta(nonce).WRITE(), solana.Meta(solana.SysVarRecentBlockHashesPubkey), solana.Meta(key.PublicKey()).SIGNER(),
		}, binary.LittleEndian.AppendUint32(nil, advance)))
	}
	before, err := w.truth.Nonces(w.Context(), chain.Finalized, 0, w.local.Nonces...)
	w.check(err)
	for i := range instructions { // one each: the first instruction of a transaction makes it a durable one
		blockhash, _, err := w.truth.LatestBlockhash(w.Context(), chain.Confirmed)
		w.check(err)
		transaction, err := solana.NewTransaction(instructions[i:i+1], blockhash, solana.TransactionPayer(key.PublicKey()))
		w.check(err)
		_, err = transaction.Sign(func(solana.PublicKey) *solana.PrivateKey { return &key })
		w.check(err)
		wire, err := transaction.MarshalBinary()
		w.check(err)
		_, err = w.truth.Send(w.Context(), wire)
		w.check(err)
	}
	testkit.Eventually(w, patience, func() (bool, string) {
		now, err := w.truth.Nonces(w.Context(), chain.Finalized, 0, w.local.Nonces...)
		w.check(err)
		for account, nonce := range before {
			if now[account].Value == nonce.Value {
				return false, "a nonce has not advanced"
			}
		}
		return true, ""
	})
}

func TestALyingProviderHoldsPayoutsUpAndFreezesNothing(t *testing.T) {
	t.Parallel()
	for _, fault := range []proxy.Fault{proxy.WrongNonce, proxy.Prune} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, testkit.Seed(t))
			w.earn(ownersPerRun)
			w.draft()
			w.runAndKill("marked sent")
			w.lead(w.term + 1)
			w.providers[1].Use(proxy.Rule{Fault: fault})
			w.run(w.worker(w.newPool(nil), nil), w.term)
			w.says(chain.ErrDisagree.Error())
			if alarms := testutil.ToFloat64(w.client.Collectors()[1]); alarms == 0 {
				t.Error("no disagreement was counted")
			}
			w.providers[1].Use()
			w.wantSettled()
		})
	}
}

func TestHistoryThatEveryProviderHasPrunedIsAnAlarmAndPaysOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Seed(t))
	w.earn(ownersPerRun)
	w.draft()
	w.runAndKill("marked sent")
	w.lead(w.term + 1)
	for _, p := range w.providers {
		p.Use(proxy.Rule{Fault: proxy.Prune})
	}
	w.run(w.worker(w.newPool(nil), nil), w.term)
	w.says("frozen: the nonce was consumed") // which a person resolves: the payment is there, its history is not
	w.clear()
	for _, p := range w.payees {
		if held := w.holds(p.wallet); held != uint64(p.earned) {
			t.Errorf("a payee earned %d and holds %d", p.earned, held)
		}
	}
	if again := w.draft(); len(again) != 0 {
		t.Error("payees of a frozen batch were drafted again")
	}
	w.check(w.book.Check(w.Context(), w.pool))
}
