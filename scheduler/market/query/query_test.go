package query_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/money"
	"github.com/muster-gpu/muster/scheduler/market/query"
	"github.com/muster-gpu/muster/scheduler/placement"
)

var usdc = money.Currency{Symbol: "USDC", Decimals: 6}

// h100 has three of its eight GPUs free.
func h100() *placement.Host {
	h := &placement.Host{
		Model: "H100", MemoryMiB: 81559, Compute: 90, Region: "eu-west", GPUs: 8, Well: 0xff, Leased: 0x1f, CPUs: 64,
		MemoryBytes: 512 << 30, DiskBytes: 2_000_000_000_000, Driver: 570, Reliability: 9950, Tier: 1,
	}
	h.Prices[placement.Spot] = 1
	return h
}

func TestWhatMatches(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"":  true,
		" ": true,
		"gpu=H100 vram>=80GB region=eu price<2.5": true,
		"gpu=h100": true, "gpu=H10": false, "gpu~10": true, "gpu!=H100": false, "gpu=L40S,H100": true, "gpu!=L40S,A100": true,
		`gpu = "H100" , "RTX 4090"`: true, `gpu="RTX 4090"`: false, `gpu~x,1`: true,
		"region=eu": true, "region=EU-WEST": true, "region=e": false, "region=eu-": false, "region!=us": true, "region!=eu": false, "region~west": true,
		"price<2": false, "price<=2": true, "price=2": true, "price>1.999999": true, "price!=2": false, "price=1,2": true,
		"vram=80": true, "vram=80GB": true, "vram=96GB": false, "vram>81559MiB": false, "vram>=81559MiB": true, "vram<0.1TB": true, "vram!=80GB": false,
		"free=3": true, "free>3": false, "gpus=8": true, "compute>=9.0": true, "compute>=9": true, "compute<8.9": false,
		"cpus>=64": true, "cpus>64": false, "memory>=512GiB": true, "memory=512GB": true, "disk<2TB": false, "driver>=580": false,
		"reliability>=99.5%": true, "reliability>99.5": false, "tier=proven": true, "tier<1": false, "tier>=trusted": false, "tier=new,proven": true,
		"spot=true": true, "spot!=yes": false, "simulated=no": true, "simulated=true": false,
	} {
		filter, err := query.Parse(text, usdc)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := filter.Match(h100(), 2_000_000); got != want {
			t.Errorf("%q matches %v, want %v", text, got, want)
		}
		if filter.IsZero() != (strings.TrimSpace(text) == "") {
			t.Errorf("%q is zero: %v", text, filter.IsZero())
		}
	}
}

