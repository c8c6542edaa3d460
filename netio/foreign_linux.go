package netio

import (
	"net/netip"
	"slices"
	"time"

	"github.com/remora-ha/remora/core"
)

// Limits on events about one address, so that a flood of ARP does not become a flood of events: the same claimant again
// after sameClaim, any claimant after anyClaim.
const (
	sameClaim = 100 * time.Millisecond
	anyClaim  = 10 * time.Millisecond
)

// claimant is who was last reported to claim an address.
type claimant struct {
	mac MAC
	at  core.Instant
}

// ear names a listener: there is one for each interface in use and each family of its addresses.
type ear struct {
	name string
	v6   bool
}

// openEar is a listener that runs.
type openEar struct {
	h     *listener
	index uint32
	done  chan struct{}
}

// report is what a listener has to say, and which one it is.
type report struct {
	hearing
	from *openEar
	ear  ear
}

// syncListeners opens and closes listeners so that there is one where there must be: on every interface that exists,
// for the addresses of its groups. The new one is open before the old one is closed.
func (v *view) syncListeners() {
	wanted := make(map[ear][]netip.Addr)
	for _, name := range v.interfaces {
		l, ok := v.indexes[name]
		if !ok || !l.Ethernet || l.silent() {
			continue
		}
		for _, ips := range byFamily(v.carried[name]) {
			wanted[ear{name, ips[0].Is6()}] = ips
		}
	}
	for e, ips := range wanted {
		v.listenAs(e, v.indexes[e.name], ips)
	}
	for e, o := range v.listeners {
		if _, ok := wanted[e]; !ok {
			v.stopListening(e, o)
		}
	}
}

func (v *view) listenAs(e ear, l link, ips []netip.Addr) {
	old := v.listeners[e]
	if old != nil && old.index == l.Index && slices.Equal(old.h.ips, ips) {
		return
	}
	h, err := listen(l, ips, false)
	if err != nil {
		v.failed("claims on interface "+l.Name, err)
		return
	}
	if old != nil {
		v.stopListening(e, old)
	}
	o := &openEar{h: h, index: l.Index, done: make(chan struct{})}
	if v.listeners == nil {
		v.listeners = make(map[ear]*openEar)
	}
	v.listeners[e] = o
	v.listening.Go(func() { v.pass(e, o) })
}

// pass hands on what one listener hears until it is stopped or fails.
func (v *view) pass(e ear, o *openEar) {
	for {
		s, err := o.h.next()
		select {
		case v.heard <- report{hearing{s, err}, o, e}:
		case <-o.done:
			return
		}
		if err != nil {
			return
		}
	}
}

func (v *view) stopListening(e ear, o *openEar) {
	delete(v.listeners, e)
	close(o.done)
	_ = o.h.close() // a socket that only reads
}

func (v *view) closeListeners() {
	for e, o := range v.listeners {
		v.stopListening(e, o)
	}
}

// stranger is a hardware address that was not ours when all interfaces were listed.
type stranger struct {
	mac MAC
	at  core.Instant
}

// hear reports a stranger's claim. One from a hardware address that is not known as ours is held against a fresh list
// first: the interface may have been made a moment ago. Whoever takes over a thousand addresses makes as many claims, and a list
// for each would keep this process and the kernel's lock of interfaces busy for longer than a short lease.
func (v *view) hear(r report) {
	if v.listeners[r.ear] != r.from {
		return // stopped meanwhile
	}
	if r.err != nil {
		v.stopListening(r.ear, r.from)
		v.failed("claims on interface "+r.ear.name, classify(r.err))
		return
	}
	if v.own[r.mac] || v.tooSoon(r.sighting) {
		return
	}
	now := v.w.cfg.Clock()
	if v.strange.mac != r.mac || now.Sub(v.strange.at) >= sameClaim {
		links, err := v.s.links()
		if err != nil {
			v.failed("interfaces", err)
			return
		}
		if macs(links)[r.mac] {
			return
		}
		v.strange = stranger{r.mac, now}
	}
	v.w.cfg.Deliver(core.ForeignClaim{Address: r.ip, MAC: r.mac.HardwareAddr()})
}

// tooSoon applies the limits.
func (v *view) tooSoon(s sighting) bool {
	now := v.w.cfg.Clock()
	last, ok := v.recent[s.ip]
	gap := now.Sub(last.at)
	if ok && (gap < anyClaim || s.mac == last.mac && gap < sameClaim) {
		return true
	}
	v.recent[s.ip] = claimant{s.mac, now}
	return false
}
