// Package config is musterd's typed configuration.
//
// A setting comes from, in falling order of precedence: a command-line flag (--api.listen), an environment variable
// (MUSTER_API__LISTEN: upper case, two underscores between levels), the YAML file named by --config or MUSTER_CONFIG, and its
// default. In flags and files, names that no setting has are errors, so that a misspelt one cannot be overlooked; in the environment
// they are not looked at, because other programs of Muster have variables with the same prefix. Sample writes a file with every
// setting, its default and its meaning; deploy/musterd.yaml is that file.
package config

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/providers/structs"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/internal/rayaddr"
)

// The roles of a musterd process.
const (
	RoleAPI        = "api"
	RoleScheduler  = "scheduler"
	RoleSettlement = "settlement"
)

// NetworkLocal is the development network: test tokens, simulated devices and burner wallets are allowed there and nowhere else.
const NetworkLocal = "local"

const envPrefix = "MUSTER_"

// Config is all of it.
type Config struct {
	Roles           []string      `koanf:"roles" help:"what this process does: api, scheduler, settlement"`
	DatabaseURL     string        `koanf:"database_url" help:"PostgreSQL, as a URL; the environment variable DATABASE_URL is taken too"`
	SealingKeyFile  string        `koanf:"sealing_key_file" help:"file of 32 random bytes that seal the secrets in the database; the same for all processes"`
	ShutdownTimeout time.Duration `koanf:"shutdown_timeout" help:"how long open requests may take to finish at a stop"`
	RayVersion      string        `koanf:"ray_version" help:"version of Ray that new clusters run"`
	FirstSlot       int           `koanf:"first_slot" help:"where to begin looking for node addresses of the process runtime (0 to 219): lets several control planes share a machine"`
	SignerSocket    string        `koanf:"signer_socket" help:"unix socket of musterd signer"`
	Log             Log           `koanf:"log"`
	API             API           `koanf:"api"`
	Agents          Agents        `koanf:"agents"`
	Chain           Chain         `koanf:"chain"`
	Market          Market        `koanf:"market"`
	Payouts         Payouts       `koanf:"payouts"`
	Local           Local         `koanf:"local"`
}

// Log says how to log.
type Log struct {
	Level  string `koanf:"level" help:"debug, info, warn or error"`
	Format string `koanf:"format" help:"json or text"`
}

// API configures the HTTP listeners.
type API struct {
	Listen          string   `koanf:"listen" help:"address of the API and the console"`
	OpsListen       string   `koanf:"ops_listen" help:"address of /metrics, /healthz and /readyz, for operators only"`
	PublicURL       string   `koanf:"public_url" help:"where browsers and programs reach the API"`
	Hosts           []string `koanf:"hosts" help:"further host names to answer to"`
	DashboardSuffix string   `koanf:"dashboard_suffix" help:"host[:port] under which each cluster's dashboard has a name of its own; on another domain than the console, except locally"`
}

// Agents configures the gateway that hosts connect to.
type Agents struct {
	Listen            string        `koanf:"listen" help:"address of the gateway (gRPC over mutual TLS)"`
	PublicAddress     string        `koanf:"public_address" help:"host:port that hosts dial"`
	AuthorityDir      string        `koanf:"authority_dir" help:"folder of the certificate authority's key; made if absent"`
	HeartbeatInterval time.Duration `koanf:"heartbeat_interval" help:"how often a host says that it is there"`
	AllowSimulated    bool          `koanf:"allow_simulated" help:"take hosts with simulated GPUs; only on the local network"`
}

