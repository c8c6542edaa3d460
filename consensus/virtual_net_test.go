package consensus

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
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
