package agent

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/jointoken"
)

const (
	maxMessageBytes  = 4 << 20 // a desired state with many nodes
	streamWindow     = 1 << 20
	connectionWindow = 16 << 20
	keepaliveTime    = 4 * time.Minute // heartbeats that are not acknowledged within keepaliveTimeout break the connection sooner
	keepaliveTimeout = 5 * time.Second
	connectTimeout   = 5 * time.Second
	reconnectBase    = 200 * time.Millisecond
	reconnectMax     = 5 * time.Second
)

// dial makes a connection to the control plane that pin identifies. certificate may be nil, before enrolment.
func dial(server string, pin jointoken.Pin, certificate *tls.Certificate, now func() time.Time) (*grpc.ClientConn, error) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Names and public authorities are not looked at: the pinned authority signs for the gateway and no one else.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies
		VerifyConnection:   func(state tls.ConnectionState) error { return verifyGateway(state, pin, now()) },
	}
	if certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	connection, err := grpc.NewClient(server,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: connectTimeout,
			Backoff:           backoff.Config{BaseDelay: reconnectBase, Multiplier: 2, Jitter: 0.5, MaxDelay: reconnectMax},
		}),
	)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%q is not an address of a control plane: write HOST:PORT", server)
	}
	return connection, nil
}

func verifyGateway(state tls.ConnectionState, pin jointoken.Pin, now time.Time) error {
	for _, candidate := range state.PeerCertificates[1:] {
		if jointoken.PinOf(candidate) != pin {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(candidate)
		leaf := state.PeerCertificates[0]
		if _, err := leaf.Verify(x509.VerifyOptions{
			Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, CurrentTime: now,
		}); err != nil {
			return fmt.Errorf("the control plane's certificate does not hold, or this host's clock is wrong: %w", err)
		}
		if !jointoken.IsGateway(leaf) {
			return errors.New("the server's certificate is not a control plane's")
		}
		return nil
	}
	return errors.New("the server is not the control plane that this host belongs to: its certificate authority is another")
}

// fromStatus turns what the control plane answered into a domain error with its message.
func fromStatus(err error) error {
	answer, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	code := errs.Unavailable
	switch answer.Code() {
	case codes.InvalidArgument:
		code = errs.Invalid
	case codes.Unauthenticated:
		code = errs.Unauthenticated
	case codes.PermissionDenied:
		code = errs.Forbidden
	case codes.AlreadyExists:
		code = errs.Conflict
	case codes.FailedPrecondition:
		code = errs.Expired
	case codes.ResourceExhausted:
		code = errs.RateLimited
	default:
	}
	return errs.New(code, "%s", answer.Message())
}
