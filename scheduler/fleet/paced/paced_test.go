package paced_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/muster-gpu/muster/internal/testkit"
	"github.com/muster-gpu/muster/scheduler/fleet/paced"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) { testkit.Main(m) }

func run(t *testing.T, interval time.Duration) *paced.Poller {
	t.Helper()
	p := paced.New(interval)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

// pair is a connection that was accepted and its other end, both bounded in time.
func pair(t *testing.T) (near *paced.Conn, far *net.TCPConn) {
	t.Helper()
	listener, err := paced.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dialled, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = dialled.Close(), accepted.Close() })
	for _, conn := range []net.Conn{dialled, accepted} {
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	return accepted.(*paced.Conn), dialled.(*net.TCPConn)
}

// hear writes at one end and reads the same at the other.
func hear(t *testing.T, to io.Reader, from io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v, not %q", got, err, text)
	}
}

// pace gives a connection to a poller and lets it move there.
func pace(t *testing.T, near *paced.Conn, far net.Conn, p *paced.Poller) {
	t.Helper()
	near.Pace(p)
	testkit.Eventually(t, patience, func() (bool, string) {
		hear(t, near, far, "moving")
		return near.Poller() == p, "not moved"
	})
}

func TestBytesKeepTheirOrderBothWays(t *testing.T) {
	t.Parallel()
	slow, quick := run(t, 20*time.Millisecond), run(t, time.Millisecond)
	near, far := pair(t)
	sent := make([]byte, 4<<20) // more than both buffers hold
	_, _ = rand.Read(sent)
	done := make(chan error, 2)
	go func() {
		_, err := far.Write(sent)
		done <- errors.Join(err, far.CloseWrite())
	}()
	var got bytes.Buffer
	for step := 0; ; step++ { // before it is paced, and with one poller after the other
		switch step {
		case 3:
			near.Pace(slow)
		case 6:
			near.Pace(quick)
		}
		n, err := io.CopyN(&got, near, 64<<10)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
	}
	if !bytes.Equal(got.Bytes(), sent) {
		t.Fatalf("%d bytes came, or others than the %d that were sent", got.Len(), len(sent))
	}
	go func() {
		_, err := near.Write(sent)
		done <- errors.Join(err, near.Close())
	}()
	if back, err := io.ReadAll(far); err != nil || !bytes.Equal(back, sent) {
		t.Fatalf("%d bytes came back: %v", len(back), err)
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestOnePollerWakesManyReaders(t *testing.T) {
	t.Parallel()
	p := run(t, time.Millisecond)
	const conns = 20
	heard := make(chan error, conns)
	var ends []net.Conn
	for range conns {
		near, far := pair(t)
		pace(t, near, far, p)
		ends = append(ends, far)
		go func() {
			_, err := near.Read(make([]byte, 8))
			heard <- err
		}()
	}
	for _, far := range ends {
		if _, err := io.WriteString(far, "beat"); err != nil {
			t.Fatal(err)
		}
	}
	for range conns {
		if err := <-heard; err != nil {
			t.Error(err)
		}
	}
}

func TestTheEndIsReadAfterWhatCameBeforeIt(t *testing.T) {
	t.Parallel()
	p := run(t, 5*time.Millisecond)
	near, far := pair(t)
	pace(t, near, far, p)
	if _, err := io.WriteString(far, "last words"); err != nil {
		t.Fatal(err)
	}
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(near); err != nil || string(all) != "last words" {
		t.Errorf("read %q, %v", all, err)
	}
}

func TestABrokenConnectionIsAnError(t *testing.T) {
	t.Parallel()
	p := run(t, 5*time.Millisecond)
	near, far := pair(t)
	pace(t, near, far, p)
	if err := errors.Join(far.SetLinger(0), far.Close()); err != nil { // a reset
		t.Fatal(err)
	}
	if n, err := near.Read(make([]byte, 8)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestWaitsEndWithTheConnectionAndWithDeadlines(t *testing.T) {
	t.Parallel()
	p := run(t, 5*time.Millisecond)
	near, far := pair(t)
	pace(t, near, far, p)
	ended := make(chan error, 2)
	read := func() { _, err := near.Read(make([]byte, 8)); ended <- err }
	write := func() { // until the buffers are full
		for {
			if _, err := near.Write(make([]byte, 1<<20)); err != nil {
				ended <- err
				return
			}
		}
	}
	expect := func(want error) {
		t.Helper()
		for range 2 {
			if err := <-ended; !errors.Is(err, want) {
				t.Errorf("%v, not %v", err, want)
			}
		}
	}
	go read()
	go write()
	if err := near.SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil { // while they wait
		t.Fatal(err)
	}
	expect(os.ErrDeadlineExceeded)
	if err := near.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go read()
	go write()
	if err := near.Close(); err != nil {
		t.Fatal(err)
	}
	expect(net.ErrClosed)
	if err := near.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
}

func TestWithoutARunningPollerAConnectionIsAsAnyOther(t *testing.T) {
	t.Parallel()
	near, far := pair(t)
	near.Pace(paced.New(time.Hour))
	for range 3 {
		hear(t, near, far, "to")
		hear(t, far, near, "fro")
	}
}

func TestADescriptorIsThereBeforeAndAfter(t *testing.T) {
	t.Parallel()
	p := run(t, 5*time.Millisecond)
	near, far := pair(t)
	for range 2 {
		called := false
		if err := near.Control(func(uintptr) { called = true }); err != nil || !called {
			t.Errorf("called: %v, %v", called, err)
		}
		pace(t, near, far, p)
	}
	if near.LocalAddr().String() != far.RemoteAddr().String() || near.RemoteAddr().String() != far.LocalAddr().String() {
		t.Error("the connection has other addresses than it had")
	}
}
