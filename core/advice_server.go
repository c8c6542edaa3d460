package core

import (
	"cmp"
	"fmt"
	"time"
)

// What a holder does to the local server because MHA advises it, under a policy that leaves servers alone otherwise: it makes
// the server read-only before a planned change, and writable after a start or when the change came to nothing.

const (
	// openWithin bounds the time in which the server must become writable before the group is bound, openRetry spaces the
	// attempts. clearWithin is the same bound after a start: MHA clears read_only itself when the time is over.
	openWithin  = 5 * time.Second
	clearWithin = 500 * time.Millisecond
	openRetry   = 200 * time.Millisecond
)

// lingers reports whether an owner may keep a group that it is to give up, because its server is being drained for that.
func (m *Machine) lingers(h *holding, g GroupState) bool {
	switch {
	case !g.Advice.Graceful || g.Spec.Policy == Promote || h.phase != bound || m.opt.DryRun:
		return false
	case h.stopping != g.Advice.ID:
		return true // it begins in this step
	}
	return h.draining && m.now.Before(h.stopBy)
}

// drainAdvised begins to make the local server read-only for an operation that is open. When that has ended, however, the group
// is given up: MHA goes on with the server as it finds it.
func (m *Machine) drainAdvised(h *holding, g GroupState) {
	if !g.awaitsStart() || !m.lingers(h, g) || h.stopping == g.Advice.ID {
		return
	}
	h.stopping, h.draining, h.drained, h.stageFrom = g.Advice.ID, true, nil, m.now
	h.stopBy = m.now.Add(g.Advice.Drain.Duration() + stageGrace)
	m.note(h, "making the local server read-only", "MHA advises it: "+g.Advice.By)
	m.server.demotes++
	m.server.draining++
	m.do(DemoteServer{Group: h.group, Epoch: h.epoch, Drain: g.Advice.Drain.Duration()})
}

// opens reports whether a grant has the holder make its server writable, which is done before binding.
func (m *Machine) opens(h *holding, g GroupState) bool {
	return g.Spec.Policy != Promote && g.Epoch == h.epoch && (g.Grant.Clear || g.Grant.Undo) && !m.opt.DryRun
}

// beginOpening starts the time in which the server becomes writable.
func (m *Machine) beginOpening(h *holding, g GroupState) {
	within := openWithin
	if !g.Grant.Undo {
		within = clearWithin
	}
	h.phase, h.stageFrom, h.promoteBy, h.retryAt = promoting, m.now, m.now.Add(within), m.now
	h.due = h.promoteBy.Add(promoteSlack)
	m.open(h, g)
}

// open asks for the server to be made writable, as long as nothing stands against it, and binds once it is. A start is carried
// out also if it is not: MHA clears read_only itself then.
func (m *Machine) open(h *holding, g GroupState) {
	if h.phase != promoting || g.Spec.Policy == Promote || m.server.promoting {
		return
	}
	why := m.openForbidden(g)
	switch {
	case m.health.Writable == Yes:
		m.bind(h)
	case !m.now.Before(h.promoteBy) && g.Grant.Undo:
		m.giveUp(h, "the server was not made writable again: "+cmp.Or(why, h.closed, "there was no time for it"))
	case !m.now.Before(h.promoteBy):
		m.alarm(h, "read_only was not cleared, MHA has to do it", cmp.Or(why, h.closed, "there was no time for it"))
		m.bind(h)
	case why == "" && m.quietServer() && !m.now.Before(h.retryAt):
		m.server.promoting = true
		m.do(PromoteServer{Group: h.group, Epoch: h.epoch, ApplyWithin: h.promoteBy.Sub(m.now), NotAfter: h.last(m.opt.Timing), Keep: true,
			Undo: g.Grant.Undo})
	}
}

// openForbidden returns why the server must not be made writable at the moment, or nothing. After a start MHA has seen to the
// others; only one that is known to be writable, which a report may still say of the old primary, stands against it.
func (m *Machine) openForbidden(g GroupState) string {
	if g.Grant.Undo {
		return m.undoForbidden(m.opt.Self)
	}
	if n := m.writableBeside(m.opt.Self); n != "" {
		return fmt.Sprintf("the server of %s is writable", n)
	}
	return ""
}

// serverOpened takes the answer to what open has asked for.
func (m *Machine) serverOpened(h *holding, ev ServerPromoted) {
	switch {
	case h == nil || h.epoch != ev.Epoch || h.phase != promoting:
		// Given up meanwhile. If the server is writable now it became so inside the lease, and policy follow goes where it is.
	case ev.Err == "" && !ev.Late:
		m.note(h, "the local server is writable", m.after(h.stageFrom))
		m.bind(h)
	case ev.Late:
		h.closed, h.retryAt = ev.Err, m.now
	default:
		h.closed, h.retryAt = ev.Err, m.now.Add(openRetry)
	}
}
