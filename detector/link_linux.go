package detector

import (
	"encoding/binary"
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
	raw   syscall.RawConn
	heard atomic.Bool // the server has sent something
	over  atomic.Bool
	once  sync.Once

	mu       sync.Mutex
	err      error
	stop     int // eventfd that ends the watch
	watching bool
}

// newLink takes over c. lost is called once, from a goroutine of wg, if the connection ends other than by Close.
func newLink(c net.Conn, wg *sync.WaitGroup, lost func()) (*link, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("detector: a connection of type %T has no file descriptor", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("detector: file descriptor of the connection: %w", err)
	}
	l := &link{Conn: c, raw: raw}
	// A descriptor of its own stays valid for poll when the driver closes the connection.
	fd := -1
	if cerr := raw.Control(func(f uintptr) { fd, err = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil || err != nil {
		return nil, fmt.Errorf("detector: duplicate the connection's descriptor: %w", errors.Join(cerr, err))
	}
	if l.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("detector: eventfd: %w", err)
	}
	l.watching = true
	wg.Go(func() { l.watch(fd, lost) })
	return l, nil
}

// watch sleeps in poll until the peer has closed or reset the connection. Data does not wake it: the kernel filters by
// the events asked for.
func (l *link) watch(fd int, lost func()) {
	defer l.unwatch()
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}, {Fd: int32(l.stop), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		if fds[0].Revents != 0 {
			l.over.Store(true)
			lost()
			return
		}
	}
}

func (l *link) unwatch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watching = false
	unix.Close(l.stop)
}

// Close ends the connection and the watch. It may be called more than once and at any time.
func (l *link) Close() error {
	var err error
	l.once.Do(func() {
		l.over.Store(true)
		l.mu.Lock()
		if l.watching {
			wake(l.stop)
		}
		l.mu.Unlock()
		err = l.Conn.Close()
	})
	return err
}

// wake makes an eventfd readable. It cannot fail: the counter is far from its limit.
func wake(eventfd int) {
	one := binary.NativeEndian.AppendUint64(nil, 1)
	unix.Write(eventfd, one)
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
