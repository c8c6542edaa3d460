package netio

import (
	"net/netip"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

func TestExtendRenews(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{Label: "vip"})
	s := spec(w.name, vip4, vip6)
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	must(t, b.Extend(t.Context(), extendOf(s, 1, 90*time.Second)))
	for _, p := range s.Addresses {
		wantBound(t, p, 1)
		if a := bound(t, p)[0]; a.Expiry.Valid < 80 || a.Proto != MarkProtocol {
			t.Errorf("after Extend: %+v", a)
		}
	}
}

func TestExtendNeverBringsBack(t *testing.T) {
	w := newWire(t)
	s := spec(w.name, vip4, vip6)
	t.Run("absent from the start", func(t *testing.T) {
		b := newBinder(t, Config{})
		wantErr(t, b.Extend(t.Context(), extendOf(s, 1, 9*time.Second)), ErrAbsent)
		wantBound(t, vip4, 0)
		wantBound(t, vip6, 0)
	})
	t.Run("only one absent", func(t *testing.T) {
		b := newBinder(t, Config{})
		must(t, b.Bind(t.Context(), bindOf(s, 1)))
		must(t, removeByHand(w.name, vip4))
		wantErr(t, b.Extend(t.Context(), extendOf(s, 1, 90*time.Second)), ErrAbsent)
		wantBound(t, vip4, 0)
		wantBound(t, vip6, 1)
		if a := bound(t, vip6)[0]; a.Expiry.Valid < 80 {
			t.Errorf("the other was not renewed: %+v", a)
		}
		must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
	})
	for name, p := range map[string]netip.Prefix{"IPv4": vip4, "IPv6": vip6} {
		t.Run("deleted right before the system call, "+name, func(t *testing.T) {
			c := &scripted{}
			b := newBinder(t, Config{Clock: c.now})
			s := spec(w.name, p)
			must(t, b.Bind(t.Context(), bindOf(s, 1)))
			born := bound(t, p)[0].Expiry.Created
			time.Sleep(30 * time.Millisecond) // creation stamps count hundredths of a second
			c.reads.Store(0)
			c.at = map[int32]func(){2: func() { must(t, removeByHand(w.name, p)) }}
			wantErr(t, b.Extend(t.Context(), extendOf(s, 1, 9*time.Second)), ErrAbsent)
			if found := bound(t, p); len(found) != 0 {
				t.Errorf("brought back: %+v, bound first at %d", found, born)
			}
		})
	}
}

func TestExtendDoesNotTouchWhatIsNotOurs(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	must(t, addByHand(w.name, vip4))
	wantErr(t, b.Extend(t.Context(), extendOf(spec(w.name, vip4), 1, 9*time.Second)), ErrAbsent)
	if a := bound(t, vip4)[0]; !a.permanent() || a.Proto != 0 {
		t.Errorf("changed to %+v", a)
	}
}

func TestExtendFoundLateRemoves(t *testing.T) {
	w := newWire(t)
	c := &scripted{}
	b := newBinder(t, Config{Clock: c.now})
	s := spec(w.name, vip4)
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	c.reads.Store(0)
	c.at = map[int32]func(){3: c.leap} // beginning, before the system call, end
	wantErr(t, b.Extend(t.Context(), extendOf(s, 1, 9*time.Second)), ErrLate)
	wantBound(t, vip4, 0)
}

// What is prolonged in its epoch goes on beyond the time that it came with, until it is given up.
func TestProlongedClaimsGoOn(t *testing.T) {
	w := newWire(t)
	c := &scripted{}
	b := newBinder(t, Config{Clock: c.now})
	s := spec(w.name, vip4)
	longer := core.Prolong{Group: s.Name, Epoch: 2, NotAfter: soon().Add(time.Hour)}
	c.at = map[int32]func(){1: c.leap, 2: func() { b.Prolong(longer) }}
	wantErr(t, b.Bind(t.Context(), bindOf(s, 2)), ErrLate) // it was late at its first look
	c.reads.Store(1)
	must(t, b.Bind(t.Context(), bindOf(s, 2)))
	must(t, b.Extend(t.Context(), extendOf(s, 2, 9*time.Second)))
	must(t, b.Announce(t.Context(), core.Announce{Group: s.Name, Epoch: 2, Spec: s, NotAfter: soon()}))
	b.Prolong(core.Prolong{Group: s.Name, Epoch: 1, NotAfter: longer.NotAfter.Add(time.Hour)}) // of an epoch that is over
	must(t, b.Extend(t.Context(), extendOf(s, 2, 9*time.Second)))
	wantErr(t, b.Bind(t.Context(), bindOf(s, 3)), ErrLate) // the next epoch has no part in it
	must(t, b.Unbind(t.Context(), core.Unbind{Group: s.Name, Epoch: 2, Spec: s}))
	wantErr(t, b.Bind(t.Context(), bindOf(s, 2)), ErrLate)
	wantBound(t, vip4, 0)
}
