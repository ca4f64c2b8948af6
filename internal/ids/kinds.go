package ids

// Org identifies an organisation.
type Org = ID[orgKind]

type orgKind struct{}

// Prefix implements Kind.
func (orgKind) Prefix() string { return "org" }

// User identifies a person.
type User = ID[userKind]

type userKind struct{}

// Prefix implements Kind.
func (userKind) Prefix() string { return "usr" }

// Key identifies an API key.
type Key = ID[keyKind]

type keyKind struct{}

// Prefix implements Kind.
func (keyKind) Prefix() string { return "key" }

// Session identifies a signed-in browser.
type Session = ID[sessionKind]

type sessionKind struct{}

// Prefix implements Kind.
func (sessionKind) Prefix() string { return "ses" }

// Host identifies a machine that runs the agent.
type Host = ID[hostKind]

type hostKind struct{}

// Prefix implements Kind.
func (hostKind) Prefix() string { return "host" }

// JoinToken identifies a one-use permission to enrol a host.
type JoinToken = ID[joinTokenKind]

type joinTokenKind struct{}

// Prefix implements Kind.
func (joinTokenKind) Prefix() string { return "join" }

// GPU identifies a GPU of a host.
type GPU = ID[gpuKind]

type gpuKind struct{}

// Prefix implements Kind.
func (gpuKind) Prefix() string { return "gpu" }

// Ask identifies an owner's price.
type Ask = ID[askKind]

type askKind struct{}

// Prefix implements Kind.
func (askKind) Prefix() string { return "ask" }

// Booking identifies a quote and, once accepted, the booking it became.
type Booking = ID[bookingKind]

type bookingKind struct{}

// Prefix implements Kind.
func (bookingKind) Prefix() string { return "bk" }

// Cluster identifies a Ray cluster.
type Cluster = ID[clusterKind]

type clusterKind struct{}

// Prefix implements Kind.
func (clusterKind) Prefix() string { return "cl" }

// Node identifies a cluster's member on a host.
type Node = ID[nodeKind]

type nodeKind struct{}

// Prefix implements Kind.
func (nodeKind) Prefix() string { return "node" }

// Lease identifies one GPU held by one node.
type Lease = ID[leaseKind]

type leaseKind struct{}

// Prefix implements Kind.
func (leaseKind) Prefix() string { return "lse" }

// Usage identifies one billable interval of a lease.
type Usage = ID[usageKind]

type usageKind struct{}

// Prefix implements Kind.
func (usageKind) Prefix() string { return "use" }

// Event identifies an entry of a cluster's timeline.
type Event = ID[eventKind]

type eventKind struct{}

// Prefix implements Kind.
func (eventKind) Prefix() string { return "evt" }

// RayAccess identifies a credential for one cluster's Ray API or dashboard.
type RayAccess = ID[rayAccessKind]

type rayAccessKind struct{}

// Prefix implements Kind.
func (rayAccessKind) Prefix() string { return "ray" }

// Account identifies a ledger account.
type Account = ID[accountKind]

type accountKind struct{}

// Prefix implements Kind.
func (accountKind) Prefix() string { return "acct" }

// Entry identifies a set of ledger transfers posted together.
type Entry = ID[entryKind]

type entryKind struct{}

// Prefix implements Kind.
func (entryKind) Prefix() string { return "ent" }

// Transfer identifies a ledger movement between two accounts.
type Transfer = ID[transferKind]

type transferKind struct{}

// Prefix implements Kind.
func (transferKind) Prefix() string { return "tr" }

// Deposit identifies an incoming token movement.
type Deposit = ID[depositKind]

type depositKind struct{}

// Prefix implements Kind.
func (depositKind) Prefix() string { return "dep" }

// Batch identifies the payouts of one chain transaction.
type Batch = ID[batchKind]

type batchKind struct{}

// Prefix implements Kind.
func (batchKind) Prefix() string { return "bat" }

// Payout identifies an amount owed to one payee in a batch.
type Payout = ID[payoutKind]

type payoutKind struct{}

// Prefix implements Kind.
func (payoutKind) Prefix() string { return "pay" }

// Reconciliation identifies one comparison of ledger and chain.
type Reconciliation = ID[reconciliationKind]

type reconciliationKind struct{}

// Prefix implements Kind.
func (reconciliationKind) Prefix() string { return "rec" }

// Difference identifies a disagreement of ledger and chain, across the runs that see it.
type Difference = ID[differenceKind]

type differenceKind struct{}

// Prefix implements Kind.
func (differenceKind) Prefix() string { return "dif" }

// Bid identifies a host's sealed price for one auction.
type Bid = ID[bidKind]

type bidKind struct{}

// Prefix implements Kind.
func (bidKind) Prefix() string { return "bid" }

// Maintenance identifies a planned absence of a host.
type Maintenance = ID[maintenanceKind]

type maintenanceKind struct{}

// Prefix implements Kind.
func (maintenanceKind) Prefix() string { return "mw" }

// Sweep identifies the movement of a customer's deposit into the treasury.
type Sweep = ID[sweepKind]

type sweepKind struct{}

// Prefix implements Kind.
func (sweepKind) Prefix() string { return "swp" }

// PayoutRun identifies one drafting of everything payable.
type PayoutRun = ID[payoutRunKind]

type payoutRunKind struct{}

// Prefix implements Kind.
func (payoutRunKind) Prefix() string { return "prun" }

// Withdrawal identifies money on its way back to a customer's wallet.
type Withdrawal = ID[withdrawalKind]

type withdrawalKind struct{}

// Prefix implements Kind.
func (withdrawalKind) Prefix() string { return "wd" }

// Holding identifies a token account of ours that the ledger does not mirror.
type Holding = ID[holdingKind]

type holdingKind struct{}

// Prefix implements Kind.
func (holdingKind) Prefix() string { return "hld" }
