package fleet

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// measuredTLS is TLS that remembers the connection beneath, of which the kernel measures the round trip all the time.
type measuredTLS struct {
	credentials.TransportCredentials
}

// peerInfo is what an RPC knows of its connection.
type peerInfo struct {
	credentials.TLSInfo
	conn net.Conn
}

// ServerHandshake implements credentials.TransportCredentials.
func (m measuredTLS) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := m.TransportCredentials.ServerHandshake(raw)
	if state, ok := info.(credentials.TLSInfo); ok && err == nil {
		return conn, peerInfo{TLSInfo: state, conn: raw}, nil
	}
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (m measuredTLS) Clone() credentials.TransportCredentials {
	return measuredTLS{m.TransportCredentials.Clone()}
}

// rawConn is the connection of an RPC, nil if it is not known.
func rawConn(ctx context.Context) syscall.RawConn {
	caller, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, _ := caller.AuthInfo.(peerInfo)
	conn, ok := info.conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// roundTrip is the least round-trip time that the kernel has lately seen on a connection, 0 if it is not known. The smoothed one would be
// the load of both machines as much as the distance between them.
func roundTrip(conn syscall.RawConn) time.Duration {
	if conn == nil {
		return 0
	}
	var measured time.Duration
	_ = conn.Control(func(fd uintptr) {
		if tcp, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			measured = time.Duration(tcp.Min_rtt) * time.Microsecond
		}
	})
	return measured
}

// A round trip is written when it has changed by a quarter, and by so much that it could matter.
const (
	rttChangeDivisor = 4
	minRTTChange     = 500 * time.Microsecond
)

// rttMoved reports whether a round trip differs enough from the one that is known.
func rttMoved(known, measured time.Duration) bool {
	change := (measured - known).Abs()
	return measured > 0 && (known == 0 || change >= known/rttChangeDivisor && change >= minRTTChange)
}
