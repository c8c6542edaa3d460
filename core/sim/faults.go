package sim

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// faultKind is something that goes wrong or that a person does.
type faultKind uint8

const (
	partition faultKind = iota
	oneWay
	isolate
	lossy
	slowNode
	power
	starve
	mysqlFlip
	linkFlip
	deletedByHand
	addedByHand
	foreignClaim
	move
	pause
	advise
	shutdown
	transfer
	configure
	diskStall
	bindsFail
	clockJump
	twoLeaders
	shortenLease
	// Those that only the kernel lease masters.
	kill
	freeze
	suspend
	kernelSlow
	kernelHang
	flush
	kinds
)

// chooseFaults picks the kinds that a seed uses: half of them, so that rare ones get room.
func (w *world) chooseFaults() {
	end := kinds
	if !w.plan.kernelLease {
		end = kill
	}
	for k := range end {
		if w.dice.chance(0.5) {
			w.plan.faults = append(w.plan.faults, k)
		}
	}
	if len(w.plan.faults) == 0 {
		w.plan.faults = append(w.plan.faults, isolate)
	}
}

func (w *world) scheduleFaults() {
	begin := w.now + int64(w.plan.timing.TTL)
	w.q.push(begin, item{kind: worldCall, call: w.nextFault})
	w.q.push(w.calm, item{kind: worldCall, call: w.endFaults})
}

func (w *world) nextFault() {
	if w.now >= w.calm {
		return
	}
	w.stats.Faults++
	w.inflict(pick(w.dice, w.plan.faults))
	w.after(w.dice.about(w.plan.faultEvery), w.nextFault)
}

// someNode returns a node, as likely as not one that matters now: the owner of a group or the Raft leader.
func (w *world) someNode() *node {
	switch w.dice.IntN(4) {
	case 0:
		g := w.or.view.Groups[groupName(w.dice.IntN(w.plan.groups))]
		if g.Owner != "" {
			return w.nodes[nodeIndex(g.Owner)]
		}
	case 1:
		if l := w.leader(); l != nil {
			return l
		}
	}
	return pick(w.dice, w.nodes)
}

// leader returns the node that leads in the highest term.
func (w *world) leader() *node {
	var best *node
	for _, n := range w.nodes {
		if n.proc != nil && n.raft.role == leading && (best == nil || n.raft.term > best.raft.term) {
			best = n
		}
	}
	return best
}

// span is how long a fault lasts.
func (w *world) span() time.Duration {
	return w.dice.about(w.plan.timing.TTL * time.Duration(1+w.dice.IntN(3)))
}

func (w *world) inflict(k faultKind) {
	n, d := w.someNode(), w.span()
	until := w.now + int64(d)
	w.trace.line(n, "fault: "+k.String(), d.String())
	switch k {
	case partition, oneWay, isolate, lossy, slowNode:
		w.troubleNetwork(k, n, d)
	case power:
		w.powerOff(n, d)
	case kill:
		w.kill(n, d)
	case starve:
		n.freeze(w.dice.between(0, min(core.MarginConstant, w.plan.timing.Unbind)-time.Millisecond))
	case freeze:
		n.freeze(d)
	case suspend:
		n.deliverAfter(0, core.ClockJumped{Reason: "suspended"})
		n.freeze(d)
	case clockJump:
		if n.proc != nil {
			n.deliverAfter(0, core.ClockJumped{Reason: "jumped"})
		}
	case kernelSlow:
		n.kern.slowUntil = until
	case bindsFail:
		n.kern.failUntil = until
	case kernelHang:
		n.kern.hangUntil = until
	case flush:
		n.flushFence()
	case diskStall:
		n.diskStall = until
	case twoLeaders:
		w.splitLeadership()
	case shortenLease:
		w.changeLease()
	default:
		w.disturb(k, n, d)
	}
}

func (w *world) troubleNetwork(k faultKind, n *node, d time.Duration) {
	switch k {
	case partition:
		var side [maxNodes]bool
		for i := range side {
			side[i] = w.dice.chance(0.5)
		}
		w.net.partition(side)
	case isolate:
		for i := range w.nodes {
			w.net.cut[i][n.id], w.net.cut[n.id][i] = true, true
		}
	case oneWay:
		in := w.dice.chance(0.5)
		for i := range w.nodes {
			if w.dice.chance(0.6) {
				if in {
					w.net.cut[i][n.id] = true
				} else {
					w.net.cut[n.id][i] = true
				}
			}
		}
	case lossy:
		w.net.loss, w.net.long = 0.4*w.dice.Float64(), 0.3*w.dice.Float64()
	case slowNode:
		w.net.slow[n.id] = w.dice.between(0, w.plan.timing.TTL/2)
	}
	w.after(d, w.net.heal)
}

// splitLeadership makes a leader that does not know of its successor, because its disk stands still or because Raft's
// news do not get through to the machine, and then keeps the successor from hearing an owner that the old one still hears.
func (w *world) splitLeadership() {
	old := w.leader()
	if old == nil {
		return
	}
	ttl := w.plan.timing.TTL
	if w.dice.chance(0.5) {
		old.diskStall, old.raft.beatsGoOn = w.now+int64(5*ttl), false
		old.raft.write()
	} else {
		old.newsStall = w.now + int64(5*ttl)
		old.raft.transferTo(w.dice.IntN(len(w.nodes)))
	}
	w.after(w.dice.between(ttl/4, ttl), func() {
		if young := w.leader(); young != nil && young != old {
			w.hideOwnersFrom(young)
			w.after(4*ttl, w.net.heal)
		}
	})
}

