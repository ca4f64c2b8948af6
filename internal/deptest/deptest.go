// Package deptest holds the repository to its dependency rules: cmd -> api -> scheduler | settlement -> internal, and each
// large library in the one place that needs it. The rules are the table Bans, each with its reason; its test checks them.
package deptest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

// Module is the module whose packages are checked.
const Module = "github.com/muster-gpu/muster"

// Ban says that packages below From must not depend on packages below To, neither directly nor through others. Paths without
// a dot in their first element are below Module.
type Ban struct {
	From   []string // nil: every package of the module
	To     []string
	Except []string // packages, with all below them, that the ban leaves out
	Direct bool     // looks at a package's own imports only, those of its tests included
	Past   []string // packages that may be imported, and at which the search ends
	Reason string
}

// The libraries that have one place each.
var (
	postgres = []string{"github.com/jackc/pgx/v5", "github.com/pressly/goose/v3"}
	httpAPI  = []string{"github.com/gin-gonic/gin", "github.com/danielgtaylor/huma/v2/adapters/humagin"}
	solana   = []string{"github.com/gagliardetto/solana-go"}
	nvml     = []string{"github.com/NVIDIA/go-nvml"}
)

// sendAndConfirm is solana-go's way to send and wait in one.
const sendAndConfirm = "github.com/gagliardetto/solana-go/rpc/sendAndConfirmTransaction"

// bookbench is a program of its own, which wires the parts that it measures as cmd does.
const bookbench = "scheduler/applier/bookbench"

// Bans are the rules.
var Bans = []Ban{
	{
		From: []string{"scheduler"}, To: []string{"settlement"}, Except: []string{bookbench},
		Reason: "placing and paying change for different reasons: what one needs of the other is a small interface wired in cmd",
	},
	{
		From: []string{"settlement"}, To: []string{"scheduler"},
		Reason: "placing and paying change for different reasons: what one needs of the other is a small interface wired in cmd",
	},
	{
		From: []string{"scheduler"}, To: []string{"settlement"}, Direct: true, Except: []string{bookbench},
		Reason: "a scheduler test that needs the ledger is an end-to-end test: it belongs to cmd",
	},
	{
		From: []string{"settlement"}, To: []string{"scheduler"}, Direct: true,
		Reason: "a settlement test that needs the scheduler is an end-to-end test: it belongs to cmd",
	},
	{
		From: []string{"scheduler", "settlement"}, To: []string{"api", "worker", "cmd"}, Except: []string{bookbench},
		Reason: "dependencies run cmd -> api -> scheduler | settlement -> internal",
	},
	{
		From: []string{"api"}, To: []string{"worker", "cmd"},
		Reason: "the API speaks with agents through their protocol only",
	},
	{
		From: []string{"worker", "cmd/muster-worker"},
		To:   slices.Concat(postgres, httpAPI, solana, []string{"api", "scheduler", "settlement", "migrations"}),
		Reason: "the agent runs on an owner's machine: it needs no database, no HTTP server and no chain, " +
			"and what it does not contain cannot be attacked there",
	},
	{
		From:   []string{"cmd/muster"},
		To:     slices.Concat(solana, []string{"settlement"}),
		Past:   []string{"settlement/chain", "settlement/proof"},
		Reason: "the command line is a client of the API, and with `muster verify` of the chain, which needs neither a key nor a login",
	},
	{
		From:   []string{"cmd/muster"},
		To:     slices.Concat(postgres, httpAPI, []string{"scheduler", "worker", "migrations", "settlement/ledger", "settlement/signer"}),
		Reason: "what the command line can do, everyone's programs can",
	},
	{
		To: httpAPI, Except: []string{"api"}, Direct: true,
		Reason: "HTTP lives in api: elsewhere an error has a code, not a status",
	},
	{
		To: solana, Except: []string{"settlement", "deploy/localnet"}, Direct: true,
		Reason: "the chain lives in settlement: elsewhere an address is text",
	},
	{
		To: []string{sendAndConfirm}, Direct: true,
		Reason: "it sends before anything is stored and takes a timeout for a failure: what was sent twice is paid twice",
	},
	{
		To: nvml, Except: []string{"worker"}, Direct: true,
		Reason: "only a host asks its own driver",
	},
	{
		From: []string{"internal"}, To: []string{"api", "scheduler", "settlement", "worker", "cmd"},
		Except: []string{"internal/devstack", "internal/simfleet/fleetbench"},
		Reason: "internal is what all others stand on; devstack alone wires the whole stack, for one machine, and a benchmark what it measures",
	},
	{
		From: []string{"cmd"}, To: []string{"internal/testkit"},
		Reason: "test helpers stay out of the programs",
	},
}

// Package is a package as `go list` describes it.
type Package struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// Violation is a way from a package to one that is banned for it.
type Violation struct {
	Path   []string
	Reason string
}

func (v Violation) String() string {
	return strings.ReplaceAll(strings.Join(v.Path, " -> "), Module+"/", "") + ": " + v.Reason
}

// Load lists the packages of the module that dir is in, with all that they depend on.
func Load(ctx context.Context, dir string) ([]Package, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-json=ImportPath,Imports,TestImports,XTestImports", Module+"/...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	var packages []Package
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p Package
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		packages = append(packages, p)
	}
}

// Check returns the violations of bans among packages: for each package and ban the shortest one.
func Check(packages []Package, bans []Ban) []Violation {
	byPath := make(map[string]Package, len(packages))
	for _, p := range packages {
		byPath[p.ImportPath] = p
	}
	var violations []Violation
	for _, ban := range bans {
		for _, p := range packages {
			if !ban.appliesTo(p.ImportPath) {
				continue
			}
			if way := ban.way(p, byPath); way != nil {
				violations = append(violations, Violation{Path: way, Reason: ban.Reason})
			}
		}
	}
	return violations
}

func (b Ban) appliesTo(path string) bool {
	if below(path, b.Except) {
		return false
	}
	if b.From == nil {
		return below(path, []string{""})
	}
	return below(path, b.From)
}

// way is the shortest chain of imports from p to a banned package, nil when there is none.
func (b Ban) way(p Package, byPath map[string]Package) []string {
	if b.Direct {
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if below(imported, b.To) {
				return []string{p.ImportPath, imported}
			}
		}
		return nil
	}
	from := map[string]string{p.ImportPath: ""}
	for queue := []string{p.ImportPath}; len(queue) > 0; queue = queue[1:] {
		for _, imported := range byPath[queue[0]].Imports {
			if _, seen := from[imported]; seen {
				continue
			}
			from[imported] = queue[0]
			if below(imported, b.Past) {
				continue
			}
			if below(imported, b.To) {
				return trace(imported, from)
			}
			queue = append(queue, imported)
		}
	}
	return nil
}

func trace(end string, from map[string]string) []string {
	var way []string
	for at := end; at != ""; at = from[at] {
		way = append(way, at)
	}
	slices.Reverse(way)
	return way
}

// below says whether path is one of roots or inside one. The root "" is the module itself.
func below(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		root = absolute(root)
		return path == root || strings.HasPrefix(path, root+"/")
	})
}

// absolute completes a path that is below Module. Others begin with a host name.
func absolute(root string) string {
	first, _, _ := strings.Cut(root, "/")
	switch {
	case root == "":
		return Module
	case strings.Contains(first, "."):
		return root
	default:
		return Module + "/" + root
	}
}
