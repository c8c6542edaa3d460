package core

import (
	"fmt"
	"time"
)

// handBack returns a grant of which nothing was bound.
func (m *Machine) handBack(h *holding, why string) {
	h.phase, h.why = releasing, why
	m.gaveUp[h.group] = h.epoch
	m.held[h.group] = h
	m.note(h, "giving back", why)
	m.askRelease(h, m.fresh[h.group])
}

// claim starts to take possession of what was granted.
func (m *Machine) claim(h *holding, g GroupState) {
	if !g.Proved {
		h.phase = probing
		h.claims++
		notAfter := h.last(m.opt.Timing).Add(probeFor)
		h.due = notAfter.Add(probeFor)
		m.do(Probe{Group: h.group, Epoch: h.epoch, Spec: h.spec, For: probeFor, NotAfter: notAfter})
		return
	}
	m.take(h, g)
}

func (m *Machine) bind(h *holding) {
	if why := m.mustYield(h, m.fresh[h.group]); why != "" {
		m.giveUp(h, why) // a waiver may have ended just now
		return
	}
	if m.opt.Unfenced && m.tooLate(h) {
		m.giveUp(h, "too little of the lease is left for a lifetime of whole seconds")
		return
	}
	life, notAfter := m.lifetime(h)
	h.phase = binding
	h.claims++
	h.extended, h.due, h.kernelEnd, h.opened = m.now, notAfter, m.now.Add(life), h.rests
	m.claimBegins(h)
	m.do(Bind{Group: h.group, Epoch: h.epoch, Spec: h.spec, Lifetime: life, Report: h.rests, NotAfter: notAfter})
}

// claimBegins notes for how long renewals of the lease prolong what is now sent to the kernel. One that hangs must not be
// prolonged for ever.
func (m *Machine) claimBegins(h *holding) {
	h.busy = m.now.Add(time.Duration(len(h.spec.Addresses)) * claimEach)
}

// prolong lets the claims on their way go on as long as the renewed lease. Without a fence a lifetime was chosen that ends
// with the lease in which the claim began.
func (m *Machine) prolong(h *holding) {
	if m.opt.Unfenced || h.phase != binding && h.phase != bound || !m.now.Before(h.busy) {
		return
	}
	last := h.last(m.opt.Timing)
	if h.phase == binding {
		h.due, h.opened = last, h.rests
	}
	m.do(Prolong{Group: h.group, Epoch: h.epoch, Report: h.rests, NotAfter: last})
}

// giveUp begins the end of a holding. From here on it is neither renewed nor claimed again in this epoch.
func (m *Machine) giveUp(h *holding, why string) {
	untouched := h.phase < binding
	h.phase, h.why, h.retryAt, h.tries = unbinding, why, m.now, 0
	m.gaveUp[h.group] = max(m.gaveUp[h.group], h.epoch)
	m.dirty = true
	m.note(h, "giving up", why)
	if m.fresh[h.group].Spec.Policy == Promote && !h.idle() {
		m.server.promoted = ""
		m.wantDemoted(h.group, h.epoch) // carried out beside unbinding, after this step has asked for that
	}
	if untouched {
		// Nothing was bound in this epoch. What is there is somebody else's, and the probe's end changes nothing.
		h.phase = releasing
		m.report() // before the request, so that the arbiter knows what is wrong here when it looks for a successor
		m.askRelease(h, m.fresh[h.group])
		return
	}
	m.unbind(h)
}

func (m *Machine) giveUpAll(why string) {
	for h := range m.holdings() {
		if h.claiming() {
			m.giveUp(h, why)
		}
	}
}

func (m *Machine) unbind(h *holding) {
	h.unbindOut, h.clean = true, h.claims == 0
	h.tries++
	m.do(Unbind{Group: h.group, Epoch: h.epoch, Spec: h.spec})
}

