package simfleet

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"github.com/muster-gpu/muster/internal/money"
)

// Kinds of hosts, as in join tokens.
const (
	KindGPU  = "gpu"
	KindHead = "head"
)

// Runtime is what a simulated host says that it starts nodes with. Hosts of different runtimes cannot share a cluster.
const Runtime = "simulated"

// Platform is the Owner of head hosts: the organisation that runs the control plane.
const Platform = -1

const (
	owners = 14
	sites  = 48
)

// Host is what a simulated machine is.
type Host struct {
	Index   int
	Name    string
	Kind    string
	Owner   int // of Owners, or Platform
	Region  string
	Site    string
	Product string // of its GPUs, as NVML says it; "" without
	GPUs    int
	Driver  string
	CPUs    int
	Memory  int64
	Disk    int64
	Ask     Ask // of GPU hosts
	model   *model
}

// Ask is what a host's owner wants for it, per GPU-hour. Rules is the document of the market's price rules, empty without any.
type Ask struct {
	Price money.Amount
	Floor money.Amount
	Rules json.RawMessage
}

type model struct {
	product      string
	bytes        int64
	architecture string
	capability   string
	cores        int32
	busBits      int32
	clock        int32
	pcie         int32
	low, high    money.Amount // of prices, in cents
	sizes        []int        // GPUs a host
	weight       int
}

// The local stack's real hosts have H100s at 1.90: no simulated one is cheaper, so that small bookings get the real ones.
var models = []model{
	{"NVIDIA H100 80GB HBM3", 85_520_809_984, "hopper", "9.0", 16_896, 5120, 1980, 5, 195, 299, []int{8, 8, 8, 4}, 26},
	{"NVIDIA H200", 150_754_820_096, "hopper", "9.0", 16_896, 6144, 1980, 5, 265, 399, []int{8}, 12},
	{"NVIDIA A100-SXM4-80GB", 85_899_345_920, "ampere", "8.0", 6912, 5120, 1410, 4, 105, 179, []int{8, 8, 4}, 18},
	{"NVIDIA A100-PCIE-40GB", 42_949_672_960, "ampere", "8.0", 6912, 5120, 1410, 4, 79, 129, []int{4, 2}, 8},
	{"NVIDIA L40S", 48_305_799_168, "ada", "8.9", 18_176, 384, 2520, 4, 68, 115, []int{8, 4, 2}, 16},
	{"NVIDIA GeForce RTX 4090", 25_757_220_864, "ada", "8.9", 16_384, 384, 3105, 4, 29, 59, []int{1, 2, 4, 8}, 16},
	{"NVIDIA B200", 192_000_000_000, "blackwell", "10.0", 20_480, 8192, 1965, 5, 449, 599, []int{8}, 4},
}

type region struct {
	name   string
	towns  []string
	weight int
}

var regions = []region{
	{"eu-west", []string{"ams", "dub", "par"}, 30},
	{"us-east", []string{"iad", "nyc", "atl"}, 28},
	{"eu-central", []string{"fra", "prg"}, 18},
	{"us-west", []string{"sea", "pdx"}, 14},
	{"ap-south", []string{"blr", "sin"}, 10},
}

var drivers = []string{"570.172.08", "570.133.20", "565.57.01", "550.163.01"}

// Owners are the names of the organisations that a fleet's hosts belong to.
var Owners = [owners]string{
	"Aurora Compute (simulated)", "Basalt Cloud (simulated)", "Cinder Labs (simulated)", "Delta Render (simulated)",
	"Elm Street GPUs (simulated)", "Foundry North (simulated)", "Granite AI (simulated)", "Halcyon Data (simulated)",
	"Ibex Systems (simulated)", "Juniper Racks (simulated)", "Kestrel HPC (simulated)", "Lumen University (simulated)",
	"Mistral Farms (simulated)", "Nimbus Mining (simulated)",
}

// place is a room full of alike hosts of one owner.
type place struct {
	owner   int
	region  string
	name    string
	model   *model
	gpus    int
	driver  string
	price   int64 // cents
	weight  int
	comfort int // of the rest of the machine, times the usual
}

// Generate makes a head host in each region and count GPU hosts. The same seed gives the same hosts, and a smaller count the first of them.
func Generate(seed uint64, count int) []Host {
	places := generatePlaces(seed)
	hosts := make([]Host, 0, len(regions)+count)
	for i, r := range regions {
		hosts = append(hosts, Host{
			Index: i, Name: "sim-head-" + r.name, Kind: KindHead, Owner: Platform, Region: r.name, Site: r.towns[0] + "-core",
			CPUs: 32, Memory: 128 << 30, Disk: 500 << 30,
		})
	}
	for i := range count {
		rng := rand.New(rand.NewPCG(seed, uint64(i)+1)) //nolint:gosec // a simulation's dice
		hosts = append(hosts, generateHost(rng, len(hosts), i, places[weighted(rng, places, func(p place) int { return p.weight })]))
	}
	return hosts
}

