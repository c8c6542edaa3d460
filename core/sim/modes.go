package sim

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// managePlanned is a failover manager that knows what it wants: it begins planned changes, and is killed in the middle of some.
func (w *world) managePlanned() {
	if w.now >= w.calm {
		return
	}
	ttl := w.plan.timing.TTL
	w.after(w.sqlDice.about(3*ttl), w.managePlanned)
	name, l := groupName(w.sqlDice.IntN(w.plan.groups)), w.leader()
	o := ownerIndex(w.or.view.Groups[name].Owner)
	if l == nil || o < 0 {
		return
	}
	w.ticket++
	w.or.stops[w.ticket] = stopAsked{name, nodeName(o)}
	l.deliverSoon(core.AdviceAsked{Ticket: w.ticket, Group: name, Stop: true, Node: nodeName(o), Online: true, Graceful: true, Drain: ttl / 4,
		By: "manager", Wait: w.sqlDice.between(ttl, 2*ttl)})
	if to := pick(w.sqlDice, w.nodes).name; w.sqlDice.chance(0.4) {
		w.after(w.sqlDice.about(ttl), func() { w.start(name, to) })
	}
}

// modeAct carries out what advice has the machine do to a server of which nothing but the mode is simulated.
func (p *process) modeAct(a core.Action) {
	w, n := p.n.w, p.n
	d := w.sqlDice.about(4 * w.plan.kernelTime)
	if w.sqlDice.chance(0.2) {
		d += w.sqlDice.about(w.plan.timing.TTL) // it answers slowly
	}
	err := ""
	if w.now < w.calm && w.sqlDice.chance(0.1) {
		err = "the server refuses"
	}
	switch a := a.(type) {
	case core.DemoteServer:
		ev := core.ServerDemoted{Group: a.Group, Epoch: a.Epoch}
		w.after(d+min(w.sqlDice.about(w.load()), a.Drain), func() {
			if ev.Err = err; err == "" {
				w.stats.Drained++
				ev.Err = n.setMode(core.No)
			}
			p.answer(ev)
		})
	case core.PromoteServer:
		ev := core.ServerPromoted{Group: a.Group, Epoch: a.Epoch}
		w.after(d, func() {
			if ev.Err = err; err == "" {
				p.openMode(a, &ev)
			}
			p.answer(ev)
		})
	}
}

func (p *process) openMode(a core.PromoteServer, ev *core.ServerPromoted) {
	w := p.n.w
	if ev.Late = p.n.clock.at(w.now) >= a.NotAfter && w.opt.Break != PromoteLate; ev.Late {
		return
	}
	if ev.Err = p.n.setMode(core.Yes); ev.Err != "" {
		return
	}
	w.or.ownsServer(p, a)
	if w.stats.Opened++; a.Undo {
		w.stats.Undone++
	}
}

func (n *node) setMode(writable core.Tri) string {
	if n.health.State == core.Failed {
		return "the server is dead"
	}
	n.health.Writable = writable
	n.healthChanged()
	return ""
}

// answer tells the process later, if it still runs.
func (p *process) answer(ev core.Event) {
	p.later(p.n.w.sqlDice.about(50*time.Microsecond), func() { p.step(ev) })
}
