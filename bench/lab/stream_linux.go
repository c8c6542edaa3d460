package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// StreamOptions describes a client stream.
type StreamOptions struct {
	// Target is where the client connects to; the zero value is the first VIP at the servers' port.
	Target netip.AddrPort
	// Interval is the time between the beginnings of two attempts; zero means 2 ms.
	Interval time.Duration
	// Timeout is how long an attempt may take; zero means 1 s.
	Timeout time.Duration
}

// Stream is a client that opens a new connection at a fixed rate, however many are still waiting, reads the server's
// greeting and closes. One thread does it all with non-blocking sockets, so that a thousand attempts that wait cost
// nothing.
type Stream struct {
	opts     StreamOptions
	ns       *Namespace
	identify func(version string) string
	family   int
	target   unix.Sockaddr

	epoll, timer int
	cancel       context.CancelFunc
	done         chan struct{}
	flying       map[int]*flight
	queue        []*flight // in the order of their starts, for the time limit

	mu       sync.Mutex
	attempts []Attempt
	pending  map[*flight]struct{}
	late     int
	err      error
}

// flight is an attempt on its way.
type flight struct {
	fd    int // -1 when it is over
	start time.Time
	buf   []byte
}

// newStream starts a stream from inside ns. identify turns the version of a greeting into the name of a node.
func newStream(ns *Namespace, opts StreamOptions, identify func(string) string) (*Stream, error) {
	s := &Stream{opts: opts, ns: ns, identify: identify, done: make(chan struct{}), flying: map[int]*flight{},
		pending: map[*flight]struct{}{}}
	s.family, s.target = sockaddr(opts.Target)
	var err error
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("client stream: make an epoll: %w", err)
	}
	if s.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		unix.Close(s.epoll)
		return nil, fmt.Errorf("client stream: make a timer: %w", err)
	}
	every := unix.NsecToTimespec(opts.Interval.Nanoseconds())
	err = errors.Join(
		unix.TimerfdSettime(s.timer, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil),
		s.watch(unix.EPOLL_CTL_ADD, s.timer, unix.EPOLLIN))
	if err != nil {
		s.closeFDs()
		return nil, fmt.Errorf("client stream: start the timer: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go s.run(ctx)
	return s, nil
}

// sockaddr returns an address and port as system calls want them, and the family.
func sockaddr(at netip.AddrPort) (family int, to unix.Sockaddr) {
	if at.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
}

func (s *Stream) run(ctx context.Context) {
	defer close(s.done)
	defer s.closeFDs()
	err := s.ns.Do(func() error {
		runtime.LockOSThread() // once more, so that the raised priority ends with the thread
		raisePriority()
		return s.loop(ctx)
	})
	if err != nil {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}
}

// loop is the event loop; the timer wakes it at least once per interval.
func (s *Stream) loop(ctx context.Context) error {
	events := make([]unix.EpollEvent, 128)
	for ctx.Err() == nil {
		n, err := unix.EpollWait(s.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("client stream: wait for events: %w", err)
		}
		now := time.Now()
		due := false
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == s.timer {
				due = true
			} else if f := s.flying[int(e.Fd)]; f != nil {
				s.advance(f, e.Events, now)
			}
		}
		if due {
			s.tick()
		}
		s.expire(now)
	}
	for _, f := range s.flying {
		unix.Close(f.fd)
	}
	return nil
}

// tick starts one attempt. Ticks that were missed are counted and not made up for: a burst would measure itself.
func (s *Stream) tick() {
	var count [8]byte
	if n, err := unix.Read(s.timer, count[:]); err != nil || n != len(count) {
		return
	}
	if missed := int(count[0]) | int(count[1])<<8; missed > 1 {
		s.mu.Lock()
		s.late += missed - 1
		s.mu.Unlock()
	}
	s.launch(time.Now())
}

func (s *Stream) launch(now time.Time) {
	f := &flight{fd: -1, start: now}
	fd, err := unix.Socket(s.family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s.finish(f, resultOf(err), "", now)
		return
	}
	f.fd = fd
	// Closing resets the connection, so that no port of the client stays in TIME_WAIT.
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err := unix.Connect(fd, s.target); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		s.finish(f, resultOf(err), "", time.Now())
		return
	}
	// One registration serves both: EPOLLIN comes with the greeting, EPOLLERR with a failure to connect.
	if err := s.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN); err != nil {
		s.finish(f, Unreachable, "", time.Now())
		return
	}
	s.flying[fd] = f
	s.queue = append(s.queue, f)
	s.mu.Lock()
	s.pending[f] = struct{}{}
	s.mu.Unlock()
}

