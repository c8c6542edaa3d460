package consensus

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// fabric is the network between the machines of a virtual cluster. A packet that meets a cut on its way is lost; TCP sends
// again for a while and then gives up, as the kernel does with the limits that tuneTCP sets.
type fabric struct {
	mu      sync.Mutex
	dice    *rand.Rand
	machine map[netip.Addr]int
	cut     map[link]time.Time     // since when packets do not pass
	slow    map[link]time.Duration // what they take more than others
	base    time.Duration          // one way
	jitter  time.Duration
	loss    float64       // of datagrams
	mute    map[link]bool // datagrams do not pass, and everything else does
	ports   map[netip.AddrPort]*vListener
	sockets map[netip.AddrPort]*vSocket
}

// link leads from one machine to another. A cut one way leaves the other way open.
type link struct{ from, to int }

const (
	// vSilence is for how long TCP sends again without an answer.
	vSilence = 700 * time.Millisecond
	// vResend is the pause between two attempts.
	vResend = 25 * time.Millisecond
	// vGone is after how long an idle end learns that the other one has given up, unless packets pass before.
	vGone = 4 * time.Second
)

func newFabric(dice *rand.Rand) *fabric {
	return &fabric{dice: dice, machine: map[netip.Addr]int{}, cut: map[link]time.Time{}, slow: map[link]time.Duration{}, mute: map[link]bool{},
		base: 200 * time.Microsecond, jitter: 100 * time.Microsecond,
		ports: map[netip.AddrPort]*vListener{}, sockets: map[netip.AddrPort]*vSocket{}}
}

// locked runs f with the fabric locked. Nothing in f waits.
func (f *fabric) locked(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// sever cuts links.
func (f *fabric) sever(links ...link) {
	f.locked(func() {
		for _, l := range links {
			if f.cut[l].IsZero() {
				f.cut[l] = time.Now()
			}
		}
	})
}

// silence lets no datagram pass.
func (f *fabric) silence(links ...link) {
	f.locked(func() {
		for _, l := range links {
			f.mute[l] = true
		}
	})
}

// heal makes the network as good as new.
func (f *fabric) heal() {
	f.locked(func() {
		clear(f.cut)
		clear(f.slow)
		clear(f.mute)
		f.loss = 0
	})
}

// delay slows links down.
func (f *fabric) delay(d time.Duration, links ...link) {
	f.locked(func() {
		for _, l := range links {
			f.slow[l] = d
		}
	})
}

// takes returns how long a packet is on its way. The caller holds the lock.
func (f *fabric) takes(l link) time.Duration {
	return f.base + time.Duration(f.dice.Int64N(int64(f.jitter)+1)) + f.slow[l]
}

// down returns how long a link has been cut, 0 if it is not. The caller holds the lock.
func (f *fabric) down(l link) time.Duration {
	since := f.cut[l]
	if since.IsZero() {
		return 0
	}
	return max(time.Since(since), 1)
}

// nic is the network as one process sees it; it is a part of a host.
type nic struct {
	f       *fabric
	self    int
	gone    bool // the process has ended
	ends    []*vConn
	sockets []netip.AddrPort
}

// vanish ends everything that the process has opened. If the machine goes on, its kernel tells the peers; without power
// nobody does.
func (n *nic) vanish(told bool) {
	n.f.locked(func() {
		n.gone = true
		for _, at := range n.sockets {
			if l := n.f.ports[at]; l != nil {
				l.close()
			}
			if s := n.f.sockets[at]; s != nil {
				s.close()
			}
		}
		for _, c := range n.ends {
			c.end(told)
		}
		n.ends = nil
	})
}

func (n *nic) listen(at netip.AddrPort) (net.Listener, error) {
	l := &vListener{n: n, at: at, queue: make(chan net.Conn, 256), ended: make(chan struct{})}
	var err error
	n.f.locked(func() {
		if n.gone || n.f.ports[at] != nil {
			err = syscall.EADDRINUSE
			return
		}
		n.f.ports[at] = l
		n.sockets = append(n.sockets, at)
	})
	return l, err
}

func (n *nic) datagrams(at netip.AddrPort) (datagrams, error) {
	s := &vSocket{n: n, at: at, wake: make(chan struct{}, 1)}
	var err error
	n.f.locked(func() {
		if n.gone || n.f.sockets[at] != nil {
			err = syscall.EADDRINUSE
			return
		}
		n.f.sockets[at] = s
		n.sockets = append(n.sockets, at)
	})
	return s, err
}

// dial sends a SYN until it is answered.
func (n *nic) dial(ctx context.Context, _ netip.Addr, to netip.AddrPort) (net.Conn, error) {
	for {
		var there, back time.Duration
		var far int
		n.f.locked(func() {
			far = n.f.machine[to.Addr()]
			there, back = n.f.takes(link{n.self, far}), n.f.takes(link{far, n.self})
		})
		if !sleep(ctx, there) {
			return nil, ctx.Err()
		}
		var c net.Conn
		var err error
		n.f.locked(func() { c, err = n.connect(far, to) })
		if c != nil || err != nil {
			if !sleep(ctx, back) {
				if c != nil {
					c.Close()
				}
				return nil, ctx.Err()
			}
			return c, err
		}
		if !sleep(ctx, time.Second) {
			return nil, ctx.Err()
		}
	}
}

// connect answers a SYN, or not. The caller holds the lock.
func (n *nic) connect(far int, to netip.AddrPort) (net.Conn, error) {
	if n.gone {
		return nil, net.ErrClosed
	}
	if n.f.down(link{n.self, far}) > 0 || n.f.down(link{far, n.self}) > 0 {
		return nil, nil
	}
	l := n.f.ports[to]
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	out := &pipe{f: n.f, l: link{n.self, far}, wake: make(chan struct{}, 1)}
	in := &pipe{f: n.f, l: link{far, n.self}, wake: make(chan struct{}, 1)}
	near := net.TCPAddrFromAddrPort(netip.AddrPortFrom(to.Addr(), 0))
	for ip, i := range n.f.machine {
		if i == n.self {
			near = net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))
		}
	}
	here := &vConn{f: n.f, in: in, out: out, local: near, remote: net.TCPAddrFromAddrPort(to)}
	there := &vConn{f: n.f, in: out, out: in, local: net.TCPAddrFromAddrPort(to), remote: near}
	out.sender, out.receiver, in.sender, in.receiver = here, there, there, here
	n.ends, l.n.ends = append(n.ends, here), append(l.n.ends, there)
	select {
	case l.queue <- there:
		return here, nil
	default:
		return nil, nil
	}
}