func (w *world) hideOwnersFrom(n *node) {
	for _, g := range groupsOf(w.or.view) {
		if o := ownerIndex(g.Owner); o >= 0 && o != n.id {
			w.net.cut[o][n.id] = true
		}
	}
}

// changeLease makes the lease longer, or shorter again; then somebody else takes office and the owners are not heard.
func (w *world) changeLease() {
	l := w.leader()
	c := w.newest
	c.Version++
	c.TTL = 4 * w.baseTTL()
	if w.newest.TTL > w.baseTTL() {
		c.TTL = w.baseTTL()
	}
	w.newest = c
	for _, n := range w.nodes {
		n.offer(c)
	}
	if l == nil || c.TTL > w.baseTTL() {
		return
	}
	ttl := w.plan.timing.TTL
	w.after(ttl/8, func() {
		l.raft.transferTo(w.dice.IntN(len(w.nodes)))
		w.after(ttl/8, func() {
			if young := w.leader(); young != nil {
				w.hideOwnersFrom(young)
				w.after(4*ttl, w.net.heal)
			}
		})
	})
}

// powerOff ends a process and empties its kernel; the disk stays.
func (w *world) powerOff(n *node, d time.Duration) {
	if n.proc != nil {
		n.end("power off")
	}
	n.gen++
	for a := range n.kern.addrs {
		n.kern.remove(a)
	}
	n.kern.pendingUntil = w.now
	n.kern.life++
	if n.sql != nil {
		n.sql.restart()
		n.health = n.sql.health()
	}
	w.bootAfter(n, d)
}

// kill ends a process. Its addresses stay, and it is gone only when the kernel is done with its system calls.
func (w *world) kill(n *node, d time.Duration) {
	if n.proc != nil {
		n.end("killed")
	}
	w.bootAfter(n, d)
}

// bootAfter starts a process after a while, at the latest when the faults end, but not before the kernel is done with the
// system calls of the one before.
func (w *world) bootAfter(n *node, d time.Duration) {
	if n.comesBack {
		return
	}
	n.comesBack = true
	at := max(min(w.now+int64(d), max(w.calm, w.now)), n.kern.pendingUntil+1)
	w.after(time.Duration(at-w.now), n.boot)
}

// freeze stops a process, at the longest until the faults end; its kernel goes on. All that comes for it meanwhile comes
// when it wakes, in order.
func (n *node) freeze(d time.Duration) {
	if n.proc == nil {
		return
	}
	gen := n.gen
	n.frozenUntil = max(n.frozenUntil, min(n.w.now+int64(d), n.w.calm))
	n.w.after(time.Duration(n.frozenUntil-n.w.now), func() {
		if n.gen == gen && n.w.now >= n.frozenUntil {
			n.wake()
		}
	})
}

func (n *node) wake() {
	for _, it := range n.frozen {
		n.w.q.push(n.w.now, it)
	}
	n.frozen = n.frozen[:0]
}

// flushFence is somebody's "nft flush ruleset", which a process that is alive puts right within milliseconds. (If it is not
// alive, the address is open until it is: a gap that the kernel's fence leaves and that is not simulated.)
func (n *node) flushFence() {
	if n.proc == nil || n.w.now < n.frozenUntil {
		return
	}
	n.kern.closeAll()
	n.deliverSoon(core.FenceLost{Reason: "flushed"})
}

// endFaults mends everything.
func (w *world) endFaults() {
	w.trace.line(nil, "all faults end", "")
	w.net.heal()
	for _, n := range w.nodes {
		n.diskStall, n.newsStall, n.kern.slowUntil, n.kern.failUntil, n.kern.hangUntil = 0, 0, 0, 0, 0
	}
	w.keepCalm()
}

// keepCalm mends what faults that began earlier have left or still bring back.
func (w *world) keepCalm() {
	for _, n := range w.nodes {
		if n.linkDown {
			n.setLink(true)
		}
		if n.sql != nil {
			n.mendServer()
		} else if n.health.State != core.Healthy || n.health.Writable != core.Yes {
			n.health.State, n.health.Writable = core.Healthy, core.Yes
			n.healthChanged()
		}
		if w.plan.readers > 0 {
			n.mendReplica()
		}
		for a := range n.kern.addrs {
			n.removeByHand(a)
		}
		if n.file.Version != w.newest.Version {
			n.offer(w.newest)
		}
		if n.proc == nil && !n.comesBack {
			w.bootAfter(n, 0)
		}
	}
	for name, g := range groupsOf(w.or.view) {
		if l := w.leader(); l != nil && g.Paused && !g.Retired {
			w.ticket++
			l.deliverSoon(core.PauseAsked{Ticket: w.ticket, Group: name, Reason: "all is well again"})
		}
		if w.plan.promote && g.Spec.Policy == core.Promote {
			w.decideByHand(name, g)
		}
	}
}
