package core

import (
	"slices"
	"time"
)

// renewal names a report that asks for leases.
type renewal struct {
	incarnation Incarnation
	seq         Seq
	holds       []GroupEpoch
}

// round is one question to all voters whether the term is still current. It serves every report that had arrived before
// it began and was not acked by then.
type round struct {
	nonce  uint64
	echoes []NodeName
	serves map[NodeName]renewal
}

// renewalAsked takes up a report that asks for leases, and begins a round for it.
func (m *Machine) renewalAsked(from NodeName, r Report) {
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
	m.beginRound(from, renewal{incarnation: r.Incarnation, seq: r.Seq, holds: holds})
}

// renewable reports whether a lease may be prolonged: the ledger gives the group to this process of the node in this
// epoch, no command that would end the epoch is on its way, and the server is fit as far as the report says.
func (m *Machine) renewable(n NodeName, r Report, ge GroupEpoch) bool {
	g := m.view.Groups[ge.Group]
	if g.Owner != n || g.Epoch != ge.Epoch || g.Grant.Incarnation != r.Incarnation {
		return false
	}
	if _, busy := m.arb.inflight[ge.Group]; busy {
		return false
	}
	if g.awaitsStart() {
		return false
	}
	return g.Paused || r.Health.State == Healthy
}

// beginRound asks all voters on behalf of a report. What the rounds before it still serve it serves too, so that a lost
// echo of theirs costs nothing.
func (m *Machine) beginRound(from NodeName, asked renewal) {
	a := &m.arb
	serves := map[NodeName]renewal{from: asked}
	if n := len(a.rounds); n > 0 {
		for other, r := range a.rounds[n-1].serves {
			if other != from {
				serves[other] = r
			}
		}
	}
	if len(a.rounds) == maxRounds {
		a.rounds = slices.Delete(a.rounds, 0, 1)
	}
	r := round{nonce: m.rng.Uint64(), serves: serves}
	a.rounds = append(a.rounds, r)
	for _, n := range m.voters {
		m.do(Send{To: n, Msg: Confirm{Term: a.term, Nonce: r.nonce}})
	}
}

// echoed counts an echo. A majority of voters whose current term is this arbiter's proves that no other arbiter had
// taken office when the round began, and so permits the acks.
func (m *Machine) echoed(from NodeName, e Echo) {
	a := &m.arb
	i := slices.IndexFunc(a.rounds, func(r round) bool { return r.nonce == e.Nonce })
	if a.term == 0 || e.Term != a.term || i < 0 || !slices.Contains(m.voters, from) || slices.Contains(a.rounds[i].echoes, from) {
		return
	}
	r := &a.rounds[i]
	r.echoes = append(r.echoes, from)
	if 2*len(r.echoes) <= len(m.voters) {
		return
	}
	serves := r.serves
	a.rounds = slices.Delete(a.rounds, 0, i+1) // older ones serve nothing that this one does not
	for _, n := range m.everyone() {
		if asked, ok := serves[n]; ok {
			m.ack(n, asked)
			m.served(n, asked)
		}
	}
}

// ack renews the leases that a report asked for. The look at the ledger comes again, because a grant may have been
// handed to Raft while the round went on.
func (m *Machine) ack(n NodeName, asked renewal) {
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
		m.do(Send{To: n, Msg: Ack{Incarnation: asked.incarnation, Seq: asked.seq, TTL: ttl, Groups: groups}})
	}
}

// leaseGiven notes that a lease of length ttl may be out from now, on a node with or without a fence.
func (m *Machine) leaseGiven(name GroupName, ttl time.Duration, unfenced bool) {
	m.arb.until[name] = max(m.arb.until[name], m.now.Add(ttl+margin(ttl, unfenced)))
}
