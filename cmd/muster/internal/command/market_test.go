package command

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

func TestAMistakeInAQueryIsPointedAt(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	wrong := problem(http.StatusUnprocessableEntity, codeInvalid, "a number is expected after <")
	wrong.Errors = []apiv1.ProblemField{{Path: "query.q", Message: wrong.Detail, Position: pointer(15)}}
	s.on("GET /v1/offers", wrong)
	r := newShell(t, s.URL).run("offers", "gpu=H100", "price<cheap")
	r.has(t, exitUsage, "muster: a number is expected after <\n  gpu=H100 price<cheap\n"+strings.Repeat(" ", 17)+"^\n")
}

func TestOffersAreListedWithoutAVerb(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sh := newShell(t, s.URL)
	sh.run("offers").has(t, exitOK, "PER GPU-HOUR")
	sh.run("offers", "--gpu", "H100", "--sort", "-free").has(t, exitOK, "PER GPU-HOUR")
	if asked := s.made("GET /v1/offers"); len(asked) != 2 || !strings.Contains(asked[1].query, "sort=-free") || !strings.Contains(asked[1].query, "gpu%3DH100") {
		t.Errorf("asked for %+v", asked)
	}
}

func TestAWrongValueOfAFlagIsNamedPlainly(t *testing.T) {
	t.Parallel()
	sh := newShell(t, newServer(t).URL)
	sh.run("quote", "--gpu", "H100", "--nodes", "99999999999999999999").has(t, exitUsage, "--nodes 99999999999999999999 is more than can be counted")
	sh.run("quote", "--gpu", "H100", "--nodes", "two").has(t, exitUsage, `--nodes takes a whole number, not "two"`)
	sh.run("quote", "--gpu", "H100", "--node", "2").has(t, exitUsage, "unknown flag: --node: did you mean --nodes?")
	sh.run("quote", "--gpus", "8").has(t, exitUsage, "--gpus-per-node")
	sh.run("quote", "--nothing-like-it").has(t, exitUsage, "unknown flag: --nothing-like-it\n")
	sh.run("quote", "--gpu", "H100", "--max-rtt", "20").has(t, exitUsage, `--max-rtt takes a duration such as 20ms, 30m or 6h, not "20"`)
}

func TestANodeIsNamedByItsPlaceAsShown(t *testing.T) {
	t.Parallel()
	for _, place := range []string{"gpu 2", "gpu2", "2"} {
		s := newServer(t)
		removed := "DELETE /v1/clusters/" + readyID.String() + "/nodes/" + readyCluster().Nodes[2].ID.String()
		s.on(removed, readyCluster())
		newShell(t, s.URL).run("cluster", "remove-node", readyID.String(), place, "--yes").has(t, exitOK, "being taken out")
		if got := s.made(removed); len(got) != 1 {
			t.Errorf("%q took out %+v", place, got)
		}
	}
}

// auction answers with a quote that hosts bid for until the given look.
func auction(s *server, choose string, looks int64) *atomic.Int64 {
	var seen atomic.Int64
	quote := testQuote()
	quote.Kind, quote.Spec.Choose, quote.BidsCloseAt = kindAuction, choose, pointer(testNow.Add(10*time.Second))
	open := quote
	open.State, open.Lines = bookingBidding, nil
	s.on("POST /v1/quotes", open)
	s.on("GET "+quotePath, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if seen.Add(1) < looks {
			answer(w, open)
			return
		}
		answer(w, quote)
	}))
	return &seen
}

func TestAnAuctionIsWaitedForAndBooked(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	looks := auction(s, "", 3)
	newShell(t, s.URL).run("book", "--gpu", "H100", "--auction", "--bid-window", "10s", "--yes", "--detach").
		has(t, exitOK, "Hosts are bidding until 2026-11-22 20:00:10Z", "Booked cluster "+readyID.String())
	if asked := s.made("POST /v1/quotes"); len(asked) != 1 || !strings.Contains(asked[0].body, `"kind":"auction"`) || !strings.Contains(asked[0].body, `"bid_window":"10s"`) {
		t.Errorf("asked for %+v", asked)
	}
	if looks.Load() != 3 {
		t.Errorf("looked %d times, want 3", looks.Load())
	}
}

func TestBidsAreTakenByHand(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	auction(s, chooseManual, 1)
	sh := newShell(t, s.URL)
	command := "muster book --quote " + fixed[ids.Booking](1).String() + " --bid " + fixed[ids.Bid](1).String() + "," + fixed[ids.Bid](2).String()
	sh.run("book", "--gpu", "H100", "--nodes", "2", "--auction", "--choose", "manual").has(t, exitOK, "1.65 USDC", command)
	if booked := s.made("POST /v1/bookings"); len(booked) != 0 {
		t.Fatalf("booked %+v without being told to", booked)
	}
	sh.run("quote", "--gpu", "H100", "--nodes", "2", "--auction", "--choose", "manual", "-o", "name").has(t, exitOK, fixed[ids.Booking](1).String()+"\n")
	sh.run(append(strings.Fields(command)[1:], "--yes", "--detach")...).has(t, exitOK)
	var in apiv1.BookingCreate
	if booked := s.made("POST /v1/bookings"); len(booked) != 1 || json.Unmarshal([]byte(booked[0].body), &in) != nil || len(in.BidIDs) != 2 {
		t.Errorf("booked %+v, want the two bids", booked)
	}
}

