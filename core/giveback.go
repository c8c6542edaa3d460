package core

import (
	"fmt"
	"time"
)

// Giving a group back to the node that gave it up under an operation that came to nothing. MHA has no step of its own for
// that: killed between stop and start it leaves the old primary read-only like all others.

// maxUndos is how often a server is tried to be made writable again after one operation, undoAgain what is between that.
const (
	maxUndos  = 3
	undoAgain = 10 * time.Second
)

// undo is what this arbiter knows of its attempts after an operation.
type undo struct {
	id      uint64 // of the operation
	epoch   Epoch  // of the last attempt
	at      Instant
	tries   int
	served  bool   // it was one that succeeded
	refused string // why there was none at last
	// taken is a node whose server was writable meanwhile: somebody may have written there, so nothing is as it was.
	taken NodeName
}

// undoForbidden returns why the server of a node must not be made writable again, or nothing. What is not known counts as what
// forbids it: a server that is not heard of may be writable, and may be so because MHA goes on.
func (m *Machine) undoForbidden(from NodeName) string {
	for _, n := range m.view.Config.Nodes {
		if n.Witness {
			continue
		}
		p := m.peers[n.Name]
		if !m.recent(p) {
			return fmt.Sprintf("%s is not heard, so it is not known whether its server is read-only", n.Name)
		}
		h := p.report.Health
		switch {
		case h.State != Healthy || h.Writable == Unknown:
			return fmt.Sprintf("it is not known whether the server of %s is read-only", n.Name)
		case h.Writable == Yes && n.Name != from:
			return fmt.Sprintf("the server of %s is writable", n.Name)
		case h.Source != "" && n.Name == from:
			return fmt.Sprintf("the server of %s replicates from %s by now", n.Name, h.Source)
		case h.MHAActs == Yes:
			return fmt.Sprintf("MHA's failover lock is held on the server of %s", n.Name)
		case h.MHAWatches == Yes:
			return fmt.Sprintf("MHA's monitor lock is held on the server of %s", n.Name)
		case h.MHAActs == Unknown || h.MHAWatches == Unknown:
			return fmt.Sprintf("it is not known whether MHA's locks are held on the server of %s", n.Name)
		}
	}
	return ""
}

// giveBackForbidden returns why a group is not given back with a server that has to be made writable again, or nothing.
func (m *Machine) giveBackForbidden(name GroupName, g GroupState) string {
	from := g.Advice.From
	n, member := m.nodeSpec(from)
	advised := g
	advised.Spec.Policy = onAdvice
	switch {
	case !member || n.Witness:
		return fmt.Sprintf("%s is no node that could own any more", from)
	case g.Paused:
		return "the group is paused"
	}
	if why := m.unqualified(n, name, advised); why != "" {
		return fmt.Sprintf("%s can not take it: %s", from, why)
	}
	if u := m.arb.undos[name]; u.id == g.Advice.ID && u.taken != "" {
		return fmt.Sprintf("the server of %s was writable meanwhile", u.taken)
	}
	return m.undoForbidden(from)
}

// undoOp makes the grant that gives a group back. The others are watched by then.
func (m *Machine) undoOp(name GroupName, g GroupState) (Op, Instant) {
	op, notAfter := m.grantTo(name, g, g.Advice.From, cut("given back, its server becomes writable again: "+g.Advice.unstarted(), MaxReason))
	op.Grant.Undo, op.Grant.Waive = true, Millis((openWithin + looksAfter).Milliseconds())
	u := m.arb.undos[name]
	u.epoch, u.at, u.tries, u.refused = g.Epoch+1, m.now, u.tries+1, ""
	m.arb.undos[name] = u
	return op, notAfter
}

// toUndo reports whether a group waits for being given back after an operation that is over. One that was given back and has
// not served since, because the grant came too late, say, is tried again.
func (m *Machine) toUndo(name GroupName, g GroupState) bool {
	u := m.arb.undos[name]
	switch {
	case g.Owner != "" || g.Advice == nil || !g.Advice.Over || !g.Advice.undoable():
		return false
	case g.Advice.Given == "":
		return true
	}
	return u.id == g.Advice.ID && u.epoch == g.Epoch && !u.served && u.tries < maxUndos && m.now.Sub(u.at) >= undoAgain
}

// giveBack proposes to give a group back once nothing stands against it any more. Why it does not is said once.
func (m *Machine) giveBack(name GroupName, g GroupState) {
	if !m.toUndo(name, g) {
		return
	}
	m.watchOthers(name, g)
	u := m.arb.undos[name]
	why := m.giveBackForbidden(name, g)
	if why == "" {
		op, notAfter := m.undoOp(name, g)
		m.arb.inflight[name] = m.propose(notAfter, op)
		return
	}
	if u.refused != why {
		u.refused = why
		m.arb.undos[name] = u
		m.do(Note{Alarm: true, Group: name, Epoch: g.Epoch, Text: fmt.Sprintf("not given back to %s, whose server is read-only", g.Advice.From), Reason: why})
	}
}

// watchOthers takes note of servers that become writable while an operation may still have to be undone.
func (m *Machine) watchOthers(name GroupName, g GroupState) {
	u := m.arb.undos[name]
	if u.id != g.Advice.ID {
		u = undo{id: g.Advice.ID}
	}
	if u.taken == "" {
		u.taken = m.writableBeside(g.Advice.From)
	}
	m.arb.undos[name] = u
}

// writableBeside returns a node other than one whose server is writable as far as is known, or nothing.
func (m *Machine) writableBeside(one NodeName) NodeName {
	for _, n := range m.view.Config.Nodes {
		if p := m.peers[n.Name]; n.Name != one && m.recent(p) && p.report.Health.State == Healthy && p.report.Health.Writable == Yes {
			return n.Name
		}
	}
	return ""
}

// undone takes note that a group which was given back is served.
func (m *Machine) undone(name GroupName, g GroupState) {
	if u := m.arb.undos[name]; u.id != 0 && u.epoch == g.Epoch && !u.served && m.serves(g.Owner, name, g.Epoch) {
		u.served = true
		m.arb.undos[name] = u
	}
}
