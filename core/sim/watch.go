package sim

import (
	"github.com/remora-ha/remora/core"
)

// watch is what the oracles know of one process: what it was told, what it has asked for, and the leases that follow
// from the reports it has sent and the acks it has got. It is a second, plain reckoning of what the machine decides.
type watch struct {
	p        *process
	ready    core.Instant
	sent     [maxReports]sentReport
	lastSeq  core.Seq
	groups   [maxGroups]groupWatch
	health   core.Health
	readOnly core.Instant // since when the server is read-only as far as it was told, 0 if it is not
	replica  replicaWatch
	linkDown bool
	stopping bool
	jumped   bool // in this step
	// round is that of the choice for which the process asked last, and told are the last answers to it.
	round uint64
	told  [maxNodes]core.Frozen
	// reports are the last ones that came.
	reports [maxNodes]core.Report
}

// sentReport is a report that the machine wanted sent at an instant and that went out at another, 0 if not yet.
type sentReport struct {
	seq     core.Seq
	at, out core.Instant
}

// groupWatch is one group of a watch.
type groupWatch struct {
	told core.GroupState // the newest state that the process was told
	// active is set from a Bind to the next Unbind: the process holds or tries to hold the group in epoch.
	active     bool
	bound      bool // a BindDone without an error has come
	unbindNow  bool // an Unbind was asked for in this step
	epoch      core.Epoch
	bindEpoch  core.Epoch // of the last Bind
	served     core.Epoch // of the last Bind that has succeeded
	spec       core.GroupSpec
	leaseEpoch core.Epoch
	lease      core.Instant
	prevLease  core.Instant // of the epoch that was granted to this process before
	prevEpoch  core.Epoch
	// until the instant waived, in waivedIn, the policy of the group does not count on this node.
	waivedIn core.Epoch
	waived   core.Instant
	promoted core.Epoch // the last epoch in which the server became writable
	// until the instant drained the group may be kept although it is to be given up, and its server be read-only: it is being
	// drained.
	drained   core.Instant
	drainedIn core.Epoch
}

func (w *watch) init(p *process, ready core.Instant) {
	w.p, w.ready = p, ready
}

func (w *watch) sentAt(seq core.Seq) (core.Instant, bool) {
	s := w.sent[seq%maxReports]
	return s.at, s.seq == seq && seq != 0
}

func (w *watch) outAt(seq core.Seq) (core.Instant, bool) {
	s := w.sent[seq%maxReports]
	return s.out, s.seq == seq && s.out != 0
}

// leaseIn returns the end of the lease in an epoch as this process may reckon it.
func (g *groupWatch) leaseIn(e core.Epoch) core.Instant {
	switch e {
	case g.leaseEpoch:
		return g.lease
	case g.prevEpoch:
		return g.prevLease
	}
	return 0
}

// started checks I9: nothing of an earlier process is left when the machine takes its first step.
func (o *oracle) started(p *process) {
	for a := range p.n.kern.addrs {
		if p.n.kern.addrs[a].ours {
			o.w.fail(I9, "%s begins with %v still bound by the process before", p.n.name, address(a))
		}
	}
}

// told notes what an event tells the process.
func (o *oracle) told(p *process, now core.Instant, ev core.Event) {
	w := &p.watch
	w.jumped = false
	switch ev := ev.(type) {
	case core.Committed:
		o.toldView(p, ev.View)
	case core.Restored:
		o.toldView(p, ev.View)
	case core.Received:
		o.toldMessage(p, ev)
	case core.HealthChanged:
		w.health = ev.Health
		if ev.Health.Writable == core.Yes {
			w.readOnly = 0
		} else if ev.Health.Writable == core.No && w.readOnly == 0 {
			w.readOnly = now
		}
		w.replica.told(now, ev.Health)
	case core.LinkChanged:
		w.linkDown = !ev.Up
	case core.ShutdownAsked:
		w.stopping = true
	case core.ClockJumped:
		w.jumped = true
	case core.BindDone:
		if g := &w.groups[groupIndex(ev.Group)]; g.active && g.epoch == ev.Epoch {
			g.bound = ev.Err == ""
			if g.bound {
				g.served = ev.Epoch
			}
		}
	case core.ServerDemoted:
		if g := &w.groups[groupIndex(ev.Group)]; g.drainedIn == ev.Epoch {
			g.drained = 0
		}
	}
}

func (o *oracle) toldView(p *process, v core.View) {
	for name, g := range groupsOf(v) {
		have := &p.watch.groups[groupIndex(name)].told
		if g.Index >= have.Index {
			o.toldState(p, name, g)
		} else if g.Epoch > have.Epoch {
			o.w.fail(I7, "%s is told epoch %d of %s at index %d, after epoch %d at index %d", p.n.name, g.Epoch, name, g.Index, have.Epoch, have.Index)
		}
	}
}

