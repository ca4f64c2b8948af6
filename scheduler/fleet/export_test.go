package fleet

import (
	"crypto/x509"
	"net"
	"time"

	"github.com/muster-gpu/muster/internal/agentpb"
	"github.com/muster-gpu/muster/internal/ids"
)

// IssueHost lets tests make certificates that the gateway must not honour although its own authority signed them.
func IssueHost(a *Authority, host ids.Host, request *x509.CertificateRequest, now time.Time) (*x509.Certificate, error) {
	return a.issueHost(host, request, now)
}

// HasRule reports whether the authorizer's table names a method.
func HasRule(method string) bool {
	_, known := rules[method]
	return known
}

// RuleCount is how many methods the table names.
func RuleCount() int { return len(rules) }

// Advance is the decision on one node of a report.
func Advance(state string, wantsStop bool, status *agentpb.NodeStatus) ([]string, string) {
	return advance(state, wantsStop, status)
}

// Verdict is what the gates say of a GPU host: the state of each, the first that closes the host, and why it is quarantined.
type Verdict struct {
	States     map[string]string
	Failing    string
	Quarantine string
}

// Judge passes the gates' verdict on a host of a kind.
func Judge(kind string, inventory *agentpb.Inventory, health *agentpb.Health, received time.Time, roundTrip time.Duration) Verdict {
	gates, quarantine := judge(factsOf(kind, inventory), health, received, roundTrip)
	v := Verdict{States: map[string]string{}, Failing: firstFailing(gates), Quarantine: quarantine}
	for _, gate := range gates {
		v.States[gate.name] = gate.state
	}
	return v
}

// Reliability is the score of a history.
func Reliability(observed, online time.Duration, failed int64) int {
	return reliability(observed, online, failed)
}

// Tier is the tier that a history has earned.
func Tier(observed, online time.Duration, delivered int64) int {
	return tier(observed, online, delivered)
}

// IsHeartbeat reports whether a message's bytes are those of a heartbeat.
func IsHeartbeat(message []byte) bool { return isHeartbeat(message) }

// RTTMoved reports whether a round trip is worth writing.
func RTTMoved(known, measured time.Duration) bool { return rttMoved(known, measured) }

// NewTunnelEnd is the control plane's end of a tunnel, and what the end of the tunnel's stream does to it.
func NewTunnelEnd(host ids.Host) (conn net.Conn, streamEnded func(error)) {
	c := newTunnelConn(host, newMetrics(nil))
	return c, c.inbound.finish
}

// Beat is a host's newest sign of life.
type Beat struct {
	Stream     int64
	At         time.Time
	Generation int64
	Confirms   bool
}

func (b Beat) inner() beat {
	return beat{stream: b.Stream, at: b.At, generation: b.Generation, confirms: b.Confirms}
}

// Pending is what a gateway has collected and not written yet.
type Pending struct{ pending *pending }

// NewPending makes one that is empty.
func NewPending() Pending { return Pending{newPending()} }

// Beat collects a sign of life.
func (p Pending) Beat(host ids.Host, b Beat) { p.pending.beat(host, b.inner()) }

// Take is the beginning of a flush.
func (p Pending) Take() map[ids.Host]Beat {
	beats, _ := p.pending.take()
	taken := make(map[ids.Host]Beat, len(beats))
	for host, b := range beats {
		taken[host] = Beat{Stream: b.stream, At: b.at, Generation: b.generation, Confirms: b.confirms}
	}
	return taken
}

// PutBack is the end of a flush that failed.
func (p Pending) PutBack(taken map[ids.Host]Beat) {
	beats := make(map[ids.Host]beat, len(taken))
	for host, b := range taken {
		beats[host] = b.inner()
	}
	p.pending.putBackBeats(beats)
}

// Indexed is a pool whose batches find their rows by index.
type Indexed = indexed

// Lookout remembers when sessions, which go by numbers here, are to be looked at.
type Lookout struct {
	lookout  *lookout
	sessions map[int64]*session
}

// NewLookout makes one that expects nothing.
func NewLookout(now time.Time) Lookout { return Lookout{newLookout(now), map[int64]*session{}} }

// Expect has a session looked at once a time has passed.
func (l Lookout) Expect(number int64, at time.Time) {
	if l.sessions[number] == nil {
		l.sessions[number] = &session{stream: number}
	}
	l.lookout.expect(l.sessions[number], at)
}

// Take returns the sessions whose time has passed.
func (l Lookout) Take(now time.Time) []int64 {
	var passed []int64
	for _, s := range l.lookout.take(now) {
		passed = append(passed, s.stream)
	}
	return passed
}

// Echo decides on datagrams as the gateway's echo does.
type Echo struct{ echo *echo }

// NewEcho makes an echo of an authority.
func NewEcho(a *Authority, now func() time.Time) (Echo, error) {
	e, err := newEcho(a, now)
	return Echo{e}, err
}

// Token is a host's.
func (e Echo) Token(host ids.Host) []byte { return e.echo.token(host) }

// Admit reports whether a datagram is answered.
func (e Echo) Admit(datagram []byte) bool { return e.echo.admit(datagram) }
