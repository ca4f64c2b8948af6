package signer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// confinedVariable tells the program that it runs confined already.
const confinedVariable = "MUSTER_SIGNER_CONFINED"

// Rights of Landlock, https://docs.kernel.org/userspace-api/landlock.html.
const (
	landlockRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	landlockRun   = landlockRead | unix.LANDLOCK_ACCESS_FS_EXECUTE
	landlockStore = landlockRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	landlockSocket = unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE

	landlockOfFiles = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE
	landlockScoped = 6 // version of the kernel's interface with all that is used here
)

// Confine lets the signer reach its own files and no others, open no TCP connection unless its key is remote, and signal no other
// process, whatever takes it over later. A thread can confine itself only, so the program is executed again from the one that did:
// Confine returns nil in the second program, and only an error in the first. Paths beyond the options' own are readable too.
func Confine(options Options, readable ...string) error {
	if os.Getenv(confinedVariable) != "" {
		return nil
	}
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || version < landlockScoped {
		return fmt.Errorf("%w: Landlock's version here is %d (%w)", ErrNotConfined, int(version), errno)
	}
	runtime.LockOSThread() // never unlocked: what the thread may do no longer is not given back
	rules, err := landlockRules(options, readable)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotConfined, err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("%w: %w", ErrNotConfined, err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0); errno != 0 {
		return fmt.Errorf("%w: %w", ErrNotConfined, errno)
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("run the confined signer: %w", err)
	}
	err = syscall.Exec(program, os.Args, append(os.Environ(), confinedVariable+"=1")) //nolint:gosec // itself, as it was started
	return fmt.Errorf("run the confined signer: %w", err)
}

// landlockRules makes a rule set: what is handled is forbidden, but for what a rule allows.
func landlockRules(options Options, readable []string) (int, error) {
	attributes := unix.LandlockRulesetAttr{
		Handled_access_fs: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV<<1 - 1, Handled_access_net: unix.LANDLOCK_ACCESS_NET_BIND_TCP,
		Scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL,
	}
	system := []string{"/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/localtime", "/usr/share/zoneinfo", "/dev/null"}
	readable = append(readable, options.KeyFile, options.PolicyFile)
	if options.RemoteKeyFile == "" {
		attributes.Handled_access_net |= unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	} else {
		system = append(system, "/etc/ssl", "/etc/pki", "/usr/share/ca-certificates", "/etc/resolv.conf", "/etc/hosts", "/run/systemd/resolve")
		remote, err := readRemote(options.RemoteKeyFile)
		if err != nil {
			return 0, err
		}
		readable = append(append(readable, options.RemoteKeyFile), remote.folders()...)
	}
	const scopedSize = 24 // of the attributes up to Scoped: older kernels refuse longer ones
	rules, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET,
		uintptr(unsafe.Pointer(&attributes)), scopedSize, 0) //nolint:gosec // the kernel reads it during the call
	if errno != 0 {
		return 0, errno
	}
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(options.JournalDir, privateDirMode); err != nil {
		return 0, err
	}
	err = errors.Join(allow(int(rules), landlockRun, program), allow(int(rules), landlockStore, options.JournalDir),
		allow(int(rules), landlockSocket, filepath.Dir(options.Socket)))
	for _, path := range readable {
		err = errors.Join(err, allow(int(rules), landlockRead, path))
	}
	for _, path := range system {
		if one := allow(int(rules), landlockRun, path); !errors.Is(one, fs.ErrNotExist) { // which of them exist depends on the system
			err = errors.Join(err, one)
		}
	}
	return int(rules), err
}

// allow adds a rule for a file, or for a folder and all in it.
func allow(rules int, rights uint64, path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("allow %s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil {
		return fmt.Errorf("allow %s: %w", path, err)
	}
	if info.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= landlockOfFiles
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&rule)), 0, 0, 0) //nolint:gosec // the kernel reads it during the call
	if errno != 0 {
		return fmt.Errorf("allow %s: %w", path, errno)
	}
	return nil
}
