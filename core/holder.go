package core

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// phase says how far this node is with a group that it holds.
type phase uint8

const (
	probing   phase = iota + 1 // asking the link whether the addresses are free
	binding                    // a Bind is on its way
	bound                      // bound, read back; announced in this epoch
	unbinding                  // an Unbind is on its way or due
	releasing                  // unbound and read back; the release is not known to be committed yet
)

// holding is one epoch of one group on this node. It is made by a grant and ends when the addresses are known to be
// gone and the ledger has moved on.
type holding struct {
	group GroupName
	epoch Epoch
	spec  GroupSpec
	phase phase
	// lease is the end of the lease: nothing of this epoch is answered for after it.
	lease Instant
	// rests is the report from whose sending the lease is counted.
	rests Seq
	// shut is the last report that died with the kernel's fence when that was lost, 0 if it was not: the fence opens again
	// by the ack of a later one.
	shut Seq
	// claims counts the Bind, Extend and Probe actions whose result has not come. While there is one, an unbind that was
	// read back proves nothing, because the claim may still take effect.
	claims    int
	unbindOut bool    // an Unbind is on its way
	clean     bool    // no claim was on its way when that Unbind was sent
	due       Instant // until when the Bind or Probe on its way must have ended
	retryAt   Instant // when an Unbind or a ReleaseRequest is due again
	tries     int     // attempts to unbind
	asked     int     // requests for the release
	proved    bool    // the addresses were bound, so the link was asked before
	why       string
	again     bool // an address was removed while a Bind was on its way
	extended  Instant
	announces int // rounds sent of the plan
	nextRound Instant
	defended  Instant
}

// Intervals of the holder, none of which safety rests on.
const (
	// probeFor is how long the link is asked before the very first bind of a group.
	probeFor = 200 * time.Millisecond
	// defendInterval is RFC 5227's DEFEND_INTERVAL: an address is defended with one announcement in this time.
	defendInterval = 10 * time.Second
	// refreshEvery is how often an owner announces again, well below the usual 300 s of switches' tables.
	refreshEvery = 60 * time.Second
	// barFor is how long a node stays away from a group after somebody else answered for its address.
	barFor = 30 * time.Second
	// An Unbind that failed is tried again soon, then less often; a release is asked for until the ledger has it.
	unbindRetryMin = 2 * time.Millisecond
	unbindRetryMax = 100 * time.Millisecond
	releaseRetry   = 20 * time.Millisecond
	releaseRests   = 640 * time.Millisecond
	// stuckAfter is how many attempts to unbind may be needed before a node says that it can not serve the group.
	stuckAfter = 3
)

// announcePlan returns when, counted from the bind, an owner announces: at once; soon again for the frame that a busy
// receiver dropped; after more than a second for receivers that ignore a second change within one (Linux'
// net.ipv4.neigh.*.locktime); later for those that were away.
func announcePlan() [6]time.Duration {
	const ms = time.Millisecond
	return [6]time.Duration{0, 50 * ms, 250 * ms, 1100 * ms, 2500 * ms, 10000 * ms}
}

// reported is the phase as others are told it.
func (h *holding) reported() HoldPhase {
	switch h.phase {
	case bound:
		return Serving
	case probing, binding:
		return Claiming
	default:
		return Yielding
	}
}

// claiming reports whether the holding still stands on its lease.
func (h *holding) claiming() bool { return h.phase <= bound }

// last returns the instant after which nothing may be claimed any more: the unbind budget before the end of the lease.
func (h *holding) last(t Timing) Instant { return h.lease.Add(-t.Unbind) }

func (h *holding) wake(t Timing, ttl time.Duration) Instant {
	switch h.phase {
	case bound:
		return min(h.last(t), h.nextRound, h.extended.Add(extendEvery(ttl)))
	case unbinding:
		if h.unbindOut {
			return 0
		}
		return h.retryAt
	case releasing:
		return h.retryAt
	default:
		return min(h.last(t), h.due)
	}
}

