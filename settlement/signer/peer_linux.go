package signer

import (
	"fmt"
	"net"
	"syscall"
)

// peerUser returns the user id of the process at the other end of a unix socket, as the kernel recorded it.
func peerUser(connection net.Conn) (int, error) {
	unix, ok := connection.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%T is not a unix socket", connection)
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credentials *syscall.Ucred
	var credentialsErr error
	err = raw.Control(func(fd uintptr) {
		credentials, credentialsErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil || credentialsErr != nil {
		return 0, fmt.Errorf("read the peer's user: %w %w", err, credentialsErr)
	}
	return int(credentials.Uid), nil
}
