package placement_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/placement"
)

var update = flag.Bool("update", false, "write what comes out into testdata/")

// goldenNow is when the scenarios' requests are made; their times are seconds after it.
const goldenNow = 1_000_000

// TestScenarios holds placement to scenarios that people can read: a fleet as a table, then requests, each followed by what comes
// out of it. A line that is indented by a tab is an answer.
func TestScenarios(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := play(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(text) {
				t.Errorf("%s says otherwise (-update accepts it):\n%s", file, got)
			}
		})
	}
}

// play returns a scenario with the answers that come out now.
func play(text string) (string, error) {
	var out strings.Builder
	x := placement.NewIndex()
	var columns []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "\t"):
			continue // an old answer
		case len(fields) == 0 || fields[0] == "#":
		case fields[0] == "host":
			columns = fields
		case fields[0] == "request":
			r, err := readRequest(fields[1:])
			if err != nil {
				return "", fmt.Errorf("%q: %w", line, err)
			}
			out.WriteString(line)
			answer(&out, x, r)
			continue
		default:
			h, err := readHost(columns, fields)
			if err != nil {
				return "", fmt.Errorf("%q: %w", line, err)
			}
			x.Put(h)
		}
		out.WriteString(line)
	}
	return out.String(), nil
}

func answer(out *strings.Builder, x *placement.Index, r placement.Request) {
	var lines strings.Builder
	table := tabwriter.NewWriter(&lines, 0, 0, 2, ' ', 0)
	if plan, placed := x.Place(r); placed {
		fmt.Fprintf(table, "%s\n", describe(plan))
	} else {
		e := x.Explain(r)
		fmt.Fprintf(table, "%s: %s\n", e.Blocking, e.Summary)
		fmt.Fprintf(table, "condition\thosts\tgpus\texcludes\n")
		for _, step := range e.Funnel {
			fmt.Fprintf(table, "%s\t%d\t%d\t%d\n", step.Condition, step.Hosts, step.GPUs, step.Excludes)
		}
		for _, c := range x.Nearest(r, goldenNow) {
			fmt.Fprintf(table, "%s: %s: %s\n", c.Kind, c.Summary, describe(c.Plan))
		}
	}
	_ = table.Flush() // into memory
	for line := range strings.Lines(lines.String()) {
		out.WriteString("\t" + strings.TrimRight(line, " \n") + "\n")
	}
}

func describe(plan placement.Plan) string {
	var hosts []string
	for _, n := range plan.Nodes {
		hosts = append(hosts, fmt.Sprintf("%s at %d", strings.TrimRight(string(n.Host.ID[:]), "\x00"), n.Price))
	}
	link := "unknown"
	if plan.WorstRTT >= 0 {
		link = plan.WorstRTT.String()
	}
	return fmt.Sprintf("%s on %s for %d, worst link %s", plan.Model, strings.Join(hosts, ", "), plan.Price(), link)
}

// readHost reads a row of the table. "-" is the zero value. A host has 8 GPUs; bitmaps are hexadecimal, spans BITMAP:FROM:TO.
func readHost(columns, fields []string) (placement.Host, error) {
	h := placement.Host{Runtime: "docker", Open: true, GPUs: 8, Well: 0xff, Images: []string{"2.60.0"}}
	if len(fields) != len(columns) {
		return h, fmt.Errorf("%d fields for %d columns", len(fields), len(columns))
	}
	var failed error
	for i, field := range fields {
		if field == "-" {
			continue
		}
		var err error
		switch columns[i] {
		case "host":
			copy(h.ID[:], field)
		case "owner":
			copy(h.Owner[:], field)
		case "model":
			h.Model = field
		case "runtime":
			h.Runtime = field
		case "region":
			h.Region = field
		case "site":
			h.Site = field
		case "rtt":
			h.RTT, err = time.ParseDuration(field)
		case "state":
			h.Open = field == "open"
		case "leased":
			h.Leased, err = bitmap(field)
		case "spot":
			h.Spot, err = bitmap(field)
		case "lease":
			err = readSpan(field, &h.Leases)
			h.Leased = h.Leases[0].GPUs
		case "reserved":
			err = readSpan(field, &h.Reserved)
		case "memory":
			h.MemoryMiB, err = strconv.ParseInt(field, 10, 64)
		case "reliability":
			h.Reliability, err = strconv.Atoi(field)
		case "cpus":
			h.CPUs, err = strconv.Atoi(field)
		case "price":
			var price int64
			price, err = strconv.ParseInt(field, 10, 64)
			for class := range h.Prices {
				h.Prices[class] = money.Amount(price)
			}
		default:
			err = fmt.Errorf("there is no column %s", columns[i])
		}
		failed = errors.Join(failed, err)
	}
	return h, failed
}

func bitmap(text string) (uint64, error) { return strconv.ParseUint(text, 16, 64) }

func readSpan(text string, spans *[]placement.Span) error {
	gpus, when, _ := strings.Cut(text, ":")
	from, to, _ := strings.Cut(when, ":")
	mask, err := bitmap(gpus)
	begin, err2 := strconv.ParseInt(from, 10, 64)
	end, err3 := strconv.ParseInt(to, 10, 64)
	*spans = append(*spans, placement.Span{GPUs: mask, From: goldenNow + begin, To: goldenNow + end})
	return errors.Join(err, err2, err3)
}

// readRequest reads key=value pairs. Without "until" it is for an hour.
func readRequest(fields []string) (placement.Request, error) {
	r := placement.Request{Nodes: 1, GPUsPerNode: 8, Until: goldenNow + 3_600}
	var failed error
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		var err error
		switch key {
		case "model":
			r.Model = value
		case "runtime":
			r.Runtime = value
		case "nodes":
			r.Nodes, err = strconv.Atoi(value)
		case "gpus":
			r.GPUsPerNode, err = strconv.Atoi(value)
		case "regions":
			r.Regions = strings.Split(value, ",")
		case "same-site":
			r.SameSite, err = strconv.ParseBool(value)
		case "max-rtt":
			r.MaxRTT, err = time.ParseDuration(value)
		case "max-price":
			err = readNumber(value, (*int64)(&r.MaxPrice))
		case "min-memory":
			err = readNumber(value, &r.MinMemoryMiB)
		case "reliability":
			r.MinReliability, err = strconv.Atoi(value)
		case "cpus":
			r.CPUs, err = strconv.Atoi(value)
		case "allow":
			r.AllowOwners = readOwners(value)
		case "deny":
			r.DenyOwners = readOwners(value)
		case "image":
			r.Image = value
		case "start":
			err = readNumber(value, &r.Start)
			r.Start += goldenNow
		case "until":
			err = readNumber(value, &r.Until)
			r.Until += goldenNow
		case "preempt":
			r.Preempt, err = strconv.ParseBool(value)
		default:
			err = fmt.Errorf("there is no %s to ask for", key)
		}
		failed = errors.Join(failed, err)
	}
	return r, failed
}

func readNumber(text string, into *int64) (err error) {
	*into, err = strconv.ParseInt(text, 10, 64)
	return err
}

func readOwners(text string) []ids.Org {
	var all []ids.Org
	for name := range strings.SplitSeq(text, ",") {
		var owner ids.Org
		copy(owner[:], name)
		all = append(all, owner)
	}
	return all
}
