package core

import (
	"fmt"
	"time"
)

// Policy follow with a limit: an owner whose server has become read-only keeps the address for a while, as long as nobody else
// could take it. Reads go on then, and connections last over a moment in which no server is writable.

// unwritableFrom returns since when a server is known to be read-only, 0 if it is not: a look that does not tell changes nothing.
func unwritableFrom(since, now Instant, writable Tri) Instant {
	switch {
	case writable == Yes:
		return 0
	case writable == No && since == 0:
		return max(now, 1)
	}
	return since
}

// keptUntil returns until when this node keeps a group although its server is read-only, 0 if it does not. It is for a group
// that was bound in this epoch: the first claim needs a server that is fit for it.
func (m *Machine) keptUntil(g GroupState) Instant {
	h := m.held[g.Spec.Name]
	if g.Spec.Policy != Follow || g.Spec.KeepUnwritable == 0 || h == nil || !h.claiming() || !h.proved || h.epoch != g.Epoch ||
		m.health.Writable != No || m.unwritable == 0 {
		return 0
	}
	return m.unwritable.Add(g.Spec.KeepUnwritable.Duration())
}

// kept reports whether this node keeps a group although its server is read-only: inside the limit, and until another node's
// server is fit to serve. One that is writable but can not serve is no reason to leave the address to nobody.
func (m *Machine) kept(g GroupState) bool {
	return m.now.Before(m.keptUntil(g)) && m.fitBeside(g) == ""
}

// fitBeside returns a node other than this one that could serve a group now, or nothing.
func (m *Machine) fitBeside(g GroupState) NodeName {
	cs, _ := m.candidates(g.Spec.Name, g)
	for _, c := range cs {
		if c.node != m.opt.Self {
			return c.node
		}
	}
	return ""
}

// sayKept writes down, once for each time that the server becomes read-only, that the group is kept and for how long.
func (m *Machine) sayKept(h *holding, g GroupState) {
	if until := m.keptUntil(g); until != 0 && h.keptSince != m.unwritable && m.kept(g) {
		h.keptSince = m.unwritable
		m.alarm(h, fmt.Sprintf("the local server is read-only, the address is kept for %v", until.Sub(m.now).Round(time.Millisecond)),
			"no other server that could serve is writable")
	}
}

// unwritableFinding says that an owner of policy follow serves with a read-only server, and how long it still may.
func (m *Machine) unwritableFinding(owner NodeStatus, g GroupStatus, add func(string, string, ...any)) {
	keep, since := g.State.Spec.KeepUnwritable.Duration(), m.unwritable
	if owner.Spec.Name != m.opt.Self {
		p := m.peers[owner.Spec.Name]
		if p == nil {
			return // it has not been heard yet
		}
		since = p.unwritable
	}
	if g.State.Spec.Policy != Follow || keep == 0 || since == 0 || g.State.Paused || owner.Report.Health.Writable != No ||
		!serving(owner.Report, g.Name, g.State.Epoch) {
		return
	}
	add("group "+string(g.Name), "The server of its owner %s is read-only, and no other one that could serve is writable: the address is released in %v "+
		"(keep_unwritable), unless a server becomes writable before: make the right one writable.",
		owner.Spec.Name, max(since.Add(keep).Sub(m.now), 0).Round(time.Millisecond))
}
