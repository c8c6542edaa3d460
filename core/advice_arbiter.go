package core

import (
	"fmt"
	"slices"
	"time"
)

const (
	// maxAdviceCalls bounds the calls that wait for their end.
	maxAdviceCalls = 32
	// AdviceLimit is how long a call may wait. Leases end long before, so something is wrong then.
	AdviceLimit = 30 * time.Second
)

// Refusals that say nothing about what was asked for: the arbiter is elsewhere, and may be asked the same.
const (
	NotArbiter     = "this node is not the arbiter"
	ArbiterChanged = "the leader changed meanwhile: look at the status and ask again if needed"
)

// adviceDesk is what the arbiter has to do with advice. Like all of the arbiter it is forgotten with the office.
type adviceDesk struct {
	calls []adviceCall
	// opened is when this arbiter has first seen the open operation of a group.
	opened map[GroupName]openAdvice
}

type openAdvice struct {
	id uint64
	at Instant
}

// adviceCall is a call that waits for its end.
type adviceCall struct {
	ev      AdviceAsked
	at      Instant
	cmd     uint64 // the command on its way, 0 if there is none
	id      uint64 // the operation that a stop has opened or found, 1 for a start that was accepted
	refused string // what the ledger said
}

// adviceAsked takes a call up. It is looked at in every step from this one on.
func (m *Machine) adviceAsked(ev AdviceAsked) {
	switch d := &m.arb.advice; {
	case m.arb.term == 0:
		m.do(Answer{Ticket: ev.Ticket, Refused: NotArbiter})
	case len(d.calls) >= maxAdviceCalls:
		m.do(Answer{Ticket: ev.Ticket, Refused: fmt.Sprintf("%d calls wait already", len(d.calls))})
	default:
		d.calls = append(d.calls, adviceCall{ev: ev, at: m.now})
	}
}

func (m *Machine) remarkAsked(ev RemarkAsked) {
	if g, known := m.view.Groups[ev.Group]; m.arb.term == 0 || !known || g.Retired {
		m.do(Answer{Ticket: ev.Ticket, Refused: fmt.Sprintf("this node is not the arbiter, or there is no group %q", ev.Group)})
		return
	}
	id := m.propose(0, Op{Remark: &Remark{Group: ev.Group, Text: ev.Text}})
	m.arb.wishes = append(m.arb.wishes, wish{ticket: ev.Ticket, id: id, group: ev.Group})
}

// tendAdvice carries the calls on and withdraws operations whose start does not come.
func (m *Machine) tendAdvice() {
	d := &m.arb.advice
	for i := range d.calls {
		c := &d.calls[i]
		over, refused := m.carryAdvice(c)
		if over {
			m.do(Answer{Ticket: c.ev.Ticket, Refused: refused})
			c.ev.Group = ""
		}
	}
	d.calls = slices.DeleteFunc(d.calls, func(c adviceCall) bool { return c.ev.Group == "" })
	for _, name := range m.groups() {
		m.expireAdvice(name, m.view.Groups[name])
	}
}

// carryAdvice takes the next step of a call and reports whether it has come to its end, and if that is a refusal, why.
func (m *Machine) carryAdvice(c *adviceCall) (over bool, refused string) {
	g, busy := m.view.Groups[c.ev.Group], m.busy(c.ev.Group)
	switch {
	case c.refused != "":
		return true, c.refused
	case c.cmd == 0 && c.id == 0 && !busy:
		if why := m.beginAdvice(c, g); why != "" {
			return true, why
		}
	case c.cmd != 0 || c.id == 0:
	case c.ev.Stop && (g.Advice == nil || g.Advice.ID != c.id):
		return true, "the operation was closed meanwhile"
	case c.ev.Stop && g.Owner != c.ev.Node:
		return true, ""
	case c.ev.Stop:
	case g.Owner != c.ev.Node:
		return true, fmt.Sprintf("%s did not keep the group: %s", c.ev.Node, g.Reason)
	case m.serves(c.ev.Node, c.ev.Group, g.Epoch):
		return true, ""
	}
	if m.now.Sub(c.at) > AdviceLimit {
		return true, fmt.Sprintf("it did not come to an end within %v", AdviceLimit)
	}
	return false, ""
}

// busy reports whether a command about a group is on its way, or the group itself is.
func (m *Machine) busy(name GroupName) bool {
	_, busy := m.arb.inflight[name]
	return busy || m.view.Groups[name].Handover != nil
}

// serves reports whether the last word of a node is that it serves a group in an epoch.
func (m *Machine) serves(n NodeName, name GroupName, e Epoch) bool {
	p := m.peers[n]
	return m.recent(p) && serving(p.report, name, e)
}

