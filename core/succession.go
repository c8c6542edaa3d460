package core

import (
	"fmt"
	"time"
)

// succession is the choice of the next owner of a group of policy promote. All reachable servers stop their receivers and
// say what they have; the choice is made on what does not move any more.
type succession struct {
	epoch   Epoch
	round   uint64
	began   Instant
	askedAt Instant
	answers map[NodeName]Frozen
	failing map[NodeName]string // why those that have not stopped their receivers have not, as the log says
	refused string              // why the last round came to nothing
}

// forced is an operator's consent to what a choice may cost.
type forced struct {
	to         NodeName
	acceptLoss bool
}

const (
	// freezeFor bounds the time in which servers must have stopped their receivers and answered.
	freezeFor = time.Second
	// freezeRepeat spaces the questions to those that have not answered.
	freezeRepeat = 25 * time.Millisecond
	// choiceAgain spaces rounds of a choice that comes to nothing.
	choiceAgain = 2 * time.Second
)

// succeed looks for the next owner of a group that nobody holds.
func (m *Machine) succeed(name GroupName, g GroupState, why string) {
	a := &m.arb
	c := a.choices[name]
	if c == nil || c.epoch != g.Epoch {
		c = &succession{epoch: g.Epoch, failing: map[NodeName]string{}}
		a.choices[name] = c
	}
	if held := m.mhaActs(); held != "" && a.forced[name].to == "" {
		c.round = 0 // what servers have said by then may be true no more
		m.refuseChoice(name, g, c, held+": two that promote are one too many")
		return
	}
	if c.round == 0 || m.now.Sub(c.began) >= choiceAgain {
		c.round, c.began, c.askedAt, c.answers = m.rng.Uint64()|1, m.now, 0, map[NodeName]Frozen{}
	}
	m.askFrozen(name, g, c)
	if g.Owner == "" && (m.allFrozen(c) || m.now.Sub(c.began) >= freezeFor) {
		m.conclude(name, g, c, why)
	}
}

// askFrozen asks those that have not answered. A first question goes out while the release is still on its way.
func (m *Machine) askFrozen(name GroupName, g GroupState, c *succession) {
	if c.askedAt != 0 && m.now.Sub(c.askedAt) < freezeRepeat || m.now.Sub(c.began) >= freezeFor {
		return
	}
	c.askedAt = max(m.now, 1)
	for _, n := range m.choosable() {
		if _, ok := c.answers[n.Name]; !ok {
			m.do(Send{To: n.Name, Msg: Freeze{Group: name, Epoch: g.Epoch, Round: c.round, Term: m.arb.term}})
		}
	}
}

// choosable returns the nodes whose servers take part in a choice: those that are heard and whose server answers. What a
// server has that was set aside counts no more, and it is never touched.
func (m *Machine) choosable() []NodeSpec {
	var ns []NodeSpec
	for _, n := range m.view.Config.Nodes {
		p := m.peers[n.Name]
		if !n.Witness && m.recent(p) && p.report.Health.State == Healthy && p.report.Aside == "" && !p.report.Starting && !p.report.DryRun {
			ns = append(ns, n)
		}
	}
	return ns
}

// frozenCame takes the answer of a server. One that fails is asked again and again, and the log says so once for each reason.
func (m *Machine) frozenCame(from NodeName, f Frozen) {
	c := m.arb.choices[f.Group]
	if f.Err != "" {
		if c == nil || c.failing[from] != f.Err {
			m.do(Note{Alarm: true, Group: f.Group, Epoch: f.Epoch, Text: fmt.Sprintf("%s did not stop its receiver", from), Reason: f.Err})
		}
		if c != nil {
			c.failing[from] = f.Err
		}
		return
	}
	if m.arb.term != 0 && c != nil && c.round == f.Round && c.epoch == f.Epoch {
		c.answers[from] = f
		delete(c.failing, from)
	}
}

