package fleet

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/muster-gpu/muster/internal/ids"
)

// The echo's bounds. A reply is the datagram itself, sent to where it came from, so that nothing is amplified; a datagram without a
// token is not answered, and a host that has one is answered seldom.
const (
	maxDatagramBytes  = 1400
	echoTokenLifetime = 2 * time.Hour // longer than a stream lives
	echoWindow        = 10 * time.Second
	maxEchoesPerHost  = 20     // in a window
	maxEchoes         = 20_000 // in a window, of all hosts
	echoMACBytes      = 16
	echoExpiryBytes   = 8
	echoTokenBytes    = len(uuid.UUID{}) + echoExpiryBytes + echoMACBytes
)

// echo answers datagrams of hosts, so that they know whether UDP reaches the control plane and comes back. Tokens are made of a key
// that all gateways of one authority share, so that any of them may answer.
type echo struct {
	key  []byte
	now  func() time.Time
	port int

	// Of the present window; used by serve alone.
	windowEnd time.Time
	answered  map[ids.Host]int
	total     int
}

func newEcho(authority *Authority, now func() time.Time) (*echo, error) {
	secret, err := x509.MarshalPKCS8PrivateKey(authority.key)
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "muster agents' datagram echo", sha256.Size)
	return &echo{key: key, now: now, answered: map[ids.Host]int{}}, err
}

// listen takes the UDP port of the same number as the gateway's TCP port, or any if that is taken.
func (e *echo) listen(ctx context.Context, address net.Addr) (net.PacketConn, error) {
	host, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return nil, err
	}
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", net.JoinHostPort(host, port))
	if err != nil {
		if conn, err = (&net.ListenConfig{}).ListenPacket(ctx, "udp", net.JoinHostPort(host, "0")); err != nil {
			return nil, fmt.Errorf("listen for datagrams: %w", err)
		}
	}
	if _, port, err = net.SplitHostPort(conn.LocalAddr().String()); err == nil {
		e.port, err = strconv.Atoi(port)
	}
	return conn, err
}

// serve answers until the connection is closed.
func (e *echo) serve(conn net.PacketConn) error {
	buffer := make([]byte, maxDatagramBytes+1)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			continue // an answer that was not wanted, which the kernel tells here
		}
		if n <= maxDatagramBytes && e.admit(buffer[:n]) {
			_, _ = conn.WriteTo(buffer[:n], from) // lost like any other datagram
		}
	}
}

// admit reports whether a datagram is to be answered.
func (e *echo) admit(datagram []byte) bool {
	now := e.now()
	host, ok := e.verify(datagram, now)
	if !ok {
		return false
	}
	if now.After(e.windowEnd) {
		e.windowEnd, e.total = now.Add(echoWindow), 0
		clear(e.answered)
	}
	if e.total >= maxEchoes || e.answered[host] >= maxEchoesPerHost {
		return false
	}
	e.total++
	e.answered[host]++
	return true
}

// token is what a host's datagrams must begin with: who it is, until when, and a MAC of both.
func (e *echo) token(host ids.Host) []byte {
	token := make([]byte, 0, echoTokenBytes)
	token = append(token, host[:]...)
	token = binary.BigEndian.AppendUint64(token, uint64(e.now().Add(echoTokenLifetime).Unix()))
	return append(token, e.mac(token)...)
}

func (e *echo) verify(datagram []byte, now time.Time) (ids.Host, bool) {
	var host ids.Host
	if len(datagram) < echoTokenBytes {
		return host, false
	}
	signed, mac := datagram[:echoTokenBytes-echoMACBytes], datagram[echoTokenBytes-echoMACBytes:echoTokenBytes]
	copy(host[:], signed)
	expires := int64(binary.BigEndian.Uint64(signed[len(host):]))
	return host, expires >= now.Unix() && hmac.Equal(mac, e.mac(signed))
}

func (e *echo) mac(signed []byte) []byte {
	mac := hmac.New(sha256.New, e.key)
	mac.Write(signed)
	return mac.Sum(nil)[:echoMACBytes]
}
