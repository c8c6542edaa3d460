package netio

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

var (
	vip4 = netip.MustParsePrefix("10.77.0.100/32")
	vip6 = netip.MustParsePrefix("fd77::100/128")
)

func newBinder(tb testing.TB, cfg Config) *Binder {
	tb.Helper()
	b, err := NewBinder(cfg)
	must(tb, err)
	tb.Cleanup(func() { must(tb, b.Close()) })
	return b
}

func spec(interfaceName string, ps ...netip.Prefix) core.GroupSpec {
	return core.GroupSpec{Name: "writer", Interface: interfaceName, Addresses: ps}
}

func soon() core.Instant { return Boottime().Add(time.Minute) }

func bindOf(s core.GroupSpec, e core.Epoch) core.Bind {
	return core.Bind{Group: s.Name, Epoch: e, Spec: s, Lifetime: 30 * time.Second, NotAfter: soon()}
}

func extendOf(s core.GroupSpec, e core.Epoch, life time.Duration) core.Extend {
	return core.Extend{Group: s.Name, Epoch: e, Spec: s, Lifetime: life, NotAfter: soon()}
}

func unbindOf(s core.GroupSpec, e core.Epoch) core.Unbind {
	return core.Unbind{Group: s.Name, Epoch: e, Spec: s}
}

// scripted is a clock that runs a step of the test at its nth reading, from 1.
type scripted struct {
	reads atomic.Int32
	at    map[int32]func()
	ahead atomic.Int64
}

func (c *scripted) now() core.Instant {
	if f := c.at[c.reads.Add(1)]; f != nil {
		f()
	}
	return Boottime().Add(time.Duration(c.ahead.Load()))
}

// leap makes the clock of every later reading, and of the one that is under way, an hour late.
func (c *scripted) leap() { c.ahead.Store(int64(time.Hour)) }

func wantErr(tb testing.TB, err, want error) {
	tb.Helper()
	if !errors.Is(err, want) {
		tb.Fatalf("got error %v, want one that is %q", err, want)
	}
}

func wantBound(tb testing.TB, p netip.Prefix, n int) {
	tb.Helper()
	if found := bound(tb, p); len(found) != n {
		tb.Fatalf("%v has %d copies, want %d: %+v", p, len(found), n, found)
	}
}

func TestBindAddsMarkAndLifetime(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{Label: "vip"})
	must(t, b.Bind(t.Context(), bindOf(spec(w.name, vip4, vip6), 1)))
	for _, p := range []netip.Prefix{vip4, vip6} {
		found := bound(t, p)
		if len(found) != 1 {
			t.Fatalf("%v: %+v", p, found)
		}
		a := found[0]
		if a.Index != w.link().Index || a.Bits != p.Bits() || a.Proto != MarkProtocol {
			t.Errorf("bound as %+v", a)
		}
		if a.Expiry.Valid < 28 || a.Expiry.Valid > 30 || a.Expiry.Preferred > a.Expiry.Valid {
			t.Errorf("%v lives for %+v, want 30 s", p, a.Expiry)
		}
		if a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			t.Errorf("%v is not usable yet: flags %#x", p, a.Flags)
		}
		if p == vip4 && a.Label != w.name+":vip" {
			t.Errorf("label %q", a.Label)
		}
		if present, ours, err := b.Present(t.Context(), p.Addr()); !present || !ours || err != nil {
			t.Errorf("Present(%v) = %v, %v, %v", p, present, ours, err)
		}
	}
}

// What connects from this node, without naming an address, does so from the node's own. From one that moves it would lose
// its connections with it, and would not even be let out while the fence is closed.
func TestNothingConnectsFromABoundAddress(t *testing.T) {
	w := newWire(t)
	for _, own := range []string{"10.77.0.11/24", "fd77::11/64"} {
		must(t, addByHand(w.name, netip.MustParsePrefix(own)))
	}
	from := func(to string) string {
		t.Helper()
		conn, err := net.Dial("udp", net.JoinHostPort(to, "3306")) // sends nothing
		must(t, err)
		defer conn.Close()
		return conn.LocalAddr().(*net.UDPAddr).IP.String()
	}
	own := func(when string) {
		t.Helper()
		for to, want := range map[string]string{"10.77.0.12": "10.77.0.11", "fd77::12": "fd77::11", "fd77::101": "fd77::11"} {
			if got := from(to); got != want {
				t.Errorf("%s: to %s from %s, want %s", when, to, got, want)
			}
		}
	}
	b := newBinder(t, Config{})
	s := spec(w.name, vip4, vip6)
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	own("bound")
	must(t, b.Extend(t.Context(), extendOf(s, 1, 40*time.Second)))
	own("extended")
	must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
	must(t, addByHand(w.name, vip6))
	if got := from("fd77::101"); got != vip6.Addr().String() {
		t.Errorf("bound by hand: from %s, so there is nothing to prevent", got)
	}
	must(t, b.Bind(t.Context(), bindOf(s, 2)))
	own("taken over")
}

