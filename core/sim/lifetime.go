package sim

import (
	"net/netip"
	"time"

	"github.com/remora-ha/remora/core"
)

// removedLate is by how much a kernel removes an address after the end of its lifetime, at most.
const removedLate = 1250 * time.Millisecond

// lifetimeTimings are the profiles in use where some kernels have no fence.
func lifetimeTimings() []core.Timing {
	const msec = time.Millisecond
	return []core.Timing{
		{Heartbeat: 400 * msec, TTL: core.UnfencedTTL, Unbind: 50 * msec, RaftHeartbeat: 300 * msec, RaftElection: 300 * msec},
		{Heartbeat: time.Second, TTL: 4 * time.Second, Unbind: 100 * msec, RaftHeartbeat: 500 * msec, RaftElection: 500 * msec},
	}
}

// live gives an address a valid lifetime from now. Without a fence that is all that takes it away from a dead process.
func (k *kernel) live(a int, life time.Duration) {
	c := &k.addrs[a]
	if !k.n.unfenced || !c.bound || !c.ours {
		return
	}
	w := k.n.w
	if w.opt.Break == GenerousLifetime {
		life += 2 * time.Second
	}
	c.dies = k.n.clock.when(k.n.clock.at(w.now).Add(life)) + w.dice.Int64N(int64(removedLate))
	dies := c.dies
	w.after(time.Duration(dies-w.now), func() {
		if c.bound && c.ours && c.dies == dies {
			c.deleted = true // the news of it takes a moment
			k.remove(a)
		}
	})
}

// extend renews lifetimes as the kernel does it, except that an absent address stays absent.
func (k *kernel) extend(addrs []netip.Prefix, life time.Duration) {
	for _, pre := range addrs {
		k.live(addressIndex(pre.Addr()), life)
	}
}

// lag is by how much a node may answer longer than its lease lasts, for which the arbiter waits beside.
func (n *node) lag() int64 {
	if !n.unfenced {
		return 0
	}
	return int64(core.UnfencedMargin(n.w.plan.timing.TTL))
}

// withoutFence makes the time of a system call what it must be where no fence holds the lease: a claim is carried out in
// the time that is kept in hand for it, and by the kernel, once the process has looked at the clock. Giving up may take as
// long as it wants.
func (n *node) withoutFence(d time.Duration, giveUp bool) (time.Duration, bool) {
	if giveUp || !n.unfenced {
		return d, false
	}
	return min(d, n.w.plan.timing.Unbind/2), true
}
