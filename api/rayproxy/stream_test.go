package rayproxy_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-gpu/muster/api/rayproxy"
	"github.com/muster-gpu/muster/internal/testkit"
)

const (
	never  = time.Hour
	socket = 6 << 20 // what is sent each way through a websocket: more than any buffer on the way
)

// upgrade answers as a websocket's server and hands the connection over.
func upgrade(w http.ResponseWriter) (*net.TCPConn, *bufio.Reader) {
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "websocket")
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	_ = conn.SetDeadline(time.Now().Add(bound))
	return conn.(*net.TCPConn), buffered.Reader
}

// openSocket opens a websocket from a program, as far as HTTP goes.
func (b *bench) openSocket(token string) (*net.TCPConn, *bufio.Reader) {
	b.t.Helper()
	conn := b.dial()
	_, err := io.WriteString(conn, b.get("/api/jobs/x/logs/tail", token, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x"))
	fatal(b.t, err)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	fatal(b.t, err)
	if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Upgrade") != "websocket" {
		b.t.Fatalf("%d %v", response.StatusCode, response.Header)
	}
	return conn, reader
}

func TestWebsocketCarriesBothWaysAndClosesByHalves(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{
		server: func(s *http.Server) { s.WriteTimeout, s.ReadTimeout = time.Second, time.Second }, // of no concern to a websocket
		ray: func(w http.ResponseWriter, _ *http.Request) {
			conn, reader := upgrade(w)
			defer func() { _ = conn.Close() }()
			hash := sha256.New()
			n, _ := io.Copy(hash, reader) // until the client closes its half
			time.Sleep(1500 * time.Millisecond)
			_, _ = fmt.Fprintf(conn, "%d %x\n", n, hash.Sum(nil))
			_, _ = io.CopyN(conn, letters{}, socket)
		},
	})
	conn, reader := b.openSocket(b.token(b.cluster))
	sent := bytes.Repeat([]byte("to Ray "), socket/7)
	_, err := conn.Write(sent)
	fatal(t, err)
	fatal(t, conn.CloseWrite())
	line, err := reader.ReadString('\n')
	fatal(t, err)
	if want := fmt.Sprintf("%d %x\n", len(sent), sha256.Sum256(sent)); line != want {
		t.Errorf("Ray got %swant %s", line, want)
	}
	if n, err := io.Copy(io.Discard, reader); n != socket || err != nil {
		t.Errorf("%d bytes came from Ray, %v; want %d", n, err, socket)
	}
}

func TestWebsocketOfTheDashboardsOwnPage(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{ray: func(w http.ResponseWriter, r *http.Request) {
		conn, _ := upgrade(w)
		_, _ = fmt.Fprintf(conn, "%s %s", r.Header.Get("Authorization"), r.Header.Get("Cookie"))
		_ = conn.Close()
	}})
	got := b.raw(b.page("GET", "/", b.session(), "Connection: Upgrade", "Upgrade: websocket", "Origin: http://"+b.dashboard(), "Sec-Fetch-Site: same-origin"))
	if got.StatusCode != http.StatusSwitchingProtocols || got.Header.Get("Set-Cookie") != "" {
		t.Errorf("%d %v %s", got.StatusCode, got.Header, got.body)
	}
}

func TestAWebsocketThatRayHasClosedEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{
		adjust: func(p *rayproxy.Proxy) { p.Hasten(never, 200*time.Millisecond, never) },
		ray: func(w http.ResponseWriter, _ *http.Request) {
			conn, _ := upgrade(w)
			_ = conn.Close()
		},
	})
	conn, reader := b.openSocket(b.token(b.cluster))
	if _, err := reader.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("what Ray closed reads %v", err)
	}
	// The client does not close its half; after a while its connection is gone all the same.
	testkit.Eventually(t, bound, func() (bool, string) {
		_, err := conn.Write([]byte("still here"))
		return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET), fmt.Sprint(err)
	})
}

