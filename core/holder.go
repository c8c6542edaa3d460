package core

import (
	"fmt"
	"slices"
)

// lapse gives up every holding whose lease is about to end. It comes before everything else in a step.
func (m *Machine) lapse() {
	for h := range m.holdings() {
		if h.claiming() && !m.now.Before(h.last(m.opt.Timing)) {
			m.giveUp(h, "the lease ran out: no majority renewed it")
		}
	}
}

// tend looks at every group: what the ledger gives this node, what it must give up, what is due. Readers come last, because
// whether they may stay can depend on what becomes of the group that the server is promoted for.
func (m *Machine) tend() {
	readers := false
	for _, name := range m.groups() {
		if m.fresh[name].Spec.Role == Reader {
			readers = true
			continue
		}
		m.tendGroup(name)
	}
	if readers {
		for _, name := range m.groups() {
			if m.fresh[name].Spec.Role == Reader {
				m.tendGroup(name)
			}
		}
	}
	m.leaveServer()
}

func (m *Machine) tendGroup(name GroupName) {
	g := m.fresh[name]
	h := m.held[name]
	if h != nil {
		m.tendHolding(h, g)
		h = m.held[name]
	}
	if h == nil {
		m.consider(name, g)
	}
	m.tendServer(name, g)
}

func (m *Machine) tendHolding(h *holding, g GroupState) {
	if h.claiming() {
		if why := m.mustYield(h, g); why != "" {
			m.giveUp(h, why)
		} else if h.phase != waiting && h.phase != bound && !m.now.Before(h.due) {
			m.giveUp(h, h.overdue())
		}
	}
	m.tendPrimary(h, g)
	m.drainAdvised(h, g)
	m.open(h, g)
	switch h.phase {
	case waiting:
		m.await(h, g)
	case bound:
		m.sayKept(h, g)
		m.serve(h)
	case unbinding:
		if !h.unbindOut && !m.now.Before(h.retryAt) {
			m.unbind(h)
		}
	case releasing:
		m.askRelease(h, g)
	}
}

// mustYield returns why a holding has to be given up now, or nothing.
func (m *Machine) mustYield(h *holding, g GroupState) string {
	switch {
	case g.yields(m.opt.Self, h.epoch):
		return g.Grant.Reason
	case g.Epoch != h.epoch || g.Owner != m.opt.Self:
		return fmt.Sprintf("the ledger is at epoch %d, owner %q", g.Epoch, g.Owner)
	case g.Move != nil && g.Spec.Policy != Promote:
		return switchover(g.Move.To, g.Move.Reason)
	case g.awaitsStart() && !m.lingers(h, g):
		return "MHA advises it: " + g.Advice.By
	case g.Next != nil:
		return "the configuration of the group changed"
	case g.Retired:
		return "the configuration has the group no more"
	case !m.mayOwn():
		return "the configuration does not let this node own any more"
	case m.stopping != 0:
		return "the daemon is stopping"
	}
	if why := m.lostPrimary(h); why != "" && g.Spec.Policy == Promote && !g.Paused {
		return why
	}
	return m.unfit(g, true)
}

// mayOwn reports whether the ledger's configuration has this node, and not as a witness. It is taken for granted until
// the ledger has a configuration.
func (m *Machine) mayOwn() bool {
	nodes := m.view.Config.Nodes
	return len(nodes) == 0 || slices.ContainsFunc(nodes, func(n NodeSpec) bool { return n.Name == m.opt.Self && !n.Witness })
}

// unfit returns why this node can not serve a group. A paused group stays where it is whatever MySQL does.
func (m *Machine) unfit(g GroupState, incumbent bool) string {
	if why := m.blocked(g.Spec); why != "" {
		return why
	}
	if g.Paused && incumbent {
		return ""
	}
	spec := m.asAdvised(g)
	if incumbent && m.kept(g) {
		spec.Policy = onAdvice
	}
	_, why := Eligible(spec, m.health, incumbent)
	if why == "" && g.Spec.Role == Reader {
		why = m.unreadable(g.Spec)
	}
	return why
}

// blocked returns what on this node, MySQL apart, keeps it from serving a group.
func (m *Machine) blocked(spec GroupSpec) string {
	spec = m.local(spec)
	if m.hostUnfit != "" {
		return m.hostUnfit
	}
	if m.opt.Unfenced {
		if why := unfencedUnfit(m.ttl()); why != "" {
			return why
		}
	}
	if l, known := m.links[spec.Interface]; known && l.missing {
		return fmt.Sprintf("interface %s is missing", spec.Interface)
	} else if known && !l.up {
		return fmt.Sprintf("link %s is down", spec.Interface)
	}
	if b, ok := m.barred[spec.Name]; ok && m.now.Before(b.until) {
		return b.reason
	}
	if h := m.held[spec.Name]; h != nil && h.phase == unbinding && h.tries > stuckAfter {
		return fmt.Sprintf("what it did in epoch %d can not be undone yet", h.epoch)
	}
	return ""
}

