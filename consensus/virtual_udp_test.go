package consensus

import (
	"net"
	"net/netip"
	"time"
)

// vSocket is a UDP port.
type vSocket struct {
	n      *nic
	at     netip.AddrPort
	queue  [][]byte
	closed bool
	wake   chan struct{}
}

// vQueue is how many datagrams wait for a process before they are dropped.
const vQueue = 1024

func (s *vSocket) SendNow(b []byte, to netip.AddrPort) error {
	f := s.n.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	l := link{s.n.self, f.machine[to.Addr()]}
	if f.down(l) > 0 || f.mute[l] || f.dice.Float64() < f.loss {
		return nil
	}
	b = append([]byte(nil), b...)
	time.AfterFunc(f.takes(l), func() {
		f.locked(func() {
			if r := f.sockets[to]; r != nil && f.down(l) == 0 && len(r.queue) < vQueue {
				r.queue = append(r.queue, b)
				poke(r.wake)
			}
		})
	})
	return nil
}

func (s *vSocket) Receive(b []byte) (int, error) {
	for {
		n, closed := -1, false
		s.n.f.locked(func() {
			if closed = s.closed; len(s.queue) > 0 && !closed {
				n = copy(b, s.queue[0])
				s.queue = s.queue[1:]
			}
		})
		switch {
		case closed:
			return 0, net.ErrClosed
		case n >= 0:
			return n, nil
		}
		<-s.wake
	}
}

// close ends the socket. The caller holds the fabric's lock.
func (s *vSocket) close() {
	s.closed = true
	if s.n.f.sockets[s.at] == s {
		delete(s.n.f.sockets, s.at)
	}
	poke(s.wake)
}

func (s *vSocket) Close() error {
	s.n.f.locked(s.close)
	return nil
}
