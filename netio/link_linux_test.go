package netio

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

func announceOf(s core.GroupSpec) core.Announce {
	return core.Announce{Group: s.Name, Epoch: 1, Spec: s, NotAfter: soon()}
}

func probeOf(s core.GroupSpec, d time.Duration) core.Probe {
	return core.Probe{Group: s.Name, Epoch: 1, Spec: s, For: d, NotAfter: soon()}
}

// expect waits for a frame that is accepted.
func expect(tb testing.TB, frames <-chan []byte, what string, accept func([]byte) bool) {
	tb.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case f := <-frames:
			if accept(f) {
				return
			}
		case <-timeout:
			tb.Fatalf("not seen within 10 s: %s", what)
		}
	}
}

func isARP(want ARP) func([]byte) bool {
	return func(f []byte) bool {
		p, err := ParseARP(f)
		return err == nil && p == want && MAC(f) == broadcast && MAC(f[6:]) == want.SenderMAC
	}
}

func isNDP(want NDP) func([]byte) bool {
	return func(f []byte) bool {
		m, err := ParseNDP(f)
		return err == nil && m == want
	}
}

func TestAnnounceIsSeenInBothForms(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	arp, ipv6 := w.tap(unix.ETH_P_ARP), w.tap(unix.ETH_P_IPV6)
	must(t, b.Announce(t.Context(), announceOf(spec(w.name, vip4, vip6))))
	mac := w.link().MAC
	expect(t, arp, "gratuitous request", isARP(GratuitousARP(ARPRequest, mac, vip4.Addr())))
	expect(t, arp, "gratuitous reply", isARP(GratuitousARP(ARPReply, mac, vip4.Addr())))
	expect(t, ipv6, "unsolicited advertisement", isNDP(UnsolicitedNA(mac, vip6.Addr())))
}

// A node that has never owned anything finds the socket open when it takes over.
func TestGuardOpensTheSocketsForAnnouncements(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	must(t, b.Guard([]core.GroupSpec{spec(w.name, vip4), spec(w.name, vip6), spec(loopback, vip4), spec("nowhere0", vip4)}))
	if _, ok := b.senders.open[w.name]; !ok || len(b.senders.open) != 1 {
		t.Errorf("sockets are open for %v, want one for %s", slices.Collect(maps.Keys(b.senders.open)), w.name)
	}
}

func TestAnnounceSurvivesANewInterface(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	a := announceOf(spec(w.name, vip4))
	must(t, b.Announce(t.Context(), a))
	for range 3 {
		old := w.link().Index
		w.delete()
		wantErr(t, b.Announce(t.Context(), a), ErrNoInterface)
		w.create()
		if now := w.link().Index; now == old {
			t.Fatalf("the new interface has the old index %d", now)
		}
		frames := w.tap(unix.ETH_P_ARP)
		must(t, b.Announce(t.Context(), a))
		expect(t, frames, "announcement from the new interface", isARP(GratuitousARP(ARPReply, w.link().MAC, vip4.Addr())))
	}
	if n := len(b.senders.open); n != 1 {
		t.Errorf("%d sockets are open for one interface", n)
	}
}

// The first announcement after a bind goes by what the bind has seen, the next by what there is.
func TestAnnounceLooksOnceAfterABind(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	s := spec(w.name, vip4)
	a := announceOf(s)
	a.Epoch = 1
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	before, frames := w.link().MAC, w.tap(unix.ETH_P_ARP)
	ip(t, "link", "set", "dev", w.name, "address", "02:00:00:00:00:55")
	now := w.link().MAC
	must(t, b.Announce(t.Context(), a))
	expect(t, frames, "announcement by the bind's look", isARP(GratuitousARP(ARPReply, before, vip4.Addr())))
	must(t, b.Announce(t.Context(), a))
	expect(t, frames, "announcement by a look of its own", isARP(GratuitousARP(ARPReply, now, vip4.Addr())))

	a.Epoch = 2 // another bind is not this epoch's
	must(t, b.Bind(t.Context(), bindOf(s, 3)))
	ip(t, "link", "set", "dev", w.name, "address", "02:00:00:00:00:56")
	must(t, b.Announce(t.Context(), a))
	expect(t, frames, "announcement in another epoch", isARP(GratuitousARP(ARPReply, w.link().MAC, vip4.Addr())))
}

// What the bind has seen may be gone when its announcement is sent.
func TestAnnounceAfterABindSurvivesANewInterface(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	s := spec(w.name, vip4)
	a := announceOf(s)
	a.Epoch = 1
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	w.delete()
	w.create()
	frames := w.tap(unix.ETH_P_ARP)
	must(t, b.Announce(t.Context(), a))
	expect(t, frames, "announcement from the new interface", isARP(GratuitousARP(ARPReply, w.link().MAC, vip4.Addr())))
}

