package consensus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/remora-ha/remora/core"
)

// port is the one TCP port of the node. It authenticates what connects, hands it to the handler of its protocol, and
// dials peers in the same way.
type port struct {
	n      *Node
	ln     net.Listener
	gate   gate
	routes map[string]func(*tls.Conn, core.NodeName)

	mu    sync.Mutex
	open  map[net.Conn]struct{}
	ended bool
}

func listen(n *Node, at netip.AddrPort) (*port, error) {
	ln, err := n.cfg.host.listen(at)
	if err != nil {
		return nil, fmt.Errorf("listen on tcp %v, the address of node %q in the configuration: %w", at, n.cfg.Self, err)
	}
	return &port{n: n, ln: ln, open: map[net.Conn]struct{}{}}, nil
}

// serve accepts connections until the port is closed.
func (p *port) serve() {
	for {
		c, err := p.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			p.n.log.Error("accept a connection", "error", err)
			if !p.n.pause(100 * time.Millisecond) {
				return
			}
			continue
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		leave, ok := p.gate.enter(from, p.n.peers.knows(from))
		if !ok {
			p.n.refusals.Add(1)
			_ = c.Close()
			continue
		}
		p.n.spawn(func() { p.admit(c, leave) })
	}
}

// admit authenticates a connection and hands it over.
func (p *port) admit(c net.Conn, leave func()) {
	t, peer, err := p.authenticate(c)
	leave()
	if err != nil {
		p.n.refusals.Add(1)
		p.n.log.Warn("refused a connection", "from", c.RemoteAddr(), "error", err)
		_ = c.Close()
		return
	}
	defer p.forget(t)
	if peer == "" {
		p.n.serveHook(t)
		return
	}
	p.routes[t.ConnectionState().NegotiatedProtocol](t, peer)
}

func (p *port) authenticate(c net.Conn) (*tls.Conn, core.NodeName, error) {
	c, err := p.tune(c)
	if err != nil {
		return nil, "", err
	}
	id := p.n.identity.Load()
	t := tls.Server(c, id.server(p.n.member))
	if !p.keep(t) {
		return nil, "", net.ErrClosed
	}
	err = t.SetDeadline(time.Now().Add(p.n.lim.handshake))
	if err == nil {
		err = t.Handshake()
	}
	if err == nil && p.routes[t.ConnectionState().NegotiatedProtocol] == nil {
		err = fmt.Errorf("no protocol in common with the peer, which asked for none of %s, %s, %s", alpnRaft, alpnControl, alpnSession)
	}
	if err == nil {
		err = t.SetDeadline(time.Time{})
	}
	if err != nil {
		p.forget(t)
		return nil, "", err
	}
	if isHook(t.ConnectionState().PeerCertificates[0]) {
		return t, "", nil
	}
	peer, err := id.peerOf(t.ConnectionState())
	return t, peer, err
}

// tune sets a connection up. What it returns reads and writes it; c is closed by whoever calls, if there is an error.
func (p *port) tune(c net.Conn) (net.Conn, error) {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return c, nil // in virtual time there is no socket to tune
	}
	raw, err := socket.SyscallConn()
	if err == nil {
		err = tuneTCP(raw, p.n.lim.silence, p.n.lim.rto)
	}
	return &quietConn{Conn: c, raw: raw}, err
}

// dial connects to a peer for one protocol. The whole of it, name to handshake, takes no longer than timeout.
func (p *port) dial(ctx context.Context, to core.NodeName, alpn string, timeout time.Duration) (*tls.Conn, error) {
	at, ok := p.n.peers.address(to)
	if !ok {
		return nil, fmt.Errorf("dial node %q: %w", to, ErrNotMember)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := p.n.cfg.host.dial(ctx, p.n.self.Addr(), at)
	if err != nil {
		return nil, fmt.Errorf("dial node %q: %w", to, err)
	}
	if c, err = p.tune(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	t := tls.Client(c, p.n.identity.Load().client(to, alpn))
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("greet node %q at %v: %w", to, at, err)
	}
	return t, nil
}

// keep remembers an incoming connection so that close can end it.
func (p *port) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	p.open[c] = struct{}{}
	return true
}

func (p *port) forget(c net.Conn) {
	p.mu.Lock()
	delete(p.open, c)
	p.mu.Unlock()
	_ = c.Close()
}

// close ends the listener and every incoming connection.
func (p *port) close() error {
	err := p.ln.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for c := range p.open {
		_ = c.(*tls.Conn).NetConn().Close()
	}
	return err
}

// gate bounds the connections that are not authenticated yet: each peer's address has places of its own, so strangers
// can not crowd out a peer.
type gate struct {
	mu        sync.Mutex
	strangers int
	known     map[netip.Addr]int
}

// enter takes a place. The function returned gives it back.
func (g *gate) enter(from netip.Addr, known bool) (leave func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !known {
		if g.strangers >= maxStrangers {
			return nil, false
		}
		g.strangers++
		return func() { g.leave(func() { g.strangers-- }) }, true
	}
	if g.known == nil {
		g.known = map[netip.Addr]int{}
	}
	if g.known[from] >= maxKnown {
		return nil, false
	}
	g.known[from]++
	return func() { g.leave(func() { g.drop(from) }) }, true
}

func (g *gate) leave(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

// drop gives back the place of a known address. The caller holds the lock.
func (g *gate) drop(from netip.Addr) {
	if g.known[from]--; g.known[from] == 0 {
		delete(g.known, from)
	}
}
