package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/muster-gpu/muster/internal/errs"
	"github.com/muster-gpu/muster/internal/jointoken"
)

func TestRetryDelayIsBoundedAndSpread(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		attempt := rapid.IntRange(1, 1_000_000).Draw(t, "attempt")
		limit := time.Duration(rapid.Int64Range(int64(reconnectBase), int64(time.Hour)).Draw(t, "limit"))
		if delay := retryDelay(attempt, limit); delay < reconnectBase/2 || delay > limit {
			t.Fatalf("attempt %d waits %s, limit %s", attempt, delay, limit)
		}
	})
	seen := map[time.Duration]bool{}
	for range 100 {
		seen[retryDelay(10, time.Minute)] = true
	}
	if len(seen) < 50 {
		t.Errorf("only %d different delays in 100", len(seen))
	}
}

func openState(t *testing.T) *State {
	t.Helper()
	state, err := OpenState(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = state.Close() })
	return state
}

func TestIdentityIsPrivateAndReplacedAsAWhole(t *testing.T) {
	t.Parallel()
	state := openState(t)
	first, err := Identity{Server: "a:1"}.withRequest()
	if err != nil {
		t.Fatal(err)
	}
	if err = state.Save(first); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(state.dir, pendingFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if dir, err := os.Stat(state.dir); err != nil || dir.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v, %v", dir.Mode(), err)
	}
	back, err := state.Load()
	if err != nil || !bytes.Equal(back.Key, first.Key) || back.Enrolled() {
		t.Errorf("reads back as %+v, %v", back, err)
	}
	if _, err = os.Stat(filepath.Join(state.dir, identityFile)); err == nil {
		t.Error("there is an identity before the host is enrolled")
	}
	enrolled := first
	enrolled.HostID, enrolled.Certificate = "host_x", []byte{1}
	if err = state.Save(enrolled); err != nil {
		t.Fatal(err)
	}
	if back, err = state.Load(); err != nil || !back.Enrolled() {
		t.Errorf("reads back as %+v, %v", back, err)
	}
	if _, err = os.Stat(filepath.Join(state.dir, pendingFile)); err == nil {
		t.Error("the unfinished enrolment is still there")
	}
	left, err := filepath.Glob(filepath.Join(state.dir, ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind %v, %v", left, err)
	}
}

func TestUnansweredRequestIsKept(t *testing.T) {
	t.Parallel()
	first, err := Identity{}.withRequest()
	if err != nil {
		t.Fatal(err)
	}
	again, err := first.withRequest()
	if err != nil || !bytes.Equal(again.Request, first.Request) {
		t.Error("an unanswered request was replaced by another")
	}
	first.Request = nil
	next, err := first.withRequest()
	if err != nil || bytes.Equal(next.Request, again.Request) || !bytes.Equal(next.Key, again.Key) {
		t.Error("a new request must differ, and must be for the same key")
	}
}

func TestDamagedIdentityIsNotTakenForNone(t *testing.T) {
	t.Parallel()
	state := openState(t)
	if err := os.WriteFile(filepath.Join(state.dir, identityFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Enrolling over it would throw the host's key away.
	if _, err := Enrol(t.Context(), state, "127.0.0.1:1", jointoken.New(jointoken.Pin{}).Text(), Self{Version: "test"}); err == nil {
		t.Error("enrolled over a damaged identity")
	}
}

func TestEnrolRefusesADamagedTokenBeforeItDials(t *testing.T) {
	t.Parallel()
	if _, err := Enrol(t.Context(), openState(t), "127.0.0.1:1", "mjt_nonsense", Self{Version: "test"}); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("%v", err)
	}
}

func TestStatusWithoutAnAgent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if status, err := ReadStatus(dir); err != nil || status.Running || status.Connected {
		t.Errorf("%+v, %v", status, err)
	}
	if err := writeFile(dir, statusFile, Status{Connected: true}); err != nil {
		t.Fatal(err)
	}
	if status, err := ReadStatus(dir); err != nil || status.Connected {
		t.Errorf("an agent that was killed counts as connected: %+v, %v", status, err)
	}
}

func TestAHostFollowsItsControlPlane(t *testing.T) {
	t.Parallel()
	state := openState(t)
	if err := Move(state, "b:2"); err != nil {
		t.Fatal(err)
	}
	if identity, err := state.Load(); err != nil || identity.Server != "" {
		t.Errorf("a host that is not enrolled was moved to %q, %v", identity.Server, err)
	}
	if err := state.Save(Identity{Server: "a:1", HostID: "host_x", Certificate: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	if err := Move(state, "b:2"); err != nil {
		t.Fatal(err)
	}
	if identity, err := state.Load(); err != nil || identity.Server != "b:2" || identity.HostID != "host_x" {
		t.Errorf("after the move it is %+v, %v", identity, err)
	}
}
