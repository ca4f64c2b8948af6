package api

import (
	"net/http"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/ids"
)

const (
	get  = http.MethodGet
	post = http.MethodPost
	put  = http.MethodPut
	del  = http.MethodDelete

	created   = http.StatusCreated
	noContent = http.StatusNoContent
	notFound  = http.StatusNotFound
)

// The inputs that only one operation takes.
type (
	offersInput struct {
		PageParams
		Query string `query:"q" maxLength:"1000" doc:"Conditions on hosts, such as gpu=H100 vram>=80GB region=eu price<2.5; a mistake is answered with its position"`
		Sort  string `query:"sort" enum:"price,free,vram,model,region,utilisation,reliability,spot,-price,-free,-vram,-model,-region,-utilisation,-reliability,-spot" doc:"What comes first; price when absent"`
	}
	historyInput struct {
		GPUModel string    `query:"gpu_model" required:"true" minLength:"1" maxLength:"40"`
		Region   string    `query:"region" maxLength:"40" doc:"All regions together when absent"`
		From     time.Time `query:"from" doc:"24 hours before the end when absent"`
		To       time.Time `query:"to" doc:"Now when absent"`
		Step     string    `query:"step" maxLength:"20" doc:"How far apart the points are: 15m when absent"`
	}
	bookingsInput struct {
		OrgParam
		PageParams
		State string `query:"state" enum:"bidding,quoted,scheduled,accepted,expired,refused,cancelled" doc:"Only this state; when absent all but quotes that were never accepted"`
	}
	bookingMutation struct {
		OrgParam
		KeyParam
		ID ids.Booking `path:"id" json:"id"`
	}
	nodeMutation struct {
		OrgParam
		KeyParam
		ClusterParam
		Node ids.Node `path:"node" json:"node"`
	}
	windowMutation struct {
		OrgParam
		KeyParam
		HostParam
		Window ids.Maintenance `path:"window" json:"window"`
	}
	quoteInput struct {
		OrgParam
		ID ids.Booking `path:"id"`
	}
	bidsInput struct {
		OrgParam
		PageParams
		ID ids.Booking `path:"id"`
	}
	windowsInput struct {
		OrgParam
		PageParams
		HostParam
	}
	clustersInput struct {
		OrgParam
		PageParams
		State string `query:"state" enum:"reserved,preparing,head_up,joining,ready,degraded,parked,draining,released,failed,live" doc:"Only this state; live: every one that has not ended"`
	}
	eventsInput struct {
		OrgParam
		ClusterParam
		After int64 `query:"after" minimum:"0" doc:"Only events with a greater seq"`
		Limit int   `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Most items of a page"`
	}
	streamInput struct {
		OrgParam
		LastEventID string `header:"Last-Event-ID" maxLength:"20" doc:"The seq to resume after; a browser sends it by itself"`
	}
	keyInput struct {
		OrgParam
		KeyParam
		ID ids.Key `path:"id" json:"id"`
	}
	joinTokenInput struct {
		OrgParam
		KeyParam
		ID ids.JoinToken `path:"id" json:"id"`
	}
	batchInput struct {
		OrgParam
		ID ids.Batch `path:"id"`
	}
	batchMutation struct {
		OrgParam
		KeyParam
		ID ids.Batch `path:"id" json:"id"`
	}
	reconciliationInput struct {
		OrgParam
		ID ids.Reconciliation `path:"id"`
	}
	foundInput struct {
		KeyParam
		Body apiv1.OrgCreate `json:"body"`
	}
)

