package consensus

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// wire is the UDP socket for reports, echoes, acks and notices.
type wire struct {
	n    *Node
	conn datagrams

	mu    sync.Mutex // guards the buffers
	plain []byte
	sealt []byte
	nonce [12]byte

	sent, unsent, received, dropped atomic.Uint64
	tooBig                          atomic.Int64 // when a message did not fit last and that was said, in nanoseconds since the node was opened
}

// sayTooBig is how often it is said that messages do not fit into a datagram.
const sayTooBig = time.Minute

// socketBuffer is asked of the kernel for received datagrams, so that a pause of this process does not lose them.
const socketBuffer = 512 << 10

func openWire(n *Node, at netip.AddrPort) (*wire, error) {
	c, err := n.cfg.host.datagrams(at)
	if err != nil {
		return nil, fmt.Errorf("listen on udp %v, the address of node %q in the configuration: %w", at, n.cfg.Self, err)
	}
	return &wire{n: n, conn: c, plain: make([]byte, 0, maxMessage), sealt: make([]byte, 0, maxDatagram)}, nil
}

// Send sends a message to a peer as one datagram. It never waits: without a session to the peer, or with a full socket
// buffer, the message is dropped, as one lost on the way would be.
func (n *Node) Send(to core.NodeName, m core.Message) {
	term, leads := officeOf(m)
	if leads && !n.mayLead() {
		return // it would keep the others from electing a leader whose disk works
	}
	if err := n.wire.send(to, m); err != nil {
		n.wire.unsent.Add(1)
		n.unsent(to, err)
	}
	if leads {
		n.beats.tells(to, term, isAck(m))
		poke(n.riding)
	}
	if r, ok := m.(core.Report); ok && n.beats.reported(n.cfg.Self, r) {
		poke(n.changed) // its place among the voters is another
	}
}

// unsent logs that a datagram was not sent. As a rule that is like one lost on the way. One that does not fit will not fit the next
// time either, and what it was to say, a report most of all, is never heard.
func (n *Node) unsent(to core.NodeName, err error) {
	now := int64(max(n.now(), 1))
	last := n.wire.tooBig.Load()
	if errors.Is(err, errWireTooBig) && (last == 0 || now-last >= int64(sayTooBig)) && n.wire.tooBig.CompareAndSwap(last, now) {
		n.log.Warn("a message is too long for a datagram and is not sent: use fewer groups or shorter names of groups; if it is a report, leases are not renewed meanwhile",
			"to", to, "error", err)
		return
	}
	n.log.Debug("datagram not sent", "to", to, "error", err)
}

func isAck(m core.Message) bool {
	_, ok := m.(core.Ack)
	return ok
}

// officeOf returns the term of a message that an arbiter in office sends and nobody else.
func officeOf(m core.Message) (core.Term, bool) {
	switch m := m.(type) {
	case core.Confirm:
		return m.Term, true
	case core.Ack:
		return m.Term, true
	}
	return 0, false
}

var errNoSession = errors.New("no session")

func (w *wire) send(to core.NodeName, m core.Message) error {
	p := w.n.peers.get(to)
	if p == nil {
		return ErrNotMember
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	plain, err := appendMessage(w.plain[:0], m)
	if err != nil {
		return err
	}
	return w.seal(p, plain)
}

// sendPlain sends an encoded message.
func (w *wire) sendPlain(p *peer, plain []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seal(p, plain)
}

// seal seals a message and sends it. The caller holds the lock.
func (w *wire) seal(p *peer, plain []byte) error {
	at, ok := w.n.peers.address(p.name)
	if !ok {
		return ErrNotMember
	}
	key := p.out.Load()
	if key == nil {
		return errNoSession
	}
	if err := w.conn.SendNow(key.seal(w.sealt[:0], plain, &w.nonce), at); err != nil {
		return err
	}
	w.sent.Add(1)
	return nil
}

// serve receives until the socket is closed.
func (w *wire) serve() {
	buf := make([]byte, 2048)
	var nonce [12]byte
	for {
		size, err := w.conn.Receive(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			w.n.log.Warn("receive a datagram", "error", err)
			if !w.n.pause(10 * time.Millisecond) {
				return
			}
			continue
		}
		if err := w.receive(buf[:size], &nonce); err != nil {
			w.dropped.Add(1)
			w.n.log.Debug("dropped a datagram", "error", err)
		}
	}
}

var (
	errNotVoter = errors.New("echo of a server that does not vote")
	errBusy     = errors.New("the receiver is busy")
)

// receive checks a datagram and delivers its message.
func (w *wire) receive(b []byte, nonce *[12]byte) error {
	plain, from, err := w.n.openers.open(b, nonce)
	if err != nil {
		return err
	}
	if isBeat(plain) {
		w.n.markHeard(from.peer)
		return w.n.receiveBeat(plain, from)
	}
	m, err := parseMessage(plain)
	if err != nil {
		return fmt.Errorf("from node %q: %w", from.peer.name, err)
	}
	w.n.markHeard(from.peer)
	w.received.Add(1)
	if term, leads := officeOf(m); leads {
		w.n.takeSign(from, term, isAck(m))
	}
	switch said := m.(type) {
	case core.Clients:
		if w.n.cfg.DeliverClients != nil {
			w.n.cfg.DeliverClients(from.peer.name, said)
		}
		return nil
	case core.Report:
		if !w.n.votes(from.server) {
			said.Term = 0
			m = said
		}
		w.n.beats.hears(from.server, said.Term)
		if w.n.beats.reported(from.peer.name, said) {
			poke(w.n.changed)
		}
	case core.Echo:
		if !w.n.votes(from.server) {
			return errNotVoter
		}
		w.n.beats.hears(from.server, said.Term)
	}
	// The term is read now, after the datagram's arrival, and is never lower than one that this node has voted in.
	if !w.n.cfg.DeliverDatagram(core.Received{From: from.peer.name, Msg: m, Term: w.n.Term()}) {
		return errBusy
	}
	return nil
}

// votes reports whether the server votes in Raft's latest configuration. The name alone would not do: a node that was
// set up anew under an old name has not promised what the old one had.
func (n *Node) votes(id raft.ServerID) bool {
	r := n.raft.Load()
	return r != nil && n.store.roster.votes(id, func() raft.Configuration { return r.GetConfiguration().Configuration() })
}

// Term returns this node's current Raft term, or 0 as long as it does not vote: before Start, while it joins, and after
// it was removed. It is never less than any term in which this node has voted.
func (n *Node) Term() core.Term {
	if n.retired.Load() || !n.votes(n.id) {
		return 0
	}
	return core.Term(n.store.Term())
}
