package sim

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// entry is an entry of the Raft log; a leader opens its term with one that has no command.
type entry struct {
	term core.Term
	cmd  *core.Command
}

type raftKind uint8

const (
	askVote raftKind = iota
	giveVote
	appendEntries
	appended
	timeoutNow
)

// raftMsg is a message between two Raft nodes. It is never changed after it was sent.
type raftMsg struct {
	kind     raftKind
	pre      bool // of a vote: a question in advance, which changes nothing
	transfer bool // of a vote: the leader itself has asked for this election
	term     core.Term
	index    int // last or previous index
	prevTerm core.Term
	entries  []entry
	commit   int
	snapshot bool // entries is the whole log up to commit
	ok       bool
	match    int
}

type raftRole uint8

const (
	follower raftRole = iota
	candidate
	leading
)

// raft is one node's part of a plain Raft: durable terms, votes and logs, elections with or without a question in
// advance, replication by majority. Its loop stands still while the disk does, and then the node neither notices that
// others have elected a leader nor that it should step down.
type raft struct {
	n *node

	// What the disk keeps. The log is numbered from 1; log[0] is empty.
	term core.Term
	vote int // -1: none in this term
	log  []entry

	role      raftRole
	leader    int // whom this node believes to lead, -1: nobody
	commit    int
	handed    int // up to which entry the state machine was given work
	applyAt   int64
	votes     uint8
	preVotes  uint8
	asking    bool // a question in advance is out
	transfer  bool // this candidacy was asked for by the leader
	deadline  int64
	heard     int64 // last contact with a leader
	num       uint32
	writing   int    // writes to the disk for which the loop stands still
	waiting   []item // what the loop will find when it goes on
	mayVoteAt int64
	next      [maxNodes]int
	match     [maxNodes]int
	contact   [maxNodes]int64
	pending   []pending
	newsAt    int64
	beatsGoOn bool // heartbeats come from a thread of their own, also while the loop stands still
}

// pending is a proposal in the leader's log whose end is not known.
type pending struct {
	id    uint64
	index int
}

func (r *raft) w() *world { return r.n.w }

// start begins after the process has started, with what the disk has kept.
func (r *raft) start() {
	r.role, r.leader, r.votes, r.preVotes, r.asking, r.transfer = follower, -1, 0, 0, false, false
	r.commit, r.handed = 0, 0
	r.pending = r.pending[:0]
	r.writing, r.waiting, r.heard = 0, nil, 0
	r.applyAt, r.newsAt = r.w().now, r.w().now
	r.num++
	r.resetDeadline()
	r.armElection()
}

func (r *raft) last() int { return len(r.log) - 1 }

func (r *raft) majority(votes uint8) bool {
	n := 0
	for i := range r.w().nodes {
		if votes&(1<<i) != 0 {
			n++
		}
	}
	return 2*n > len(r.w().nodes)
}

func (r *raft) timeout() time.Duration {
	t := r.w().plan.timing
	return t.RaftHeartbeat + r.w().dice.between(0, 2*t.RaftElection)
}

func (r *raft) resetDeadline() { r.deadline = max(r.w().now+int64(r.timeout()), r.deadline) }

func (r *raft) armElection() {
	r.w().q.push(r.deadline, item{kind: raftElection, node: int8(r.n.id), gen: r.n.gen})
}

// persist writes to the disk: the loop stands still until that is done, then f runs.
func (r *raft) persist(f func()) {
	w := r.w()
	r.writing++
	done := max(w.now, r.n.diskStall) + int64(w.dice.about(w.plan.disk))
	w.q.push(done, item{kind: processCall, node: int8(r.n.id), gen: r.n.gen, call: func() {
		r.writing--
		f()
		if r.writing == 0 {
			for _, it := range r.waiting {
				w.q.push(w.now, it)
			}
			r.waiting = r.waiting[:0]
		}
	}})
}

// write lets the loop stand still for a write that changes nothing, as snapshots and compactions do.
func (r *raft) write() {
	if r.n.proc != nil {
		r.persist(func() {})
	}
}

