package consensus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// A Raft connection begins with the server ID that the caller wants to speak to, its length first in one byte. The
// other end answers with one byte. A node that was set up anew has another server ID than before: without this check it
// would answer, and be counted, for the server whose memory it does not have.
const (
	streamWelcome = iota + 1
	streamStarting
	streamAnother
)

// Errors of a Raft connection.
var (
	errStarting = errors.New("does not take part yet")
	errAnother  = errors.New("is another Raft server than the one asked for")
)

// streamLayer is what Raft's network transport dials and listens on. Raft's addresses are server IDs: the configuration
// that Raft keeps in its log does not change when a node's address does.
type streamLayer struct {
	n        *Node
	incoming chan net.Conn
	ended    chan struct{}
	once     sync.Once
}

func newStreamLayer(n *Node) *streamLayer {
	return &streamLayer{n: n, incoming: make(chan net.Conn), ended: make(chan struct{})}
}

// serverAddr is a Raft server ID as a net.Addr.
type serverAddr raft.ServerID

func (serverAddr) Network() string  { return "remora" }
func (a serverAddr) String() string { return string(a) }

// Addr implements net.Listener.
func (s *streamLayer) Addr() net.Addr { return serverAddr(s.n.id) }

// Close implements net.Listener.
func (s *streamLayer) Close() error {
	s.once.Do(func() { close(s.ended) })
	return nil
}

// Accept implements net.Listener.
func (s *streamLayer) Accept() (net.Conn, error) {
	select {
	case c := <-s.incoming:
		return c, nil
	case <-s.ended:
		return nil, net.ErrClosed
	case <-s.n.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Dial implements raft.StreamLayer. The address is a server ID.
func (s *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	by := time.Now().Add(timeout)
	id := raft.ServerID(address)
	c, err := s.n.port.dial(s.n.ctx, nodeOf(id), alpnRaft, timeout)
	if err != nil {
		return nil, err
	}
	err = c.SetDeadline(by)
	if err == nil {
		err = askFor(c, id)
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = c.NetConn().Close()
		return nil, fmt.Errorf("raft connection to %s: %w", id, err)
	}
	return &raftConn{Conn: c, closed: make(chan struct{})}, nil
}

func askFor(c net.Conn, id raft.ServerID) error {
	if len(id) > 255 {
		return fmt.Errorf("a server ID of %d bytes, at most 255 are allowed", len(id))
	}
	if _, err := c.Write(append([]byte{byte(len(id))}, id...)); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return err
	}
	switch answer[0] {
	case streamWelcome:
		return nil
	case streamStarting:
		return fmt.Errorf("the node %w", errStarting)
	}
	return fmt.Errorf("the node %w", errAnother)
}

// serve takes an incoming Raft connection and keeps it until it is closed.
func (s *streamLayer) serve(c *tls.Conn, from core.NodeName) {
	if err := s.welcome(c); err != nil {
		s.n.log.Debug("refused a Raft connection", "from", from, "error", err)
		return
	}
	rc := &raftConn{Conn: c, closed: make(chan struct{})}
	select {
	case s.incoming <- rc:
	case <-s.ended:
		return
	case <-s.n.ctx.Done():
		return
	}
	select {
	case <-rc.closed:
	case <-s.n.ctx.Done():
	}
}

func (s *streamLayer) welcome(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(s.n.lim.rpc)); err != nil {
		return err
	}
	var size [1]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return err
	}
	id := make([]byte, size[0])
	if _, err := io.ReadFull(c, id); err != nil {
		return err
	}
	answer, refusal := byte(streamWelcome), error(nil)
	switch {
	case raft.ServerID(id) != s.n.id:
		answer, refusal = streamAnother, fmt.Errorf("asked for server %q, this is %q", id, s.n.id)
	case s.n.raft.Load() == nil:
		answer, refusal = streamStarting, errStarting
	}
	if _, err := c.Write([]byte{answer}); err != nil {
		return err
	}
	if refusal != nil {
		return refusal
	}
	return c.SetDeadline(time.Time{})
}

// raftConn tells when it is closed. Closing does not wait for the peer to take the TLS farewell.
type raftConn struct {
	*tls.Conn
	once   sync.Once
	closed chan struct{}
}

// Close implements net.Conn.
func (c *raftConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.NetConn().Close()
}

// ControlHandler serves one control stream of a peer. The stream is closed when it returns; ctx ends with the node.
type ControlHandler func(ctx context.Context, conn net.Conn, peer core.NodeName)

// ListenControl has handler serve the control streams that peers open, and hooks, whose peer is empty. Before, they are refused.
func (n *Node) ListenControl(handler func(ctx context.Context, conn net.Conn, peer core.NodeName)) {
	h := ControlHandler(handler)
	n.control.Store(&h)
}

// DialControl opens a control stream to a peer. The caller sets deadlines and closes it.
func (n *Node) DialControl(ctx context.Context, to core.NodeName) (net.Conn, error) {
	return n.port.dial(ctx, to, alpnControl, n.lim.handshake)
}

func (n *Node) serveControl(c *tls.Conn, from core.NodeName) {
	h, p := n.control.Load(), n.peers.get(from)
	if h == nil || p == nil {
		return
	}
	defer p.control.Add(-1)
	if p.control.Add(1) > maxControl {
		n.log.Warn("refused a control stream: the peer has too many", "peer", from, "limit", maxControl)
		return
	}
	(*h)(n.ctx, c, from)
}

func (n *Node) routes() map[string]func(*tls.Conn, core.NodeName) {
	return map[string]func(*tls.Conn, core.NodeName){
		alpnRaft: n.stream.serve, alpnControl: n.serveControl, alpnSession: n.serveSession,
	}
}