func TestWhatAHostHasNotReportedMeetsNoCondition(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"driver<1000", "driver!=570", "cpus<9", "memory<1TB", "disk<1TB", "compute<9", "price<9", "vram<1TB"} {
		filter, err := query.Parse(text, usdc)
		if err != nil {
			t.Fatal(err)
		}
		if filter.Match(&placement.Host{}, 0) {
			t.Errorf("%q matches a host of which nothing is known", text)
		}
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	t.Parallel()
	for text, c := range map[string]struct {
		offset, length int
		says           string
	}{
		"gpu=H100 flops>1":           {9, 5, "there is no field \"flops\": the fields are gpu, region"},
		"gpu":                        {3, 0, "the end of the query is not an operator: gpu takes = != ~"},
		"gpu H100":                   {4, 4, "\"H100\" is not an operator"},
		"gpu=":                       {4, 0, "the end of the query is not a value: gpu is written like gpu=H100"},
		"gpu= ,H100":                 {5, 1, "\",\" is not a value"},
		"gpu>H100":                   {3, 1, "gpu does not take \">\""},
		"gpu=H100,":                  {9, 0, "not a value"},
		"=H100":                      {0, 1, "\"=\" is not a field"},
		"gpu==H100":                  {3, 2, "does not take \"==\""},
		"région=eu":                  {0, 6, "there is no field"},
		"gpu=Ä vram>=x":              {12, 1, "\"x\" is not a size"},
		"vram>=80XB":                 {6, 4, "\"80XB\" is not a size: write it like 80GB"},
		"vram>=2PB":                  {6, 3, "is not a size"},
		"vram>=9999999TB":            {6, 9, "is not a size"},
		"price<-1":                   {6, 2, "without a sign"},
		"price<1,2":                  {8, 1, "< compares with one value"},
		"price<0.0000001":            {6, 9, "has only 6"},
		"free=-1":                    {5, 2, "not a whole number"},
		"free=99999999999999999999":  {5, 20, "not a whole number"},
		"compute>=9.05":              {9, 4, "not a version"},
		"reliability>101":            {12, 3, "not a percentage"},
		"tier=best":                  {5, 4, "not a standing"},
		"spot=maybe":                 {5, 5, "neither true nor false"},
		"spot>true":                  {4, 1, "does not take"},
		`gpu="H100`:                  {4, 5, "is not closed"},
		`gpu="H100\`:                 {4, 6, "is not closed"},
		`gpu=""`:                     {4, 2, "empty text"},
		"gpu=a\xff":                  {5, 1, "not UTF-8"},
		strings.Repeat("x", 401):     {400, 1, "at most 400 characters"},
		strings.Repeat("gpu=a ", 21): {120, 5, "at most 20 conditions"},
		"gpus=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21": {56, 2, "at most 20 values"},
	} {
		_, err := query.Parse(text, usdc)
		var wrong *query.Error
		if !errors.As(err, &wrong) || wrong.Offset != c.offset || wrong.Length != c.length || !strings.Contains(wrong.Message, c.says) {
			t.Errorf("%q: %+v, want %q at %d, %d long", text, err, c.says, c.offset, c.length)
			continue
		}
		var domain *errs.Error
		if !errors.As(err, &domain) || domain.Code != errs.Invalid || len(domain.Fields) != 1 || domain.Fields[0].Path != "q" || domain.Message != wrong.Error() {
			t.Errorf("%q is the domain error %+v", text, domain)
		}
	}
}

func TestStringIsOneSpelling(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`  GPU = "H100" , "RTX 4090",H100  vram >= 80 price<2.500`: `gpu=H100,"RTX 4090" vram>=80GB price<2.5`,
		`memory>=0.5TiB disk>1.5TB reliability>=99.50% compute>9`:  `memory>=512GiB disk>1500GB reliability>=99.5 compute>9.0`,
		`tier>=1 spot=yes simulated=NO vram>1.2GB`:                 `tier>=proven spot=true simulated=false vram>1200MB`,
		`gpu="a\"b\\" vram>0 memory>1000.5MiB`:                     `gpu="a\"b\\" vram>0MiB memory>1049MB`,
	} {
		filter, err := query.Parse(text, usdc)
		if err != nil || filter.String() != want {
			t.Errorf("%q is written %q, want %q: %v", text, filter, want, err)
		}
	}
}

// queries draws texts that are often queries.
func queries() *rapid.Generator[string] {
	var names, operators []string
	for _, f := range query.Fields() {
		names, operators = append(names, f.Name), append(operators, f.Operators...)
	}
	value := rapid.OneOf(
		rapid.SampledFrom([]string{"H100", `"RTX 4090"`, "eu", "80GB", "1.5TiB", "2.5", "0", "true", "no", "proven", "99.9%", "9.0", "7", "3.001MB"}),
		rapid.StringMatching(`"([^"\\]|\\.){1,6}"`),
	)
	condition := rapid.Custom(func(t *rapid.T) string {
		values := rapid.SliceOfN(value, 1, 3).Draw(t, "values")
		return rapid.SampledFrom(names).Draw(t, "field") + rapid.SampledFrom(operators).Draw(t, "operator") + strings.Join(values, ",")
	})
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(condition, 0, 4).Draw(t, "conditions"), " ")
	})
}

func TestParseReadsBackWhatStringWrites(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := queries().Draw(t, "query")
		if filter, err := query.Parse(text, usdc); err == nil {
			readsBack(t, text, filter)
		} else {
			pointsInto(t, text, err)
		}
	})
}

func TestAnyTextIsReadOrRefusedAtAPlaceInIt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.RuneFrom([]rune(`gpuvrames=<>!~,."\ 0189GBTé`)), 0, 30, -1).Draw(t, "text")
		if _, err := query.Parse(text, usdc); err != nil {
			pointsInto(t, text, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, field := range query.Fields() {
		f.Add(field.Example)
	}
	f.Add(`gpu=H100,"RTX \"4090\"" vram>=80GB region=eu price<2.5`)
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := query.Parse(text, usdc)
		if err != nil {
			pointsInto(t, text, err)
			return
		}
		readsBack(t, text, filter)
		filter.Match(h100(), 1)
	})
}

type fataler interface {
	Fatalf(format string, args ...any)
}

func readsBack(t fataler, text string, filter query.Filter) {
	written := filter.String()
	if len([]rune(written)) > query.MaxLength {
		return // written out in full it may be longer than what a person may write
	}
	again, err := query.Parse(written, usdc)
	if err != nil || !again.Equal(filter) || again.String() != written {
		t.Fatalf("%q is written %q, which reads back as %q: %v", text, written, again, err)
	}
}

func pointsInto(t fataler, text string, err error) {
	var wrong *query.Error
	if !errors.As(err, &wrong) || wrong.Offset < 0 || wrong.Length < 0 || wrong.Offset+wrong.Length > len([]rune(text)) || wrong.Message == "" {
		t.Fatalf("%q is refused with %+v", text, err)
	}
}

func TestEveryExampleIsAQuery(t *testing.T) {
	t.Parallel()
	for _, f := range query.Fields() {
		if filter, err := query.Parse(f.Example, usdc); err != nil || filter.String() != f.Example {
			t.Errorf("%s: %q is written %q: %v", f.Name, f.Example, filter, err)
		}
	}
}
