package paced

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a TCP connection of which one goroutine at a time may read and one may write.
type Conn struct {
	tcp  *net.TCPConn           // closed once the connection is paced, and in use until then
	want atomic.Pointer[Poller] // that Pace was last called with, nil before
	done chan struct{}          // closed by Close
	once sync.Once

	readable, writable *edge
	over               atomic.Bool // the peer says no more, or the connection has broken
	drained            bool        // all that has been noticed was read; the reader's alone

	mu     sync.RWMutex
	fd     int     // closed unless the connection is paced
	poller *Poller // that looks after it
	name   uint64  // that it has there
}

// edge is a change that the poller saw and nobody has taken yet, and how long its side waits for one. Who waits receives from one channel
// alone, on which the connection's end and a deadline come too: a select costs several times that for a goroutine that has slept for long.
type edge struct {
	seen chan struct{} // capacity 1

	mu       sync.Mutex
	deadline time.Time
	alarm    *time.Timer // at the deadline; nil without one
}

func newEdge() *edge { return &edge{seen: make(chan struct{}, 1)} }

func wrap(tcp *net.TCPConn) *Conn {
	return &Conn{tcp: tcp, done: make(chan struct{}), readable: newEdge(), writable: newEdge(), fd: closed}
}

// Pace has a poller say when there is something to read: from the next Read on, or from now on if another one did.
func (c *Conn) Pace(p *Poller) {
	c.want.Store(p)
	c.mu.RLock()
	moves := c.fd != closed && c.poller != p
	c.mu.RUnlock()
	if !moves {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd == closed || c.poller == p {
		return
	}
	old, name := c.poller, c.name
	if err := c.join(p, c.fd); err == nil {
		old.remove(name, c.fd)
	}
}

// join has a poller look after a descriptor: what is there already is an edge to it. c.mu is held.
func (c *Conn) join(p *Poller, fd int) (err error) {
	if c.name, err = p.add(c, fd); err == nil {
		c.poller = p
	}
	return err
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if !c.paced() {
		return c.tcp.Read(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if c.drained && !c.over.Load() {
			if err := c.wait(c.readable); err != nil {
				return 0, c.failed("read", err)
			}
		}
		n, err := c.call(syscall.Read, p)
		switch {
		case errors.Is(err, unix.EAGAIN):
			if c.over.Load() { // broken, and somebody else was told why
				return 0, io.EOF
			}
			c.drained = true
		case err != nil:
			return 0, c.failed("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			c.drained = n < len(p)
			return n, nil
		}
	}
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (written int, err error) {
	c.mu.RLock()
	if c.fd == closed {
		defer c.mu.RUnlock()
		return c.tcp.Write(p)
	}
	c.mu.RUnlock()
	for written < len(p) {
		n, err := c.call(syscall.Write, p[written:])
		if errors.Is(err, unix.EAGAIN) {
			err = c.wait(c.writable)
		}
		if err != nil {
			return written, c.failed("write", err)
		}
		written += max(n, 0)
	}
	return written, nil
}

// call makes a system call that does not block.
func (c *Conn) call(do func(fd int, p []byte) (int, error), p []byte) (n int, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for {
		if c.fd == closed {
			return 0, net.ErrClosed
		}
		if n, err = do(c.fd, p); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// paced reports whether the connection has a descriptor of its own, which it is given here.
func (c *Conn) paced() bool {
	if c.want.Load() == nil {
		return false
	}
	c.mu.RLock()
	fd := c.fd
	c.mu.RUnlock()
	return fd != closed || c.ended() || c.move()
}

func (c *Conn) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// move takes the connection from the runtime's poller, which would go on waking the process for it, by a descriptor of its own. It is tried
// again at the next Read while a writer is at work, the poller does not run or there is no descriptor to spare.
func (c *Conn) move() bool {
	if !c.mu.TryLock() {
		return false
	}
	defer c.mu.Unlock()
	if c.ended() {
		return true
	}
	fd, err := duplicate(c.tcp)
	if err != nil {
		return false
	}
	if err := c.join(c.want.Load(), fd); err != nil {
		_ = unix.Close(fd)
		return false
	}
	c.fd, c.drained = fd, true
	_ = c.tcp.Close() // the connection lives on in fd
	return true
}

func duplicate(tcp *net.TCPConn) (fd int, err error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return closed, err
	}
	failed := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(failed, err)
}

// notice keeps what the poller saw. The poller's mutex is held.
func (c *Conn) notice(events uint32) {
	if events&over != 0 {
		c.over.Store(true)
	}
	if events&(unix.EPOLLIN|over) != 0 {
		c.readable.note()
	}
	if events&(unix.EPOLLOUT|over) != 0 {
		c.writable.note()
	}
}

func (e *edge) note() {
	select {
	case e.seen <- struct{}{}:
	default:
	}
}

// wait returns when an edge may have been seen, or with an error at its deadline or the connection's end.
func (c *Conn) wait(e *edge) error {
	if err := c.late(e); err != nil {
		return err
	}
	<-e.seen
	return c.late(e)
}

func (c *Conn) late(e *edge) error {
	if c.ended() {
		return net.ErrClosed
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.deadline.IsZero() && !time.Now().Before(e.deadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (e *edge) setDeadline(t time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deadline = t
	if e.alarm != nil {
		e.alarm.Stop()
		e.alarm = nil
	}
	if !t.IsZero() {
		e.alarm = time.AfterFunc(time.Until(t), e.note)
	}
}

func (c *Conn) failed(operation string, err error) error {
	return &net.OpError{Op: operation, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		close(c.done)
		for _, e := range []*edge{c.readable, c.writable} {
			e.setDeadline(time.Time{})
			e.note()
		}
		err = c.tcp.Close() // a Write in progress ends, and gives the lock back
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.fd == closed {
			return
		}
		c.poller.remove(c.name, c.fd)
		err = unix.Close(c.fd)
		c.fd = closed
	})
	return err
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.tcp.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.tcp.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(c.readable, t, c.tcp.SetReadDeadline)
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(c.writable, t, c.tcp.SetWriteDeadline)
}

// setDeadline sets both: the runtime's, which counts until the connection is paced, and the edge's, which counts from then on.
func (c *Conn) setDeadline(e *edge, t time.Time, runtime func(time.Time) error) error {
	if c.ended() {
		return net.ErrClosed
	}
	e.setDeadline(t)
	if err := runtime(t); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Control calls a function with the connection's descriptor, which is valid while it runs.
func (c *Conn) Control(f func(fd uintptr)) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.fd != closed {
		f(uintptr(c.fd))
		return nil
	}
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(f)
}
