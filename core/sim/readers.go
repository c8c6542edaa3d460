package sim

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/remora-ha/remora/core"
)

// pool is the name of the reader group, of which each address is a group.
const pool core.GroupName = "pool"

// readerGroups are the groups of a seed's reader addresses.
func (w *world) readerGroups() []core.GroupSpec {
	var gs []core.GroupSpec
	unit := w.baseTTL()
	for i := range w.plan.readers {
		gs = append(gs, core.GroupSpec{Name: groupName(writerGroups + i), Role: core.Reader, Pool: pool, Interface: iface,
			Addresses: []netip.Prefix{netip.PrefixFrom(address(writerAddrs+i), 32)},
			Reading:   core.Reading{MaxLag: 2 * unit, BalanceAfter: 2 * unit, AllowPrimary: w.plan.promote || w.readDice.chance(0.5)}})
	}
	return gs
}

// makeReplicas lets each node replicate from the next one, in a ring of primaries, where servers are not simulated otherwise.
func (w *world) makeReplicas() {
	if w.plan.readers == 0 || w.plan.promote {
		return
	}
	for i, n := range w.nodes {
		n.health.Source = w.nodes[(i+1)%len(w.nodes)].serverAddress().String()
		n.health.Replicating = core.Yes
	}
	w.after(w.plan.timing.TTL, w.troubleReplicas)
}

// troubleReplicas lets replicas stop and fall behind, and go on.
func (w *world) troubleReplicas() {
	if w.now >= w.calm {
		return
	}
	n, ttl := pick(w.readDice, w.nodes), w.plan.timing.TTL
	switch w.readDice.IntN(5) {
	case 0:
		n.health.Replicating, n.health.Lag = core.No, -1
	case 1:
		n.health.Replicating, n.health.Lag = core.Unknown, -1
	case 2:
		n.health.Replicating, n.health.Lag = core.Yes, w.readDice.between(ttl, 3*ttl)
	default:
		n.health.Replicating, n.health.Lag = core.Yes, 0
	}
	n.healthChanged()
	w.after(w.readDice.about(ttl/2), w.troubleReplicas)
}

// mendReplica lets a replica go on, and tells that again in case news of before were delivered later.
func (n *node) mendReplica() {
	if n.sql == nil {
		n.health.Replicating, n.health.Lag = core.Yes, 0
		n.healthChanged()
	}
}

// replicaWatch reckons how old what a server shows is, from what its process was told.
type replicaWatch struct {
	seen    bool // it has replicated
	lag     time.Duration
	stopped bool
	since   core.Instant
}

func (r *replicaWatch) told(now core.Instant, h core.Health) {
	runs := h.Replicating == core.Yes && h.Lag >= 0
	switch {
	case h.State == core.Failed:
		*r = replicaWatch{}
	case runs:
		*r = replicaWatch{seen: true, lag: h.Lag}
	case !r.stopped:
		r.stopped, r.since = true, now
	}
}

// unreadable returns why a process must not serve readers, as far as it was told about its own node.
func (w *watch) unreadable(g *groupWatch, now core.Instant) string {
	h, r, reading := w.health, &w.replica, g.told.Spec.Reading
	old := r.lag
	if r.stopped {
		old += now.Sub(r.since)
	}
	switch {
	case h.Source == "" && !(reading.AllowPrimary && h.Writable == core.Yes):
		return "its server is no replica"
	case h.Source != "" && !r.seen:
		return "nobody knows how old what its server shows is"
	case h.Source != "" && old > reading.MaxLag.Duration():
		return fmt.Sprintf("what its server shows is %v old", old)
	}
	return ""
}

// oneWriter checks that clients can write to one server at the most, at whatever address.
func (o *oracle) oneWriter() {
	var found *node
	for _, n := range o.w.nodes {
		if !n.sql.alive() || !n.sql.writable || !n.servesPromoted() {
			continue
		}
		if found != nil {
			o.w.fail(I10, "clients can write to %s and to %s", found.name, n.name)
		}
		found = n
	}
}

// unbalanced returns in words that the addresses of the pool are not spread as they must be once all is quiet, or nothing. Where a
// group has policy promote, who can serve readers hangs on that.
func (o *oracle) unbalanced() string {
	if o.w.plan.readers == 0 || o.w.plan.promote {
		return ""
	}
	counts := map[core.NodeName]int{}
	for _, g := range groupsOf(o.view) {
		if g.Spec.Pool != "" && !g.Retired {
			counts[g.Owner]++
		}
	}
	low, high := maxReaders, 0
	for _, n := range o.view.Config.Nodes {
		if !n.Witness {
			low, high = min(low, counts[n.Name]), max(high, counts[n.Name])
		}
	}
	if high-low > 1 {
		return fmt.Sprintf("one node has %d reader addresses, another %d", high, low)
	}
	return ""
}

// nobodyFollows reports whether the group of policy promote is gone from the configuration: then no server is made to follow any
// other, and those that were stopped stay so.
func (o *oracle) nobodyFollows() bool { return o.w.plan.promote && o.view.Groups[groupName(0)].Retired }
