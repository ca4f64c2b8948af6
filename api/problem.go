package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5/pgconn"

	apiv1 "github.com/muster-gpu/muster/api/v1"
	"github.com/muster-gpu/muster/internal/errs"
)

// problem is an error answer. It is the one form in which an error leaves the server, whoever raised it.
type problem struct{ apiv1.Problem }

// Error implements error.
func (p *problem) Error() string { return p.Detail }

// GetStatus implements huma.StatusError.
func (p *problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *problem) ContentType(string) string { return problemType }

// statusOf is the one mapping from a domain error's code to HTTP.
var statusOf = map[errs.Code]int{
	errs.Invalid:           http.StatusUnprocessableEntity,
	errs.Unauthenticated:   http.StatusUnauthorized,
	errs.Forbidden:         http.StatusForbidden,
	errs.NotFound:          http.StatusNotFound,
	errs.Conflict:          http.StatusConflict,
	errs.Expired:           http.StatusGone,
	errs.InsufficientFunds: http.StatusPaymentRequired,
	errs.NoCapacity:        http.StatusConflict,
	errs.TooLarge:          http.StatusRequestEntityTooLarge,
	errs.RateLimited:       http.StatusTooManyRequests,
	errs.Unavailable:       http.StatusServiceUnavailable,
	errs.Internal:          http.StatusInternalServerError,
}

var titleOf = map[errs.Code]string{
	errs.Invalid:           "The request is not valid",
	errs.Unauthenticated:   "Not signed in",
	errs.Forbidden:         "Not allowed",
	errs.NotFound:          "Not found",
	errs.Conflict:          "Conflict",
	errs.Expired:           "Expired",
	errs.InsufficientFunds: "Not enough funds",
	errs.NoCapacity:        "Nothing fits",
	errs.TooLarge:          "Too large",
	errs.RateLimited:       "Too many requests",
	errs.Unavailable:       "Unavailable",
	errs.Internal:          "Internal error",
}

var (
	errTooMany     = errs.New(errs.RateLimited, "too many requests: wait as long as Retry-After says")
	errTooLarge    = errs.New(errs.TooLarge, "the body is larger than %d bytes", maxBodyBytes)
	errUnavailable = errs.New(errs.Unavailable, "a part of the service is down or busy: try again in a few seconds")
)

const internalDetail = "something went wrong on our side: try again, and quote the request id if it stays"

// newProblem makes the answer to a domain error.
func newProblem(requestID string, e *errs.Error) *problem {
	p := &problem{apiv1.Problem{
		Type: "about:blank", Title: titleOf[e.Code], Status: statusOf[e.Code], Code: string(e.Code), Detail: e.Message,
		RequestID: requestID, Details: e.Details,
	}}
	if p.Status == 0 || e.Code == errs.Internal {
		p.Title, p.Status, p.Code, p.Detail = titleOf[errs.Internal], http.StatusInternalServerError, string(errs.Internal), internalDetail
	}
	for _, f := range e.Fields {
		p.Errors = append(p.Errors, apiv1.ProblemField{Path: inBody(f.Path), Message: f.Message, Position: f.Position})
	}
	return p
}

// problem makes the answer to any error. What is not a domain error is logged under its request id and hidden.
func (s *Server) problem(ctx context.Context, err error) *problem {
	requestID := requestIDOf(ctx)
	var shown *problem
	if errors.As(err, &shown) {
		return shown
	}
	var domain *errs.Error
	if errors.As(err, &domain) && domain.Code != errs.Internal {
		visible := *domain
		visible.Details = s.wireDetails(domain.Details)
		return newProblem(requestID, &visible)
	}
	if ctx.Err() != nil || isUnavailable(err) {
		s.log.WarnContext(ctx, "request not answered", "request_id", requestID, "error", err)
		return newProblem(requestID, errUnavailable)
	}
	s.log.ErrorContext(ctx, "request failed", "request_id", requestID, "error", err)
	return newProblem(requestID, errs.New(errs.Internal, internalDetail))
}

