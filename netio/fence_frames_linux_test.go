package netio

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// crowd is a link on which frames of packet sockets are guarded, and what comes out of its other end.
type crowd struct {
	*wire
	senders senders
	seen    <-chan []byte
}

func newCrowd(tb testing.TB) *crowd {
	tb.Helper()
	c := &crowd{wire: newWire(tb)}
	c.listen()
	tb.Cleanup(func() { must(tb, c.senders.close()) })
	return c
}

func (c *crowd) listen() { c.seen = c.tap(unix.ETH_P_ALL) }

// announcement is the frame that announces an address.
func (c *crowd) announcement(ip netip.Addr) []byte {
	l := c.link()
	if ip.Is6() {
		return UnsolicitedNA(l.MAC, ip).AppendFrame(nil)
	}
	return GratuitousARP(ARPRequest, l.MAC, ip).AppendFrame(nil)
}

// announce sends an announcement by a packet socket; meanwhile is what happens between the sender's last look and that.
func (c *crowd) announce(ip netip.Addr, meanwhile func()) error {
	return c.senders.send(c.link(), batchOf(c.announcement(ip)), func() error { meanwhile(); return nil })
}

// passes reports whether an announcement of ip comes out of the link, before that of an address which nobody guards.
func (c *crowd) passes(ip netip.Addr, meanwhile func()) bool {
	c.tb.Helper()
	sent := c.announce(ip, meanwhile)
	unguarded := netip.MustParseAddr("10.77.0.77")
	must(c.tb, c.announce(unguarded, func() {}))
	want := c.announcement(ip)
	end := c.announcement(unguarded)
	passed := false
	for deadline := time.After(10 * time.Second); ; {
		select {
		case f := <-c.seen:
			switch {
			case slices.Equal(f, want):
				passed = true
			case slices.Equal(f, end):
				if passed != (sent == nil) {
					c.tb.Errorf("the announcement of %v left the node: %v, and its sender was told %v", ip, passed, sent)
				}
				return passed
			}
		case <-deadline:
			c.tb.Fatalf("no announcement of %v was seen, which nobody guards", unguarded)
		}
	}
}

func (c *crowd) expect(passes bool, ip netip.Addr) {
	c.tb.Helper()
	if got := c.passes(ip, func() {}); got != passes {
		c.tb.Errorf("an announcement of %v passes: %v", ip, got)
	}
}

func (c *crowd) guardFrames(f *Fence) {
	l := c.link()
	f.GuardFrames(l.Name, l.Index)
	must(c.tb, f.Check())
}

func TestNoFrameOfAPacketSocketAboutAClosedAddress(t *testing.T) {
	c := newCrowd(t)
	f := newFence(t, fenced...)
	for _, ip := range fenced {
		c.expect(true, ip) // nobody has asked to guard frames
	}
	c.guardFrames(f)
	must(t, f.Arm(1, long, nil))
	for _, ip := range fenced {
		c.expect(false, ip)
		must(t, f.Open([]netip.Addr{ip}, 1))
		c.expect(true, ip)
		must(t, f.Arm(uint64(2+len(ip.AsSlice())), long, []FenceOpening{{Addrs: []netip.Addr{ip}, Report: 1}}))
		c.expect(true, ip)
		must(t, f.Close([]netip.Addr{ip}))
		c.expect(false, ip)
	}
}

// TestALateAnnouncementDoesNotLeave plays a sender that is stopped after its last look at the clock.
func TestALateAnnouncementDoesNotLeave(t *testing.T) {
	c := newCrowd(t)
	f := newFence(t, fenced...)
	c.guardFrames(f)
	seq := uint64(0)
	for _, ip := range fenced {
		seq++
		const lease = 200 * time.Millisecond
		must(t, f.Arm(seq, lease, nil))
		must(t, f.Open([]netip.Addr{ip}, seq))
		if c.passes(ip, func() { time.Sleep(lease) }) {
			t.Errorf("the lease of %v was over, and its announcement left", ip)
		}
		seq++
		must(t, f.Arm(seq, long, nil))
		must(t, f.Open([]netip.Addr{ip}, seq))
		if c.passes(ip, func() { must(t, f.Close([]netip.Addr{ip})) }) {
			t.Errorf("%v was given up, and its announcement left", ip)
		}
	}
}

