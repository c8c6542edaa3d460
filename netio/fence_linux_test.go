package netio

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const long = 30 * time.Second // a lease that does not end during a test

var (
	fence4, own4 = netip.MustParseAddr("10.77.0.9"), netip.MustParseAddr("10.77.0.1")
	fence6, own6 = netip.MustParseAddr("fd77::9"), netip.MustParseAddr("fd77::1")
	fenced       = []netip.Addr{fence4, fence6}
)

// newFence returns a fence that is removed at the test's end.
func newFence(tb testing.TB, guard ...netip.Addr) *Fence {
	tb.Helper()
	f, err := NewFence(FenceConfig{})
	must(tb, err)
	tb.Cleanup(func() {
		must(tb, f.Remove())
		must(tb, f.Detach())
	})
	must(tb, f.Install(guard))
	return f
}

// openings are addresses that rest on reports, those of the same report together.
func openings(open map[netip.Addr]uint64) (os []FenceOpening) {
	for _, a := range slices.SortedFunc(maps.Keys(open), netip.Addr.Compare) {
		i := slices.IndexFunc(os, func(o FenceOpening) bool { return o.Report == open[a] })
		if i < 0 {
			i, os = len(os), append(os, FenceOpening{Report: open[a]})
		}
		os[i].Addrs = append(os[i].Addrs, a)
	}
	return os
}

// node lays a wire to a node that has the guarded addresses and others.
func newNode(tb testing.TB) (*wire, *asker) {
	tb.Helper()
	w := newWire(tb)
	for _, s := range []string{"10.77.0.1/24", "fd77::1/64", "10.77.0.9/32", "fd77::9/128"} {
		must(tb, addByHand(w.name, netip.MustParsePrefix(s)))
	}
	return w, newAsker(tb, w, "10.77.0.2/24", "fd77::2/64")
}

func unguardedLike(ip netip.Addr) netip.Addr {
	if ip.Is4() {
		return own4
	}
	return own6
}

func TestAnswersOnlyWhileOpen(t *testing.T) {
	_, a := newNode(t)
	for _, ip := range fenced {
		a.expect(ip)
	}
	f := newFence(t, fenced...)
	for _, ip := range fenced {
		a.silent(ip, unguardedLike(ip))
	}
	must(t, f.Arm(1, long, nil))
	for _, ip := range fenced {
		a.silent(ip, unguardedLike(ip)) // a report opens nothing before it is answered
		must(t, f.Open([]netip.Addr{ip}, 1))
		a.expect(ip)
	}
	must(t, f.Close([]netip.Addr{fence4}))
	a.silent(fence4, own4)
	a.expect(fence6)
	must(t, f.Close(fenced))
	must(t, f.Close(fenced))
	a.silent(fence6, own6)
	must(t, f.Check())
	must(t, f.Remove())
	for _, ip := range fenced {
		a.expect(ip)
	}
}

