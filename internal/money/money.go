// Package money counts tokens in integer base units and never in floating point.
//
// An Amount is a number of base units of one currency; which one is the business of the row or message that holds it. A
// Currency knows its mint and how many decimals a whole token has, and converts between base units and decimal text exactly:
// text with more decimals than the mint is an error, not a rounding.
package money

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// Amount is a number of base units: for USDC, millionths of a dollar.
type Amount int64

// MaxDecimals is the most decimals a currency may have: every whole token up to 9.2 must fit an Amount.
const MaxDecimals = 18

const millisecondsPerHour = 3_600_000

// Currency is an SPL token: its mint's address, the decimals of its mint account and the symbol to show.
type Currency struct {
	Symbol   string
	Mint     string
	Decimals int
}

// Parse reads non-negative decimal text such as "2.50". The error names what is wrong with it.
func (c Currency) Parse(text string) (Amount, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	if whole == "" || !isDigits(whole) || !isDigits(fraction) || strings.HasSuffix(text, ".") {
		return 0, fmt.Errorf("%q is not an amount: write a decimal number such as 2.50, without a sign", text)
	}
	if len(fraction) > c.Decimals {
		return 0, fmt.Errorf("%q has %d decimals, and %s has only %d", text, len(fraction), c.Symbol, c.Decimals)
	}
	units, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", c.Decimals-len(fraction)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q %s is more than can be counted", text, c.Symbol)
	}
	return Amount(units), nil
}

// Format writes an amount as decimal text with all the currency's decimals, "2.500000".
func (c Currency) Format(a Amount) string {
	sign := ""
	if a < 0 {
		sign = "-"
	}
	return sign + Decimal(strconv.FormatUint(absolute(a), 10), c.Decimals)
}

// Decimal places the point in the digits of a number of base units, which may be greater than an Amount.
func Decimal(units string, decimals int) string {
	if decimals == 0 {
		return units
	}
	units = strings.Repeat("0", max(0, decimals+1-len(units))) + units
	point := len(units) - decimals
	return units[:point] + "." + units[point:]
}

// fewestDecimals are written even where they are zeros.
const fewestDecimals = 2

// Text writes an amount for people, with the currency's symbol: with the decimals that it has, and two at least.
func (c Currency) Text(a Amount) string {
	text := c.Format(a)
	if whole, fraction, found := strings.Cut(text, "."); found {
		text = whole + "." + fraction[:max(min(fewestDecimals, len(fraction)), len(strings.TrimRight(fraction, "0")))]
	}
	return strings.TrimSpace(text + " " + c.Symbol)
}

// Accrued is what a price per GPU-hour comes to after some milliseconds, rounded down: floor(price x ms / 3,600,000). It is
// cumulative, so postings of the difference to the last figure never drift. It panics on negative input or overflow, which
// the schema's checks exclude.
func Accrued(pricePerHour Amount, milliseconds int64) Amount {
	if pricePerHour < 0 || milliseconds < 0 {
		panic(fmt.Sprintf("money: accrue %d for %d ms", pricePerHour, milliseconds))
	}
	return mulDiv(pricePerHour, milliseconds, millisecondsPerHour)
}

// Share is the part of an amount given in basis points, rounded down.
func Share(a Amount, basisPoints int) Amount {
	if a < 0 || basisPoints < 0 || basisPoints > 10_000 {
		panic(fmt.Sprintf("money: %d basis points of %d", basisPoints, a))
	}
	return mulDiv(a, int64(basisPoints), 10_000)
}

func mulDiv(a Amount, b, divisor int64) Amount {
	product := new(big.Int).Mul(big.NewInt(int64(a)), big.NewInt(b))
	product.Quo(product, big.NewInt(divisor))
	if !product.IsInt64() {
		panic(fmt.Sprintf("money: %d x %d / %d overflows", a, b, divisor))
	}
	return Amount(product.Int64())
}

func isDigits(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }) < 0
}

func absolute(a Amount) uint64 {
	if a < 0 {
		return uint64(-(a + 1)) + 1
	}
	return uint64(a)
}
