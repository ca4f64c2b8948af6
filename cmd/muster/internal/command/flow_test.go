package command

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

func answer(w http.ResponseWriter, document any) { _ = json.NewEncoder(w).Encode(document) }

func TestBookingAsksOnATerminal(t *testing.T) {
	t.Parallel()
	for typed, code := range map[string]int{"y\n": exitOK, "YES\n": exitOK, "n\n": exitUsage, "\n": exitUsage, "": exitUsage} {
		s := newServer(t)
		sh := newShell(t, s.URL)
		sh.app.InTTY, sh.app.In = true, strings.NewReader(typed)
		r := sh.run("cluster", "up", "--gpu", "H100")
		r.has(t, code, "Book it and set aside 8.00 USDC? [y/N]")
		if booked := len(s.made("POST /v1/bookings")); booked != 0 != (code == exitOK) {
			t.Errorf("after %q there are %d bookings", typed, booked)
		}
	}
}

func TestADryRunBooksNothing(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	newShell(t, s.URL).run("cluster", "up", "--gpu", "H100", "--dry-run", "-o", "json").has(t, exitOK, `"refund_halfway"`)
	if len(s.made("POST /v1/bookings")) > 0 {
		t.Error("something was booked")
	}
}

func TestCtrlCWhileAskingBooksNothing(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sh := newShell(t, s.URL)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = reader.Close(), writer.Close() })
	ctx, interrupt := context.WithCancel(t.Context())
	sh.app.InTTY, sh.app.In, sh.ctx = true, interruptingReader{reader, interrupt}, ctx
	sh.run("cluster", "up", "--gpu", "H100").has(t, exitUsage, "nothing was done")
	if len(s.made("POST /v1/bookings")) > 0 {
		t.Error("something was booked")
	}
}

// interruptingReader stands for somebody who presses Ctrl-C at the question.
type interruptingReader struct {
	in        *os.File
	interrupt func()
}

func (r interruptingReader) Read(p []byte) (int, error) {
	r.interrupt()
	return r.in.Read(p)
}

// assembling answers with a cluster that becomes ready at the given look, and calls back at each.
func assembling(s *server, readyAt int64, look func(int64)) {
	var looks atomic.Int64
	s.on("GET "+clusterPath, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := looks.Add(1)
		look(n)
		if n >= readyAt {
			answer(w, readyCluster())
			return
		}
		answer(w, joiningCluster())
	}))
}

func TestCtrlCDetachesAndDestroysNothing(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sh := newShell(t, s.URL)
	var interrupt context.CancelFunc
	sh.ctx, interrupt = context.WithCancel(t.Context())
	assembling(s, 1000, func(n int64) {
		if n == 3 {
			interrupt()
		}
	})
	r := sh.run("cluster", "up", "--gpu", "H100", "--yes")
	r.has(t, exitUsage, "joining, 1 of 3 nodes alive", "detached: the cluster goes on", "muster cluster wait demo")
	if len(s.made("POST "+clusterPath+"/release")) > 0 {
		t.Error("the cluster was released")
	}
}

// TestWhatToDoNextWorksForAnyName has a cluster named as one is that nobody named.
func TestWhatToDoNextWorksForAnyName(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.on("GET "+clusterPath, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		cluster := readyCluster()
		cluster.Name = "H100 x4"
		answer(w, cluster)
	}))
	newShell(t, s.URL).run("cluster", "up", "--gpu", "H100", "--yes").
		has(t, exitOK, "muster job submit 'H100 x4' ", `$(muster cluster env 'H100 x4')`, "muster cluster down 'H100 x4'")
	newShell(t, s.URL).run("cluster", "up", "--gpu", "H100", "--yes", "--detach").has(t, exitOK, "`muster cluster wait 'H100 x4'`")
}

func TestWaitingEndsInTime(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	assembling(s, 1_000_000, func(int64) {})
	newShell(t, s.URL).run("cluster", "wait", "demo", "--timeout", "20ms").has(t, exitTimeout, "after 20 ms the cluster is joining, not ready")
}

