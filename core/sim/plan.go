package sim

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-ha/remora/core"
)

// plan is what a seed has chosen for a whole run.
type plan struct {
	nodes      int
	groups     int
	timing     core.Timing
	mailbox    time.Duration // mean delay from the edge to the machine
	kernelTime time.Duration // mean time of a system call
	disk       time.Duration // mean time of a write to Raft's store
	apply      time.Duration // mean delay from a commit to its application
	// kernelLease says that the kernel holds the lease too. Without it the faults that only the kernel can master are
	// left out: frozen and killed processes, system calls that take longer than what is kept in hand for them.
	kernelLease bool
	// lifetimes says that some nodes have no fence, and hold leases by the lifetimes of addresses alone. The faults are
	// those that a kernel lease masters.
	lifetimes bool
	// gate says that the edge takes back a claim that ends after its group was given up. The machine must not need that.
	gate          bool
	preVote       bool
	waitToVote    bool
	slowProposals bool
	snapshotAfter int // a follower that lacks more entries is sent a snapshot; 0: never
	faultEvery    time.Duration
	faultsFor     time.Duration
	faults        []faultKind
	promote       bool // the first group has policy promote
	slow          bool // replicas of that group are slow to receive and to apply
	// mha says that all groups have policy follow and one server is writable, as under MHA, whose advice is about servers too.
	mha bool
	// readers is how many addresses a reader group has; 0 means that there is none.
	readers int
}

// timings are the profiles in use, some closer to the edge of what Timing.Check allows than those that are shipped.
func timings() []core.Timing {
	const msec = time.Millisecond
	return []core.Timing{
		{Heartbeat: 90 * msec, TTL: 300 * msec, Unbind: 20 * msec, RaftHeartbeat: 60 * msec, RaftElection: 60 * msec},
		{Heartbeat: 60 * msec, TTL: 300 * msec, Unbind: 20 * msec, RaftHeartbeat: 50 * msec, RaftElection: 50 * msec},
		{Heartbeat: 14 * msec, TTL: 45 * msec, Unbind: 3 * msec, RaftHeartbeat: 17 * msec, RaftElection: 17 * msec},
		{Heartbeat: time.Second, TTL: 4 * time.Second, Unbind: 100 * msec, RaftHeartbeat: 500 * msec, RaftElection: 500 * msec},
	}
}

// pickTiming prefers short leases: with them a seed needs fewer steps for as many leases.
func (w *world) pickTiming() core.Timing {
	ts := timings()
	if last := len(ts) - 1; !w.dice.chance(0.1) {
		ts = ts[:last]
	}
	return pick(w.dice, ts)
}

func (w *world) makePlan() {
	d, p := w.dice, &w.plan
	*p = plan{nodes: pick(d, []int{3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 5, 5, 5, 5, 7}), groups: pick(d, []int{1, 1, 2, 3}), timing: w.pickTiming()}
	if w.opt.Nodes != 0 {
		p.nodes = w.opt.Nodes
	}
	p.kernelLease = d.chance(0.7)
	switch w.opt.Kernel {
	case KernelLeaseOn:
		p.kernelLease = true
	case KernelLeaseOff:
		p.kernelLease = false
	}
	if w.opt.Kernel == KernelLifetimes || w.opt.Kernel == KernelBySeed && d.chance(0.04) {
		p.lifetimes, p.kernelLease = true, true
		p.timing = pick(d, lifetimeTimings())
	}
	p.timing.CoolDown = 10 * p.timing.TTL
	p.timing.Fall, p.timing.Rise = 1, 1
	unit := p.timing.TTL
	p.mailbox = d.between(10*time.Microsecond, unit/300)
	p.kernelTime = d.between(50*time.Microsecond, p.timing.Unbind/10)
	p.disk = d.between(20*time.Microsecond, unit/100)
	p.apply = d.between(20*time.Microsecond, unit/50)
	p.gate = d.chance(0.5)
	p.slowProposals = d.chance(0.3)
	p.preVote, p.waitToVote = d.chance(0.7), d.chance(0.5)
	if d.chance(0.5) {
		p.snapshotAfter = 1 + d.IntN(8)
	}
	p.faultEvery = unit / time.Duration(1+d.IntN(6))
	p.faultsFor = unit * time.Duration(6+d.IntN(11))
	if p.faults = w.opt.faults; p.faults == nil {
		w.chooseFaults()
	} else if slices.Max(p.faults) >= kill {
		p.kernelLease = true
	}
	base := d.between(20*time.Microsecond, unit/60)
	w.net = network{base: base, jitter: base / time.Duration(1+d.IntN(8)), longMax: unit}
	if d.chance(0.3) {
		w.net.quietLoss = 0.02 * d.Float64()
	}
	if d.chance(0.3) {
		w.net.dup = 0.1
	}
	if d.chance(0.3) {
		w.net.quietLong = 0.02
	}
	w.net.heal()
	p.promote = w.opt.promote || w.sqlDice.chance(0.2)
	p.slow = p.promote && (w.opt.slow || w.sqlDice.chance(0.3))
	p.mha = !p.promote && w.sqlDice.chance(0.3)
	if !p.mha && (w.opt.readers || w.readDice.chance(0.3)) {
		p.readers = 1 + w.readDice.IntN(maxReaders)
	}
}

