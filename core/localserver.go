package core

import (
	"fmt"
	"slices"
	"time"
)

// localServer is what the machine does with the MySQL server of its own node for the group of policy promote. There is
// one such group at the most, because a server is writable or it is not.
type localServer struct {
	// demote says that the server is to be read-only; it stays set until that was read back. demotes counts the
	// DemoteServers on their way, draining those of them that let transactions go on.
	demote            bool
	demotes, draining int
	demoteAt          Instant // when the next one is due
	tries             int
	epoch             Epoch
	demotedAt         Instant // when it was last read back as read-only
	healthAt          Instant // when the detector last spoke

	promoted  string // what it had executed when it last became writable
	promoting bool   // a PromoteServer is on its way

	freeze    Freeze // the last one that was asked for
	asker     NodeName
	freezing  bool
	frozen    Frozen  // the last answer
	still     bool    // its receiver was stopped by this process, and it follows nobody since
	stillFrom Instant // since when the detector sees that it does not replicate, 0 if it does
	followed  Epoch   // up to which epoch the server follows the owner, as far as this process knows
	following bool
	followAt  Instant
	balks     string // why its receiver did not stop for that when it was last tried, as the log says
	aside     string

	target    target // of a switchover
	reporting Instant
}

// target is this node's part as the target of a switchover.
type target struct {
	move Index // which one
	from Instant
	out  bool
	done *ServerCaughtUp
}

const (
	// Demotions that failed are tried again soon, then less often.
	demoteRetryMin = 20 * time.Millisecond
	demoteRetryMax = time.Second
	// looksAfter is how long the detector may take to see what was done to the server.
	looksAfter = 2 * time.Second
	// followRetry spaces attempts to let the server follow the owner's.
	followRetry = 2 * time.Second
	// stageRepeat spaces the messages that tell how far a switchover is.
	stageRepeat = 20 * time.Millisecond
)

// handleServer takes the events that concern the server.
func (m *Machine) handleServer(ev Event) {
	switch ev := ev.(type) {
	case PromoteAsked:
		m.promoteAsked(ev)
	case RejoinAsked:
		m.rejoinAsked(ev)
	case ServerFrozen:
		m.serverFrozen(ev)
	case ServerPromoted:
		m.serverPromoted(ev)
	case ServerDemoted:
		m.serverDemoted(ev)
	case ServerCaughtUp:
		m.serverCaughtUp(ev)
	case ServerFollows:
		m.serverFollows(ev)
	}
}

// serverMessage takes the datagrams that concern servers.
func (m *Machine) serverMessage(from NodeName, msg Message) {
	switch msg := msg.(type) {
	case Freeze:
		m.freezeAsked(from, msg)
	case Frozen:
		m.frozenCame(from, msg)
	case Drained:
		m.drainedCame(from, msg)
	case CaughtUp:
		m.caughtUp(from, msg)
	}
}

// tendServer does what the local server needs: give up being writable, follow the owner's server, catch up.
func (m *Machine) tendServer(name GroupName, g GroupState) {
	if !m.minds(name, g) {
		return
	}
	s := &m.server
	if m.strayWriter(name, g) && !s.demote {
		m.wantDemoted(name, g.Epoch)
		m.do(Note{Alarm: true, Group: name, Epoch: g.Epoch, Text: "making the local server read-only",
			Reason: "it is writable, and this node does not hold the group"})
	}
	if s.demote && !m.now.Before(s.demoteAt) && s.demotes == s.draining {
		s.demotes++
		s.tries++
		m.do(DemoteServer{Group: name, Epoch: s.epoch})
	}
	m.catchUp(name, g)
	m.followOwner(name, g)
}

// minds reports whether a group has this node look after its server.
func (m *Machine) minds(name GroupName, g GroupState) bool {
	return g.Spec.Policy == Promote && (!g.Retired || m.held[name] != nil) && m.mayOwn() && !m.opt.DryRun
}