// When Bind returns, what comes for an IPv6 address is this node's, and so is a connection attempt that the announcement brings. The
// kernel alone was late in half of the rounds.
func TestBoundAddressesAreLocal(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	s := spec(w.name, vip4, netip.MustParsePrefix("fd77::101/128"), vip6)
	for e := core.Epoch(1); e <= 40; e++ {
		start := time.Now()
		must(t, b.Bind(t.Context(), bindOf(s, e)))
		took := time.Since(start)
		for _, p := range s.Addresses[1:] {
			var local bool
			must(t, withSession(func(n *session) (err error) {
				local, err = n.isLocal(p.Addr())
				return err
			}))
			if !local && took < localWait {
				t.Errorf("round %d: %v is bound, and what comes for it is not this node's", e, p)
			}
		}
		must(t, b.Unbind(t.Context(), unbindOf(s, e)))
	}
}

func TestBindAgainIsNoError(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	a := bindOf(spec(w.name, vip4, vip6), 1)
	a.Lifetime = 5 * time.Second
	must(t, b.Bind(t.Context(), a))
	a.Lifetime = 50 * time.Second
	must(t, b.Bind(t.Context(), a))
	for _, p := range a.Spec.Addresses {
		wantBound(t, p, 1)
		if left := bound(t, p)[0].Expiry.Valid; left < 40 {
			t.Errorf("%v lives for %d s after the second bind", p, left)
		}
	}
}

// Many addresses go to the kernel together: one that is there already, or gone already, spoils nothing for the others.
func TestManyAddressesAtOnce(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	s := spec(w.name, manyAddresses(3*changesAtOnce+1)...)
	must(t, addByHand(w.name, s.Addresses[5]))
	must(t, addByHand(w.name, s.Addresses[changesAtOnce-1]))
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	whole := func() {
		t.Helper()
		var found []address
		must(t, withSession(func(n *session) (err error) {
			found, err = n.copies(s.Addresses)
			return err
		}))
		if len(found) != len(s.Addresses) {
			t.Errorf("%d of %d addresses are bound", len(found), len(s.Addresses))
		}
		for _, a := range found {
			if !a.ours("") || a.permanent() {
				t.Errorf("%v has not got our mark and lifetime: %+v", a.prefix(), a)
			}
		}
	}
	whole()
	must(t, removeByHand(w.name, s.Addresses[0]))
	wantErr(t, b.Extend(t.Context(), extendOf(s, 1, time.Minute)), ErrAbsent)
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	must(t, b.Extend(t.Context(), extendOf(s, 1, time.Minute)))
	whole()
	must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
	for _, p := range []int{0, 5, changesAtOnce, len(s.Addresses) - 1} {
		wantBound(t, s.Addresses[p], 0)
	}
}

// A verdict belongs to its address, wherever in the list the kernel refuses one.
func TestVerdictsOnManyChanges(t *testing.T) {
	w := newWire(t)
	l, err := findLink(w.name)
	must(t, err)
	var as []address
	for _, p := range manyAddresses(changesAtOnce) {
		as = append(as, address{Index: l.Index, Local: p.Addr(), Peer: p.Addr(), Bits: 32})
	}
	for _, refused := range [][]int{nil, {0}, {changesAtOnce - 1}, {1, 30, 31, changesAtOnce - 1}} {
		must(t, withSession(func(s *session) error {
			for _, i := range refused {
				_, err := s.addAll(as[i : i+1])
				must(t, err)
			}
			verdicts, err := s.addAll(as)
			for i, v := range verdicts {
				if want := slices.Contains(refused, i); errors.Is(v, unix.EEXIST) != want || !want && v != nil {
					t.Errorf("refused %v: the verdict on %d is %v", refused, i, v)
				}
			}
			_, gone := s.removeAll(as)
			_, twice := s.removeAll(as)
			return errors.Join(err, gone, twice)
		}))
	}
}

func TestInterfaceOverride(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{Interface: func(core.GroupSpec) string { return w.name }})
	must(t, b.Bind(t.Context(), bindOf(spec("elsewhere", vip4), 1)))
	wantBound(t, vip4, 1)
}

func TestKernelEndsTheLease(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	a := bindOf(spec(w.name, vip4, vip6), 1)
	a.Lifetime = 1900 * time.Millisecond // rounded down
	// The others wait 1.25 s more for a node whose kernel holds its lease by lifetimes alone (core.UnfencedMargin). The kernel removes
	// addresses in a worker thread, and the test looks from a thread; where all processors are busy each may wait for one.
	const late, busy = 1250 * time.Millisecond, 500 * time.Millisecond
	start := time.Now()
	must(t, b.Bind(t.Context(), a))
	bind := time.Now()
	for _, p := range a.Spec.Addresses {
		poll(t, p.String()+" removed by the kernel", func() bool { return len(bound(t, p)) == 0 })
		if d := time.Since(start); d < 900*time.Millisecond {
			t.Errorf("%v went after %v", p, d)
		}
		if d := time.Since(bind); d > time.Second+late+busy {
			t.Errorf("%v went %v after it was bound, want %v at the most", p, d, time.Second+late+busy)
		}
	}
}

