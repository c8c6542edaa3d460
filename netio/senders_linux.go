package netio

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/mdlayher/packet"
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

// send sends a frame to dst, unless may, which is asked last of all, returns an error. A socket that does not work any more
// is replaced once: its interface may have been deleted and made again.
func (s *senders) send(l link, frame []byte, dst MAC, may func() error) error {
	err := s.try(l, frame, dst, may)
	if err != nil && !errors.Is(err, ErrLinkDown) && !errors.Is(err, ErrLate) {
		err = s.try(l, frame, dst, may)
	}
	if err != nil {
		return fmt.Errorf("send a frame on %s: %w", l.Name, err)
	}
	return nil
}

func (s *senders) try(l link, frame []byte, dst MAC, may func() error) error {
	conn, err := s.get(l)
	if err != nil {
		return err
	}
	err = conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	if err == nil {
		// A process that is stopped while the kernel delivers one frame would send the next one when it wakes up.
		if late := may(); late != nil {
			return late
		}
		_, err = conn.WriteTo(frame, &packet.Addr{HardwareAddr: dst[:]})
	}
	if err != nil {
		s.drop(l.Name, conn)
	}
	return classify(err)
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