// kernelLifetime is the valid lifetime that an address is given: whole seconds are all the kernel takes, so it is the
// backstop of a lease and not the lease.
func kernelLifetime(ttl time.Duration) time.Duration {
	return ttl.Truncate(time.Second) + 2*time.Second
}

func extendEvery(ttl time.Duration) time.Duration { return kernelLifetime(ttl) / 4 }

// lapse gives up every holding whose lease is about to end. It comes before everything else in a step.
func (m *Machine) lapse() {
	for _, name := range m.heldGroups() {
		h := m.held[name]
		if h.claiming() && !m.now.Before(h.last(m.opt.Timing)) {
			m.giveUp(h, "the lease ran out: no majority renewed it")
		}
	}
}

// tend looks at every group: what the ledger gives this node, what it must give up, what is due.
func (m *Machine) tend() {
	for _, name := range m.groups() {
		g := m.fresh[name]
		h := m.held[name]
		if h != nil {
			m.tendHolding(h, g)
			h = m.held[name]
		}
		if h == nil {
			m.consider(name, g)
		}
	}
}

func (m *Machine) tendHolding(h *holding, g GroupState) {
	if h.claiming() {
		if why := m.mustYield(h, g); why != "" {
			m.giveUp(h, why)
		} else if h.phase != bound && !m.now.Before(h.due) {
			m.giveUp(h, "the kernel did not bind in time")
		}
	}
	switch h.phase {
	case bound:
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
	case g.Epoch != h.epoch || g.Owner != m.opt.Self:
		return fmt.Sprintf("the ledger is at epoch %d, owner %q", g.Epoch, g.Owner)
	case g.Move != nil:
		return fmt.Sprintf("switchover to %s: %s", g.Move.To, g.Move.Reason)
	case g.Next != nil:
		return "the configuration of the group changed"
	case g.Retired:
		return "the configuration has the group no more"
	case !m.mayOwn():
		return "the configuration does not let this node own any more"
	case m.stopping != 0:
		return "the daemon is stopping"
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
	_, why := Eligible(g.Spec, m.health, incumbent)
	return why
}

// blocked returns what on this node, MySQL apart, keeps it from serving a group.
func (m *Machine) blocked(spec GroupSpec) string {
	spec = m.local(spec)
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
		// Granted to an earlier process of this node. Its leftovers were removed before this one took any step.
		m.handBack(h, "the daemon was restarted")
		return
	}
	if sent, known := m.sentFor(g.Grant.Seq, g.Grant.TTL.Duration()); known {
		h.lease, h.rests = sent.Add(g.Grant.TTL.Duration()), g.Grant.Seq
	}
	if !m.now.Before(h.last(m.opt.Timing)) {
		m.handBack(h, "the grant came too late")
		return
	}
	if why := m.mustYield(h, g); why != "" {
		m.handBack(h, why)
		return
	}
	m.held[name] = h
	m.dirty = true // the first renewal must not wait for the next heartbeat
	m.claim(h, g)
}

// handBack returns a grant of which nothing was bound.
func (m *Machine) handBack(h *holding, why string) {
	h.phase, h.why = releasing, why
	m.gaveUp[h.group] = h.epoch
	m.held[h.group] = h
	m.note(h, "giving back", why)
	m.askRelease(h, m.fresh[h.group])
}

// local returns spec with the interface that carries the group on this node.
func (m *Machine) local(spec GroupSpec) GroupSpec {
	if name := m.opt.Interfaces[spec.Name]; name != "" {
		spec.Interface = name
	}
	return spec
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
	m.bind(h)
}

func (m *Machine) bind(h *holding) {
	h.phase = binding
	h.claims++
	h.extended, h.due = m.now, h.last(m.opt.Timing)
	m.do(Bind{Group: h.group, Epoch: h.epoch, Spec: h.spec, Lifetime: kernelLifetime(m.ttl()), Report: h.rests, NotAfter: h.due})
}

