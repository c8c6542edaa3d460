package core

import (
	"fmt"
	"slices"
)

// moveAsked begins a switchover that an operator wants.
func (m *Machine) moveAsked(ev MoveAsked) {
	if why := m.moveRefused(ev); why != "" {
		m.do(Answer{Ticket: ev.Ticket, Refused: why})
		return
	}
	g := m.view.Groups[ev.Group]
	w := wish{ticket: ev.Ticket, group: ev.Group, to: ev.To, epoch: g.Epoch, moves: true}
	if m.handsOver(ev.Group, g) {
		w.id = m.handOverTo(ev.Group, g, ev.To, switchover(ev.To, ev.Reason))
	} else {
		w.id = m.propose(0, Op{Move: &Move{Group: ev.Group, Epoch: g.Epoch, To: ev.To, Reason: ev.Reason}})
		m.arb.inflight[ev.Group] = w.id
	}
	m.arb.wishes = append(m.arb.wishes, w)
}

func (m *Machine) moveRefused(ev MoveAsked) string {
	if why := m.immovable(ev.Group, ev.To); why != "" {
		return why
	}
	if why := m.checkMove(ev.Group, ev.To); why != "" {
		return fmt.Sprintf("%s can not take %s: %s", ev.To, ev.Group, why)
	}
	return ""
}

// pauseAsked freezes or thaws one group, or all.
func (m *Machine) pauseAsked(ev PauseAsked) {
	if m.arb.term == 0 {
		m.do(Answer{Ticket: ev.Ticket, Refused: NotArbiter})
		return
	}
	var ops []Op
	for _, name := range m.groups() {
		if g := m.view.Groups[name]; !g.Retired && (ev.Group == "" || ev.Group == name || ev.Group == g.Spec.Pool) {
			ops = append(ops, Op{Pause: &Pause{Group: name, On: ev.On, Reason: ev.Reason}})
		}
	}
	if len(ops) == 0 {
		m.do(Answer{Ticket: ev.Ticket, Refused: fmt.Sprintf("there is no group %q", ev.Group)})
		return
	}
	id := m.propose(0, ops...)
	m.arb.wishes = append(m.arb.wishes, wish{ticket: ev.Ticket, id: id, group: ops[len(ops)-1].Pause.Group})
}

// wishCommitted tells an operator what became of a wish. A move has come to its end when the group is served again.
func (m *Machine) wishCommitted(id uint64, op Op, out Outcome) {
	m.endWishes(func(w wish) (bool, string) {
		switch {
		case w.id == id && w.group == out.Group && (out.Refused != "" || !w.moves):
			return true, out.Refused
		case w.moves && op.Grant != nil && w.group == out.Group && out.Refused == "" && op.Grant.To != w.to:
			return true, fmt.Sprintf("%s went to %s: %s could not take it any more%s", w.group, op.Grant.To, w.to, afterReturn(w, op))
		}
		return false, ""
	})
}

// afterReturn says that a switchover had passed its point of no return, if the group was granted to its target before.
func afterReturn(w wish, op Op) string {
	if op.Grant.Prev > w.epoch {
		return " (this was after the point of no return, so the successor was chosen anew)"
	}
	return ""
}

// watchMoves ends the wishes whose group is served by the node that the operator named.
func (m *Machine) watchMoves(from NodeName, r Report) {
	m.endWishes(func(w wish) (bool, string) {
		g := m.view.Groups[w.group]
		served := serving(r, w.group, g.Epoch)
		return w.moves && w.to == from && g.Owner == from && g.Epoch > w.epoch && served, ""
	})
}

// endWishes answers the wishes for which end says so.
func (m *Machine) endWishes(end func(wish) (bool, string)) {
	m.arb.wishes = slices.DeleteFunc(m.arb.wishes, func(w wish) bool {
		over, refused := end(w)
		if over {
			m.do(Answer{Ticket: w.ticket, Refused: refused})
		}
		return over
	})
}

// handOverToIdle gives leadership to a voter that owns nothing, a witness first, once everything has been quiet for a
// while: then the death of an owner's host does not cost an election as well.
func (m *Machine) handOverToIdle() {
	a := &m.arb
	idle := m.idleVoter()
	if len(m.held) == 0 || idle == "" || len(a.inflight) > 0 || len(a.wishes) > 0 || m.stopping != 0 {
		a.quiet = 0
		return
	}
	if a.quiet == 0 {
		a.quiet = max(m.now, 1)
	}
	if m.now.Sub(a.quiet) >= settled && (a.handed == 0 || m.now.Sub(a.handed) >= handAgain) {
		a.handed = m.now
		m.do(TransferLeadership{To: idle})
	}
}

// handOver gives leadership away before this node stops.
func (m *Machine) handOver() {
	a := &m.arb
	if a.handed != 0 && m.now.Sub(a.handed) < settled {
		return
	}
	to := m.idleVoter()
	for _, v := range m.voters {
		if p := m.peers[v]; to == "" && v != m.opt.Self && m.recent(p) && !p.report.Leaving && !p.report.Starting {
			to = v
		}
	}
	if to == "" {
		a.elected = 0 // nobody is there to take it
		return
	}
	a.handed = max(m.now, 1)
	m.do(TransferLeadership{To: to})
}

// idleVoter returns a voter other than this node that owns nothing and takes part, a witness first.
func (m *Machine) idleVoter() NodeName {
	best, witness := NodeName(""), false
	for _, n := range m.view.Config.Nodes {
		p := m.peers[n.Name]
		if n.Name == m.opt.Self || !slices.Contains(m.voters, n.Name) || !m.recent(p) || len(p.report.Holds) > 0 ||
			p.report.Leaving || p.report.Starting {
			continue
		}
		if best == "" || n.Witness && !witness {
			best, witness = n.Name, n.Witness
		}
	}
	return best
}