func TestAnnounceWithLinkDown(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	a := announceOf(spec(w.name, vip4))
	w.setPeer(false)
	poll(t, "carrier gone", func() bool { return !w.link().up() })
	wantErr(t, b.Announce(t.Context(), a), ErrLinkDown)
	w.setPeer(true)
	poll(t, "carrier back", func() bool { return w.link().up() })
	must(t, b.Announce(t.Context(), a))
	w.set(false)
	wantErr(t, b.Announce(t.Context(), a), ErrLinkDown)
	if _, err := b.Probe(t.Context(), probeOf(a.Spec, time.Millisecond)); err == nil {
		t.Error("a probe on a link that is down found nobody")
	} else {
		wantErr(t, err, ErrLinkDown)
	}
}

// The time is looked at before each system call, and a stop of the daemon waits for the end of one: what was not yet given to
// the kernel by then must not be sent when it wakes up.
func TestAnnounceStopsWhenLate(t *testing.T) {
	second := netip.MustParsePrefix("10.77.0.101/32")
	marker := netip.MustParsePrefix("10.77.0.102/32")
	for calls := range 2 { // that are made in time
		w := newWire(t)
		tap := w.tap(unix.ETH_P_ARP)
		c := &scripted{}
		c.at = map[int32]func(){int32(calls) + 2: c.leap} // the first look is at the beginning
		b := newBinder(t, Config{Clock: c.now, Pace: Pace{Frames: 2}})
		wantErr(t, b.Announce(t.Context(), announceOf(spec(w.name, vip4, second))), ErrLate)
		must(t, newBinder(t, Config{}).Announce(t.Context(), announceOf(spec(w.name, marker))))
		seen := 0
		expect(t, tap, "a later announcement", func(f []byte) bool {
			p, err := ParseARP(f)
			if err == nil && (p.SenderIP == vip4.Addr() || p.SenderIP == second.Addr()) {
				seen++
			}
			return err == nil && p.SenderIP == marker.Addr()
		})
		if seen != 2*calls {
			t.Errorf("%d frames were sent, want the %d of the calls that were in time", seen, 2*calls)
		}
	}
}

func TestAnnounceKeepsItsPace(t *testing.T) {
	w := newWire(t)
	tap := w.tap(unix.ETH_P_ARP)
	s := spec(w.name, manyAddresses(10)...)
	const pause = 20 * time.Millisecond
	b := newBinder(t, Config{Pace: Pace{Frames: 5, Pause: pause}})
	start := time.Now()
	must(t, b.Announce(t.Context(), announceOf(s)))
	if took := time.Since(start); took < 3*pause {
		t.Errorf("20 frames took %v, and three pauses of %v are between them", took, pause)
	}
	mac := w.link().MAC
	for _, form := range []uint16{ARPRequest, ARPReply} { // one for each address before the second for any
		for _, p := range s.Addresses {
			want := GratuitousARP(form, mac, p.Addr())
			expect(t, tap, "each frame once", func(f []byte) bool {
				if !isARP(want)(f) {
					t.Errorf("a frame beside those of the announcement, or out of order: %x", f)
				}
				return isARP(want)(f)
			})
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	b = newBinder(t, Config{Pace: Pace{Frames: 2, Pause: time.Hour}})
	told := make(chan error, 1)
	go func() { told <- b.Announce(ctx, announceOf(s)) }()
	expect(t, tap, "the first addresses", isARP(GratuitousARP(ARPRequest, mac, s.Addresses[1].Addr())))
	cancel()
	wantErr(t, <-told, context.Canceled)
}

func TestAnnounceOnLoopbackTellsNobody(t *testing.T) {
	b := newBinder(t, Config{})
	must(t, b.Announce(t.Context(), announceOf(spec("lo", vip4))))
	mac, err := b.Probe(t.Context(), probeOf(spec("lo", vip4), time.Second))
	if mac != nil || err != nil {
		t.Errorf("Probe = %v, %v", mac, err)
	}
}

func TestAnnounceNeedsRights(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	err := withoutRights(func() error { return b.Announce(t.Context(), announceOf(spec(w.name, vip4))) })
	wantErr(t, err, ErrPermission)
}

func TestProbeOfAFreeAddress(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	arp, ipv6 := w.tap(unix.ETH_P_ARP), w.tap(unix.ETH_P_IPV6)
	const d = 100 * time.Millisecond
	start := time.Now()
	mac, err := b.Probe(t.Context(), probeOf(spec(w.name, vip4, vip6), d))
	if mac != nil || err != nil {
		t.Fatalf("Probe = %v, %v", mac, err)
	}
	if took := time.Since(start); took < d {
		t.Errorf("listened for %v only", took)
	}
	own := w.link().MAC
	for range probeCount {
		expect(t, arp, "ARP probe", isARP(ProbeARP(own, vip4.Addr())))
		expect(t, ipv6, "solicitation", isNDP(ProbeNS(own, vip6.Addr())))
	}
}

func TestProbeFindsWhoHasTheAddress(t *testing.T) {
	for name, p := range map[string]netip.Prefix{"IPv4": vip4, "IPv6": vip6} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t)
			w.giveToPeer(p.String())
			b := newBinder(t, Config{})
			mac, err := b.Probe(t.Context(), probeOf(spec(w.name, p), 10*time.Second))
			if err != nil || mac.String() != w.peerLink().MAC.String() {
				t.Errorf("Probe = %v, %v, want %v", mac, err, w.peerLink().MAC)
			}
		})
	}
}

