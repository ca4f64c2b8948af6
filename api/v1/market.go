package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// Offer is what one region has of one GPU model now.
type Offer struct {
	GPUModel           string  `json:"gpu_model" example:"H100"`
	Region             string  `json:"region" example:"eu-west"`
	MemoryMiB          int64   `json:"memory_mib" doc:"Per GPU, the least of the hosts'"`
	FreeGPUs           int     `json:"free_gpus"`
	TotalGPUs          int     `json:"total_gpus"`
	Hosts              int     `json:"hosts" doc:"With at least one free GPU"`
	LargestNode        int     `json:"largest_node" doc:"Most free GPUs on one host"`
	PriceFrom          Money   `json:"price_from" doc:"Cheapest free GPU, per hour; zero while none is free"`
	PriceMedian        *Money  `json:"price_median,omitempty" doc:"Of the free GPUs, per hour; absent while none is free"`
	SpotFrom           *Money  `json:"spot_from,omitempty" doc:"Cheapest for spot bookings, per GPU-hour; absent where no host takes them"`
	UtilisationPercent float64 `json:"utilisation_percent" doc:"Of the offered GPUs, how many are leased" example:"62.5"`
	ReliabilityPercent float64 `json:"reliability_percent" doc:"Of the observed time, the median of the hosts" example:"99.2"`
	Simulated          bool    `json:"simulated" doc:"Some of these devices are simulated"`
}

// BookingSpec is the cluster that a customer wants.
type BookingSpec struct {
	Kind               string   `json:"kind,omitempty" enum:"market,auction,spot" default:"market" doc:"market: at the asked price; auction: hosts bid below it for a few seconds; spot: cheaper, and given up within 60 s when a market booking needs the GPUs"`
	GPUModel           string   `json:"gpu_model,omitempty" doc:"As listed by the offers; may be left out with min_vram_gb or min_compute_capability, and then the cheapest model is taken" example:"H100" maxLength:"40"`
	NodeCount          int      `json:"node_count" doc:"GPU nodes; the head comes on top and is free" example:"2"`
	GPUsPerNode        int      `json:"gpus_per_node" example:"1"`
	Duration           string   `json:"duration" doc:"How long, from ready: 30m, 6h, 2h30m; at least 1m, at most 720h" example:"1h"`
	Regions            []string `json:"regions,omitempty" doc:"Any of these, where eu is all of eu-west, eu-north and so on; all when absent" maxItems:"32"`
	MaxPricePerGPUHour string   `json:"max_price_per_gpu_hour,omitempty" doc:"Decimal tokens; spot bookings need one" example:"2.50"`
	ClusterName        string   `json:"cluster_name,omitempty" maxLength:"80"`

	MinVRAMGB             int       `json:"min_vram_gb,omitempty" minimum:"0" maximum:"10000" doc:"Memory of a GPU, in the gigabytes that it is sold under" example:"80"`
	MinComputeCapability  string    `json:"min_compute_capability,omitempty" pattern:"^[0-9]{1,2}(\\.[0-9])?$" patternDescription:"like 9.0" example:"9.0"`
	SameSite              bool      `json:"same_site,omitempty" doc:"All nodes in one local network"`
	MaxRTTMS              int       `json:"max_rtt_ms,omitempty" minimum:"0" maximum:"10000" doc:"Round trip between the two nodes farthest apart, at most"`
	CPUs                  int       `json:"cpus,omitempty" minimum:"0" maximum:"100000" doc:"Per node, at least"`
	MemoryGiB             int       `json:"memory_gib,omitempty" minimum:"0" maximum:"1000000" doc:"Per node, at least"`
	DiskGiB               int       `json:"disk_gib,omitempty" minimum:"0" maximum:"10000000" doc:"Per node, at least"`
	MinDriver             int       `json:"min_driver,omitempty" minimum:"0" maximum:"100000" doc:"Major version of the GPU driver" example:"570"`
	MinReliabilityPercent float64   `json:"min_reliability_percent,omitempty" minimum:"0" maximum:"100" doc:"Of the observed time; two decimals count" example:"99.5"`
	MinTier               string    `json:"min_tier,omitempty" enum:"new,proven,trusted" doc:"Hosts of this standing or a better one"`
	AllowOwners           []ids.Org `json:"allow_owners,omitempty" doc:"Only hosts of these" maxItems:"64"`
	DenyOwners            []ids.Org `json:"deny_owners,omitempty" doc:"No host of these" maxItems:"64"`

	StartsAt  *time.Time `json:"starts_at,omitempty" doc:"When it is to start; at once when absent"`
	BidWindow string     `json:"bid_window,omitempty" doc:"Auctions: how long hosts may bid, 2s to 60s" example:"10s"`
	Choose    string     `json:"choose,omitempty" enum:"cheapest,manual" doc:"Auctions: who picks the winning bids; manual: name them in bid_ids when booking"`
	AutoStop  *AutoStop  `json:"auto_stop,omitempty" doc:"Absent: it runs until its end, idle or not"`
}

