package core

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// arbiter decides who is granted what. It acts only in office: after this node's own TakeOffice command was applied, in
// the term of that log entry, and until a sign of another term. Nothing of it is written down; the next arbiter waits
// instead.
type arbiter struct {
	elected  Term // Raft's word that this node leads; a hint, never a fence
	askedAt  Instant
	officeID uint64 // the TakeOffice command on its way
	term     Term   // in office in this term, 0 if not in office
	since    Instant
	// until is, for each group, the earliest instant at which its last lease is over on its holder for certain.
	until map[GroupName]Instant
	// inflight holds the command of each group whose outcome is not known.
	inflight  map[GroupName]uint64
	rounds    []round
	wishes    []wish
	settleAt  Instant
	configID  uint64
	retryAt   Instant // nothing is proposed until then
	refused   uint64  // up to which version the ledger has refused configurations
	quiet     Instant // since when leadership could be handed to a better place
	handed    Instant
	choices   map[GroupName]*succession
	forced    map[GroupName]forced
	moves     map[GroupName]moveWatch
	handovers map[GroupName]handoverWatch
	// handing holds those commands of inflight that leave the present owner its lease.
	handing map[GroupName]uint64
	advice  adviceDesk
	undos   map[GroupName]undo
	// placing holds to whom each reader group is on its way, pools what is known of each pool.
	placing map[GroupName]NodeName
	pools   map[GroupName]*poolWatch
}

// wish is an operator's request that waits for its end.
type wish struct {
	ticket uint64
	id     uint64 // the command that carries it, 0 if none does
	group  GroupName
	to     NodeName
	epoch  Epoch // the epoch that it leaves
	moves  bool  // it wants the group to come to a node
}

const (
	// maxRounds bounds the rounds that wait for echoes; the oldest is superseded.
	maxRounds = 16
	// officeRetry spaces attempts to take office.
	officeRetry = 50 * time.Millisecond
	// proposeRetry is how long nothing is proposed after a proposal that came to nothing. As a rule Raft leads no more, and
	// the news of that is on its way.
	proposeRetry = 10 * time.Millisecond
	// settled is how long everything must be quiet before leadership is handed to a node that owns nothing.
	settled = time.Second
	// handAgain spaces attempts to hand leadership on.
	handAgain = 10 * time.Second
)

func newArbiter() arbiter {
	return arbiter{until: map[GroupName]Instant{}, inflight: map[GroupName]uint64{}, choices: map[GroupName]*succession{},
		forced: map[GroupName]forced{}, moves: map[GroupName]moveWatch{}, handovers: map[GroupName]handoverWatch{}, handing: map[GroupName]uint64{}, undos: map[GroupName]undo{},
		placing: map[GroupName]NodeName{}, pools: map[GroupName]*poolWatch{}}
}

func (m *Machine) elected(ev Elected) {
	if ev.Term != m.arb.elected {
		m.leaveOffice()
	}
	m.arb.elected, m.arb.askedAt = ev.Term, 0
}

// leaveOffice forgets everything. Wishes end without an answer of ours to rely on, so they are told so.
func (m *Machine) leaveOffice() {
	elected := m.arb.elected
	m.leaveAdvice()
	for _, w := range m.arb.wishes {
		m.do(Answer{Ticket: w.ticket, Refused: ArbiterChanged})
	}
	m.arb = newArbiter()
	m.arb.elected = elected
}

// arbitrate does what the arbiter owes now.
func (m *Machine) arbitrate() {
	a := &m.arb
	if a.term == 0 {
		if a.elected != 0 && (a.askedAt == 0 || m.now.Sub(a.askedAt) >= officeRetry) && a.officeID == 0 {
			a.askedAt = max(m.now, 1)
			a.officeID = m.propose(0, Op{TakeOffice: &TakeOffice{Node: m.opt.Self, Incarnation: m.opt.Incarnation}})
		}
		return
	}
	if m.now.Before(a.retryAt) {
		return
	}
	m.proposeConfig()
	m.tendAdvice()
	for _, name := range m.groups() {
		g, committed := m.view.Groups[name]
		if _, busy := a.inflight[name]; committed && !busy {
			m.decide(name, g)
		}
	}
	m.balance()
	m.handOverToIdle()
}

