package core

import (
	"fmt"
	"time"
)

// Where the kernel has no nf_tables, or the operator does without, it holds a lease by the lifetimes of the addresses
// alone. Those are whole seconds, and the kernel removes an address somewhat after the end (addrconf_verify and
// check_lifetime look at intervals that they round by up to a quarter of a second). So lifetimes are rounded down, and
// everybody waits longer for such a node.
const (
	// UnfencedTTL is the shortest lease that lifetimes of whole seconds can hold.
	UnfencedTTL = 3 * time.Second
	// lifetimeLate is by how much the kernel was seen to remove an address after the end of its lifetime, at most.
	lifetimeLate = 1250 * time.Millisecond
	// unfencedLeast is the shortest margin for a node without a fence.
	unfencedLeast = 1500 * time.Millisecond
	// unfencedSlack is how long a claim of a node without a fence may take to reach the kernel, which counts a lifetime from
	// then.
	unfencedSlack = 200 * time.Millisecond
	// unfencedExtend is how often such a node renews lifetimes.
	unfencedExtend = 500 * time.Millisecond
)

// UnfencedMargin is the margin for a lease of length ttl on a node whose kernel has no fence.
func UnfencedMargin(ttl time.Duration) time.Duration {
	return max(unfencedLeast, Margin(ttl)+lifetimeLate)
}

// CheckUnfenced returns what keeps a node without a fence from holding leases of this timing.
func (t Timing) CheckUnfenced() []Problem {
	if why := unfencedUnfit(t.TTL); why != "" {
		return []Problem{{Key: "ttl", Text: why}}
	}
	return nil
}

// unfencedUnfit returns why a node without a fence can not hold leases of length ttl, or nothing.
func unfencedUnfit(ttl time.Duration) string {
	if ttl >= UnfencedTTL {
		return ""
	}
	return fmt.Sprintf("a lease of %v is too short for a kernel that holds it by address lifetimes of whole seconds: "+
		"use nf_tables (CONFIG_NF_TABLES_INET, CONFIG_NF_TABLES_ARP) or a ttl of at least %v", ttl, UnfencedTTL)
}

// margin returns the margin for a lease on a node with or without a fence.
func margin(ttl time.Duration, unfenced bool) time.Duration {
	if unfenced {
		return UnfencedMargin(ttl)
	}
	return Margin(ttl)
}

// unfenced reports whether the group was granted to a node without a fence, or is on its way from one.
func (g GroupState) unfenced() bool {
	return g.Grant != nil && g.Grant.Unfenced || g.Handover != nil && g.Handover.Unfenced
}

// someUnfenced reports whether any group is held by a node without a fence.
func (v View) someUnfenced() bool {
	for _, g := range v.Groups {
		if g.Owner != "" && g.unfenced() {
			return true
		}
	}
	return false
}

// lifetime returns the valid lifetime that a claim of h gives to the addresses now, and the instant until which the claim
// must be carried out. Without a fence the lifetime ends inside the lease if it begins by then; it may be too short to be
// given at all.
func (m *Machine) lifetime(h *holding) (life time.Duration, notAfter Instant) {
	last := h.last(m.opt.Timing)
	if !m.opt.Unfenced {
		return kernelLifetime(m.ttl()), last
	}
	life = max(0, h.lease.Sub(m.now)-unfencedSlack).Truncate(time.Second)
	return life, min(last, h.lease.Add(-life))
}

// tooLate reports whether so little of the lease is left that nothing can be claimed with it.
func (m *Machine) tooLate(h *holding) bool {
	life, notAfter := m.lifetime(h)
	return life == 0 || !m.now.Before(notAfter)
}

// mayBeGone reports whether the kernel may have removed the addresses, because nobody has renewed their lifetimes in time:
// this process stood still, or its claims hang.
func (m *Machine) mayBeGone(h *holding) bool { return m.opt.Unfenced && !m.now.Before(h.kernelEnd) }

// extendEvery is how often an owner renews the lifetimes of its addresses.
func (m *Machine) extendEvery() time.Duration {
	if m.opt.Unfenced {
		return unfencedExtend
	}
	return extendEvery(m.ttl())
}

// extend renews the lifetimes, unless that would shorten them.
func (m *Machine) extend(h *holding) {
	h.extended = m.now
	life, notAfter := m.lifetime(h)
	end := m.now.Add(life)
	if h.claims > 0 || life == 0 || m.opt.Unfenced && !end.After(h.kernelEnd) {
		return // the claim before hangs, so this one would only wait behind it; or there is nothing to gain
	}
	h.claims++
	h.kernelEnd = end
	m.do(Extend{Group: h.group, Epoch: h.epoch, Spec: h.spec, Lifetime: life, NotAfter: notAfter})
}
