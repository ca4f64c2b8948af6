package command

import (
	"maps"
	"strings"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

// fixed makes an id that is always the same.
func fixed[I ~[16]byte](n byte) I { return I{0: 0x01, 1: 0x9d, 2: 0xa4, 3: n, 15: n} }

var (
	testOrg     = fixed[ids.Org](1)
	readyID     = fixed[ids.Cluster](1)
	endedID     = fixed[ids.Cluster](2)
	hostID      = fixed[ids.Host](1)
	draftID     = fixed[ids.Batch](1)
	finalID     = fixed[ids.Batch](2)
	windowID    = fixed[ids.Maintenance](1)
	clusterPath = "/v1/clusters/" + readyID.String()
	bookingPath = "/v1/bookings/" + fixed[ids.Booking](1).String()
	quotePath   = "/v1/quotes/" + fixed[ids.Booking](1).String()
)

const testSignature = "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnbJLgp8uirBgmQpjKhoR4tjF3ZpRzrFmBV6UjKdiSZkQUW"

func ago(d time.Duration) time.Time { return testNow.Add(-d) }

func pointer[T any](value T) *T { return &value }

func tokens(baseUnits, text string) apiv1.Money {
	return apiv1.Money{BaseUnits: baseUnits, Text: text, Currency: "USDC", Decimals: 6}
}

func items[T any](all ...T) apiv1.List[T] { return apiv1.List[T]{Items: append([]T{}, all...)} }

// documents are the answers of a small Muster.
func documents() map[string]any {
	all := map[string]any{
		"GET /v1/network": testNetwork("local"), "GET /v1/offers": items(testOffers()...), "POST /v1/quotes": testQuote(),
		"POST /v1/explain":  testExplanation(),
		"POST /v1/bookings": apiv1.Booking{ID: fixed[ids.Booking](1), Purpose: "cluster", State: "accepted", ClusterID: &readyID},
		"GET /v1/bookings":  items(testBookings()...), "GET " + bookingPath: testBookings()[0], "POST " + bookingPath + "/cancel": cancelled(testBookings()[0]),
		"GET " + quotePath: testQuote(), "GET " + quotePath + "/bids": items(testBids()...), "GET /v1/market/history": testHistory(), "GET /v1/wallet/runway": testRunway(),
		"POST " + clusterPath + "/extension-quote": testExtension(), "POST " + clusterPath + "/addition-quote": testAddition(),
		"DELETE " + clusterPath + "/nodes/" + fixed[ids.Node](3).String(): readyCluster(), "PUT " + clusterPath + "/auto-stop": stoppingCluster(),
		"POST " + clusterPath + "/resume": parkedCluster(),
		"GET /v1/clusters":                items(summary(readyCluster()), summary(endedCluster())),
		"GET " + clusterPath:              readyCluster(), "GET /v1/clusters/" + endedID.String(): endedCluster(), "POST " + clusterPath + "/release": readyCluster(),
		"GET " + clusterPath + "/events": items(testEvents()...), "GET " + clusterPath + "/cost": *readyCluster().Cost,
		"POST " + clusterPath + "/ray-token": apiv1.RayToken{Token: "mrt_it's", ExpiresAt: testNow.Add(time.Hour), Env: map[string]string{
			"RAY_API_SERVER_ADDRESS": "https://muster.example/v1/clusters/" + readyID.String() + "/ray", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "mrt_it's",
		}},
		"GET " + clusterPath + "/jobs": items(testJobs()...), "GET " + clusterPath + "/jobs/raysubmit_two/logs": apiv1.JobLogs{Logs: "step 1\nstep 2\n", Truncated: true},
		"POST " + clusterPath + "/jobs/raysubmit_two/stop": testJobs()[0],
		"GET /v1/statements": testStatement(), "GET /v1/earnings/statement": testEarningsStatement(), "GET /v1/finance/fees": items(testFees()...),
		"POST /v1/finance/fees": testFees()[0],
		"GET /v1/wallet":        testWallet(), "GET /v1/wallet/lines": items(testLines()...), "GET /v1/wallet/deposits": items(testDeposits()...),
		"POST /v1/local/faucet": apiv1.FaucetResult{Signature: testSignature, Amount: tokens("100000000", "100.000000")},
		"GET /v1/hosts":         items(testHosts()...), "GET /v1/hosts/" + hostID.String(): testHosts()[0], "PUT /v1/hosts/" + hostID.String() + "/ask": testHosts()[0],
		"POST /v1/hosts/" + hostID.String() + "/recheck": testHosts()[0], "GET /v1/hosts/" + hostID.String() + "/earning-check": testEarningCheck(),
		"GET /v1/hosts/" + hostID.String() + "/maintenance": items(testWindows()...), "POST /v1/hosts/" + hostID.String() + "/maintenance": testWindows()[0],
		"POST /v1/hosts/" + hostID.String() + "/maintenance/" + windowID.String() + "/cancel": testWindows()[1],
		"POST /v1/hosts/" + hostID.String() + "/ask/preview":                                  testPreview(),
		"POST /v1/hosts/" + hostID.String() + "/drain":                                        testHosts()[0], "POST /v1/hosts/" + hostID.String() + "/undrain": testHosts()[0],
		"POST /v1/join-tokens": apiv1.JoinTokenCreated{
			JoinToken: apiv1.JoinToken{ID: fixed[ids.JoinToken](1), State: "open", Kind: "gpu", Region: "eu-west", CreatedAt: testNow, ExpiresAt: testNow.Add(15 * time.Minute)},
			Secret:    "mjt_secret", Command: "muster-worker join --server muster.example:7443 --token mjt_secret --run",
		},
		"GET /v1/earnings": testEarnings(), "GET /v1/payouts": items(testPayout("finalized")), "GET /v1/finance/payable": testPayable(),
		"GET /v1/finance/batches": items(testBatch(draftID, "draft"), testBatch(finalID, "finalized")), "POST /v1/finance/batches": items(testBatch(draftID, "draft")),
		"GET /v1/finance/batches/" + draftID.String(): testBatch(draftID, "draft"), "GET /v1/finance/batches/" + finalID.String(): testBatch(finalID, "finalized"),
		"POST /v1/finance/batches/" + draftID.String() + "/approve": testBatch(draftID, "approved"),
		"GET /v1/finance/holdings":                                  items(testHolding("settlement"), testHolding("foreign")),
		"GET /v1/finance/reconciliations":                           items(testReconciliation(false), testReconciliation(true)),
		"POST /v1/finance/reconciliations":                          testReconciliation(false), "GET /v1/finance/reconciliations/" + fixed[ids.Reconciliation](2).String(): testReconciliation(true),
		"GET /v1/finance/sol-journal": testSOLJournal(), "GET /v1/finance/sol-journal/lines": items(testSOLLines()...),
		"GET /v1/me": apiv1.Me{UserID: fixed[ids.User](1), Name: "Ada, ML engineer", Organisations: []apiv1.Membership{{OrgID: testOrg, Name: "Northwind Labs", Roles: []string{"engineer"}}}},
	}
	maps.Copy(all, financeDocuments())
	return all
}

func testNetwork(name string) apiv1.Network {
	return apiv1.Network{
		Name: name, Mint: "4xNLd3bpemVoToYGD5PbbLCve2CoQd4MD9DSLs5F1cun", Symbol: "USDC", Decimals: 6, Version: "1.2.0",
		ExplorerTransaction: "https://explorer.example/tx/{signature}",
	}
}

func testOffers() []apiv1.Offer {
	return []apiv1.Offer{
		{
			GPUModel: "H100", Region: "eu-north", MemoryMiB: 81559, FreeGPUs: 96, TotalGPUs: 128, Hosts: 14, LargestNode: 8, PriceFrom: tokens("1900000", "1.900000"),
			PriceMedian: pointer(tokens("2100000", "2.100000")), SpotFrom: pointer(tokens("1140000", "1.140000")), UtilisationPercent: 25, ReliabilityPercent: 99.42,
		},
		{GPUModel: "H100", Region: "us-east", MemoryMiB: 81559, TotalGPUs: 16, UtilisationPercent: 100, ReliabilityPercent: 97.5},
		{
			GPUModel: "RTX 4090", Region: "us-east", MemoryMiB: 24564, FreeGPUs: 3, TotalGPUs: 8, Hosts: 2, LargestNode: 2, PriceFrom: tokens("412500", "0.412500"), Simulated: true,
			PriceMedian: pointer(tokens("500000", "0.500000")), UtilisationPercent: 62.5, ReliabilityPercent: 99,
		},
	}
}

func testQuote() apiv1.Quote {
	return apiv1.Quote{
		ID: fixed[ids.Booking](1), Kind: "market", Purpose: "cluster", State: "quoted", GPUModel: "H100", PriceClass: "hourly", WorstRTTMS: pointer(12.5),
		Spec: apiv1.BookingSpec{GPUModel: "H100", NodeCount: 2, GPUsPerNode: 2, Duration: "1h", ClusterName: "demo"},
		Lines: []apiv1.QuoteLine{
			{HostID: hostID, Region: "eu-north", Site: "oslo-1", GPUModel: "H100", GPUs: 2, PricePerGPUHour: tokens("1900000", "1.900000"), Amount: tokens("3800000", "3.800000"), OwnerID: fixed[ids.Org](2)},
			{HostID: fixed[ids.Host](2), Region: "eu-north", GPUModel: "H100", GPUs: 2, PricePerGPUHour: tokens("2100000", "2.100000"), Amount: tokens("4200000", "4.200000"), OwnerID: fixed[ids.Org](3)},
		},
		PricePerHour: tokens("8000000", "8.000000"), Hold: tokens("8000000", "8.000000"), OwnersReceive: tokens("7800000", "7.800000"),
		PlatformFee: tokens("200000", "0.200000"), RefundHalfway: tokens("4000000", "4.000000"), Available: tokens("1000000000", "1000.000000"),
		QuotedAt: testNow, ExpiresAt: testNow.Add(time.Minute),
	}
}

func testExplanation() apiv1.Explanation {
	return apiv1.Explanation{
		Blocking: "price", Summary: "2 nodes wanted, but only 1 of the hosts asks at most 1.90.",
		Funnel: []apiv1.ExplanationStep{
			{Condition: "gpu_model", Hosts: 2, GPUs: 8}, {Condition: "region", Hosts: 2, GPUs: 8}, {Condition: "price", Hosts: 1, GPUs: 4, Excludes: 4},
		},
		Changes: []apiv1.Change{
			{Kind: "price", Summary: "At most 2.10 instead of 1.90 per GPU-hour", PricePerHour: tokens("8000000", "8.000000")},
			{Kind: "later", Summary: "From 2026-11-22 22:00 UTC, when GPUs are expected to be free", PricePerHour: tokens("7600000", "7.600000")},
		},
	}
}

// counterOffer is the same for somebody who may book.
func counterOffer() apiv1.Explanation {
	e := testExplanation()
	for i := range e.Changes {
		e.Changes[i].QuoteID, e.Changes[i].ExpiresAt = pointer(fixed[ids.Booking](byte(i+1))), pointer(testNow.Add(time.Minute))
	}
	return e
}

func testExtension() apiv1.Quote {
	q := testQuote()
	q.Purpose, q.ClusterID, q.Spec.Duration, q.Hold, q.RefundHalfway = "extension", &readyID, "6h", tokens("48000000", "48.000000"), tokens("24000000", "24.000000")
	q.OwnersReceive, q.PlatformFee = tokens("45600000", "45.600000"), tokens("2400000", "2.400000")
	return q
}

func testAddition() apiv1.Quote {
	q := testQuote()
	q.Purpose, q.ClusterID, q.Spec.NodeCount, q.Spec.Duration, q.Lines = "addition", &readyID, 1, "30m", q.Lines[:1]
	q.PricePerHour, q.Hold = tokens("3800000", "3.800000"), tokens("1900000", "1.900000")
	q.OwnersReceive, q.PlatformFee, q.RefundHalfway = tokens("1805000", "1.805000"), tokens("95000", "0.095000"), tokens("950000", "0.950000")
	return q
}

func testBids() []apiv1.Bid {
	return []apiv1.Bid{
		{ID: fixed[ids.Bid](1), HostID: hostID, OwnerID: fixed[ids.Org](2), Region: "eu-north", Site: "oslo-1", PricePerGPUHour: tokens("1650000", "1.650000"), State: "open", Quoted: true, MadeAt: testNow},
		{ID: fixed[ids.Bid](2), HostID: fixed[ids.Host](2), OwnerID: fixed[ids.Org](3), Region: "eu-west", PricePerGPUHour: tokens("1700000", "1.700000"), State: "open", Quoted: true, MadeAt: testNow},
		{ID: fixed[ids.Bid](3), HostID: fixed[ids.Host](3), OwnerID: fixed[ids.Org](3), Region: "eu-west", PricePerGPUHour: tokens("1900000", "1.900000"), State: "open", MadeAt: testNow},
	}
}

func testBookings() []apiv1.Booking {
	spec := apiv1.BookingSpec{GPUModel: "H100", NodeCount: 2, GPUsPerNode: 2, Duration: "6h"}
	return []apiv1.Booking{
		{
			ID: fixed[ids.Booking](1), Kind: "market", Purpose: "cluster", State: "scheduled", Spec: spec, GPUModel: "H100", PricePerHour: tokens("8000000", "8.000000"),
			Hold: tokens("48000000", "48.000000"), StartsAt: pointer(testNow.Add(12 * time.Hour)), CreatedAt: ago(2 * time.Minute), ExpiresAt: ago(time.Minute), DecidedAt: pointer(ago(2 * time.Minute)),
		},
		{
			ID: fixed[ids.Booking](2), Kind: "market", Purpose: "extension", State: "accepted", Spec: spec, GPUModel: "H100", PricePerHour: tokens("8000000", "8.000000"),
			Hold: tokens("48000000", "48.000000"), ClusterID: &readyID, CreatedAt: ago(30 * time.Minute), ExpiresAt: ago(29 * time.Minute),
		},
		{
			ID: fixed[ids.Booking](3), Kind: "auction", Purpose: "cluster", State: "refused", Spec: spec, GPUModel: "H100", PricePerHour: tokens("7000000", "7.000000"),
			Hold: tokens("42000000", "42.000000"), CreatedAt: ago(3 * time.Hour), ExpiresAt: ago(3 * time.Hour),
			Refusal: &apiv1.BookingFault{Code: "no_capacity", Detail: "the GPUs went to somebody else"},
		},
	}
}

func cancelled(b apiv1.Booking) apiv1.Booking {
	b.State = "cancelled"
	return b
}

func testHistory() apiv1.MarketHistory {
	h := apiv1.MarketHistory{GPUModel: "H100", Region: "eu-north", From: ago(8 * time.Hour), To: testNow, StepMS: 3_600_000}
	for i, leased := range []int{32, 40, 64, 96, 128, 112, 80, 72} {
		point := apiv1.HistoryPoint{At: ago(time.Duration(8-i) * time.Hour), GPUs: 128, Leased: leased, UtilisationPercent: float64(leased) / 1.28}
		if leased < 128 {
			cheapest := []string{"1.900000", "1.900000", "1.950000", "2.100000", "", "2.250000", "2.000000", "1.950000"}[i]
			point.PriceMin = pointer(tokens(strings.ReplaceAll(cheapest, ".", ""), cheapest))
			point.PriceMedian = pointer(tokens("2200000", "2.200000"))
		}
		h.Points = append(h.Points, point)
	}
	return h
}

func testRunway() apiv1.Runway {
	return apiv1.Runway{
		AsOf: testNow, Available: tokens("20000000", "20.000000"), BurnPerHour: tokens("8000000", "8.000000"), HoldLeft: tokens("44000000", "44.000000"), HoursLeft: pointer(2.5),
		Clusters: []apiv1.RunwayCluster{
			{ClusterID: readyID, Name: "demo", State: "ready", PerHour: tokens("8000000", "8.000000"), HoldLeft: tokens("4000000", "4.000000"), StopsAt: pointer(testNow.Add(25 * time.Minute))},
			{ClusterID: endedID, Name: "notebooks", State: "parked", PerHour: tokens("0", "0.000000"), HoldLeft: tokens("40000000", "40.000000"), ReleasesAt: pointer(testNow.Add(23 * time.Hour))},
		},
		Warnings: []string{"demo stops at 20:25 UTC, in 25m: extend it or save its work.", "The balance of 20.00 USDC pays for 2h30m more at this rate."},
	}
}

func stoppingCluster() apiv1.Cluster {
	c := readyCluster()
	c.AutoStop = apiv1.AutoStop{ParkAfter: "30m", ReleaseAfter: "24h"}
	c.ParksAt = pointer(testNow.Add(10 * time.Minute))
	return c
}

func parkedCluster() apiv1.Cluster {
	c := stoppingCluster()
	c.State, c.ParksAt, c.EndsAt, c.ReleasesAt, c.Nodes = "parked", nil, nil, pointer(testNow.Add(24*time.Hour)), c.Nodes[:1]
	c.Phases = append(c.Phases, apiv1.Phase{State: "parked", EnteredAt: testNow})
	return c
}

func testEarningCheck() apiv1.EarningCheck {
	return apiv1.EarningCheck{
		Summary: "It fails the health gate clock: its clock is 41 s fast.",
		Checks: []apiv1.EarningStep{
			{Check: "connected", State: "pass", Measured: "3 s ago", Required: "a beat every 10 s"},
			{Check: "gates", State: "fail", Measured: "clock: 41 s fast", Required: "within 5 s", Fix: "run an NTP client, such as chrony", Since: pointer(ago(3 * time.Hour))},
			{Check: "price", State: "pass", Measured: "1.90 USDC", Required: "hired ones ask 2.10 USDC"},
		},
	}
}

func testWindows() []apiv1.Maintenance {
	planned := apiv1.Maintenance{
		ID: windowID, HostID: hostID, State: "planned", StartsAt: testNow.Add(50 * time.Hour), EndsAt: testNow.Add(52 * time.Hour), Note: "new PSU", CreatedAt: ago(time.Hour), AnnouncedAt: pointer(ago(time.Hour)),
	}
	given := planned
	given.State, given.CancelledAt = "cancelled", &testNow
	return []apiv1.Maintenance{planned, given}
}

func testPrices() apiv1.AskPrices {
	return apiv1.AskPrices{
		Hourly: tokens("1900000", "1.900000"), Daily: tokens("1710000", "1.710000"), Weekly: tokens("1520000", "1.520000"), Monthly: tokens("1520000", "1.520000"),
		Spot: pointer(tokens("1140000", "1.140000")),
	}
}

func testRules() apiv1.AskRules {
	return apiv1.AskRules{
		Discounts:   []apiv1.AskDiscount{{From: "daily", Percent: 10}, {From: "weekly", Percent: 20}},
		Utilisation: []apiv1.AskStep{{Above: pointer(80), Percent: 15}, {Below: pointer(30), Percent: -10}},
		Calendar:    []apiv1.AskPeriod{{Days: []string{"sat", "sun"}, From: "22:00", To: "06:00", Percent: -20}}, SpotPercent: pointer(40), AuctionPercent: 15,
	}
}

func testPreview() apiv1.AskPreview {
	preview := apiv1.AskPreview{Now: testPrices(), Rank: 3, Peers: 14, Past: &apiv1.AskPast{SampledMS: (30 * 24 * time.Hour).Milliseconds(), Earned: tokens("812500000", "812.500000"), HiredPercent: 61.3}}
	for hour := range 48 {
		price := tokens("1900000", "1.900000")
		if hour%24 < 6 {
			price = tokens("1520000", "1.520000")
		}
		preview.Hours = append(preview.Hours, apiv1.AskPriceHour{At: testNow.Truncate(24 * time.Hour).Add(time.Duration(hour) * time.Hour), Price: price})
	}
	return preview
}

func readyCluster() apiv1.Cluster {
	return apiv1.Cluster{
		ID: readyID, OrgID: testOrg, BookingID: fixed[ids.Booking](1), Name: "demo", State: "ready", Version: 7, GPUModel: "H100", NodeCount: 2,
		GPUsPerNode: 2, RayVersion: "2.60.0", RayReachable: true, Billing: true, CreatedAt: ago(31 * time.Minute), ReadyAt: pointer(ago(30 * time.Minute)),
		EndsAt: pointer(testNow.Add(30 * time.Minute)),
		Nodes: []apiv1.Node{
			{ID: fixed[ids.Node](1), HostID: fixed[ids.Host](9), Role: "head", State: "alive", Address: "127.77.0.2", Region: "eu-north", CreatedAt: ago(31 * time.Minute)},
			{
				ID: fixed[ids.Node](2), HostID: hostID, Role: "gpu", Ordinal: 1, State: "alive", Address: "127.77.0.3", Region: "eu-north", GPUs: 2,
				PricePerGPUHour: pointer(tokens("1900000", "1.900000")), CreatedAt: ago(31 * time.Minute),
			},
			{
				ID: fixed[ids.Node](3), HostID: fixed[ids.Host](2), Role: "gpu", Ordinal: 2, State: "failed", Reason: "ray ended by itself\nTraceback\n\x1b[2J", Address: "127.77.0.4",
				Region: "eu-north", GPUs: 2, PricePerGPUHour: pointer(tokens("2100000", "2.100000")), CreatedAt: ago(31 * time.Minute),
			},
		},
		Phases: []apiv1.Phase{
			{State: "reserved", EnteredAt: ago(31 * time.Minute), DurationMS: pointer(int64(88))},
			{State: "head_up", EnteredAt: ago(31 * time.Minute), DurationMS: pointer(int64(59_912))},
			{State: "ready", EnteredAt: ago(30 * time.Minute)},
		},
		Cost: &apiv1.ClusterCost{
			Hold: tokens("8000000", "8.000000"), Charged: tokens("4000000", "4.000000"), PerHour: tokens("8000000", "8.000000"), RefundNow: tokens("4000000", "4.000000"),
			Refunded: tokens("0", "0.000000"), AsOf: testNow, BilledMS: 1_800_000, DurationMS: 3_600_000,
		},
		Receipt: &apiv1.Receipt{MadeAt: ago(30 * time.Minute), SHA256: "503c2fb99fd0a0c4", Document: "{}"},
	}
}

func joiningCluster() apiv1.Cluster {
	c := readyCluster()
	c.State, c.ReadyAt, c.EndsAt, c.Receipt = "joining", nil, nil, nil
	c.Nodes = c.Nodes[:2]
	c.Nodes[1].State = "starting"
	c.Phases = []apiv1.Phase{
		{State: "reserved", EnteredAt: ago(8 * time.Second), DurationMS: pointer(int64(88))}, {State: "joining", EnteredAt: ago(4 * time.Second)},
	}
	return c
}

func endedCluster() apiv1.Cluster {
	c := readyCluster()
	c.ID, c.Name, c.State, c.Billing, c.EndsAt = endedID, "old", "failed", false, nil
	c.EndedAt, c.SettledAt = pointer(ago(24*time.Hour)), pointer(ago(24*time.Hour))
	c.CreatedAt, c.ReadyAt = ago(25*time.Hour), nil
	c.FaultParty, c.EndReason = "owner", "Two nodes were lost.\nlong\nstory"
	return c
}

// summary is a cluster as lists have it.
func summary(c apiv1.Cluster) apiv1.Cluster {
	c.Nodes, c.Phases, c.Cost, c.Receipt, c.EndsAt = nil, nil, nil, nil, nil
	return c
}

func testEvents() []apiv1.ClusterEvent {
	return []apiv1.ClusterEvent{
		{Seq: 1, ClusterID: readyID, At: ago(31 * time.Minute), Kind: "state", State: "reserved", Message: "Reserved 2 x 2 H100 and set the money aside."},
		{Seq: 2, ClusterID: readyID, At: ago(30 * time.Minute), Kind: "receipt", Message: "Delivered as booked."},
		{Seq: 3, ClusterID: readyID, At: ago(30 * time.Minute), Kind: "state", State: "ready", Message: "Every node has joined Ray, as booked."},
	}
}

func testJobs() []apiv1.Job {
	return []apiv1.Job{
		{ID: "raysubmit_two", Status: "RUNNING", Entrypoint: "python train.py\n--epochs 3", StartedAt: pointer(ago(90 * time.Second))},
		{
			ID: "raysubmit_one", Status: "FAILED", Entrypoint: "false", Message: "Job entrypoint command failed with exit code 1, last available logs: nothing",
			StartedAt: pointer(ago(time.Hour)), EndedAt: pointer(ago(59 * time.Minute)),
		},
	}
}

func testWallet() apiv1.Wallet {
	return apiv1.Wallet{
		Available: tokens("992400000", "992.400000"), Held: tokens("7600000", "7.600000"), SpendPerHour: tokens("7600000", "7.600000"),
		DepositAddress: "4X5mYpANEg9UPNf6gzBwvjuXnm8tCdB2xEpaxRapVLrx", DepositTokenAccount: "BJkXtPtqNSR8XDJGm5n6w5RKbgwjziEkqQaywuiEacuP",
		SolanaPayURL:   "solana:4X5mYpANEg9UPNf6gzBwvjuXnm8tCdB2xEpaxRapVLrx?label=Muster&spl-token=4xNLd3bpemVoToYGD5PbbLCve2CoQd4MD9DSLs5F1cun",
		MinimumDeposit: tokens("10000", "0.010000"), MinimumWithdrawal: tokens("1000000", "1.000000"),
	}
}

func testLines() []apiv1.WalletLine {
	return []apiv1.WalletLine{
		{
			ID: fixed[ids.Transfer](2), At: ago(time.Minute), Kind: "charge", Text: "GPU time of demo", Account: "held", Amount: tokens("-105798", "-0.105798"),
			Balance: tokens("7494202", "7.494202"), ClusterID: &readyID,
		},
		{
			ID: fixed[ids.Transfer](1), At: ago(time.Hour), Kind: "deposit", Text: "Deposit received", Account: "available", Amount: tokens("1000000000", "1000.000000"),
			Balance: tokens("1000000000", "1000.000000"), Signature: testSignature,
		},
	}
}

func testDeposits() []apiv1.Deposit {
	return []apiv1.Deposit{
		{ID: fixed[ids.Deposit](2), At: ago(time.Minute), Amount: "0.001000", Mint: testNetwork("").Mint, State: "suspense", Reason: "less than the least deposit", Signature: testSignature},
		{ID: fixed[ids.Deposit](1), At: ago(time.Hour), Amount: "1000.000000", Mint: testNetwork("").Mint, State: "credited", Signature: testSignature},
	}
}

func testHosts() []apiv1.Host {
	gpu := func(n byte, leased bool) apiv1.GPU {
		return apiv1.GPU{ID: fixed[ids.GPU](n), UUID: "GPU-1272683d-3a99-8b58-2f3d-33a3d3be8d8f", Model: "H100", Product: "NVIDIA H100 80GB HBM3", MemoryMiB: 81559, Healthy: true, Leased: leased}
	}
	sick := gpu(3, false)
	sick.Healthy, sick.HealthNote = false, "XID 79: fell off the bus"
	return []apiv1.Host{
		{
			ID: hostID, Name: "rack-7", Kind: "gpu", State: "leased", Region: "eu-north", Site: "oslo-1", Connected: true, LastSeenAt: pointer(ago(3 * time.Second)),
			EnrolledAt: ago(72 * time.Hour), AgentVersion: "1.2.0", DriverVersion: "570.172.08", CUDAVersion: "12.8", GPUs: []apiv1.GPU{gpu(1, true), gpu(2, true), sick},
			Ask:      &apiv1.Ask{PricePerGPUHour: tokens("1900000", "1.900000"), Floor: pointer(tokens("1200000", "1.200000")), Rules: testRules(), Now: testPrices(), Active: true, UpdatedAt: ago(time.Hour)},
			Liveness: "live", Tier: "proven", ReliabilityPercent: 99.42, RTTMS: pointer(14.2), Maintenance: testWindows()[:1],
			Gates: []apiv1.Gate{
				{Gate: "xid", State: "fail", Closes: false, Measured: "XID 79 on GPU 2", Required: "none in 24 h", Fix: "reset the GPU or replace it", Since: ago(3 * time.Hour)},
				{Gate: "clock", State: "pass", Measured: "0.2 s fast", Required: "within 5 s", Since: ago(72 * time.Hour)},
			}, CertificateExpiresAt: pointer(testNow.Add(20 * time.Hour)),
		},
		{
			ID: fixed[ids.Host](2), Name: "rack-8", Kind: "gpu", State: "lost", Region: "eu-north", EnrolledAt: ago(72 * time.Hour), GPUs: []apiv1.GPU{},
			WhyNotEarning: "Its agent is not connected: check that muster-worker runs on it.",
		},
	}
}

func testEarnings() apiv1.Earnings {
	return apiv1.Earnings{
		Payable: tokens("55566", "0.055566"), InFlight: tokens("0", "0.000000"), Paid: tokens("120000000", "120.000000"),
		Days:  []apiv1.EarningsDay{{Day: "2026-11-22", Earned: tokens("55566", "0.055566"), Paid: tokens("120000000", "120.000000")}},
		Hosts: []apiv1.EarningsHost{{HostID: hostID, Name: "rack-7", Earned: tokens("120055566", "120.055566"), GPUHours: "63.1871"}},
	}
}

func testPayout(state string) apiv1.Payout {
	p := apiv1.Payout{
		ID: fixed[ids.Payout](1), BatchID: finalID, OrgID: fixed[ids.Org](2), Payee: "Ridge Compute", Address: "DBGdHHKpD5bb16TsqccXdQEQszXYZXGaF5AGYX4xqePk",
		TokenAccount: "4dg432DGaxgfMwJYujjPGcNboHfku1q1zb1A9LHrAKp9", Amount: tokens("120000000", "120.000000"), Purpose: "earnings", State: state,
	}
	if state == "finalized" {
		p.Signature, p.FinalizedAt = testSignature, pointer(ago(time.Hour))
	}
	return p
}

func testPayable() apiv1.PayableSummary {
	return apiv1.PayableSummary{
		Total: tokens("55566", "0.055566"), Minimum: tokens("1", "0.000001"), Treasury: pointer(tokens("999999886810", "999999.886810")),
		Payees:  []apiv1.Payee{{OrgID: fixed[ids.Org](2), Name: "Ridge Compute", Address: "DBGdHHKpD5bb16TsqccXdQEQszXYZXGaF5AGYX4xqePk", Amount: tokens("55566", "0.055566")}},
		LeftOut: []apiv1.Payee{{OrgID: fixed[ids.Org](3), Name: "Fjord Systems", Amount: tokens("9000000", "9.000000"), Reason: "no payout address is set"}},
	}
}

func testBatch(id ids.Batch, state string) apiv1.Batch {
	b := apiv1.Batch{
		ID: id, State: state, Total: tokens("120000000", "120.000000"), PayeeCount: 1, CreatedAt: ago(2 * time.Hour), DraftedBy: "Fin, finance", ApprovalsNeeded: 1,
		Payouts: []apiv1.Payout{testPayout(state)},
	}
	if state == "finalized" {
		b.ApprovedBy, b.ApprovedAt, b.SentAt, b.FinalizedAt = "Olga", pointer(ago(time.Hour)), pointer(ago(time.Hour)), pointer(ago(time.Hour))
		b.Signature, b.Slot, b.FeeLamports = testSignature, pointer(int64(371)), pointer(int64(5800))
	}
	return b
}

const testTreasury = "CXhAjgLWgsP7HyKYLsFWUUY8LyZQWpEoTH2WzvJVqcVd"

func sol(units, text string) apiv1.Money {
	return apiv1.Money{BaseUnits: units, Text: text, Currency: "SOL", Decimals: 9}
}

func testSOLJournal() apiv1.SOLJournal {
	return apiv1.SOLJournal{
		Wallet: testTreasury, Month: "2026-11", Opening: sol("0", "0.000000000"), Closing: sol("9979625520", "9.979625520"), Transactions: 4, Failed: 1,
		Totals: []apiv1.SOLTotal{
			{Kind: "base_fee", Amount: sol("-15000", "-0.000015000"), Lines: 3},
			{Kind: "priority_fee", Amount: sol("-2200", "-0.000002200"), Lines: 2},
			{Kind: "rent_out", Amount: sol("-20357280", "-0.020357280"), Lines: 10},
			{Kind: "top_up", Amount: sol("10000000000", "10.000000000"), Lines: 1},
		},
	}
}

func testSOLLines() []apiv1.SOLLine {
	batch, sweep := fixed[ids.Batch](2), fixed[ids.Sweep](1)
	return []apiv1.SOLLine{
		{
			At: ago(time.Minute), Slot: 372, Signature: testSignature, Kind: "rent_out", Amount: sol("-2035728", "-0.002035728"), Account: testTreasury,
			Balance: sol("9979625520", "9.979625520"), Purpose: "batch", BatchID: &batch,
		},
		{
			At: ago(time.Hour), Slot: 300, Signature: testSignature, Kind: "base_fee", Amount: sol("-5000", "-0.000005000"), Failed: true,
			Balance: sol("9999995000", "9.999995000"), Purpose: "sweep", SweepID: &sweep,
		},
		{
			At: ago(2 * time.Hour), Slot: 12, Signature: testSignature, Kind: "top_up", Amount: sol("10000000000", "10.000000000"),
			Balance: sol("10000000000", "10.000000000"),
		},
	}
}

func testReconciliation(differs bool) apiv1.Reconciliation {
	r := apiv1.Reconciliation{
		ID: fixed[ids.Reconciliation](1), StartedAt: ago(time.Minute), State: "clean", Slot: 372, Matched: 3,
		Accounts: []apiv1.ReconciledAccount{{
			Name: "treasury", Address: "DQwn1rL4ckHfvMj1ifB6KbpkEWGtTAXvSrh5h5jWki35", In: tokens("1000000000000", "1000000.000000"), Out: tokens("113190", "0.113190"),
			ChainClosing: tokens("999999886810", "999999.886810"), LedgerClosing: tokens("999999886810", "999999.886810"), Transactions: 2, Continuous: true,
		}},
	}
	r.Wallets = []apiv1.ReconciledWallet{{
		Name: "treasury", Address: testTreasury, Balance: sol("9979625520", "9.979625520"), Journal: sol("9979625520", "9.979625520"), Transactions: 4, Continuous: true,
	}}
	if differs {
		r.Holdings = &apiv1.HoldingsSurvey{Wallets: 620, Asked: 502, Settlement: 1, Foreign: 204, LeftOut: 2_800, TooMany: 1}
		r.ID, r.State, r.DifferenceCount, r.Accounts[0].Continuous = fixed[ids.Reconciliation](2), "differences", 1, false
		r.Differences = []apiv1.Difference{{
			Class: "chain_only", Account: r.Accounts[0].Address, Signature: testSignature, Chain: pointer(tokens("5000000", "5.000000")), At: ago(time.Hour),
			Text: "The ledger does not know this transfer.",
		}}
	}
	return r
}

func testHolding(kind string) apiv1.TokenHolding {
	h := apiv1.TokenHolding{
		ID: fixed[ids.Holding](1), Kind: kind, Account: "Hd7wGkzXoQfC8tW1i1DrJ3aMhU1x7tJmKqPzQm3yVn2B", Wallet: "DQwn1rL4ckHfvMj1ifB6KbpkEWGtTAXvSrh5h5jWki35",
		Mint: "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU", Program: "token", Decimals: 6, Amount: "3.000000", InSuspense: "3.000000",
		Deposits: []ids.Deposit{fixed[ids.Deposit](3)}, Present: true, FirstSeen: ago(48 * time.Hour), LastSeen: ago(time.Minute),
		Note: "Nothing pays out of this account or sweeps it: move what it holds, or explain it in the difference about it.",
	}
	if kind == "foreign" {
		h.ID, h.Mint, h.Program, h.Amount, h.InSuspense, h.Deposits = fixed[ids.Holding](2), "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB", "token_2022", "0.010", "0.000", nil
		h.Customer, h.ChangedAt = "Ada Robotics", pointer(ago(time.Hour))
		h.Note = "Not counted: another token, which no balance counts. Anybody can send any token to any wallet."
	}
	return h
}
