package chain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/gagliardetto/solana-go/rpc"
	"github.com/gagliardetto/solana-go/rpc/jsonrpc"
)

var (
	// ErrNotFound means that the cluster has no such account or transaction.
	ErrNotFound = errors.New("not on the chain")
	// ErrUnsupportedVersion means that the endpoint keeps transactions from us because of their version. It is an alarm: what
	// cannot be read cannot be counted.
	ErrUnsupportedVersion = errors.New("the RPC endpoint does not return transactions of this version")
	// ErrBehind means that the endpoint has not reached the slot that the question is about.
	ErrBehind = errors.New("the RPC endpoint is behind")
	// ErrUnavailable means that the endpoint could not be reached, or is too busy.
	ErrUnavailable = errors.New("the RPC endpoint is unavailable")
	// ErrDisagree means that two endpoints say different things about the same state, so that one of them is wrong. It is an alarm:
	// nothing is concluded from either.
	ErrDisagree = errors.New("the RPC endpoints disagree")
	// ErrHistoryTooLong means that an account has more new history than one call reads.
	ErrHistoryTooLong = errors.New("the account's new history is longer than one call reads")
	// ErrTooLong means that an answer holds more than is read. To ask again does not help.
	ErrTooLong = errors.New("the answer is too long to be read")
)

// Codes of Solana's JSON-RPC interface.
const (
	codeBlockNotYetAvailable = -32004
	codeNodeUnhealthy        = -32005
	codeUnsupportedVersion   = -32015
	codeMinContextSlotNotMet = -32016
	codeInternal             = -32603
	codeTooManyRequests      = 429
)

// RPCError is a refusal by the endpoint.
type RPCError struct {
	Method  string
	Code    int
	Message string
	Data    string // JSON, empty if none
}

// Error implements error.
func (e *RPCError) Error() string { return fmt.Sprintf("%s: %s (%d)", e.Method, e.Message, e.Code) }

// Is places the codes that callers act on under the package's sentinel errors.
func (e *RPCError) Is(target error) bool {
	switch target {
	case ErrUnsupportedVersion:
		return e.Code == codeUnsupportedVersion
	case ErrBehind:
		return e.Code == codeMinContextSlotNotMet || e.Code == codeBlockNotYetAvailable
	case ErrUnavailable:
		return e.Code == codeNodeUnhealthy || e.Code == codeTooManyRequests || e.Code == codeInternal
	default:
		return false
	}
}

// IsAlarm reports whether err means that an endpoint's answers cannot be trusted to be right and complete, so that a person must look.
func IsAlarm(err error) bool {
	return errors.Is(err, ErrUnsupportedVersion) || errors.Is(err, ErrDisagree)
}

// typed turns an error of solana-go into one of this package, without the endpoint's URL.
func typed(ctx context.Context, method string, err error) error {
	var refused *jsonrpc.RPCError
	var busy *statusError
	var transport *url.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", method, context.Cause(ctx))
	case errors.Is(err, rpc.ErrNotFound):
		return fmt.Errorf("%s: %w", method, ErrNotFound)
	case errors.As(err, &refused):
		return &RPCError{Method: method, Code: refused.Code, Message: refused.Message, Data: jsonText(refused.Data)}
	case errors.As(err, &busy):
		return fmt.Errorf("%s: %w: HTTP status %d", method, ErrUnavailable, busy.status)
	case errors.As(err, &transport):
		return fmt.Errorf("%s: %w: %w", method, ErrUnavailable, transport.Err)
	default:
		return fmt.Errorf("%s: %w: %s", method, ErrUnavailable, withoutURLs(err.Error()))
	}
}

func withoutURLs(text string) string {
	words := strings.Fields(text)
	for i, word := range words {
		if strings.Contains(word, "://") {
			words[i] = "the endpoint"
		}
	}
	return strings.Join(words, " ")
}

func jsonText(value any) string {
	if value == nil {
		return ""
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}