// makeClocks gives the nodes clocks whose rates are up to 1 % off, often by just that.
func (w *world) makeClock() clock {
	return clock{offset: 1e9 + w.dice.Int64N(1e15), ppm: pick(w.dice, []int64{-10000, -10000, 0, 10000, 10000, w.dice.Int64N(20001) - 10000})}
}

func nodeName(i int) core.NodeName { return core.NodeName("n" + string(rune('1'+i))) }

func nodeIndex(n core.NodeName) int { return int(n[1] - '1') }

// ownerIndex returns the number of an owner, -1 if there is none.
func ownerIndex(n core.NodeName) int {
	if n == "" {
		return -1
	}
	return nodeIndex(n)
}

// groupsOf yields the groups of a ledger in the same order each time.
func groupsOf(v core.View) iter.Seq2[core.GroupName, core.GroupState] {
	return func(yield func(core.GroupName, core.GroupState) bool) {
		for _, name := range names {
			if g, ok := v.Groups[name]; ok && !yield(name, g) {
				return
			}
		}
	}
}

func groupName(i int) core.GroupName { return names[i] }

var names = [maxGroups]core.GroupName{"g1", "g2", "g3", "g4", "g5", "g6"}

func groupIndex(g core.GroupName) int { return int(g[1] - '1') }

func groupOf(a core.Action) core.GroupName {
	switch a := a.(type) {
	case core.Bind:
		return a.Group
	case core.Extend:
		return a.Group
	case core.Probe:
		return a.Group
	case core.Announce:
		return a.Group
	}
	panic(fmt.Sprintf("sim: %T has no group", a))
}

// firstConfig is the configuration with which the cluster begins.
func (w *world) firstConfig() core.Config {
	c := core.Config{Version: 1, Cluster: "sim", TTL: w.baseTTL()}
	for i := range w.plan.nodes {
		c.Nodes = append(c.Nodes, core.NodeSpec{
			Name: nodeName(i), Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(11 + i)}), 7400),
			Witness: i == w.plan.nodes-1 && w.dice.chance(0.4), Priority: w.dice.IntN(3),
		})
	}
	free := 0
	for i := range w.plan.groups {
		g := core.GroupSpec{Name: groupName(i), Role: core.Writer, Policy: core.AnyHealthy, Interface: iface, Preempt: w.dice.chance(0.2)}
		if w.dice.chance(0.3) {
			g.Policy = core.Follow
		}
		if w.plan.mha {
			g.Policy = core.Follow
		}
		if w.plan.promote && g.Policy == core.Follow {
			g.Policy = core.AnyHealthy // where one server is the primary, the others are not writable
		}
		if g.Policy == core.Follow && (i+w.plan.nodes)%2 == 0 {
			g.KeepUnwritable = 4 * w.baseTTL()
		}
		if i == 0 && w.plan.promote {
			g.Policy, g.Promotion = core.Promote, core.Promotion{MaxLost: -1, Drain: w.baseTTL(), CatchUp: 2 * w.baseTTL()}
		}
		for range 1 + w.dice.IntN(2) {
			g.Addresses = append(g.Addresses, netip.PrefixFrom(address(free), 32))
			free++
		}
		c.Groups = append(c.Groups, g)
	}
	c.Groups = append(c.Groups, w.readerGroups()...)
	return c
}

// baseTTL is the length of the lease with which a cluster begins; all others are longer.
func (w *world) baseTTL() core.Millis { return core.Millis(w.plan.timing.TTL / time.Millisecond) }

// nextConfig changes a configuration: the length of the lease, an address that moves from one group to another, a group
// that goes or comes.
func (w *world) nextConfig(c core.Config) core.Config {
	c.Version++
	groups := make([]core.GroupSpec, len(c.Groups))
	for i, g := range c.Groups {
		g.Addresses = append([]netip.Prefix(nil), g.Addresses...)
		groups[i] = g
	}
	c.Groups = groups
	switch from := w.dice.IntN(len(groups)); w.dice.IntN(4) {
	case 0, 1:
		c.TTL = w.baseTTL() * pick(w.dice, []core.Millis{1, 2, 4})
	case 2:
		to := w.dice.IntN(len(groups))
		if n := len(groups[from].Addresses); from != to && n > 1 {
			groups[to].Addresses = append(groups[to].Addresses, groups[from].Addresses[n-1])
			groups[from].Addresses = groups[from].Addresses[:n-1]
		} else if from != to {
			groups[from].Addresses, groups[to].Addresses = groups[to].Addresses, groups[from].Addresses
		}
	case 3:
		if len(groups) > 1 {
			c.Groups = append(groups[:from:from], groups[from+1:]...)
		}
	}
	return c
}
