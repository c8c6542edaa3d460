package consensus

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// peer is what this node knows of another one.
type peer struct {
	name core.NodeName
	stop context.CancelFunc
	// kick asks for a new session to the peer at once.
	kick chan struct{}
	// nudge asks for a hello on the present session at once.
	nudge chan struct{}

	out     atomic.Pointer[sealer] // the key for datagrams to the peer
	said    atomic.Pointer[hello]  // the peer's last hello
	session atomic.Uint64          // the incarnation that the present session to the peer leads to, 0 without session
	heard   atomic.Int64           // when something authentic came last, in nanoseconds since the node was opened
	rtt     atomic.Int64           // of the last hello, in nanoseconds
	control atomic.Int64           // open control streams of the peer
}

// hello returns the peer's last hello, empty if there was none or there is no such peer.
func (p *peer) hello() hello {
	if p != nil {
		if h := p.said.Load(); h != nil {
			return *h
		}
	}
	return hello{}
}

// note keeps a hello of the peer. It reports false for one that is older than what is known.
func (p *peer) note(h *hello) bool {
	for {
		last := p.said.Load()
		if last != nil && last.Incarnation == h.Incarnation && h.Seq < last.Seq {
			return false
		}
		if p.said.CompareAndSwap(last, h) {
			return true
		}
	}
}

// poke writes to a signal channel unless a signal waits there already.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// table holds the other nodes: those of the ledger, or of the file as long as the ledger has none.
type table struct {
	mu    sync.RWMutex
	nodes map[core.NodeName]*peer
	at    map[core.NodeName]netip.AddrPort
}

func (t *table) get(name core.NodeName) *peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.nodes[name]
}

func (t *table) address(name core.NodeName) (netip.AddrPort, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	a, ok := t.at[name]
	return a, ok
}

// knows reports whether a peer has this IP address. It decides on places in the queue only, never on identity.
func (t *table) knows(ip netip.Addr) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, a := range t.at {
		if a.Addr().Unmap() == ip {
			return true
		}
	}
	return false
}

// all returns the peers by name.
func (t *table) all() []*peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	ps := make([]*peer, 0, len(t.nodes))
	for _, p := range t.nodes {
		ps = append(ps, p)
	}
	slices.SortFunc(ps, func(a, b *peer) int { return cmp.Compare(a.name, b.name) })
	return ps
}

// member reports whether a node other than this one belongs to the cluster.
func (n *Node) member(name core.NodeName) bool { return n.peers.get(name) != nil }

// setPeers makes the table hold these nodes: it starts sessions to new ones and ends those to nodes that are gone.
func (n *Node) setPeers(specs []core.NodeSpec) {
	t := &n.peers
	t.mu.Lock()
	defer t.mu.Unlock()
	wanted := map[core.NodeName]netip.AddrPort{}
	for _, s := range specs {
		if s.Name != n.cfg.Self {
			wanted[s.Name] = s.Address
		}
	}
	for name, p := range t.nodes {
		if at, ok := wanted[name]; !ok {
			p.stop()
			n.openers.drop(name)
			delete(t.nodes, name)
		} else if at != t.at[name] {
			poke(p.kick)
		}
	}
	if t.nodes == nil {
		t.nodes = map[core.NodeName]*peer{}
	}
	t.at = wanted
	for name := range wanted {
		if t.nodes[name] == nil {
			t.nodes[name] = n.newPeer(name)
		}
	}
}

func (n *Node) newPeer(name core.NodeName) *peer {
	ctx, stop := context.WithCancel(n.ctx)
	p := &peer{name: name, stop: stop, kick: make(chan struct{}, 1), nudge: make(chan struct{}, 1)}
	n.spawn(func() { n.keepSession(ctx, p) })
	return p
}

// members returns the nodes that the cluster should have: those of the ledger, else those of the file.
func (n *Node) members() []core.NodeSpec {
	if nodes := n.View().Config.Nodes; len(nodes) > 0 {
		return nodes
	}
	return n.cfg.Peers
}

// now returns the time since the node was opened.
func (n *Node) now() time.Duration { return time.Since(n.opened) }

func (n *Node) markHeard(p *peer) { p.heard.Store(int64(n.now())) }

// nudgeAll has every session exchange hellos now.
func (n *Node) nudgeAll() {
	for _, p := range n.peers.all() {
		poke(p.nudge)
	}
}

// suffrage returns the vote of a server in a Raft configuration, and whether it is in it at all.
func suffrage(c raft.Configuration, id raft.ServerID) (raft.ServerSuffrage, bool) {
	for _, s := range c.Servers {
		if s.ID == id {
			return s.Suffrage, true
		}
	}
	return raft.Nonvoter, false
}

func isVoter(c raft.Configuration, id raft.ServerID) bool {
	s, ok := suffrage(c, id)
	return ok && s == raft.Voter
}