// leaveServer forgets that the server is to be read-only, once nothing is held for which it was writable and no group has this
// node look after it any more: the group is gone, or has a policy that leaves servers as they are.
func (m *Machine) leaveServer() {
	s := &m.server
	if !s.demote {
		return
	}
	for h := range m.holdings() {
		if h.spec.Policy == Promote {
			return
		}
	}
	for _, name := range m.groups() {
		if m.minds(name, m.fresh[name]) {
			return
		}
	}
	s.demote = false
	m.do(Note{Text: "the local server is left as it is", Reason: "no group has policy promote on this node any more"})
}

// strayWriter reports whether the local server is writable without this node holding the group. Before the group was ever
// granted nobody has a better claim than the server that is writable already, and with the first grant it goes on.
func (m *Machine) strayWriter(name GroupName, g GroupState) bool {
	s := &m.server
	if g.Epoch == 0 || m.health.State != Healthy || m.health.Writable != Yes {
		return false
	}
	if h := m.held[name]; h != nil && h.claiming() && (h.phase > probing || g.Epoch == 1) {
		return false
	}
	return s.healthAt.After(s.demotedAt) || m.now.Sub(s.demotedAt) > looksAfter
}

// wantDemoted begins to make the local server read-only. It goes on until the server was read back as such.
func (m *Machine) wantDemoted(name GroupName, e Epoch) {
	s := &m.server
	s.demote, s.demoteAt, s.tries, s.epoch = true, m.now, 0, e
}

// quietServer reports whether nothing is on its way that makes the server read-only, or lets it follow: what comes after
// would be undone by it.
func (m *Machine) quietServer() bool {
	s := &m.server
	return !s.demote && s.demotes == 0 && !s.freezing && !s.following && !s.promoting
}

func (m *Machine) serverDemoted(ev ServerDemoted) {
	s := &m.server
	h := m.held[ev.Group]
	since := ""
	s.demotes = max(s.demotes-1, 0)
	if h != nil && h.epoch == ev.Epoch && h.draining {
		h.draining, h.drained, h.reporting = false, &ev, m.now
		s.draining--
		since = m.after(h.stageFrom)
	}
	s.draining = min(s.draining, s.demotes)
	if ev.Err == "" {
		s.demote, s.demotedAt, m.dirty = false, m.now, true
		m.do(Note{Group: ev.Group, Epoch: ev.Epoch, Text: "the local server is read-only", Reason: since})
		return
	}
	if s.demote {
		s.demoteAt = m.now.Add(min(demoteRetryMin<<min(s.tries, 6), demoteRetryMax))
	}
	if s.tries&(s.tries-1) != 0 {
		return // a server that is down all night is not worth a line in each second
	}
	m.do(Note{Alarm: true, Group: ev.Group, Epoch: ev.Epoch, Text: "the local server was not made read-only", Reason: ev.Err})
}

// freezeAsked stops the receiver of the local server for an arbiter that is to choose. A server that is still to be made
// read-only is not asked yet: its set moves. The arbiter asks again.
func (m *Machine) freezeAsked(from NodeName, f Freeze) {
	s := &m.server
	g, known := m.fresh[f.Group]
	h := m.held[f.Group]
	switch {
	case !known || g.Spec.Policy != Promote || f.Epoch != g.Epoch || f.Term < m.view.Office.Term || m.opt.Ready.After(m.now):
		return
	case h != nil && h.claiming() || m.strayWriter(f.Group, g):
		return
	case s.frozen.Round == f.Round && s.frozen.Epoch == f.Epoch && s.frozen.Group == f.Group:
		m.do(Send{To: from, Msg: s.frozen})
		return
	}
	s.freeze, s.asker = f, from
	if m.quietServer() {
		s.freezing = true
		m.do(FreezeServer{Group: f.Group, Epoch: f.Epoch, Round: f.Round})
	}
}

func (m *Machine) serverFrozen(ev ServerFrozen) {
	s := &m.server
	s.freezing, s.followed = false, 0
	if ev.Err == "" && !s.still {
		s.still, s.stillFrom = true, m.now
	}
	if ev.Round == 0 {
		m.receiverStopped(ev)
		return
	}
	if ev.Round != s.freeze.Round || ev.Epoch != m.fresh[ev.Group].Epoch {
		return
	}
	f := Frozen(ev)
	if n := len(f.Executed) + len(f.Received); f.Err == "" && n > 2*MaxSet {
		f.Executed, f.Received = "", ""
		f.Err = fmt.Sprintf("its GTID sets are %d bytes long, and a datagram takes %d", n, 2*MaxSet)
	}
	if f.Err == "" {
		s.frozen = f // what failed is tried again when the arbiter asks again
	}
	m.do(Send{To: s.asker, Msg: f})
}

