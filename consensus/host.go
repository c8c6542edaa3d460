package consensus

import (
	"context"
	"net"
	"net/netip"
)

// host is what a node meets of its machine while it runs: the network, and the database of its Raft log. Everything in
// it may take long, and all of it can be put into virtual time.
type host interface {
	// listen accepts TCP connections at an address.
	listen(at netip.AddrPort) (net.Listener, error)
	// dial makes a TCP connection from an IP address, or from any if that is the unspecified one.
	dial(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error)
	// datagrams binds a UDP socket.
	datagrams(at netip.AddrPort) (datagrams, error)
	// openLog opens the log, the term and the vote that are kept in a directory.
	openLog(dir string) (backend, error)
}

// datagrams is a UDP socket.
type datagrams interface {
	// SendNow sends a datagram if that needs no waiting, and drops it otherwise.
	SendNow(b []byte, to netip.AddrPort) error
	// Receive waits for the next datagram and returns its length, or net.ErrClosed after Close.
	Receive(b []byte) (int, error)
	Close() error
}

// linux is the host of every node but those of tests.
type linux struct{}

func (linux) listen(at netip.AddrPort) (net.Listener, error) {
	return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
}

func (linux) dial(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1} // tuneTCP sets it
	if !from.IsUnspecified() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	return d.DialContext(ctx, "tcp", to.String())
}

func (linux) datagrams(at netip.AddrPort) (datagrams, error) { return listenUDP(at, socketBuffer) }

func (linux) openLog(dir string) (backend, error) { return openBolt(dir) }
