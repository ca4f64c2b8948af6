package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/muster-gpu/muster/internal/config"
)

func load(t *testing.T, args ...string) (config.Config, error) {
	t.Helper()
	flags := pflag.NewFlagSet("musterd", pflag.ContinueOnError)
	config.Flags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return config.Load(flags)
}

func TestSampleFileIsCommittedAndIsTheDefault(t *testing.T) {
	t.Parallel()
	const path = "../../deploy/musterd.yaml"
	committed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(committed) != config.Sample() {
		t.Errorf("%s is not what `musterd config` prints: write it anew", path)
	}
	got, err := load(t, "--config", path)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.API.Hosts, want.Chain.RPCURLs = []string{}, []string{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the sample file reads as %+v", got)
	}
}

// Not parallel: it sets the environment.
func TestPrecedence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "musterd.yaml")
	if err := os.WriteFile(path, []byte("api: {listen: file, ops_listen: file, public_url: file}\nagents: {heartbeat_interval: 3s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MUSTER_CONFIG", path)
	t.Setenv("MUSTER_API__OPS_LISTEN", "env")
	t.Setenv("MUSTER_API__PUBLIC_URL", "env")
	t.Setenv("MUSTER_ROLES", "api,scheduler")
	t.Setenv("MUSTER_CHAIN__RPC_URLS", "https://a.example,https://b.example")
	t.Setenv("MUSTER_TOKEN", "another program's")
	t.Setenv("DATABASE_URL", "postgres://somewhere")
	got, err := load(t, "--api.public_url", "flag")
	if err != nil {
		t.Fatal(err)
	}
	if got.API.Listen != "file" || got.API.OpsListen != "env" || got.API.PublicURL != "flag" || got.Agents.HeartbeatInterval != 3*time.Second {
		t.Errorf("read %+v", got)
	}
	if len(got.Chain.RPCURLs) != 2 || got.Chain.RPCURLs[1] != "https://b.example" {
		t.Errorf("read endpoints %v", got.Chain.RPCURLs)
	}
	if len(got.Roles) != 2 || got.DatabaseURL != "postgres://somewhere" {
		t.Errorf("read roles %v and database %q", got.Roles, got.DatabaseURL)
	}
}

func TestMisspeltSettingsAreNamed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "musterd.yaml")
	if err := os.WriteFile(path, []byte("api: {lisen: x}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(t, "--config", path); err == nil || !strings.Contains(err.Error(), "api.lisen") {
		t.Errorf("the error is %v", err)
	}
}

func TestValidateNamesEverything(t *testing.T) {
	t.Parallel()
	c := config.Default()
	c.Chain.Network, c.Chain.RPCRate = "mainnet", -1
	c.Roles, c.Log.Level, c.Market.FeeBps, c.Payouts.Minimum, c.Agents.AllowSimulated = []string{"cook"}, "loud", 10_001, "0.0000001", true
	err := c.Validate()
	for _, want := range []string{"cook", "database_url", "log.level", "fee_bps", "payouts.minimum", "chain.rpc_urls", "chain.rpc_rate", "chain.mint", "chain.treasury", "allow_simulated"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing is said of %s in %v", want, err)
		}
	}
}