func (m *Machine) allFrozen(c *succession) bool {
	ns := m.choosable()
	for _, n := range ns {
		if _, ok := c.answers[n.Name]; !ok {
			return false
		}
	}
	return len(ns) > 0
}

// conclude ends a round: with a grant, or with the reason why there is none.
func (m *Machine) conclude(name GroupName, g GroupState, c *succession, why string) {
	to, cost, refused := m.successor(name, g, c)
	if to == "" {
		m.refuseChoice(name, g, c, refused)
		m.endWishes(func(w wish) (bool, string) { return w.moves && w.id == 0 && w.group == name, refused })
		return
	}
	if m.arb.forced[name].acceptLoss {
		why = "an operator has accepted what is lost: " + why
	}
	m.do(Note{Group: name, Epoch: g.Epoch, Text: fmt.Sprintf("%s is chosen", to), Reason: cost})
	if cost != "" {
		why += "; " + cost
	}
	op, notAfter := m.grantTo(name, g, to, cut(why, MaxReason))
	for n := range m.everyone() {
		if _, ok := c.answers[n]; ok {
			op.Grant.Basis = append(op.Grant.Basis, n)
		}
	}
	m.arb.inflight[name] = m.propose(notAfter, op)
}

// refuseChoice remembers why nobody is chosen, and says it once.
func (m *Machine) refuseChoice(name GroupName, g GroupState, c *succession, why string) {
	if why != c.refused {
		m.do(Note{Alarm: true, Group: name, Epoch: g.Epoch, Text: "nobody is promoted", Reason: why})
	}
	c.refused = why
}

// successor returns the node to be promoted and what may be lost by that, or why there is none.
func (m *Machine) successor(name GroupName, g GroupState, c *succession) (to NodeName, cost, refused string) {
	force := m.arb.forced[name]
	ss, refused := m.standings(name, g, c, force)
	if refused != "" {
		return "", "", refused
	}
	owner, last := m.lastOwner(g, c)
	if force.acceptLoss {
		for _, s := range ss {
			if s.node == force.to && s.unfit != "" {
				return "", "", fmt.Sprintf("%s can not be chosen: %s", s.node, s.unfit)
			} else if s.node == force.to {
				return s.node, m.mayBeLost(s, owner, last, ss), ""
			}
		}
		return "", "", fmt.Sprintf("%s has not answered", force.to)
	}
	way := fmt.Sprintf("; `remora promote %s --to NODE --accept-loss` decides it by hand", name)
	if g.Epoch == 0 {
		if refused = m.keepPrimary(ss); refused != "" {
			return "", "", refused + way
		}
	}
	best, refused := choose(m.opt.Sets, ss)
	if best == nil {
		return "", "", refused + way
	}
	if why := lost(m.opt.Sets, *best, owner, last, g.Spec.Promotion.MaxLost); why != "" {
		return "", "", why + way
	}
	return best.node, m.mayBeLost(*best, owner, last, ss), ""
}

// standings puts together what is known of those that have answered.
func (m *Machine) standings(name GroupName, g GroupState, c *succession, force forced) ([]standing, string) {
	if m.opt.Sets == nil {
		return nil, "this daemon was built without the arithmetic of GTID sets"
	}
	var ss []standing
	for _, n := range m.view.Config.Nodes {
		f, ok := c.answers[n.Name]
		if !ok {
			continue
		}
		all, err := m.opt.Sets.Union(f.Executed, f.Received)
		if err != nil {
			return nil, fmt.Sprintf("the sets of %s can not be read: %v", n.Name, err)
		}
		p := m.peers[n.Name]
		s := standing{node: n.Name, executed: f.Executed, all: all, unfit: m.unqualified(n, name, g), priority: n.Priority,
			wanted: force.to == n.Name, failed: m.cooling(p)}
		if s.unfit == "" && !force.acceptLoss {
			s.unfit = m.tooFarBehind(s, p.report.Health.behindNow(), g.Spec.Promotion.MaxLag.Duration())
		}
		ss = append(ss, s)
	}
	return ss, ""
}

