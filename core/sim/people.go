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
		if a := w.dice.IntN(writerAddrs); n.kern.addrs[a].bound {
			n.kern.remove(a)
			n.kern.addrs[a].deleted = true
		}
	case addedByHand:
		w.addByHand(n, w.dice.IntN(writerAddrs), d)
	case foreignClaim:
		if n.proc != nil {
			n.deliverSoon(core.ForeignClaim{Address: address(w.dice.IntN(writerAddrs)), MAC: []byte{2, 0, 0, 0, 0, 99}})
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
	if n.sql != nil {
		w.crashServer(n, d)
		return
	}
	was := n.health
	n.health.State = pick(w.dice, []core.HealthState{core.Failed, core.Failed, core.HealthUnknown, core.Healthy})
	n.health.Writable = pick(w.dice, []core.Tri{core.Yes, core.No, core.Unknown})
	n.healthChanged()
	w.after(d, func() {
		n.health = was
		n.healthChanged()
	})
}

// crashServer kills a node's server for a while, or lets somebody change its mode.
func (w *world) crashServer(n *node, d time.Duration) {
	if w.sqlDice.chance(0.3) {
		n.sql.writable = w.sqlDice.chance(0.5) && (n.sql.writable || w.plan.readers == 0) // what nobody has seen yet readers can write to
		n.sql.look()
		return
	}
	n.health.State = core.Failed
	n.healthChanged()
	w.after(d, func() { n.mendServer() })
}

// mendServer starts a server that is dead.
func (n *node) mendServer() {
	if n.health.State == core.Failed {
		n.health.State = core.Healthy
		n.sql.restart()
		n.healthChanged()
	}
}

func (n *node) healthChanged() {
	if n.sql != nil {
		n.health = n.sql.health()
		n.sql.seen = n.health
	}
	if n.proc != nil {
		n.tellHealth(n.w.dice.about(n.w.plan.mailbox))
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
	if k == move && w.empty(at, n) {
		return
	}
	w.ticket++
	g := groupName(w.dice.IntN(w.plan.groups))
	if k == move {
		at.deliverSoon(core.MoveAsked{Ticket: w.ticket, Group: g, To: n.name, Reason: "an operator wants it"})
		if w.plan.slow && w.sqlDice.chance(0.6) {
			w.wavers(g, n)
		}
		return
	}
	at.deliverSoon(core.PauseAsked{Ticket: w.ticket, Group: g, On: w.dice.chance(0.6), Reason: "an operator wants it"})
}

// empty has everything moved away from a node, as for its maintenance, and reports whether there was anything.
func (w *world) empty(at, n *node) bool {
	any := false
	for name, g := range groupsOf(w.or.view) {
		if g.Owner == n.name {
			to := w.nodes[(n.id+1+w.dice.IntN(len(w.nodes)-1))%len(w.nodes)]
			w.ticket++
			at.deliverSoon(core.MoveAsked{Ticket: w.ticket, Group: name, To: to.name, Reason: "an operator wants it"})
			any = true
		}
	}
	return any
}

// wavers lets the operator who wants a switchover pause the group, which ends that, resume it and ask again: to a target that is
// slow, maybe while it still waits for what the first one wants it to have.
func (w *world) wavers(g core.GroupName, n *node) {
	ask := func(d time.Duration, ev core.Event) {
		w.after(d, func() {
			if at := w.leader(); at != nil && w.now < w.calm {
				at.deliverSoon(ev)
			}
		})
	}
	some := func() time.Duration { return w.sqlDice.between(w.load()/2, 2*w.load()) }
	paused := some()
	resumed := paused + some()
	w.ticket += 3
	ask(paused, core.PauseAsked{Ticket: w.ticket - 2, Group: g, On: true, Reason: "an operator has second thoughts"})
	ask(resumed, core.PauseAsked{Ticket: w.ticket - 1, Group: g, Reason: "an operator has second thoughts"})
	ask(resumed+some(), core.MoveAsked{Ticket: w.ticket, Group: g, To: n.name, Reason: "an operator wants it after all"})
}

// decideByHand does what operators do when the daemons ask them: servers that are set aside are built anew, and where
// nobody may be promoted without loss they say who is.
func (w *world) decideByHand(name core.GroupName, g core.GroupState) {
	if o := ownerIndex(g.Owner); o >= 0 {
		for _, n := range w.nodes {
			if s := n.sql; n.id != o && s.aside && s.alive() && w.nodes[o].sql.executed.lacks(s.received) > 0 && w.nodes[o].sql.writable && w.sqlDice.chance(0.1) {
				w.buildAnew(n, w.nodes[o])
			}
		}
		return
	}
	l := w.leader()
	if l == nil || w.now < w.calm+int64(3*time.Second) || !w.sqlDice.chance(0.2) {
		return
	}
	to := pick(w.sqlDice, w.nodes)
	if to.file.Nodes[to.id].Witness {
		to = w.nodes[0] // the last node only is a witness
	}
	w.ticket++
	l.deliverSoon(core.PromoteAsked{Ticket: w.ticket, Group: name, To: to.name, AcceptLoss: true, Reason: "an operator wants it"})
}

// buildAnew lets an operator stop a server, copy another one and start it again.
func (w *world) buildAnew(n, from *node) {
	n.health.State = core.Failed
	n.healthChanged()
	w.after(w.load(), func() {
		s := n.sql
		s.executed, s.received, s.aside = from.sql.executed, from.sql.executed, false
		n.mendServer()
		w.ticket++
		n.rejoin(w.ticket)
	})
}

func (n *node) rejoin(ticket uint64) {
	if n.proc != nil {
		n.deliverAfter(time.Millisecond, core.RejoinAsked{Ticket: ticket})
	}
}
