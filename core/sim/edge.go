package sim

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// worker carries out the claims of one group one after the other.
type worker struct {
	queue []core.Action
	busy  bool
}

func (p *process) claim(a core.Action) {
	wk := &p.workers[groupIndex(groupOf(a))]
	wk.queue = append(wk.queue, a)
	if !wk.busy {
		p.work(wk)
	}
}

// work begins the next claim of a group.
func (p *process) work(wk *worker) {
	if len(wk.queue) == 0 {
		wk.busy = false
		return
	}
	wk.busy = true
	a := wk.queue[0]
	wk.queue = wk.queue[1:]
	p.later(p.n.w.dice.about(20*time.Microsecond), func() {
		switch a := a.(type) {
		case core.Bind:
			p.bind(wk, a)
		case core.Extend:
			p.extend(wk, a)
		case core.Probe:
			p.probe(wk, a)
		case core.Announce:
			p.announce(a)
			p.work(wk)
		}
	})
}

// later runs f in this process: not while it is frozen, and never if it is gone.
func (p *process) later(d time.Duration, f func()) {
	p.n.w.q.push(p.n.w.now+int64(d), item{kind: processCall, node: int8(p.n.id), gen: p.gen, call: f})
}

// systemCall runs effect when the kernel gets to it and then back in the process. Half of the calls are in the kernel
// already and are carried out even if the process is stopped or killed meanwhile; the others have passed their last
// look at the clock and not yet begun.
func (p *process) systemCall(giveUp bool, effect func(failed bool), back func(failed bool)) {
	w, k := p.n.w, &p.n.kern
	d := w.dice.about(w.plan.kernelTime)
	failed := false
	switch {
	case w.now < k.hangUntil:
		d = time.Duration(k.hangUntil-w.now) + d
	case w.now < k.slowUntil:
		d *= 20
	case w.now < k.failUntil && (w.plan.kernelLease || !giveUp):
		failed = w.dice.chance(0.7)
	}
	if !w.plan.kernelLease {
		d = min(d, w.plan.timing.Unbind/2)
	}
	d, inKernel := p.n.withoutFence(d, giveUp)
	life := k.life
	done := func() {
		if k.life != life {
			return
		}
		effect(failed)
		p.later(w.dice.about(50*time.Microsecond), func() { back(failed) })
	}
	if inKernel || w.dice.chance(0.5) {
		k.pendingUntil = max(k.pendingUntil, w.now+int64(d))
		w.after(d, done)
	} else {
		p.later(d, done)
	}
}

// allowed is the last look at clock and gate before a system call that claims.
func (p *process) allowed(g core.GroupName, e core.Epoch, notAfter core.Instant) bool {
	if p.n.w.opt.Break == ClaimLate {
		return true
	}
	return p.n.clock.at(p.n.w.now) < p.until(g, e, notAfter) && e > p.gate[groupIndex(g)]
}

// until is when a claim has to end that carries notAfter.
func (p *process) until(g core.GroupName, e core.Epoch, notAfter core.Instant) core.Instant {
	if longer := p.prolonged[groupIndex(g)]; longer.Epoch == e {
		return max(notAfter, longer.NotAfter)
	}
	return notAfter
}

func (p *process) bind(wk *worker, a core.Bind) {
	finish := func(ev core.BindDone) {
		ev.Group, ev.Epoch = a.Group, a.Epoch
		p.step(ev)
		p.work(wk)
	}
	if !p.allowed(a.Group, a.Epoch, a.NotAfter) {
		finish(core.BindDone{Err: "late", Late: true})
		return
	}
	p.n.w.or.claims(p, a.Group, a.Epoch, p.until(a.Group, a.Epoch, a.NotAfter))
	k, since := &p.n.kern, p.n.w.now
	if p.n.w.opt.Break == ClaimEndsEarly {
		p.later(0, func() { p.step(core.BindDone{Group: a.Group, Epoch: a.Epoch, Err: "on purpose"}) })
	}
	p.systemCall(false, func(failed bool) {
		for i, pre := range a.Spec.Addresses {
			if failed && i == len(a.Spec.Addresses)-1 {
				return // the others of the group are bound by now
			}
			k.bind(addressIndex(pre.Addr()), groupIndex(a.Group), a.Epoch)
			k.live(addressIndex(pre.Addr()), a.Lifetime)
		}
		report := a.Report
		if longer := p.prolonged[groupIndex(a.Group)]; longer.Epoch == a.Epoch {
			report = max(report, longer.Report)
		}
		p.open(core.Opening{Group: a.Group, Epoch: a.Epoch, Addresses: a.Spec.Addresses, Report: report}, since)
	}, func(failed bool) {
		switch {
		case p.n.w.plan.gate && !p.allowed(a.Group, a.Epoch, a.NotAfter):
			k.takeBack(a.Spec)
			finish(core.BindDone{Err: "late", Late: true})
		case failed:
			finish(core.BindDone{Err: "the kernel refuses"})
		default:
			finish(core.BindDone{})
		}
	})
}

