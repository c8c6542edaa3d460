package netio

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

// watch runs a Watcher until the test ends and returns its events. deliver, if given, sees them first.
func watch(tb testing.TB, w *Watcher, events chan core.Event) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		for {
			select {
			case <-events: // so that Deliver does not block
			case err := <-ended:
				must(tb, err)
				return
			}
		}
	})
}

func newWatch(tb testing.TB, groups ...core.GroupSpec) (*Watcher, chan core.Event) {
	tb.Helper()
	events := make(chan core.Event, 1024)
	w := NewWatcher(WatcherConfig{Deliver: each(func(e core.Event) { events <- e })})
	w.SetGroups(groups)
	watch(tb, w, events)
	return w, events
}

// each has every address that was seen delivered by itself.
func each(deliver func(core.Event)) func(core.Event) {
	return func(e core.Event) {
		seen, ok := e.(core.AddressesSeen)
		if !ok {
			deliver(e)
		}
		for _, s := range seen {
			deliver(core.AddressesSeen{s})
		}
	}
}

// next returns the next event.
func next(tb testing.TB, events <-chan core.Event) core.Event {
	tb.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(10 * time.Second):
		tb.Fatal("no event within 10 s")
		return nil
	}
}

// wantEvents takes as many events as are wanted and compares them, in any order.
func wantEvents(tb testing.TB, events <-chan core.Event, want ...core.Event) {
	tb.Helper()
	var got, wanted []string
	for _, e := range want {
		got = append(got, fmt.Sprintf("%+v", next(tb, events)))
		wanted = append(wanted, fmt.Sprintf("%+v", e))
	}
	slices.Sort(got)
	slices.Sort(wanted)
	if !slices.Equal(got, wanted) {
		tb.Fatalf("events\n got %q\nwant %q", got, wanted)
	}
}

// wantQuiet checks that there is no event, after something that is known to have been looked at.
func wantQuiet(tb testing.TB, events <-chan core.Event) {
	tb.Helper()
	select {
	case e := <-events:
		tb.Fatalf("unexpected event %+v", e)
	case <-time.After(3 * carrierEvery):
	}
}

func absent(p netip.Prefix) core.Event { return core.AddressesSeen{{Address: p.Addr()}} }
func ours(p netip.Prefix) core.Event {
	return core.AddressesSeen{{Address: p.Addr(), Present: true, Ours: true}}
}
func byHand(p netip.Prefix) core.Event { return core.AddressesSeen{{Address: p.Addr(), Present: true}} }
func up(name string) core.Event        { return core.LinkChanged{Interface: name, Up: true} }
func down(name string) core.Event      { return core.LinkChanged{Interface: name} }
func missing(name string) core.Event   { return core.LinkChanged{Interface: name, Missing: true} }