func (s *Server) registerIdentity() {
	register(s, endpoint{
		id: "get-network", method: get, path: "/v1/network", tag: tagIdentity,
		summary: "The chain and token in use",
	}, s.getNetwork)
	register(s, endpoint{
		id: "create-nonce", method: post, path: "/v1/auth/nonce", tag: tagIdentity,
		summary: "Ask for a sign-in message",
		doc:     "Gives the fields that the wallet is to sign, good for five minutes, once, in the browser that asked.",
	}, s.createNonce)
	register(s, endpoint{
		id: "sign-in", method: post, path: "/v1/auth/sign-in", tag: tagIdentity,
		summary: "Sign in with the signed message", codes: []int{http.StatusUnauthorized},
	}, s.signIn)
	register(s, endpoint{
		id: "sign-out", method: post, path: "/v1/auth/sign-out", tag: tagIdentity,
		summary: "End the session", status: noContent,
	}, s.signOut)
	register(s, endpoint{
		id: "get-me", method: get, path: "/v1/me", tag: tagIdentity,
		summary: "Who the caller is and where they may act",
	}, s.getMe)
	register(s, endpoint{
		id: "create-organisation", method: post, path: "/v1/organisations", tag: tagIdentity,
		summary: "Found an organisation", status: created,
	}, s.createOrganisation)
	register(s, endpoint{
		id: "set-payout-address", method: put, path: "/v1/organisation/payout-address", tag: tagIdentity,
		summary: "Change where earnings are paid to", doc: "Wants a wallet signature of the last five minutes: sign in again first.",
	},
		s.setPayoutAddress)
	register(s, endpoint{id: "list-members", method: get, path: "/v1/members", tag: tagIdentity, summary: "List the members"}, s.listMembers)
	register(s, endpoint{
		id: "put-member", method: put, path: "/v1/members", tag: tagIdentity,
		summary: "Add a wallet, change its roles or remove it",
	}, s.putMember)
	register(s, endpoint{id: "list-keys", method: get, path: "/v1/keys", tag: tagIdentity, summary: "List the caller's API keys"}, s.listKeys)
	register(s, endpoint{
		id: "create-key", method: post, path: "/v1/keys", tag: tagIdentity,
		summary: "Create an API key", doc: "The secret is shown in this answer only.", status: created,
	}, s.createKey)
	register(s, endpoint{
		id: "revoke-key", method: del, path: "/v1/keys/{id}", tag: tagIdentity,
		summary: "Revoke an API key", status: noContent, codes: []int{notFound},
	}, s.revokeKey)
}

func (s *Server) registerMarket() {
	register(s, endpoint{
		id: "list-offers", method: get, path: "/v1/offers", tag: tagMarket, summary: "What there is to book now",
		doc: "By GPU model and region, of the hosts that pass the query.",
	}, s.listOffers)
	register(s, endpoint{
		id: "get-market-history", method: get, path: "/v1/market/history", tag: tagMarket,
		summary: "How prices and use of a GPU model went",
	}, s.getMarketHistory)
	register(s, endpoint{
		id: "create-quote", method: post, path: "/v1/quotes", tag: tagMarket,
		summary: "Price a cluster", doc: "The price holds until the quote expires; nothing is reserved yet. When nothing fits, the " +
			"problem no_capacity carries the Explanation, whose changes are quotes that fit. An auction is answered at once in state bidding: read " +
			"the quote again when its bids are in.", status: created,
	}, s.createQuote)
	register(s, endpoint{
		id: "get-quote", method: get, path: "/v1/quotes/{id}", tag: tagMarket, summary: "Read a quote",
		codes: []int{notFound},
	}, s.getQuote)
	register(s, endpoint{
		id: "explain", method: post, path: "/v1/explain", tag: tagMarket,
		summary: "What is left after each condition, and which one blocks",
		doc:     "Also when the cluster fits: blocking is empty then. The changes are the nearest clusters that fit; quotes of them come with POST /v1/quotes.",
	}, s.explain)
	register(s, endpoint{
		id: "list-bids", method: get, path: "/v1/quotes/{id}/bids", tag: tagMarket, summary: "An auction's bids, cheapest first",
		doc: "They are sealed until the window has closed: a conflict before.", codes: []int{notFound, http.StatusConflict},
	}, s.listBids)
	register(s, endpoint{id: "list-bookings", method: get, path: "/v1/bookings", tag: tagMarket, summary: "List bookings"}, s.listBookings)
	register(s, endpoint{
		id: "cancel-booking", method: post, path: "/v1/bookings/{id}/cancel", tag: tagMarket,
		summary: "Give up a booking that has not started", doc: "One that is bidding, quoted or scheduled. What it holds comes back.", codes: []int{notFound},
	}, s.cancelBooking)
	register(s, endpoint{
		id: "create-booking", method: post, path: "/v1/bookings", tag: tagMarket,
		summary: "Accept a quote", doc: "Answers when it is decided. Repeating it gives the same booking: the quote's id is the key.",
		status: created, codes: []int{notFound, http.StatusPaymentRequired, http.StatusGone},
	}, s.createBooking)
	register(s, endpoint{
		id: "get-booking", method: get, path: "/v1/bookings/{id}", tag: tagMarket, summary: "Read a booking",
		codes: []int{notFound},
	}, s.getBooking)
}