// propose hands operations to Raft as one command. The ledger refuses what was decided in an office that has ended: Raft
// may have lost and regained leadership without this machine's knowledge, and would commit it in the new term.
func (m *Machine) propose(notAfter Instant, ops ...Op) uint64 {
	id := m.rng.Uint64() | 1
	m.do(Propose{Command: Command{ID: id, By: m.opt.Self, Ops: ops, Office: m.arb.term}, NotAfter: notAfter})
	return id
}

func (m *Machine) proposalFailed(ev ProposalFailed) {
	a := &m.arb
	switch ev.ID {
	case 0:
		return
	case a.officeID:
		a.officeID = 0 // if it is committed after all it opens the office as well
		return
	case a.configID:
		a.configID = 0
	}
	a.retryAt = m.now.Add(proposeRetry)
	m.handoverUnended(ev.ID)
	if !ev.Known {
		return // it may still be committed: as long as this office lasts, nothing else is proposed for that group
	}
	for name, id := range a.inflight {
		if id == ev.ID {
			delete(a.inflight, name)
			delete(a.placing, name)
		}
	}
	m.adviceFailed(ev.ID)
	m.endWishes(func(w wish) (bool, string) { return w.id == ev.ID, "not committed: " + ev.Reason })
}

func (m *Machine) arbiterCommitted(ev Committed) {
	a := &m.arb
	for i, op := range ev.Command.Ops {
		if op.TakeOffice == nil || ev.Outcomes[i].Refused != "" {
			continue
		}
		mine := op.TakeOffice.Node == m.opt.Self && op.TakeOffice.Incarnation == m.opt.Incarnation && ev.Term == a.elected
		if mine && a.term == ev.Term {
			continue // proposed twice; what is on its way by now must not be forgotten
		}
		m.leaveOffice()
		if mine {
			m.enterOffice(ev.Term)
		}
	}
	if a.term == 0 {
		return
	}
	if ev.Command.ID == a.configID {
		a.configID = 0
	}
	for i, op := range ev.Command.Ops {
		switch why := ev.Outcomes[i].Refused; {
		case op.Configure == nil:
		case why == "":
			a.settleAt = m.now.Add(m.leaseWait(m.view.someUnfenced()))
		default:
			a.refused = max(a.refused, op.Configure.Version)
			m.do(Note{Alarm: true, Text: "the configuration was refused", Reason: why})
		}
	}
	for i, out := range ev.Outcomes {
		if out.Group == "" {
			continue
		}
		if a.inflight[out.Group] == ev.Command.ID {
			delete(a.inflight, out.Group)
			delete(a.placing, out.Group)
		}
		if i == len(ev.Outcomes)-1 || ev.Outcomes[i+1].Group != out.Group {
			m.spread(out.Group) // once, with what all its operations led to
		}
		switch op := ev.Command.Ops[i]; {
		case out.Refused != "":
		case op.Abort != nil:
			m.moveAborted(*op.Abort)
		case op.Grant != nil:
			delete(a.choices, out.Group)
			delete(a.forced, out.Group)
		}
		m.adviceCommitted(ev.Command.ID, out)
		m.wishCommitted(ev.Command.ID, ev.Command.Ops[i], out)
	}
}

// enterOffice begins to act in the term of the committed entry. What the arbiter before had acked is not known, so every
// lease that it may have given is waited for, from now; that covers the grants found in the log as well.
func (m *Machine) enterOffice(t Term) {
	a := &m.arb
	a.term, a.since, a.settleAt = t, m.now, m.now.Add(m.leaseWait(m.view.someUnfenced()))
	for name, g := range m.view.Groups {
		if g.Owner != "" {
			a.until[name] = m.now.Add(m.leaseWait(g.unfenced()))
		}
	}
	// Reports that are here already need no second sending.
	for n := range m.everyone() {
		if p := m.peers[n]; m.recent(p) {
			m.renewalAsked(n, p.report, 0)
		}
	}
	m.note(&holding{}, "in office", fmt.Sprintf("term %d", t))
}

