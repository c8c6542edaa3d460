package netio

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/remora-ha/remora/core"
)

// guarded is what the binder's fence guards. Its lock is held over the change of the fence, which only claims and
// configuration make; giving up does not need it.
type guarded struct {
	mu    sync.Mutex
	addrs map[netip.Addr]bool
}

// Guard has the fence guard the addresses of these groups and no others, and the frames on their interfaces, as far as they
// are there; a later announcement sees to the others. The addresses of each group are gathered ([Fence.Gather]). It does nothing without a fence.
func (b *Binder) Guard(groups []core.GroupSpec) error {
	for _, g := range groups {
		name := b.cfg.Interface(g)
		if index, err := interfaceIndex(name); err == nil && name != loopback && b.cfg.Fence != nil {
			b.cfg.Fence.GuardFrames(name, index)
		}
	}
	b.guarded.mu.Lock()
	defer b.guarded.mu.Unlock()
	want := map[netip.Addr]bool{}
	for _, g := range groups {
		for _, p := range g.Addresses {
			want[p.Addr()] = true
		}
	}
	if err := b.guard(want); err != nil || b.cfg.Fence == nil {
		return err
	}
	sets := make([][]netip.Addr, len(groups))
	for i, g := range groups {
		sets[i] = addresses(g)
	}
	return b.cfg.Fence.Gather(sets)
}

// guardAlso sees to it that the addresses of a group are guarded before they are bound for the first time.
func (b *Binder) guardAlso(spec core.GroupSpec) error {
	b.guarded.mu.Lock()
	defer b.guarded.mu.Unlock()
	want := maps.Clone(b.guarded.addrs)
	if want == nil {
		want = map[netip.Addr]bool{}
	}
	for _, p := range spec.Addresses {
		want[p.Addr()] = true
	}
	return b.guard(want)
}

func (b *Binder) guard(want map[netip.Addr]bool) error {
	if b.cfg.Fence == nil || maps.Equal(want, b.guarded.addrs) {
		return nil
	}
	if err := b.cfg.Fence.SetAddresses(slices.Collect(maps.Keys(want))); err != nil {
		return err
	}
	b.guarded.addrs = want
	return nil
}

// Arm tells the fence of a report and opens it for the groups whose leases were renewed.
func (b *Binder) Arm(_ context.Context, a core.Arm) error {
	if b.cfg.Fence == nil {
		return nil
	}
	// Not under a lock: what is given up while Arm waits for one would be opened again.
	room := b.armRoom.Swap(nil)
	if room == nil {
		room = new(armRoom)
	}
	defer b.armRoom.Store(room)
	b.cfg.Fence.SetAlone(!a.Leads)
	return b.cfg.Fence.Arm(uint64(a.Seq), a.TTL, room.openings(a.Open))
}

// armRoom is the memory for what an Arm opens, from one to the next.
type armRoom struct {
	open  []FenceOpening
	addrs []netip.Addr
}

func (r *armRoom) openings(open []core.Opening) []FenceOpening {
	r.open, r.addrs = r.open[:0], r.addrs[:0]
	for _, o := range open {
		at := len(r.addrs)
		for _, p := range o.Addresses {
			r.addrs = append(r.addrs, p.Addr())
		}
		r.open = append(r.open, FenceOpening{Addrs: r.addrs[at:], Report: uint64(o.Report)})
	}
	return r.open
}

// openFence lets traffic of the group pass as long as the report lives that its lease rests on. The addresses are bound
// by then.
func (b *Binder) openFence(a core.Bind) error {
	if b.cfg.Fence == nil {
		return nil
	}
	if err := b.cfg.Fence.Open(addresses(a.Spec), uint64(a.Report)); err != nil {
		return fmt.Errorf("open the fence: %w", err)
	}
	return nil
}

// closeFence is the first act of giving up. If it fails the addresses are removed all the same, and that they are gone
// is what counts.
func (b *Binder) closeFence(spec core.GroupSpec) {
	if b.cfg.Fence == nil {
		return
	}
	if err := b.cfg.Fence.Close(addresses(spec)); err != nil {
		b.cfg.Logger.Error("the fence was not closed; removing the addresses", "group", spec.Name, "error", err)
	}
}

func addresses(spec core.GroupSpec) []netip.Addr { return addressesOf(spec.Addresses) }

func addressesOf(prefixes []netip.Prefix) []netip.Addr {
	as := make([]netip.Addr, 0, len(prefixes))
	for _, p := range prefixes {
		as = append(as, p.Addr())
	}
	return as
}
