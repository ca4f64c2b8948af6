package fleet

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/muster-gpu/muster/internal/ids"
)

// tunnelConn is the control plane's end of a tunnel.
//
// Writers hand frames to the goroutine that owns the stream, which blocks while the stream's window is full; a deadline therefore
// interrupts the handing over, never a frame.
type tunnelConn struct {
	host    ids.Host
	metrics *metrics

	inbound       *frameQueue
	outbound      chan []byte // unbuffered
	writeDeadline *deadline
	writeMu       sync.Mutex // keeps one Write's frames together

	closed      chan struct{} // by Close, or when the stream has ended
	closeOnce   sync.Once
	closeErr    error // what writers are told, set before closed is closed
	writeClosed chan struct{}
	halfOnce    sync.Once
}

var _ net.Conn = (*tunnelConn)(nil)

func newTunnelConn(host ids.Host, metrics *metrics) *tunnelConn {
	return &tunnelConn{
		host: host, metrics: metrics, inbound: newFrameQueue(), outbound: make(chan []byte), writeDeadline: newDeadline(),
		closed: make(chan struct{}), writeClosed: make(chan struct{}),
	}
}

// Read implements net.Conn.
func (c *tunnelConn) Read(p []byte) (int, error) {
	n, err := c.inbound.read(p)
	c.metrics.tunnelBytes.WithLabelValues("from_host").Add(float64(n))
	return n, err
}

// Write implements net.Conn. It returns once the stream has taken the bytes or is about to.
func (c *tunnelConn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	written := 0
	for written < len(p) {
		frame := append([]byte(nil), p[written:min(written+maxFrameBytes, len(p))]...)
		if err := c.writable(); err != nil {
			return written, err
		}
		select {
		case c.outbound <- frame:
			written += len(frame)
		case <-c.closed:
			return written, c.closeErr
		case <-c.writeClosed:
			return written, io.ErrClosedPipe
		case <-c.writeDeadline.passed():
			return written, os.ErrDeadlineExceeded
		}
	}
	return written, nil
}

// writable refuses what select might let through, as it chooses freely among what is ready.
func (c *tunnelConn) writable() error {
	select {
	case <-c.closed:
		return c.closeErr
	default:
	}
	select {
	case <-c.writeClosed:
		return io.ErrClosedPipe
	case <-c.writeDeadline.passed():
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

// CloseWrite tells the other end that nothing more will be written.
func (c *tunnelConn) CloseWrite() error {
	c.writeMu.Lock() // after the frames of a Write in progress
	defer c.writeMu.Unlock()
	c.halfOnce.Do(func() { close(c.writeClosed) })
	return nil
}

// Close implements net.Conn.
func (c *tunnelConn) Close() error {
	c.inbound.abandon() // first, so that a reader hears of this and not of the stream's end, which follows
	c.shut(net.ErrClosed)
	return nil
}

// shut ends writing. What has been received can still be read.
func (c *tunnelConn) shut(err error) {
	c.closeOnce.Do(func() {
		c.closeErr = err
		close(c.closed)
	})
}

// LocalAddr implements net.Conn.
func (c *tunnelConn) LocalAddr() net.Addr { return tunnelAddr("gateway") }

// RemoteAddr implements net.Conn.
func (c *tunnelConn) RemoteAddr() net.Addr { return tunnelAddr(c.host.String()) }

// SetDeadline implements net.Conn.
func (c *tunnelConn) SetDeadline(t time.Time) error {
	c.inbound.deadline.set(t)
	c.writeDeadline.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *tunnelConn) SetReadDeadline(t time.Time) error {
	c.inbound.deadline.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *tunnelConn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline.set(t)
	return nil
}

type tunnelAddr string

func (tunnelAddr) Network() string  { return "tunnel" }
func (a tunnelAddr) String() string { return string(a) }

// frameQueue hands received frames to a reader, one at a time.
type frameQueue struct {
	frames   chan []byte // unbuffered
	deadline *deadline

	readMu sync.Mutex
	rest   []byte // of the frame being read

	ended     chan struct{} // no more frames come
	endOnce   sync.Once
	endErr    error // set before ended is closed
	abandoned chan struct{}
	dropOnce  sync.Once
}

func newFrameQueue() *frameQueue {
	return &frameQueue{
		frames: make(chan []byte), deadline: newDeadline(), ended: make(chan struct{}), abandoned: make(chan struct{}),
	}
}

// put waits until a reader takes the frame; false if none ever will.
func (q *frameQueue) put(frame []byte) bool {
	select {
	case q.frames <- frame:
		return true
	case <-q.abandoned:
		return false
	}
}

// finish says that no frame follows those that were put, and why.
func (q *frameQueue) finish(err error) {
	q.endOnce.Do(func() {
		q.endErr = err
		close(q.ended)
	})
}

func (q *frameQueue) abandon() { q.dropOnce.Do(func() { close(q.abandoned) }) }

func (q *frameQueue) read(p []byte) (int, error) {
	q.readMu.Lock()
	defer q.readMu.Unlock()
	if err := q.readable(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(q.rest) == 0 {
		select {
		case q.rest = <-q.frames:
		case <-q.abandoned:
			return 0, net.ErrClosed
		case <-q.deadline.passed():
			return 0, os.ErrDeadlineExceeded
		case <-q.ended:
			if err := q.readable(); err != nil {
				return 0, err
			}
			return 0, q.endErr
		}
	}
	n := copy(p, q.rest)
	q.rest = q.rest[n:]
	return n, nil
}

func (q *frameQueue) readable() error {
	select {
	case <-q.abandoned:
		return net.ErrClosed
	case <-q.deadline.passed():
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

// deadline is a point in time that can be moved while someone waits for it.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	over  chan struct{} // closed once the time has come; replaced when the deadline moves on
}

func newDeadline() *deadline { return &deadline{over: make(chan struct{})} }

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}

// set moves the deadline. Those who wait for a deadline in the future that is moved wait for the new one only from their next call,
// unless it comes earlier.
func (d *deadline) set(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.over // its function is running or has run: let it finish
	}
	d.timer = nil
	isOver := isClosed(d.over)
	if at.IsZero() {
		if isOver {
			d.over = make(chan struct{})
		}
		return
	}
	if wait := time.Until(at); wait > 0 {
		if isOver {
			d.over = make(chan struct{})
		}
		over := d.over
		d.timer = time.AfterFunc(wait, func() { close(over) })
		return
	}
	if !isOver {
		close(d.over)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
