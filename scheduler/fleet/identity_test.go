package fleet_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/ids"
	"github.com/muster-gpu/muster/internal/jointoken"
	"github.com/muster-gpu/muster/scheduler/fleet"
)

func TestAuthorityIsOneForAllThatOpenIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pins := make([]jointoken.Pin, 16)
	var wait sync.WaitGroup
	for i := range pins {
		wait.Go(func() {
			authority, err := fleet.OpenAuthority(dir)
			if err != nil {
				t.Error(err)
				return
			}
			pins[i] = authority.Pin()
		})
	}
	wait.Wait()
	for _, pin := range pins {
		if pin != pins[0] {
			t.Fatal("two authorities were made in one directory")
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("the directory holds %v, %v", entries, err)
	}
	info, err := os.Stat(filepath.Join(dir, entries[0].Name()))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key's file has mode %v, %v", info.Mode(), err)
	}
}

func TestTokenRace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const attempts = 100
	token, client := b.token(b.org, fleet.KindGPU), agentpb.NewEnrolmentClient(b.dial(nil))
	requests := make([][]byte, attempts)
	for i := range requests {
		requests[i] = requestFor(t, newKey(t))
	}
	results := make(chan error, attempts)
	for _, request := range requests {
		go func() {
			_, err := client.Enrol(t.Context(), &agentpb.EnrolRequest{JoinToken: token, CertificateRequest: request})
			results <- err
		}()
	}
	enrolled := 0
	for range attempts {
		if err := <-results; err == nil {
			enrolled++
		} else if grpcstatus.Code(err) != codes.AlreadyExists {
			t.Errorf("refused with %v", err)
		}
	}
	if hosts := query[int](b, `SELECT count(*) FROM hosts`); enrolled != 1 || hosts != 1 {
		t.Fatalf("%d of %d enrolled, %d hosts exist", enrolled, attempts, hosts)
	}
}

func TestEnrolSaysWhatIsWrongWithAToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	expired, revoked, used := b.token(b.org, fleet.KindGPU), b.token(b.org, fleet.KindGPU), b.token(b.org, fleet.KindGPU)
	list, err := b.tokens.List(ctx, b.org)
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	b.exec(`UPDATE join_tokens SET expires_at = now() - interval '1 second' WHERE id = $1`, list[2].ID)
	if err = b.tokens.Revoke(ctx, b.org, list[1].ID); err != nil {
		t.Fatal(err)
	}
	client := agentpb.NewEnrolmentClient(b.dial(nil))
	enrol := func(token string) error {
		_, err := client.Enrol(ctx, &agentpb.EnrolRequest{JoinToken: token, CertificateRequest: requestFor(t, newKey(t))})
		return err
	}
	if err = enrol(used); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token string
		want  codes.Code
	}{
		"used":      {used, codes.AlreadyExists},
		"expired":   {expired, codes.FailedPrecondition},
		"revoked":   {revoked, codes.Unauthenticated},
		"unknown":   {jointoken.New(b.authority.Pin()).Text(), codes.Unauthenticated},
		"malformed": {used[:len(used)-3], codes.InvalidArgument},
		"empty":     {"", codes.InvalidArgument},
	} {
		if err := enrol(c.token); grpcstatus.Code(err) != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	list, err = b.tokens.List(ctx, b.org)
	if err != nil || list[0].State != "used" || list[0].HostID.IsZero() || list[1].State != "revoked" || list[2].State != "expired" {
		t.Errorf("listed as %+v, %v", list, err)
	}
	if err = b.tokens.Revoke(ctx, b.org, list[0].ID); errs.CodeOf(err) != errs.Conflict {
		t.Errorf("a used token was revoked: %v", err)
	}
	if hosts := query[int](b, `SELECT count(*) FROM hosts`); hosts != 1 {
		t.Errorf("%d hosts", hosts)
	}
}