// leaseWait is how long the arbiter waits for leases of which it does not know the length and the last renewal.
func (m *Machine) leaseWait(unfenced bool) time.Duration {
	longest := max(m.view.Longest, m.view.Config.TTL).Duration()
	return longest + margin(longest, unfenced)
}

// spread tells all nodes the committed state of a group, which they would hear from their own log some time later.
func (m *Machine) spread(name GroupName) {
	news := NewNotice(name, m.view.Groups[name])
	first := NodeName("")
	if h := m.view.Groups[name].Handover; h != nil {
		first = h.From // the others wait for it
	}
	if first != "" && first != m.opt.Self {
		m.do(Send{To: first, Msg: news})
	}
	for n := range m.everyone() {
		if n != m.opt.Self && n != first {
			m.do(Send{To: n, Msg: news})
		}
	}
}

// decide looks at one group of which no command is on its way.
func (m *Machine) decide(name GroupName, g GroupState) {
	a := &m.arb
	if _, known := a.until[name]; g.Owner != "" && !known {
		a.until[name] = m.now.Add(m.leaseWait(g.unfenced()))
	}
	m.undone(name, g)
	switch {
	case g.Handover != nil:
		m.endHandover(name, g)
	case g.Owner != "" && m.now.Before(a.until[name]) && g.Move != nil && g.Spec.Policy == Promote:
		m.driveMove(name, g)
	case g.Owner != "" && m.now.Before(a.until[name]):
		m.preempt(name, g)
	case g.Owner != "":
		m.lapsed(name, g)
	case g.awaitsStart():
	case !g.Retired && !m.gathering() && g.Spec.Policy == Promote:
		m.succeed(name, g, cmp.Or(g.Reason, "nobody owned it"))
	case g.Spec.Role == Reader && m.gatheringReaders():
	case !g.Retired && !m.gathering():
		if !m.grant(name, g, cmp.Or(g.Reason, "nobody owned it")) {
			m.giveBack(name, g)
		}
	}
}

// lapsed deals with a group whose owner's lease is over for certain. That owner comes last in the choice, even if its
// reports still arrive: our acks may not reach it.
func (m *Machine) lapsed(name GroupName, g GroupState) {
	if p := m.peers[g.Owner]; p != nil {
		p.failed, p.failedAt = true, m.now
	}
	why := fmt.Sprintf("the lease of %s is over", g.Owner)
	if g.Spec.Policy == Promote && !g.awaitsStart() {
		m.endUnchosen(name, g, Op{Release: &Release{Group: name, Epoch: g.Epoch, Node: m.opt.Self, Reason: why}})
		return
	}
	if g.Retired || g.awaitsStart() || !m.grant(name, g, why) {
		if g.Paused && !g.Retired {
			return
		}
		m.arb.inflight[name] = m.propose(0, Op{Release: &Release{Group: name, Epoch: g.Epoch, Node: m.opt.Self, Reason: why}})
	}
}

// gathering reports whether an arbiter new in office still waits for first reports, so that the first to speak does not
// win over a better one. It ends as soon as all have spoken.
func (m *Machine) gathering() bool {
	if m.now.Sub(m.arb.since) >= 2*m.opt.Timing.Heartbeat {
		return false
	}
	return slices.ContainsFunc(m.view.Config.Nodes, func(n NodeSpec) bool { return !n.Witness && !m.recent(m.peers[n.Name]) })
}

// grant proposes the best candidate, if there is one.
func (m *Machine) grant(name GroupName, g GroupState, why string) bool {
	op, notAfter, ok := m.grantOp(name, g, why)
	if ok {
		m.arb.inflight[name] = m.propose(notAfter, op)
	}
	return ok
}

