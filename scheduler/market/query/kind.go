package query

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/muster-gpu/muster/internal/money"
)

// kind is what the values of a field are.
type kind uint8

const (
	kindText    kind = iota
	kindCount        // a whole number
	kindTenths       // 9.0 is 90
	kindPercent      // basis points
	kindPrice        // base units of the currency
	kindSize         // bytes
	kindTier
	kindBool
)

func (k kind) operators() []string {
	switch k {
	case kindText:
		return []string{"=", "!=", "~"}
	case kindBool:
		return []string{"=", "!="}
	default:
		return []string{"=", "!=", "<", "<=", ">", ">="}
	}
}

// read reads a value. The error says what was expected.
func (k kind) read(text string, currency money.Currency) (value, error) {
	switch k {
	case kindText:
		if text == "" {
			return value{}, fmt.Errorf("empty text matches nothing: leave the condition out")
		}
		return value{text: text, written: quote(text)}, nil
	case kindCount:
		return readCount(text)
	case kindTenths:
		v, err := readDecimal(text, 1, maxTenths, "a version such as 9.0")
		v.written = money.Currency{Decimals: 1}.Format(money.Amount(v.number))
		return v, err
	case kindPercent:
		return readDecimal(strings.TrimSuffix(text, "%"), 2, 100, "a percentage such as 99.5")
	case kindPrice:
		amount, err := currency.Parse(text)
		if err != nil {
			return value{}, err
		}
		return value{number: int64(amount), written: trimZeros(currency.Format(amount))}, nil
	case kindSize:
		return readSize(text)
	case kindTier:
		return readTier(text)
	default:
		return readBool(text)
	}
}

const (
	maxCount  = 1_000_000_000
	maxTenths = 1000
)

func readCount(text string) (value, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > maxCount {
		return value{}, fmt.Errorf("%q is not a whole number up to %d", text, maxCount)
	}
	return value{number: int64(n), written: strconv.FormatUint(n, 10)}, nil
}

// readDecimal reads a number with at most some decimals, as an integer of its smallest part.
func readDecimal(text string, decimals int, most int64, expected string) (value, error) {
	amount, err := money.Currency{Decimals: decimals}.Parse(text)
	if err != nil || int64(amount) > most*pow10(decimals) {
		return value{}, fmt.Errorf("%q is not %s", text, expected)
	}
	return value{number: int64(amount), written: trimZeros(money.Currency{Decimals: decimals}.Format(amount))}, nil
}

func pow10(n int) int64 { return int64(math.Pow10(n)) }

// trimZeros writes a decimal number without what it does not need.
func trimZeros(text string) string {
	if !strings.Contains(text, ".") {
		return text
	}
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// units of sizes, the larger first; the empty one is what a size without a unit is in.
var units = []struct {
	name  string
	bytes int64
}{
	{"TIB", 1 << 40}, {"GIB", 1 << 30}, {"MIB", 1 << 20}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"T", 1e12}, {"G", 1e9}, {"", 1e9},
}

const (
	sizeDecimals = 3
	maxSize      = int64(1e15)
	bytesPerMB   = 1_000_000
)

// readSize reads 80GB, 1.5TB, 512GiB; 80 is 80 GB. What is whole neither in MB nor in MiB is rounded down to MB.
func readSize(text string) (value, error) {
	upper := strings.ToUpper(text)
	for _, unit := range units {
		digits, found := strings.CutSuffix(upper, unit.name)
		if !found {
			continue
		}
		thousandths, err := money.Currency{Decimals: sizeDecimals}.Parse(digits)
		if err != nil || int64(thousandths) > maxSize/unit.bytes*pow10(sizeDecimals) {
			break
		}
		n := int64(thousandths) / pow10(sizeDecimals) * unit.bytes
		n += int64(thousandths) % pow10(sizeDecimals) * unit.bytes / pow10(sizeDecimals)
		if n%bytesPerMiB != 0 {
			n -= n % bytesPerMB
		}
		return value{number: n, written: writeSize(n)}, nil
	}
	return value{}, fmt.Errorf("%q is not a size: write it like 80GB, 1.5TB or 512GiB", text)
}

// writeSize writes a size in the largest unit that it is whole in.
func writeSize(n int64) string {
	for _, unit := range []struct {
		name  string
		bytes int64
	}{{"TB", 1e12}, {"GB", 1e9}, {"MB", bytesPerMB}, {"TiB", 1 << 40}, {"GiB", 1 << 30}} {
		if n != 0 && n%unit.bytes == 0 {
			return strconv.FormatInt(n/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatInt(n/bytesPerMiB, 10) + "MiB"
}

var tiers = []string{"new", "proven", "trusted"}

func readTier(text string) (value, error) {
	for n, name := range tiers {
		if strings.EqualFold(text, name) || text == strconv.Itoa(n) {
			return value{number: int64(n), written: name}, nil
		}
	}
	return value{}, fmt.Errorf("%q is not a standing: write new, proven or trusted", text)
}

func readBool(text string) (value, error) {
	switch strings.ToLower(text) {
	case "true", "yes":
		return value{number: 1, written: "true"}, nil
	case "false", "no":
		return value{number: 0, written: "false"}, nil
	default:
		return value{}, fmt.Errorf("%q is neither true nor false", text)
	}
}