func (o *oracle) toldMessage(p *process, ev core.Received) {
	switch m := ev.Msg.(type) {
	case core.Notice:
		if m.State.Index > p.watch.groups[groupIndex(m.Group)].told.Index {
			o.toldState(p, m.Group, m.State)
		}
	case core.Frozen:
		p.watch.toldFrozen(ev.From, m)
	case core.Report:
		if r := &p.watch.reports[nodeIndex(ev.From)]; r.Incarnation != m.Incarnation || m.Seq > r.Seq {
			*r = m
		}
	case core.Ack:
		sent, known := p.watch.sentAt(m.Seq)
		if m.Incarnation != p.inc || !known {
			return
		}
		for _, ge := range m.Groups {
			if g := &p.watch.groups[groupIndex(ge.Group)]; g.leaseEpoch == ge.Epoch {
				g.lease = max(g.lease, sent.Add(m.TTL))
			}
		}
	}
}

func (o *oracle) toldState(p *process, name core.GroupName, s core.GroupState) {
	g := &p.watch.groups[groupIndex(name)]
	if s.Epoch < g.told.Epoch {
		o.w.fail(I7, "%s is told epoch %d of %s at index %d, after epoch %d at index %d", p.n.name, s.Epoch, name, s.Index, g.told.Epoch, g.told.Index)
	}
	g.told = s
	if s.Owner != p.n.name || s.Grant == nil || s.Grant.Incarnation != p.inc || s.Epoch == g.leaseEpoch {
		return
	}
	g.prevEpoch, g.prevLease = g.leaseEpoch, g.lease
	g.leaseEpoch, g.lease = s.Epoch, 0
	if sent, ok := p.watch.sentAt(s.Grant.Seq); ok {
		g.lease = sent.Add(s.Grant.TTL.Duration())
	}
}

// acted checks what the machine asks for.
func (o *oracle) acted(p *process, now core.Instant, acts []core.Action) {
	for g := range p.watch.groups {
		p.watch.groups[g].unbindNow = false
	}
	for _, a := range acts {
		switch a := a.(type) {
		case core.Send:
			switch m := a.Msg.(type) {
			case core.Report:
				if m.Seq != p.watch.lastSeq {
					p.watch.sent[m.Seq%maxReports] = sentReport{seq: m.Seq, at: now}
				}
				p.watch.lastSeq = m.Seq
			case core.Freeze:
				p.watch.round = m.Round
			}
		case core.Unbind:
			g := &p.watch.groups[groupIndex(a.Group)]
			g.active, g.bound, g.unbindNow = false, false, true
		case core.Bind:
			o.bindAsked(p, now, a)
		case core.Extend:
			o.inLease(p, now, "extends", a.Group, a.Epoch, a.NotAfter)
		case core.Prolong:
			o.inLease(p, now, "prolongs claims of", a.Group, a.Epoch, a.NotAfter)
		case core.Announce:
			o.announceAsked(p, now, a)
		case core.DemoteServer:
			if g := &p.watch.groups[groupIndex(a.Group)]; g.told.Advice != nil && g.told.Advice.Graceful {
				g.drained, g.drainedIn = now.Add(a.Drain+drainGrace), a.Epoch
			}
		case core.PromoteServer:
			o.undoAsked(p, a)
		}
	}
}

// inLease checks that a claim is made inside the lease and ends with it.
func (o *oracle) inLease(p *process, now core.Instant, does string, group core.GroupName, e core.Epoch, notAfter core.Instant) {
	lease := p.watch.groups[groupIndex(group)].leaseIn(e)
	switch {
	case now >= lease:
		o.w.fail(I3, "%s %s %s in epoch %d, %v after its lease", p.n.name, does, group, e, now.Sub(lease))
	case notAfter == 0 || notAfter > lease:
		o.w.fail(I5, "%s %s %s in epoch %d with a claim that lasts %v longer than its lease", p.n.name, does, group, e, notAfter.Sub(lease))
	}
}

func (o *oracle) bindAsked(p *process, now core.Instant, a core.Bind) {
	gi := groupIndex(a.Group)
	g := &p.watch.groups[gi]
	g.active, g.bound, g.epoch, g.bindEpoch, g.spec = true, false, a.Epoch, a.Epoch, a.Spec
	o.inLease(p, now, "binds", a.Group, a.Epoch, a.NotAfter)
	o.boundWritable(p, a)
	o.handedOver(p, a)
	rec, next := o.record(gi, a.Epoch)
	switch {
	case rec == nil || rec.owner != p.n.id:
		o.w.fail(I3, "%s binds %s in epoch %d, which it was never granted", p.n.name, a.Group, a.Epoch)
	case next != nil && next.owner != p.n.id && !(next.handover && rec.lasts()):
		o.w.fail(I3, "%s binds %s in epoch %d, but %s was granted epoch %d", p.n.name, a.Group, a.Epoch, o.w.nodes[next.owner].name, next.epoch)
	case now < p.watch.ready:
		o.w.fail(I3, "%s binds %s before it takes part", p.n.name, a.Group)
	}
	if why := p.watch.unfit(g, now); why != "" {
		o.w.fail(I3, "%s binds %s although %s", p.n.name, a.Group, why)
	}
}