// Chain names the Solana network, its token and the treasury.
type Chain struct {
	Network      string   `koanf:"network" help:"local, devnet or mainnet"`
	RPCURL       string   `koanf:"rpc_url" help:"JSON-RPC endpoint; its answers are compared with nobody's"`
	RPCURLs      []string `koanf:"rpc_urls" help:"JSON-RPC endpoints of different providers, instead of rpc_url: what money depends on, two must agree on; a third lets one fail"`
	RPCRate      int      `koanf:"rpc_rate" help:"calls a second to each endpoint at most; 0: as many as it takes"`
	WebsocketURL string   `koanf:"websocket_url" help:"websocket of the first endpoint; empty: derived from its URL"`
	Mint         string   `koanf:"mint" help:"mint of the token that is paid with"`
	Symbol       string   `koanf:"symbol" help:"the token's symbol"`
	Decimals     int      `koanf:"decimals" help:"decimals of the mint"`
	Treasury     string   `koanf:"treasury" help:"the treasury's wallet, as the signer tells it"`
	Explorer     string   `koanf:"explorer" help:"address of a transaction in an explorer, with {signature} in it"`
}

// Market sets the terms of trade.
type Market struct {
	FeeBps int `koanf:"fee_bps" help:"the platform's share of what customers pay, in basis points; the first row of the fee schedule, which finance changes from then on"`
}

// Payouts sets how owners are paid.
type Payouts struct {
	Minimum        string        `koanf:"minimum" help:"smallest payout, in tokens"`
	MinimumDeposit string        `koanf:"minimum_deposit" help:"smaller deposits go to suspense, in tokens"`
	SweepMinimum   string        `koanf:"sweep_minimum" help:"deposits are moved to the treasury from here on, in tokens"`
	DualAbove      string        `koanf:"dual_above" help:"batches of more than this need two approvers beside who drafted them, in tokens; 0: never"`
	MaxPriorityFee int           `koanf:"max_priority_fee" help:"the most that a transaction pays for being taken early, in lamports; the signer's policy bounds it too"`
	Concurrency    int           `koanf:"concurrency" help:"how many batches are driven at the same time"`
	SelfApproval   bool          `koanf:"self_approval" help:"who drafted a batch may approve it; only on the local network"`
	Reconcile      time.Duration `koanf:"reconcile" help:"how often ledger and chain are compared unasked"`
}

// Local is for the local network alone.
type Local struct {
	Dir string `koanf:"dir" help:"folder of the development chain's keys: enables the faucet and the burner wallets"`
}

// Default is the configuration before anything is set.
func Default() Config {
	return Config{
		Roles:           []string{RoleAPI, RoleScheduler, RoleSettlement},
		ShutdownTimeout: 15 * time.Second,
		RayVersion:      "2.60.0",
		SignerSocket:    "/run/muster/signer.sock",
		SealingKeyFile:  "/etc/muster/sealing.key",
		Log:             Log{Level: "info", Format: "json"},
		API:             API{Listen: "127.0.0.1:8080", OpsListen: "127.0.0.1:9090", PublicURL: "http://localhost:8080", DashboardSuffix: "localhost:8080"},
		Agents: Agents{
			Listen: "127.0.0.1:7443", PublicAddress: "127.0.0.1:7443", AuthorityDir: "/etc/muster/authority", HeartbeatInterval: 2 * time.Second,
		},
		Chain:   Chain{Network: "devnet", RPCURL: "https://api.devnet.solana.com", Symbol: "USDC", Decimals: 6},
		Market:  Market{FeeBps: 250},
		Payouts: Payouts{Minimum: "1", MinimumDeposit: "0.01", SweepMinimum: "100", DualAbove: "10000", MaxPriorityFee: 100_000, Concurrency: 16, Reconcile: time.Hour},
	}
}

// Flags adds a flag for every setting, and --config.
func Flags(flags *pflag.FlagSet) {
	flags.String("config", "", "YAML file with settings (also MUSTER_CONFIG)")
	for _, s := range settings(reflect.ValueOf(Default()), "") {
		switch value := s.value.Interface().(type) {
		case string:
			flags.String(s.name, value, s.help)
		case bool:
			flags.Bool(s.name, value, s.help)
		case int:
			flags.Int(s.name, value, s.help)
		case time.Duration:
			flags.Duration(s.name, value, s.help)
		case []string:
			flags.StringSlice(s.name, value, s.help)
		default:
			panic(fmt.Sprintf("config: setting %s has a type without a flag", s.name))
		}
	}
}

