package core

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// fenceLost has a report sent at once, since only one that was sent after the loss can open the fence again. Nothing is
// given up for it: the fence was put back closed.
func (m *Machine) fenceLost(ev FenceLost) {
	m.dirty = true
	for h := range m.holdings() {
		if h.claiming() {
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

// see takes note of what an address is like on this node, and counts those that carry our mark.
func (m *Machine) see(s AddressSeen) {
	m.marked += count(s) - count(m.seen[s.Address])
	m.seen[s.Address] = s
}

func count(s AddressSeen) int {
	if s.Present && s.Ours {
		return 1
	}
	return 0
}

func (m *Machine) addressesSeen(ev AddressesSeen) {
	absent := map[netip.Addr]bool{}
	for _, s := range ev {
		m.see(s)
		if !s.Present {
			absent[s.Address] = true
		}
	}
	for h := range m.holdings() {
		switch {
		case !slices.ContainsFunc(h.spec.Addresses, func(p netip.Prefix) bool { return absent[p.Addr()] }):
		case h.phase == bound:
			m.restore(h)
		case h.phase == binding:
			h.again = true // the Bind may have looked at the address before
		}
	}
}

// removeStray removes an address that carries our mark although this node holds nothing of the group. An address on its
// way from one group to another is listed by its new group while the old one still holds it, so it is no stray.
func (m *Machine) removeStray(name GroupName, g GroupState) {
	if m.marked == 0 {
		return // as on every node that holds nothing, at each step
	}
	for _, p := range g.Spec.Addresses {
		s, known := m.seen[p.Addr()]
		if known && s.Present && s.Ours && !m.holds(p.Addr()) {
			m.see(AddressSeen{Address: p.Addr()})
			g.Spec.Addresses = []netip.Prefix{p}
			m.do(Unbind{Group: name, Epoch: 0, Spec: g.Spec})
			return
		}
	}
}

// holds reports whether a holding of this node, in whatever phase, has an address.
func (m *Machine) holds(a netip.Addr) bool {
	for _, h := range m.held {
		if h.has(a) {
			return true
		}
	}
	return false
}

// strayStays lets removeStray try again.
func (m *Machine) strayStays(name GroupName) {
	for _, p := range m.fresh[name].Spec.Addresses {
		m.see(AddressSeen{Address: p.Addr(), Present: true, Ours: true})
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
	for h := range m.holdings() {
		if h.phase != bound || !h.has(ev.Address) {
			continue
		}
		m.foreign[h.group] = conflicts{count: m.foreign[h.group].count + 1, last: m.now}
		if h.defended == 0 || m.now.Sub(h.defended) >= defendInterval {
			h.defended = m.now
			m.alarm(h, "conflict", fmt.Sprintf("%s claims %s; defending it", net.HardwareAddr(ev.MAC), ev.Address))
			m.do(Announce{Group: h.group, Epoch: h.epoch, Spec: h.spec, NotAfter: h.last(m.opt.Timing)})
		}
	}
}
