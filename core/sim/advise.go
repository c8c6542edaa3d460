package sim

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// stopAsked is a stop that an outside manager has asked for.
type stopAsked struct {
	group core.GroupName
	node  core.NodeName
}

// adviseAtRandom is a failover manager that does not think: it stops the owner, or somebody else, and starts a node after
// a while, too late, not at all, or without having stopped anybody.
func (w *world) adviseAtRandom(n *node) {
	name := groupName(w.dice.IntN(w.plan.groups))
	from := n.name
	if o := w.or.view.Groups[name].Owner; o != "" && w.dice.chance(0.8) {
		from = o
	}
	ttl := w.plan.timing.TTL
	if w.dice.chance(0.9) {
		w.stop(name, from, w.dice.chance(0.6))
	}
	for w.dice.chance(0.7) {
		to := pick(w.dice, w.nodes).name
		w.after(w.dice.about(3*ttl), func() { w.start(name, to) })
	}
}

func (w *world) stop(name core.GroupName, from core.NodeName, online bool) {
	l := w.leader()
	if l == nil {
		return
	}
	w.ticket++
	w.or.stops[w.ticket] = stopAsked{name, from}
	l.deliverSoon(core.AdviceAsked{Ticket: w.ticket, Group: name, Stop: true, Node: from, Online: online, By: "manager",
		Graceful: w.plan.mha && w.sqlDice.chance(0.8), Drain: w.plan.timing.TTL / 2, Wait: w.dice.between(0, w.plan.timing.TTL)})
}

func (w *world) start(name core.GroupName, to core.NodeName) {
	if l := w.leader(); l != nil {
		w.ticket++
		l.deliverSoon(core.AdviceAsked{Ticket: w.ticket, Group: name, Node: to, By: "manager", Waive: w.dice.between(0, time.Second),
			Clear: w.plan.mha && w.sqlDice.chance(0.5)})
	}
}

// answered checks that a stop is answered only when the node does not answer for the group's addresses any more, unless
// the log has given it the group again.
func (o *oracle) answered(a core.Answer) {
	s, asked := o.stops[a.Ticket]
	if !asked {
		return
	}
	delete(o.stops, a.Ticket)
	g := o.view.Groups[s.group]
	if a.Refused != "" || g.Owner == s.node {
		return
	}
	o.w.stats.Stops++
	n := o.w.nodes[nodeIndex(s.node)]
	for _, pre := range g.Spec.Addresses {
		if i := addressIndex(pre.Addr()); n.kern.answers(i) && n.kern.addrs[i].group == groupIndex(s.group) {
			o.w.fail(I2, "the stop of %s is answered while it answers for %v of %s", s.node, pre.Addr(), s.group)
		}
	}
}