// consider looks at a group that this node does not hold: a new grant is claimed, one that can not be is given back.
func (m *Machine) consider(name GroupName, g GroupState) {
	if g.Owner != m.opt.Self || g.Grant == nil {
		m.removeStray(name, g)
		return
	}
	h := &holding{group: name, epoch: g.Epoch, spec: m.local(g.Spec)}
	switch {
	case g.Epoch <= m.gaveUp[name]:
		return // given up in this epoch; the release is on its way or was overtaken
	case g.Grant.Incarnation != m.opt.Incarnation:
		// Granted to an earlier process of this node. Its leftovers were removed before this one took any step. What it has
		// sent to its server may still be carried out, though.
		h.earlier, h.lease = true, m.opt.Ready
		m.handBack(h, "the daemon was restarted")
		return
	}
	if sent, known := m.sentFor(g.Grant.Seq, g.Grant.TTL.Duration()); known {
		h.lease, h.rests = sent.Add(g.Grant.TTL.Duration()), g.Grant.Seq
	}
	if m.tooLate(h) {
		m.handBack(h, "the grant came too late")
		return
	}
	if why := m.mustYield(h, g); why != "" {
		m.handBack(h, why)
		return
	}
	m.held[name] = h
	h.phase = waiting
	m.await(h, g)
}

// local returns spec with the interface that carries the group on this node.
func (m *Machine) local(spec GroupSpec) GroupSpec {
	name, known := m.interfaces[spec.Name]
	if !known {
		name = m.interfaces[""]
	}
	if name != "" {
		spec.Interface = name
	}
	return spec
}

// serve does what an owner owes from time to time: announcements and the kernel's lifetime.
func (m *Machine) serve(h *holding) {
	if !m.now.Before(h.nextRound) && !m.mayBeGone(h) {
		m.announce(h)
	}
	if m.now.Sub(h.extended) >= m.extendEvery() {
		m.extend(h)
	}
}

func (m *Machine) announce(h *holding) {
	plan := announcePlan()
	h.announces++
	h.nextRound = m.now.Add(refreshEvery)
	if h.announces < len(plan) {
		h.nextRound = m.now.Add(plan[h.announces] - plan[h.announces-1])
	}
	m.claimBegins(h)
	m.do(Announce{Group: h.group, Epoch: h.epoch, Spec: h.spec, NotAfter: h.last(m.opt.Timing), Round: h.announces})
}

// acked prolongs leases, from the moment at which the acked report was sent.
func (m *Machine) acked(a Ack) {
	sent, known := m.sentFor(a.Seq, a.TTL)
	if a.Incarnation != m.opt.Incarnation || !known {
		return
	}
	m.ackedSeq = max(m.ackedSeq, a.Seq)
	for _, ge := range a.Groups {
		h := m.held[ge.Group]
		if h == nil || h.epoch != ge.Epoch || !h.claiming() || !sent.Add(a.TTL).After(h.lease) {
			continue
		}
		h.lease, h.rests = sent.Add(a.TTL), a.Seq
		m.prolong(h)
		if h.shut != 0 && a.Seq > h.shut {
			h.shut, m.dirty = 0, true // the fence opens with the next report, so that comes now
		}
		m.dirty = m.dirty || m.shutsSoon(h)
	}
}

// shutsSoon reports whether the kernel's fence would close before the next report that is due opens it by a later one. A grant may
// rest on a report that is old by then, and acks get lost.
func (m *Machine) shutsSoon(h *holding) bool {
	if !m.opt.Fence || h.phase != bound {
		return false
	}
	sent, known := m.sentAt(h.opened)
	return !known || sent.Add(m.ttl()).Before(m.now.Add(3*m.opt.Timing.Heartbeat/2))
}

func (m *Machine) note(h *holding, text, reason string) {
	m.do(Note{Group: h.group, Epoch: h.epoch, Text: text, Reason: reason})
}

func (m *Machine) alarm(h *holding, text, reason string) {
	m.do(Note{Alarm: true, Group: h.group, Epoch: h.epoch, Text: text, Reason: reason})
}
