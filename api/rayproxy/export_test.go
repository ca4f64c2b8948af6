package rayproxy

import "time"

// Hasten shortens a proxy's bounds for tests.
func (p *Proxy) Hasten(stall, halfOpen, recheck time.Duration) {
	p.timing = timing{stall: stall, halfOpen: halfOpen, recheck: recheck}
}

// CloseIdle closes the connections to Ray that wait for a next request.
func (p *Proxy) CloseIdle() { p.transport.CloseIdleConnections() }

// What tests need to know.
const (
	MaxInFlight     = maxInFlight
	MaxUpload       = maxUpload
	SessionCookie   = sessionCookie
	SessionLifetime = sessionLifetime
	TicketLifetime  = ticketLifetime
)

// Tail keeps the end of an answer with logs, as JobLogs does.
func Tail(limit int, chunks ...[]byte) (document []byte, cut bool) {
	end := &tail{limit: limit}
	for _, chunk := range chunks {
		_, _ = end.Write(chunk)
	}
	return end.document(), end.cut
}