func TestEnrolReplyLost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	client := agentpb.NewEnrolmentClient(b.dial(nil))
	request := &agentpb.EnrolRequest{JoinToken: b.token(b.org, fleet.KindGPU), CertificateRequest: requestFor(t, newKey(t))}
	first, err := client.Enrol(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	again, err := client.Enrol(t.Context(), request)
	if err != nil || again.GetHostId() != first.GetHostId() || !bytes.Equal(again.GetCertificate(), first.GetCertificate()) {
		t.Fatalf("the repeated request was answered %v, %v", again, err)
	}
}

func TestSameKeyTwoOrgs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	client, key := agentpb.NewEnrolmentClient(b.dial(nil)), newKey(t)
	tokens := []string{b.token(b.org, fleet.KindGPU), b.token(b.newOrg(false), fleet.KindGPU), b.token(b.org, fleet.KindGPU)}
	for i, token := range tokens {
		_, err := client.Enrol(t.Context(), &agentpb.EnrolRequest{JoinToken: token, CertificateRequest: requestFor(t, key)})
		if i == 0 && err != nil || i > 0 && grpcstatus.Code(err) != codes.AlreadyExists {
			t.Errorf("token %d: %v", i, err)
		}
	}
	if unspent := query[int](b, `SELECT count(*) FROM join_tokens WHERE used_at IS NULL`); unspent != 2 {
		t.Errorf("%d tokens are unspent, want 2", unspent)
	}
}

func TestOtherOwnersToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := b.newOrg(false)
	made, text, err := b.tokens.Create(t.Context(), other, ids.User{}, fleet.KindGPU, "eu-west", "")
	if err != nil {
		t.Fatal(err)
	}
	if list, err := b.tokens.List(t.Context(), b.org); err != nil || len(list) != 0 {
		t.Errorf("another owner sees %v, %v", list, err)
	}
	if err = b.tokens.Revoke(t.Context(), b.org, made.ID); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("another owner revokes it: %v", err)
	}
	answer, err := agentpb.NewEnrolmentClient(b.dial(nil)).Enrol(t.Context(), &agentpb.EnrolRequest{JoinToken: text, CertificateRequest: requestFor(t, newKey(t))})
	if err != nil {
		t.Fatal(err)
	}
	var host ids.Host
	if err = host.UnmarshalText([]byte(answer.GetHostId())); err != nil {
		t.Fatal(err)
	}
	if _, err = b.registry.Host(t.Context(), b.org, host); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("the host shows under another organisation: %v", err)
	}
	if view, err := b.registry.Host(t.Context(), other, host); err != nil || view.OrgID != other || view.Region != "eu-west" {
		t.Errorf("the token's organisation sees %+v, %v", view, err)
	}
	for name, change := range map[string]func(context.Context, ids.Org, ids.Host) error{
		"retire": b.registry.Retire, "cordon": b.registry.Cordon, "uncordon": b.registry.Uncordon, "readmit": b.registry.Readmit,
	} {
		if err := change(t.Context(), b.org, host); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("another owner can %s the host: %v", name, err)
		}
	}
}

