package devstack

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// reservePort takes a port of 127.0.0.1, wanted or, if that is 0, any free one, without listening on it. Until held is closed, the kernel
// gives the port neither to an outgoing connection nor to who listens on any; who listens on the very port can, as programs do that reuse
// addresses, Go's and Node's among them. A port that was only looked up could be gone by the time its part starts, and stay gone for as
// long as a connection lasts.
func reservePort(wanted int) (port int, held *os.File, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("reserve a port: %w", err)
	}
	held = os.NewFile(uintptr(fd), "reserved port")
	defer func() {
		if err != nil {
			err = errors.Join(err, held.Close())
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, nil, fmt.Errorf("reserve a port: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: wanted, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, nil, fmt.Errorf("reserve port %d: %w", wanted, err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return 0, nil, fmt.Errorf("reserve a port: %w", err)
	}
	address, ok := bound.(*unix.SockaddrInet4)
	if !ok {
		return 0, nil, fmt.Errorf("reserve a port: its address is a %T", bound)
	}
	return address.Port, held, nil
}
