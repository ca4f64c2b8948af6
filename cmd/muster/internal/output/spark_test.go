package output_test

import (
	"math"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/cmd/muster/internal/output"
)

func TestSparkline(t *testing.T) {
	t.Parallel()
	for want, values := range map[string][]float64{
		"": nil, "▁": {5}, "▁█": {1, 2}, "▁▅█": {0, 5, 10}, "▁ █": {1, math.NaN(), 2}, "▁▁▁": {3, 3, 3},
	} {
		if got := output.Sparkline(values, 0); got != want {
			t.Errorf("%v: %q, want %q", values, got, want)
		}
	}
	if got := output.Sparkline([]float64{1, 3, 10, 10}, 2); got != "▁█" {
		t.Errorf("squeezed to %q", got)
	}
	if got := output.Sparkline([]float64{math.NaN(), math.NaN()}, 0); got != "" {
		t.Errorf("nothing is drawn as %q", got)
	}
}

func TestSparklineIsAsWideAsAsked(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(0, 100), 1, 300).Draw(t, "values")
		width := rapid.IntRange(1, 80).Draw(t, "width")
		if got := utf8.RuneCountInString(output.Sparkline(values, width)); got != min(width, len(values)) {
			t.Errorf("%d wide, want %d", got, min(width, len(values)))
		}
	})
}