// Load reads the configuration; flags are those that Flags added, parsed. It does not validate.
func Load(flags *pflag.FlagSet) (Config, error) {
	k := koanf.New(".")
	if err := k.Load(structs.Provider(Default(), "koanf"), nil); err != nil {
		return Config{}, fmt.Errorf("load defaults: %w", err)
	}
	known := k.Keys()
	path, _ := flags.GetString("config")
	if path == "" {
		path = os.Getenv(envPrefix + "CONFIG")
	}
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return Config{}, fmt.Errorf("read %s: %w", path, err)
		}
	}
	if legacy := os.Getenv("DATABASE_URL"); legacy != "" {
		if err := k.Set("database_url", legacy); err != nil {
			return Config{}, err
		}
	}
	if err := k.Load(env.Provider(".", env.Opt{Prefix: envPrefix, TransformFunc: fromEnv(known)}), nil); err != nil {
		return Config{}, fmt.Errorf("read environment: %w", err)
	}
	if err := k.Load(posflag.Provider(flags, ".", k), nil); err != nil {
		return Config{}, fmt.Errorf("read flags: %w", err)
	}
	var config Config
	if err := k.Unmarshal("", &config); err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	return config, unknownKeys(k, known)
}

// fromEnv maps MUSTER_API__LISTEN to api.listen. Variables of other programs of Muster (MUSTER_TOKEN and the like) share the
// prefix, so only names of settings are taken.
func fromEnv(known []string) func(key, value string) (string, any) {
	return func(key, value string) (string, any) {
		name := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(key, envPrefix), "__", "."))
		if !slices.Contains(known, name) {
			return "", nil
		}
		if name == "roles" || name == "api.hosts" || name == "chain.rpc_urls" {
			return name, strings.Split(value, ",")
		}
		return name, value
	}
}

