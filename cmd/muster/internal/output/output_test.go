package output

import (
	"bytes"
	"testing"
	"time"

	apiv1 "github.com/muster-gpu/muster/api/v1"
)

func TestAmountsKeepEveryDigitThatCounts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"1.900000": "1.90", "0.105798": "0.105798", "1000.000000": "1000.00", "-7.600000": "-7.60", "0.000001": "0.000001", "5": "5", "2.5": "2.50",
	} {
		if got := Amount(apiv1.Money{Text: text}); got != want {
			t.Errorf("%s is written %s, want %s", text, got, want)
		}
	}
	if !IsZero(apiv1.Money{BaseUnits: "0"}) || IsZero(apiv1.Money{BaseUnits: "10"}) {
		t.Error("zero is not told from ten")
	}
}

func TestSpansAreWrittenInTheirLargestUnits(t *testing.T) {
	t.Parallel()
	for span, want := range map[time.Duration]string{
		-time.Second: "0 ms", 850 * time.Millisecond: "850 ms", 3400 * time.Millisecond: "3.4 s", 5*time.Minute + 12*time.Second: "5m12s", time.Hour: "1h",
		150 * time.Minute: "2h30m", 99 * time.Hour: "4d3h",
	} {
		if got := Duration(span); got != want {
			t.Errorf("%v is written %s, want %s", span, got, want)
		}
	}
	now := time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)
	for span, want := range map[time.Duration]string{0: "0s", 59 * time.Second: "59s", time.Hour - 1: "59m", 47 * time.Hour: "47h", 49 * time.Hour: "2d", -time.Hour: "0s"} {
		if got := (Printer{Now: now}).Age(now.Add(-span)); got != want {
			t.Errorf("an age of %v is written %s, want %s", span, got, want)
		}
	}
}

func TestYAMLHasJSONsNamesAndKeepsTextText(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	document := struct {
		Number int      `json:"number"`
		Like   string   `json:"like_a_number"`
		Yes    string   `json:"yes"`
		Plain  string   `json:"plain"`
		None   []string `json:"none"`
	}{5, "5.0", "true", "two words", []string{}}
	if err := (Printer{Out: &out, Format: YAML}).Print(document, nil, nil); err != nil {
		t.Fatal(err)
	}
	const want = "number: 5\nlike_a_number: \"5.0\"\nyes: \"true\"\nplain: two words\nnone: []\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestTablesAreAlignedAndOnlyTerminalsCutThem(t *testing.T) {
	t.Parallel()
	columns := []Column{{Head: "NAME", Shrink: true}, {Head: "N", Right: true}, {Head: "ID", Wide: true}, {Head: "WHY"}}
	rows := [][]Cell{{{Text: "a very long name of a cluster"}, {Text: "5"}, {Text: "x"}, {Text: ""}}, {{Text: "é"}, {Text: "12"}, {Text: "y"}, {Text: "because"}}}
	for _, tc := range []struct {
		width int
		want  string
	}{
		{0, "NAME                            N  WHY\na very long name of a cluster   5\né                              12  because\n"},
		{30, "NAME                N  WHY\na very long name…   5\né                  12  because\n"},
	} {
		var out bytes.Buffer
		copied := make([][]Cell, len(rows))
		for i := range rows {
			copied[i] = append([]Cell{}, rows[i]...)
		}
		if err := (Printer{Out: &out, Format: Table, Width: tc.width}).Print(nil, nil, func(p *Page) { p.Table(columns, copied) }); err != nil {
			t.Fatal(err)
		}
		if out.String() != tc.want {
			t.Errorf("width %d: got\n%swant\n%s", tc.width, out.String(), tc.want)
		}
	}
}