// nft runs the tool that administrators use.
func nft(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("nft %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestLateOpenOpensNothing(t *testing.T) {
	_, a := newNode(t)
	f := newFence(t, fenced...)
	const ttl = 60 * time.Millisecond
	armed := time.Now()
	must(t, f.Arm(1, ttl, nil))
	poll(t, "the report's time is over", func() bool { return time.Since(armed) > ttl })
	must(t, f.Open(fenced, 1))
	a.silent(fence4, own4)
	a.silent(fence6, own6)
	must(t, f.Arm(2, long, openings(map[netip.Addr]uint64{fence4: 1, fence6: 1})))
	a.silent(fence4, own4)
	a.silent(fence6, own6)
	must(t, f.Arm(3, long, openings(map[netip.Addr]uint64{fence4: 2})))
	a.expect(fence4)
	a.silent(fence6, own6)
}

func TestReportsComeInOrder(t *testing.T) {
	f := newFence(t, fence4)
	must(t, f.Arm(5, long, nil))
	open := func(seq uint64) map[netip.Addr]uint64 { return map[netip.Addr]uint64{fence4: seq} }
	for name, err := range map[string]error{
		"arm the same report":                     f.Arm(5, long, nil),
		"arm an earlier report":                   f.Arm(4, long, nil),
		"arm report 0":                            f.Arm(0, long, nil),
		"rest on the report that is being armed":  f.Arm(6, long, openings(open(6))),
		"rest on a report of the future":          f.Arm(6, long, openings(open(7))),
		"rest on no report":                       f.Arm(6, long, openings(open(0))),
		"open by a report that was not armed yet": f.Open([]netip.Addr{fence4}, 6),
		"open by no report":                       f.Open([]netip.Addr{fence4}, 0),
	} {
		if !errors.Is(err, ErrReportOrder) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := f.Arm(6, MinFenceTTL-1, nil); err == nil {
		t.Error("a lease that may be of no ticks was taken")
	}
	must(t, f.Arm(6, MinFenceTTL, openings(open(5))))
}

func TestOnlyGuardedAddressesOpen(t *testing.T) {
	f, err := NewFence(FenceConfig{})
	must(t, err)
	defer func() { must(t, errors.Join(f.Remove(), f.Detach())) }()
	if err := f.Arm(1, long, nil); !errors.Is(err, ErrNotGuarded) {
		t.Errorf("armed before Install: %v", err)
	}
	must(t, f.Close([]netip.Addr{fence4}))
	must(t, f.Install([]netip.Addr{fence4}))
	must(t, f.Arm(1, long, nil))
	if err := f.Open(fenced, 1); !errors.Is(err, ErrNotGuarded) {
		t.Errorf("opened an address that is not guarded: %v", err)
	}
	must(t, f.Close(fenced))
	must(t, f.Remove())
	if err := f.Arm(2, long, nil); !errors.Is(err, ErrNotGuarded) {
		t.Errorf("armed after Remove: %v", err)
	}
	must(t, f.Check())
}

// The weak host model: a node answers for all its addresses on all its interfaces.
func TestOtherInterfacesAreFencedToo(t *testing.T) {
	newNode(t)
	w := newWire(t)
	must(t, addByHand(w.name, netip.MustParsePrefix("10.78.0.1/24")))
	must(t, addByHand(w.name, netip.MustParsePrefix("fd78::1/64")))
	b := newAsker(t, w, "10.78.0.2/24", "fd78::2/64")
	other := map[netip.Addr]netip.Addr{fence4: netip.MustParseAddr("10.78.0.1"), fence6: netip.MustParseAddr("fd78::1")}
	f := newFence(t, fenced...)
	must(t, f.Arm(1, long, nil))
	must(t, setUp("lo", true))
	viaLoopback := func(ip netip.Addr) bool { // the kernel sends what is for its own addresses through lo
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(ip, 9).String(), 100*time.Millisecond)
		if err == nil {
			must(t, c.Close())
		}
		return err == nil || errors.Is(err, unix.ECONNREFUSED)
	}
	for _, ip := range fenced {
		if viaLoopback(ip) {
			t.Errorf("%v answers on lo although it is closed", ip)
		}
	}
	b.silent(fence4, other[fence4], "arp", "icmp", "tcp")
	b.silent(fence6, other[fence6], "icmp6", "tcp6")
	must(t, f.Open(fenced, 1))
	b.expect(fence4, "arp", "icmp", "tcp")
	b.expect(fence6, "icmp6", "tcp6") // neighbour discovery is strict about interfaces
	for _, ip := range fenced {
		if !viaLoopback(ip) {
			t.Errorf("%v does not answer on lo although it is open", ip)
		}
	}
}

func TestNothingLeavesAClosedAddress(t *testing.T) {
	newNode(t)
	f := newFence(t, fenced...)
	must(t, f.Arm(1, long, nil))
	send := func(from netip.Addr) error {
		to := netip.MustParseAddr("10.77.0.2")
		if from.Is6() {
			to = netip.MustParseAddr("fd77::2")
		}
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
		must(t, err)
		_, err = c.Write([]byte("x"))
		return errors.Join(err, c.Close())
	}
	for _, ip := range fenced {
		if err := send(ip); !errors.Is(err, unix.EPERM) {
			t.Errorf("closed %v sends: %v", ip, err)
		}
		must(t, send(unguardedLike(ip)))
		must(t, f.Open([]netip.Addr{ip}, 1))
		must(t, send(ip))
	}
}

// A node that is not the owner must learn who is, and reach it.
func TestRemoteOwnerIsReached(t *testing.T) {
	w := newWire(t)
	for _, s := range []string{"10.77.0.1/24", "fd77::1/64"} {
		must(t, addByHand(w.name, netip.MustParsePrefix(s)))
	}
	newFence(t, fenced...)
	for _, s := range []string{"10.77.0.2/24", "fd77::2/64", "10.77.0.9/32", "fd77::9/128"} {
		w.giveToPeer(s)
	}
	for _, ip := range fenced {
		var l net.Listener
		must(t, w.inPeer(func() (err error) {
			l, err = net.Listen("tcp", netip.AddrPortFrom(ip, 0).String())
			return err
		}))
		c, err := net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
		must(t, err)
		must(t, errors.Join(c.Close(), l.Close()))
	}
}

func TestAnnouncementsOfTheOwnerPass(t *testing.T) {
	w, _ := newNode(t)
	moved := netip.MustParseAddr("10.77.0.10") // bound by another node
	newFence(t, fence4, fence6, moved)
	for op, mac := range map[uint16]MAC{ARPRequest: {2, 0, 0, 0, 0, 1}, ARPReply: {2, 0, 0, 0, 0, 2}} {
		ip(t, "neigh", "replace", moved.String(), "lladdr", "02:00:00:00:00:99", "dev", w.name, "nud", "stale")
		poll(t, "the neighbour cache has the announced "+mac.String(), func() bool {
			w.say(GratuitousARP(op, mac, moved).AppendFrame(nil)) // the kernel ignores what comes within a second of a change
			return strings.Contains(ip(t, "neigh", "show", moved.String()), mac.String())
		})
	}
}

func ip(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("ip %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestForeignTablesStay(t *testing.T) {
	nft(t, "add table inet other { set s { type ipv4_addr; elements = { 10.0.0.1 } ; } ; chain input { type filter hook input priority 0; ip saddr @s drop; } ; }")
	nft(t, "add table ip remora { chain input { type filter hook input priority 0; counter packets 0 bytes 0 accept; } ; }")
	t.Cleanup(func() { nft(t, "delete table inet other; delete table ip remora") })
	before := nft(t, "list", "ruleset")
	f := newFence(t, fenced...)
	must(t, f.Arm(1, long, nil))
	must(t, f.Open(fenced, 1))
	if list := nft(t, "list", "ruleset"); !strings.Contains(list, "table arp remora") || !strings.Contains(list, "table inet remora") {
		t.Errorf("nft does not list the fence:\n%s", list)
	}
	must(t, f.Close(fenced))
	must(t, f.Remove())
	must(t, f.Remove())
	if after := nft(t, "list", "ruleset"); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

func TestLeftoversAreReplaced(t *testing.T) {
	_, a := newNode(t)
	nft(t, "add table inet remora { chain junk { type filter hook input priority 0; accept; } ; set leases { type ipv6_addr; } ; }")
	first := newFence(t, fence4, netip.MustParseAddr("10.77.0.8"))
	must(t, first.Check())
	must(t, first.Arm(7, long, nil))
	must(t, first.Open([]netip.Addr{fence4}, 7))
	a.expect(fence4)
	second := newFence(t, fenced...)
	must(t, second.Check())
	a.silent(fence4, own4)
	a.silent(fence6, own6)
	if err := first.Check(); !errors.Is(err, ErrFenceLost) {
		t.Errorf("the first one's tables were replaced, and it says: %v", err)
	}
	// Numbers of the first mean nothing in the tables of the second, and its claims have no effect on them.
	must(t, second.Arm(7, long, nil))
	err := first.claims.commit(func(b *fenceBatch) {
		turn := first.state.currentTurn()
		b.take(turn, turn)
		b.bundle(claimPlan{numbers: map[uint32]uint64{1: 7}, to: map[netip.Addr]uint32{fence4: 1}})
	})
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("a claim from before: %v", err)
	}
	a.silent(fence4, own4)
}

// A fence that nobody has installed is installed by Guard, also for no groups at all: what an earlier process left is replaced.
func TestGuardInstallsTheFence(t *testing.T) {
	nft(t, "add table inet remora { chain junk { type filter hook input priority 0; accept; } ; }")
	f, err := NewFence(FenceConfig{})
	must(t, err)
	t.Cleanup(func() {
		must(t, f.Remove())
		must(t, f.Detach())
	})
	must(t, newBinder(t, Config{Fence: f}).Guard(nil))
	if list := nft(t, "list", "ruleset"); strings.Contains(list, "junk") || !strings.Contains(list, "table arp remora") {
		t.Errorf("the rules are now:\n%s", list)
	}
	must(t, f.Check())
}

// While the tables are built anew, again and again, nothing gets through.
func TestInstallLeavesNoGap(t *testing.T) {
	_, a := newNode(t)
	f := newFence(t, fenced...)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			a.ask(fence4)
			a.ask(fence6)
		}
	})
	for range 100 {
		must(t, f.Install(fenced))
	}
	stop()
	wg.Wait()
	a.expect(own4)
	for _, ip := range fenced {
		if ks := a.kinds(ip); len(ks) > 0 {
			t.Errorf("%v answers %v", ip, ks)
		}
	}
}

