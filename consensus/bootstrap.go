package consensus

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// enter brings a node without state into the cluster. An empty node starts Raft only when some node's Raft configuration
// names its server ID, so it never votes for anybody who does not count it as a voter. The first configuration is
// written by one node alone, the first by name in the file, and only while every node of the file says that it is empty
// and has the same list of nodes.
func (n *Node) enter() {
	var last string
	for {
		start, why, err := n.mayStart()
		if err == nil && start {
			err = n.startRaft()
		}
		if err != nil {
			n.fail(err)
			return
		}
		if start {
			return
		}
		if why != last {
			n.log.Info("waiting to enter the cluster", "reason", why)
			last = why
		}
		select {
		case <-n.helloed:
		case <-time.After(n.lim.mute):
		case <-n.ctx.Done():
			return
		}
	}
}

// mayStart decides whether this empty node can start Raft now; if not, it says why. It founds the cluster when that is
// this node's part.
func (n *Node) mayStart() (start bool, why string, err error) {
	v := n.survey()
	switch {
	case v.listed:
		return true, "", nil
	case v.state != "":
		n.joining.Store(true)
		return false, fmt.Sprintf("node %q has the state of a cluster: asking its leader to take this node in", v.state), nil
	case len(v.silent) > 0:
		return false, "this node is empty, and may found a cluster only when all nodes answer that they are empty too; no answer from " +
			strings.Join(v.silent, ", "), nil
	case v.differs != "":
		return false, fmt.Sprintf("the file of node %q lists other nodes than this node's: make them equal", v.differs), nil
	case n.fileNodes()[0] != n.cfg.Self:
		return false, fmt.Sprintf("all nodes are empty: node %q founds the cluster", n.fileNodes()[0]), nil
	}
	if err := n.found(v.servers); err != nil {
		return false, "", err
	}
	n.log.Info("founded the cluster", "servers", v.servers)
	return true, "", nil
}

// survey is what the nodes of the file have said.
type survey struct {
	servers []raft.ServerID // of all nodes, in the order of their names
	silent  []string        // nodes without a session
	state   core.NodeName   // a node that is not empty
	differs core.NodeName   // a node with another list of nodes
	listed  bool            // a node's Raft configuration names this server
}

func (n *Node) survey() survey {
	var v survey
	names := n.fileNodes()
	for _, name := range names {
		if name == n.cfg.Self {
			v.servers = append(v.servers, n.id)
			continue
		}
		p := n.peers.get(name)
		if p == nil || p.session.Load() == 0 {
			v.silent = append(v.silent, string(name))
			continue
		}
		h := p.said.Load()
		if h == nil { // its first hello has come and is not noted yet
			v.silent = append(v.silent, string(name))
			continue
		}
		v.servers = append(v.servers, h.Server)
		v.listed = v.listed || h.lists(n.id)
		if h.State {
			v.state = name
		}
		if !slices.Equal(h.Nodes, names) {
			v.differs = name
		}
	}
	return v
}

// removal counts what speaks for this node's having been removed from the cluster.
type removal struct {
	mu   sync.Mutex
	term core.Term // the latest of a leader that has been heard
	from time.Time
	done bool
}

// removalAfter is how long leaders must go on saying that this server is not in their configuration, with none of a later
// term that has it. A real leader has committed that long since, or stood down.
const removalAfter = 2 * time.Second

// judgeRemoval looks whether a leader's configuration lacks this Raft server. Such a server can not vote any more, and
// its state is of no use: most often the node was set up anew elsewhere under the same name.
func (n *Node) judgeRemoval(from core.NodeName, h *hello) {
	r := n.raft.Load()
	if r == nil || h.Leader != h.Server || len(h.Servers) == 0 || h.Term < core.Term(r.CurrentTerm()) {
		return
	}
	m := &n.removal
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done || h.Term < m.term {
		return
	}
	m.term = h.Term
	if h.lists(n.id) || n.neverListed(r) {
		m.from = time.Time{}
		return
	}
	if m.from.IsZero() {
		m.from = time.Now()
		return
	}
	if time.Since(m.from) < removalAfter {
		return
	}
	m.done = true
	n.spawn(func() {
		n.retire(fmt.Sprintf("the leader, node %q, has no Raft server %s in its configuration: the node was removed, or set up anew under the same name", from, n.id))
	})
}

// judgeConfiguration looks whether the ledger and Raft have both left this node out.
func (n *Node) judgeConfiguration(c raft.Configuration) {
	if _, listed := suffrage(c, n.id); listed || len(c.Servers) == 0 || n.ledgerHas(n.cfg.Self) {
		return
	}
	m := &n.removal
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.done {
		m.done = true
		n.spawn(func() { n.retire("the configuration has this node no more") })
	}
}

// neverListed reports whether this server does not expect to be in the configuration: it is just being taken in.
func (n *Node) neverListed(r *raft.Raft) bool {
	return len(r.GetConfiguration().Configuration().Servers) == 0
}

// retire stops Raft on a server that was removed.
func (n *Node) retire(why string) {
	r := n.raft.Load()
	if r == nil {
		return
	}
	n.retired.Store(true)
	if err := r.Shutdown().Error(); err != nil {
		n.log.Error("stop Raft", "error", err)
	}
	n.fail(fmt.Errorf("%w: %s; to make this machine a member again, add it to the configuration, stop remora here, move %s away and start it",
		ErrRemoved, why, n.cfg.StateDir))
}
