package core

import "time"

// A switchover of a group whose server needs not be drained is no matter for the ledger until it is done: the arbiter asks
// the owner, the owner unbinds and asks for the release on behalf of the node that the operator has named, and release and
// grant are one entry. Where that comes to nothing the intent goes through the ledger, as that of policy promote does.

// yieldWithin is how long an owner has for it. It covers a datagram that was lost, and an owner that does not know the
// question.
const yieldWithin = 250 * time.Millisecond

// yielding is what the arbiter knows of a group whose owner was asked to give it up, or has given it up on an earlier
// arbiter's word.
type yielding struct {
	epoch  Epoch
	to     NodeName
	reason string
	until  Instant // when the intent goes through the ledger, 0 if it needs not
}

// askYield asks the owner of a group to give it up for another node.
func (m *Machine) askYield(name GroupName, g GroupState, to NodeName, reason string) {
	m.arb.yields[name] = yielding{epoch: g.Epoch, to: to, reason: reason, until: m.now.Add(yieldWithin)}
	m.do(Send{To: g.Owner, Msg: YieldRequest{Group: name, Epoch: g.Epoch, To: to, Reason: reason}})
}

// yieldRequested gives a group up because the arbiter asks for it. To give up is always allowed, so nothing rests on who
// asks; a request of another epoch is of another holding.
func (m *Machine) yieldRequested(y YieldRequest) {
	h, g := m.held[y.Group], m.fresh[y.Group]
	if h == nil || h.epoch != y.Epoch || !h.claiming() || g.Spec.Policy == Promote || g.Paused || g.awaitsStart() {
		return // the ledger has the last word
	}
	h.to = y.To
	m.giveUp(h, switchover(y.To, y.Reason))
}

// yieldOverdue puts the intent into the ledger if the owner has not given the group up in time, and reports whether it did.
func (m *Machine) yieldOverdue(name GroupName, g GroupState) bool {
	a := &m.arb
	y, asked := a.yields[name]
	if !asked || y.until == 0 || y.epoch != g.Epoch || m.now.Before(y.until) {
		return false
	}
	delete(a.yields, name)
	id := m.propose(0, Op{Move: &Move{Group: name, Epoch: g.Epoch, To: y.to, Reason: y.reason}})
	a.inflight[name] = id
	for i := range a.wishes {
		if w := &a.wishes[i]; w.moves && w.group == name && w.epoch == y.epoch {
			w.id = id
		}
	}
	return true
}

// destination returns the node that a group is on its way to by an operator's word or the arbiter's own, or nothing.
func (m *Machine) destination(name GroupName, g GroupState) NodeName {
	if g.Move != nil {
		return g.Move.To
	}
	if y, asked := m.arb.yields[name]; asked && y.epoch == g.Epoch {
		return y.to
	}
	return ""
}

// switchover is the reason for giving a group up that a node is to have.
func switchover(to NodeName, reason string) string {
	return ReasonSwitchover + string(to) + ": " + reason
}

func (m *Machine) yieldWake(earlier func(Instant)) {
	for name, y := range m.arb.yields {
		g := m.view.Groups[name]
		if _, busy := m.arb.inflight[name]; !busy && y.epoch == g.Epoch && g.Owner != "" {
			earlier(y.until)
		}
	}
}