// asked lets look ask the link and, once it has asked, others say frames. It returns whom look has found.
func asked(t *testing.T, look func(*Binder, core.Probe) (net.HardwareAddr, error), frames ...[]byte) string {
	w := newWire(t)
	arp, ipv6 := w.tap(unix.ETH_P_ARP), w.tap(unix.ETH_P_IPV6)
	b := newBinder(t, Config{})
	result := make(chan string, 1)
	go func() {
		mac, err := look(b, probeOf(spec(w.name, vip4, vip6), 10*time.Second))
		if err != nil {
			t.Error(err)
		}
		result <- mac.String()
	}()
	expect(t, arp, "ARP probe", func([]byte) bool { return true }) // so it listens
	expect(t, ipv6, "solicitation", isNDP(ProbeNS(w.link().MAC, vip6.Addr())))
	for _, f := range frames {
		w.say(f)
	}
	return <-result
}

// A probe of somebody else counts for a Probe, because he is about to take the address. For a Sight it is a question like its
// own, and only a claim counts.
func TestWhatCountsForAProbeAndForASight(t *testing.T) {
	claimant := MAC{2, 0, 0, 0, 0, 9}
	claim := GratuitousARP(ARPRequest, claimant, vip4.Addr()).AppendFrame(nil)
	for name, probe := range map[string][]byte{"IPv4": ProbeARP(mac1, vip4.Addr()).AppendFrame(nil), "IPv6": ProbeNS(mac1, vip6.Addr()).AppendFrame(nil)} {
		t.Run(name, func(t *testing.T) {
			got := asked(t, func(b *Binder, a core.Probe) (net.HardwareAddr, error) { return b.Probe(t.Context(), a) }, probe)
			if got != mac1.String() {
				t.Errorf("Probe found %v, want %v, who probes", got, mac1)
			}
			got = asked(t, func(b *Binder, a core.Probe) (net.HardwareAddr, error) { return b.Sight(t.Context(), a) }, probe, claim)
			if got != claimant.String() {
				t.Errorf("Sight found %v, want %v, who claims", got, claimant)
			}
		})
	}
}

func TestProbeIgnoresOurOwn(t *testing.T) {
	w, other := newWire(t), newWire(t)
	frames := w.tap(unix.ETH_P_ARP)
	b := newBinder(t, Config{})
	result := make(chan string, 1)
	go func() {
		mac, err := b.Probe(t.Context(), probeOf(spec(w.name, vip4), 300*time.Millisecond))
		if err != nil {
			t.Error(err)
		}
		result <- mac.String()
	}()
	expect(t, frames, "ARP probe", func([]byte) bool { return true })
	w.say(GratuitousARP(ARPReply, other.link().MAC, vip4.Addr()).AppendFrame(nil)) // as a loop through a switch would
	if got := <-result; got != "" {
		t.Errorf("conflict with our own %v", got)
	}
}

func TestProbeIsLate(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	a := probeOf(spec(w.name, vip4), 100*time.Millisecond)
	a.NotAfter = Boottime().Add(50 * time.Millisecond)
	_, err := b.Probe(t.Context(), a)
	wantErr(t, err, ErrLate)
}

func BenchmarkBindUnbind(b *testing.B) {
	w := newWire(b)
	binder := newBinder(b, Config{})
	s := spec(w.name, vip4)
	for e := core.Epoch(1); b.Loop(); e++ {
		must(b, binder.Bind(b.Context(), bindOf(s, e)))
		must(b, binder.Unbind(b.Context(), unbindOf(s, e)))
	}
}

func BenchmarkExtend(b *testing.B) {
	w := newWire(b)
	binder := newBinder(b, Config{})
	s := spec(w.name, vip4)
	must(b, binder.Bind(b.Context(), bindOf(s, 1)))
	for b.Loop() {
		must(b, binder.Extend(b.Context(), extendOf(s, 1, time.Minute)))
	}
}

func BenchmarkAnnounce(b *testing.B) {
	w := newWire(b)
	binder := newBinder(b, Config{})
	a := announceOf(spec(w.name, vip4))
	b.ReportAllocs()
	for b.Loop() {
		must(b, binder.Announce(b.Context(), a))
	}
}