func TestStreamsAreNeitherCutNorHeldBack(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{
		server: func(s *http.Server) { s.WriteTimeout = 300 * time.Millisecond },
		adjust: func(p *rayproxy.Proxy) { p.Hasten(200*time.Millisecond, never, 50*time.Millisecond) },
		ray: func(w http.ResponseWriter, r *http.Request) {
			for i := range 4 {
				_, _ = fmt.Fprintf(w, "line %d\n", i)
				_ = http.NewResponseController(w).Flush()
				line := make([]byte, 1)
				_, _ = r.Body.Read(line) // the client answers each line, so none waits in a buffer
			}
			time.Sleep(500 * time.Millisecond) // longer than each of the limits
			_, _ = io.WriteString(w, "end\n")
		},
	})
	b.ray = withFullDuplex(b.ray)
	conn := b.dial()
	_, err := io.WriteString(conn, lines("GET "+b.path("/logs")+" HTTP/1.1", "Host: "+b.address, "Authorization: Bearer "+b.token(b.cluster)))
	fatal(t, err)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	fatal(t, err)
	body, err := io.ReadAll(response.Body)
	if want := "line 0\nline 1\nline 2\nline 3\nend\n"; string(body) != want || err != nil {
		t.Errorf("%q %v, want %q", body, err, want)
	}
	fatal(t, response.Body.Close())
}

func withFullDuplex(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		next(w, r)
	}
}

func TestUploadsAreStreamedAndBounded(t *testing.T) {
	t.Parallel()
	first := make(chan struct{}, 1)
	b := newBench(t, options{ray: func(w http.ResponseWriter, r *http.Request) {
		n, err := io.CopyN(io.Discard, r.Body, 1<<20)
		if n == 1<<20 {
			first <- struct{}{}
		}
		rest, restErr := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintf(w, "%d %v", n+rest, errors.Join(err, restErr))
	}})
	token := b.token(b.cluster)
	put := func(framing string) string {
		return lines("PUT "+b.path("/api/packages/gcs/_ray_pkg_1.zip")+" HTTP/1.1", "Host: "+b.address, "Authorization: Bearer "+token, framing)
	}
	conn := b.dial()
	_, err := io.WriteString(conn, put(fmt.Sprintf("Content-Length: %d", rayproxy.MaxUpload)))
	fatal(t, err)
	_, err = io.CopyN(conn, letters{}, 2<<20)
	fatal(t, err)
	select {
	case <-first: // Ray has the beginning while the client still keeps the end
	case <-time.After(bound):
		t.Fatal("the package is held back")
	}
	_, err = io.CopyN(conn, letters{}, rayproxy.MaxUpload-2<<20)
	fatal(t, err)
	if got := b.read(bufio.NewReader(conn), http.MethodPut); got.body != fmt.Sprintf("%d <nil>", rayproxy.MaxUpload) {
		t.Errorf("the largest package: %d %s", got.StatusCode, got.body)
	}

	declared := b.raw(put(fmt.Sprintf("Content-Length: %d", rayproxy.MaxUpload+1)))
	if declared.StatusCode != http.StatusRequestEntityTooLarge || declared.problem(t).Code != "too_large" || !declared.Close {
		t.Errorf("a declared length: %d %s", declared.StatusCode, declared.body)
	}

	conn = b.dial()
	_, err = io.WriteString(conn, put("Transfer-Encoding: chunked"))
	fatal(t, err)
	// The proxy may answer and hang up before everything is sent.
	if _, err := io.CopyN(httputil.NewChunkedWriter(conn), letters{}, rayproxy.MaxUpload+1<<20); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	if got := b.read(bufio.NewReader(conn), http.MethodPut); got.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("chunks without end: %d %s", got.StatusCode, got.body)
	}
}

func TestSlowClientsAreLetGo(t *testing.T) {
	t.Parallel()
	const stall = 300 * time.Millisecond
	ended := make(chan error, 1)
	b := newBench(t, options{
		adjust: func(p *rayproxy.Proxy) { p.Hasten(stall, stall, never) },
		ray: func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			if err == nil {
				_, err = io.Copy(w, letters{})
			}
			ended <- err
		},
	})
	token := b.token(b.cluster)
	head := func(framing, token string) string {
		return lines("POST "+b.path("/")+" HTTP/1.1", "Host: "+b.address, "Authorization: Bearer "+token, framing)
	}
	for name, request := range map[string]string{
		"half a body":              head("Content-Length: 1000", token) + "half",
		"half a chunk":             head("Transfer-Encoding: chunked", token) + "ff\r\nhalf",
		"a body that nobody wants": head("Content-Length: 1000", "mrt_unknown") + "half",
	} {
		conn := b.dial()
		_, err := io.WriteString(conn, request)
		fatal(t, err)
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the connection is still open: %v", name, err)
		}
		if !strings.Contains(request, "mrt_unknown") {
			expectEnd(t, ended, name)
		}
	}
	conn := b.dial()
	fatal(t, conn.SetReadBuffer(4096))
	_, err := io.WriteString(conn, head("Content-Length: 0", token))
	fatal(t, err)
	expectEnd(t, ended, "an answer that is not read") // Ray's end breaks because the client's was given up
}

