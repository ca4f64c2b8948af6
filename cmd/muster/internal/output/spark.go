package output

import (
	"math"
	"slices"
	"strings"
)

var bars = []rune("▁▂▃▄▅▆▇█")

// Sparkline draws values as a line of bars, the least and the greatest as the lowest and the highest one. NaN is a gap. More than
// width values are drawn width wide, each bar the mean of its share.
func Sparkline(values []float64, width int) string {
	if width > 0 && len(values) > width {
		values = squeezed(values, width)
	}
	known := slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	if len(known) == 0 {
		return ""
	}
	low, high := slices.Min(known), slices.Max(known)
	var line strings.Builder
	for _, v := range values {
		switch {
		case math.IsNaN(v):
			line.WriteRune(' ')
		case high == low:
			line.WriteRune(bars[0])
		default:
			line.WriteRune(bars[int((v-low)/(high-low)*float64(len(bars)-1)+0.5)]) //nolint:mnd // rounds to the nearest bar
		}
	}
	return line.String()
}

func squeezed(values []float64, width int) []float64 {
	means := make([]float64, width)
	for i := range means {
		share := values[i*len(values)/width : (i+1)*len(values)/width]
		sum, count := 0.0, 0
		for _, v := range share {
			if !math.IsNaN(v) {
				sum, count = sum+v, count+1
			}
		}
		means[i] = sum / float64(count) // without any: NaN
	}
	return means
}