// receiverStopped takes the answer to what followOwner has asked for. If the receiver goes on, that is tried again after a while,
// and the log says why when it is another reason than before.
func (m *Machine) receiverStopped(ev ServerFrozen) {
	s := &m.server
	if ev.Err != "" {
		s.followAt = m.now.Add(followRetry)
		if ev.Err != s.balks {
			m.do(Note{Alarm: true, Group: ev.Group, Epoch: ev.Epoch, Text: "the local server does not stop its receiver, so it can not follow the owner's",
				Reason: ev.Err})
		}
	}
	s.balks = ev.Err
}

// followOwner lets the local server replicate from the owner's, once that serves.
func (m *Machine) followOwner(name GroupName, g GroupState) {
	s := &m.server
	p := m.peers[g.Owner]
	if g.Owner == "" || g.Owner == m.opt.Self || m.held[name] != nil || g.Move != nil || s.aside != "" || !m.recent(p) {
		return
	}
	r := p.report
	if m.health.State != Healthy || m.health.Writable == Yes || !m.quietServer() || m.now.Before(s.followAt) ||
		r.Health.Writable != Yes || r.Health.Executed == "" || !serving(r, name, g.Epoch) {
		return
	}
	spec, known := m.nodeSpec(g.Owner)
	right := m.health.Source == spec.Server().String()
	if !known || right && (m.health.Replicating == Yes || s.followed == g.Epoch) {
		return
	}
	if m.health.Replicating == Yes && !s.still {
		// What it receives may come from the owner by way of another replica, and then its set outruns the owner's report.
		s.freezing = true
		m.do(FreezeServer{Group: name, Epoch: g.Epoch})
		return
	}
	if !m.comparable(g, p) {
		return
	}
	s.following, s.followAt, s.frozen = true, m.now.Add(followRetry), Frozen{} // its set moves from now on
	m.do(FollowServer{Group: name, Epoch: g.Epoch, Source: spec.Server(), SourceExecuted: r.Health.Executed})
}

// comparable reports whether the executed set in the owner's report has everything of the owner's that the local server can
// have received from it. Else a server that was stopped a moment ago would seem to have what its source lacks.
// One on whose answer the choice of the owner rests was stopped before that, and has nothing that the owner wrote since, unless
// somebody has given it more. An owner that was silent for long may have stood still, and its first reports may be of before.
func (m *Machine) comparable(g GroupState, owner *peer) bool {
	s := &m.server
	asked := g.Grant != nil && slices.Contains(g.Grant.Basis, m.opt.Self) && s.frozen.Group == g.Spec.Name && s.frozen.Epoch == g.Grant.Prev
	return s.still && asked && m.asFrozen() || s.stillFrom != 0 && owner.at.Sub(max(s.stillFrom, owner.steady)) >= looksAfter
}

// asFrozen reports whether the local server has executed nothing that it did not have when it was stopped.
func (m *Machine) asFrozen() bool {
	f := m.server.frozen
	if m.opt.Sets == nil {
		return false
	}
	all, err := m.opt.Sets.Union(f.Executed, f.Received)
	if err != nil {
		return false
	}
	more, err := m.opt.Sets.Missing(m.health.Executed, all)
	return err == nil && more == 0
}

// looked takes note of what the detector sees, and has seen before.
func (s *localServer) looked(now Instant, before, h Health) {
	s.healthAt = now
	if before.State != Healthy && h.State == Healthy {
		s.still, s.stillFrom = false, 0 // it was started again, and may have been built anew from what the owner has by now
	}
	if h.Replicating == Yes && (!s.still || now.Sub(s.stillFrom) > looksAfter) {
		s.still, s.stillFrom = false, 0 // somebody else has started it again
	} else if s.stillFrom == 0 {
		s.stillFrom = max(now, 1)
	}
}

