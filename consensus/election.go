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
//
// As Raft need not look by itself then, its heartbeat timeout is twice the configured one while all is well: a leader
// sends its heartbeats every tenth to fifth of it, and each costs a wake-up of the process. When Raft is to look, the
// timeout is shortened to the configured one, which is what makes it look at once.

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
		timer.Reset(n.hurry(r, started, early))
	}
}

// hurry sets Raft's timers by how Raft is, and returns when to look after it again. early is set when another node has
// asked for a pre-vote.
func (n *Node) hurry(r *raft.Raft, started time.Time, early bool) time.Duration {
	timeout := n.cfg.Timing.RaftHeartbeat
	switch r.State() {
	case raft.Leader:
		n.setTempo(r, true)
		return 8 * timeout
	case raft.Follower:
		if !n.votes(n.id) {
			return 8 * timeout
		}
	default:
		return timeout
	}
	due := latest(r.LastContact(), started).Add(timeout)
	if !early {
		due = due.Add(n.patience(r))
	}
	if wait := time.Until(due); wait > 0 {
		n.setTempo(r, true)
		return wait
	}
	n.setTempo(r, true) // only a timeout that gets shorter makes Raft look
	n.setTempo(r, false)
	return timeout
}

// setTempo sets Raft's timers for calm or for an election. Only hasten calls it.
func (n *Node) setTempo(r *raft.Raft, calm bool) {
	if n.calm == calm {
		return
	}
	c := r.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = n.raftTimeouts(calm)
	if err := r.ReloadConfig(c); err != nil {
		n.log.Error("set Raft's timers", "error", err)
		return
	}
	n.calm = calm
}

// raftTimeouts returns Raft's heartbeat and election timeouts.
func (n *Node) raftTimeouts(calm bool) (heartbeat, election time.Duration) {
	heartbeat = n.cfg.Timing.RaftHeartbeat
	if calm {
		heartbeat *= 2
	}
	return heartbeat, max(n.cfg.Timing.RaftElection, heartbeat)
}

// patience staggers the voters, so that two of them do not split the votes.
func (n *Node) patience(r *raft.Raft) time.Duration {
	names := voters(r.GetConfiguration().Configuration())
	_, leader := r.LeaderWithID()
	names = slices.DeleteFunc(names, func(name core.NodeName) bool { return name == nodeOf(leader) })
	rank := max(slices.Index(names, n.cfg.Self), 0)
	return n.cfg.Timing.RaftHeartbeat / 4 * time.Duration(rank+1)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