func unknownKeys(k *koanf.Koanf, known []string) error {
	var unknown []string
	for _, key := range k.Keys() {
		if !slices.Contains([]string{"config", "help"}, key) && !slices.Contains(known, key) { // those two are flags only
			unknown = append(unknown, key)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	return fmt.Errorf("there is no setting %s: `musterd config` prints all of them", strings.Join(unknown, ", "))
}

// Has reports whether this process has a role.
func (c Config) Has(role string) bool { return slices.Contains(c.Roles, role) }

// Currency is the token that is paid with.
func (c Config) Currency() money.Currency {
	return money.Currency{Symbol: c.Chain.Symbol, Mint: c.Chain.Mint, Decimals: c.Chain.Decimals}
}

// IsLocal reports whether this is the development network.
func (c Config) IsLocal() bool { return c.Chain.Network == NetworkLocal }

// Validate names everything that is wrong, not only the first.
func (c Config) Validate() error {
	var problems []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	for _, role := range c.Roles {
		check(slices.Contains([]string{RoleAPI, RoleScheduler, RoleSettlement}, role), "roles: %q is none of api, scheduler, settlement", role)
	}
	check(len(c.Roles) > 0, "roles: name at least one of api, scheduler, settlement")
	check(c.DatabaseURL != "", "database_url: set it, or DATABASE_URL, to a PostgreSQL URL")
	check(slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level), "log.level: %q is none of debug, info, warn, error", c.Log.Level)
	check(slices.Contains([]string{"json", "text"}, c.Log.Format), "log.format: %q is neither json nor text", c.Log.Format)
	public, err := url.Parse(c.API.PublicURL)
	check(err == nil && public.Host != "" && public.Path == "" && (public.Scheme == "https" || public.Scheme == "http"), "api.public_url: %q is not of the form https://host", c.API.PublicURL)
	check(slices.Contains([]string{NetworkLocal, "devnet", "mainnet"}, c.Chain.Network), "chain.network: %q is none of local, devnet, mainnet", c.Chain.Network)
	check(c.Chain.Network != "mainnet" || len(c.Chain.RPCURLs) > 1, "chain.rpc_urls: on mainnet, name the endpoints of at least two providers, so that they can be compared")
	check(c.Chain.RPCRate >= 0, "chain.rpc_rate: must not be negative")
	check(c.Chain.Mint != "", "chain.mint: name the mint of the token")
	check(c.Chain.Treasury != "", "chain.treasury: name the treasury's wallet; `musterd signer init` prints it")
	check(c.Chain.Decimals >= 0 && c.Chain.Decimals <= money.MaxDecimals, "chain.decimals: must be between 0 and %d", money.MaxDecimals)
	check(c.FirstSlot >= 0 && c.FirstSlot < rayaddr.Slots, "first_slot: must be between 0 and %d", rayaddr.Slots-1)
	check(c.Market.FeeBps >= 0 && c.Market.FeeBps <= 10_000, "market.fee_bps: must be between 0 and 10000")
	for name, amount := range map[string]string{
		"payouts.minimum": c.Payouts.Minimum, "payouts.minimum_deposit": c.Payouts.MinimumDeposit, "payouts.sweep_minimum": c.Payouts.SweepMinimum,
	} {
		value, err := c.Currency().Parse(amount)
		check(err == nil && value > 0, "%s: %q is not an amount above zero", name, amount)
	}
	dual, err := c.Currency().Parse(c.Payouts.DualAbove)
	check(err == nil && dual >= 0, "payouts.dual_above: %q is not an amount", c.Payouts.DualAbove)
	check(c.Payouts.MaxPriorityFee >= 1, "payouts.max_priority_fee: must be above 0")
	check(c.Payouts.Concurrency >= 1 && c.Payouts.Concurrency <= 256, "payouts.concurrency: must be between 1 and 256")
	check(c.Agents.HeartbeatInterval >= 100*time.Millisecond && c.Agents.HeartbeatInterval <= time.Minute, "agents.heartbeat_interval: must be between 100ms and 1m")
	if !c.IsLocal() {
		check(!c.Agents.AllowSimulated, "agents.allow_simulated: simulated GPUs are for the local network only")
		check(!c.Payouts.SelfApproval, "payouts.self_approval: approving one's own batches is for the local network only")
		check(c.Local.Dir == "", "local.dir: a faucet and burner wallets are for the local network only")
	}
	return errors.Join(problems...)
}

type setting struct {
	name, help string
	value      reflect.Value
}

// settings lists the leaves of a configuration in the order of the struct.
func settings(v reflect.Value, prefix string) []setting {
	var all []setting
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name := prefix + field.Tag.Get("koanf")
		if field.Type.Kind() == reflect.Struct {
			all = append(all, settings(v.Field(i), name+".")...)
			continue
		}
		all = append(all, setting{name: name, help: field.Tag.Get("help"), value: v.Field(i)})
	}
	return all
}

// Sample is a YAML file with every setting at its default and its meaning.
func Sample() string {
	var text strings.Builder
	text.WriteString("# Every setting of musterd at its default. A flag (--api.listen) wins over the environment\n# (MUSTER_API__LISTEN), which wins over this file. Printed by `musterd config`.\n")
	section := ""
	for _, s := range settings(reflect.ValueOf(Default()), "") {
		indent, name := "", s.name
		if group, leaf, nested := strings.Cut(s.name, "."); nested {
			if group != section {
				fmt.Fprintf(&text, "\n%s:\n", group)
				section = group
			}
			indent, name = "  ", leaf
		}
		fmt.Fprintf(&text, "%s# %s\n%s%s: %s\n", indent, s.help, indent, name, yamlValue(s.value.Interface()))
	}
	return text.String()
}

func yamlValue(value any) string {
	switch v := value.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case []string:
		return "[" + strings.Join(v, ", ") + "]"
	default:
		return fmt.Sprint(v)
	}
}
