package netio

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

// newBareNode lays a wire to a node that has addresses of its own and none that is guarded.
func newBareNode(tb testing.TB) (*wire, *asker) {
	tb.Helper()
	w := newWire(tb)
	for _, s := range []string{"10.77.0.1/24", "fd77::1/64"} {
		must(tb, addByHand(w.name, netip.MustParsePrefix(s)))
	}
	return w, newAsker(tb, w, "10.77.0.2/24", "fd77::2/64")
}

func specOfFenced(w *wire) core.GroupSpec {
	return spec(w.name, netip.PrefixFrom(fence4, 32), netip.PrefixFrom(fence6, 128))
}

// An address of a new group is guarded before it is bound, and answers only when all are bound and the fence is opened.
func TestBindGuardsFirstAndOpensLast(t *testing.T) {
	w, a := newBareNode(t)
	f := newFence(t)
	s := specOfFenced(w)
	var order []string
	c := &scripted{at: map[int32]func(){1: func() {
		order = append(order, "guarded")
		for _, p := range s.Addresses {
			wantBound(t, p, 0)
			must(t, addByHand(w.name, p))
			a.silent(p.Addr(), unguardedLike(p.Addr()))
			must(t, removeByHand(w.name, p))
		}
	}}}
	b := newBinder(t, Config{Fence: f, Clock: c.now, Bound: func(core.GroupName, core.Epoch) {
		order = append(order, "bound")
		for _, p := range s.Addresses {
			wantBound(t, p, 1)
			a.silent(p.Addr(), unguardedLike(p.Addr()))
		}
	}})
	must(t, f.Arm(1, long, nil))
	bind := bindOf(s, 1)
	bind.Report = 1
	must(t, b.Bind(t.Context(), bind))
	for _, ip := range fenced {
		a.expect(ip)
	}
	if got := strings.Join(order, ", "); got != "guarded, bound" {
		t.Errorf("the bind went through: %s", got)
	}
}

// The lease was renewed while many addresses were bound, and the report that they came with is over when they are: they are open by the
// newer one, and not silent until the next report.
func TestBindOpensByTheNewestReport(t *testing.T) {
	w, a := newBareNode(t)
	f := newFence(t)
	s := specOfFenced(w)
	var b *Binder
	b = newBinder(t, Config{Fence: f, Bound: func(core.GroupName, core.Epoch) {
		must(t, f.Arm(2, long, nil))
		b.Prolong(core.Prolong{Group: s.Name, Epoch: 1, Report: 2, NotAfter: soon()})
		b.Prolong(core.Prolong{Group: "another", Epoch: 1, Report: 9, NotAfter: soon()})
		time.Sleep(2 * MinFenceTTL) // the rest of the first lease
	}})
	must(t, f.Arm(1, MinFenceTTL, nil))
	bind := bindOf(s, 1)
	bind.Report = 1
	must(t, b.Bind(t.Context(), bind))
	for _, ip := range fenced {
		a.expect(ip)
	}
}

// While an unbind hangs in front of the removal, and when that fails, the addresses are bound and silent.
func TestUnbindClosesFirst(t *testing.T) {
	w, a := newBareNode(t)
	f := newFence(t)
	s := specOfFenced(w)
	served := func(b *Binder, e core.Epoch) {
		t.Helper()
		must(t, f.Arm(uint64(e), long, nil))
		bind := bindOf(s, e)
		bind.Report = core.Seq(e)
		must(t, b.Bind(t.Context(), bind))
		for _, ip := range fenced {
			a.expect(ip)
		}
	}
	boundAndSilent := func() {
		t.Helper()
		for _, p := range s.Addresses {
			wantBound(t, p, 1)
			a.silent(p.Addr(), unguardedLike(p.Addr()))
		}
	}

	hanging := newBinder(t, Config{Fence: f})
	served(hanging, 1)
	hanging.yields.mu.Lock() // which the removal needs for its socket
	goOn := sync.OnceFunc(hanging.yields.mu.Unlock)
	t.Cleanup(goOn)
	result := make(chan error, 1)
	go func() { result <- hanging.Unbind(t.Context(), unbindOf(s, 1)) }()
	poll(t, "the fence is closed", func() bool {
		inet, arp := rests(t, f)
		return len(inet)+len(arp) == 0
	})
	boundAndSilent()
	goOn()
	must(t, <-result)
	wantBound(t, s.Addresses[0], 0)

	failing := newBinder(t, Config{Fence: f})
	served(failing, 2)
	must(t, failing.Close())
	wantErr(t, failing.Unbind(t.Context(), unbindOf(s, 2)), errClosed)
	boundAndSilent()
}
