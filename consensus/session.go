package consensus

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// hello is what two nodes tell each other on a session, at its start and then at intervals. A later release may add
// fields: unknown ones are ignored.
type hello struct {
	Server      raft.ServerID    `json:"server"`
	Incarnation core.Incarnation `json:"incarnation"`
	// Seq numbers what this process has said of itself. Two nodes have a session each way, and a hello on one may overtake
	// that on the other.
	Seq uint64 `json:"seq,omitempty"`
	// Running is set once the node takes part in Raft.
	Running bool `json:"running"`
	// State is set when the node has a Raft log or a snapshot: it is not empty.
	State bool `json:"state"`
	// Joining asks the leader to make the node a voter.
	Joining bool `json:"joining,omitempty"`
	// Applied is the last log entry that the node has applied.
	Applied uint64    `json:"applied,omitempty"`
	Term    core.Term `json:"term,omitempty"`
	// Leader is the Raft server that the node takes for the leader.
	Leader raft.ServerID `json:"leader,omitempty"`
	// Servers is the node's latest Raft configuration.
	Servers []serverInfo `json:"servers,omitempty"`
	// Nodes are the names in the node's file, in order.
	Nodes []core.NodeName `json:"nodes,omitempty"`
}

type serverInfo struct {
	ID    raft.ServerID `json:"id"`
	Voter bool          `json:"voter"`
}

// lists reports whether the Raft configuration in the hello contains the server.
func (h *hello) lists(id raft.ServerID) bool {
	for _, s := range h.Servers {
		if s.ID == id {
			return true
		}
	}
	return false
}

// maxHello bounds an encoded hello in bytes.
const maxHello = 64 << 10

