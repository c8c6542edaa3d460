package core

import (
	"iter"
	"slices"
	"time"
)

// sentRing is how many of its own reports a node remembers. An ack for an older one renews nothing.
const sentRing = 128

type sentReport struct {
	seq Seq
	at  Instant
	// ttl is how long the report lives in the kernel.
	ttl time.Duration
}

// report tells the others what this node is and holds: at each heartbeat, and at once when it has changed. A node that holds
// nothing reports at every second one, together with what it says in a confirm round if there is one about that time: the others
// are awake then to hear it, and so is this node. Who does not lead, this node too, is told every second time, as long as nothing is
// new.
func (m *Machine) report() {
	due := m.nextReport
	if m.riding && len(m.held) == 0 {
		due = due.Add(-m.opt.Timing.Heartbeat / 2)
	}
	m.riding = false
	if m.now.Before(due) && !m.dirty {
		return
	}
	m.toldAll = m.allListen()
	m.dirty = false
	m.measure()
	m.seq++
	m.sent[m.seq%sentRing] = sentReport{seq: m.seq, at: m.now, ttl: m.ttl()}
	m.nextReport = m.now.Add(m.opt.Timing.Heartbeat)
	if len(m.held) == 0 { // nothing is to be renewed, and a lease that rests on a report of this age is long enough
		m.nextReport = m.nextReport.Add(m.opt.Timing.Heartbeat + roundLate(m.opt.Timing))
	}
	r := Report{
		Incarnation: m.opt.Incarnation, Seq: m.seq, Health: m.health, Leaving: m.stopping != 0,
		Starting: m.opt.Ready.After(m.now), DryRun: m.opt.DryRun, Unfenced: m.opt.Unfenced, Release: m.opt.Release, Aside: m.server.aside,
		Holds: m.reported(),
	}
	if m.offered != nil {
		r.Config = m.offered.Version
	}
	for spec := range m.specs() {
		if why := m.blocked(spec); why != "" {
			r.Blocked = append(r.Blocked, Blocked{Group: spec.Name, Reason: why})
		}
		if m.foreignHere(spec.Name, spec) {
			r.Foreign = append(r.Foreign, spec.Name)
		}
	}
	if m.opt.Fence {
		m.do(Arm{Seq: m.seq, TTL: m.ttl(), Open: m.openings(), Leads: m.arb.elected != 0 || m.arb.term != 0})
	}
	var msg Message = r // one copy for all
	for to := range m.everyone() {
		if m.toldAll || to == m.leader {
			m.do(Send{To: to, Msg: msg})
		}
	}
}

// allListen reports whether the next report goes to all nodes, and not to the leader alone. To wake the others for what they know costs
// more than anything else that an idle cluster does. A report goes to all if something is new in it, if the one before did not, and
// if it may be for another to renew what this node holds: the leader is not known, or has not acked the last report.
func (m *Machine) allListen() bool {
	return m.dirty || !m.toldAll || m.leader == "" || len(m.held) > 0 && m.ackedSeq != m.seq
}

// roundLate is how long a report that is due waits for a confirm round to go with. The rounds come with an owner's reports, which
// are never early and mostly a little late.
func roundLate(t Timing) time.Duration { return t.Heartbeat / 8 }

// reported returns what this node holds as others are told it. Reports that tell the same share the list, which is never
// written to again: they are read elsewhere long after this step.
func (m *Machine) reported() []Holding {
	n, same := 0, true
	for h := range m.holdings() {
		same = same && n < len(m.told) && m.told[n] == h.told()
		n++
	}
	if same && n == len(m.told) {
		return m.told
	}
	m.told = slices.Grow([]Holding(nil), n)
	for h := range m.holdings() {
		m.told = append(m.told, h.told())
	}
	return m.told
}

// openings returns the groups that are served, with the reports that their leases rest on, by which the fence opens with this one.
func (m *Machine) openings() []Opening {
	var open []Opening
	for h := range m.holdings() {
		if h.phase == bound {
			if open == nil {
				open = make([]Opening, 0, len(m.held))
			}
			h.opened = h.rests
			open = append(open, Opening{Group: h.group, Epoch: h.epoch, Addresses: h.spec.Addresses, Report: h.rests})
		}
	}
	return open
}

// specs goes through all groups that a report speaks of: those of the ledger, and those of the file that are not in it yet. A
// node hears of a new group only after the arbiter may have granted it, and must have said by then what stands against it.
func (m *Machine) specs() iter.Seq[GroupSpec] {
	return func(yield func(GroupSpec) bool) {
		for _, name := range m.groups() {
			if !yield(m.fresh[name].Spec) {
				return
			}
		}
		if m.offered == nil {
			return
		}
		for _, spec := range m.offered.Groups {
			if _, known := m.fresh[spec.Name]; !known && !yield(spec) {
				return
			}
		}
	}
}

// sentAt returns when the report seq was sent.
func (m *Machine) sentAt(seq Seq) (Instant, bool) {
	s := m.sent[seq%sentRing]
	return s.at, s.seq == seq && seq != 0
}

// sentFor returns when the report seq was sent, if a lease of length ttl may rest on it. With a fence it may not when the
// report lives longer in the kernel than that: the length of leases has just been shortened.
func (m *Machine) sentFor(seq Seq, ttl time.Duration) (Instant, bool) {
	at, known := m.sentAt(seq)
	return at, known && (!m.opt.Fence || m.sent[seq%sentRing].ttl <= ttl)
}
