package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/muster-gpu/muster/internal/agentpb"
)

const (
	// datagramBytes is as much as an overlay puts into one datagram.
	datagramBytes   = 1280
	datagramTries   = 5
	datagramWait    = 500 * time.Millisecond
	datagramPeriod  = 5 * time.Minute
	datagramRetry   = time.Minute // after a failure
	datagramTimeout = datagramTries * datagramWait
)

// echo finds out whether datagrams to the control plane come back, again and again.
type echo struct {
	address string // "" if the control plane has no echo
	token   []byte
	changed chan struct{}        // capacity 1
	came    atomic.Pointer[bool] // nil before the first try
}

func newEcho(server string, welcome *agentpb.Welcome) *echo {
	e := &echo{token: welcome.GetUdpToken(), changed: make(chan struct{}, 1)}
	host, _, err := net.SplitHostPort(server)
	if port := welcome.GetUdpPort(); err == nil && port > 0 && len(e.token) > 0 && len(e.token) < datagramBytes {
		e.address = net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	return e
}

// result is nil until it is known.
func (e *echo) result() *bool { return e.came.Load() }

func (e *echo) run(ctx context.Context) {
	for e.address != "" {
		came := e.try(ctx)
		if ctx.Err() != nil {
			return
		}
		if before := e.came.Swap(&came); before == nil || *before != came {
			signal(e.changed)
		}
		period := datagramPeriod
		if !came {
			period = datagramRetry
		}
		if wait(ctx, period) != nil {
			return
		}
	}
}

// try sends some datagrams and reports whether any came back as it was.
func (e *echo) try(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, datagramTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", e.address)
	if err != nil {
		return false
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	datagram := make([]byte, datagramBytes)
	copy(datagram[copy(datagram, e.token):], rand.Text())
	for ctx.Err() == nil {
		start := time.Now()
		if _, err := conn.Write(datagram); err == nil && awaitEcho(conn, datagram, start.Add(datagramWait)) {
			return true
		}
		if wait(ctx, time.Until(start.Add(datagramWait))) != nil {
			return false
		}
	}
	return false
}

// awaitEcho reads until the datagram comes back or the time is over; what else comes is not looked at.
func awaitEcho(conn net.Conn, datagram []byte, until time.Time) bool {
	if conn.SetReadDeadline(until) != nil {
		return false
	}
	answer := make([]byte, datagramBytes+1)
	for {
		n, err := conn.Read(answer)
		if err != nil {
			return false
		}
		if bytes.Equal(answer[:n], datagram) {
			return true
		}
	}
}