func (m *Machine) serverFollows(ev ServerFollows) {
	s := &m.server
	s.following = false
	note := Note{Group: ev.Group, Epoch: ev.Epoch}
	switch {
	case ev.Errant != "":
		s.aside = cut("it has transactions that the owner lacks: "+ev.Errant, MaxReason)
		note.Alarm, note.Text, note.Reason = true, "the local server is set aside", s.aside
		m.dirty = true
	case ev.Err != "":
		note.Alarm, note.Text, note.Reason = true, "the local server does not follow the owner's", ev.Err
	default:
		s.followed, s.still, s.stillFrom = ev.Epoch, false, 0
		note.Text = "the local server follows the owner's"
	}
	s.followAt = m.now.Add(followRetry)
	m.do(note)
}

// rejoinAsked lets a server that was set aside be compared again. It is not touched if it still has what the owner lacks.
func (m *Machine) rejoinAsked(ev RejoinAsked) {
	if m.server.aside == "" {
		m.do(Answer{Ticket: ev.Ticket, Refused: fmt.Sprintf("the server of %s is not set aside", m.opt.Self)})
		return
	}
	s := &m.server
	s.aside, s.followAt, m.dirty = "", m.now, true
	s.still, s.stillFrom = false, max(m.now, 1) // it may have been built anew from what the owner has by now
	m.do(Answer{Ticket: ev.Ticket})
}

// catchUp does this node's part as the target of a switchover whose old owner is drained, and tells how it went until the
// switchover is over. It keeps nothing that a restart would lose: the stage is in the ledger.
func (m *Machine) catchUp(name GroupName, g GroupState) {
	t := &m.server.target
	if g.Move == nil || g.Move.To != m.opt.Self || !g.Move.Drained || g.Owner == m.opt.Self {
		return
	}
	if t.move != g.Move.Began {
		*t = target{move: g.Move.Began, from: m.now, out: true}
		m.do(Note{Group: name, Epoch: g.Epoch, Text: "the local server catches up", Reason: "switchover from " + string(g.Owner)})
		m.do(CatchUpServer{Group: name, Epoch: g.Epoch, Move: t.move, Executed: g.Move.Executed, Within: g.Spec.Promotion.catchUp()})
	}
	if t.done != nil && !m.now.Before(m.server.reporting) {
		m.server.reporting = m.now.Add(stageRepeat)
		for to := range m.everyone() {
			m.do(Send{To: to, Msg: CaughtUp{Group: name, Epoch: g.Epoch, Move: t.move, Err: t.done.Err}})
		}
	}
}

// serverCaughtUp takes the answer to the question of the present switchover. That of one which was aborted may come as late
// as now, and says nothing of what the owner has written since.
func (m *Machine) serverCaughtUp(ev ServerCaughtUp) {
	t := &m.server.target
	if t.out && ev.Move == t.move && m.fresh[ev.Group].Epoch == ev.Epoch {
		t.out, t.done, m.server.reporting = false, &ev, m.now
		note := Note{Group: ev.Group, Epoch: ev.Epoch, Text: "the local server has all that the owner's has", Reason: m.after(t.from)}
		if ev.Err != "" {
			note.Alarm, note.Text, note.Reason = true, "the local server did not catch up", ev.Err
		}
		m.do(note)
	}
}

// serverWake tells when something of the above is due again.
func (m *Machine) serverWake(earlier func(Instant)) {
	s := &m.server
	if s.demote && s.demotes == s.draining {
		earlier(s.demoteAt)
	}
	if s.target.done != nil {
		if mv := m.promoted().Move; mv != nil && mv.Began == s.target.move && mv.To == m.opt.Self {
			earlier(s.reporting)
		}
	}
}

// promoted returns the state of the group of policy promote; it is empty if there is none.
func (m *Machine) promoted() GroupState {
	for _, name := range m.groups() {
		if g := m.fresh[name]; g.Spec.Policy == Promote && !g.Retired {
			return g
		}
	}
	return GroupState{}
}

func (m *Machine) nodeSpec(n NodeName) (NodeSpec, bool) {
	for _, s := range m.view.Config.Nodes {
		if s.Name == n {
			return s, true
		}
	}
	return NodeSpec{}, false
}

// cut shortens a text for a report, between characters.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && s[limit]&0xC0 == 0x80 {
		limit--
	}
	return s[:limit]
}
