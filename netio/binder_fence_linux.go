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
	addrs map[netip.Addr]bool // nil before the first change
}

// Guard has the fence guard the addresses of these groups and no others, and the frames on their interfaces, as far as they
// are there; a later announcement sees to the others. A socket for announcements is opened on each, so that a takeover finds it
// open. A fence that is not installed yet is installed with all that, in one
// transaction, in the place of what an earlier process left ([Fence.Install]). The addresses of each group are gathered
// ([Fence.Gather]). Without a fence nothing is guarded.
func (b *Binder) Guard(groups []core.GroupSpec) error {
	seen := map[string]bool{}
	for _, g := range groups {
		name := b.cfg.Interface(g)
		if seen[name] {
			continue
		}
		seen[name] = true
		if index, err := interfaceIndex(name); err == nil && name != loopback && b.cfg.Fence != nil {
			b.cfg.Fence.GuardFrames(name, index)
		}
		b.prepare(g)
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
	if b.cfg.Fence == nil || b.guarded.addrs != nil && maps.Equal(want, b.guarded.addrs) {
		return nil
	}
	if err := b.cfg.Fence.SetAddresses(slices.Collect(maps.Keys(want))); err != nil {
		return err
	}
	b.guarded.addrs = want
	return nil
}

// Arm tells the fence of a report and opens it for the groups whose leases were renewed, except those whose epoch was given
// up. Reports wait for one another, and for the kernel, and no Unbind waits for a report: so a group may have been given up,
// and closed to the end, between the step that asked for this Arm and the Arm. No later Unbind would repair that, since an Arm
// is no claim that the machine counts.
//
// What decides is the order of two looks. Unbind closes the group's gate and then marks the addresses in the fence; Arm reads
// the fence's generation and then looks at the gate. If Unbind had closed the gate by then, the group is left out. If not, the
// marks come after the generation that was read, and the fence leaves out, or refuses with its turn, what was given up since
// (see [Fence]), however long the process is stopped or waits for a lock in between. The other way round there would be a hole:
// an Unbind that runs as a whole after the look at the gate and before the generation is read would be opened again.
//
// A grant of a later epoch opens by an Arm that has this epoch, for which the gate is not closed.
func (b *Binder) Arm(_ context.Context, a core.Arm) error {
	if b.cfg.Fence == nil {
		return nil
	}
	since := b.cfg.Fence.state.now()
	room := b.armRoom.Swap(nil)
	if room == nil {
		room = new(armRoom)
	}
	defer b.armRoom.Store(room)
	b.cfg.Fence.SetAlone(!a.Leads)
	return b.cfg.Fence.arm(since, uint64(a.Seq), a.TTL, room.openings(a.Open, &b.gate))
}

// armRoom is the memory for what an Arm opens, from one to the next.
type armRoom struct {
	open  []FenceOpening
	addrs []netip.Addr
}

// openings returns what the fence is to open, without what was given up.
func (r *armRoom) openings(open []core.Opening, g *gate) []FenceOpening {
	r.open, r.addrs = r.open[:0], r.addrs[:0]
	for _, o := range open {
		if still, _ := g.look(o.Group, o.Epoch); !still {
			continue
		}
		at := len(r.addrs)
		for _, p := range o.Addresses {
			r.addrs = append(r.addrs, p.Addr())
		}
		r.open = append(r.open, FenceOpening{Addrs: r.addrs[at:], Report: uint64(o.Report)})
	}
	return r.open
}

// openFence lets traffic of the group pass as long as the report lives that its lease rests on by now. The addresses are bound
// by then. What was given up stays closed, by the same order of looks as in [Binder.Arm].
func (b *Binder) openFence(a core.Bind) error {
	if b.cfg.Fence == nil {
		return nil
	}
	since := b.cfg.Fence.state.now()
	if still, _ := b.gate.look(a.Group, a.Epoch); !still {
		return fmt.Errorf("open the fence: %w: group %s was unbound in epoch %d or later", ErrLate, a.Group, a.Epoch)
	}
	if err := b.cfg.Fence.openSince(since, addresses(a.Spec), uint64(b.gate.report(a.Group, a.Epoch, a.Report))); err != nil {
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