// tooFarBehind returns why a server with a lag can not be chosen, or nothing. One that has applied all that it has received
// is not behind, whatever was said of it last; of one that has not an unknown lag may be any.
func (m *Machine) tooFarBehind(s standing, lag, limit time.Duration) string {
	if limit <= 0 || lag >= 0 && lag <= limit {
		return ""
	}
	left, err := m.opt.Sets.Missing(s.all, s.executed)
	switch {
	case err == nil && left == 0:
		return ""
	case lag < 0:
		return fmt.Sprintf("it has %d transactions to apply, how far it is behind is not known, and max_lag is %v", left, limit)
	}
	return fmt.Sprintf("it is %v behind, and max_lag is %v", lag.Round(time.Millisecond), limit)
}

// lastOwner returns who owned the group last, if that node has not answered itself, and what it was last known to have
// executed.
func (m *Machine) lastOwner(g GroupState, c *succession) (owner NodeName, last string) {
	if g.Grant == nil {
		return "", ""
	}
	if _, answered := c.answers[g.Grant.To]; answered {
		return "", ""
	}
	return g.Grant.To, m.executed[g.Grant.To]
}

// grantTo makes the grant of a group to a node. It counts as a lease given now.
func (m *Machine) grantTo(name GroupName, g GroupState, to NodeName, why string) (Op, Instant) {
	p := m.peers[to]
	ttl := m.view.Config.TTL
	m.leaseGiven(name, ttl.Duration(), p.report.Unfenced)
	if g.Spec.Role == Reader {
		m.arb.placing[name] = to
	}
	op := Op{Grant: &Grant{Group: name, Prev: g.Epoch, To: to, Incarnation: p.report.Incarnation, Seq: p.report.Seq, TTL: ttl,
		Unfenced: p.report.Unfenced, Reason: why}}
	return op, p.at.Add(ttl.Duration() - m.opt.Timing.Unbind)
}

// promoteAsked takes an operator's word whom to promote.
func (m *Machine) promoteAsked(ev PromoteAsked) {
	g, known := m.view.Groups[ev.Group]
	n, member := m.nodeSpec(ev.To)
	refuse := func(format string, args ...any) {
		m.do(Answer{Ticket: ev.Ticket, Refused: fmt.Sprintf(format, args...)})
	}
	switch {
	case m.arb.term == 0:
		refuse("this node is not the arbiter")
	case !known || g.Retired || g.Spec.Policy != Promote:
		refuse("there is no group %q of policy promote", ev.Group)
	case !member || n.Witness:
		refuse("there is no node %q that could be promoted", ev.To)
	case g.Owner != "":
		refuse("%s owns %s: `remora switchover` moves it without loss", g.Owner, ev.Group)
	case g.Paused:
		refuse("group %s is paused: resume it first", ev.Group)
	default:
		if why := m.unqualified(n, ev.Group, g); why != "" {
			refuse("%s can not take %s: %s", ev.To, ev.Group, why)
			return
		}
		m.arb.forced[ev.Group] = forced{to: ev.To, acceptLoss: ev.AcceptLoss}
		m.arb.wishes = append(m.arb.wishes, wish{ticket: ev.Ticket, group: ev.Group, to: ev.To, moves: true, epoch: g.Epoch})
		delete(m.arb.choices, ev.Group)
	}
}

func (m *Machine) successionWake(earlier func(Instant)) {
	for name, c := range m.arb.choices {
		g := m.view.Groups[name]
		if _, busy := m.arb.inflight[name]; busy || g.Epoch != c.epoch || g.Owner != "" || c.round == 0 {
			continue
		}
		if m.now.Sub(c.began) < freezeFor {
			earlier(min(c.askedAt.Add(freezeRepeat), c.began.Add(freezeFor)))
		} else {
			earlier(c.began.Add(choiceAgain))
		}
	}
}