func expectEnd(t *testing.T, ended <-chan error, name string) {
	t.Helper()
	select {
	case err := <-ended:
		if err == nil {
			t.Errorf("%s: Ray saw a whole exchange", name)
		}
	case <-time.After(bound):
		t.Fatalf("%s: Ray's end is still open", name)
	}
}

func TestARunningStreamEndsWithTheRightToTheCluster(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*bench){
		"no longer a member": func(b *bench) { b.Exec(`DELETE FROM memberships`) },
		"released":           (*bench).release,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, options{
				adjust: func(p *rayproxy.Proxy) { p.Hasten(never, never, 20*time.Millisecond) },
				ray: func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Upgrade") == "" {
						_, _ = io.WriteString(w, "begun\n")
						_ = http.NewResponseController(w).Flush()
						<-r.Context().Done()
						return
					}
					conn, reader := upgrade(w)
					_, _ = io.Copy(io.Discard, reader)
					_ = conn.Close()
				},
			})
			token := b.token(b.cluster)
			// Its own end is no reason: who follows a job for hours may go on.
			_, socketReader := b.openSocket(token)
			conn := b.dial()
			_, err := io.WriteString(conn, b.get("/logs", token))
			fatal(t, err)
			reader := bufio.NewReader(conn)
			for line := ""; line != "begun\n" && err == nil; line, err = reader.ReadString('\n') {
			}
			fatal(t, err)
			b.Exec(`UPDATE ray_accesses SET expires_at = now()`)
			expectSilence(t, conn, reader)
			end(b)
			fatal(t, conn.SetDeadline(time.Now().Add(bound)))
			for _, r := range []*bufio.Reader{reader, socketReader} {
				if _, err := io.Copy(io.Discard, r); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the stream goes on")
				}
			}
		})
	}
}

// expectSilence waits through several rechecks for a connection that stays open.
func expectSilence(t *testing.T, conn net.Conn, reader *bufio.Reader) {
	t.Helper()
	fatal(t, conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	if _, err := reader.Peek(4); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the stream ended: %v", err)
	}
}

func TestOneClustersRequestsAreBounded(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	b := newBench(t, options{ray: func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			_ = http.NewResponseController(w).Flush()
			<-release
		}
	}})
	other := b.book()
	b.sealRayToken()
	token, otherToken := b.token(b.cluster), b.token(other)
	for range rayproxy.MaxInFlight {
		conn := b.dial()
		_, err := io.WriteString(conn, b.get("/held", token))
		fatal(t, err)
		_, err = bufio.NewReader(conn).ReadByte()
		fatal(t, err)
	}
	refused := b.raw(b.get("/api/version", token))
	if refused.StatusCode != http.StatusTooManyRequests || refused.Header.Get("Retry-After") == "" || refused.problem(t).Code != "rate_limited" {
		t.Errorf("one more: %d %v %s", refused.StatusCode, refused.Header, refused.body)
	}
	elsewhere := strings.Replace(b.get("/api/version", otherToken), b.cluster.String(), other.String(), 1)
	if got := b.raw(elsewhere); got.StatusCode != http.StatusOK {
		t.Errorf("another cluster: %d %s", got.StatusCode, got.body)
	}
	close(release)
	testkit.Eventually(t, bound, func() (bool, string) {
		got := b.raw(b.get("/api/version", token))
		return got.StatusCode == http.StatusOK, got.Status
	})
}

func TestUnreachableRayIsUnavailable(t *testing.T) {
	t.Parallel()
	b := newBench(t, options{ray: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }})
	broken := b.raw(b.get("/api/version", b.token(b.cluster)))
	b.Exec(`UPDATE nodes SET slot = slot + 7`) // the agent would not dial it
	away := b.raw(b.get("/api/version", b.token(b.cluster)))
	for _, got := range []reply{broken, away} {
		if p := got.problem(t); got.StatusCode != http.StatusServiceUnavailable || !strings.Contains(p.Detail, "cannot be reached") || strings.Contains(got.body, "127.0.0.1") {
			t.Errorf("%d %s", got.StatusCode, got.body)
		}
	}
}