func TestWatcherTellsTheStateAtTheStartAndAfterSetGroups(t *testing.T) {
	w := newWire(t)
	must(t, addByHand("lo", vip6))
	defer func() { must(t, removeByHand("lo", vip6)) }()
	g := spec(w.name, vip4, vip6)
	watcher, events := newWatch(t, g)
	wantEvents(t, events, up(w.name), absent(vip4), byHand(vip6))
	watcher.SetGroups([]core.GroupSpec{g, {Name: "reader", Interface: "nosuch", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/32")}}})
	wantEvents(t, events, up(w.name), missing("nosuch"), absent(vip4), byHand(vip6), absent(netip.MustParsePrefix("192.0.2.9/32")))
	watcher.SetGroups(nil)
	wantQuiet(t, events)
}

func TestWatcherTellsOfAddresses(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	s := spec(w.name, vip4, vip6)
	_, events := newWatch(t, s)
	wantEvents(t, events, up(w.name), absent(vip4), absent(vip6))
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	wantEvents(t, events, ours(vip4), ours(vip6))
	must(t, b.Extend(t.Context(), extendOf(s, 1, time.Minute)))
	wantQuiet(t, events) // a renewal changes nothing
	must(t, removeByHand(w.name, vip4))
	wantEvents(t, events, absent(vip4))
	must(t, addByHand(w.name, vip4))
	wantEvents(t, events, byHand(vip4))
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	wantEvents(t, events, ours(vip4)) // taken over
	must(t, addByHand("lo", vip4))
	wantEvents(t, events, byHand(vip4)) // one copy is not ours
	must(t, removeByHand("lo", vip4))
	wantEvents(t, events, ours(vip4))
	must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
	wantEvents(t, events, absent(vip4), absent(vip6))
}

// An address that is deleted behind our back must be known at once. The bound is generous: the test may run on busy
// cores.
func TestWatcherIsQuick(t *testing.T) {
	w := newWire(t)
	_, events := newWatch(t, spec(w.name, vip4))
	wantEvents(t, events, up(w.name), absent(vip4))
	var took []time.Duration
	for range 20 {
		must(t, addByHand(w.name, vip4))
		wantEvents(t, events, byHand(vip4))
		start := time.Now()
		must(t, removeByHand(w.name, vip4))
		wantEvents(t, events, absent(vip4))
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Logf("from before the removal to the event: median %v, longest %v", took[len(took)/2], took[len(took)-1])
	if median := took[len(took)/2]; median > 20*time.Millisecond {
		t.Errorf("a removed address is reported after %v", median)
	}
}

func TestWatcherTellsOfLinks(t *testing.T) {
	w := newWire(t)
	_, events := newWatch(t, spec(w.name, vip4))
	wantEvents(t, events, up(w.name), absent(vip4))
	w.setPeer(false) // the cable
	wantEvents(t, events, down(w.name))
	w.setPeer(true)
	wantEvents(t, events, up(w.name))
	w.set(false) // the administrator
	wantEvents(t, events, down(w.name))
	w.set(true)
	wantEvents(t, events, up(w.name))
	must(t, addByHand(w.name, vip4))
	wantEvents(t, events, byHand(vip4))
	w.delete()
	wantEvents(t, events, missing(w.name), absent(vip4))
}

// claimUntil lets the peer claim an address until the event comes, for the listener may not be open yet.
func claimUntil(tb testing.TB, w *wire, frame []byte, events <-chan core.Event, want core.ForeignClaim) {
	tb.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		w.say(frame)
		select {
		case e := <-events:
			if c, ok := e.(core.ForeignClaim); ok && c.Address == want.Address && c.MAC.String() == want.MAC.String() {
				return
			}
		case <-time.After(20 * time.Millisecond):
		}
	}
	tb.Fatalf("not reported within 10 s: %+v", want)
}

func TestWatcherTellsOfForeignClaims(t *testing.T) {
	w := newWire(t)
	_, events := newWatch(t, spec(w.name, vip4, vip6))
	wantEvents(t, events, up(w.name), absent(vip4), absent(vip6))
	for _, op := range []uint16{ARPRequest, ARPReply} {
		claimUntil(t, w, GratuitousARP(op, mac1, vip4.Addr()).AppendFrame(nil), events, core.ForeignClaim{Address: vip4.Addr(), MAC: mac1.HardwareAddr()})
	}
	claimUntil(t, w, UnsolicitedNA(mac1, vip6.Addr()).AppendFrame(nil), events, core.ForeignClaim{Address: vip6.Addr(), MAC: mac1.HardwareAddr()})

	// The interface goes down and comes back, and is made again: the watcher listens still.
	w.set(false)
	w.set(true)
	claimUntil(t, w, GratuitousARP(ARPReply, mac1, vip4.Addr()).AppendFrame(nil), events, core.ForeignClaim{Address: vip4.Addr(), MAC: mac1.HardwareAddr()})
	w.delete()
	w.create()
	claimUntil(t, w, GratuitousARP(ARPReply, mac1, vip4.Addr()).AppendFrame(nil), events, core.ForeignClaim{Address: vip4.Addr(), MAC: mac1.HardwareAddr()})
}

func TestWatcherListensOnAnInterfaceThatWasDownAtTheStart(t *testing.T) {
	w := newWire(t)
	w.set(false)
	_, events := newWatch(t, spec(w.name, vip4))
	wantEvents(t, events, down(w.name), absent(vip4))
	w.set(true)
	claimUntil(t, w, GratuitousARP(ARPReply, mac1, vip4.Addr()).AppendFrame(nil), events, core.ForeignClaim{Address: vip4.Addr(), MAC: mac1.HardwareAddr()})
}

func TestWatcherIsSilentAboutOurOwnAndAboutOthersAddresses(t *testing.T) {
	w, other := newWire(t), newWire(t)
	_, events := newWatch(t, spec(w.name, vip4))
	wantEvents(t, events, up(w.name), absent(vip4))
	claim := core.ForeignClaim{Address: vip4.Addr(), MAC: mac1.HardwareAddr()}
	claimUntil(t, w, GratuitousARP(ARPReply, mac1, vip4.Addr()).AppendFrame(nil), events, claim) // it listens
	must(t, newBinder(t, Config{}).Announce(t.Context(), announceOf(spec(w.name, vip4))))
	w.say(GratuitousARP(ARPReply, other.link().MAC, vip4.Addr()).AppendFrame(nil))
	w.say(GratuitousARP(ARPReply, mac1, netip.MustParseAddr("10.77.0.7")).AppendFrame(nil))
	w.say(ProbeARP(mac1, vip4.Addr()).AppendFrame(nil)) // asks, does not claim
	for drained := false; !drained; {
		select {
		case e := <-events:
			if fmt.Sprintf("%+v", e) != fmt.Sprintf("%+v", claim) {
				t.Errorf("unexpected event %+v", e)
			}
		case <-time.After(200 * time.Millisecond):
			drained = true
		}
	}
}

func TestForeignClaimsAreLimited(t *testing.T) {
	var now core.Instant
	v := &view{w: NewWatcher(WatcherConfig{Clock: func() core.Instant { return now }}), recent: make(map[netip.Addr]claimant)}
	mac2 := MAC{2}
	for _, c := range []struct {
		at   time.Duration
		ip   netip.Addr
		mac  MAC
		want bool
	}{
		{0, ip4, mac1, true},
		{anyClaim - 1, ip4, mac2, false},
		{anyClaim - 1, ip6, mac1, true}, // another address
		{anyClaim, ip4, mac1, false},
		{anyClaim, ip4, mac2, true}, // another claimant
		{2 * anyClaim, ip4, mac1, true},
		{2*anyClaim + sameClaim - 1, ip4, mac1, false},
		{2*anyClaim + sameClaim, ip4, mac1, true},
	} {
		now = core.Instant(c.at)
		if got := !v.tooSoon(sighting{c.ip, c.mac}); got != c.want {
			t.Errorf("%v %v at %v: reported %v, want %v", c.ip, c.mac, c.at, got, c.want)
		}
	}
}

// Of many addresses that come one after the other the first is reported at once, and the others together.
func TestManyNewsAreReadTogether(t *testing.T) {
	w := newWire(t)
	var told core.AddressesSeen
	s, err := newSession()
	must(t, err)
	again, err := NewAlarm()
	must(t, err)
	defer again.Stop()
	ps := manyAddresses(3)
	watcher := NewWatcher(WatcherConfig{Deliver: func(ev core.Event) {
		if seen, ok := ev.(core.AddressesSeen); ok {
			told = append(told, seen...)
		}
	}})
	watcher.SetGroups([]core.GroupSpec{spec(w.name, ps...)})
	v := &view{w: watcher, s: s, again: again, retry: time.NewTimer(time.Hour), heard: make(chan report)}
	defer func() { v.closeListeners(); v.listening.Wait(); must(t, v.s.close()) }()
	v.setGroups()
	told = nil
	come := func(p netip.Prefix) {
		must(t, addByHand(w.name, p))
		v.follow(hint{addr: &address{Index: w.link().Index, Local: p.Addr(), Peer: p.Addr(), Bits: p.Bits()}})
	}
	here := func(p netip.Prefix) core.AddressSeen { return core.AddressSeen{Address: p.Addr(), Present: true} }
	begun := time.Now()
	come(ps[0])
	if !v.early.After(begun) || len(told) != 1 || told[0] != here(ps[0]) {
		t.Fatalf("after the first address %v was told, and the next are read at once until %v", told, v.early.Sub(begun))
	}
	v.early = time.Now().Add(time.Second / 2)
	come(ps[1])
	come(ps[2])
	if len(told) != 1 {
		t.Errorf("what comes just after a reading is read at once: %v", told)
	}
	<-again.C()
	if v.readAgain(); len(told) != 3 || told[1] != here(ps[1]) || told[2] != here(ps[2]) {
		t.Errorf("in the end %v was told, want three addresses", told)
	}
	v.early = time.Time{}
	must(t, removeByHand(w.name, ps[1]))
	v.follow(hint{addr: &address{Local: ps[1].Addr()}, gone: true})
	if len(told) != 4 || told[3] != (core.AddressSeen{Address: ps[1].Addr()}) {
		t.Errorf("after a pause %v was told", told[3:])
	}
}

// All that one stranger claims costs one look at the list of interfaces, as long as that is fresh.
func TestClaimsOfAStrangerShareAList(t *testing.T) {
	var now core.Instant
	var told []netip.Addr
	w := NewWatcher(WatcherConfig{Clock: func() core.Instant { return now }, Deliver: func(ev core.Event) {
		told = append(told, ev.(core.ForeignClaim).Address)
	}})
	s, err := newSession()
	must(t, err)
	v := &view{w: w, s: s, recent: make(map[netip.Addr]claimant), retry: time.NewTimer(time.Hour)}
	defer func() { must(t, v.s.close()) }()
	claims := func(mac MAC, ps []netip.Prefix) {
		for _, p := range ps {
			v.hear(report{hearing: hearing{sighting: sighting{p.Addr(), mac}}})
		}
	}
	many := manyAddresses(8)
	claims(mac1, many[:1])
	must(t, s.close()) // nothing can be listed any more
	claims(mac1, many[1:4])
	if len(told) != 4 {
		t.Errorf("of four claims of a stranger %v were reported", told)
	}
	claims(MAC{2}, many[4:5]) // finds the session broken, after which there is another
	now = core.Instant(sameClaim)
	must(t, v.s.close())
	claims(mac1, many[5:6])
	if len(told) != 4 {
		t.Errorf("a claim was reported that was held against no list, or an old one: %v", told[4:])
	}
}

// When the kernel's messages do not fit into the socket, the state is read again as a whole.
func TestWatcherSurvivesLostMessages(t *testing.T) {
	w := newWire(t)
	entered, events := make(chan core.Event, 1024), make(chan core.Event)
	var logged lockedBuffer
	watcher := NewWatcher(WatcherConfig{Logger: logged.logger(), Deliver: func(e core.Event) {
		entered <- e
		events <- e
	}})
	watcher.rcvbuf, watcher.sweep = 1, time.Hour // the kernel makes it the smallest buffer that it allows
	watcher.SetGroups([]core.GroupSpec{spec(w.name, vip4)})
	watch(t, watcher, events)
	wantEvents(t, events, absent(vip4), up(w.name))
	wantEvents(t, entered, absent(vip4), up(w.name))

	must(t, addByHand(w.name, vip4))
	wantEvents(t, entered, byHand(vip4)) // the watcher hangs in Deliver from now on
	other := netip.MustParsePrefix("10.77.0.101/32")
	poll(t, "messages lost", func() bool {
		must(t, addByHand(w.name, other))
		must(t, removeByHand(w.name, other))
		return netlinkDrops(t)
	})
	must(t, removeByHand(w.name, vip4)) // lost as well
	wantEvents(t, events, byHand(vip4))
	wantEvents(t, events, absent(vip4))
	poll(t, "a line in the log", func() bool { return logged.contains("lost for want of buffer") })
	wantQuiet(t, events)
}

func TestWatcherEndsWithItsContext(t *testing.T) {
	w := newWire(t)
	before := openFiles(t)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		events := make(chan core.Event, 16)
		watcher := NewWatcher(WatcherConfig{Deliver: each(func(e core.Event) { events <- e })})
		watcher.SetGroups([]core.GroupSpec{spec(w.name, vip4, vip6)})
		ended := make(chan error)
		go func() { ended <- watcher.Run(ctx) }()
		wantEvents(t, events, up(w.name), absent(vip4), absent(vip6))
		cancel()
		must(t, <-ended)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, %d were before", after, before)
	}
}

func TestWatcherNeedsRightsOnlyToListen(t *testing.T) {
	w := newWire(t)
	events := make(chan core.Event, 16)
	watcher := NewWatcher(WatcherConfig{Deliver: func(e core.Event) { events <- e }})
	watcher.SetGroups([]core.GroupSpec{spec(w.name, vip4)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- withoutRights(func() error { return watcher.Run(ctx) }) }()
	wantEvents(t, events, up(w.name), absent(vip4))
	cancel()
	must(t, <-ended)
}

func BenchmarkFrameFilter(b *testing.B) {
	frame := GratuitousARP(ARPReply, mac1, ip4).AppendFrame(nil)
	ips := map[netip.Addr]bool{ip4: true}
	for b.Loop() {
		if _, ok := readARP(frame, ips, false); !ok {
			b.Fatal("not read")
		}
	}
}
