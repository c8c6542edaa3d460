package sim

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// win makes a candidate the leader. It tells the machine at once, before anything is committed in the new term.
func (r *raft) win() {
	w := r.w()
	w.or.elected(r.term, r.n.id)
	r.role = leading
	r.setLeader(r.n.id)
	for i := range w.nodes {
		r.next[i], r.match[i], r.contact[i] = r.last()+1, 0, w.now
	}
	r.num++
	r.beatsGoOn = w.dice.chance(0.5)
	r.news()
	r.append(nil)
	r.beat()
}

// stepDown ends a leadership. What was proposed and not committed may still be: its end is unknown.
func (r *raft) stepDown() {
	was := r.role
	r.role, r.asking = follower, false
	if was != leading {
		return
	}
	r.num++
	for _, p := range r.pending {
		r.n.deliverAfter(0, core.ProposalFailed{ID: p.id, Reason: "leadership was lost"})
	}
	r.pending = r.pending[:0]
	r.setLeader(-1)
	r.deadline = r.w().now + int64(r.timeout())
	r.news()
}

// news tells the machine whether this node leads. The teller looks when it gets to it, so of several changes in a short
// time it may see the last only.
func (r *raft) news() {
	w := r.w()
	r.newsAt = max(r.newsAt, r.n.newsStall, w.now+int64(w.dice.about(w.plan.mailbox)))
	w.q.push(r.newsAt, item{kind: processCall, node: int8(r.n.id), gen: r.n.gen, call: func() {
		if r.role == leading {
			r.n.proc.step(core.Elected{Term: r.term})
		} else {
			r.n.proc.step(core.Deposed{})
		}
	}})
}

// append writes an entry to the leader's own disk first, then sends it to the others.
func (r *raft) append(cmd *core.Command) {
	term := r.term
	r.persist(func() {
		if r.role != leading || r.term != term {
			if cmd != nil {
				r.n.deliverAfter(0, core.ProposalFailed{ID: cmd.ID, Known: true, Reason: "not the leader any more"})
			}
			return
		}
		r.log = append(r.log, entry{term: term, cmd: cmd})
		if cmd != nil {
			r.pending = append(r.pending, pending{id: cmd.ID, index: r.last()})
		}
		r.match[r.n.id] = r.last()
		r.replicate(true)
		r.advance()
	})
}

// propose is Raft's Apply.
func (r *raft) propose(cmd core.Command) {
	if r.role != leading {
		r.n.deliverAfter(0, core.ProposalFailed{ID: cmd.ID, Known: true, Reason: "not the leader"})
		return
	}
	r.append(&cmd)
}

// beatTimer sends heartbeats and looks whether a majority still answers.
func (r *raft) beatTimer() {
	w := r.w()
	if r.role != leading {
		return
	}
	if r.writing > 0 {
		if r.beatsGoOn {
			r.replicate(false)
		}
		r.armBeat()
		return
	}
	answering := 1
	for i := range w.nodes {
		if i != r.n.id && w.now-r.contact[i] <= 2*int64(w.plan.timing.RaftHeartbeat) {
			answering++
		}
	}
	if 2*answering <= len(w.nodes) {
		r.stepDown()
		return
	}
	r.beat()
}

func (r *raft) beat() {
	r.replicate(true)
	r.armBeat()
}

func (r *raft) armBeat() {
	w := r.w()
	every := w.plan.timing.RaftHeartbeat * 2 / 5
	w.q.push(w.now+int64(w.dice.between(every*3/4, every)), item{kind: raftBeat, node: int8(r.n.id), gen: r.n.gen, num: r.num})
}

// replicate sends each follower what it lacks, or a mere heartbeat.
func (r *raft) replicate(full bool) {
	w := r.w()
	for i := range w.nodes {
		if i == r.n.id {
			continue
		}
		at := r.next[i] - 1
		m := &raftMsg{kind: appendEntries, term: r.term, index: at, prevTerm: r.log[at].term, commit: r.commit}
		switch lag := r.commit - at; {
		case !full:
		case w.plan.snapshotAfter > 0 && lag > w.plan.snapshotAfter:
			m.snapshot, m.entries = true, r.log[:r.commit+1:r.commit+1]
		default:
			m.entries = r.log[at+1 : len(r.log) : len(r.log)]
		}
		w.sendRaft(r.n.id, i, m)
	}
}

func (r *raft) entriesStored(from int, m *raftMsg) {
	if m.term > r.term {
		r.catchUp(m.term, nil)
		return
	}
	if m.term < r.term || r.role != leading {
		return
	}
	r.contact[from] = r.w().now
	if !m.ok {
		r.next[from] = max(1, min(r.next[from]-1, m.match+1))
		return
	}
	r.match[from] = max(r.match[from], m.match)
	r.next[from] = max(r.next[from], r.match[from]+1)
	r.advance()
}

// advance commits what a majority has stored, if it is of this term.
func (r *raft) advance() {
	w := r.w()
	before := r.commit
	for index := r.last(); index > r.commit; index-- {
		if r.log[index].term != r.term {
			break
		}
		var have uint8
		for i := range w.nodes {
			if r.match[i] >= index {
				have |= 1 << i
			}
		}
		if r.majority(have) {
			r.learnCommit(index)
			break
		}
	}
	if r.commit == before {
		return
	}
	for len(r.pending) > 0 && r.pending[0].index <= r.commit {
		r.pending = r.pending[1:]
	}
	// Followers learn of a commit with the next message, as a rule soon.
	if w.dice.chance(0.5) {
		r.replicate(true)
	}
}

// transferTo asks another voter to stand at once.
func (r *raft) transferTo(to int) {
	if r.role == leading && to != r.n.id && r.match[to] == r.last() {
		r.w().sendRaft(r.n.id, to, &raftMsg{kind: timeoutNow, term: r.term})
	}
}

// handProposal is the adapter between the machine and Raft: it looks at the clock, then waits for the loop. Now and then
// it takes so long that leadership may have gone and come back meanwhile.
func (n *node) handProposal(a core.Propose) {
	w, p := n.w, n.proc
	w.or.proposing(p, a.Command)
	a.Command = w.opt.Break.command(p, a.Command)
	d := w.dice.between(0, 300*time.Microsecond)
	if w.plan.slowProposals && w.dice.chance(0.05) {
		d = w.dice.between(0, 2*w.plan.timing.TTL)
	}
	w.q.push(w.now+int64(d), item{kind: processCall, node: int8(n.id), gen: n.gen, call: func() {
		if a.NotAfter != 0 && n.clock.at(w.now) > a.NotAfter {
			n.deliverAfter(0, core.ProposalFailed{ID: a.Command.ID, Known: true, Reason: "too late"})
			return
		}
		w.q.push(w.now, item{kind: raftCall, node: int8(n.id), gen: n.gen, call: func() { n.raft.propose(a.Command) }})
	}})
}
