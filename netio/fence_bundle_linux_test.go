package netio

import (
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"

	"github.com/remora-ha/remora/core"
)

// rests reads back on what reports the guarded addresses rest in each of the two tables; an address that is closed is left
// out.
func rests(tb testing.TB, f *Fence) (inet, arp map[netip.Addr]uint64) {
	tb.Helper()
	read := func(s *nftables.Set) map[string]uint32 {
		els, err := f.reads.conn.GetSetElements(s)
		must(tb, err)
		m := map[string]uint32{}
		for _, e := range els {
			m[string(e.Key)] = 0
			if s.IsMap {
				m[string(e.Key)] = binary.BigEndian.Uint32(e.Val)
			}
		}
		return m
	}
	f.yieldMu.Lock()
	defer f.yieldMu.Unlock()
	through := func(i int, addrs ...*nftables.Set) map[netip.Addr]uint64 {
		bundles, leases, open := read(f.tables.bundles[i]), read(f.tables.leases[i]), map[netip.Addr]uint64{}
		for _, s := range addrs {
			for key, n := range read(s) {
				a, _ := netip.AddrFromSlice([]byte(key))
				report, known := bundles[string(mark(n))]
				if _, alive := leases[string(mark(report))]; known && alive {
					open[a] = uint64(report)
				}
			}
		}
		return open
	}
	return through(0, f.tables.addr4[0], f.tables.addr6[0]), through(1, f.tables.addr4[1])
}

// An oracle that knows no bundles: each address rests on the report by which it was opened last, until it is closed.
func TestBundlesAreNotSeenFromOutside(t *testing.T) {
	as := many(8)
	f := newFence(t, as...)
	some := func() []netip.Addr {
		s := slices.Clone(as)
		rand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
		return s[:1+rand.IntN(len(s))]
	}
	want, groups, seq := map[netip.Addr]uint64{}, [][]netip.Addr{as[:4], as[4:]}, uint64(1)
	must(t, f.Arm(seq, long, nil))
	for i := range 600 {
		switch rand.IntN(11) {
		case 0:
			s := some()
			must(t, f.Close(s))
			for _, a := range s {
				delete(want, a)
			}
		case 1:
			s := some()
			must(t, f.Open(s, seq))
			for _, a := range s {
				want[a] = seq
			}
		case 2:
			split := rand.IntN(len(as) + 1)
			groups = [][]netip.Addr{as[:split], as[split:]}
		case 3:
			must(t, f.Install(as))
			clear(want)
			seq++
			must(t, f.Arm(seq, long, nil))
		case 4:
			g := groups[rand.IntN(2)]
			must(t, f.Close(g))
			for _, a := range g {
				delete(want, a)
			}
		case 5:
			must(t, f.Gather(groups))
		default:
			var open []FenceOpening
			for _, g := range groups[:rand.IntN(3)] {
				open = append(open, FenceOpening{Addrs: g, Report: seq})
				for _, a := range g {
					want[a] = seq
				}
			}
			seq++
			must(t, f.Arm(seq, long, open))
		}
		inet, arp := rests(t, f)
		if !maps.Equal(inet, want) {
			t.Fatalf("step %d: the addresses rest on %v, want %v", i, inet, want)
		}
		maps.DeleteFunc(want, func(a netip.Addr, _ uint64) bool { return a.Is6() })
		if !maps.Equal(arp, want) {
			t.Fatalf("step %d: in ARP the addresses rest on %v, want %v", i, arp, want)
		}
		want = inet
	}
	must(t, f.Check())
	els, err := f.reads.conn.GetSetElements(f.tables.bundles[0])
	must(t, err)
	if len(els) > len(as)+1 {
		t.Errorf("%d bundles are left for %d addresses", len(els), len(as))
	}
}

func TestRenewalCostsTheSameForManyAddresses(t *testing.T) {
	as := many(1000)
	f := newFence(t, as...)
	must(t, f.Arm(1, long, nil))
	must(t, f.Open(as, 1))
	p, err := f.state.plan([]FenceOpening{{Addrs: as, Report: 1}}, f.state.now())
	must(t, err)
	if len(p.to) > 0 || len(p.numbers) != 1 || len(p.kept) != 1 || len(p.remove) > 0 {
		t.Errorf("to renew 1,000 addresses %d of them, %d numbers and %d removals are touched", len(p.to), len(p.numbers), len(p.remove))
	}
}

