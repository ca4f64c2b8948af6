package fleet

import (
	"fmt"
	"regexp"
	"strings"
)

const bytesPerGiB = 1 << 30

var (
	// brandWords are what NVML puts before the name that people use.
	brandWords = []string{"NVIDIA", "Tesla", "GeForce", "Quadro"}
	// formWords say how a card is built or cooled, which the market does not tell apart.
	formWord   = regexp.MustCompile(`^(HBM\d\w*|PCIe|SXM\d*|NVL|\d+GB|GPU|Generation|Server|Workstation|Edition|D)$`)
	formSuffix = regexp.MustCompile(`-(SXM\d*|PCIE|PCIe|NVL|\d+GB)\b`)
)

// sizedModels come with different amounts of memory under one name, so the market's name carries it.
var sizedModels = map[string]bool{"A100": true, "V100": true}

// ModelName is the market's name of a GPU: "NVIDIA A100-SXM4-80GB" is an A100-80GB.
func ModelName(product string, memoryBytes int64) string {
	words := strings.Fields(product)
	for len(words) > 1 && contains(brandWords, words[0]) {
		words = words[1:]
	}
	var kept []string
	for _, word := range words {
		word = formSuffix.ReplaceAllString(word, "")
		if word != "" && !formWord.MatchString(word) {
			kept = append(kept, word)
		}
	}
	name := strings.Join(kept, "")
	if name == "" {
		name = strings.Join(words, "")
	}
	if sizedModels[name] && memoryBytes > 0 {
		name = fmt.Sprintf("%s-%dGB", name, marketedGB(memoryBytes))
	}
	return clip(name, maxModelName)
}

// marketedGB is the size that a card is sold under: NVML reports a little less or more.
func marketedGB(memoryBytes int64) int64 {
	const step = 8
	gib := (memoryBytes + bytesPerGiB/2) / bytesPerGiB
	return (gib + step/2) / step * step
}

func contains(words []string, word string) bool {
	for _, w := range words {
		if strings.EqualFold(w, word) {
			return true
		}
	}
	return false
}