// isUnavailable reports whether the database or the network is away, as opposed to a defect.
func isUnavailable(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	if errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	var postgres *pgconn.PgError
	if !errors.As(err, &postgres) {
		return false
	}
	// Connection lost, out of resources, shutting down; serialisation failures that outlived their retries.
	for _, class := range []string{"08", "53", "57P", "40"} {
		if strings.HasPrefix(postgres.Code, class) {
			return true
		}
	}
	return false
}

// newHumaProblem makes the answer to what huma itself refuses: wrong parameters, bodies and media types.
func newHumaProblem(hctx huma.Context, status int, message string, causes ...error) huma.StatusError {
	requestID := ""
	if hctx != nil {
		requestID = requestIDOf(hctx.Context())
	}
	e := errs.New(codeOfStatus(status), "%s", message)
	for _, cause := range causes {
		if field, ok := fieldOf(cause); ok {
			e.Fields = append(e.Fields, field)
		}
	}
	switch {
	case status == http.StatusRequestEntityTooLarge:
		e.Message = errTooLarge.Message
	case status == http.StatusUnsupportedMediaType:
		e.Message, e.Fields = "send the body as "+jsonType, nil
	case status == http.StatusBadRequest && len(e.Fields) > 0:
		e.Message = "the body is not valid JSON: " + e.Fields[0].Message
	case len(e.Fields) == 1:
		e.Message = e.Fields[0].Path + ": " + e.Fields[0].Message
	case len(e.Fields) > 1:
		e.Message = fmt.Sprintf("%d inputs are wrong: see errors", len(e.Fields))
	}
	p := newProblem(requestID, e)
	p.Status = status
	return p
}

// codeOfStatus gives the code for a status that huma or the router chose.
func codeOfStatus(status int) errs.Code {
	switch status {
	case http.StatusRequestEntityTooLarge:
		return errs.TooLarge
	case http.StatusNotFound:
		return errs.NotFound
	case http.StatusInternalServerError:
		return errs.Internal
	default:
		return errs.Invalid
	}
}

func fieldOf(cause error) (errs.Field, bool) {
	var detailed huma.ErrorDetailer
	if !errors.As(cause, &detailed) {
		return errs.Field{}, false
	}
	d := detailed.ErrorDetail()
	return readable(errs.Field{Path: d.Location, Message: d.Message}), true
}

// readable rewords the decoder's complaint about a number that its Go type cannot hold: the schema has admitted it.
func readable(field errs.Field) errs.Field {
	value, typed, found := strings.Cut(strings.TrimPrefix(field.Message, "json: cannot unmarshal "), " into Go struct field ")
	if !found {
		return field
	}
	qualified, _, _ := strings.Cut(typed, " ")
	if _, name, ok := strings.Cut(qualified, "."); ok {
		field.Path += "." + name
	}
	field.Message = value + " is too large or not whole"
	return field
}

// writeProblem answers from inside huma.
func (s *Server) writeProblem(hctx huma.Context, p *problem) {
	for name, values := range p.headers() {
		hctx.SetHeader(name, values[0])
	}
	hctx.SetHeader("Content-Type", problemType)
	hctx.SetStatus(p.Status)
	_ = json.NewEncoder(hctx.BodyWriter()).Encode(p)
}

// sendProblem answers from outside huma.
func sendProblem(w http.ResponseWriter, p *problem) {
	header := w.Header()
	for name, values := range p.headers() {
		header[name] = values
	}
	header.Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

func (p *problem) headers() http.Header {
	header := http.Header{"Cache-Control": {"no-store"}}
	switch p.Status {
	case http.StatusUnauthorized:
		header.Set("WWW-Authenticate", `Bearer realm="muster"`)
	case http.StatusServiceUnavailable:
		header.Set("Retry-After", "2")
	}
	return header
}