func TestARefusedFrameDoesNotKeepTheOthers(t *testing.T) {
	c := newCrowd(t)
	f := newFence(t, fenced...)
	c.guardFrames(f)
	before, after := netip.MustParseAddr("10.77.0.71"), netip.MustParseAddr("10.77.0.72")
	frames := batchOf(c.announcement(before), c.announcement(fence4), c.announcement(fence6), c.announcement(after))
	socket, err := c.senders.get(c.link())
	must(t, err)
	err = c.senders.send(c.link(), frames, func() error { return nil })
	if err == nil || !strings.Contains(err.Error(), "send 4 frames") || !strings.Contains(err.Error(), "2 not sent") {
		t.Errorf("the sender of two frames about closed addresses was told %v", err)
	}
	wantErr(t, err, unix.ENOBUFS)
	if now, err := c.senders.get(c.link()); now != socket || err != nil {
		t.Errorf("a refused frame cost the socket (%v)", err)
	}
	expect(t, c.seen, "the frame before the refused ones", func(f []byte) bool {
		if slices.Equal(f, c.announcement(fence4)) {
			t.Error("a frame about a closed address left")
		}
		return slices.Equal(f, c.announcement(before))
	})
	expect(t, c.seen, "the frame after the refused ones", func(f []byte) bool {
		if slices.Equal(f, c.announcement(fence4)) {
			t.Error("a frame about a closed address left")
		}
		return slices.Equal(f, c.announcement(after))
	})
}

func TestFramesAreGuardedOnAnInterfaceThatWasMadeAgain(t *testing.T) {
	c := newCrowd(t)
	f := newFence(t, fenced...)
	c.guardFrames(f)
	c.delete()
	must(t, f.Check())
	must(t, f.Install(fenced)) // without the interface
	must(t, f.Check())
	c.create()
	c.listen()
	c.guardFrames(f)
	c.expect(false, fence4)
	must(t, f.Arm(1, long, nil))
	must(t, f.Open(fenced, 1))
	c.expect(true, fence4)
	c.expect(true, fence6)
}

func TestFramesAreGuardedAgainAfterAFlush(t *testing.T) {
	c := newCrowd(t)
	f := newFence(t, fenced...)
	c.guardFrames(f)
	watchFence(t, f)
	nft(t, "delete", "table", "netdev", FenceTable)
	poll(t, "the table is back", func() bool { return f.Check() == nil })
	c.expect(false, fence4)
}

// A kernel that takes no hook on an interface costs the guarding of its frames and nothing else, now or when all is built anew.
func TestAnInterfaceWithoutAHookCostsNothingElse(t *testing.T) {
	for _, first := range []string{"hooked in", "built anew"} {
		t.Run(first, func(t *testing.T) {
			c := newCrowd(t)
			f := newFence(t, fenced...)
			if first == "built anew" {
				c.guardFrames(f)
			}
			f.tables.frameHook = 7 // there is none
			c.guardFrames(f)
			must(t, f.Install(fenced))
			must(t, f.Check())
			c.guardFrames(f)
			must(t, f.Arm(1, long, nil))
			must(t, f.Open(fenced, 1))
			must(t, f.Close(fenced))
			must(t, f.Check())
			c.expect(true, fence4)
		})
	}
}

// fillHook gives an interface as many hooks for frames that go out as the kernel takes, MAX_HOOK_COUNT of net/netfilter/core.c.
func fillHook(t *testing.T, w *wire) {
	t.Helper()
	conn, err := nftables.New(nftables.AsLasting())
	must(t, err)
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: "full"})
	for i := range 1024 {
		conn.AddChain(&nftables.Chain{Table: table, Name: fmt.Sprint("c", i), Type: nftables.ChainTypeFilter, Device: w.name,
			Hooknum: nftables.ChainHookEgress, Priority: nftables.ChainPriorityFilter})
		if i%64 == 63 { // the answers to more do not fit into the socket
			must(t, conn.Flush())
		}
	}
	t.Cleanup(func() {
		conn.DelTable(table)
		must(t, errors.Join(conn.Flush(), conn.CloseLasting()))
	})
}

// When all is built anew at once, an interface that takes no hook does not keep the others from theirs.
func TestAnInterfaceWithoutAHookDoesNotKeepTheOthers(t *testing.T) {
	full, c := newWire(t), newCrowd(t)
	fillHook(t, full)
	var log lockedBuffer
	f, err := NewFence(FenceConfig{Logger: log.logger()})
	must(t, err)
	t.Cleanup(func() {
		must(t, f.Remove())
		must(t, f.Detach())
	})
	for _, w := range []*wire{full, c.wire} {
		f.GuardFrames(w.name, w.link().Index)
	}
	for range 2 {
		must(t, f.Install(fenced))
		must(t, f.Check())
		c.expect(false, fence4)
	}
	if !log.contains("interface=" + full.name) {
		t.Error("the kernel took one more hook, so nothing was tried")
	}
}