func (s *Server) registerClusters() {
	missing := []int{notFound}
	down := []int{notFound, http.StatusConflict, http.StatusServiceUnavailable}
	register(s, endpoint{id: "list-clusters", method: get, path: "/v1/clusters", tag: tagClusters, summary: "List clusters"}, s.listClusters)
	register(s, endpoint{
		id: "get-cluster", method: get, path: "/v1/clusters/{id}", tag: tagClusters,
		summary: "Read a cluster with its nodes, phases, cost and receipt", codes: missing,
	}, s.getCluster)
	register(s, endpoint{
		id: "release-cluster", method: post, path: "/v1/clusters/{id}/release", tag: tagClusters,
		summary: "Stop a cluster and get the rest of the hold back", codes: missing,
	}, s.releaseCluster)
	register(s, endpoint{
		id: "quote-extension", method: post, path: "/v1/clusters/{id}/extension-quote", tag: tagClusters,
		summary: "Price more time", doc: "Accepted like any quote.", status: created, codes: missing,
	}, s.quoteExtension)
	register(s, endpoint{
		id: "quote-addition", method: post, path: "/v1/clusters/{id}/addition-quote", tag: tagClusters,
		summary: "Price more nodes", doc: "Like those the cluster has, until its end. Accepted like any quote.", status: created, codes: missing,
	}, s.quoteAddition)
	register(s, endpoint{
		id: "remove-node", method: del, path: "/v1/clusters/{id}/nodes/{node}", tag: tagClusters,
		summary: "Take a node out of a running cluster", doc: "Its part of the hold comes back.", codes: missing,
	}, s.removeNode)
	register(s, endpoint{
		id: "set-auto-stop", method: put, path: "/v1/clusters/{id}/auto-stop", tag: tagClusters,
		summary: "Say when an idle cluster gives its nodes back, and when it ends", codes: missing,
	}, s.setAutoStop)
	register(s, endpoint{
		id: "resume-cluster", method: post, path: "/v1/clusters/{id}/resume", tag: tagClusters,
		summary: "Bring a parked cluster's nodes back", codes: missing,
	}, s.resumeCluster)
	register(s, endpoint{
		id: "list-cluster-events", method: get, path: "/v1/clusters/{id}/events", tag: tagClusters,
		summary: "The timeline, oldest first", codes: missing,
	}, s.listClusterEvents)
	register(s, endpoint{
		id: "get-cluster-cost", method: get, path: "/v1/clusters/{id}/cost", tag: tagClusters,
		summary: "What it costs, so far and at most", codes: missing,
	}, s.getClusterCost)
	register(s, endpoint{
		id: "create-ray-token", method: post, path: "/v1/clusters/{id}/ray-token", tag: tagClusters,
		summary: "A token for stock Ray clients", status: created, codes: missing,
	}, s.createRayToken)
	register(s, endpoint{
		id: "create-dashboard-ticket", method: post, path: "/v1/clusters/{id}/dashboard-ticket", tag: tagClusters,
		summary: "A one-time address of the Ray dashboard", status: created, codes: missing,
	}, s.createDashboardTicket)
	register(s, endpoint{id: "list-jobs", method: get, path: "/v1/clusters/{id}/jobs", tag: tagClusters, summary: "List Ray jobs", codes: down}, s.listJobs)
	register(s, endpoint{
		id: "get-job-logs", method: get, path: "/v1/clusters/{id}/jobs/{job}/logs", tag: tagClusters,
		summary: "What a job has printed", codes: down,
	}, s.getJobLogs)
	register(s, endpoint{
		id: "stop-job", method: post, path: "/v1/clusters/{id}/jobs/{job}/stop", tag: tagClusters,
		summary: "Stop a job", codes: down,
	}, s.stopJob)
	register(s, endpoint{
		id: "stream", method: get, path: "/v1/stream", tag: tagClusters,
		summary: "Changes as they happen (server-sent events)",
		doc:     "Events named cluster, whose data is a StreamEvent and whose id is its seq. Resumes after Last-Event-ID.",
		success: eventStream[apiv1.StreamEvent](s.huma),
	}, s.stream)
}

