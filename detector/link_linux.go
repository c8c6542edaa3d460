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
	turn   atomic.Bool // the server has said something since its time began
	// excuse says why the server has the time for its answer once more, by how late our own alarm was. Empty: it has not.
	excuse func(late time.Duration) string

	mu       sync.Mutex
	err      error
	bell     alarm.Alarm   // nil after Close
	until    time.Time     // the deadline, zero if there is none
	patience time.Duration // how long each further answer may take, 0 if one deadline holds for all
	again    string        // why the time was given once more, empty if it was not
	missed   bool          // it is over, and so the socket lets nobody wait
}

// never is for an alarm that shall not ring.
const never = 365 * 24 * time.Hour

// newLink takes over c. lost is called once, from a goroutine of wg, if the connection ends other than by Close after it
// was proven; before that, whoever is busy with it notices.
func newLink(c net.Conn, alarms alarm.Maker, excuse func(late time.Duration) string, wg *sync.WaitGroup, lost func()) (*link, error) {
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
	l := &link{Conn: c, raw: raw, poller: p, bell: bell, closed: make(chan struct{}), excuse: excuse}
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
	l.patience, l.again = 0, ""
	return l.setDeadline(at)
}

// allow has the server say something before a time, and then answer each question within patience. For each answer it gets
// patience once more if there is an excuse, but only once.
func (l *link) allow(first time.Time, patience time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.patience, l.again = patience, ""
	l.turn.Store(false)
	return l.setDeadline(first)
}

// ask begins the time of another question, if the one before was answered.
func (l *link) ask() {
	if !l.turn.Swap(false) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.patience > 0 {
		l.again = ""
		_ = l.setDeadline(time.Now().Add(l.patience)) // fails only after Close, and so will what follows
	}
}

func (l *link) setDeadline(at time.Time) error {
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

// expire ends the waiting, if the deadline has not been moved on since the alarm rang and nothing excuses that nobody has answered.
func (l *link) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	until := l.until
	if until.IsZero() || time.Now().Before(until) {
		return
	}
	why := ""
	if l.patience > 0 && l.again == "" {
		l.mu.Unlock() // the answer may come meanwhile
		why = l.excuse(time.Since(until))
		l.mu.Lock()
		if l.until != until {
			return
		}
	}
	if why != "" {
		l.again = why
		_ = l.setDeadline(time.Now().Add(l.patience)) // fails only after Close
		return
	}
	l.missed = true
	_ = l.Conn.SetDeadline(time.Unix(1, 0)) // fails only after Close
}

// overrun says how long the deadline has been over, and why the time had been given once more.
func (l *link) overrun() (late time.Duration, again string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.missed {
		late = time.Since(l.until)
	}
	return late, l.again
}

func (l *link) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := l.transfer(unix.SYS_RECVFROM, l.raw.Read, b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		n, err = l.transfer(unix.SYS_RECVFROM, l.once, b) // what came before we noticed is an answer
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	if n > 0 {
		l.heard.Store(true)
		l.turn.Store(true)
	}
	return n, l.note(err)
}

func (l *link) Write(b []byte) (sent int, err error) {
	l.ask()
	for sent < len(b) && err == nil {
		var n int
		n, err = l.transfer(unix.SYS_SENDTO, l.raw.Write, b[sent:])
		sent += n
	}
	return sent, l.note(err)
}

// once tries a single time, be the deadline over or not.
func (l *link) once(try func(fd uintptr) bool) error {
	done := false
	if err := l.raw.Control(func(fd uintptr) { done = try(fd) }); err != nil {
		return err
	}
	if !done {
		return os.ErrDeadlineExceeded
	}
	return nil
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