func TestWaitingOutlastsARestartOfTheServer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var looks atomic.Int64
	s.on("GET "+clusterPath, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch looks.Add(1) {
		case 1:
			answer(w, joiningCluster())
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
			answer(w, problem(http.StatusServiceUnavailable, codeUnavailable, "try again"))
		case 3:
			panic(http.ErrAbortHandler) // the connection breaks
		default:
			answer(w, readyCluster())
		}
	}))
	newShell(t, s.URL).run("cluster", "wait", "demo").has(t, exitOK, "ready")
}

func TestAClusterThatEndsIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	newShell(t, s.URL).run("cluster", "wait", "old").has(t, exitFailed, "ended before it was ready", "Two nodes were lost.")
}

func TestTheProgressIsOneBlockOnATerminal(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sh := newShell(t, s.URL)
	sh.app.ErrTTY = true
	assembling(s, 3, func(int64) {})
	r := sh.run("cluster", "wait", "demo")
	if drawnAnew := strings.Count(r.err, "\x1b[2A\x1b[J"); drawnAnew != 2 {
		t.Errorf("the block was drawn anew %d times, want 2:\n%q", drawnAnew, r.err)
	}
}

func TestAFailedBookingIsTriedAgainWithTheSameQuote(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	var tries atomic.Int64
	s.on("POST /v1/bookings", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Idempotency-Key") != testQuote().ID.String() {
			t.Errorf("the key is %q", r.Header.Get("Idempotency-Key"))
		}
		if tries.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		answer(w, documents()["POST /v1/bookings"])
	}))
	newShell(t, s.URL).run("cluster", "up", "--gpu", "H100", "--yes", "-d").has(t, exitOK, "Booked cluster")
	if tries.Load() != 2 {
		t.Errorf("%d tries", tries.Load())
	}
}

func TestADepositIsWaitedFor(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		state string
		code  int
		says  string
	}{
		"credited": {"credited", exitOK, "Credited 100.000000 USDC. Available: 992.40 USDC."},
		"suspense": {"suspense", exitFailed, "were not credited: a wrong mint"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			var looks atomic.Int64
			s.on("GET /v1/wallet/deposits", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				all := testDeposits()
				if looks.Add(1) > 3 {
					all = append([]apiv1.Deposit{{ID: fixed[ids.Deposit](3), Amount: "100.000000", State: tc.state, Reason: "a wrong mint", Signature: "sig"}}, all...)
				}
				answer(w, items(all...))
			}))
			newShell(t, s.URL).run("wallet", "deposit", "--amount", "100", "--wait").has(t, tc.code, "TEST TOKENS", tc.says)
		})
	}
}

func TestADepositElsewhereShowsAQRCodeOnATerminal(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.on("GET /v1/network", testNetwork("mainnet"))
	sh := newShell(t, s.URL)
	sh.run("wallet", "deposit", "--amount", "25.5").has(t, exitOK, "amount=25.5")
	for _, amount := range []string{"-1", "1e3", "1,000", ".5", "0.0000001"} { // no wallet takes such links
		sh.run("wallet", "deposit", "--amount", amount).has(t, exitFailed, "--amount")
	}
	if len(s.made("POST /v1/local/faucet")) > 0 {
		t.Error("the faucet was asked on mainnet")
	}
	sh.app.OutTTY = true
	if r := sh.run("wallet", "deposit"); strings.Count(r.out, "█") < 100 {
		t.Errorf("there is no QR code:\n%s", r.out)
	}
}

func TestDifferencesFailAReconciliation(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.on("POST /v1/finance/reconciliations", testReconciliation(true))
	newShell(t, s.URL).run("reconcile", "run").has(t, exitFailed, "chain only", "The ledger does not know this transfer.", "differ in 1 places")
}

