package embeddedpg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

const maxLogBytes = 16 << 20

// process is a running server. exited is closed when it is gone.
type process struct {
	proc   *os.Process
	port   int
	exited <-chan struct{}
}

// spawn starts a server on port and does not wait for it to be ready.
func (c *cluster) spawn(port int, parameters map[string]string) (process, error) {
	log, err := c.openLog()
	if err != nil {
		return process{}, err
	}
	defer func() { _ = log.Close() }()
	args := []string{
		"-D", childDir + "/pgdata", "-p", strconv.Itoa(port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
	}
	for name, value := range parameters {
		args = append(args, "-c", name+"="+value)
	}
	// Not bound to a context: the server ends by Stop, which lets it write its checkpoint.
	cmd, release, err := c.command(context.Background(), "postgres", args...)
	if err != nil {
		return process{}, err
	}
	defer release()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return process{}, fmt.Errorf("start PostgreSQL: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the log says why
		close(exited)
	}()
	return process{proc: cmd.Process, port: port, exited: exited}, nil
}

func (c *cluster) openLog() (*os.File, error) {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if info, err := os.Stat(c.logPath()); err == nil && info.Size() > maxLogBytes {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(c.logPath(), flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	return f, nil
}

// logTail is the end of the server's log.
func (c *cluster) logTail() string {
	data, err := os.ReadFile(c.logPath())
	if err != nil {
		return err.Error()
	}
	return tail(string(data))
}

// running finds the server that a program which was killed left behind on this data directory. A pid file that names a
// process which is not this server is stale: its number was given to another since. That file is removed, as PostgreSQL
// itself would take the stranger for a running server.
func (c *cluster) running() (pid, port int, ok bool) {
	path := filepath.Join(c.pgdata(), "postmaster.pid")
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, false
	}
	pid, port, ok = parsePidFile(string(data))
	if !ok || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return 0, 0, false
	}
	// The server makes its data directory its working directory.
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && cwd != c.pgdata() {
		_ = os.Remove(path)
		return 0, 0, false
	}
	return pid, port, true
}

// parsePidFile reads postmaster.pid: line 1 is the process, line 4 the port.
func parsePidFile(s string) (pid, port int, ok bool) {
	lines := strings.Split(s, "\n")
	if len(lines) < 4 {
		return 0, 0, false
	}
	pid, err1 := strconv.Atoi(strings.TrimSpace(lines[0]))
	port, err2 := strconv.Atoi(strings.TrimSpace(lines[3]))
	return pid, port, err1 == nil && err2 == nil && pid > 0 && port > 0
}

// ping connects and asks one question.
func ping(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, "SELECT 1")
	return err
}

// freePort is a port on the loopback address that nobody listens on. With want it is that one if it is free, else any.
func freePort(ctx context.Context, want int) (int, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(want)))
	if err != nil && want != 0 {
		l, err = config.Listen(ctx, "tcp", "127.0.0.1:0")
	}
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("find a free port: unexpected address %s", l.Addr())
	}
	return addr.Port, nil
}
