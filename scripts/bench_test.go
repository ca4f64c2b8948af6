package scripts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// bench runs Python code beside bench.py's functions, with a page of the test's own.
func bench(t *testing.T, page, code string, args ...string) (output string, ok bool) {
	t.Helper()
	script := "import sys, bench; from pathlib import Path; bench.PAGE = Path(sys.argv[1]); bench.LOAD = \"no load\"\n" + code
	cmd := exec.CommandContext(t.Context(), "python3", append([]string{"-B", "-c", script, page}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH=.")
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

const publish = `bench.publish(sys.argv[2], [bench.parse(run) for run in sys.argv[3:]])`

func published(t *testing.T, page, name string, runs ...string) string {
	t.Helper()
	if out, ok := bench(t, page, publish, append([]string{name}, runs...)...); !ok {
		t.Fatal(out)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestBenchmarksPageTakesTheMediansOfItsRuns(t *testing.T) {
	t.Parallel()
	text := published(t, filepath.Join(t.TempDir(), "page.md"), "book",
		"figure=bookings_per_s value=9000 unit=1/s peer=one-by-one peer_value=3000 ratio=3 gangs=10 disk=a\nfigure=failover_s value=9 unit=s",
		"figure=bookings_per_s value=6000 unit=1/s peer=one-by-one peer_value=2500 ratio=2.4 gangs=30 disk=b\nfigure=failover_s value=1 unit=s",
		"figure=bookings_per_s value=7000 unit=1/s peer=one-by-one peer_value=1000 ratio=7 gangs=20 disk=c\nfigure=failover_s value=2.5 unit=s",
	)
	for _, want := range []string{
		"| `bookings_per_s` | 7000 1/s | >= 5,000 1/s, ratio >= 3: met | one-by-one | 2500 1/s | 3 | gangs 20, disk a |",
		"| `failover_s` | 2.5 s | <= 3 s: met |  |  |  |  |",
		"medians of 3 runs",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
}

func TestBenchmarksPageSaysWhatFellShort(t *testing.T) {
	t.Parallel()
	text := published(t, filepath.Join(t.TempDir(), "page.md"), "placement",
		"figure=gang_p99_us value=40 unit=us peer=kube-scheduler-1 peer_value=60000 ratio=1500\n"+
			"figure=gang_p99_us value=40 unit=us peer=nomad-1 peer_value=400 ratio=10\n"+
			"figure=gang_p99_us value=40 unit=us peer=scan peer_value=400 ratio=10\n"+
			"figure=index_mb value=100.1 unit=MB",
	)
	for _, want := range []string{
		"| 40 us | <= 50 us, ratio >= 1,000: met | kube-scheduler-1 |",
		"| 40 us | <= 50 us, ratio >= 1,000: **missed** | nomad-1 |",
		"| 40 us | <= 50 us: met | scan |",
		"| 100.1 MB | <= 100 MB: **missed** |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
}

func TestBenchmarksPageKeepsTheOtherSections(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "page.md")
	published(t, page, "book", "figure=failover_s value=1 unit=s")
	book := section(t, published(t, page, "placement", "figure=index_mb value=50 unit=MB"), "book")
	other := "## `make bench-later`: of a later version\n\nIts text.\n"
	appendTo(t, page, "\n"+other)

	text := published(t, page, "placement", "figure=index_mb value=60 unit=MB")
	if got := section(t, text, "book"); got != book {
		t.Errorf("the section of bench-book changed:\n%s\nit was:\n%s", got, book)
	}
	if !strings.HasSuffix(text, "\n"+other) {
		t.Errorf("the section of bench-later changed:\n%s", text)
	}
	if strings.Contains(text, "50 MB") || !strings.Contains(text, "60 MB") || strings.Count(text, "bench-placement") != 1 {
		t.Errorf("the section of bench-placement was not replaced:\n%s", text)
	}
	if strings.Index(text, "bench-placement") > strings.Index(text, "bench-book") {
		t.Errorf("the sections are not in order:\n%s", text)
	}
	if again := published(t, page, "placement", "figure=index_mb value=60 unit=MB"); again != text {
		t.Errorf("the same figures made another page:\n%s", again)
	}
}

func TestBenchmarksRefuseWhatIsNoFigure(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, output, want string }{
		{"prose", "all is well", "is not key=value"},
		{"no value", "figure=a unit=us", "value missing"},
		{"empty value", "figure=a value= unit=us", "is not key=value"},
		{"text for a number", "figure=a value=fast unit=us", "'fast' is no number"},
		{"infinity", "figure=a value=inf unit=us", "'inf' is no number"},
		{"key twice", "figure=a value=1 unit=us value=2", "value is there twice"},
		{"wrong order", "unit=us figure=a value=1", "a line begins with"},
		{"peer without ratio", "figure=a value=1 unit=us peer=b peer_value=2", "ratio missing"},
		{"ratio of nothing", "figure=a value=1 unit=us ratio=2", "peer, peer_value missing"},
		{"wrong ratio", "figure=a value=1 unit=us peer=b peer_value=2 ratio=20", "the ratio is not that of the values"},
		{"ratio upside down", "figure=bookings_per_s value=3 unit=1/s peer=b peer_value=1 ratio=0.333", "the ratio is not that of the values"},
		{"ratio of other rounds", "figure=a value=1 unit=us peer=b peer_value=2 ratio=2 ratio_min=3 ratio_max=4", "not among those of the rounds"},
		{"values of other rounds", "figure=a value=1 unit=us peer=b peer_value=9 ratio=3 ratio_min=2 ratio_max=4", "the ratio is not that of the values"},
		{"ratio to zero", "figure=a value=0 unit=us peer=b peer_value=2 ratio=2", "positive values"},
		{"a table's bar", "figure=a value=1 unit=us|ms", "would break the table"},
		{"figure twice", "figure=a value=1 unit=us\nfigure=a value=2 unit=us", "a is there twice with the same peer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			page := filepath.Join(t.TempDir(), "page.md")
			out, ok := bench(t, page, publish, "book", tc.output)
			if ok || !strings.Contains(out, "BadLine") || !strings.Contains(out, tc.want) {
				t.Errorf("ok = %v, %q is not in:\n%s", ok, tc.want, out)
			}
			if _, err := os.Stat(page); err == nil {
				t.Error("a page was written")
			}
		})
	}
}

func TestBenchmarksRefuseRunsThatLackFigures(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "page.md")
	out, ok := bench(t, page, publish, "book", "figure=a value=1 unit=us", "figure=b value=1 unit=us")
	if ok || !strings.Contains(out, "the runs printed different figures") {
		t.Errorf("ok = %v: %s", ok, out)
	}
	out, ok = bench(t, page, `bench.parse("figure=a value=1 unit=us", ("a", "failover_s"))`)
	if ok || !strings.Contains(out, "no figure failover_s") {
		t.Errorf("ok = %v: %s", ok, out)
	}
}

// section is the part of the page that begins with the benchmark's heading.
func section(t *testing.T, page, name string) string {
	t.Helper()
	_, rest, found := strings.Cut(page, "## `make bench-"+name+"`")
	if !found {
		t.Fatalf("there is no section %s in:\n%s", name, page)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return strings.TrimRight(text, "\n")
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
