package deptest

import (
	"slices"
	"strings"
	"testing"
)

func TestRepositoryKeepsItsDependencyRules(t *testing.T) {
	t.Parallel()
	packages, err := Load(t.Context(), ".")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(packages, func(p Package) bool { return p.ImportPath == Module+"/internal/deptest" }) {
		t.Fatal("the list of packages lacks this one")
	}
	for _, v := range Check(packages, Bans) {
		t.Error(v)
	}
}

func TestEveryBanHasAReason(t *testing.T) {
	t.Parallel()
	for _, ban := range Bans {
		if len(ban.To) == 0 || len(ban.Reason) < 20 {
			t.Errorf("%+v", ban)
		}
	}
}

// module makes a package of the module.
func module(path string, imports ...string) Package {
	return Package{ImportPath: absolute(path), Imports: imports}
}

func TestPlantedViolationsAreFound(t *testing.T) {
	t.Parallel()
	const gin, pgx, sol = "github.com/gin-gonic/gin", "github.com/jackc/pgx/v5/pgxpool", "github.com/gagliardetto/solana-go/rpc"
	store := module("internal/store", pgx)
	for name, tc := range map[string]struct {
		packages []Package
		want     string // the way; "" for none
	}{
		"scheduler imports settlement": {
			[]Package{module("scheduler/market", Module+"/settlement/ledger"), module("settlement/ledger")},
			"scheduler/market -> settlement/ledger",
		},
		"settlement imports scheduler": {
			[]Package{module("settlement/metering", Module+"/scheduler/cluster")},
			"settlement/metering -> scheduler/cluster",
		},
		"a scheduler test imports settlement": {
			[]Package{{ImportPath: absolute("scheduler/applier"), XTestImports: []string{Module + "/settlement/ledger"}}},
			"scheduler/applier -> settlement/ledger",
		},
		"cmd/muster reads the chain": {
			[]Package{module("cmd/muster", Module+"/settlement/proof"), module("settlement/proof", sol)},
			"",
		},
		"cmd/muster reaches the ledger past it": {
			[]Package{module("cmd/muster", Module+"/settlement/proof"), module("settlement/proof", Module+"/settlement/ledger"), module("settlement/ledger")},
			"cmd/muster -> settlement/proof -> settlement/ledger",
		},
		"worker reaches pgx through internal": {
			[]Package{module("worker/agent", Module+"/internal/store"), store},
			"worker/agent -> internal/store -> " + pgx,
		},
		"the CLI reaches pgx through internal": {
			[]Package{module("cmd/muster", Module+"/internal/store"), store},
			"cmd/muster -> internal/store -> " + pgx,
		},
		"the CLI is not the daemon": {[]Package{module("cmd/musterd", Module+"/internal/store"), store}, ""},
		"the CLI imports server code": {
			[]Package{module("cmd/muster", Module+"/scheduler/market")},
			"cmd/muster -> scheduler/market",
		},
		"scheduler imports gin":             {[]Package{module("scheduler/fleet", gin)}, "scheduler/fleet -> " + gin},
		"api imports gin":                   {[]Package{module("api/server", gin)}, ""},
		"api imports solana":                {[]Package{module("api/auth", sol)}, "api/auth -> " + sol},
		"settlement imports solana":         {[]Package{module("settlement/chain", sol)}, ""},
		"payouts send and wait":             {[]Package{module("settlement/payouts", sendAndConfirm)}, "settlement/payouts -> " + sendAndConfirm},
		"api imports NVML":                  {[]Package{module("api", "github.com/NVIDIA/go-nvml/pkg/nvml")}, "api -> github.com/NVIDIA/go-nvml/pkg/nvml"},
		"internal imports api":              {[]Package{module("internal/config", Module+"/api/v1")}, "internal/config -> api/v1"},
		"devstack wires":                    {[]Package{module("internal/devstack", Module+"/api/v1")}, ""},
		"a program imports test helpers":    {[]Package{module("cmd/musterd", Module+"/internal/testkit")}, "cmd/musterd -> internal/testkit"},
		"a name that only begins like one":  {[]Package{module("scheduler/x", Module+"/settlements")}, ""},
		"a stranger may depend on anything": {[]Package{{ImportPath: "example.com/x", Imports: []string{gin, pgx, sol}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, v := range Check(tc.packages, Bans) {
				got = append(got, v.String())
			}
			if tc.want == "" {
				if len(got) > 0 {
					t.Errorf("found %q, want nothing", got)
				}
				return
			}
			if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, tc.want+": ") }) {
				t.Errorf("found %q, want %s", got, tc.want)
			}
		})
	}
}