func writeHello(c net.Conn, h hello, by time.Time) error {
	body, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if len(body) > maxHello {
		return fmt.Errorf("hello of %d bytes, at most %d are allowed", len(body), maxHello)
	}
	if err := c.SetWriteDeadline(by); err != nil {
		return err
	}
	_, err = c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

func readHello(c net.Conn, by time.Time) (hello, error) {
	var h hello
	if err := c.SetReadDeadline(by); err != nil {
		return h, err
	}
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return h, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxHello {
		return h, fmt.Errorf("hello of %d bytes, at most %d are allowed", n, maxHello)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c, body); err != nil {
		return h, err
	}
	if err := json.Unmarshal(body, &h); err != nil {
		return h, fmt.Errorf("decode a hello: %w", err)
	}
	return h, nil
}

// checkHello refuses a server ID that is not the authenticated peer's.
func checkHello(h hello, from core.NodeName) error {
	if nodeOf(h.Server) != from {
		return fmt.Errorf("%w: node %q calls itself Raft server %q", ErrIdentity, from, h.Server)
	}
	return nil
}

// keepSession keeps one session to a peer up for as long as the peer is a member. The session's keys seal what this
// node sends to the peer, and stay in use until the next session has been made.
func (n *Node) keepSession(ctx context.Context, p *peer) {
	wait := n.lim.redial
	var last string
	for ctx.Err() == nil {
		up, err := n.runSession(ctx, p)
		p.session.Store(0)
		if ctx.Err() != nil {
			return
		}
		if up {
			wait = n.lim.redial
		}
		if text := fmt.Sprint(err); err != nil && text != last {
			n.log.Info("no session to a peer", "peer", p.name, "error", err)
			last = text
		} else if up {
			last = ""
		}
		select {
		case <-ctx.Done():
		case <-p.kick:
			wait = n.lim.redial
		case <-time.After(wait):
			wait = min(2*wait, n.lim.redialMax)
		}
	}
}

// errRenew ends a session that is to be replaced.
var errRenew = errors.New("session is to be renewed")

// runSession makes a session and exchanges hellos on it until it fails. It reports whether the session came up.
func (n *Node) runSession(ctx context.Context, p *peer) (up bool, err error) {
	drain(p.kick)
	c, err := n.port.dial(ctx, p.name, alpnSession, n.lim.rpc)
	if err != nil {
		return false, err
	}
	defer c.Close()
	// A peer that is removed, or the end of the node, must not wait for a deadline.
	defer context.AfterFunc(ctx, func() { _ = c.NetConn().Close() })()
	key, err := newSealer(c.ConnectionState(), n.cfg.Cluster)
	if err != nil {
		return false, err
	}
	end := time.Now().Add(sessionLife)
	for {
		h, err := n.exchange(c, p)
		if err != nil {
			return up, err
		}
		if !up {
			p.out.Store(key)
			up = true
			n.log.Info("session to a peer", "peer", p.name, "server", h.Server)
		}
		p.session.Store(uint64(h.Incarnation))
		n.noteHello(p, h)
		select {
		case <-ctx.Done():
			return up, ctx.Err()
		case <-p.kick:
			return up, n.again(p)
		case <-p.nudge:
		case <-time.After(n.helloEvery()):
		}
		if time.Now().After(end) {
			return up, n.again(p)
		}
	}
}

// again has the next session made without a pause.
func (n *Node) again(p *peer) error {
	poke(p.kick)
	return errRenew
}

func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

func (n *Node) exchange(c net.Conn, p *peer) (hello, error) {
	start := time.Now()
	if err := writeHello(c, n.hello(), start.Add(n.lim.rpc)); err != nil {
		return hello{}, fmt.Errorf("greet node %q: %w", p.name, err)
	}
	h, err := readHello(c, start.Add(n.lim.rpc))
	if err != nil {
		return h, fmt.Errorf("await the hello of node %q: %w", p.name, err)
	}
	if err := checkHello(h, p.name); err != nil {
		return h, err
	}
	p.rtt.Store(int64(time.Since(start)))
	return h, nil
}

// helloEvery is the interval of hellos: short as long as this node waits to become a voter.
func (n *Node) helloEvery() time.Duration {
	if n.settled.Load() {
		return n.lim.hello
	}
	return n.lim.redial
}

// serveSession answers the hellos of a peer's session and opens the datagrams sealed with its keys.
func (n *Node) serveSession(c *tls.Conn, from core.NodeName) {
	p := n.peers.get(from)
	if p == nil {
		return
	}
	key, err := newOpener(c.ConnectionState(), n.cfg.Cluster)
	if err != nil {
		n.log.Error("keys of a peer's session", "peer", from, "error", err)
		return
	}
	for first := true; ; first = false {
		h, err := readHello(c, time.Now().Add(n.lim.hello+2*n.lim.rpc))
		if err == nil {
			err = checkHello(h, from)
		}
		if err != nil {
			n.log.Debug("a peer's session ended", "peer", from, "error", err)
			return
		}
		if first {
			key.peer, key.server = p, h.Server
			n.openers.add(from, key)
		}
		if p.session.Load() != uint64(h.Incarnation) {
			poke(p.kick)
		}
		n.noteHello(p, h)
		if err := writeHello(c, n.hello(), time.Now().Add(n.lim.rpc)); err != nil {
			return
		}
	}
}

// noteHello keeps what a peer said, unless it has said something newer, and wakes those who wait for it.
func (n *Node) noteHello(p *peer, h hello) {
	n.markHeard(p)
	if !p.note(&h) {
		return
	}
	poke(n.helloed)
	if h.Joining {
		poke(n.membership)
	}
	n.judgeRemoval(p.name, &h)
}

// hello describes this node.
func (n *Node) hello() hello {
	n.saying.Lock() // so that what has the higher number is not older
	defer n.saying.Unlock()
	n.said++
	h := hello{Server: n.id, Incarnation: n.cfg.Incarnation, Seq: n.said, State: n.hasState.Load(), Joining: n.joining.Load(),
		Nodes: n.fileNodes()}
	r := n.raft.Load()
	if r == nil {
		return h
	}
	c := r.GetConfiguration().Configuration()
	_, leader := r.LeaderWithID()
	h.Running, h.Term, h.Leader, h.Applied = true, core.Term(r.CurrentTerm()), leader, n.fsm.applied.Load()
	h.Joining = len(c.Servers) == 0 || !isVoter(c, n.id)
	for _, s := range c.Servers {
		h.Servers = append(h.Servers, serverInfo{ID: s.ID, Voter: s.Suffrage == raft.Voter})
	}
	return h
}
