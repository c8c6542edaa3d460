package consensus

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/alarm"
)

// The library's followers look at their heartbeat timer only once in one to two timeouts, and refuse a pre-vote as long
// as they have not looked themselves: without help it takes two to five heartbeat timeouts until a dead leader is
// replaced. hasten has Raft look when there is something to see: a quarter of a timeout after the leader is overdue, or
// at once when another node asks for a pre-vote. Raft still decides for itself whether the timeout has passed.
//
// As Raft need not look by itself then, its heartbeat timeout is thirty times the configured one while all is well, and at
// least calmLeast, for it is a timer of the Go runtime, for which the process wakes several times. When Raft is to look, the timeout is shortened to the configured one, which is what makes it look at once.
//
// A follower's alarm is set anew with each sign of life of the leader, so that it rings only when there is none. That is
// cheap where the process is awake for the sign itself.
//
// A leader has all heartbeats sent at once and rather seldom: beside each confirm round, which wakes the same nodes
// anyway, and beatEvery after the last ones if there was none. Left to itself the library sends to each follower by a
// timer of its own, so nearly every heartbeat wakes a process of two nodes for nothing else.

// calmLeast is the shortest heartbeat timeout that Raft has while all is well.
const calmLeast = 3 * time.Second

// hasten runs until the node ends.
func (n *Node) hasten(r *raft.Raft, timer alarm.Alarm) {
	timeout := n.cfg.Timing.RaftHeartbeat
	started := time.Now()
	looked := started
	defer timer.Stop()
	timer.Reset(timeout)
	for {
		early, riding := false, false
		select {
		case <-n.ctx.Done():
			return
		case <-n.canvassed:
			early = true
		case <-n.riding:
			riding = true
		case <-n.turned:
		case <-n.contacted:
		case <-timer.C():
		}
		timer.Reset(min(n.hurry(r, started, early, riding), recheck))
		if time.Since(looked) >= recheck {
			looked = time.Now()
			poke(n.changed)
		}
	}
}

// sickWait is for how many heartbeat timeouts more a node whose disk has failed leaves it to the others to stand for election.
// Only the next append shows that a disk works again, and without a leader there is none: so it stands in the end.
const sickWait = 4

// beatEvery is the longest time between two heartbeats of a leader, while nothing is lost: two of them fit into the time
// after which a leader without answers stands down.
func (n *Node) beatEvery() time.Duration { return 3 * n.cfg.Timing.RaftHeartbeat / 7 }

// keepBeat has heartbeats sent if they are due, or if a confirm round goes out and they would be soon. It returns when the
// next ones are.
func (n *Node) keepBeat(r *raft.Raft, riding bool) time.Duration {
	n.setTempo(r, leading)
	left := n.beatEvery() - time.Since(n.beaten)
	if left > 0 && !(riding && left < n.beatEvery()/2) {
		return left
	}
	n.beaten = time.Now()
	n.beatNow(r)
	return n.beatEvery()
}

// beatNow makes Raft send its heartbeats by asking it whether it still leads. What it answers is of no interest. While it
// has not answered, its loop stands still or nobody hears it, and the heartbeats are left to the library's own timers.
func (n *Node) beatNow(r *raft.Raft) {
	if n.asking.CompareAndSwap(false, true) {
		await(r.VerifyLeader(), func(error) { n.asking.Store(false) })
	}
}

// hurry sets Raft's timers by how Raft is, and returns when to look after it again. early is set when another node has
// asked for a pre-vote, riding when this one has begun a confirm round.
func (n *Node) hurry(r *raft.Raft, started time.Time, early, riding bool) time.Duration {
	timeout := n.cfg.Timing.RaftHeartbeat
	switch r.State() {
	case raft.Leader:
		return n.keepBeat(r, riding)
	case raft.Follower:
		if !n.settled.Load() {
			return 8 * timeout
		}
	default:
		n.setTempo(r, hurried) // a candidate whom the leader has asked to stand may have been calm
		return timeout
	}
	due := latest(r.LastContact(), started).Add(timeout)
	if !early {
		due = due.Add(n.patience())
		if n.store.log.ails() != nil {
			due = due.Add(sickWait * timeout)
		}
	}
	if wait := time.Until(due); wait > 0 {
		n.setTempo(r, calm)
		return wait
	}
	n.setTempo(r, calm) // only a timeout that gets shorter makes Raft look
	n.setTempo(r, hurried)
	return timeout
}

// tempo says for what Raft's timers are set.
type tempo uint8

const (
	// hurried has Raft stand for election as soon as the configured time is over.
	hurried tempo = iota
	// calm leaves that to hasten.
	calm
	// leading leaves the heartbeats to hasten.
	leading
)

// setTempo sets Raft's timers. Only hasten calls it.
func (n *Node) setTempo(r *raft.Raft, to tempo) {
	if n.tempo == to {
		return
	}
	c := r.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = n.raftTimeouts(to)
	if err := r.ReloadConfig(c); err != nil {
		n.log.Error("set Raft's timers", "error", err)
		return
	}
	n.tempo = to
}

// raftTimeouts returns Raft's heartbeat and election timeouts. A leader sends a heartbeat by itself when a tenth to a
// fifth of the first is over without one, and retries a follower that does not answer after half of it at the latest.
// While a leader's loop waits for the disk, these heartbeats are all that followers hear.
func (n *Node) raftTimeouts(t tempo) (heartbeat, election time.Duration) {
	heartbeat = n.cfg.Timing.RaftHeartbeat
	switch t {
	case leading:
		heartbeat *= 5
	case calm:
		heartbeat = max(30*heartbeat, calmLeast)
	}
	return heartbeat, max(n.cfg.Timing.RaftElection, heartbeat)
}

// patience staggers the voters, so that two of them do not split the votes. One that is spared the heartbeats waits for another Ack.
func (n *Node) patience() time.Duration {
	stagger := n.cfg.Timing.RaftHeartbeat / 4 * time.Duration(n.rank.Load()+1)
	if n.beats.spared() {
		return stagger + n.cfg.Timing.RaftHeartbeat
	}
	return stagger
}

// idleFirst puts voters that own nothing before the others: they hear more of the leader, and are the better place for leadership.
func (b *beats) idleFirst(voters []core.NodeName) []core.NodeName {
	b.mu.Lock()
	defer b.mu.Unlock()
	var idle, own []core.NodeName
	for _, v := range voters {
		if b.owns[v] {
			own = append(own, v)
		} else {
			idle = append(idle, v)
		}
	}
	return append(idle, own...)
}

// rankOf returns the place of a voter among those that may follow the leader.
func rankOf(self core.NodeName, voters []core.NodeName, leader core.NodeName) int {
	rank := 0
	for _, v := range voters {
		if v == self {
			return rank
		}
		if v != leader {
			rank++
		}
	}
	return 0
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
