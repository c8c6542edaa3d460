package consensus

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// standing is what the agent was told of Raft.
type standing struct {
	leads  bool
	term   core.Term // of the leadership
	leader core.NodeName
	voters []core.NodeName
	told   bool // voters were told once
}

// recheck is how often hasten has the watcher look although nothing has called it.
const recheck = 200 * time.Millisecond

// watch tells the agent what changes in Raft. What Raft observes only wakes it: it compares Raft's state with what it
// told last, so no change is lost when wake-ups are.
func (n *Node) watch() {
	var s standing
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.changed:
		case <-n.refit:
			n.setPeers(n.members())
			poke(n.membership)
		}
		if r := n.raft.Load(); r != nil {
			n.tell(&s, r)
		}
	}
}

// tell delivers the differences between s and Raft's present state.
func (n *Node) tell(s *standing, r *raft.Raft) {
	config := r.GetConfiguration().Configuration()
	n.place(config)
	n.judgeConfiguration(config)
	if v := voters(config); !s.told || !slices.Equal(v, s.voters) {
		s.voters, s.told = v, true
		n.deliver(core.VotersChanged{Voters: slices.Clone(v)})
		n.nudgeAll()
	}
	term, leads := leadership(r)
	leads = leads && n.mayLead()
	if s.leads && (!leads || term != s.term) {
		s.leads = false
		n.deliver(core.Deposed{})
	}
	if leads && !s.leads {
		s.leads, s.term = true, term
		n.deliver(core.Elected{Term: term})
		poke(n.membership)
	}
	if l := n.Leader(); l != s.leader {
		s.leader = l
		n.deliver(core.LeaderSeen{Leader: l})
		n.nudgeAll()
	}
}

// place notes for hasten what this node's place among the voters is, so that it need not ask Raft with each sign of life. It
// decides on when Raft looks and never on a vote.
func (n *Node) place(c raft.Configuration) {
	settled, rank := isVoter(c, n.id), rankOf(n.cfg.Self, n.beats.idleFirst(voters(c)), n.Leader())
	was, before := n.settled.Swap(settled), n.rank.Swap(int64(rank))
	if was != settled || before != int64(rank) {
		poke(n.turned)
	}
}

// mayLead is false while this node's disk stands still. Raft is inside the write then and may take itself for the leader,
// but can commit or apply nothing, and the others elect another.
func (n *Node) mayLead() bool { return !n.store.log.standsStill() }

// leadership reads whether Raft leads and in which term, from the same moment.
func leadership(r *raft.Raft) (core.Term, bool) {
	for {
		before := r.CurrentTerm()
		leads := r.State() == raft.Leader
		if r.CurrentTerm() == before {
			return core.Term(before), leads
		}
	}
}

func voters(c raft.Configuration) []core.NodeName {
	var names []core.NodeName
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			names = append(names, nodeOf(s.ID))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// observe has every change that Raft reports wake the watcher.
func (n *Node) observe(r *raft.Raft) {
	r.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.RaftState:
			poke(n.changed)
			poke(n.turned)
		case raft.LeaderObservation, raft.PeerObservation:
			poke(n.changed)
		case raft.RequestPreVoteRequest:
			poke(n.canvassed)
		}
		return false
	}))
	poke(n.changed)
}

// Leader returns the node that Raft takes for the leader, empty if it knows none. It is a hint.
func (n *Node) Leader() core.NodeName {
	r := n.raft.Load()
	if r == nil {
		return ""
	}
	_, id := r.LeaderWithID()
	if id == n.id && !n.mayLead() {
		return ""
	}
	return nodeOf(id)
}

// TransferLeadership asks Raft to make another voter the leader. It returns at once; what comes of it is seen in events.
func (n *Node) TransferLeadership(to core.NodeName) {
	r := n.raft.Load()
	if r == nil {
		return
	}
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter && nodeOf(s.ID) == to {
			// While Raft tries, it takes no entries. One that leads or follows elsewhere would cost its patience for nothing.
			if h := n.peers.get(to).hello(); h.Leader != n.id {
				n.log.Debug("leadership was not handed on: the node does not follow this one", "to", to, "leader", h.Leader)
				return
			}
			await(r.LeadershipTransferToServer(s.ID, s.Address), func(err error) {
				if err != nil {
					n.log.Warn("leadership was not handed on", "to", to, "error", err)
				}
			})
			return
		}
	}
	n.log.Warn("leadership was not handed on: the node does not vote", "to", to)
}

// Start makes this node take part: it starts Raft where there is state, founds the cluster where all nodes are empty,
// or joins a cluster that is there. It returns once this is under way; errors that come later are in the log and, when
// the node can not go on, in Failed.
func (n *Node) Start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if n.hasState.Load() {
		if err := n.startRaft(); err != nil {
			return err
		}
	} else {
		n.spawn(n.enter)
	}
	n.spawn(n.lead)
	return nil
}
