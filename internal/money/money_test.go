package money_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/money"
)

var usdc = money.Currency{Symbol: "USDC", Decimals: 6}

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]money.Amount{"0": 0, "2.5": 2_500_000, "0.000001": 1, "9223372036854.775807": 1<<63 - 1} {
		if got, err := usdc.Parse(text); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for text, problem := range map[string]string{
		"": "not an amount", "-1": "without a sign", "+1": "without a sign", "1.": "not an amount", ".5": "not an amount", "1e3": "not an amount",
		"0.0000001": "has only 6", "9223372036854.775808": "more than can be counted", "١": "not an amount",
	} {
		if got, err := usdc.Parse(text); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%q gave %d, %v; want an error that says %q", text, got, err, problem)
		}
	}
}

func TestFormatReadsBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := money.Currency{Symbol: "T", Decimals: rapid.IntRange(0, money.MaxDecimals).Draw(t, "decimals")}
		want := money.Amount(rapid.Int64Min(0).Draw(t, "amount"))
		if got, err := c.Parse(c.Format(want)); err != nil || got != want {
			t.Fatalf("%s reads back as %d, %v", c.Format(want), got, err)
		}
	})
	if got := usdc.Format(-1 << 63); got != "-9223372036854.775808" {
		t.Errorf("the smallest amount is written %s", got)
	}
}

func TestTextKeepsTwoDecimalsAndWhatIsNotZero(t *testing.T) {
	t.Parallel()
	usdc, whole := money.Currency{Symbol: "USDC", Decimals: 6}, money.Currency{Decimals: 0}
	for want, got := range map[string]string{
		"1049.76 USDC": usdc.Text(1_049_760_000), "2.00 USDC": usdc.Text(2_000_000), "0.000001 USDC": usdc.Text(1), "-1.50 USDC": usdc.Text(-1_500_000),
		"7": whole.Text(7),
	} {
		if got != want {
			t.Errorf("written as %q, want %q", got, want)
		}
	}
}

func TestAccruedNeverDrifts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		price := money.Amount(rapid.Int64Range(0, 1e12).Draw(t, "price"))
		steps := rapid.SliceOf(rapid.Int64Range(0, 1e7)).Draw(t, "steps")
		var elapsed int64
		var posted money.Amount
		for _, step := range steps {
			elapsed += step
			due := money.Accrued(price, elapsed)
			if due < posted {
				t.Fatalf("the charge fell from %d to %d", posted, due)
			}
			posted += due - posted
		}
		if want := money.Accrued(price, elapsed); posted != want {
			t.Fatalf("posted %d in steps, %d at once", posted, want)
		}
	})
}

func TestShareIsRoundedDownAndNeverMoreThanTheWhole(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		amount money.Amount
		bps    int
		want   money.Amount
	}{{10_000, 250, 250}, {39, 250, 0}, {40, 250, 1}, {1<<63 - 1, 10_000, 1<<63 - 1}, {7, 0, 0}} {
		if got := money.Share(c.amount, c.bps); got != c.want {
			t.Errorf("%d basis points of %d are %d, want %d", c.bps, c.amount, got, c.want)
		}
	}
	for name, outside := range map[string]func(){
		"a negative amount": func() { money.Share(-1, 1) }, "more than all": func() { money.Share(1, 10_001) },
		"an overflow": func() { money.Accrued(1<<62, 1<<40) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was taken", name)
				}
			}()
			outside()
		}()
	}
}
