package consensus

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// The library's followers look at their heartbeat timer only once in one to two timeouts, and refuse a pre-vote as long
// as they have not looked themselves: without help it takes two to five heartbeat timeouts until a dead leader is
// replaced. hasten has Raft look when there is something to see: a quarter of a timeout after the leader is overdue, or
// at once when another node asks for a pre-vote. Raft still decides for itself whether the timeout has passed.

// reloadStep is by how much the heartbeat timeout is lengthened and shortened again to make Raft look.
const reloadStep = time.Microsecond

// hasten runs until the node ends.
func (n *Node) hasten(r *raft.Raft) {
	timeout := n.cfg.Timing.RaftHeartbeat
	started := time.Now()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		early := false
		select {
		case <-n.ctx.Done():
			return
		case <-n.canvassed:
			early = true
		case <-n.turned:
		case <-timer.C:
		}
		next := 8 * timeout
		if r.State() == raft.Follower {
			due := latest(r.LastContact(), started).Add(timeout)
			if !early {
				due = due.Add(n.patience(r))
			}
			if wait := time.Until(due); wait > 0 {
				next = wait
			} else {
				n.look(r)
				next = timeout
			}
		}
		timer.Reset(next)
	}
}

// patience staggers the voters, so that two of them do not split the votes.
func (n *Node) patience(r *raft.Raft) time.Duration {
	names := voters(r.GetConfiguration().Configuration())
	_, leader := r.LeaderWithID()
	names = slices.DeleteFunc(names, func(name core.NodeName) bool { return name == nodeOf(leader) })
	rank := max(slices.Index(names, n.cfg.Self), 0)
	return n.cfg.Timing.RaftHeartbeat / 4 * time.Duration(rank+1)
}

// look makes Raft look at its heartbeat timer now: it does so when the timeout gets shorter.
func (n *Node) look(r *raft.Raft) {
	c := r.ReloadableConfig()
	for _, d := range []time.Duration{reloadStep, 0} {
		c.HeartbeatTimeout = n.cfg.Timing.RaftHeartbeat + d
		if err := r.ReloadConfig(c); err != nil {
			n.log.Error("have Raft look at its heartbeat timer", "error", err)
			return
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
