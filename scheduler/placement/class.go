package placement

import "time"

// Class is which of a host's prices a booking pays: longer bookings may be cheaper per hour, spot ones may be preempted.
type Class uint8

// The classes.
const (
	Hourly  Class = iota // under 24 h
	Daily                // 24 h and longer
	Weekly               // 168 h and longer
	Monthly              // 720 h and longer
	Spot
)

// Classes is how many there are.
const Classes = 5

// ClassOf is the class of a booking that is not a spot one, by its length.
func ClassOf(d time.Duration) Class {
	switch {
	case d < 24*time.Hour:
		return Hourly
	case d < 168*time.Hour:
		return Daily
	case d < 720*time.Hour:
		return Weekly
	default:
		return Monthly
	}
}