func generatePlaces(seed uint64) []place {
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a simulation's dice
	places := make([]place, 0, sites)
	for i := range sites {
		r := regions[weighted(rng, regions, func(r region) int { return r.weight })]
		m := weighted(rng, models, func(m model) int { return m.weight })
		owner := i % owners // everybody has some
		if i >= owners {
			owner = min(rng.IntN(owners), rng.IntN(owners)) // and a few have many
		}
		span := int64(models[m].high - models[m].low)
		places = append(places, place{
			owner: owner, region: r.name, name: fmt.Sprintf("%s-%d", r.towns[rng.IntN(len(r.towns))], i+1), model: &models[m],
			gpus: models[m].sizes[rng.IntN(len(models[m].sizes))], driver: drivers[min(rng.IntN(len(drivers)), rng.IntN(len(drivers)))],
			price: int64(models[m].low) + rng.Int64N(span+1), weight: 1 + rng.IntN(9), comfort: 1 + rng.IntN(2),
		})
	}
	return places
}

func generateHost(rng *rand.Rand, index, number int, p place) Host {
	cents := max(int64(p.model.low), min(int64(p.model.high), p.price+rng.Int64N(9)-4))
	return Host{
		Index: index, Name: fmt.Sprintf("sim-%s-%04d", p.region, number+1), Kind: KindGPU, Owner: p.owner, Region: p.region, Site: p.name,
		Product: p.model.product, GPUs: p.gpus, Driver: p.driver, CPUs: 12 * p.gpus * p.comfort,
		Memory: int64(64*p.gpus*p.comfort) << 30, Disk: int64(400*p.gpus+rng.IntN(2000)) << 30,
		Ask: generateAsk(rng, p, cents), model: p.model,
	}
}

// priceRules is the market's document of an ask's rules.
type priceRules struct {
	Discounts      []discount  `json:"discounts,omitempty"`
	Utilisation    []usageStep `json:"utilisation,omitempty"`
	Calendar       []period    `json:"calendar,omitempty"`
	SpotPercent    *int        `json:"spot_percent,omitempty"`
	AuctionPercent int         `json:"auction_percent,omitempty"`
}

type discount struct {
	From    string `json:"from"`
	Percent int    `json:"percent"`
}

type usageStep struct {
	Above   int `json:"above"`
	Percent int `json:"percent"`
}

type period struct {
	Days    []string `json:"days,omitempty"`
	From    string   `json:"from"`
	To      string   `json:"to"`
	Percent int      `json:"percent"`
}

// generateAsk gives every third host a plain price and the others some rules. No price falls below the model's lowest.
func generateAsk(rng *rand.Rand, p place, cents int64) Ask {
	const (
		centsUnits   = 10_000 // six decimals
		floorPercent = 80
	)
	ask := Ask{
		Price: money.Amount(cents * centsUnits),
		Floor: money.Amount(max(int64(p.model.low), cents*floorPercent/100) * centsUnits),
	}
	if rng.IntN(3) == 0 {
		return ask
	}
	var r priceRules
	if rng.IntN(2) == 0 {
		r.Discounts = []discount{{"daily", 3 + rng.IntN(4)}, {"weekly", 8 + rng.IntN(5)}, {"monthly", 15 + rng.IntN(6)}}
	}
	if rng.IntN(3) == 0 {
		r.Utilisation = []usageStep{{80, 10 + 5*rng.IntN(3)}}
	}
	if rng.IntN(4) == 0 {
		r.Calendar = []period{{Days: []string{"sat", "sun"}, From: "00:00", To: "24:00", Percent: -10}}
	}
	if rng.IntN(2) == 0 {
		percent := 20 + 10*rng.IntN(4)
		r.SpotPercent = &percent
	}
	r.AuctionPercent = 5 * rng.IntN(4)
	ask.Rules, _ = json.Marshal(r) // numbers and texts always encode
	return ask
}

// weighted draws an index by weight.
func weighted[T any](rng *rand.Rand, all []T, weight func(T) int) int {
	total := 0
	for _, one := range all {
		total += weight(one)
	}
	at := rng.IntN(total)
	for i, one := range all {
		if at -= weight(one); at < 0 {
			return i
		}
	}
	return len(all) - 1
}