// beginAdvice proposes what a call asks for, or returns why that can not be.
func (m *Machine) beginAdvice(c *adviceCall, g GroupState) string {
	if why := m.adviceRefused(c.ev, g); why != "" {
		return why
	}
	if c.ev.Stop {
		return m.beginStop(c, g)
	}
	return m.beginStart(c, g)
}

// adviceRefused is what stop and start have in common.
func (m *Machine) adviceRefused(ev AdviceAsked, g GroupState) string {
	i := slices.IndexFunc(m.view.Config.Nodes, func(n NodeSpec) bool { return n.Name == ev.Node })
	switch {
	case g.Spec.Name == "" || g.Retired:
		return fmt.Sprintf("there is no group %q", ev.Group)
	case g.Spec.Role != Writer:
		return fmt.Sprintf("%s is a %s group, and the advice is about a primary", ev.Group, g.Spec.Role)
	case g.Spec.Policy == Promote:
		return fmt.Sprintf("group %s has policy promote, so Remora itself promotes: two that promote are one too many, use follow under MHA", ev.Group)
	case i < 0:
		return fmt.Sprintf("there is no node %q", ev.Node)
	case m.view.Config.Nodes[i].Witness:
		return fmt.Sprintf("%s is a witness: it votes and never owns", ev.Node)
	case g.Paused:
		return fmt.Sprintf("group %s is paused: resume it first", ev.Group)
	}
	return ""
}

func (m *Machine) beginStop(c *adviceCall, g GroupState) string {
	ev := c.ev
	switch {
	case g.awaitsStart() && g.Advice.From == ev.Node:
		c.id = g.Advice.ID // the same advice again, or a second manager with the same one
		return ""
	case g.awaitsStart():
		return fmt.Sprintf("the stop of %s is not followed by its start yet", g.Advice.From)
	case g.Owner != "" && g.Owner != ev.Node:
		return fmt.Sprintf("%s owns %s, in epoch %d, and not %s: the advice is too late, or about another cluster", g.Owner, ev.Group, g.Epoch, ev.Node)
	case m.destination(g) != "":
		return fmt.Sprintf("group %s is on its way to %s already", ev.Group, m.destination(g))
	case !ev.Online && g.Owner == ev.Node && m.servesWell(ev.Node, g):
		return fmt.Sprintf("%s is alive and serves %s in epoch %d: a failover away from it is refused", ev.Node, ev.Group, g.Epoch)
	}
	c.id = m.rng.Uint64() | 1
	op := Advice{ID: c.id, Group: ev.Group, Epoch: g.Epoch, From: ev.Node, Online: ev.Online, Wait: Millis(ev.Wait.Milliseconds()), By: ev.By}
	if ev.Online && ev.Graceful && m.promoted().Spec.Name == "" {
		op.Graceful, op.Drain, op.Writable = true, Millis(ev.Drain.Milliseconds()), m.writableAsOwner(ev.Node, g)
	}
	c.cmd = m.propose(0, Op{Advise: &op})
	m.arb.inflight[ev.Group] = c.cmd
	return ""
}

// writableAsOwner reports whether what makes the server of a node read-only from now on belongs to an operation that opens now:
// it owns the group with a writable server, or it did so when an operation before was opened that is to be undone still.
func (m *Machine) writableAsOwner(n NodeName, g GroupState) bool {
	if g.Owner == "" {
		return g.Advice != nil && g.Advice.Over && g.Advice.Given == "" && g.Advice.From == n && g.Advice.Writable
	}
	p := m.peers[n]
	return g.Owner == n && m.recent(p) && p.report.Health.State == Healthy && p.report.Health.Writable == Yes
}

// drains reports whether the owner of a group with an open operation may still be draining its server, for which its lease
// is renewed.
func (m *Machine) drains(g GroupState) bool {
	o, seen := m.arb.advice.opened[g.Spec.Name]
	return g.Advice.Graceful && (!seen || o.id != g.Advice.ID || m.now.Sub(o.at) < g.Advice.Drain.Duration()+stageGrace)
}

// servesWell reports whether the daemons see a primary serving: it is heard, its server answers and takes writes, the
// addresses are bound.
func (m *Machine) servesWell(n NodeName, g GroupState) bool {
	if !m.serves(n, g.Spec.Name, g.Epoch) {
		return false
	}
	h := m.peers[n].report.Health
	return h.State == Healthy && h.Writable != No
}