func (m *Machine) bindDone(ev BindDone) {
	h := m.claimEnded(ev.Group, ev.Epoch)
	if h == nil || h.phase != binding {
		return
	}
	if ev.Err != "" {
		m.giveUp(h, "binding failed: "+ev.Err)
		return
	}
	if h.again {
		h.again = false
		m.bind(h)
		return
	}
	h.phase, h.proved, h.announces, h.nextRound = bound, true, 0, m.now
	m.dirty = true
	m.note(h, "bound", m.fresh[h.group].Reason)
}

func (m *Machine) extendDone(ev ExtendDone) {
	h := m.claimEnded(ev.Group, ev.Epoch)
	if h == nil || h.phase != bound {
		return
	}
	if ev.Absent {
		m.restore(h)
	} else if ev.Err != "" {
		m.alarm(h, "the kernel's lifetime was not renewed", ev.Err)
	}
}

// restore binds again what somebody else has removed, in the same epoch and inside the same lease.
func (m *Machine) restore(h *holding) {
	m.alarm(h, "address removed", "somebody else removed an address; it is bound again")
	m.bind(h)
}

// claimEnded counts the end of a claim and returns the holding it belongs to, if that still exists.
func (m *Machine) claimEnded(name GroupName, e Epoch) *holding {
	h := m.held[name]
	if h == nil || h.epoch != e {
		return nil
	}
	h.claims--
	if h.claims == 0 && h.phase == unbinding && !h.unbindOut {
		m.unbind(h) // what the claim did came after the last look
	}
	return h
}

func (m *Machine) unbindDone(ev UnbindDone) {
	if ev.Epoch == 0 && !ev.Gone {
		m.strayStays(ev.Group)
	}
	h := m.held[ev.Group]
	if h == nil || h.epoch != ev.Epoch || h.phase != unbinding {
		return
	}
	h.unbindOut = false
	switch {
	case !ev.Gone:
		wait := min(unbindRetryMin<<min(h.tries, 6), unbindRetryMax)
		h.retryAt = m.now.Add(wait)
		m.alarm(h, "unbinding failed, trying again", ev.Err)
	case h.claims > 0:
		h.retryAt = m.now.Add(unbindRetryMax) // the end of the claim comes first, as a rule
	case !h.clean:
		m.unbind(h) // a claim ended while the Unbind was on its way, perhaps after that had looked
	default:
		h.phase, h.retryAt = releasing, m.now
		for _, p := range h.spec.Addresses {
			m.see(AddressSeen{Address: p.Addr()}) // older news of it must not make it a stray
		}
		m.note(h, "unbound", h.why)
		m.askRelease(h, m.fresh[h.group])
	}
}

// askRelease asks for the release until the ledger has it or has moved on, which ends the holding.
func (m *Machine) askRelease(h *holding, g GroupState) {
	if !g.awaits(m.opt.Self, h.epoch) {
		delete(m.held, h.group)
		m.dirty = true
		return
	}
	if m.now.Before(h.retryAt) {
		return
	}
	if m.holdRelease(h, g) {
		h.heldBack = h.lease
		return
	}
	h.heldBack = 0
	h.retryAt = m.now.Add(min(releaseRetry<<min(h.asked, 5), releaseRests))
	h.asked++
	// To everybody: whoever is in office acts on it, and a stale hint who that is costs no time.
	for to := range m.everyone() {
		m.do(Send{To: to, Msg: ReleaseRequest{Group: h.group, Epoch: h.epoch, Reason: h.why,
			Unproved: !h.proved && !g.Proved, Failed: m.health.State == Failed}})
	}
}

func (m *Machine) probeDone(ev ProbeDone) {
	h := m.claimEnded(ev.Group, ev.Epoch)
	if h == nil || h.phase != probing {
		return
	}
	switch {
	case ev.Conflict != nil:
		why := fmt.Sprintf("%s answers for an address of the group", ev.Conflict)
		m.barred[h.group] = bar{reason: why, until: m.now.Add(barFor)}
		m.giveUp(h, why)
	case ev.Err != "":
		m.giveUp(h, "probing the link failed: "+ev.Err)
	default:
		m.take(h, m.fresh[h.group])
	}
}
