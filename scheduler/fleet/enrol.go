package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/jointoken"
	"github.com/muster-gpu/muster/scheduler/fleet/fleetdb"
)

const (
	// rejoinWindow is how long after its expiry a certificate may still be renewed, so that a host that was switched off for some
	// weeks returns by itself. The handshake has proved its key.
	rejoinWindow = 30 * 24 * time.Hour

	maxHostName      = 80 // characters
	maxMachineID     = 128
	maxVersionLength = 64
	keyConstraint    = "hosts_key_fingerprint_key"
)

// enrolment answers the RPCs that give and renew certificates.
type enrolment struct {
	agentpb.UnimplementedEnrolmentServer
	pool      *pgxpool.Pool
	authority *Authority
	queries   *fleetdb.Queries
	log       *slog.Logger
	now       func() time.Time // certificates only
	metrics   *metrics
}

// Enrol spends a join token and creates the host. A repeated request, whose reply was lost, is answered again.
func (e *enrolment) Enrol(ctx context.Context, in *agentpb.EnrolRequest) (*agentpb.EnrolResponse, error) {
	out, err := e.enrol(ctx, in)
	e.metrics.enrolments.WithLabelValues(outcome(err)).Inc()
	return out, err
}

func (e *enrolment) enrol(ctx context.Context, in *agentpb.EnrolRequest) (*agentpb.EnrolResponse, error) {
	token, err := jointoken.Parse(in.GetJoinToken())
	if err != nil {
		return nil, errs.InvalidField("join_token", "%v", err)
	}
	request, err := parseRequest(in.GetCertificateRequest())
	if err != nil {
		return nil, err
	}
	var out *agentpb.EnrolResponse
	err = pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error {
		out, err = e.spend(ctx, tx, token, request, in)
		return err
	})
	if isUniqueViolation(err, keyConstraint) {
		err = errKeyEnrolled
	}
	if err != nil {
		return nil, err
	}
	e.log.InfoContext(ctx, "host enrolled", "host_id", out.GetHostId(), "hostname", in.GetHostname())
	return out, nil
}

// errKeyEnrolled does not say whose host has the key.
var errKeyEnrolled = errs.New(errs.Conflict, "this host's key has been enrolled before, and one key is one host: "+
	"use an empty state directory to enrol it as a new host")

func (e *enrolment) spend(ctx context.Context, tx pgx.Tx, token jointoken.Token, request *x509.CertificateRequest, in *agentpb.EnrolRequest) (*agentpb.EnrolResponse, error) {
	hash := token.Hash()
	row, err := e.queries.LockJoinToken(ctx, tx, hash[:])
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, errs.New(errs.Unauthenticated, "this control plane does not know the join token: make a new one")
	case err != nil:
		return nil, err
	case row.UsedAt != nil:
		return e.answerAgain(ctx, tx, row.HostID, request)
	case row.RevokedAt != nil:
		return nil, errs.New(errs.Unauthenticated, "the join token has been revoked: make a new one")
	case row.Expired:
		return nil, errs.New(errs.Expired, "the join token has expired, they last %s: make a new one", JoinTokenLifetime)
	}
	key := fingerprint(request.RawSubjectPublicKeyInfo)
	if enrolled, err := e.queries.KeyIsEnrolled(ctx, tx, key); err != nil {
		return nil, err
	} else if enrolled {
		return nil, errKeyEnrolled
	}
	host := ids.New[ids.Host]()
	certificate, err := e.authority.issueHost(host, request, e.now())
	if err != nil {
		return nil, err
	}
	err = e.queries.InsertHost(ctx, tx, fleetdb.InsertHostParams{
		ID: host, OrgID: row.OrgID, Kind: row.HostKind, Name: hostName(in.GetHostname(), host), Region: row.Region, Site: row.Site,
		MachineID: clip(in.GetMachineId(), maxMachineID), KeyFingerprint: key, CertificateRequestHash: requestHash(request.Raw),
		CertificatePem: encodeCertificate(certificate), CertificateExpiresAt: certificate.NotAfter,
		AgentVersion: clip(in.GetAgentVersion(), maxVersionLength), ReliabilityBps: int32(reliability(0, 0, 0)),
	})
	if err != nil {
		return nil, err
	}
	if err = e.queries.SpendJoinToken(ctx, tx, host, row.ID); err != nil {
		return nil, err
	}
	return &agentpb.EnrolResponse{
		HostId: host.String(), Certificate: certificate.Raw, Authority: e.authority.DER(), Generation: 1,
	}, nil
}

