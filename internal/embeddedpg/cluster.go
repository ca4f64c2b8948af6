package embeddedpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const initTimeout = 2 * time.Minute

// superuser is the role that initdb makes; the only one in a new cluster.
const superuser = "muster"

// cluster is a data directory and the user and binaries it is run with.
type cluster struct {
	dir      string // the real path
	bin      string
	id       identity
	password string
}

// childDir is the data directory as PostgreSQL's programs see it: the descriptor that command gives them, which needs no
// permission on the folders above.
const childDir = "/proc/self/fd/3"

func (c *cluster) pgdata() string { return filepath.Join(c.dir, "pgdata") }

func (c *cluster) logPath() string { return filepath.Join(c.dir, "postgres.log") }

// command makes a command that runs one of PostgreSQL's programs as the server's user, detached from this program's terminal
// so that Ctrl-C reaches the server only through Stop. After the command has started, or failed to, release frees the
// descriptor.
func (c *cluster) command(ctx context.Context, program string, args ...string) (cmd *exec.Cmd, release func(), err error) {
	dir, err := os.Open(c.dir)
	if err != nil {
		return nil, nil, err
	}
	cmd = exec.CommandContext(ctx, filepath.Join(c.bin, program), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + c.bin + ":/usr/bin:/bin", "HOME=/", "LC_ALL=C", "TZ=UTC"}
	cmd.ExtraFiles = []*os.File{dir} // childDir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: c.id.cred}
	return cmd, func() { _ = dir.Close() }, nil
}

// prepare makes the cluster unless it is there, and loads its password.
func (c *cluster) prepare(ctx context.Context) error {
	if err := os.Chmod(c.dir, 0o700); err != nil { //nolint:gosec // a directory needs the x bit
		return err
	}
	if err := c.id.chown(c.dir); err != nil {
		return fmt.Errorf("give %s to the server's user: %w", c.dir, err)
	}
	version, err := os.ReadFile(filepath.Join(c.pgdata(), "PG_VERSION"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := c.initialise(ctx); err != nil {
			return err
		}
	case err != nil:
		return err
	case strings.TrimSpace(string(version)) != majorVersion:
		return fmt.Errorf("%s holds data of PostgreSQL %s, and this program runs %s: dump and restore it, or use another folder",
			c.dir, strings.TrimSpace(string(version)), majorVersion)
	}
	password, err := os.ReadFile(filepath.Join(c.dir, "password"))
	if err != nil {
		return fmt.Errorf("read the database password: %w", err)
	}
	c.password = strings.TrimSpace(string(password))
	return nil
}

// initialise makes the cluster under a temporary name and renames it.
func (c *cluster) initialise(ctx context.Context) error {
	tmp := c.pgdata() + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	passwordFile := filepath.Join(c.dir, "password")
	if err := os.WriteFile(passwordFile, []byte(rand.Text()+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the database password: %w", err)
	}
	if err := c.id.chown(passwordFile); err != nil {
		return fmt.Errorf("give the database password to the server's user: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	cmd, release, err := c.command(ctx, "initdb", "--pgdata="+childDir+"/"+filepath.Base(tmp), "--username="+superuser,
		"--pwfile="+childDir+"/"+filepath.Base(passwordFile), "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
		"--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums")
	if err != nil {
		return err
	}
	defer release()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, tail(string(out)))
	}
	return os.Rename(tmp, c.pgdata())
}

// lastPort is the port of the last start, 0 when there is none.
func (c *cluster) lastPort() int {
	data, err := os.ReadFile(filepath.Join(c.dir, "port"))
	if err != nil {
		return 0
	}
	port, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return port
}

func (c *cluster) savePort(port int) error {
	return os.WriteFile(filepath.Join(c.dir, "port"), []byte(strconv.Itoa(port)+"\n"), 0o600)
}

const maxTailBytes = 2000

// tail is the end of a program's output, where the reason for a failure stands.
func tail(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > maxTailBytes {
		s = s[len(s)-maxTailBytes:]
	}
	return s
}
