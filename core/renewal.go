package core

import (
	"slices"
	"time"
)

// renewal names a report that asks for leases.
type renewal struct {
	from        NodeName
	incarnation Incarnation
	seq         Seq
	holds       []GroupEpoch
	// spoke lists the voters that have said, since this report was sent, that the term is theirs, without being asked: its
	// sender by the report itself, and this node by what it was when the report came.
	spoke []NodeName
}

// round is one question to all voters whether the term is still current. It serves every report that had arrived before
// it began and was not acked by then.
type round struct {
	nonce  uint64
	echoes []NodeName
	serves []renewal // at most one of each node
}

// renewalAsked takes up a report that asks for leases, and begins a round for it. own is this node's current term, read
// after the report had come.
func (m *Machine) renewalAsked(from NodeName, r Report, own Term) {
	a := &m.arb
	if a.term == 0 {
		return
	}
	var holds []GroupEpoch
	for _, h := range r.Holds {
		if h.Phase != Yielding && m.renewable(from, r, GroupEpoch{h.Group, h.Epoch}) {
			holds = append(holds, GroupEpoch{h.Group, h.Epoch})
		}
	}
	if len(holds) == 0 {
		return
	}
	asked := renewal{from: from, incarnation: r.Incarnation, seq: r.Seq, holds: holds, spoke: make([]NodeName, 0, 2)}
	if r.Term == a.term && !r.Starting {
		asked.spoke = append(asked.spoke, from)
	}
	if own == a.term && !m.opt.Ready.After(m.now) && from != m.opt.Self {
		asked.spoke = append(asked.spoke, m.opt.Self)
	}
	m.beginRound(asked)
}

// renewable reports whether a lease may be prolonged: the ledger gives the group to this process of the node in this
// epoch, no command that would end the epoch is on its way (one that hands the group over does not), and the server is fit as
// far as the report says.
func (m *Machine) renewable(n NodeName, r Report, ge GroupEpoch) bool {
	g := m.view.Groups[ge.Group]
	if g.Owner != n || g.Epoch != ge.Epoch || g.Grant.Incarnation != r.Incarnation {
		return false
	}
	if id, busy := m.arb.inflight[ge.Group]; busy && id != m.arb.handing[ge.Group] {
		return false
	}
	if g.awaitsStart() && !m.drains(g) {
		return false
	}
	return g.Paused || r.Health.State == Healthy
}

// beginRound asks the voters on behalf of a report. What the rounds before it still serve it serves too, so that a lost
// echo of theirs costs nothing. Those who spoke with the report itself are not asked again for it alone. The others are, even
// if they are not needed: their Echoes are the answers to Raft's heartbeats.
func (m *Machine) beginRound(asked renewal) {
	a := &m.arb
	if len(a.rounds) == maxRounds {
		a.rounds = slices.Delete(a.rounds, 0, 1)
	}
	r := round{nonce: m.rng.Uint64(), serves: []renewal{asked}}
	if n := len(a.rounds); n > 0 {
		for _, before := range a.rounds[n-1].serves {
			if before.from != asked.from {
				r.serves = append(r.serves, before)
			}
		}
	}
	m.riding = true
	alone := len(r.serves) == 1
	a.rounds = append(a.rounds, r)
	m.concludeRound(len(a.rounds) - 1)
	var question Message = Confirm{Term: a.term, Nonce: r.nonce} // one copy for all
	for _, n := range m.voters {
		if !alone || !slices.Contains(asked.spoke, n) {
			m.do(Send{To: n, Msg: question})
		}
	}
}

// echoed counts an echo.
func (m *Machine) echoed(from NodeName, e Echo) {
	a := &m.arb
	i := slices.IndexFunc(a.rounds, func(r round) bool { return r.nonce == e.Nonce })
	if a.term == 0 || e.Term != a.term || i < 0 || slices.Contains(a.rounds[i].echoes, from) {
		return
	}
	a.rounds[i].echoes = append(a.rounds[i].echoes, from)
	m.concludeRound(i)
}

// concludeRound acks what a majority of voters stands behind: that their current term is this arbiter's proves that no other
// arbiter had taken office when the report was sent.
func (m *Machine) concludeRound(i int) {
	r := &m.arb.rounds[i]
	for n := range m.everyone() {
		at := slices.IndexFunc(r.serves, func(asked renewal) bool { return asked.from == n })
		if at < 0 || !m.majority(r.echoes, r.serves[at].spoke) {
			continue
		}
		asked := r.serves[at]
		m.ack(asked)
		m.served(asked, i)
	}
	m.arb.rounds = slices.DeleteFunc(m.arb.rounds, func(r round) bool { return len(r.serves) == 0 })
}

// majority reports whether more than half of the voters are in one of the lists.
func (m *Machine) majority(lists ...[]NodeName) bool {
	count := 0
	for _, v := range m.voters {
		if slices.ContainsFunc(lists, func(l []NodeName) bool { return slices.Contains(l, v) }) {
			count++
		}
	}
	return 2*count > len(m.voters)
}

// served takes a report that was acked in a round out of that and those that went before, whose reports are older, and out
// of those after it that were to serve it as well.
func (m *Machine) served(asked renewal, acked int) {
	for i := range m.arb.rounds {
		r := &m.arb.rounds[i]
		r.serves = slices.DeleteFunc(r.serves, func(s renewal) bool {
			return s.from == asked.from && (i <= acked || s.incarnation == asked.incarnation && s.seq == asked.seq)
		})
	}
}

// ack renews the leases that a report asked for. The look at the ledger comes again, because a grant may have been
// handed to Raft while the round went on.
func (m *Machine) ack(asked renewal) {
	n := asked.from
	p := m.peers[n]
	ttl := m.view.Config.TTL.Duration()
	var groups []GroupEpoch
	for _, ge := range asked.holds {
		if m.renewable(n, p.report, ge) && p.report.Incarnation == asked.incarnation {
			groups = append(groups, ge)
			m.leaseGiven(ge.Group, ttl, p.report.Unfenced)
		}
	}
	if len(groups) > 0 {
		m.do(Send{To: n, Msg: Ack{Term: m.arb.term, Incarnation: asked.incarnation, Seq: asked.seq, TTL: ttl, Groups: groups}})
	}
}

// leaseGiven notes that a lease of length ttl may be out from now, on a node with or without a fence.
func (m *Machine) leaseGiven(name GroupName, ttl time.Duration, unfenced bool) {
	m.arb.until[name] = max(m.arb.until[name], m.now.Add(ttl+margin(ttl, unfenced)))
}