func TestAddressesChange(t *testing.T) {
	_, a := newNode(t)
	f := newFence(t, fence4)
	must(t, f.Arm(1, long, nil))
	must(t, f.Open([]netip.Addr{fence4}, 1))
	a.expect(fence6)
	must(t, f.SetAddresses(fenced))
	a.expect(fence4)
	a.silent(fence6, own6)
	must(t, f.Check())
	must(t, f.SetAddresses([]netip.Addr{fence6}))
	must(t, f.Check())
	a.expect(fence4)
	a.silent(fence6, own6)
	must(t, f.SetAddresses([]netip.Addr{netip.MustParseAddr("::ffff:10.77.0.9"), fence6, fence4})) // one of them twice
	a.silent(fence4, own4)
	must(t, f.Check())
	must(t, f.SetAddresses(nil))
	must(t, f.Check())
	a.expect(fence6)
}

// many returns n addresses, half of them of each family, and the two that the node has.
func many(n int) []netip.Addr {
	as := slices.Clone(fenced)
	for i := range n / 2 {
		as = append(as, netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)}),
			netip.AddrFrom16([16]byte{0xfd, 0x99, 14: byte(i >> 8), 15: byte(i)}))
	}
	return as[:max(n, len(fenced))]
}

func TestThousandsOfAddresses(t *testing.T) {
	_, a := newNode(t)
	f := newFence(t)
	for _, n := range []int{1000, 10000} {
		as := many(n)
		must(t, f.SetAddresses(as))
		must(t, f.Check())
		a.silent(fence4, own4)
		seq := uint64(n)
		must(t, f.Arm(seq, long, nil))
		must(t, f.Open(as, seq))
		a.expect(fence6)
		open := make(map[netip.Addr]uint64)
		for _, x := range as {
			open[x] = seq
		}
		must(t, f.Arm(seq+1, long, openings(open)))
		a.expect(fence4)
		must(t, f.Close(as))
		a.silent(fence4, own4)
		a.silent(fence6, own6)
		must(t, f.Check())
	}
}