func TestHeadHostsBelongToThePlatform(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, c := range map[string]struct {
		org                ids.Org
		kind, region, site string
		want               errs.Code
	}{
		"head of an owner": {b.org, fleet.KindHead, "eu", "", errs.Forbidden},
		"unknown org":      {ids.New[ids.Org](), fleet.KindHead, "eu", "", errs.NotFound},
		"kind":             {b.org, "tpu", "eu", "", errs.Invalid},
		"region":           {b.org, fleet.KindGPU, "EU West", "", errs.Invalid},
	} {
		if _, _, err := b.tokens.Create(t.Context(), c.org, ids.User{}, c.kind, c.region, c.site); errs.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func (m *machine) renew(request []byte, generation int64) (*agentpb.RenewResponse, error) {
	m.b.t.Helper()
	return m.client().Renew(m.b.t.Context(), &agentpb.RenewRequest{Generation: generation, CertificateRequest: request})
}

func TestRenewReplyLost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := b.enrol(fleet.KindGPU)
	request := requestFor(t, m.key)
	first, err := m.renew(request, 1)
	if err != nil || first.GetGeneration() != 2 {
		t.Fatalf("%v, %v", first, err)
	}
	again, err := m.renew(request, 1)
	if err != nil || !bytes.Equal(again.GetCertificate(), first.GetCertificate()) || again.GetGeneration() != 2 {
		t.Fatalf("the repeated request was answered %v, %v", again, err)
	}
	next, err := m.renew(requestFor(t, m.key), 2)
	if err != nil || next.GetGeneration() != 3 {
		t.Fatalf("%v, %v", next, err)
	}
}

func TestRenewKeepsTheKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := b.enrol(fleet.KindGPU)
	if _, err := m.renew(requestFor(t, newKey(t)), 1); grpcstatus.Code(err) != codes.InvalidArgument {
		t.Errorf("another key: %v", err)
	}
	if got := query[int64](b, `SELECT certificate_generation FROM hosts WHERE id = $1`, m.id); got != 1 {
		t.Errorf("generation %d", got)
	}
}

func TestCloneDisk(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := b.enrol(fleet.KindGPU)
	if _, err := m.renew(requestFor(t, m.key), 1); err != nil {
		t.Fatal(err)
	}
	// The copy has the same key and the same certificate, and renews it by a request of its own.
	if _, err := m.renew(requestFor(t, m.key), 1); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Fatalf("the copy got %v", err)
	}
	b.waitForState(m.id, fleet.StateQuarantined)
	if _, err := m.renew(requestFor(t, m.key), 2); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Fatalf("the quarantined host got %v", err)
	}
}

func TestCloneThatConnectsIsQuarantined(t *testing.T) {
	t.Parallel()
	b := setup(t, func(o *fleet.Options) { o.HeartbeatInterval, o.LostAfter = time.Minute, 3*time.Minute })
	m := b.enrol(fleet.KindGPU)
	// Each new stream displaces one that was heard a moment ago, as two machines do to each other.
	for range 4 {
		s := m.connect()
		t.Cleanup(func() { _ = s.CloseSend() })
	}
	last := m.open(t.Context(), "machine")
	if err := last.end(); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Fatalf("the fifth stream ended with %v", err)
	}
	b.waitForState(m.id, fleet.StateQuarantined)
}

// movedClock is ahead of time.
type movedClock struct{ ahead atomic.Int64 }

func (c *movedClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func TestExpiredCertificateMayOnlyRenew(t *testing.T) {
	t.Parallel()
	clock := &movedClock{}
	b := setup(t, func(o *fleet.Options) { o.Now = clock.now })
	m := b.enrol(fleet.KindGPU)
	clock.ahead.Store(int64(24 * time.Hour))
	s := m.open(t.Context(), "machine")
	if err := s.end(); grpcstatus.Code(err) != codes.Unauthenticated {
		t.Fatalf("connected with an expired certificate: %v", err)
	}
	answer, err := m.renew(requestFor(t, m.key), 1)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(answer.GetCertificate())
	if err != nil || leaf.NotAfter.Before(clock.now()) {
		t.Fatalf("renewed to %v, %v", leaf.NotAfter, err)
	}
	m.take(m.id.String(), answer.GetCertificate(), answer.GetGeneration())
	m.connect()
}

func TestHostAwayForTooLongMustEnrolAnew(t *testing.T) {
	t.Parallel()
	clock := &movedClock{}
	b := setup(t, func(o *fleet.Options) { o.Now = clock.now })
	m := b.enrol(fleet.KindGPU)
	clock.ahead.Store(int64(32 * 24 * time.Hour))
	if _, err := m.renew(requestFor(t, m.key), 1); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Fatalf("renewed after a month: %v", err)
	}
}
