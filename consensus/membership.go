package consensus

import (
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// ErrRemoved means that this node's Raft server is not in the cluster's configuration any more.
var ErrRemoved = errors.New("this server was removed from the cluster")

// lead does the leader's housekeeping: it takes in the nodes that ask for it and removes those that are no members. It
// keeps no state of its own: each step follows from Raft's configuration, the ledger and the last hellos, so another
// leader can go on at any point.
func (n *Node) lead() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.membership:
		case <-time.After(n.lim.hello):
		}
		r := n.raft.Load()
		if r == nil || r.State() != raft.Leader {
			continue
		}
		if err := n.keepMembers(r); err != nil && n.ctx.Err() == nil {
			n.log.Warn("can not change the set of voters now", "error", err)
		}
	}
}

// keepMembers makes at most one change for each node.
func (n *Node) keepMembers(r *raft.Raft) error {
	if err := n.removeStrangers(r); err != nil {
		return err
	}
	for _, p := range n.peers.all() {
		h := p.said.Load()
		if h == nil || !h.Joining || !n.ledgerHas(p.name) {
			continue
		}
		if err := n.takeIn(r, p.name, h); err != nil {
			return err
		}
	}
	return nil
}

// ledgerHas reports whether the node may be in Raft: it is in the ledger's configuration, or that is empty.
func (n *Node) ledgerHas(name core.NodeName) bool {
	return slices.ContainsFunc(n.members(), func(s core.NodeSpec) bool { return s.Name == name })
}

// takeIn brings a node one step further: first it gets the log without a vote; when it has caught up, the server that
// had its name before is removed and it becomes a voter. The old server counts until then: without its place a
// three-node cluster would need every one of the two others.
func (n *Node) takeIn(r *raft.Raft, name core.NodeName, h *hello) error {
	config := r.GetConfiguration().Configuration()
	s, listed := suffrage(config, h.Server)
	switch {
	case listed && s == raft.Voter:
		return nil
	case !listed && len(h.Servers) > 0 && replaced(config, name):
		// What it remembers is not what the server has promised that took its place. It stops as soon as it has noticed.
		n.log.Info("not taking in a server that was replaced", "node", name, "server", h.Server)
		return nil
	case !listed:
		n.log.Info("taking a node in", "node", name, "server", h.Server)
		return n.change(r.AddNonvoter(h.Server, raft.ServerAddress(h.Server), 0, n.lim.enqueue))
	case !n.caughtUp(r, h):
		return nil
	}
	for _, old := range config.Servers {
		if nodeOf(old.ID) == name && old.ID != h.Server {
			n.log.Info("removing the server that the node had before", "node", name, "server", old.ID)
			if err := n.change(r.RemoveServer(old.ID, 0, n.lim.enqueue)); err != nil {
				return err
			}
		}
	}
	n.log.Info("making a node a voter", "node", name, "server", h.Server)
	return n.change(r.AddVoter(h.Server, raft.ServerAddress(h.Server), 0, n.lim.enqueue))
}

// replaced reports whether the configuration has a server under the node's name.
func replaced(c raft.Configuration, name core.NodeName) bool {
	return slices.ContainsFunc(c.Servers, func(s raft.Server) bool { return nodeOf(s.ID) == name })
}

// nearEnough is how many entries a new node may lack when it becomes a voter.
const nearEnough = 8

func (n *Node) caughtUp(r *raft.Raft, h *hello) bool {
	return h.Running && h.Applied > 0 && h.Applied+nearEnough >= r.CommitIndex()
}

// removeStrangers removes the Raft servers of nodes that are not in the ledger's configuration.
func (n *Node) removeStrangers(r *raft.Raft) error {
	if len(n.View().Config.Nodes) == 0 {
		return nil
	}
	for _, s := range r.GetConfiguration().Configuration().Servers {
		name := nodeOf(s.ID)
		if n.ledgerHas(name) {
			continue
		}
		if name == n.cfg.Self {
			n.log.Info("this node is not in the configuration any more: handing leadership on")
			return n.change(r.LeadershipTransfer())
		}
		n.log.Info("removing a node that is not in the configuration any more", "node", name, "server", s.ID)
		if err := n.change(r.RemoveServer(s.ID, 0, n.lim.enqueue)); err != nil {
			return err
		}
	}
	return nil
}

// errSlow means that a change of the voters was not committed in time. It may be later.
var errSlow = errors.New("the change was not committed in time")

// changeWait bounds the wait for a change of the voters.
const changeWait = 5 * time.Second

// change waits for a change of Raft's configuration.
func (n *Node) change(f raft.Future) error {
	done := make(chan error, 1)
	await(f, func(err error) { done <- err })
	select {
	case err := <-done:
		n.nudgeAll()
		return err
	case <-time.After(changeWait):
		return errSlow
	case <-n.ctx.Done():
		return n.ctx.Err()
	}
}