// AutoStop ends an idle cluster in two stages. Idle is a cluster without a running job, a busy task or an open session.
type AutoStop struct {
	ParkAfter    string `json:"park_after,omitempty" doc:"Idle this long, the GPU nodes are released and billing stops; the head stays. Absent: never" example:"30m"`
	ReleaseAfter string `json:"release_after,omitempty" doc:"Parked this long, the cluster is released. Absent: never" example:"24h"`
}

// Quote is a price that holds until it expires. Its id is the key under which it can be booked once.
type Quote struct {
	ID            ids.Booking  `json:"id"`
	Kind          string       `json:"kind" enum:"market,auction,spot"`
	Purpose       string       `json:"purpose" enum:"cluster,addition,extension" doc:"What booking it does: a new cluster, more nodes for one, or more time for one"`
	ClusterID     *ids.Cluster `json:"cluster_id,omitempty" doc:"Which cluster it adds to or extends"`
	State         string       `json:"state" enum:"bidding,quoted,scheduled,accepted,expired,refused,cancelled" doc:"bidding: the auction is open, there is no price yet"`
	Spec          BookingSpec  `json:"spec"`
	GPUModel      string       `json:"gpu_model,omitempty" doc:"What it is of, also where the spec leaves the model open; absent while bidding"`
	Lines         []QuoteLine  `json:"lines" doc:"One per node"`
	Items         []QuoteItem  `json:"items" doc:"The hold, by who gets it; they add up to it"`
	PricePerHour  Money        `json:"price_per_hour" doc:"For the whole cluster, everything included"`
	PriceClass    string       `json:"price_class" enum:"hourly,daily,weekly,monthly,spot" doc:"Which of the hosts' prices it pays: longer bookings may be cheaper"`
	PriceNote     string       `json:"price_note,omitempty" doc:"What the class means, in a sentence; absent for hourly"`
	Saved         *Money       `json:"saved,omitempty" doc:"Of the hold, against the hosts' hourly prices; absent without a discount"`
	Hold          Money        `json:"hold" doc:"Set aside at booking: the most that the cluster can cost"`
	OwnersReceive Money        `json:"owners_receive" doc:"Of the hold, if all of it is used"`
	PlatformFee   Money        `json:"platform_fee" doc:"Of the hold, if all of it is used; contained in the price"`
	RefundHalfway Money        `json:"refund_halfway" doc:"Returned if the cluster is released at half time"`
	Available     Money        `json:"available" doc:"The organisation's balance now"`
	WorstRTTMS    *float64     `json:"worst_rtt_ms,omitempty" doc:"Round trip between the two nodes farthest apart, at most; 0 within one site; absent when not known"`
	Preempts      bool         `json:"preempts" doc:"It takes GPUs from spot bookings, which have 60 s to drain"`
	StartsAt      *time.Time   `json:"starts_at,omitempty" doc:"When it starts; at once when absent"`
	BidsCloseAt   *time.Time   `json:"bids_close_at,omitempty" doc:"Auctions: when the bids are opened"`
	Simulated     bool         `json:"simulated"`
	QuotedAt      time.Time    `json:"quoted_at"`
	ExpiresAt     time.Time    `json:"expires_at"`
}

// QuoteLine is one node of a quote.
type QuoteLine struct {
	HostID          ids.Host `json:"host_id"`
	OwnerID         ids.Org  `json:"owner_id"`
	Region          string   `json:"region"`
	Site            string   `json:"site"`
	GPUModel        string   `json:"gpu_model"`
	GPUs            int      `json:"gpus"`
	PricePerGPUHour Money    `json:"price_per_gpu_hour"`
	Amount          Money    `json:"amount" doc:"For the whole time, the fee contained"`
}

// QuoteItem is one part of a quote's hold.
type QuoteItem struct {
	Kind     string   `json:"kind" enum:"owner,fee"`
	OwnerID  *ids.Org `json:"owner_id,omitempty" doc:"Of kind owner: who receives it"`
	Text     string   `json:"text" example:"2 GPUs for 6h on 2 hosts"`
	GPUHours string   `json:"gpu_hours,omitempty" doc:"Decimal text" example:"12.0000"`
	Amount   Money    `json:"amount"`
}

