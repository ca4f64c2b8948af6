// Package paced reads many quiet connections with few awakenings.
//
// A process that waits is woken for every message that comes to any of its connections: what the kernel, the runtime's poller and its
// sleeping threads do then costs several times what a short message itself does. Messages that may wait a moment need not come alone. A Conn is
// a TCP connection as any other until Pace gives it to a Poller, which looks every so often which of its connections have something
// to read, and wakes the readers of all of these together.
//
// # Invariants
//
// A reader is told of whatever comes after it has read all that there was: the kernel reports an edge, which is kept until the reader
// takes it. Nothing waits for longer than the Poller's interval. Close, deadlines and errors act at once, as on other connections. Bytes keep
// their order, across the call of Pace too.
//
// # Locking
//
// A Conn's lock is held for reading during each system call on its descriptor, none of which blocks, and for writing while the
// descriptor comes or goes, so that no call meets a descriptor that has become another's. A Poller's mutex is taken inside of it, never the other way round.
package paced

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	closed        = -1 // instead of a descriptor
	eventsPerLook = 512
	edges         = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET
	over          = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
)

var errNotRunning = errors.New("the poller does not run")

// Poller looks after paced connections. Make it with New; they are read while Run runs. It is safe for concurrent use.
type Poller struct {
	interval time.Duration
	first    chan struct{} // capacity 1: there are connections

	mu    sync.Mutex
	epoll int              // closed unless Run runs
	conns map[uint64]*Conn // by what names them to the kernel, which is never used again: a descriptor is, while events of it are on their way
	named uint64
}

// New makes a Poller that looks once an interval.
func New(interval time.Duration) *Poller {
	return &Poller{interval: interval, first: make(chan struct{}, 1), epoll: closed, conns: map[uint64]*Conn{}}
}

// Run looks until ctx ends. Connections that are still paced then are told of nothing any more but their being closed.
func (p *Poller) Run(ctx context.Context) error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	p.open(epoll)
	defer p.close()
	ticker := time.NewTicker(p.interval)
	defer ticker.Stop()
	events := make([]unix.EpollEvent, eventsPerLook)
	for {
		wake := ticker.C
		if p.empty() {
			wake = nil // nothing to look after: sleep
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.first:
		case <-wake:
			if err := p.look(epoll, events); err != nil {
				return err
			}
		}
	}
}

// look wakes everybody who has something to read, or may write again.
func (p *Poller) look(epoll int, events []unix.EpollEvent) error {
	for n := len(events); n == len(events); {
		var err error
		n, err = unix.EpollWait(epoll, events, 0)
		if errors.Is(err, unix.EINTR) {
			return nil // the next look finds it
		}
		if err != nil {
			return os.NewSyscallError("epoll_wait", err)
		}
		p.mu.Lock()
		for _, event := range events[:n] {
			if c := p.conns[uint64(uint32(event.Pad))<<32|uint64(uint32(event.Fd))]; c != nil {
				c.notice(event.Events)
			}
		}
		p.mu.Unlock()
	}
	return nil
}

func (p *Poller) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) == 0
}

// add begins to look after a connection with a descriptor of its own, under the name that it returns.
func (p *Poller) add(c *Conn, fd int) (name uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoll == closed {
		return 0, errNotRunning
	}
	p.named++
	name = p.named
	event := unix.EpollEvent{Events: edges, Fd: int32(uint32(name)), Pad: int32(uint32(name >> 32))}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return 0, os.NewSyscallError("epoll_ctl", err)
	}
	p.conns[name] = c
	select {
	case p.first <- struct{}{}:
	default:
	}
	return name, nil
}

// remove comes before the descriptor is closed or given to another poller.
func (p *Poller) remove(name uint64, fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, name)
	if p.epoll != closed {
		_ = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	}
}

func (p *Poller) open(epoll int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.epoll = epoll
}

func (p *Poller) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = unix.Close(p.epoll)
	p.epoll = closed
}

// Listener accepts connections that may be paced.
type Listener struct{ *net.TCPListener }

// Listen listens on a TCP address: HOST:PORT.
func Listen(ctx context.Context, address string) (Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return Listener{}, err
	}
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		return Listener{}, errors.Join(fmt.Errorf("%T is not TCP's", listener), listener.Close())
	}
	return Listener{tcp}, nil
}

// Accept implements net.Listener. What it returns is a *Conn.
func (l Listener) Accept() (net.Conn, error) {
	tcp, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return wrap(tcp), nil
}
