package core

import (
	"fmt"
	"time"
)

// promoteSlack is how much longer than the time for applying a promotion may take before the holder gives up.
const promoteSlack = 5 * time.Second

// take claims what the link was found to be free for: under policy promote the server becomes writable first, so that
// it is before its address answers.
func (m *Machine) take(h *holding, g GroupState) {
	if g.Spec.Policy == Promote {
		h.phase = promoting
		m.beginPromotion(h, g)
		return
	}
	if m.opens(h, g) {
		m.beginOpening(h, g)
		return
	}
	m.bind(h)
}

// beginPromotion starts the time in which the local server must become writable.
func (m *Machine) beginPromotion(h *holding, g GroupState) {
	h.stageFrom, h.promoteBy = m.now, m.now.Add(g.Spec.Promotion.applyWithin())
	h.due = h.promoteBy.Add(promoteSlack)
	h.unwritable = true
	m.note(h, "promoting the local server", "")
	m.promote(h)
}

// promote asks for the server to be made writable, once nothing is on its way that would undo it. What is asked for
// expires with the lease as it is now. If the lease was renewed while the server applied what it had received, the answer
// says that it was late, and the rest is asked for again.
func (m *Machine) promote(h *holding) {
	if !h.unwritable || !m.quietServer() {
		return
	}
	m.server.promoting = true
	m.do(PromoteServer{Group: h.group, Epoch: h.epoch, ApplyWithin: max(h.promoteBy.Sub(m.now), time.Millisecond), NotAfter: h.last(m.opt.Timing)})
}

func (m *Machine) serverPromoted(ev ServerPromoted) {
	m.server.promoting = false
	h := m.held[ev.Group]
	if m.fresh[ev.Group].Spec.Policy != Promote {
		m.serverOpened(h, ev)
		return
	}
	switch {
	case h == nil || h.epoch != ev.Epoch || !h.claiming():
		m.wantDemoted(ev.Group, ev.Epoch) // given up meanwhile, and who knows which of the two came last
	case ev.Err == "" && !ev.Late:
		m.server.promoted = ev.Executed
		m.health.Executed = m.sincePromotion(m.health.Executed)
		h.unwritable, h.promotedAt, h.seenWritable, m.dirty = false, m.now, false, true
		m.note(h, "the local server is writable", m.after(h.stageFrom))
		if h.phase == promoting {
			m.bind(h)
		}
	case ev.Late && m.now.Before(h.promoteBy):
		m.promote(h)
	default:
		m.giveUp(h, "promotion failed: "+ev.Err)
	}
}

// after says how long a stage has taken.
func (m *Machine) after(from Instant) string {
	return fmt.Sprintf("after %v", m.now.Sub(from).Round(100*time.Microsecond))
}

// sincePromotion returns an executed set with what the server is known to have executed when it became writable: the
// detector looks from time to time only, and others are compared with what it has seen.
func (m *Machine) sincePromotion(executed string) string {
	if m.server.promoted == "" || m.opt.Sets == nil {
		return executed
	}
	all, err := m.opt.Sets.Union(executed, m.server.promoted)
	if err != nil || len(all) > MaxSet {
		return ""
	}
	return all
}

// tendPrimary looks after the server of a group that this node serves under policy promote: its part in a switchover.
func (m *Machine) tendPrimary(h *holding, g GroupState) {
	if g.Spec.Policy != Promote {
		return
	}
	switch h.phase {
	case promoting:
		m.promote(h)
		return
	case bound:
	default:
		return
	}
	h.seenWritable = h.seenWritable || m.health.Writable == Yes
	mv := g.Move
	switch {
	case mv == nil && h.moving != 0:
		h.moving, h.drained = 0, nil
		m.note(h, "the switchover was aborted, the local server becomes writable again", "")
		m.beginPromotion(h, g)
	case h.unwritable && h.moving == 0:
		m.promote(h)
	case mv != nil && h.moving == 0 && m.quietServer():
		h.moving, h.draining, h.unwritable, h.drained, h.stageFrom = mv.Began, true, true, nil, m.now
		m.note(h, "draining the local server", fmt.Sprintf("switchover to %s: %s", mv.To, mv.Reason))
		m.server.demotes++
		m.server.draining++
		m.do(DemoteServer{Group: h.group, Epoch: h.epoch, Drain: g.Spec.Promotion.DrainFor()})
	case mv != nil && h.moving != mv.Began && !h.draining:
		h.moving, h.drained = 0, nil // another one has followed at once
	case h.telling(mv) && !m.now.Before(h.reporting):
		m.reportDrained(h, mv)
	}
}

func (m *Machine) reportDrained(h *holding, mv *Move) {
	h.reporting = m.now.Add(stageRepeat)
	msg := Drained{Group: h.group, Epoch: h.epoch, Move: mv.Began, Executed: h.drained.Executed, Err: h.drained.Err}
	if n := len(msg.Executed); n > MaxSet {
		msg.Executed, msg.Err = "", fmt.Sprintf("the executed set is %d bytes long, and a datagram takes %d", n, MaxSet)
	}
	for to := range m.everyone() {
		m.do(Send{To: to, Msg: msg})
	}
}

// caughtUp hands the group over: the target of the switchover has all that this node's server has ever executed.
func (m *Machine) caughtUp(from NodeName, c CaughtUp) {
	g := m.fresh[c.Group]
	h := m.held[c.Group]
	mv := g.Move
	if mv != nil && mv.Began == c.Move && mv.To == from && g.Epoch == c.Epoch {
		m.caught[c.Group] = c
		if h != nil && h.phase == bound && h.epoch == c.Epoch && h.moving == mv.Began && mv.Drained && c.Err == "" {
			m.giveUp(h, fmt.Sprintf("switchover to %s: %s", mv.To, mv.Reason))
		}
	}
}

// idle reports whether the server was drained for a switchover, and so is read-only already.
func (h *holding) idle() bool {
	return h.moving != 0 && h.drained != nil && h.drained.Err == "" && !h.draining
}

// lostPrimary returns why the server of a group that this node serves is not the writable one any more, or nothing.
func (m *Machine) lostPrimary(h *holding) string {
	if h.phase == bound && h.unwritable && h.moving == 0 && !m.now.Before(h.due) {
		return "the server did not become writable again in time"
	}
	if h.phase == bound && !h.unwritable && m.health.Writable == No && (h.seenWritable || m.now.Sub(h.promotedAt) > looksAfter) {
		return "MySQL is read-only, although this node has made it writable: it was restarted, or somebody has set it"
	}
	return ""
}

// holdRelease reports whether the release has to wait for the server: until it is read-only, dead, or the lease is over
// anyhow. By then its replicas have what it has acknowledged, as far as they ever will. What an earlier process of this
// node had sent to the server when it died can not be seen from here, so its lease is waited for in any case. Where advice
// has the server made writable, the release waits until it is known whether it is.
func (m *Machine) holdRelease(h *holding, g GroupState) bool {
	opened := g.Epoch == h.epoch && g.Grant != nil && (g.Grant.Clear || g.Grant.Undo)
	switch {
	case g.Spec.Policy != Promote && !opened || !m.now.Before(h.lease):
		return false
	case opened:
		return h.earlier || m.server.promoting
	}
	return h.earlier || (m.server.demote || m.server.promoting) && m.health.State != Failed
}
