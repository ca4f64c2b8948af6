package pricing

import (
	"fmt"
	"strconv"

	"github.com/muster-gpu/muster/internal/errs"
)

// The most rules of a kind.
const (
	maxSteps   = 16
	maxPeriods = 32
)

const (
	minutesPerHour = 60
	minutesPerDay  = 24 * minutesPerHour
)

// Validate refuses rules that contradict each other or mean nothing. The error is errs.Invalid and names the field by its path,
// such as rules.calendar[0].from.
func (r Rules) Validate() error {
	for _, check := range []func() error{r.validateDiscounts, r.validateUtilisation, r.validateCalendar} {
		if err := check(); err != nil {
			return err
		}
	}
	if r.SpotPercent != nil {
		if err := validateOff("rules.spot_percent", *r.SpotPercent); err != nil {
			return err
		}
	}
	return validateOff("rules.auction_percent", r.AuctionPercent)
}

func validateOff(path string, percent int) error {
	if percent < 0 || percent > MaxOff {
		return errs.InvalidField(path, "between 0 and %d percent may be taken off, not %d", MaxOff, percent)
	}
	return nil
}

func validatePercent(path string, percent int) error {
	if percent < MinPercent || percent > MaxPercent {
		return errs.InvalidField(path, "a price moves by between %d and +%d percent, not %d", MinPercent, MaxPercent, percent)
	}
	return nil
}

func (r Rules) validateDiscounts() error {
	seen := make(map[string]bool)
	for i, d := range r.Discounts {
		path := fmt.Sprintf("rules.discounts[%d]", i)
		if _, known := discountClass(d.From); !known {
			return errs.InvalidField(path+".from", "a discount begins with daily, weekly or monthly bookings, not %q", d.From)
		}
		if seen[d.From] {
			return errs.InvalidField(path+".from", "there are two discounts for %s bookings: keep one", d.From)
		}
		seen[d.From] = true
		if err := validateOff(path+".percent", d.Percent); err != nil {
			return err
		}
	}
	return nil
}

func (r Rules) validateUtilisation() error {
	if len(r.Utilisation) > maxSteps {
		return errs.InvalidField("rules.utilisation", "at most %d steps make a curve, not %d", maxSteps, len(r.Utilisation))
	}
	seen := make(map[string]bool)
	for i, step := range r.Utilisation {
		path := fmt.Sprintf("rules.utilisation[%d]", i)
		side, threshold := "above", step.Above
		if step.Above == nil {
			side, threshold = "below", step.Below
		}
		if threshold == nil || step.Above != nil && step.Below != nil {
			return errs.InvalidField(path, "a step has either above or below: a utilisation in percent")
		}
		if *threshold < 0 || *threshold > 100 {
			return errs.InvalidField(path+"."+side, "a utilisation is between 0 and 100 percent, not %d", *threshold)
		}
		key := side + strconv.Itoa(*threshold)
		if seen[key] {
			return errs.InvalidField(path+"."+side, "there are two steps %s %d percent: keep one", side, *threshold)
		}
		seen[key] = true
		if err := validatePercent(path+".percent", step.Percent); err != nil {
			return err
		}
	}
	return nil
}

func (r Rules) validateCalendar() error {
	if len(r.Calendar) > maxPeriods {
		return errs.InvalidField("rules.calendar", "a calendar has at most %d periods, not %d", maxPeriods, len(r.Calendar))
	}
	for i, p := range r.Calendar {
		path := fmt.Sprintf("rules.calendar[%d]", i)
		if err := p.validateDays(path); err != nil {
			return err
		}
		if err := p.validateHours(path); err != nil {
			return err
		}
		if err := validatePercent(path+".percent", p.Percent); err != nil {
			return err
		}
	}
	return nil
}

func (p Period) validateDays(path string) error {
	seen := make(map[string]bool)
	for i, day := range p.Days {
		if _, known := weekdays[day]; !known {
			return errs.InvalidField(fmt.Sprintf("%s.days[%d]", path, i), "%q is not a day: write mon, tue, wed, thu, fri, sat or sun", day)
		}
		if seen[day] {
			return errs.InvalidField(fmt.Sprintf("%s.days[%d]", path, i), "%s is named twice", day)
		}
		seen[day] = true
	}
	return nil
}

func (p Period) validateHours(path string) error {
	if p.From != "" {
		if from, err := clock(p.From); err != nil || from == minutesPerDay {
			return errs.InvalidField(path+".from", "%q is not an hour of the day in UTC: write it like 22:00", p.From)
		}
	}
	if p.To != "" {
		if _, err := clock(p.To); err != nil {
			return errs.InvalidField(path+".to", "%q is not an hour of the day in UTC: write it like 06:00, or 24:00 for midnight", p.To)
		}
	}
	if from, to, _ := p.minutes(); from == to {
		return errs.InvalidField(path+".to", "the period ends when it begins: leave out from and to for a whole day")
	}
	return nil
}

// minutes are the bounds of the period in minutes of the day.
func (p Period) minutes() (from, to int, err error) {
	to = minutesPerDay
	if p.From != "" {
		if from, err = clock(p.From); err != nil {
			return 0, 0, err
		}
	}
	if p.To != "" {
		to, err = clock(p.To)
	}
	return from, to, err
}

// clock reads 06:30 as minutes; 24:00 is the end of the day.
func clock(text string) (int, error) {
	if len(text) != len("00:00") || text[2] != ':' {
		return 0, fmt.Errorf("%q is not of the form 00:00", text)
	}
	hour, errHour := strconv.ParseUint(text[:2], 10, 8)
	minute, errMinute := strconv.ParseUint(text[3:], 10, 8)
	at := int(hour)*minutesPerHour + int(minute)
	if errHour != nil || errMinute != nil || minute >= minutesPerHour || at > minutesPerDay {
		return 0, fmt.Errorf("%q is not an hour of the day", text)
	}
	return at, nil
}
