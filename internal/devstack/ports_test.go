package devstack

import (
	"net"
	"strconv"
	"testing"
)

func TestAReservedPortIsItsPartsAlone(t *testing.T) {
	t.Parallel()
	port, held, err := reservePort(0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	target, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	outgoing := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}}
	if conn, err := outgoing.DialContext(t.Context(), "tcp", target.Addr().String()); err == nil {
		t.Errorf("an outgoing connection was given the port: %v", conn.Close())
	}
	for _, address := range []string{"127.0.0.1", "0.0.0.0", ""} {
		part, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if err != nil {
			t.Fatalf("its part cannot listen on %q: %v", address, err)
		}
		if _, other, err := reservePort(port); err == nil {
			t.Errorf("another stack was given a port that is listened on: %v", other.Close())
		}
		if err := part.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