// announceAsked checks I4 when the machine decides.
func (o *oracle) announceAsked(p *process, now core.Instant, a core.Announce) {
	g := &p.watch.groups[groupIndex(a.Group)]
	if !g.active || !g.bound || g.epoch != a.Epoch {
		o.w.fail(I4, "%s announces %s in epoch %d, in which it is not known to be bound", p.n.name, a.Group, a.Epoch)
	}
	o.inLease(p, now, "announces", a.Group, a.Epoch, a.NotAfter)
}

// announced checks I4 when the frames go out.
func (o *oracle) announced(p *process, a core.Announce) {
	for _, pre := range a.Spec.Addresses {
		c := &p.n.kern.addrs[addressIndex(pre.Addr())]
		if (!c.bound || !c.ours) && !c.deleted {
			o.w.fail(I4, "%s announces %v, which is not bound", p.n.name, pre.Addr())
		}
	}
}

// claims checks I5 when a claim is about to be carried out.
func (o *oracle) claims(p *process, group core.GroupName, e core.Epoch, notAfter core.Instant) {
	if now := p.n.clock.at(o.w.now); now >= notAfter {
		o.w.fail(I5, "%s carries a claim of %s in epoch %d out %v after its time", p.n.name, group, e, now.Sub(notAfter))
	}
}

// unfit returns why a process must not serve a group, as far as it was told about its own node.
func (w *watch) unfit(g *groupWatch, now core.Instant) string {
	switch {
	case w.linkDown:
		return "its link is down"
	case g.told.Paused:
		return ""
	case w.health.State != core.Healthy:
		return "its MySQL is " + w.health.State.String()
	case g.told.Spec.Policy == core.Follow && now >= g.drained && !w.excused(g, now) && !w.kept(g, now) && w.health.Writable == core.No:
		return "its MySQL is read-only"
	case g.told.Spec.Role == core.Reader:
		return w.unreadable(g, now)
	}
	return ""
}

// kept reports whether this process may keep a group that it has bound in this epoch although its server is read-only.
func (w *watch) kept(g *groupWatch, now core.Instant) bool {
	return g.served == g.told.Epoch && w.readOnly != 0 && now < w.readOnly.Add(g.told.Spec.KeepUnwritable.Duration())
}

// excused reports whether a grant on advice lets this process serve with a read-only server: no longer than the grant says,
// from the first bind on.
func (w *watch) excused(g *groupWatch, now core.Instant) bool {
	grant := g.told.Grant
	if grant == nil || grant.Waive == 0 || g.told.Owner != w.p.n.name {
		return false
	}
	if g.waivedIn != g.told.Epoch {
		g.waivedIn, g.waived = g.told.Epoch, now.Add(grant.Waive.Duration())
	}
	return now.Before(g.waived)
}

// mustYield returns why a process has to give a group up that it holds.
func (w *watch) mustYield(g *groupWatch, now core.Instant) string {
	switch s := &g.told; {
	case s.Epoch != g.epoch || s.Owner != w.p.n.name:
		return "the group is not its own any more"
	case s.Move != nil && s.Spec.Policy != core.Promote, s.Next != nil, s.Retired:
		return "the group is to go elsewhere or to change"
	case s.Advice != nil && s.Advice.Given == "" && !s.Advice.Over && now >= g.drained:
		return "the group is to go elsewhere or to change"
	case w.stopping:
		return "it is stopping"
	case w.jumped:
		return "its clock has jumped"
	case now >= g.leaseIn(g.epoch):
		return "its lease is over"
	}
	return w.unfit(g, now)
}

// after checks, once a step is over, that giving up was begun in the step that had the reason for it, and that nothing
// is answered for without a lease that the arbiter counts with.
func (o *oracle) after(p *process, now core.Instant) {
	for i := range p.watch.groups {
		if g := &p.watch.groups[i]; g.active {
			if why := p.watch.mustYield(g, now); why != "" {
				o.w.fail(I5, "%s keeps %s in epoch %d although %s", p.n.name, groupName(i), g.epoch, why)
			}
		}
	}
	for a := range p.n.kern.addrs {
		c := &p.n.kern.addrs[a]
		if !p.n.kern.answers(a) {
			continue
		}
		if rec, _ := o.record(c.group, c.epoch); rec == nil || o.w.now > rec.lease+p.n.lag() {
			o.w.fail(I3, "%s answers for %v in epoch %d without a lease", p.n.name, address(a), c.epoch)
		}
	}
}
