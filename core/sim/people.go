package sim

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// disturb does what happens around the daemon: to MySQL, the link, the addresses, and what operators ask for.
func (w *world) disturb(k faultKind, n *node, d time.Duration) {
	switch k {
	case mysqlFlip:
		w.flipMySQL(n, d)
	case linkFlip:
		n.setLink(false)
		w.after(d, func() { n.setLink(true) })
	case deletedByHand:
		if a := w.dice.IntN(maxAddrs); n.kern.addrs[a].bound {
			n.kern.remove(a)
			n.kern.addrs[a].deleted = true
		}
	case addedByHand:
		w.addByHand(n, w.dice.IntN(maxAddrs), d)
	case foreignClaim:
		if n.proc != nil {
			n.deliverSoon(core.ForeignClaim{Address: address(w.dice.IntN(maxAddrs)), MAC: []byte{2, 0, 0, 0, 0, 99}})
		}
	case shutdown:
		if n.proc != nil {
			n.deliverSoon(core.ShutdownAsked{})
			w.bootAfter(n, d+3*w.plan.timing.TTL)
		}
	case transfer:
		if l := w.leader(); l != nil {
			l.raft.transferTo(n.id)
		}
	case configure:
		w.newest = w.nextConfig(w.newest)
		for _, other := range w.nodes {
			if w.dice.chance(0.7) {
				other.offer(w.newest)
			}
		}
	case move, pause:
		w.operate(k, n)
	case advise:
		w.adviseAtRandom(n)
	}
}

func (w *world) flipMySQL(n *node, d time.Duration) {
	was := n.health
	n.health.State = pick(w.dice, []core.HealthState{core.Failed, core.Failed, core.HealthUnknown, core.Healthy})
	n.health.Writable = pick(w.dice, []core.Tri{core.Yes, core.No, core.Unknown})
	n.healthChanged()
	w.after(d, func() {
		n.health = was
		n.healthChanged()
	})
}

func (n *node) healthChanged() {
	if n.proc != nil {
		n.deliverSoon(core.HealthChanged{Health: n.health})
	}
}

func (n *node) setLink(up bool) {
	n.linkDown = !up
	if n.proc != nil {
		n.deliverSoon(core.LinkChanged{Interface: iface, Up: up})
	}
}

func (n *node) offer(c core.Config) {
	n.file = c
	if n.proc != nil {
		n.deliverSoon(core.ConfigOffered{Config: c})
	}
}

func (w *world) addByHand(n *node, a int, d time.Duration) {
	if n.kern.addrs[a].bound {
		return
	}
	c := &n.kern.addrs[a]
	c.bound, c.ours, c.byHand = true, false, w.now
	n.seen(a)
	w.after(d, func() { n.removeByHand(a) })
}

func (n *node) removeByHand(a int) {
	if c := &n.kern.addrs[a]; c.bound && !c.ours {
		n.kern.remove(a)
	}
}

// operate asks the arbiter, or somebody who may not be it, for something.
func (w *world) operate(k faultKind, n *node) {
	at := w.leader()
	if at == nil {
		return
	}
	w.ticket++
	g := groupName(w.dice.IntN(w.plan.groups))
	if k == move {
		at.deliverSoon(core.MoveAsked{Ticket: w.ticket, Group: g, To: n.name, Reason: "an operator wants it"})
		return
	}
	at.deliverSoon(core.PauseAsked{Ticket: w.ticket, Group: g, On: w.dice.chance(0.6), Reason: "an operator wants it"})
}