func TestAReconciliationThatIsBehindFails(t *testing.T) {
	t.Parallel()
	behind := testReconciliation(false)
	behind.State, behind.Reason, behind.Wallets[0].Behind, behind.Wallets[0].Continuous = "behind", "its SOL was read up to slot 300", true, false
	s := newServer(t)
	s.on("POST /v1/finance/reconciliations", behind)
	r := newShell(t, s.URL).run("reconcile", "run")
	r.has(t, exitFailed, "has not come to the present: its SOL was read up to slot 300")
	if strings.Contains(r.out, "NO") {
		t.Errorf("a history that is still being read is said to have a gap:\n%s", r.out)
	}
}

func TestAPayoutIsWatchedToItsEnd(t *testing.T) {
	t.Parallel()
	for state, code := range map[string]int{"finalized": exitOK, "frozen": exitFailed} {
		s := newServer(t)
		var looks atomic.Int64
		s.on("GET /v1/finance/batches/"+draftID.String(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			answer(w, testBatch(draftID, []string{"draft", "approved", "sent", state}[min(looks.Add(1)-1, 3)]))
		}))
		newShell(t, s.URL).run("payout", "approve", draftID.String(), "-y", "--wait").has(t, code, "approved", "sent", state)
	}
}

func TestAPriceStaysWhenTheOfferIsSwitchedOff(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	newShell(t, s.URL).run("node", "price", "rack-7", "--off").has(t, exitOK)
	made := s.made("PUT /v1/hosts/" + hostID.String() + "/ask")
	if len(made) != 1 || !strings.HasPrefix(made[0].body, `{"price_per_gpu_hour":"1.900000",`) || !strings.HasSuffix(made[0].body, `,"active":false}`) {
		t.Errorf("%+v", made)
	}
}

func TestAKeyGoesToItsOwnServerOnly(t *testing.T) {
	t.Parallel()
	own, other := newServer(t), newServer(t)
	sh := newShell(t, own.URL)
	sh.run("cluster", "ls", "--server", other.URL).has(t, exitNotLoggedIn)
	sh.run("offer", "ls", "--server", other.URL).has(t, exitOK)
	for _, r := range other.made("GET /v1/offers") {
		if r.auth != "" {
			t.Errorf("the other server was sent %q", r.auth)
		}
	}
	sh.env[envKey], sh.env[envServer] = "mst_env", other.URL
	sh.run("wallet", "show").has(t, exitOK)
	if made := other.made("GET /v1/wallet"); len(made) != 1 || made[0].auth != "Bearer mst_env" {
		t.Errorf("%+v", made)
	}
	sh.env[envKey] = "mst_env"
	delete(sh.env, envServer)
	sh.run("wallet", "show", "--org", testOrg.String()).has(t, exitOK)
	if made := own.made("GET /v1/wallet"); len(made) != 1 || made[0].auth != "Bearer mst_env" || made[0].query != "org="+testOrg.String() {
		t.Errorf("the environment does not win over the context: %+v", made)
	}
}

func TestCurlShowsRequestsWithoutTheKey(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := newShell(t, s.URL).run("cluster", "up", "--gpu", "H100", "--dry-run", "--curl")
	r.has(t, exitOK, `curl -X POST -H "Authorization: Bearer $MUSTER_API_KEY" -H 'Content-Type: application/json' -d '{"gpu_model":"H100"`, s.URL+"/v1/quotes")
	if strings.Contains(r.err, "mst_test") {
		t.Error("the key is shown")
	}
}