func (m *Machine) beginStart(c *adviceCall, g GroupState) string {
	ev := c.ev
	switch {
	case g.Owner == ev.Node && !g.awaitsStart():
		c.id = 1 // it owns the group already: the same advice again
		return ""
	case g.Owner != "" && g.awaitsStart():
		return "" // the old owner is still giving up
	case g.Owner != "":
		return fmt.Sprintf("%s owns %s in epoch %d and no stop has come before: the operation is closed, or there was none",
			g.Owner, ev.Group, g.Epoch)
	}
	i := slices.IndexFunc(m.view.Config.Nodes, func(n NodeSpec) bool { return n.Name == ev.Node })
	advised := g
	advised.Spec.Policy = onAdvice
	if why := m.unqualified(m.view.Config.Nodes[i], ev.Group, advised); why != "" {
		return fmt.Sprintf("%s can not take %s: %s", ev.Node, ev.Group, why)
	}
	op, notAfter := m.grantTo(ev.Group, g, ev.Node, "MHA: "+ev.By)
	op.Grant.Waive = Millis(ev.Waive.Milliseconds())
	op.Grant.Clear = ev.Clear && m.promoted().Spec.Name == ""
	if g.awaitsStart() {
		op.Grant.Advice = g.Advice.ID
	}
	c.id, c.cmd = 1, m.propose(notAfter, op)
	m.arb.inflight[ev.Group] = c.cmd
	return ""
}

// adviceCommitted tells the calls what became of their command.
func (m *Machine) adviceCommitted(id uint64, out Outcome) {
	for i := range m.arb.advice.calls {
		if c := &m.arb.advice.calls[i]; c.cmd == id && c.ev.Group == out.Group {
			c.cmd, c.refused = 0, out.Refused
		}
	}
}

// adviceFailed has calls whose command certainly was not committed begin again.
func (m *Machine) adviceFailed(id uint64) {
	for i := range m.arb.advice.calls {
		if c := &m.arb.advice.calls[i]; c.cmd == id {
			c.cmd, c.id = 0, 0
		}
	}
}

// leaveAdvice ends all calls; the operations stay in the ledger.
func (m *Machine) leaveAdvice() {
	for _, c := range m.arb.advice.calls {
		m.do(Answer{Ticket: c.ev.Ticket, Refused: ArbiterChanged})
	}
}

// expireAdvice withdraws an operation whose start has not come in time. After an online change, to which MHA has no
// rollback, the node that gave up gets the group back if it can serve.
func (m *Machine) expireAdvice(name GroupName, g GroupState) {
	d := &m.arb.advice
	if !g.awaitsStart() {
		delete(d.opened, name)
		return
	}
	if d.opened == nil {
		d.opened = map[GroupName]openAdvice{}
	}
	if d.opened[name].id != g.Advice.ID {
		d.opened[name] = openAdvice{id: g.Advice.ID, at: m.now}
	}
	if g.Advice.undoable() {
		m.watchOthers(name, g)
	}
	if m.now.Sub(d.opened[name].at) < g.Advice.Wait.Duration() || m.busy(name) {
		return
	}
	why := g.Advice.unstarted()
	ops := []Op{{Withdraw: &Withdraw{Group: name, ID: g.Advice.ID, Reason: why}}}
	notAfter := Instant(0)
	if n, member := m.nodeSpec(g.Advice.From); g.Advice.Online && g.Owner == "" && member {
		switch {
		case g.Advice.undoable() && m.readOnly(n.Name) && m.giveBackForbidden(name, g) == "":
			op, late := m.undoOp(name, g)
			ops, notAfter = append(ops, op), late
		case m.unqualified(n, name, g) == "":
			op, late := m.grantTo(name, g, n.Name, "given back: "+why)
			ops, notAfter = append(ops, op), late
		}
	}
	m.do(Note{Alarm: true, Group: name, Epoch: g.Epoch, Text: "advice withdrawn, the group's own policy takes over", Reason: why})
	m.arb.inflight[name] = m.propose(notAfter, ops...)
}

// readOnly reports whether the server of a node is known to be read-only.
func (m *Machine) readOnly(n NodeName) bool {
	p := m.peers[n]
	return m.recent(p) && p.report.Health.Writable == No
}

// adviceFindings says in a sentence that a group waits, or why it is not given back.
func (m *Machine) adviceFindings(name GroupName, g GroupState, add func(format string, args ...any)) {
	switch {
	case g.Owner == "" && g.Advice != nil && g.Advice.Over && g.Advice.Given == "":
		if why := m.giveBackForbidden(name, g); why != "" {
			add("It is not given back to %s, whose server became read-only for MHA's planned change: %s.", g.Advice.From, why)
		}
	case g.awaitsStart():
		add("It waits for MHA's start, at most %v, after the stop of %s (%s).", g.Advice.Wait.Duration(), g.Advice.From, g.Advice.By)
	}
}