func TestBindTooLateAddsNothing(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	a := bindOf(spec(w.name, vip4), 1)
	a.NotAfter = Boottime()
	wantErr(t, b.Bind(t.Context(), a), ErrLate)
	wantBound(t, vip4, 0)
}

// The readings of a Bind in two system calls: one at its beginning, one before each of them, one at its end.
func TestBindFoundLateTakesBack(t *testing.T) {
	for name, reading := range map[string]int32{"before the second call": 3, "after the last": 4} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t)
			c := &scripted{}
			c.at = map[int32]func(){reading: c.leap}
			b := newBinder(t, Config{Clock: c.now})
			as := append([]netip.Prefix{vip6}, manyAddresses(changesAtOnce)...)
			wantErr(t, b.Bind(t.Context(), bindOf(spec(w.name, as...), 1)), ErrLate)
			for _, p := range as {
				wantBound(t, p, 0)
			}
		})
	}
}

func TestBindStopsWithItsContext(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, b.Bind(ctx, bindOf(spec(w.name, vip4), 1)), context.Canceled)
	wantBound(t, vip4, 0)
}

func TestBindTakesOverWhatWasBoundByHand(t *testing.T) {
	w, other := newWire(t), newWire(t)
	b := newBinder(t, Config{})
	wide := netip.PrefixFrom(vip4.Addr(), 24)
	must(t, addByHand(w.name, vip4))
	must(t, addByHand(w.name, wide))
	must(t, addByHand(other.name, vip4))
	must(t, addByHand(w.name, netip.PrefixFrom(vip6.Addr(), 64)))
	if present, ours, err := b.Present(t.Context(), vip4.Addr()); !present || ours || err != nil {
		t.Fatalf("Present = %v, %v, %v", present, ours, err)
	}
	s := spec(w.name, vip4, vip6)
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	wantBound(t, vip4, 3)
	wantBound(t, vip6, 1)
	must(t, b.Extend(t.Context(), extendOf(s, 1, 40*time.Second)))
	for _, a := range append(bound(t, vip4), bound(t, vip6)...) {
		if a.Proto != MarkProtocol || a.permanent() || a.Expiry.Valid < 35 {
			t.Errorf("not taken over: %+v", a)
		}
	}
	must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
	wantBound(t, vip4, 0)
	wantBound(t, vip6, 0)
}

// withoutRights runs f on a thread that may do nothing special.
func withoutRights(f func() error) error {
	return onThread(func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		return f()
	})
}

func TestErrorsAreClassified(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	s := spec(w.name, vip4)
	wantErr(t, b.Bind(t.Context(), bindOf(spec("nosuch", vip4), 1)), ErrNoInterface)
	wantErr(t, b.Bind(t.Context(), bindOf(spec("", vip4), 1)), ErrNoInterface)
	wantErr(t, withoutRights(func() error { return b.Bind(t.Context(), bindOf(s, 1)) }), ErrPermission)
	wantBound(t, vip4, 0)
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	err := withoutRights(func() error { return b.Unbind(t.Context(), unbindOf(s, 1)) })
	wantErr(t, err, ErrPermission)
	wantErr(t, err, ErrStillBound)
	wantBound(t, vip4, 1)
	must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
}

func TestHost(t *testing.T) {
	w := newWire(t)
	missing, err := Capabilities()
	if err != nil || len(missing) != 0 {
		t.Errorf("Capabilities = %v, %v", missing, err)
	}
	must(t, withoutRights(func() error {
		missing, err = Capabilities()
		return err
	}))
	if len(missing) != 2 {
		t.Errorf("without rights, Capabilities = %v", missing)
	}
	must(t, addByHand(w.name, vip4))
	ips, err := LocalAddrs()
	must(t, err)
	found := false
	for _, ip := range ips {
		found = found || ip == vip4.Addr()
	}
	if !found {
		t.Errorf("LocalAddrs = %v", ips)
	}
	for name, want := range map[string]bool{w.name: true, "nosuch": false, "a-name-that-is-too-long": false} {
		if ok, err := InterfaceExists(name); ok != want || err != nil {
			t.Errorf("InterfaceExists(%q) = %v, %v", name, ok, err)
		}
	}
}

func TestClosedBinder(t *testing.T) {
	b, err := NewBinder(Config{})
	must(t, err)
	must(t, b.Close())
	wantErr(t, b.Unbind(t.Context(), unbindOf(spec("lo", vip4), 1)), errClosed)
	wantErr(t, b.Bind(t.Context(), bindOf(spec("lo", vip4), 2)), errClosed)
}
