package detector

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// link is the socket below the protocol. It remembers the first error, which the driver hides, and watches for the end
// of the connection while nobody reads.
type link struct {
	net.Conn
	raw    syscall.RawConn
	poller *poller
	heard  atomic.Bool // the server has sent something
	proven atomic.Bool // the server has answered a probe
	over   atomic.Bool

	mu  sync.Mutex
	err error
}

// newLink takes over c. lost is called once, from a goroutine of wg, if the connection ends other than by Close after it
// was proven; before that, whoever is busy with it notices.
func newLink(c net.Conn, wg *sync.WaitGroup, lost func()) (*link, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("detector: a connection of type %T has no file descriptor", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("detector: file descriptor of the connection: %w", err)
	}
	p, err := newPoller()
	if err != nil {
		return nil, fmt.Errorf("detector: watch of the connection: %w", err)
	}
	// Only the end of the connection is waited for. The kernel filters by that, so data wakes nobody.
	if cerr := raw.Control(func(fd uintptr) { err = p.add(int(fd), unix.EPOLLRDHUP) }); cerr != nil || err != nil {
		p.close()
		return nil, fmt.Errorf("detector: watch of the connection: %w", errors.Join(cerr, err))
	}
	l := &link{Conn: c, raw: raw, poller: p}
	wg.Go(func() { l.watch(lost) })
	return l, nil
}

// watch waits until the peer has closed or reset the connection, or Close is called.
func (l *link) watch(lost func()) {
	if _, err := l.poller.wait(0); err != nil {
		return
	}
	l.over.Store(true)
	if l.proven.Load() {
		lost()
	}
}

// Close ends the connection and the watch. It may be called more than once and at any time.
func (l *link) Close() error {
	l.over.Store(true)
	l.poller.close()
	return l.Conn.Close()
}

func (l *link) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.heard.Store(true)
	}
	return n, l.note(err)
}

func (l *link) Write(b []byte) (int, error) {
	n, err := l.Conn.Write(b)
	return n, l.note(err)
}

func (l *link) note(err error) error {
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.err == nil {
			l.err = err
		}
	}
	return err
}

// failure returns the first error of the socket.
func (l *link) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil && l.over.Load() {
		return io.EOF
	}
	return l.err
}

// greeted reports whether the server has spoken.
func (l *link) greeted() bool { return l.heard.Load() }

// ended reports whether the connection is over, by either side.
func (l *link) ended() bool { return l.over.Load() }

// endpoint is what the kernel knows of the other end: the process behind a unix socket, the address of a TCP one.
type endpoint struct {
	pid    int
	server netip.AddrPort
}

func (l *link) peer() endpoint {
	if a, ok := l.RemoteAddr().(*net.TCPAddr); ok {
		p := a.AddrPort()
		return endpoint{server: netip.AddrPortFrom(p.Addr().Unmap(), p.Port())}
	}
	return endpoint{pid: peerPID(l.raw)}
}

// peerPID returns the process that listens at the other end of a unix socket (SO_PEERCRED, unix(7)): 0 if it is in another
// process namespace.
func peerPID(raw syscall.RawConn) (pid int) {
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}