// electionTimer looks whether a leader was heard in time.
func (r *raft) electionTimer() {
	w := r.w()
	switch {
	case r.role == leading:
		r.deadline = w.now + int64(w.plan.timing.RaftHeartbeat)
	case w.now < r.deadline:
	case w.now < r.mayVoteAt:
		r.deadline = r.mayVoteAt + int64(r.timeout())
	default:
		r.deadline = w.now + int64(r.timeout())
		r.setLeader(-1)
		if w.plan.preVote {
			r.askInAdvance()
		} else {
			r.stand(false)
		}
	}
	r.armElection()
}

func (r *raft) askInAdvance() {
	r.role, r.asking, r.preVotes = follower, true, 1<<r.n.id
	r.toOthers(&raftMsg{kind: askVote, pre: true, term: r.term + 1, index: r.last(), prevTerm: r.log[r.last()].term})
	if r.majority(r.preVotes) {
		r.stand(false)
	}
}

// stand makes this node a candidate in a new term, once term and vote are on the disk.
func (r *raft) stand(transfer bool) {
	r.asking, r.transfer = false, transfer
	term := r.term + 1
	r.persist(func() {
		r.term, r.vote, r.role, r.votes = term, r.n.id, candidate, 1<<r.n.id
		r.toOthers(&raftMsg{kind: askVote, term: r.term, index: r.last(), prevTerm: r.log[r.last()].term, transfer: transfer})
		if r.majority(r.votes) {
			r.win()
		}
	})
}

func (r *raft) toOthers(m *raftMsg) {
	for i := range r.w().nodes {
		if i != r.n.id {
			r.w().sendRaft(r.n.id, i, m)
		}
	}
}

func (r *raft) receive(from int, m *raftMsg) {
	switch m.kind {
	case askVote:
		r.voteAsked(from, m)
	case giveVote:
		r.voteGiven(from, m)
	case appendEntries:
		r.entriesCame(from, m)
	case appended:
		r.entriesStored(from, m)
	case timeoutNow:
		if m.term == r.term && r.w().now >= r.mayVoteAt {
			r.stand(true)
		}
	}
}

func (r *raft) voteAsked(from int, m *raftMsg) {
	w := r.w()
	leaderAlive := r.role == leading || r.leader >= 0 && w.now-r.heard < int64(w.plan.timing.RaftHeartbeat)
	upToDate := m.prevTerm > r.log[r.last()].term || m.prevTerm == r.log[r.last()].term && m.index >= r.last()
	switch {
	case w.now < r.mayVoteAt:
		return
	case m.pre:
		ok := m.term > r.term && upToDate && !leaderAlive
		w.sendRaft(r.n.id, from, &raftMsg{kind: giveVote, pre: true, term: m.term, ok: ok})
		return
	case m.term < r.term, leaderAlive && !m.transfer && w.plan.preVote:
		w.sendRaft(r.n.id, from, &raftMsg{kind: giveVote, term: r.term})
		return
	}
	ok := upToDate && (m.term > r.term || r.vote < 0 || r.vote == from || w.opt.Break == VoteTwice)
	vote := r.vote
	if m.term > r.term {
		vote = -1
	}
	if ok {
		vote = from
		w.or.voted(r.n)
	}
	if m.term == r.term && vote == r.vote {
		w.sendRaft(r.n.id, from, &raftMsg{kind: giveVote, term: r.term, ok: ok})
		return
	}
	term := m.term
	r.persist(func() {
		if term > r.term {
			r.newTerm(term)
		}
		r.vote = vote
		if ok {
			r.resetDeadline()
		}
		w.sendRaft(r.n.id, from, &raftMsg{kind: giveVote, term: r.term, ok: ok})
	})
}

// newTerm follows into a term that is on the disk.
func (r *raft) newTerm(t core.Term) {
	r.stepDown()
	r.term, r.vote = t, -1
	r.setLeader(-1)
}

// catchUp goes into a later term of which a message speaks.
func (r *raft) catchUp(t core.Term, then func()) {
	r.persist(func() {
		if t > r.term {
			r.newTerm(t)
		}
		if then != nil {
			then()
		}
	})
}