// sleep waits for d, or returns false when ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// vListener is a TCP port.
type vListener struct {
	n     *nic
	at    netip.AddrPort
	queue chan net.Conn
	ended chan struct{}
}

// close ends the port. The caller holds the fabric's lock.
func (l *vListener) close() {
	if l.n.f.ports[l.at] == l {
		delete(l.n.f.ports, l.at)
		close(l.ended)
	}
}

func (l *vListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

func (l *vListener) Close() error {
	l.n.f.locked(l.close)
	return nil
}

func (l *vListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

// pipe is one direction of a connection.
type pipe struct {
	f                *fabric
	l                link
	sender, receiver *vConn
	way              []segment // sent and not arrived, in order
	moving           bool      // a call of arrive is due
	refused          bool      // a reset was sent
	buf              []byte    // arrived and not read
	end              error     // arrived: nothing comes any more
	wake             chan struct{}
}

type segment struct {
	at   time.Time
	data []byte
	end  error
}

// send puts something on its way. The caller holds the lock.
func (p *pipe) send(s segment) {
	s.at = time.Now().Add(p.f.takes(p.l))
	if n := len(p.way); n > 0 && s.at.Before(p.way[n-1].at) {
		s.at = p.way[n-1].at // TCP keeps the order
	}
	p.way = append(p.way, s)
	p.move(time.Until(s.at))
}

func (p *pipe) move(in time.Duration) {
	if !p.moving {
		p.moving = true
		time.AfterFunc(in, func() { p.f.locked(p.arrive) })
	}
}

// arrive delivers what is due. The caller holds the lock.
func (p *pipe) arrive() {
	p.moving = false
	for len(p.way) > 0 {
		s := p.way[0]
		if wait := time.Until(s.at); wait > 0 {
			p.move(wait)
			return
		}
		switch down := p.f.down(p.l); {
		case down > vGone && s.end != nil: // the receiver's keep-alive found nobody
		case down > vSilence && s.end == nil:
			p.reset()
			return
		case down > 0:
			p.move(vResend)
			return
		}
		p.way = p.way[1:]
		switch {
		case s.end != nil:
			p.end = s.end
		case p.receiver.dead != nil:
			p.receiver.out.refuse()
		default:
			p.buf = append(p.buf, s.data...)
			if p.f.down(link{p.l.to, p.l.from}) > 0 { // the acknowledgement is lost
				time.AfterFunc(vSilence, func() { p.f.locked(p.unacknowledged) })
			}
		}
		poke(p.wake)
	}
}

// unacknowledged ends the sender's side if no answer can have come for too long. The caller holds the lock.
func (p *pipe) unacknowledged() {
	if p.f.down(link{p.l.to, p.l.from}) >= vSilence {
		p.reset()
	}
}

// reset gives up what is on its way, and the sender's end. The caller holds the lock.
func (p *pipe) reset() {
	if p.sender.dead == nil {
		p.sender.dead = syscall.ETIMEDOUT
		poke(p.sender.in.wake)
	}
	p.refuse()
}

// refuse tells the other end that this one is gone, unless it was told. The caller holds the lock.
func (p *pipe) refuse() {
	if !p.refused {
		p.refused, p.way = true, nil
		p.send(segment{end: syscall.ECONNRESET})
	}
}

// vConn is one end of a TCP connection. One goroutine at a time reads.
type vConn struct {
	f             *fabric
	in, out       *pipe
	local, remote *net.TCPAddr
	dead          error // this end is of no use any more
	readBy        time.Time
	writeBy       time.Time
}

// end closes this end, and tells the other one. The caller holds the lock.
func (c *vConn) end(told bool) {
	if c.dead != nil {
		return
	}
	c.dead = net.ErrClosed
	if told {
		c.out.send(segment{end: io.EOF})
	}
	poke(c.in.wake)
}

func (c *vConn) Read(b []byte) (int, error) {
	for {
		var n int
		var err error
		var by time.Time
		c.f.locked(func() {
			by = c.readBy
			switch {
			case c.dead != nil:
				err = c.dead
			case len(c.in.buf) > 0:
				n = copy(b, c.in.buf)
				c.in.buf = c.in.buf[n:]
			case c.in.end != nil:
				err = c.in.end
			case !by.IsZero() && !time.Now().Before(by):
				err = os.ErrDeadlineExceeded
			}
		})
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		c.wait(by)
	}
}

// wait returns when something has changed for a reader, or at by.
func (c *vConn) wait(by time.Time) {
	if by.IsZero() {
		<-c.in.wake
		return
	}
	t := time.NewTimer(time.Until(by))
	defer t.Stop()
	select {
	case <-c.in.wake:
	case <-t.C:
	}
}

func (c *vConn) Write(b []byte) (n int, err error) {
	c.f.locked(func() {
		switch {
		case c.dead != nil:
			err = c.dead
		case c.in.end == syscall.ECONNRESET:
			err = syscall.EPIPE
		case !c.writeBy.IsZero() && !time.Now().Before(c.writeBy):
			err = os.ErrDeadlineExceeded
		default:
			n = len(b)
			c.out.send(segment{data: append([]byte(nil), b...)})
		}
	})
	return n, err
}

func (c *vConn) Close() error {
	c.f.locked(func() { c.end(true) })
	return nil
}

func (c *vConn) LocalAddr() net.Addr  { return c.local }
func (c *vConn) RemoteAddr() net.Addr { return c.remote }

func (c *vConn) SetDeadline(t time.Time) error {
	c.f.locked(func() { c.readBy, c.writeBy = t, t })
	poke(c.in.wake)
	return nil
}

func (c *vConn) SetReadDeadline(t time.Time) error {
	c.f.locked(func() { c.readBy = t })
	poke(c.in.wake)
	return nil
}

func (c *vConn) SetWriteDeadline(t time.Time) error {
	c.f.locked(func() { c.writeBy = t })
	return nil
}

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