// serve does what an owner owes from time to time: announcements and the kernel's lifetime.
func (m *Machine) serve(h *holding) {
	if !m.now.Before(h.nextRound) {
		m.announce(h)
	}
	if m.now.Sub(h.extended) >= extendEvery(m.ttl()) {
		h.extended = m.now
		if h.claims > 0 {
			return // the one before it hangs, so this one would only wait behind it
		}
		h.claims++
		m.do(Extend{Group: h.group, Epoch: h.epoch, Spec: h.spec, Lifetime: kernelLifetime(m.ttl()), NotAfter: h.last(m.opt.Timing)})
	}
}

func (m *Machine) announce(h *holding) {
	plan := announcePlan()
	h.announces++
	h.nextRound = m.now.Add(refreshEvery)
	if h.announces < len(plan) {
		h.nextRound = m.now.Add(plan[h.announces] - plan[h.announces-1])
	}
	m.do(Announce{Group: h.group, Epoch: h.epoch, Spec: h.spec, NotAfter: h.last(m.opt.Timing), Round: h.announces})
}

// giveUp begins the end of a holding. From here on it is neither renewed nor claimed again in this epoch.
func (m *Machine) giveUp(h *holding, why string) {
	untouched := h.phase == probing
	h.phase, h.why, h.retryAt, h.tries = unbinding, why, m.now, 0
	m.gaveUp[h.group] = max(m.gaveUp[h.group], h.epoch)
	m.dirty = true
	m.note(h, "giving up", why)
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
	for _, name := range m.heldGroups() {
		if h := m.held[name]; h.claiming() {
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
		m.note(h, "unbound", h.why)
		m.askRelease(h, m.fresh[h.group])
	}
}

// askRelease asks for the release until the ledger has it or has moved on, which ends the holding.
func (m *Machine) askRelease(h *holding, g GroupState) {
	if g.Epoch != h.epoch || g.Owner != m.opt.Self {
		delete(m.held, h.group)
		m.dirty = true
		return
	}
	if m.now.Before(h.retryAt) {
		return
	}
	h.retryAt = m.now.Add(min(releaseRetry<<min(h.asked, 5), releaseRests))
	h.asked++
	// To everybody: whoever is in office acts on it, and a stale hint who that is costs no time.
	for _, to := range m.everyone() {
		m.do(Send{To: to, Msg: ReleaseRequest{Group: h.group, Epoch: h.epoch, Reason: h.why, Unproved: !h.proved && !g.Proved}})
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
		m.bind(h)
	}
}

// acked prolongs leases, from the moment at which the acked report was sent.
func (m *Machine) acked(a Ack) {
	sent, known := m.sentFor(a.Seq, a.TTL)
	if a.Incarnation != m.opt.Incarnation || !known {
		return
	}
	for _, ge := range a.Groups {
		h := m.held[ge.Group]
		if h == nil || h.epoch != ge.Epoch || !h.claiming() || !sent.Add(a.TTL).After(h.lease) {
			continue
		}
		h.lease, h.rests = sent.Add(a.TTL), a.Seq
		if h.shut != 0 && a.Seq > h.shut {
			h.shut, m.dirty = 0, true // the fence opens with the next report, so that comes now
		}
	}
}

// fenceLost has a report sent at once, since only one that was sent after the loss can open the fence again. Nothing is
// given up for it: the fence was put back closed.
func (m *Machine) fenceLost(ev FenceLost) {
	m.dirty = true
	for _, name := range m.heldGroups() {
		if h := m.held[name]; h.claiming() {
			h.shut = m.seq
			m.alarm(h, "the kernel's fence was removed by another program", ev.Reason)
		}
	}
}

func (m *Machine) linkChanged(ev LinkChanged) {
	was := m.links[ev.Interface]
	m.links[ev.Interface] = link{up: ev.Up, missing: ev.Missing}
	m.dirty = m.dirty || was.up != ev.Up
	if !ev.Up || was.up {
		return
	}
	for _, h := range m.held {
		if h.phase == bound && h.spec.Interface == ev.Interface {
			h.announces, h.nextRound = 0, m.now // neighbours may have changed while we were away
		}
	}
}

func (m *Machine) addressSeen(ev AddressSeen) {
	m.seen[ev.Address] = ev
	for _, name := range m.heldGroups() {
		h := m.held[name]
		switch {
		case ev.Present || !h.has(ev):
		case h.phase == bound:
			m.restore(h)
		case h.phase == binding:
			h.again = true // the Bind may have looked at this address before
		}
	}
}

func (h *holding) has(ev AddressSeen) bool {
	return slices.ContainsFunc(h.spec.Addresses, func(p netip.Prefix) bool { return p.Addr() == ev.Address })
}

// removeStray removes an address that carries our mark although this node holds nothing of the group. An address on its
// way from one group to another is listed by its new group while the old one still holds it, so it is no stray.
func (m *Machine) removeStray(name GroupName, g GroupState) {
	for _, p := range g.Spec.Addresses {
		s, known := m.seen[p.Addr()]
		if known && s.Present && s.Ours && !m.holds(p.Addr()) {
			delete(m.seen, p.Addr())
			g.Spec.Addresses = []netip.Prefix{p}
			m.do(Unbind{Group: name, Epoch: 0, Spec: g.Spec})
			return
		}
	}
}

// holds reports whether a holding of this node, in whatever phase, has an address.
func (m *Machine) holds(a netip.Addr) bool {
	for _, h := range m.held {
		if h.has(AddressSeen{Address: a}) {
			return true
		}
	}
	return false
}

// strayStays lets removeStray try again.
func (m *Machine) strayStays(name GroupName) {
	for _, p := range m.fresh[name].Spec.Addresses {
		m.seen[p.Addr()] = AddressSeen{Address: p.Addr(), Present: true, Ours: true}
	}
}

// foreignHere reports whether an address of the group is bound on this node by somebody else.
func (m *Machine) foreignHere(name GroupName, spec GroupSpec) bool {
	if m.held[name] != nil {
		return false
	}
	for _, p := range spec.Addresses {
		if s, known := m.seen[p.Addr()]; known && s.Present && !s.Ours {
			return true
		}
	}
	return false
}

// foreignClaim counts a claim of somebody on the link to an address of ours and defends it, at most once in
// defendInterval (RFC 5227, section 2.4).
func (m *Machine) foreignClaim(ev ForeignClaim) {
	for _, name := range m.heldGroups() {
		h := m.held[name]
		if h.phase != bound || !h.has(AddressSeen{Address: ev.Address}) {
			continue
		}
		m.foreign[name]++
		if h.defended == 0 || m.now.Sub(h.defended) >= defendInterval {
			h.defended = m.now
			m.alarm(h, "conflict", fmt.Sprintf("%s claims %s; defending it", net.HardwareAddr(ev.MAC), ev.Address))
			m.do(Announce{Group: h.group, Epoch: h.epoch, Spec: h.spec, NotAfter: h.last(m.opt.Timing)})
		}
	}
}

func (m *Machine) note(h *holding, text, reason string) {
	m.do(Note{Group: h.group, Epoch: h.epoch, Text: text, Reason: reason})
}

func (m *Machine) alarm(h *holding, text, reason string) {
	m.do(Note{Alarm: true, Group: h.group, Epoch: h.epoch, Text: text, Reason: reason})
}

// LeaseEnd returns the end of the lease on which this node claims or serves a group, and whether it does.
func (m *Machine) LeaseEnd(group GroupName) (Instant, bool) {
	h := m.held[group]
	if h == nil || !h.claiming() {
		return 0, false
	}
	return h.lease, true
}
