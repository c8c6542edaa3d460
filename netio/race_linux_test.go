package netio

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// fill gives an interface so many addresses that the kernel needs several datagrams to list them.
func fill(tb testing.TB, name string, n int) {
	tb.Helper()
	l, err := findLink(name)
	must(tb, err)
	must(tb, withSession(func(s *session) error {
		ip := netip.MustParseAddr("10.99.0.1")
		for range n {
			verdicts, err := s.addAll([]address{{Index: l.Index, Local: ip, Peer: ip, Bits: 32}})
			if err := errors.Join(append(verdicts, err)...); err != nil {
				return err
			}
			ip = ip.Next()
		}
		return nil
	}))
}

// An address that is bound all the time is never missing from a list that counts as whole, however many others come and
// go while it is made: the list is begun again, and in the end reading it fails.
func TestAListIsWholeOrAnError(t *testing.T) {
	w := newWire(t)
	fill(t, w.name, 1500)
	must(t, addByHand(w.name, vip4)) // the last in the kernel's list
	next := netip.MustParsePrefix("10.99.0.1/32")
	disturb := func() { // moves everything in the list by one place
		must(t, removeByHand(w.name, next))
		next = netip.PrefixFrom(next.Addr().Next(), 32)
	}
	for _, disturbed := range []int{0, 1, dumpTries - 1, dumpTries} {
		found, tries := false, 0
		err := withSession(func(s *session) error {
			messages := 0
			restart := func() { found, messages = false, 0; tries++ }
			return s.dump(unix.RTM_GETADDR, make([]byte, ifAddrMsgLen), restart, func(m syscall.NetlinkMessage) error {
				if messages++; messages == 1 && tries <= disturbed {
					disturb()
				}
				a, err := parseAddress(m.Data)
				found = found || a.Local == vip4.Addr()
				return err
			})
		})
		if disturbed == dumpTries {
			if err == nil {
				t.Error("a list that changed each time was taken for whole")
			}
			continue
		}
		if err != nil || !found || tries != disturbed+1 {
			t.Errorf("disturbed %d times: address found %v, %d tries, %v", disturbed, found, tries, err)
		}
	}
}

// Claims and unbinds of one group in any order: once an Unbind has succeeded after the last claim of its epoch has come
// back, nothing is bound, and claims of its epoch change nothing.
func TestAnyOrderOfClaimsAndUnbinds(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	s := spec(w.name, vip4, vip6)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for epoch := core.Epoch(1); epoch <= 40; epoch++ {
		var claims, unbinds sync.WaitGroup
		for g := range uint64(3) {
			r := rand.New(rand.NewPCG(seed, uint64(epoch)*8+g))
			claims.Go(func() {
				for range 3 {
					a := bindOf(s, epoch)
					if r.IntN(3) == 0 {
						a.NotAfter = Boottime().Add(time.Duration(r.IntN(200)) * time.Microsecond)
					}
					_ = b.Bind(t.Context(), a) // may be late
					_ = b.Extend(t.Context(), extendOf(s, epoch, time.Minute))
				}
			})
		}
		unbinds.Go(func() {
			time.Sleep(time.Duration(rand.N(1000)) * time.Microsecond)
			if err := b.Unbind(t.Context(), unbindOf(s, epoch)); err != nil && !errors.Is(err, ErrStillBound) {
				t.Error(err)
			}
		})
		claims.Wait()
		unbinds.Wait()
		must(t, b.Unbind(t.Context(), unbindOf(s, epoch)))
		wantBound(t, vip4, 0)
		wantBound(t, vip6, 0)
	}
}

// A claim whose answer is lost may have been carried out: it is taken back when late, with a new socket.
func TestALostAnswerCountsAsDone(t *testing.T) {
	w := newWire(t)
	c := &scripted{}
	b := newBinder(t, Config{Clock: c.now})
	s := spec(w.name, vip4)
	err := b.claims.use(func(n *session) error {
		cl, err := b.newClaim(n, b.permit(s.Name, 1, soon()), s, time.Minute)
		must(t, err)
		_, err = cl.touch([]address{cl.wanted(vip4)}, func(as []address) ([]error, error) {
			_, err := n.addAll(as)
			must(t, err)
			n.broken = true
			return nil, errors.New("no answer")
		})
		wantBound(t, vip4, 1)
		must(t, n.close())
		c.leap()
		return cl.unlessLate(err)
	})
	wantErr(t, err, ErrLate)
	wantBound(t, vip4, 0)
}

func TestRenewable(t *testing.T) {
	c := &claim{b: &Binder{cfg: Config{Label: "vip"}}, link: link{Index: 7}, targets: []netip.Prefix{vip4}}
	old := address{Index: 7, Local: vip4.Addr(), Bits: 32, Expiry: lifetime{Valid: 5}} // as a kernel without marks has it
	for name, tc := range map[string]struct {
		change func(*address)
		want   bool
	}{
		"not marked, with a lifetime": {func(*address) {}, true},
		"marked":                      {func(a *address) { a.Proto = MarkProtocol }, true},
		"marked, elsewhere":           {func(a *address) { a.Proto, a.Index = MarkProtocol, 8 }, true},
		"labelled":                    {func(a *address) { a.Label, a.Index = "eth1:vip", 8 }, true},
		"by hand":                     {func(a *address) { a.Expiry.Valid = forever }, false},
		"elsewhere":                   {func(a *address) { a.Index = 8 }, false},
		"another prefix length":       {func(a *address) { a.Bits = 24 }, false},
		"another daemon's":            {func(a *address) { a.Proto = 18 }, false},
	} {
		a := old
		tc.change(&a)
		if got := c.renewable(a); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestTakeoverKeepsTheRest(t *testing.T) {
	w := newWire(t)
	b := newBinder(t, Config{})
	l := w.link()
	byHand := address{Index: l.Index, Local: vip6.Addr(), Peer: vip6.Addr(), Bits: 64, Flags: ifaFlagNoDAD | 0x200, Metric: 77}
	must(t, withSession(func(s *session) error {
		verdicts, err := s.addAll([]address{byHand})
		return errors.Join(append(verdicts, err)...)
	}))
	must(t, b.Bind(t.Context(), bindOf(spec(w.name, vip6), 1)))
	a := bound(t, vip6)[0]
	if a.Proto != MarkProtocol || a.permanent() || a.Metric != 77 || a.Flags&0x200 == 0 || a.Bits != 64 {
		t.Errorf("taken over as %+v", a)
	}
}

func TestWholeSeconds(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		-time.Second: 1, 0: 1, 300 * time.Millisecond: 1, time.Second: 1, 1999 * time.Millisecond: 1, 2 * time.Second: 2,
		1<<63 - 1: forever - 1, // 292 years are longer than the kernel can count, and never forever
	} {
		if got := wholeSeconds(d); got != want {
			t.Errorf("wholeSeconds(%v) = %d, want %d", d, got, want)
		}
	}
}