func (s *Server) registerHosts() {
	missing := []int{notFound}
	register(s, endpoint{id: "list-hosts", method: get, path: "/v1/hosts", tag: tagHosts, summary: "List hosts"}, s.listHosts)
	register(s, endpoint{id: "get-host", method: get, path: "/v1/hosts/{id}", tag: tagHosts, summary: "Read a host", codes: missing}, s.getHost)
	register(s, endpoint{id: "set-ask", method: put, path: "/v1/hosts/{id}/ask", tag: tagHosts, summary: "Set a host's price, floor and rules", codes: missing}, s.setAsk)
	register(s, endpoint{
		id: "preview-ask", method: post, path: "/v1/hosts/{id}/ask/preview", tag: tagHosts,
		summary: "What a price and its rules would do", doc: "Saves nothing.", codes: missing,
	}, s.previewAsk)
	register(s, endpoint{
		id: "check-earning", method: get, path: "/v1/hosts/{id}/earning-check", tag: tagHosts,
		summary: "Why a host does not earn, and what to do", codes: missing,
	}, s.checkEarning)
	register(s, endpoint{
		id: "list-maintenance", method: get, path: "/v1/hosts/{id}/maintenance", tag: tagHosts, summary: "List a host's maintenance windows", codes: missing,
	}, s.listMaintenance)
	register(s, endpoint{
		id: "plan-maintenance", method: post, path: "/v1/hosts/{id}/maintenance", tag: tagHosts,
		summary: "Plan a window in which a host is away", doc: "Customers in it are told; new bookings keep clear of it.", status: created, codes: missing,
	}, s.planMaintenance)
	register(s, endpoint{
		id: "cancel-maintenance", method: post, path: "/v1/hosts/{id}/maintenance/{window}/cancel", tag: tagHosts,
		summary: "Give up a window, or end one that has begun", codes: missing,
	}, s.cancelMaintenance)
	register(s, endpoint{
		id: "recheck-host", method: post, path: "/v1/hosts/{id}/recheck", tag: tagHosts,
		summary: "Have a host verified again", doc: "Out of quarantine too, when that is for its hardware.", codes: missing,
	}, s.recheckHost)
	register(s, endpoint{
		id: "drain-host", method: post, path: "/v1/hosts/{id}/drain", tag: tagHosts,
		summary: "Take no new clusters on a host; running ones end by themselves", codes: missing,
	}, s.drainHost)
	register(s, endpoint{
		id: "undrain-host", method: post, path: "/v1/hosts/{id}/undrain", tag: tagHosts,
		summary: "Take clusters again", codes: missing,
	}, s.undrainHost)
	register(s, endpoint{
		id: "retire-host", method: post, path: "/v1/hosts/{id}/retire", tag: tagHosts,
		summary: "Remove a host for good", codes: missing,
	}, s.retireHost)
	register(s, endpoint{id: "list-join-tokens", method: get, path: "/v1/join-tokens", tag: tagHosts, summary: "List join tokens"}, s.listJoinTokens)
	register(s, endpoint{
		id: "create-join-token", method: post, path: "/v1/join-tokens", tag: tagHosts,
		summary: "Permit one host to enrol", doc: "The secret is shown in this answer only; it works once, for 15 minutes.", status: created,
	},
		s.createJoinToken)
	register(s, endpoint{
		id: "revoke-join-token", method: del, path: "/v1/join-tokens/{id}", tag: tagHosts,
		summary: "Revoke a join token", status: noContent, codes: missing,
	}, s.revokeJoinToken)
	register(s, endpoint{id: "get-earnings", method: get, path: "/v1/earnings", tag: tagHosts, summary: "What the hosts have earned"}, s.getEarnings)
	register(s, endpoint{id: "list-payouts", method: get, path: "/v1/payouts", tag: tagHosts, summary: "List the organisation's payouts"}, s.listPayouts)
}

func (s *Server) registerWallet() {
	register(s, endpoint{id: "get-wallet", method: get, path: "/v1/wallet", tag: tagWallet, summary: "The balance and where to deposit"}, s.getWallet)
	register(s, endpoint{
		id: "get-runway", method: get, path: "/v1/wallet/runway", tag: tagWallet,
		summary: "What clusters cost per hour, when they stop and how long the balance lasts",
	}, s.getRunway)
	register(s, endpoint{id: "list-wallet-lines", method: get, path: "/v1/wallet/lines", tag: tagWallet, summary: "Every movement"}, s.listWalletLines)
	register(s, endpoint{id: "list-deposits", method: get, path: "/v1/wallet/deposits", tag: tagWallet, summary: "List deposits"}, s.listDeposits)
}

// registerLocal adds what only a local network has.
func (s *Server) registerLocal() {
	register(s, endpoint{
		id: "use-faucet", method: post, path: "/v1/local/faucet", tag: tagWallet,
		summary: "Get test tokens", doc: "On a local network only.",
	}, s.useFaucet)
}

func (s *Server) registerFinance() {
	missing := []int{notFound}
	register(s, endpoint{id: "get-payable", method: get, path: "/v1/finance/payable", tag: tagFinance, summary: "What a payout run would pay now"}, s.getPayable)
	register(s, endpoint{id: "list-batches", method: get, path: "/v1/finance/batches", tag: tagFinance, summary: "List payout batches"}, s.listBatches)
	register(s, endpoint{
		id: "draft-batches", method: post, path: "/v1/finance/batches", tag: tagFinance,
		summary: "Draft a payout run", status: created,
	}, s.draftBatches)
	register(s, endpoint{id: "get-batch", method: get, path: "/v1/finance/batches/{id}", tag: tagFinance, summary: "Read a batch", codes: missing}, s.getBatch)
	register(s, endpoint{
		id: "approve-batch", method: post, path: "/v1/finance/batches/{id}/approve", tag: tagFinance,
		summary: "Approve a batch that somebody else drafted", codes: missing,
	}, s.approveBatch)
}
