package detector

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core/alarm"
)

// link is the socket below the protocol. It remembers the first error, which the driver hides, and watches for the end
// of the connection while nobody reads.
//
// It is made for a probe that costs an idle process one awakening, that by the answer. So reading and writing are raw
// system calls, which never wait here: an ordinary one wakes the Go scheduler's monitor, for longer than the call takes. And
// the deadline is an alarm's: the Go runtime wakes the process for one of its own even after it has been moved on.
type link struct {
	net.Conn
	raw    syscall.RawConn
	poller *poller
	heard  atomic.Bool // the server has sent something
	proven atomic.Bool // the server has answered a probe
	over   atomic.Bool
	closed chan struct{}

	mu     sync.Mutex
	err    error
	bell   alarm.Alarm // nil after Close
	until  time.Time   // the deadline, zero if there is none
	missed bool        // it is over, and so the socket lets nobody wait
}

// never is for an alarm that shall not ring.
const never = 365 * 24 * time.Hour

// newLink takes over c. lost is called once, from a goroutine of wg, if the connection ends other than by Close after it
// was proven; before that, whoever is busy with it notices.
func newLink(c net.Conn, alarms alarm.Maker, wg *sync.WaitGroup, lost func()) (*link, error) {
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
	bell, err := alarms.New()
	if err != nil {
		p.close()
		return nil, fmt.Errorf("detector: make the timer of a connection: %w", err)
	}
	l := &link{Conn: c, raw: raw, poller: p, bell: bell, closed: make(chan struct{})}
	wg.Go(func() { l.watch(lost) })
	wg.Go(func() { l.keepDeadline(bell) })
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
	l.mu.Lock()
	if l.bell != nil {
		l.bell = nil
		close(l.closed)
	}
	l.mu.Unlock()
	return l.Conn.Close()
}

// SetDeadline sets until when reading and writing may wait. The zero time sets no bound.
func (l *link) SetDeadline(at time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bell == nil {
		return net.ErrClosed
	}
	l.until = at
	if l.missed {
		l.missed = false
		if err := l.Conn.SetDeadline(time.Time{}); err != nil {
			return err
		}
	}
	if at.IsZero() {
		l.bell.Reset(never)
	} else {
		l.bell.Reset(time.Until(at))
	}
	return nil
}

// keepDeadline ends the waiting when the deadline is over, until Close.
func (l *link) keepDeadline(bell alarm.Alarm) {
	defer bell.Stop()
	for {
		select {
		case <-bell.C():
			l.expire()
		case <-l.closed:
			return
		}
	}
}

// expire ends the waiting, if the deadline has not been moved on since the alarm rang.
func (l *link) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.until.IsZero() || time.Now().Before(l.until) {
		return
	}
	l.missed = true
	_ = l.Conn.SetDeadline(time.Unix(1, 0)) // fails only after Close
}

func (l *link) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := l.transfer(unix.SYS_RECVFROM, l.raw.Read, b)
	if n == 0 && err == nil {
		err = io.EOF
	}
	if n > 0 {
		l.heard.Store(true)
	}
	return n, l.note(err)
}

func (l *link) Write(b []byte) (sent int, err error) {
	for sent < len(b) && err == nil {
		var n int
		n, err = l.transfer(unix.SYS_SENDTO, l.raw.Write, b[sent:])
		sent += n
	}
	return sent, l.note(err)
}

// transfer makes a system call that sends or receives, as soon as it can be done without waiting.
func (l *link) transfer(call uintptr, whenReady func(func(fd uintptr) bool) error, b []byte) (int, error) {
	var n uintptr
	var errno syscall.Errno
	err := whenReady(func(fd uintptr) bool {
		for {
			n, _, errno = unix.RawSyscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
				unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
			if errno != unix.EINTR {
				return errno != unix.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		name := "recvfrom"
		if call == unix.SYS_SENDTO {
			name = "sendto"
		}
		return 0, os.NewSyscallError(name, errno)
	}
	return int(n), nil
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
