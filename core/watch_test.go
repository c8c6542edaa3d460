package core

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// checkOneHolder is I1 as the kernels show it.
func (c *cluster) checkOneHolder(a netip.Addr) {
	c.t.Helper()
	var on []string
	for _, name := range c.names {
		n := c.nodes[name]
		if e, ok := n.bound[a]; ok && n.up && !n.slept && !n.dryRun { // the dead and the frozen are the kernel lease's business, I8
			on = append(on, fmt.Sprintf("%s in epoch %d", name, e))
		}
	}
	if len(on) > 1 {
		c.t.Errorf("I1: at %v address %s is bound on %s", c.now, a, strings.Join(on, " and "))
	}
}

// checkAnnounce is I4.
func (c *cluster) checkAnnounce(n *node, a Announce) {
	c.t.Helper()
	for _, p := range a.Spec.Addresses {
		if n.bound[p.Addr()] != a.Epoch && !n.dryRun {
			c.t.Errorf("I4: at %v %s announces %s in epoch %d, the kernel has it in epoch %d", c.now, n.name, p.Addr(), a.Epoch, n.bound[p.Addr()])
		}
	}
}

// checkGrants is I2 and I7: a grant to another node finds the lease released or over on the machine that held it; one that hands
// the group over finds it so when that ends.
func (c *cluster) checkGrants(before, after View) {
	c.t.Helper()
	for name, g := range after.Groups {
		was := before.Groups[name]
		if g.Epoch < was.Epoch {
			c.t.Errorf("I7: the epoch of %s went from %d to %d", name, was.Epoch, g.Epoch)
		}
		from := was.Owner
		switch {
		case was.Handover != nil && g.Handover == nil:
			from = was.Handover.From
		case g.Handover != nil, g.Epoch == was.Epoch, was.Owner == "", was.Owner == g.Owner:
			continue
		}
		if holder := c.nodes[from]; holder.lease[name] >= c.now && !(holder.up && holder.gone(name)) {
			c.t.Errorf("I2: at %v %s/%d belongs to %s alone, %v before the lease of %s is over", c.now, name, g.Epoch, g.Owner,
				holder.lease[name].Sub(c.now), from)
		}
	}
}

// gone reports whether a machine has nothing of a group that it has not unbound and read back.
func (n *node) gone(name GroupName) bool {
	h := n.m.held[name]
	return h == nil || h.phase == releasing
}

func (c *cluster) holders() string {
	var all []string
	for _, name := range c.names {
		n := c.nodes[name]
		for _, a := range slices.SortedFunc(maps.Keys(n.bound), netip.Addr.Compare) {
			all = append(all, fmt.Sprintf("%s on %s (epoch %d)", a, name, n.bound[a]))
		}
	}
	return cmp.Or(strings.Join(all, ", "), "nothing")
}
