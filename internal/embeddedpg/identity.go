package embeddedpg

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// fallbackBinariesDir is used when the server's user cannot reach the folder that was asked for. Only root comes to need it.
const fallbackBinariesDir = "/var/lib/muster/postgres"

// identity is the user that the server runs as. The zero cred means this program's own user.
type identity struct {
	uid, gid int
	cred     *syscall.Credential
}

// serverIdentity is nobody when this program is root, else this program's user.
func serverIdentity() (identity, error) {
	if uid := os.Geteuid(); uid != 0 {
		return identity{uid: uid, gid: os.Getegid()}, nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return identity{}, fmt.Errorf("PostgreSQL cannot run as root, and the user nobody is missing: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return identity{}, fmt.Errorf("user id of nobody: %w", err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return identity{}, fmt.Errorf("group id of nobody: %w", err)
	}
	return identity{
		uid: int(uid), gid: int(gid),
		cred: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
	}, nil
}

// chown gives path to the server's user. It does nothing when that is this program's own.
func (id identity) chown(path string) error {
	if id.cred == nil {
		return nil
	}
	return os.Lchown(path, id.uid, id.gid)
}

// canReach says whether the user may pass through every parent of path, an absolute path without symbolic links.
func (id identity) canReach(path string) bool {
	if id.cred == nil {
		return true
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || !id.canPass(info) {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

func (id identity) canPass(info os.FileInfo) bool {
	mode := info.Mode().Perm()
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case ok && int(stat.Uid) == id.uid:
		return mode&0o100 != 0
	case ok && int(stat.Gid) == id.gid:
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}

// binariesDir is dir, or fallback when the server's user cannot reach dir. Unlike a data directory, which the server gets as
// an open descriptor, binaries are found by path.
func (id identity) binariesDir(dir, fallback string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the folder for PostgreSQL's binaries: %w", err)
	}
	path, err := realPath(dir)
	if err != nil {
		return "", err
	}
	if id.canReach(path) {
		return path, nil
	}
	return fallback, nil
}

// realPath is path made absolute, without symbolic links.
func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}