// answerAgain repeats the reply to whoever spent the token; to anyone else the token is used.
func (e *enrolment) answerAgain(ctx context.Context, tx pgx.Tx, host ids.Host, request *x509.CertificateRequest) (*agentpb.EnrolResponse, error) {
	stored, err := e.queries.LockCertificate(ctx, tx, host)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(stored.CertificateRequestHash, requestHash(request.Raw)) || standingError(stored.State, stored.StateReason) != nil {
		return nil, errs.New(errs.Conflict, "the join token has been used, and one token enrols one host: make a new one")
	}
	certificate, err := decodeCertificate(stored.CertificatePem)
	if err != nil {
		return nil, err
	}
	return &agentpb.EnrolResponse{
		HostId: host.String(), Certificate: certificate, Authority: e.authority.DER(), Generation: stored.CertificateGeneration,
	}, nil
}

// renew replaces a certificate under the next generation. The same request of the generation before is answered again; any
// other request of an old generation means that two machines carry this identity.
func (e *enrolment) renew(ctx context.Context, host ids.Host, in *agentpb.RenewRequest) (*agentpb.RenewResponse, error) {
	out, err := e.renewOnce(ctx, host, in)
	e.metrics.renewals.WithLabelValues(outcome(err)).Inc()
	if errors.Is(err, errCloned) {
		e.log.WarnContext(ctx, "two machines carry one host's identity", "host_id", host)
		if quarantineErr := e.quarantine(ctx, host, errCloned.Message); quarantineErr != nil {
			return nil, quarantineErr
		}
	}
	return out, err
}

var errCloned = errs.New(errs.Forbidden, "another machine renewed this host's certificate: its state directory has been copied, and the host is quarantined")

func (e *enrolment) renewOnce(ctx context.Context, host ids.Host, in *agentpb.RenewRequest) (*agentpb.RenewResponse, error) {
	request, err := parseRequest(in.GetCertificateRequest())
	if err != nil {
		return nil, err
	}
	var out *agentpb.RenewResponse
	err = pgx.BeginFunc(ctx, e.pool, func(tx pgx.Tx) error {
		stored, err := e.queries.LockCertificate(ctx, tx, host)
		if err != nil {
			return err
		}
		out, err = e.nextCertificate(ctx, tx, host, stored, request, in.GetGeneration())
		return err
	})
	return out, err
}

func (e *enrolment) nextCertificate(ctx context.Context, tx pgx.Tx, host ids.Host, stored fleetdb.LockCertificateRow, request *x509.CertificateRequest, generation int64) (*agentpb.RenewResponse, error) {
	hash := requestHash(request.Raw)
	if !bytes.Equal(fingerprint(request.RawSubjectPublicKeyInfo), stored.KeyFingerprint) {
		return nil, errs.InvalidField("certificate_request", "a host's key never changes: request the certificate with the enrolled key")
	}
	if err := standingError(stored.State, stored.StateReason); err != nil {
		return nil, err
	}
	if generation == stored.CertificateGeneration-1 && bytes.Equal(hash, stored.CertificateRequestHash) {
		certificate, err := decodeCertificate(stored.CertificatePem)
		return &agentpb.RenewResponse{Certificate: certificate, Generation: stored.CertificateGeneration}, err
	}
	if generation != stored.CertificateGeneration {
		return nil, errCloned
	}
	certificate, err := e.authority.issueHost(host, request, e.now())
	if err != nil {
		return nil, err
	}
	err = e.queries.SetCertificate(ctx, tx, fleetdb.SetCertificateParams{
		CertificateGeneration: generation + 1, CertificateRequestHash: hash, CertificatePem: encodeCertificate(certificate),
		CertificateExpiresAt: certificate.NotAfter, ID: host,
	})
	return &agentpb.RenewResponse{Certificate: certificate.Raw, Generation: generation + 1}, err
}

func (e *enrolment) quarantine(ctx context.Context, host ids.Host, reason string) error {
	changed, err := e.queries.Quarantine(ctx, e.pool, reason, host)
	if err == nil && changed > 0 {
		e.metrics.quarantines.Inc()
		e.log.WarnContext(ctx, "host quarantined", "host_id", host, "reason", reason)
	}
	return err
}

func requestHash(der []byte) []byte {
	sum := sha256.Sum256(der)
	return sum[:]
}

// hostName is what people see: the host's own name for itself, or the end of its id.
func hostName(name string, host ids.Host) string {
	name = clip(strings.TrimSpace(name), maxHostName*utf8.UTFMax)
	if letters := []rune(name); len(letters) > maxHostName {
		name = strings.TrimSpace(string(letters[:maxHostName]))
	}
	if name == "" {
		text := host.String()
		return text[len(text)-8:]
	}
	return name
}

// clip makes a host's text fit to store: valid UTF-8 without zero bytes, of at most so many bytes.
func clip(text string, limit int) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, ""), "\x00", "")
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

func isUniqueViolation(err error, constraint string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "23505" && pgErr.ConstraintName == constraint
}
