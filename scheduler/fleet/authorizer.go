package fleet

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/scheduler/fleet/fleetdb"
)

// rule says who may call an RPC.
type rule struct {
	anonymous bool // without a certificate
	expired   bool // with a certificate that expired within the rejoin window
}

// rules is the authorizer table. A method that it does not name is denied.
var rules = map[string]rule{
	agentpb.Enrolment_Enrol_FullMethodName: {anonymous: true},
	agentpb.Agent_Connect_FullMethodName:   {},
	agentpb.Agent_Tunnel_FullMethodName:    {},
	agentpb.Agent_Renew_FullMethodName:     {expired: true},
}

// authorizer decides who may call what. Which objects a host may touch follows from the id it returns: handlers take it from
// the context and never from a message.
type authorizer struct {
	pool      *pgxpool.Pool
	queries   *fleetdb.Queries
	authority *Authority
	now       func() time.Time // for the expiry of certificates
	metrics   *metrics
}

type callerKey struct{}

// callerFrom returns the host whose certificate the RPC came with.
func callerFrom(ctx context.Context) ids.Host {
	host, _ := ctx.Value(callerKey{}).(ids.Host)
	return host
}

func (a *authorizer) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := a.authorize(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	response, err := handler(ctx, request)
	return response, toStatus(err)
}

func (a *authorizer) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, err := a.authorize(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return toStatus(handler(server, &authorizedStream{ServerStream: stream, ctx: ctx}))
}

type authorizedStream struct {
	grpc.ServerStream
	ctx context.Context // grpc.ServerStream carries its context
}

func (s *authorizedStream) Context() context.Context { return s.ctx }

func (a *authorizer) authorize(ctx context.Context, method string) (context.Context, error) {
	ctx, err := a.decide(ctx, method)
	if err != nil {
		label := method
		if _, known := rules[method]; !known {
			label = "unknown"
		}
		a.metrics.denied.WithLabelValues(label).Inc()
		return nil, toStatus(err)
	}
	return ctx, nil
}

func (a *authorizer) decide(ctx context.Context, method string) (context.Context, error) {
	rule, known := rules[method]
	if !known {
		return nil, errs.New(errs.Forbidden, "no rule allows %s", method)
	}
	connection, ok := connectionState(ctx)
	if !ok {
		return nil, errs.New(errs.Unauthenticated, "the connection is not TLS")
	}
	if rule.anonymous {
		return ctx, nil
	}
	if len(connection.PeerCertificates) == 0 {
		return nil, errs.New(errs.Unauthenticated, "a host certificate is needed: enrol with a join token first")
	}
	certificate := connection.PeerCertificates[0]
	host, err := a.authority.verifyHost(certificate)
	if err != nil {
		return nil, errs.New(errs.Unauthenticated, "%v", err)
	}
	age := a.now().Sub(certificate.NotAfter)
	if age > 0 && !rule.expired {
		return nil, errs.New(errs.Unauthenticated, "the host certificate has expired: renew it")
	}
	if age > rejoinWindow {
		return nil, errs.New(errs.Forbidden, "the host was away for too long: enrol it anew, with an empty state directory")
	}
	if err = a.checkStanding(ctx, host, fingerprint(certificate.RawSubjectPublicKeyInfo)); err != nil {
		return nil, err
	}
	return context.WithValue(ctx, callerKey{}, host), nil
}

func (a *authorizer) checkStanding(ctx context.Context, host ids.Host, key []byte) error {
	standing, err := a.queries.HostStanding(ctx, a.pool, host)
	if errors.Is(err, pgx.ErrNoRows) {
		return errs.New(errs.Forbidden, "this control plane does not know the host")
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(standing.KeyFingerprint, key) {
		return errs.New(errs.Forbidden, "the certificate's key is not the one that was enrolled")
	}
	return standingError(standing.State, standing.StateReason)
}

// standingError is nil for a host that may use the protocol.
func standingError(state, reason string) error {
	switch {
	case state == StateQuarantined && !forHardware(reason):
		return errs.New(errs.Forbidden, "the host is quarantined: %s", reason)
	case state == StateRetired:
		return errs.New(errs.Forbidden, "the host has been retired")
	default:
		return nil
	}
}

// forHardware reports whether a quarantine is for what a host's hardware did. Such a host goes on to use the protocol: its nodes must be
// stopped, and its owner watches its health.
func forHardware(reason string) bool { return strings.HasPrefix(reason, hardwarePrefix) }

func connectionState(ctx context.Context) (tls.ConnectionState, bool) {
	caller, ok := peer.FromContext(ctx)
	if !ok {
		return tls.ConnectionState{}, false
	}
	info, ok := caller.AuthInfo.(peerInfo)
	return info.State, ok
}

var grpcCodes = map[errs.Code]codes.Code{
	errs.Invalid:         codes.InvalidArgument,
	errs.Unauthenticated: codes.Unauthenticated,
	errs.Forbidden:       codes.PermissionDenied,
	errs.NotFound:        codes.NotFound,
	errs.Conflict:        codes.AlreadyExists,
	errs.Expired:         codes.FailedPrecondition,
	errs.TooLarge:        codes.ResourceExhausted,
	errs.RateLimited:     codes.ResourceExhausted,
	errs.Unavailable:     codes.Unavailable,
}

// toStatus turns a domain error into a status with its message, and keeps every other error's text inside.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	var domain *errs.Error
	if errors.As(err, &domain) {
		if code, known := grpcCodes[domain.Code]; known {
			return status.Error(code, domain.Message)
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Unavailable, "the control plane could not do this now: it will be tried again")
}
