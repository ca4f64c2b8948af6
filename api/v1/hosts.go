package apiv1

import (
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// Host is one machine of an owner.
type Host struct {
	ID                   ids.Host      `json:"id"`
	Name                 string        `json:"name"`
	Kind                 string        `json:"kind" enum:"gpu,head"`
	State                string        `json:"state" enum:"enrolled,verifying,idle,leased,draining,quarantined,lost,retired"`
	StateReason          string        `json:"state_reason,omitempty"`
	Region               string        `json:"region"`
	Site                 string        `json:"site,omitempty"`
	Connected            bool          `json:"connected"`
	Liveness             string        `json:"liveness" enum:"live,suspect,lost" doc:"suspect: silent for longer than a beat"`
	Simulated            bool          `json:"simulated"`
	LastSeenAt           *time.Time    `json:"last_seen_at,omitempty"`
	EnrolledAt           time.Time     `json:"enrolled_at"`
	AgentVersion         string        `json:"agent_version,omitempty"`
	DriverVersion        string        `json:"driver_version,omitempty"`
	CUDAVersion          string        `json:"cuda_version,omitempty"`
	CPUs                 int           `json:"cpus,omitempty"`
	MemoryBytes          int64         `json:"memory_bytes,omitempty"`
	GPUs                 []GPU         `json:"gpus"`
	Ask                  *Ask          `json:"ask,omitempty"`
	WhyNotEarning        string        `json:"why_not_earning,omitempty" doc:"One sentence, absent while it earns"`
	Gates                []Gate        `json:"gates" doc:"What it must show to be offered"`
	ReliabilityPercent   float64       `json:"reliability_percent" doc:"Of the observed time" example:"99.5"`
	Tier                 string        `json:"tier" enum:"new,proven,trusted" doc:"Its standing, by what was observed"`
	RTTMS                *float64      `json:"rtt_ms,omitempty" doc:"Round trip to the control plane"`
	Maintenance          []Maintenance `json:"maintenance" doc:"Windows planned or under way, the next one first"`
	CertificateExpiresAt *time.Time    `json:"certificate_expires_at,omitempty"`
}

// GPU is one device of a host, as measured.
type GPU struct {
	ID                ids.GPU `json:"id"`
	UUID              string  `json:"uuid"`
	Model             string  `json:"model"`
	Product           string  `json:"product"`
	MemoryMiB         int64   `json:"memory_mib"`
	ComputeCapability string  `json:"compute_capability,omitempty"`
	Healthy           bool    `json:"healthy"`
	HealthNote        string  `json:"health_note,omitempty"`
	Leased            bool    `json:"leased"`
}

// Gate is one thing that a host must show to be offered.
type Gate struct {
	Gate     string    `json:"gate" doc:"xid, ecc, throttle, clock, disk, udp, gpu, driver"`
	State    string    `json:"state" enum:"pass,fail,unknown"`
	Closes   bool      `json:"closes" doc:"Failing it closes the host to new bookings"`
	Measured string    `json:"measured,omitempty" example:"41 s fast"`
	Required string    `json:"required,omitempty" example:"within 5 s"`
	Fix      string    `json:"fix,omitempty" doc:"What the owner can do"`
	Since    time.Time `json:"since"`
}

// EarningCheck answers why a host does not earn, or could earn more.
type EarningCheck struct {
	Earning bool          `json:"earning" doc:"A GPU of it is leased now"`
	Summary string        `json:"summary" doc:"One sentence: what stands in the way first"`
	Checks  []EarningStep `json:"checks" doc:"In the order in which they matter"`
}

// EarningStep is one thing that must hold for a host to earn.
type EarningStep struct {
	Check    string     `json:"check" doc:"connected, verified, gates, maintenance, drain, gpus, ray, ask, price, demand"`
	State    string     `json:"state" enum:"pass,fail,unknown"`
	Measured string     `json:"measured,omitempty"`
	Required string     `json:"required,omitempty"`
	Fix      string     `json:"fix,omitempty" doc:"What to do"`
	Since    *time.Time `json:"since,omitempty" doc:"How long it has been failing: the time that it costs"`
}

// Maintenance is a planned absence of a host.
type Maintenance struct {
	ID          ids.Maintenance `json:"id"`
	HostID      ids.Host        `json:"host_id"`
	State       string          `json:"state" enum:"planned,begun,ended,cancelled"`
	StartsAt    time.Time       `json:"starts_at"`
	EndsAt      time.Time       `json:"ends_at"`
	Note        string          `json:"note,omitempty"`
	CreatedAt   time.Time       `json:"created_at"`
	AnnouncedAt *time.Time      `json:"announced_at,omitempty" doc:"When the customers in it were told"`
	BegunAt     *time.Time      `json:"begun_at,omitempty"`
	EndedAt     *time.Time      `json:"ended_at,omitempty"`
	CancelledAt *time.Time      `json:"cancelled_at,omitempty"`
}

// MaintenanceCreate plans one.
type MaintenanceCreate struct {
	StartsAt time.Time `json:"starts_at"`
	EndsAt   time.Time `json:"ends_at"`
	Note     string    `json:"note,omitempty" maxLength:"200" doc:"What customers are told"`
}

// Ask is an owner's price.
type Ask struct {
	PricePerGPUHour Money     `json:"price_per_gpu_hour" doc:"Before rules"`
	Floor           *Money    `json:"floor,omitempty" doc:"No rule goes below it"`
	Rules           AskRules  `json:"rules"`
	Now             AskPrices `json:"now" doc:"What the rules make of the price at this moment"`
	Active          bool      `json:"active"`
	UpdatedAt       time.Time `json:"updated_at"`
}

// AskPut sets it, all of it: rules that are left out are dropped.
type AskPut struct {
	PricePerGPUHour string    `json:"price_per_gpu_hour" doc:"Decimal tokens" example:"1.90" minLength:"1" maxLength:"40"`
	Floor           string    `json:"floor,omitempty" doc:"Decimal tokens: no rule goes below it" example:"1.20" maxLength:"40"`
	Rules           *AskRules `json:"rules,omitempty"`
	Active          bool      `json:"active" doc:"false: take no new bookings"`
}

// AskRules make a price follow time, use and length of booking. Percents are whole, -90 to 300.
type AskRules struct {
	Discounts      []AskDiscount `json:"discounts,omitempty" maxItems:"3" doc:"For longer bookings"`
	Utilisation    []AskStep     `json:"utilisation,omitempty" maxItems:"16" doc:"While much, or little, of the model is leased in the region"`
	Calendar       []AskPeriod   `json:"calendar,omitempty" maxItems:"32" doc:"At some hours of some days, in UTC"`
	SpotPercent    *int          `json:"spot_percent,omitempty" doc:"Off the price for spot bookings; absent: none are taken" example:"40"`
	AuctionPercent int           `json:"auction_percent,omitempty" doc:"The most that the host goes below its price in an auction" example:"15"`
}

// AskDiscount is what a longer booking pays less.
type AskDiscount struct {
	From    string `json:"from" enum:"daily,weekly,monthly" doc:"24 h, 168 h, 720 h and longer"`
	Percent int    `json:"percent" doc:"Off the price" example:"10"`
}

// AskStep changes the price above, or below, some use.
type AskStep struct {
	Above   *int `json:"above,omitempty" doc:"Percent of GPUs leased: while more are" example:"80"`
	Below   *int `json:"below,omitempty" doc:"Percent of GPUs leased: while fewer are" example:"30"`
	Percent int  `json:"percent" doc:"On top; negative: off" example:"15"`
}

// AskPeriod changes the price at some hours.
type AskPeriod struct {
	Days    []string `json:"days,omitempty" doc:"mon, tue, wed, thu, fri, sat, sun; every day when absent" maxItems:"7"`
	From    string   `json:"from,omitempty" doc:"UTC" example:"22:00"`
	To      string   `json:"to,omitempty" doc:"UTC; before from: over midnight" example:"06:00"`
	Percent int      `json:"percent" doc:"On top; negative: off" example:"-20"`
}

// AskPrices are what bookings of each length pay per GPU-hour.
type AskPrices struct {
	Hourly  Money  `json:"hourly"`
	Daily   Money  `json:"daily" doc:"From 24 h"`
	Weekly  Money  `json:"weekly" doc:"From 168 h"`
	Monthly Money  `json:"monthly" doc:"720 h"`
	Spot    *Money `json:"spot,omitempty" doc:"Absent: takes no spot bookings"`
}

// AskPreview is what an ask would do, before it is saved.
type AskPreview struct {
	Now   AskPrices      `json:"now"`
	Hours []AskPriceHour `json:"hours" doc:"The hourly price for each hour of the coming week, with the use of now"`
	Rank  int            `json:"rank" doc:"Its place among the open hosts of its model and region, the cheapest being 1"`
	Peers int            `json:"peers" doc:"How many those are, itself included"`
	Past  *AskPast       `json:"past,omitempty" doc:"Absent while there is no history of the model in the region"`
}

// AskPriceHour is the price from an hour on.
type AskPriceHour struct {
	At    time.Time `json:"at"`
	Price Money     `json:"price"`
}

// AskPast is what an ask would have earned in the last 30 days, by the market's samples.
type AskPast struct {
	SampledMS    int64   `json:"sampled_ms" doc:"How much of that time there are samples of"`
	Earned       Money   `json:"earned" doc:"An estimate, before the platform's fee"`
	HiredPercent float64 `json:"hired_percent" doc:"Of the time"`
}

// JoinTokenCreate asks for a permission to enrol one host.
type JoinTokenCreate struct {
	Region string `json:"region" minLength:"1" maxLength:"40" pattern:"^[a-z0-9-]+$"`
	Site   string `json:"site,omitempty" maxLength:"80"`
	Kind   string `json:"kind,omitempty" enum:"gpu,head" default:"gpu" doc:"head: for operators of the platform only"`
}

// JoinToken is such a permission without its secret.
type JoinToken struct {
	ID        ids.JoinToken `json:"id"`
	State     string        `json:"state" enum:"open,used,expired,revoked"`
	Kind      string        `json:"kind"`
	Region    string        `json:"region"`
	Site      string        `json:"site,omitempty"`
	CreatedAt time.Time     `json:"created_at"`
	ExpiresAt time.Time     `json:"expires_at"`
	HostID    *ids.Host     `json:"host_id,omitempty"`
}

// JoinTokenCreated carries the secret, this once, and the line to run on the host.
type JoinTokenCreated struct {
	JoinToken
	Secret  string `json:"secret"`
	Command string `json:"command"`
}

// Earnings is what an owner has earned.
type Earnings struct {
	Payable  Money          `json:"payable" doc:"Earned and not yet in a payout"`
	InFlight Money          `json:"in_flight" doc:"In a payout that the chain has not finalised"`
	Paid     Money          `json:"paid" doc:"Finalised on chain"`
	Days     []EarningsDay  `json:"days"`
	Hosts    []EarningsHost `json:"hosts"`
}

// EarningsDay is one UTC day.
type EarningsDay struct {
	Day    string `json:"day" example:"2026-11-22"`
	Earned Money  `json:"earned"`
	Paid   Money  `json:"paid"`
}

// EarningsHost is one host's share.
type EarningsHost struct {
	HostID   ids.Host `json:"host_id"`
	Name     string   `json:"name"`
	Earned   Money    `json:"earned"`
	GPUHours string   `json:"gpu_hours" doc:"Decimal text" example:"12.5000"`
}
