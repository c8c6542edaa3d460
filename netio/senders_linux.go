package netio

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// sendTimeout bounds the wait for room in an interface's queue.
const sendTimeout = 50 * time.Millisecond

// senders keeps one packet socket for sending open on each interface. It is bound to protocol 0, so it receives nothing.
type senders struct {
	mu     sync.Mutex // not held over I/O
	open   map[string]sender
	closed bool
}

type sender struct {
	index uint32
	conn  *packet.Conn
}

// send sends the frames of a batch, in their order and by one system call if there is room for them. Before each call may is asked
// last of all, and an error of it ends the sending. A socket that does not work any more is replaced once: its interface may have
// been deleted and made again. A frame that is refused does not keep the others, nor cost the socket: to close one and open another
// makes the kernel wait for two RCU grace periods, twenty milliseconds, and what refuses a frame is mostly the fence.
func (s *senders) send(l link, b *batch, may func() error) error {
	var (
		first    error
		refused  int
		replaced bool
	)
	for hs := b.headers(); len(hs) > 0; {
		n, err := s.try(l, hs, may)
		hs = hs[n:]
		switch {
		case err == nil:
		case errors.Is(err, ErrLinkDown) || errors.Is(err, ErrLate):
			return fmt.Errorf("send a frame on %s: %w", l.Name, err)
		case !replaced && !errors.Is(err, unix.ENOBUFS):
			replaced = true
		default:
			first = cmp.Or(first, err)
			refused++
			hs = hs[1:]
		}
	}
	if first != nil {
		return fmt.Errorf("send %d frames on %s: %d not sent, the first: %w", len(b.ends), l.Name, refused, first)
	}
	return nil
}

// try sends the first n of the frames. The error, if there is one, is that of the next.
func (s *senders) try(l link, hs []unix.Mmsghdr, may func() error) (n int, err error) {
	conn, err := s.get(l)
	if err != nil {
		return 0, err
	}
	n, late, err := sendNow(conn, hs, may)
	switch {
	case errors.Is(err, unix.ENOBUFS):
		err = fmt.Errorf("the interface's queue is full, or the kernel's lease is over: %w", err)
	case err != nil:
		s.drop(l.Name, conn)
	}
	return n, errors.Join(late, classify(err))
}

// sendNow asks may with nothing between its answer and the system call: a process that is stopped in between sends the frames when
// it wakes up. Only the fence drops them then, if the kernel has a hook for frames ([Fence.GuardFrames]). A stop during the call
// waits for its end.
func sendNow(conn *packet.Conn, hs []unix.Mmsghdr, may func() error) (n int, late, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return 0, nil, err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		if late = may(); late != nil {
			return true
		}
		n, failed = sendmmsg(fd, hs)
		return !errors.Is(failed, unix.EAGAIN)
	})
	return n, late, cmp.Or(err, failed)
}

// get returns the socket of an interface. An interface that was made again has another index and needs a new one.
func (s *senders) get(l link) (*packet.Conn, error) {
	s.mu.Lock()
	have, ok := s.open[l.Name]
	s.mu.Unlock()
	if ok && have.index == l.Index {
		return have.conn, nil
	}
	conn, err := packet.Listen(l.netInterface(), packet.Raw, 0, nil)
	if err != nil {
		return nil, classify(err)
	}
	return s.keep(l, conn)
}

// keep stores a socket in place of that of an earlier interface of the same name. If another goroutine was faster, it
// is used in its stead.
func (s *senders) keep(l link, conn *packet.Conn) (*packet.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(errClosed, conn.Close())
	}
	if s.open == nil {
		s.open = make(map[string]sender)
	}
	have, ok := s.open[l.Name]
	if ok && have.index == l.Index {
		return have.conn, conn.Close()
	}
	s.open[l.Name] = sender{index: l.Index, conn: conn}
	if ok {
		return conn, have.conn.Close()
	}
	return conn, nil
}

// drop closes a socket and forgets it, unless it was replaced meanwhile.
func (s *senders) drop(name string, conn *packet.Conn) {
	s.mu.Lock()
	if s.open[name].conn == conn {
		delete(s.open, name)
	}
	s.mu.Unlock()
	_ = conn.Close() // it has failed already
}

func (s *senders) close() error {
	s.mu.Lock()
	open := s.open
	s.open, s.closed = nil, true
	s.mu.Unlock()
	var errs []error
	for _, c := range open {
		errs = append(errs, c.conn.Close())
	}
	return errors.Join(errs...)
}
