// Package errs is the one form in which an error may reach a person: a code that programs act on and a message that says
// what is wrong and what to do.
//
// Domain packages return *Error for what a caller did or can mend. Any other error is internal: it is logged with its
// request id, and its text never leaves the process. The API maps codes to HTTP problem documents in one place, the CLI maps
// them to exit codes.
package errs

import (
	"errors"
	"fmt"
)

// Code classifies an error. Each maps to one HTTP status and one CLI exit code.
type Code string

// The codes.
const (
	Invalid           Code = "invalid"            // the request can never succeed as written
	Unauthenticated   Code = "unauthenticated"    // no valid session, key, token or certificate
	Forbidden         Code = "forbidden"          // known, but the role or scope does not allow it
	NotFound          Code = "not_found"          // absent, or another organisation's
	Conflict          Code = "conflict"           // the state or an earlier request stands against it
	Expired           Code = "expired"            // a quote, token or code that is no longer valid
	InsufficientFunds Code = "insufficient_funds" // details: Shortfall
	NoCapacity        Code = "no_capacity"        // details: what blocks and the nearest offers
	TooLarge          Code = "too_large"          // a body or a list above its limit
	RateLimited       Code = "rate_limited"       // too many requests
	Unavailable       Code = "unavailable"        // a part is down or busy: try again
	Internal          Code = "internal"           // a defect; the message carries nothing of it
)

// Error is a code with a message for people.
type Error struct {
	Code    Code
	Message string
	Fields  []Field // which inputs are wrong, for Invalid
	Details any     // a JSON-able struct of the domain, merged into the problem document under "details"
	cause   error
}

// Field names one wrong input.
type Field struct {
	Path     string `json:"path"`
	Message  string `json:"message"`
	Position *int   `json:"position,omitempty"` // in a text with a grammar of its own: how many characters into it
}

// New makes an error of a code.
func New(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// InvalidField makes an Invalid error about one input.
func InvalidField(path, format string, args ...any) *Error {
	message := fmt.Sprintf(format, args...)
	return &Error{Code: Invalid, Message: message, Fields: []Field{{Path: path, Message: message}}}
}

// WithDetails attaches the domain's details.
func (e *Error) WithDetails(details any) *Error {
	e.Details = details
	return e
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the error that %w named, if any.
func (e *Error) Unwrap() error { return e.cause }

// CodeOf returns the code of the first *Error in err's chain, Internal for any other error and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}