// advance reads what has come. EPOLLHUP and EPOLLERR show up as a failing read.
func (s *Stream) advance(f *flight, events uint32, now time.Time) {
	var buf [256]byte
	n, err := unix.Read(f.fd, buf[:])
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return
	case err != nil:
		s.finish(f, resultOf(err), "", now)
		return
	case n == 0:
		s.finish(f, Reset, "", now)
		return
	}
	f.buf = append(f.buf, buf[:n]...)
	version, err := greetingVersion(f.buf)
	var refused *ServerError
	switch {
	case err == nil:
		s.finish(f, Answered, s.identify(version), now)
	case errors.As(err, &refused):
		s.finish(f, Rejected, "", now)
	case !errors.Is(err, errGreetingShort):
		s.finish(f, Rejected, "", now)
	}
}

// resultOf classifies the error of a socket. A reset in answer to a SYN reads ECONNREFUSED, a later one ECONNRESET.
func resultOf(err error) Result {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return Refused
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return Reset
	case errors.Is(err, unix.ETIMEDOUT):
		return TimedOut
	default:
		return Unreachable
	}
}

// expire ends the attempts whose time is over.
func (s *Stream) expire(now time.Time) {
	for len(s.queue) > 0 {
		f := s.queue[0]
		if f.fd >= 0 && now.Sub(f.start) < s.opts.Timeout {
			return
		}
		if f.fd >= 0 {
			s.finish(f, TimedOut, "", now)
		}
		s.queue[0] = nil
		s.queue = s.queue[1:]
	}
}

func (s *Stream) finish(f *flight, r Result, server string, now time.Time) {
	if f.fd >= 0 {
		delete(s.flying, f.fd)
		unix.Close(f.fd)
		f.fd = -1
	}
	f.buf = nil
	s.mu.Lock()
	delete(s.pending, f)
	s.attempts = append(s.attempts, Attempt{Start: f.start, End: now, Result: r, Server: server})
	s.mu.Unlock()
}

func (s *Stream) watch(op, fd int, events uint32) error {
	return unix.EpollCtl(s.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

func (s *Stream) closeFDs() {
	unix.Close(s.timer)
	unix.Close(s.epoll)
}

// Stop ends the stream; attempts on their way stay pending.
func (s *Stream) Stop() {
	s.cancel()
	<-s.done
}

// Attempts returns the attempts that began or ended at or after from, those that are still pending last.
func (s *Stream) Attempts(from time.Time) []Attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	// They are in the order of their ends, but for a loop's turn in which a new one failed at once.
	first := len(s.attempts)
	for first > 0 && s.attempts[first-1].End.After(from.Add(-time.Second)) {
		first--
	}
	var out []Attempt
	for _, a := range s.attempts[first:] {
		if !a.End.Before(from) {
			out = append(out, a)
		}
	}
	now := time.Now()
	for f := range s.pending {
		out = append(out, Attempt{Start: f.start, End: now})
	}
	return out
}

// Late returns how many attempts were not started because the stream's thread was not run in time, and what ended the
// stream early, if something did. Figures of a stream that was often late say little.
func (s *Stream) Late() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late, s.err
}

// Stats sums up the stretch from one moment to another, or to now if the second is zero.
func (s *Stream) Stats(from, to time.Time) Stats {
	if to.IsZero() {
		to = time.Now()
	}
	return Summarize(s.Attempts(from), from, to)
}

// Settle waits until every attempt that began before t is over.
func (s *Stream) Settle(ctx context.Context, t time.Time) error {
	return poll(ctx, 5*time.Millisecond, func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for f := range s.pending {
			if f.start.Before(t) {
				return false, nil
			}
		}
		return true, nil
	})
}

// WaitAnswered waits until n attempts in a row that began after now were answered.
func (s *Stream) WaitAnswered(ctx context.Context, n int) error {
	from := time.Now()
	return poll(ctx, 10*time.Millisecond, func() (bool, error) {
		if _, err := s.Late(); err != nil {
			return false, err
		}
		row := 0
		for _, a := range s.Attempts(from) {
			switch {
			case a.Start.Before(from) || a.Result == Pending:
			case a.Result == Answered:
				row++
			default:
				row = 0
			}
		}
		return row >= n, nil
	})
}