// takeBack removes what a late claim has done.
func (k *kernel) takeBack(spec core.GroupSpec) {
	for _, pre := range spec.Addresses {
		k.remove(addressIndex(pre.Addr()))
	}
}

func (p *process) extend(wk *worker, a core.Extend) {
	finish := func(ev core.ExtendDone) {
		ev.Group, ev.Epoch = a.Group, a.Epoch
		p.step(ev)
		p.work(wk)
	}
	if !p.allowed(a.Group, a.Epoch, a.NotAfter) {
		finish(core.ExtendDone{Err: "late"})
		return
	}
	p.n.w.or.claims(p, a.Group, a.Epoch, p.until(a.Group, a.Epoch, a.NotAfter))
	absent := false
	p.systemCall(false, func(failed bool) {
		p.n.kern.extend(a.Spec.Addresses, a.Lifetime)
		for _, pre := range a.Spec.Addresses {
			absent = absent || !p.n.kern.addrs[addressIndex(pre.Addr())].ours
		}
	}, func(failed bool) {
		switch {
		case absent:
			finish(core.ExtendDone{Err: "absent", Absent: true})
		case failed:
			finish(core.ExtendDone{Err: "the kernel refuses"})
		default:
			finish(core.ExtendDone{})
		}
	})
}

// probe asks the link who answers for the addresses of a group.
func (p *process) probe(wk *worker, a core.Probe) {
	w := p.n.w
	ev := core.ProbeDone{Group: a.Group, Epoch: a.Epoch}
	if !p.allowed(a.Group, a.Epoch, a.NotAfter) {
		ev.Err = "late"
		p.step(ev)
		p.work(wk)
		return
	}
	d := a.For
	for _, other := range w.nodes {
		for _, pre := range a.Spec.Addresses {
			c := &other.kern.addrs[addressIndex(pre.Addr())]
			answers := c.bound && (!c.ours || other.kern.answers(addressIndex(pre.Addr())))
			if other != p.n && answers && !other.linkDown && !p.n.linkDown {
				ev.Conflict, d = []byte{2, 0, 0, 0, 0, byte(other.id)}, time.Millisecond
				w.conflictAt = w.now
			}
		}
	}
	p.later(d, func() {
		p.step(ev)
		p.work(wk)
	})
}

func (p *process) announce(a core.Announce) {
	if p.allowed(a.Group, a.Epoch, a.NotAfter) {
		p.n.w.or.announced(p, a)
	}
}

// unbind runs on a thread of its own, so that no claim can delay it. It shuts out all claims of its epoch first.
func (p *process) unbind(a core.Unbind) {
	w, k, asked := p.n.w, &p.n.kern, p.n.w.now
	g := groupIndex(a.Group)
	if w.opt.Break == ReleaseBeforeUnbind {
		p.later(0, func() { p.step(core.UnbindDone{Group: a.Group, Epoch: a.Epoch, Gone: true}) })
		p.later(w.plan.timing.TTL/4, func() { p.carryUnbind(a, asked) })
		return
	}
	p.later(w.dice.about(20*time.Microsecond), func() {
		p.gate[g] = max(p.gate[g], a.Epoch)
		k.close(a.Spec.Addresses)
		p.carryUnbind(a, asked)
	})
}

func (p *process) carryUnbind(a core.Unbind, asked int64) {
	w, k := p.n.w, &p.n.kern
	p.systemCall(true, func(failed bool) {
		for _, pre := range a.Spec.Addresses {
			if !failed {
				w.or.removes(p, a, asked, addressIndex(pre.Addr()))
				k.remove(addressIndex(pre.Addr()))
			}
		}
	}, func(failed bool) {
		gone := true
		for _, pre := range a.Spec.Addresses {
			gone = gone && !k.addrs[addressIndex(pre.Addr())].bound
		}
		ev := core.UnbindDone{Group: a.Group, Epoch: a.Epoch, Gone: gone || w.opt.Break == FailedUnbindCounts}
		if !ev.Gone {
			ev.Err = "the kernel refuses"
		}
		p.step(ev)
	})
}
