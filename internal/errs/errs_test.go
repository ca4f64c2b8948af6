package errs_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/muster-gpu/muster/internal/errs"
)

func TestCodeOf(t *testing.T) {
	t.Parallel()
	refusal := errs.New(errs.Conflict, "it is taken")
	for name, c := range map[string]struct {
		err  error
		want errs.Code
	}{
		"no error":         {nil, ""},
		"an error of ours": {refusal, errs.Conflict},
		"wrapped":          {fmt.Errorf("book: %w", fmt.Errorf("place: %w", refusal)), errs.Conflict},
		"joined":           {errors.Join(io.EOF, refusal), errs.Conflict},
		"another error":    {io.EOF, errs.Internal},
		"the outer one counts": {
			errs.New(errs.Unavailable, "try again: %w", errs.New(errs.NotFound, "there is no signer")), errs.Unavailable,
		},
	} {
		if got := errs.CodeOf(c.err); got != c.want {
			t.Errorf("%s: code %q, want %q", name, got, c.want)
		}
	}
}

func TestNewFormatsAndKeepsTheCause(t *testing.T) {
	t.Parallel()
	err := errs.New(errs.Unavailable, "the chain does not answer on port %d: %w", 8899, io.ErrUnexpectedEOF)
	if err.Error() != "the chain does not answer on port 8899: unexpected EOF" {
		t.Errorf("message is %q", err)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("the cause is lost")
	}
	if plain := errs.New(errs.Invalid, "no verbs"); errors.Unwrap(plain) != nil {
		t.Errorf("an error without cause unwraps to %v", errors.Unwrap(plain))
	}
}

func TestInvalidFieldNamesTheInput(t *testing.T) {
	t.Parallel()
	err := errs.InvalidField("nodes[2].gpus", "a node has at least %d GPU", 1)
	want := errs.Field{Path: "nodes[2].gpus", Message: "a node has at least 1 GPU"}
	if err.Code != errs.Invalid || err.Message != want.Message || len(err.Fields) != 1 || err.Fields[0] != want {
		t.Errorf("got %+v, want %+v", err, want)
	}
}

func TestDetailsComeAlongThroughWrapping(t *testing.T) {
	t.Parallel()
	type shortfall struct{ Short int }
	err := fmt.Errorf("hold: %w", errs.New(errs.InsufficientFunds, "too little").WithDetails(shortfall{5}))
	var e *errs.Error
	if !errors.As(err, &e) || e.Details != (shortfall{5}) {
		t.Errorf("details are %v", e)
	}
}