// Bid is a host's price in an auction. Nobody sees it before the window has closed.
type Bid struct {
	ID              ids.Bid   `json:"id"`
	HostID          ids.Host  `json:"host_id"`
	OwnerID         ids.Org   `json:"owner_id"`
	Region          string    `json:"region"`
	Site            string    `json:"site,omitempty"`
	PricePerGPUHour Money     `json:"price_per_gpu_hour"`
	State           string    `json:"state" enum:"open,won,cancelled"`
	Quoted          bool      `json:"quoted" doc:"Part of the cheapest cluster, which is what the quote prices"`
	Simulated       bool      `json:"simulated"`
	MadeAt          time.Time `json:"made_at"`
}

// Explanation says why nothing fits: how many GPUs are left after each condition, which one blocks, and what would fit.
type Explanation struct {
	Blocking string            `json:"blocking" doc:"The condition that leaves too little: gpu_model, region, open, free, price, gpus_per_node, node_count, ..." example:"region"`
	Summary  string            `json:"summary" doc:"One sentence"`
	Funnel   []ExplanationStep `json:"funnel"`
	Changes  []Change          `json:"changes,omitempty" doc:"The nearest bookings that fit: at most six that change one thing, one of a kind, and two that change two"`
}

// ExplanationStep is what remains after one condition.
type ExplanationStep struct {
	Condition string `json:"condition"`
	Hosts     int    `json:"hosts"`
	GPUs      int    `json:"gpus"`
	Excludes  int    `json:"excludes" doc:"GPUs that pass every other condition and fail this one alone"`
}

// Change is a booking near the one that was asked for, and it fits.
type Change struct {
	Kind         string       `json:"kind" enum:"region,gpu_model,gpus_per_node,node_count,later,price,network,constraint,combination"`
	Summary      string       `json:"summary" example:"In us-east"`
	Spec         BookingSpec  `json:"spec" doc:"The whole of it, changed"`
	PricePerHour Money        `json:"price_per_hour"`
	QuoteID      *ids.Booking `json:"quote_id,omitempty" doc:"Book it with this; absent for anonymous callers"`
	ExpiresAt    *time.Time   `json:"expires_at,omitempty" doc:"Until when the quote holds"`
}

// BookingCreate accepts a quote. The Idempotency-Key header is optional here: the quote's id already is one.
type BookingCreate struct {
	QuoteID     ids.Booking `json:"quote_id"`
	ClusterName string      `json:"cluster_name,omitempty" maxLength:"80"`
	BidIDs      []ids.Bid   `json:"bid_ids,omitempty" doc:"Auctions: the bids to take, one a node; the quoted ones when absent" maxItems:"64"`
}

// Booking is an accepted quote and what became of it.
type Booking struct {
	ID           ids.Booking   `json:"id"`
	Kind         string        `json:"kind" enum:"market,auction,spot"`
	Purpose      string        `json:"purpose" enum:"cluster,addition,extension"`
	State        string        `json:"state" enum:"bidding,quoted,scheduled,accepted,expired,refused,cancelled"`
	Spec         BookingSpec   `json:"spec"`
	GPUModel     string        `json:"gpu_model,omitempty"`
	PricePerHour Money         `json:"price_per_hour"`
	Hold         Money         `json:"hold"`
	ClusterID    *ids.Cluster  `json:"cluster_id,omitempty" doc:"The cluster that it became, adds to or extends"`
	StartsAt     *time.Time    `json:"starts_at,omitempty"`
	BidsCloseAt  *time.Time    `json:"bids_close_at,omitempty"`
	CreatedAt    time.Time     `json:"created_at"`
	ExpiresAt    time.Time     `json:"expires_at" doc:"Of the quote"`
	DecidedAt    *time.Time    `json:"decided_at,omitempty"`
	Refusal      *BookingFault `json:"refusal,omitempty"`
}

// BookingFault says why a booking was refused.
type BookingFault struct {
	Code   string `json:"code" example:"no_capacity"`
	Detail string `json:"detail"`
}

// MarketHistory is how prices and use of one GPU model went.
type MarketHistory struct {
	GPUModel string         `json:"gpu_model"`
	Region   string         `json:"region,omitempty" doc:"Absent: all regions together"`
	From     time.Time      `json:"from"`
	To       time.Time      `json:"to"`
	StepMS   int64          `json:"step_ms"`
	Points   []HistoryPoint `json:"points" doc:"Oldest first; a step without a sample is left out"`
}

// HistoryPoint is one step of it.
type HistoryPoint struct {
	At                 time.Time `json:"at" doc:"The step's beginning"`
	GPUs               int       `json:"gpus" doc:"Offered, leased ones included"`
	Leased             int       `json:"leased"`
	UtilisationPercent float64   `json:"utilisation_percent"`
	PriceMin           *Money    `json:"price_min,omitempty" doc:"Of free GPUs, per hour; absent without one"`
	PriceMedian        *Money    `json:"price_median,omitempty"`
}