func TestAnyRequestCanBeMade(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sh := newShell(t, s.URL)
	sh.run("api", "/v1/wallet").has(t, exitOK, `"deposit_address"`)
	body := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(body, []byte(`{"amount":"5"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	sh.run("api", "/v1/local/faucet", "-d", "@"+body).has(t, exitOK, "signature")
	if made := s.made("POST /v1/local/faucet"); len(made) != 1 || made[0].body != `{"amount":"5"}` {
		t.Errorf("%+v", made)
	}
	s.on("GET /v1/me", problem(http.StatusUnauthorized, codeUnauthenticated, "no"))
	sh.run("api", "get", "/v1/me").has(t, exitNotLoggedIn, `"detail":"no"`)
	sh.run("api", "https://elsewhere.example/v1/me").has(t, exitUsage)
}

func TestContextsAreChosenAndForgotten(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sh := newShell(t, s.URL)
	sh.run("context", "use", "nope").has(t, exitFailed, "there is no context")
	sh.run("cluster", "ls", "--context", "nope").has(t, exitUsage, "there is no context")
	sh.run("login", "--server", s.URL, "--key", "mst_second").has(t, exitOK, `The context is "northwind-labs@127.0.0.1`)
	sh.run("context", "ls", "-o", "name").has(t, exitOK, "test\n", "northwind-labs@")
	sh.run("context", "use", "test").has(t, exitOK)
	sh.run("context", "show", "-o", "name").has(t, exitOK, "test\n")
	sh.run("context", "rm", "test").has(t, exitOK)
	sh.run("cluster", "ls").has(t, exitNotLoggedIn)
}

func TestAFileThatIsNoConfigurationIsNamed(t *testing.T) {
	t.Parallel()
	sh := newShell(t, "http://127.0.0.1:1")
	path := filepath.Join(sh.config, "muster", "config.yaml")
	if err := os.WriteFile(path, []byte("- not\n- this"), 0o600); err != nil {
		t.Fatal(err)
	}
	sh.run("cluster", "ls").has(t, exitFailed, path, "muster login")
}

func TestAServerThatIsNoMusterIsNamed(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	newShell(t, other.URL).run("cluster", "ls").has(t, exitFailed, "is the address right?")
}

func TestCompletionAsksTheServer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sh := newShell(t, s.URL)
	for _, tc := range []struct {
		line []string
		want []string
		not  []string
	}{
		{[]string{"cluster", "get", ""}, []string{"demo\tready", "old\tfailed"}, nil},
		{[]string{"cluster", "get", "d"}, []string{"demo\tready"}, []string{"old"}},
		{[]string{"cluster", "up", "--gpu", ""}, []string{"H100", "RTX 4090"}, nil},
		{[]string{"cluster", "up", "--region", "us"}, []string{"us-east"}, []string{"eu-north"}},
		{[]string{"job", "logs", "demo", ""}, []string{"raysubmit_two\trunning"}, nil},
		{[]string{"node", "why", ""}, []string{"rack-7\tleased"}, nil},
		{[]string{"payout", "batch", ""}, []string{draftID.String() + "\tdraft"}, nil},
		{[]string{"context", "use", ""}, []string{"test"}, nil},
		{[]string{"cluster", "ls", "-o", ""}, []string{"wide"}, nil},
	} {
		r := sh.run(append([]string{"__complete"}, tc.line...)...)
		r.has(t, exitOK, tc.want...)
		for _, text := range tc.not {
			if strings.Contains(r.out, text) {
				t.Errorf("%v offers %q", tc.line, text)
			}
		}
	}
	s.Close()
	sh.run("__complete", "cluster", "get", "").has(t, exitOK, ":4")
}

func TestVersionsAreShownWithAndWithoutAServer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	newShell(t, s.URL).run("version").has(t, exitOK, "1.2.3", "1.2.0")
	newShell(t, "").run("version", "-o", "json").has(t, exitOK, `"version": "1.2.3"`)
	s.Close()
	newShell(t, s.URL).run("version").has(t, exitOK, "not reached")
}

func TestQuotedTextIsOneWordOfAShell(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain": "plain", "": "''", "two words": "'two words'", "it's": `'it'\''s'`, "$HOME": "'$HOME'", "a;b": "'a;b'", "~": "'~'",
		"http://h:1/p?a=b": "'http://h:1/p?a=b'",
	} {
		if got := quote(text); got != want {
			t.Errorf("quote(%q) = %s, want %s", text, got, want)
		}
	}
}