func (r *raft) voteGiven(from int, m *raftMsg) {
	switch {
	case m.pre && m.ok && r.asking && m.term == r.term+1:
		r.preVotes |= 1 << from
		if r.majority(r.preVotes) {
			r.stand(false)
		}
	case m.pre:
	case m.term > r.term:
		r.catchUp(m.term, nil)
	case m.ok && m.term == r.term && r.role == candidate:
		r.votes |= 1 << from
		if r.majority(r.votes) {
			r.win()
		}
	}
}

// entriesCame is a follower's side of replication.
func (r *raft) entriesCame(from int, m *raftMsg) {
	w := r.w()
	if m.term < r.term {
		w.sendRaft(r.n.id, from, &raftMsg{kind: appended, term: r.term})
		return
	}
	if m.term > r.term {
		r.catchUp(m.term, func() { r.entriesCame(from, m) })
		return
	}
	if r.role == leading {
		w.fail(Raft, "%s leads in term %d and hears of another leader, %s", r.n.name, r.term, w.nodes[from].name)
		return
	}
	r.role, r.asking, r.heard = follower, false, w.now
	r.deadline = w.now + int64(r.timeout())
	r.setLeader(from)
	if m.snapshot {
		r.install(from, m)
		return
	}
	if m.index > r.last() || r.log[m.index].term != m.prevTerm {
		w.sendRaft(r.n.id, from, &raftMsg{kind: appended, term: r.term, match: min(m.index, r.last()+1) - 1})
		return
	}
	fresh := m.entries
	at := m.index + 1
	for len(fresh) > 0 && at <= r.last() && r.log[at].term == fresh[0].term {
		at, fresh = at+1, fresh[1:]
	}
	match := m.index + len(m.entries)
	done := func() {
		r.learnCommit(min(m.commit, match))
		w.sendRaft(r.n.id, from, &raftMsg{kind: appended, term: r.term, ok: true, match: match})
	}
	if len(fresh) == 0 {
		done()
		return
	}
	r.persist(func() {
		r.log = append(r.log[:at:at], fresh...)
		done()
	})
}

// install replaces the log by a leader's snapshot. What follows it in the own log stays: the snapshot may be older than
// entries that a majority has stored by now.
func (r *raft) install(from int, m *raftMsg) {
	w := r.w()
	if m.commit <= r.commit {
		w.sendRaft(r.n.id, from, &raftMsg{kind: appended, term: r.term, ok: true, match: r.commit})
		return
	}
	r.persist(func() {
		log := m.entries[:len(m.entries):len(m.entries)]
		if m.commit < r.last() && r.log[m.commit].term == log[m.commit].term {
			log = append(log, r.log[m.commit+1:]...)
		}
		r.log = log
		r.commit, r.handed = m.commit, m.commit
		r.enqueueApply(m.commit, true)
		w.sendRaft(r.n.id, from, &raftMsg{kind: appended, term: r.term, ok: true, match: m.commit})
	})
}

// learnCommit hands what is committed to the state machine.
func (r *raft) learnCommit(index int) {
	for index = min(index, r.last()); r.commit < index; {
		r.commit++
		r.w().or.committed(r.commit, r.log[r.commit])
	}
	for r.handed < r.commit {
		r.handed++
		r.enqueueApply(r.handed, false)
	}
}

// enqueueApply lets the state machine, a thread of its own, work off entries in order.
func (r *raft) enqueueApply(index int, restore bool) {
	w := r.w()
	r.applyAt = max(r.applyAt, r.n.newsStall, w.now) + int64(w.dice.about(w.plan.apply))
	p, e := r.n.proc, r.log[index]
	w.q.push(r.applyAt, item{kind: processCall, node: int8(r.n.id), gen: r.n.gen, call: func() {
		if restore {
			p.restore(index)
		} else if e.cmd != nil {
			p.apply(index, e)
		}
	}})
}

func (r *raft) setLeader(i int) {
	if r.leader == i {
		return
	}
	r.leader = i
	name := core.NodeName("")
	if i >= 0 {
		name = r.w().nodes[i].name
	}
	r.n.deliverAfter(r.w().dice.about(r.w().plan.mailbox), core.LeaderSeen{Leader: name})
}