// What goes with each report needs no memory, by either kind of system call, and what memory it uses again it leaves to nobody.
func TestRenewalNeedsNoMemory(t *testing.T) {
	_, a := newNode(t)
	f := newFence(t, fenced...)
	b := newBinder(t, Config{Fence: f})
	arm := core.Arm{TTL: long, Open: []core.Opening{
		{Group: "a", Epoch: 1, Addresses: []netip.Prefix{netip.PrefixFrom(fence4, 32)}},
		{Group: "b", Epoch: 1, Addresses: []netip.Prefix{netip.PrefixFrom(fence6, 128)}}}}
	renew := func() {
		arm.Seq++
		must(t, b.Arm(t.Context(), arm))
		for i := range arm.Open {
			arm.Open[i].Report = arm.Seq
		}
	}
	arm.Seq = 1
	must(t, b.Arm(t.Context(), core.Arm{Seq: 1, TTL: long}))
	for i := range arm.Open {
		arm.Open[i].Report = 1
	}
	for _, arm.Leads = range []bool{true, false} {
		renew()
		if n := testing.AllocsPerRun(200, renew); n != 0 {
			t.Errorf("leads: %t: %v allocations", arm.Leads, n)
		}
		inet, _ := rests(t, f)
		if want := uint64(arm.Seq) - 1; inet[fence4] != want || inet[fence6] != want {
			t.Errorf("after report %d the addresses rest on %v", arm.Seq, inet)
		}
	}
	a.expect(fence4)
	a.expect(fence6)
	must(t, f.Close([]netip.Addr{fence6}))
	renew()
	if inet, _ := rests(t, f); len(inet) != 2 {
		t.Errorf("an address that was given up is not opened by a later report: %v", inet)
	}
}

// A report may wait while what it is to open is given up, and closed to the end. Of that it opens nothing, and the rest; what is
// granted later opens again.
func TestI5_AReportThatWaitedOpensNothingThatWasGivenUp(t *testing.T) {
	f := newFence(t, fenced...)
	b := newBinder(t, Config{Fence: f})
	one, other := spec("", netip.PrefixFrom(fence4, 32)), spec("", netip.PrefixFrom(fence6, 128))
	other.Name = "other"
	seq := core.Seq(1)
	must(t, b.Arm(t.Context(), core.Arm{Seq: seq, TTL: long}))
	arm := func(e core.Epoch) error {
		seq++
		return b.Arm(t.Context(), core.Arm{Seq: seq, TTL: long, Open: []core.Opening{
			{Group: one.Name, Epoch: e, Addresses: one.Addresses, Report: seq - 1},
			{Group: other.Name, Epoch: 7, Addresses: other.Addresses, Report: seq - 1}}})
	}
	open := func(when string, want ...netip.Addr) {
		t.Helper()
		inet, _ := rests(t, f)
		if got := slices.SortedFunc(maps.Keys(inet), netip.Addr.Compare); !slices.Equal(got, want) {
			t.Errorf("%s: open are %v, want %v", when, got, want)
		}
	}
	must(t, arm(1))
	open("renewed", fence4, fence6)
	must(t, b.Unbind(t.Context(), unbindOf(one, 1)))
	open("given up", fence6)
	must(t, arm(1))
	open("given up before an Arm that had waited", fence6)
	wantErr(t, b.openFence(core.Bind{Group: one.Name, Epoch: 1, Spec: one, Report: seq - 1}), ErrLate)
	open("given up before a Bind ended", fence6)
	must(t, arm(2))
	open("granted again", fence4, fence6)
	for e := core.Epoch(2); e < 50; e++ {
		must(t, arm(e))
		armed := make(chan error)
		go func() { armed <- arm(e) }()
		gone := b.Unbind(t.Context(), unbindOf(one, e))
		must(t, errors.Join(<-armed, gone))
		open("given up beside an Arm", fence6)
	}
}

// To open for the first time, to close and to open again changes no address where they were gathered.
func TestGatheredAddressesOpenAndCloseTogether(t *testing.T) {
	as := many(1000)
	f := newFence(t, as...)
	must(t, f.Gather([][]netip.Addr{as}))
	must(t, f.Arm(1, long, nil))
	if inet, _ := rests(t, f); len(inet) > 0 {
		t.Fatalf("%d addresses are open that were gathered", len(inet))
	}
	for round := range 2 {
		p, err := f.state.plan([]FenceOpening{{Addrs: as, Report: 1}}, f.state.now())
		must(t, err)
		if len(p.to) > 0 || len(p.numbers) != 1 || len(p.kept) != 1 || len(p.remove) > 0 {
			t.Errorf("round %d: to open 1,000 addresses %d of them, %d numbers and %d removals are touched", round, len(p.to), len(p.numbers), len(p.remove))
		}
		must(t, f.Open(as, 1))
		if inet, _ := rests(t, f); len(inet) != len(as) {
			t.Fatalf("round %d: %d of 1,000 addresses are open", round, len(inet))
		}
		if numbers, single := f.state.closing(as); len(numbers) != 1 || len(single) > 0 {
			t.Errorf("round %d: to close 1,000 addresses %d bundles and %d addresses are touched", round, len(numbers), len(single))
		}
		must(t, f.Close(as))
		if inet, _ := rests(t, f); len(inet) > 0 {
			t.Fatalf("round %d: %d addresses are open that were closed", round, len(inet))
		}
	}
	must(t, f.Check())
}

