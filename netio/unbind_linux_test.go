package netio

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

func TestUnbindShutsOutItsEpoch(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	s := spec(w.name, vip4)
	must(t, b.Bind(t.Context(), bindOf(s, 7)))
	must(t, b.Unbind(t.Context(), unbindOf(s, 7)))
	wantBound(t, vip4, 0)
	wantErr(t, b.Bind(t.Context(), bindOf(s, 6)), ErrLate)
	wantErr(t, b.Bind(t.Context(), bindOf(s, 7)), ErrLate)
	wantErr(t, b.Extend(t.Context(), extendOf(s, 7, 9*time.Second)), ErrLate)
	wantErr(t, b.Announce(t.Context(), core.Announce{Group: s.Name, Epoch: 7, Spec: s, NotAfter: soon()}), ErrLate)
	wantBound(t, vip4, 0)
	must(t, b.Bind(t.Context(), bindOf(s, 8)))
	wantBound(t, vip4, 1)
}

func TestUnbindFindsEveryCopy(t *testing.T) {
	w, other := newWire(t), newWire(t)
	b := newBinder(t, Config{})
	must(t, addByHand(other.name, vip4))
	must(t, addByHand("lo", netip.PrefixFrom(vip4.Addr(), 24)))
	must(t, addByHand(other.name, vip6))
	bystander := netip.MustParsePrefix("10.77.0.101/32")
	must(t, addByHand(other.name, bystander))
	s := spec(w.name, vip4, vip6)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // giving up is not called off
	must(t, b.Unbind(ctx, unbindOf(s, 1)))
	wantBound(t, vip4, 0)
	wantBound(t, vip6, 0)
	wantBound(t, bystander, 1)
	must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
	must(t, b.Unbind(t.Context(), unbindOf(spec("nosuch", vip4), 1)))
}

// A bind that hangs delays no unbind, and what it does when it runs on does not last.
func TestUnbindWhileBindIsStuck(t *testing.T) {
	for name, reading := range map[string]int32{"before its system call": 2, "after its system call": 3} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t)
			stuck, free := make(chan struct{}), make(chan struct{})
			c := &scripted{at: map[int32]func(){reading: func() { close(stuck); <-free }}}
			b := newBinder(t, Config{Clock: c.now})
			s := spec(w.name, vip4)
			result := make(chan error, 1)
			go func() { result <- b.Bind(t.Context(), bindOf(s, 3)) }()
			select {
			case <-stuck:
			case err := <-result:
				t.Fatalf("the bind did not look at the clock %d times: %v", reading, err)
			}
			must(t, b.Unbind(t.Context(), unbindOf(s, 3)))
			wantBound(t, vip4, 0)
			close(free)
			wantErr(t, <-result, ErrLate)
			wantBound(t, vip4, 0)
		})
	}
}

func TestManyStuckBindsLeaveAnUnbindItsSocket(t *testing.T) {
	w := newWire(t)
	free := make(chan struct{})
	var waiting atomic.Int32
	b := newBinder(t, Config{Clock: func() core.Instant { waiting.Add(1); <-free; return Boottime() }})
	s := spec(w.name, vip4)
	const n = 20
	result := make(chan error, n)
	for range n {
		go func() { result <- b.Bind(t.Context(), bindOf(s, 1)) }()
	}
	poll(t, "all binds stuck", func() bool { return waiting.Load() == n })
	must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
	close(free)
	for range n {
		wantErr(t, <-result, ErrLate)
	}
	wantBound(t, vip4, 0)
}

func TestRemoveLeftovers(t *testing.T) {
	w, other := newWire(t), newWire(t)
	former := newBinder(t, Config{})
	must(t, former.Bind(t.Context(), bindOf(spec(w.name, vip4), 1)))
	must(t, former.Bind(t.Context(), bindOf(spec(other.name, vip6), 1)))
	bystander := netip.MustParsePrefix("10.77.0.101/32")
	must(t, addByHand(w.name, bystander))
	b := newBinder(t, Config{})
	removed, err := b.RemoveLeftovers(t.Context())
	must(t, err)
	if len(removed) != 2 {
		t.Errorf("removed %v", removed)
	}
	wantBound(t, vip4, 0)
	wantBound(t, vip6, 0)
	wantBound(t, bystander, 1)
	if removed, err := b.RemoveLeftovers(t.Context()); err != nil || len(removed) != 0 {
		t.Errorf("the second time: %v, %v", removed, err)
	}
}
