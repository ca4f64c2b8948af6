package api

import (
	"time"

	"github.com/muster-gpu/muster/internal/errs"
)

func duration(path, text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, errs.InvalidField(path, "%q is not a duration: write it like 30m, 6h or 2h30m", text)
	}
	return d, nil
}

// optionalDuration is zero for an absent one; one that is given is above zero.
func optionalDuration(path, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := duration(path, text)
	if err == nil && d <= 0 {
		err = errs.InvalidField(path, "%q is not above zero: leave it out for none", text)
	}
	return d, err
}
