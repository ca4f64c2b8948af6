package embeddedpg

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const binariesDir = "../../.cache/postgres"

// childDataDir makes this test binary start a server on that directory and wait to be killed.
const childDataDir = "EMBEDDEDPG_CHILD_DATA_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDataDir); dir != "" {
		runChild(dir)
		return
	}
	os.Exit(m.Run())
}

func runChild(dir string) {
	s, err := Start(context.Background(), Options{DataDir: dir, BinariesDir: binariesDir})
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	fmt.Println(s.Pid())
	<-s.Done()
}

func start(t *testing.T, opts Options) *Server {
	t.Helper()
	opts.BinariesDir = binariesDir
	opts.Log = slog.New(slog.DiscardHandler)
	s, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() { _ = s.Stop() })
	return s
}

func query[T any](t *testing.T, s *Server, sql string) T {
	t.Helper()
	var v T
	if err := tryQuery(t.Context(), s, sql, &v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func tryQuery(ctx context.Context, s *Server, sql string, dest any) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	return conn.QueryRow(ctx, sql).Scan(dest)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		if err := sleep(t.Context(), pollInterval); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServerKeepsDataAndPortOverARestart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pg")
	s := start(t, Options{DataDir: dir})
	if got := query[string](t, s, "SHOW server_version"); !strings.HasPrefix(got, majorVersion+".") {
		t.Errorf("server_version = %s, want %s", got, majorVersion)
	}
	if got := query[string](t, s, "SHOW fsync"); got != "on" {
		t.Errorf("fsync = %s, want on", got)
	}
	if err := s.EnsureDatabase(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	if err := s.EnsureDatabase(t.Context(), "kept"); err != nil {
		t.Fatalf("a second time: %v", err)
	}
	port := s.Port()
	if err := s.Stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	again := start(t, Options{DataDir: dir})
	if again.Port() != port {
		t.Errorf("port = %d after a restart, want %d", again.Port(), port)
	}
	if got := query[int](t, again, "SELECT count(*) FROM pg_database WHERE datname = 'kept'"); got != 1 {
		t.Error("the database is gone after a restart")
	}
}

func TestServerNeverRunsAsRoot(t *testing.T) {
	t.Parallel()
	s := start(t, Options{DataDir: filepath.Join(t.TempDir(), "pg")})
	info, err := os.Stat(fmt.Sprintf("/proc/%d", s.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid == 0 {
		t.Errorf("the server runs as user %d", stat.Uid)
	}
}

func TestStartRefusesADirectoryInUse(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pg")
	s := start(t, Options{DataDir: dir})
	_, err := Start(t.Context(), Options{DataDir: dir, BinariesDir: binariesDir})
	if !errors.Is(err, errLocked) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("err = %v, want %v and the holder's process", err, errLocked)
	}
	if got := query[int](t, s, "SELECT 1"); got != 1 {
		t.Error("the first server was disturbed")
	}
}

func TestKilledServerIsRestartedWithItsCommittedData(t *testing.T) {
	t.Parallel()
	s := start(t, Options{DataDir: filepath.Join(t.TempDir(), "pg"), Restart: true})
	if err := s.EnsureDatabase(t.Context(), "committed"); err != nil {
		t.Fatal(err)
	}
	killed, url := s.Pid(), s.URL("committed")
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server answers again", func() bool { return ping(t.Context(), url) == nil && s.Pid() != killed })
	if s.URL("committed") != url {
		t.Error("the address changed")
	}
}

func TestKilledServerIsReportedWithoutRestart(t *testing.T) {
	t.Parallel()
	s := start(t, Options{DataDir: filepath.Join(t.TempDir(), "pg")})
	if err := syscall.Kill(s.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("Done is not closed")
	}
	if s.Err() == nil {
		t.Error("Err = nil after a crash")
	}
}

func TestServerOfAKilledProgramIsAdopted(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pg")
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), childDataDir+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var line string
	if _, err := fmt.Fscanln(out, &line); err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatalf("the child said %q", line)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // says only that it was killed
	s := start(t, Options{DataDir: dir, Restart: true})
	if !s.Adopted() || s.Pid() != pid {
		t.Fatalf("adopted = %v, process %d, want %d", s.Adopted(), s.Pid(), pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the adopted server is restarted", func() bool {
		return s.Pid() != pid && ping(t.Context(), s.URL("postgres")) == nil
	})
	if err := s.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestPidFileOfAStrangerDoesNotHinderAStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pg")
	if err := start(t, Options{DataDir: dir}).Stop(); err != nil {
		t.Fatal(err)
	}
	stale := fmt.Sprintf("%d\n%s/pgdata\n1\n1\n\n\n\nready\n", os.Getpid(), dir)
	if err := os.WriteFile(filepath.Join(dir, "pgdata", "postmaster.pid"), []byte(stale), 0o644); err != nil {
		t.Fatal(err)
	}
	if s := start(t, Options{DataDir: dir}); s.Adopted() {
		t.Error("a stranger's process was adopted")
	}
}

func TestHalfMadeClusterIsMadeAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pg")
	if err := os.MkdirAll(filepath.Join(dir, "pgdata.new", "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, Options{DataDir: dir})
}

func TestDataOfAnotherMajorVersionIsRefusedAndKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pg")
	file := filepath.Join(dir, "pgdata", "PG_VERSION")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Options{DataDir: dir, BinariesDir: binariesDir})
	if err == nil || !strings.Contains(err.Error(), "PostgreSQL 9") {
		t.Errorf("err = %v, want one that names the version", err)
	}
	if !isFile(file) {
		t.Error("the data is gone")
	}
}

func TestServerRunsInAFolderThatOnlyItsOwnerMayPass(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, Options{DataDir: filepath.Join(closed, "pg")})
}

func TestUnreachableBinariesAreKeptElsewhere(t *testing.T) {
	t.Parallel()
	id := identity{uid: os.Getuid() + 1, gid: os.Getgid() + 1, cred: &syscall.Credential{}} // a user that the folder is not of
	for mode, want := range map[os.FileMode]bool{0o700: false, 0o711: true} {
		parent, err := os.MkdirTemp("", "embeddedpg") //nolint:usetesting // the folder of t.TempDir is closed to nobody as well
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(parent) })
		if err := os.Chmod(parent, mode); err != nil {
			t.Fatal(err)
		}
		asked := filepath.Join(parent, "postgres")
		got, err := id.binariesDir(asked, "/elsewhere")
		if err != nil {
			t.Fatal(err)
		}
		if (got == asked) != want {
			t.Errorf("below a folder of mode %o: %s", mode, got)
		}
	}
}

func TestArchiveWithAnotherChecksumIsRefused(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "not PostgreSQL")
	}))
	defer server.Close()
	if _, err := download(t.Context(), server.Client(), server.URL); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("err = %v, want one about the checksum", err)
	}
}

func TestArchiveEntryCannotLeaveItsFolder(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"../out", "link/out"} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		outside := t.TempDir()
		for _, h := range []tar.Header{
			{Name: "link", Typeflag: tar.TypeSymlink, Linkname: outside},
			{Name: name, Typeflag: tar.TypeReg},
		} {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := untar(tar.NewReader(&buf), t.TempDir()); err == nil {
			t.Errorf("%s was unpacked", name)
		}
		if isFile(filepath.Join(outside, "out")) {
			t.Errorf("%s was written outside", name)
		}
	}
}