func TestAnAuctionWithoutEnoughBidsIsNoCapacity(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	quote := testQuote()
	quote.State = bookingBidding
	s.on("POST /v1/quotes", quote)
	quote.State = "expired"
	s.on("GET "+quotePath, quote)
	newShell(t, s.URL).run("book", "--gpu", "H100", "--auction", "--yes").has(t, exitNoCapacity, "too few hosts bid")
}

func TestABookingForLaterSaysWhen(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.on("POST /v1/bookings", testBookings()[0])
	newShell(t, s.URL).run("book", "--gpu", "H100", "--start", "2026-11-23T08:00Z", "--yes").
		has(t, exitOK, "It starts at 2026-11-23 08:00:00Z (in 12h)", "muster booking cancel "+fixed[ids.Booking](1).String())
	if asked := s.made("POST /v1/quotes"); len(asked) != 1 || !strings.Contains(asked[0].body, `"starts_at":"2026-11-23T08:00:00Z"`) {
		t.Errorf("asked for %+v", asked)
	}
}

func TestMoreTimeAndMoreNodesAreBooked(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	extended := testBookings()[1]
	s.on("POST /v1/bookings", extended)
	sh := newShell(t, s.URL)
	sh.run("cluster", "extend", "demo", "6h", "--yes").has(t, exitOK, "Set aside for 6h", "Extended demo.", "Booked until")
	added := extended
	added.Purpose, added.Spec.NodeCount = "addition", 1
	s.on("POST /v1/bookings", added)
	sh.run("cluster", "add-nodes", "demo", "1", "--max-price", "2.50", "--yes").has(t, exitOK, "1 more node joins demo")
	if asked := s.made("POST " + clusterPath + "/addition-quote"); len(asked) != 1 || asked[0].body != `{"node_count":1,"max_price_per_gpu_hour":"2.50"}` {
		t.Errorf("asked for %+v", asked)
	}
}

func TestACounterOfferCanBeBooked(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	none := problem(http.StatusConflict, codeNoCapacity, "2 nodes wanted")
	none.Details = counterOffer()
	s.on("POST /v1/quotes", none)
	sh := newShell(t, s.URL)
	r := sh.run("quote", "--gpu", "H100", "--nodes", "2")
	r.has(t, exitNoCapacity, "What fits instead", "The prices hold for 1m")
	_, line, _ := strings.Cut(r.err, "muster book ")
	line, _, _ = strings.Cut(line, "\n")
	sh.run(append(append([]string{"book"}, strings.Fields(line)...), "--yes", "--detach")...).has(t, exitOK, "Booked cluster")
}

func TestRulesAreReadFromAFile(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sh := newShell(t, s.URL)
	file := filepath.Join(t.TempDir(), "rules.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("discounts:\n  - {from: daily, percent: 10}\nspot_percent: 40\n")
	sh.run("hosts", "ask", "rack-7", "2.00", "--rules", file).has(t, exitOK, "Price per GPU-hour")
	put := s.made("PUT /v1/hosts/" + hostID.String() + "/ask")
	want := `{"price_per_gpu_hour":"2.00","floor":"1.200000","rules":{"discounts":[{"from":"daily","percent":10}],"spot_percent":40},"active":true}`
	if len(put) != 1 || put[0].body != want {
		t.Errorf("put %+v, want %s", put, want)
	}
	write("discount: 10\n")
	sh.run("hosts", "ask", "rack-7", "--rules", file).has(t, exitUsage, `unknown field "discount"`)
	write("discounts: [\n")
	sh.run("hosts", "ask", "rack-7", "--rules", file).has(t, exitUsage, "neither YAML nor JSON")
	sh.run("hosts", "ask", "rack-7", "--rules", file+".none").has(t, exitUsage, "read the rules")
}

func TestSettingAPriceKeepsFloorAndRules(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	newShell(t, s.URL).run("node", "price", "rack-7", "2.00").has(t, exitOK)
	var in apiv1.AskPut
	put := s.made("PUT /v1/hosts/" + hostID.String() + "/ask")
	if len(put) != 1 || json.Unmarshal([]byte(put[0].body), &in) != nil || in.Floor != "1.200000" || in.Rules == nil || len(in.Rules.Discounts) != 2 {
		t.Errorf("put %+v: floor or rules are gone", put)
	}
}

func TestTimesAreReadInManyForms(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"+2h": "2026-11-22T22:00:00Z", "+0s": "2026-11-22T20:00:00Z", "2026-11-23": "2026-11-23T00:00:00Z", "2026-11-23T08:00Z": "2026-11-23T08:00:00Z",
		"2026-11-23T08:00": "2026-11-23T08:00:00Z", "2026-11-23 08:00": "2026-11-23T08:00:00Z", "2026-11-23T08:00:00+01:00": "2026-11-23T07:00:00Z",
		"2026-11-23 08:00:30Z": "2026-11-23T08:00:30Z",
	} {
		got, err := moment(text, testNow)
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "+", "+-2h", "tomorrow", "2026-13-01"} {
		if got, err := moment(text, testNow); err == nil {
			t.Errorf("%q is read as %s", text, got)
		}
	}
}