// grantOp makes the grant for the best candidate.
func (m *Machine) grantOp(name GroupName, g GroupState, why string) (Op, Instant, bool) {
	cs, _ := m.candidates(name, g)
	if len(cs) == 0 {
		return Op{}, 0, false
	}
	op, notAfter := m.grantTo(name, g, cs[0].node, why)
	return op, notAfter, true
}

// releaseRequested commits a release, and in the same entry the grant to the successor: one commit for a takeover.
func (m *Machine) releaseRequested(from NodeName, r ReleaseRequest) {
	a := &m.arb
	g, known := m.view.Groups[r.Group]
	if a.term == 0 || !known || !g.awaits(from, r.Epoch) {
		return
	}
	if p := m.peers[from]; p != nil && r.Failed {
		m.serverFailed(p) // or it might be the heir
	}
	if _, busy := a.inflight[r.Group]; busy || g.Handover != nil {
		return
	}
	ops := []Op{{Release: &Release{Group: r.Group, Epoch: r.Epoch, Node: from, Reason: r.Reason, Unproved: r.Unproved}}}
	if g.Spec.Policy == Promote && !g.awaitsStart() {
		m.endUnchosen(r.Group, g, ops[0])
		return
	}
	if !g.Retired && g.Next == nil && !g.awaitsStart() {
		if op, _, ok := m.grantOp(r.Group, g, r.Reason); ok {
			ops = append(ops, op)
		}
	}
	a.inflight[r.Group] = m.propose(0, ops...)
}

// preempt moves a group with preempt = true to a node of higher priority that has been healthy for a cool-down.
func (m *Machine) preempt(name GroupName, g GroupState) {
	if !g.Spec.Preempt || g.Spec.Policy == Promote || g.Paused || g.awaitsStart() || m.destination(g) != "" || g.Retired || g.Next != nil {
		return
	}
	own := m.priority(g.Owner)
	if !slices.ContainsFunc(m.view.Config.Nodes, func(n NodeSpec) bool { return n.Priority > own && !n.Witness }) {
		return // as nearly always: nobody needs to be ranked for that
	}
	cs, _ := m.candidates(name, g)
	if len(cs) == 0 || cs[0].node == g.Owner || cs[0].cooling != 0 || cs[0].priority <= own ||
		m.now.Sub(m.peers[cs[0].node].healthySince) < m.opt.Timing.CoolDown {
		return
	}
	m.arb.inflight[name] = m.propose(0, Op{Move: &Move{Group: name, Epoch: g.Epoch, To: cs[0].node, Reason: ReasonPreempted}})
}

func (m *Machine) priority(n NodeName) int {
	i := slices.IndexFunc(m.view.Config.Nodes, func(s NodeSpec) bool { return s.Name == n })
	if i < 0 {
		return 0
	}
	return m.view.Config.Nodes[i].Priority
}

// proposeConfig offers the file's configuration to the ledger, and forgets longer leases once they are over.
func (m *Machine) proposeConfig() {
	a := &m.arb
	if a.configID != 0 {
		return
	}
	switch {
	case m.offered != nil && m.offered.Version > max(m.view.Config.Version, a.refused):
		a.configID = m.propose(0, Op{Configure: m.offered})
	case m.view.Longest > m.view.Config.TTL && !m.now.Before(a.settleAt):
		a.configID = m.propose(0, Op{Settle: &Settle{Version: m.view.Config.Version}})
	}
}

func (m *Machine) arbiterWake(earlier func(Instant)) {
	a := &m.arb
	if a.elected != 0 && a.term == 0 && a.officeID == 0 {
		earlier(a.askedAt.Add(officeRetry))
	}
	if a.term == 0 {
		return
	}
	if a.retryAt.After(m.now) {
		earlier(a.retryAt)
	}
	m.successionWake(earlier)
	m.handoverWake(earlier)
	m.switchoverWake(earlier)
	for name, g := range m.fresh {
		if _, busy := a.inflight[name]; g.Owner != "" && !busy && a.until[name].After(m.now) {
			earlier(a.until[name]) // once it is over, a report or an operator brings the next change
		}
	}
}