// Where a claim has moved addresses and is not known to be carried out, or its answer was lost, all of them are closed one by one.
func TestCloseDoesNotTrustAClaimOnItsWay(t *testing.T) {
	for _, lost := range []bool{false, true} {
		f := newFence(t, fenced...)
		must(t, f.Arm(1, long, nil))
		since := f.state.now()
		p, err := f.state.plan([]FenceOpening{{Addrs: fenced, Report: 1}}, since)
		must(t, err)
		if lost {
			f.state.forget()
		}
		f.claimMu.Lock()
		must(t, f.claims.commitElements(func(b *fenceBatch) { b.take(p.turn, p.turn); b.bundle(p) }))
		f.claimMu.Unlock()
		must(t, f.Close(fenced))
		if inet, _ := rests(t, f); len(inet) > 0 {
			t.Errorf("answer lost %v: %v are open that were closed", lost, inet)
		}
		f.state.carried(p, since)
		must(t, f.Open(fenced, 1))
		must(t, f.Close(fenced[:1]))
		must(t, f.Close(fenced[1:]))
		if inet, arp := rests(t, f); len(inet)+len(arp) > 0 {
			t.Errorf("answer lost %v: %v and %v are open that were closed again", lost, inet, arp)
		}
	}
}

// A claim that is made while a Close is on its way leaves out what that closes.
func TestClaimLeavesOutWhatIsBeingClosed(t *testing.T) {
	f := newFence(t, fenced...)
	must(t, f.Arm(1, long, nil))
	for _, gathered := range []bool{false, true} {
		if gathered {
			must(t, f.Gather([][]netip.Addr{fenced}))
		}
		f.state.closing(fenced)
		p, err := f.state.plan([]FenceOpening{{Addrs: fenced, Report: 1}}, f.state.now())
		must(t, err)
		if len(p.left) != len(fenced) || len(p.numbers) > 0 {
			t.Errorf("gathered %v: the claim leaves out %v and has %v", gathered, p.left, p.numbers)
		}
		f.state.closed()
	}
}

func TestOneAddressOfABundleCloses(t *testing.T) {
	_, a := newNode(t)
	f := newFence(t, fenced...)
	must(t, f.Arm(1, long, nil))
	must(t, f.Open(fenced, 1))
	must(t, f.Arm(2, long, openings(map[netip.Addr]uint64{fence4: 1, fence6: 1})))
	must(t, f.Close([]netip.Addr{fence4}))
	a.silent(fence4, own4)
	a.expect(fence6)
	must(t, f.Arm(3, long, openings(map[netip.Addr]uint64{fence6: 2})))
	a.silent(fence4, own4)
	a.expect(fence6)
}

// A claim that began before an address was given up does not renew the bundle in which a later claim has opened it again.
func TestOldClaimDoesNotTouchANewBundle(t *testing.T) {
	f := newFence(t, fenced...)
	must(t, f.Arm(1, long, nil))
	must(t, f.Arm(2, long, nil))
	old := f.state.now()
	must(t, f.Close(fenced))
	must(t, f.Open(fenced, 2))
	f.claimMu.Lock()
	left, err := f.claim(old, []FenceOpening{{Addrs: fenced, Report: 1}}, func(*fenceBatch) {})
	f.claimMu.Unlock()
	must(t, err)
	if inet, _ := rests(t, f); len(left) != len(fenced) || inet[fence4] != 2 {
		t.Errorf("the old claim leaves out %v, and the addresses rest on %v", left, inet)
	}
}

// Whoever takes bundles away closes their addresses, until they are renewed.
func TestMissingBundlesAreClosed(t *testing.T) {
	_, a := newNode(t)
	f := newFence(t, fenced...)
	must(t, f.Arm(1, long, nil))
	must(t, f.Open(fenced, 1))
	a.expect(fence4)
	nft(t, "flush", "map", "inet", FenceTable, "bundles")
	nft(t, "flush", "map", "arp", FenceTable, "bundles")
	a.silent(fence4, own4)
	a.silent(fence6, own6)
	must(t, f.Arm(2, long, []FenceOpening{{Addrs: fenced, Report: 1}}))
	a.expect(fence4)
	a.expect(fence6)
}
