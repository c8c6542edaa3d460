package sim

import (
	"maps"
	"time"

	"github.com/remora-ha/remora/core"
)

// Break is a rule of the protocol that is broken on purpose, to show that an oracle sees it. It is broken by changing
// what passes between the machine and the world around it; the machine itself is always the real one.
type Break uint8

// The broken rules.
const (
	// Nothing is broken.
	Nothing Break = iota
	// ReleaseBeforeUnbind says that the addresses are gone, and unbinds them some time later.
	ReleaseBeforeUnbind
	// FailedUnbindCounts takes an unbind that failed for a good one.
	FailedUnbindCounts
	// ClaimEndsEarly says that a bind has failed before the kernel is done with it.
	ClaimEndsEarly
	// ClaimLate carries claims out after their time.
	ClaimLate
	// LeaseFromAnswer counts a lease from the last report before the ack came, not from the report that is acked.
	LeaseFromAnswer
	// NoMargin gives leases that last as long as the arbiter waits.
	NoMargin
	// NoWaitInOffice lets an arbiter new in office believe that no lease can be out.
	NoWaitInOffice
	// AckWhileGranting lets the arbiter forget that a grant is on its way.
	AckWhileGranting
	// ConfirmTermAtSending asks voters for the sender's current term, not for the one in which it took office.
	ConfirmTermAtSending
	// EchoAnyTerm lets voters echo whatever term they are asked for.
	EchoAnyTerm
	// ReportEchoesAnyTerm takes a report for its sender's echo whatever term the sender is in.
	ReportEchoesAnyTerm
	// SameIncarnation gives all processes of a node the same incarnation.
	SameIncarnation
	// RenewAfterRelease asks for releases of what goes on being served and renewed.
	RenewAfterRelease
	// ForgetLongLeases lets the ledger forget at once that longer leases than the present ones may be out.
	ForgetLongLeases
	// AnnounceEarly announces as soon as a bind is asked for.
	AnnounceEarly
	// UnbindLate carries an unbind out only after the next event.
	UnbindLate
	// DeafToHealth does not tell the machine that MySQL has failed.
	DeafToHealth
	// DeafToAcks does not tell the machine that its leases are renewed.
	DeafToAcks
	// KeepLeftovers starts a process without removing what the one before has left.
	KeepLeftovers
	// UnbindUntouched unbinds a group of which nothing was bound.
	UnbindUntouched
	// NoWaitAtStart lets a process take part at once.
	NoWaitAtStart
	// OldSnapshot brings the ledger of a node back to a state that it has left behind.
	OldSnapshot
	// OldOffice lets proposals count although the office in which they were decided has ended.
	OldOffice
	// GenerousFence lets the kernel hold leases longer than the holder does.
	GenerousFence
	// GenerousLifetime lets the kernel keep addresses for longer than what is left of the lease.
	GenerousLifetime
	// ShortMargin lets everybody believe that all kernels have a fence.
	ShortMargin
	// GrantUnasked lets the arbiter grant a group anew as if its owner had asked for the release.
	GrantUnasked
	// VoteAtOnce lets a process vote before it takes part.
	VoteAtOnce
	// VoteTwice lets voters vote as often as they are asked.
	VoteTwice
	// PromoteLate makes a server writable after the time for that.
	PromoteLate
	// BindBeforeWritable says that the server is writable before it is.
	BindBeforeWritable
	// ChooseOnMovingSets lets servers receive on after they have said what they have.
	ChooseOnMovingSets
	// DrainedEarly says that a server is drained for a switchover while it still takes writes.
	DrainedEarly
	// OldCatchUp takes the answer to any question whether the server has caught up for one to the last.
	OldCatchUp
	// BlindToWriters lets the machine take the servers of others for read-only.
	BlindToWriters
	// DeafToLag does not tell the machine that what its server shows gets older.
	DeafToLag
	// ClaimHandedOver claims a group that is handed over without the word of its owner.
	ClaimHandedOver
	// EndHandover takes the holding before a handover for ended as soon as there is one.
	EndHandover
	// OpenGivenUp opens the fence for what was given up while the report waited.
	OpenGivenUp
	breaks
)

// event changes what the machine is told.
func (b Break) event(p *process, ev core.Event) core.Event {
	switch b {
	case LeaseFromAnswer:
		if r, ok := ev.(core.Received); ok {
			if ack, ok := r.Msg.(core.Ack); ok && ack.Incarnation == p.inc {
				ack.Seq = p.watch.lastSeq
				r.Msg = ack
				return r
			}
		}
	case NoWaitInOffice:
		if c, ok := ev.(core.Committed); ok && p.takesOffice(c) {
			c.View.Longest, c.View.Config.TTL = 1, 1
			return c
		}
	case ConfirmTermAtSending:
		if c, ok := ev.(core.Committed); ok && p.takesOffice(c) {
			p.office = c.Term
		}
		if r, ok := ev.(core.Received); ok {
			if e, ok := r.Msg.(core.Echo); ok {
				e.Term = p.office
				r.Msg = e
				return r
			}
		}
	case EchoAnyTerm:
		if r, ok := ev.(core.Received); ok {
			if c, ok := r.Msg.(core.Confirm); ok {
				r.Term = c.Term
				return r
			}
		}
	case ReportEchoesAnyTerm:
		if c, ok := ev.(core.Committed); ok && p.takesOffice(c) {
			p.office = c.Term
		}
		if r, ok := ev.(core.Received); ok {
			if said, ok := r.Msg.(core.Report); ok && said.Term != 0 {
				said.Term = p.office
				r.Msg = said
				return r
			}
		}
	case ForgetLongLeases:
		switch e := ev.(type) {
		case core.Committed:
			e.View.Longest = e.View.Config.TTL
			return e
		case core.Restored:
			e.View.Longest = e.View.Config.TTL
			return e
		}
	case ClaimHandedOver:
		return p.withoutHandover(ev)
	case BlindToWriters:
		if r, ok := ev.(core.Received); ok && r.From != p.n.name {
			if rep, ok := r.Msg.(core.Report); ok && rep.Health.Writable == core.Yes {
				rep.Health.Writable = core.No
				r.Msg = rep
				return r
			}
		}
	case OldCatchUp:
		if c, ok := ev.(core.ServerCaughtUp); ok {
			c.Move = p.catchingUp
			return c
		}
	case DeafToLag:
		if h, ok := ev.(core.HealthChanged); ok && h.Health.Source != "" {
			h.Health.Replicating, h.Health.Lag = core.Yes, 0
			return h
		}
	case DeafToHealth:
		if h, ok := ev.(core.HealthChanged); ok && h.Health.State == core.Failed {
			return core.Tick{}
		}
	case DeafToAcks:
		if r, ok := ev.(core.Received); ok {
			if _, ok := r.Msg.(core.Ack); ok {
				return core.Tick{}
			}
		}
	}
	return ev
}

// withoutHandover is an event without what the owner of a group has to wait for, if that is this process.
func (p *process) withoutHandover(ev core.Event) core.Event {
	strip := func(v core.View) core.View {
		v.Groups = maps.Clone(v.Groups)
		for name, g := range v.Groups {
			if g.Owner == p.n.name {
				g.Handover = nil
				v.Groups[name] = g
			}
		}
		return v
	}
	switch ev := ev.(type) {
	case core.Committed:
		ev.View = strip(ev.View)
		return ev
	case core.Restored:
		ev.View = strip(ev.View)
		return ev
	case core.Received:
		if n, ok := ev.Msg.(core.Notice); ok && n.State.Owner == p.n.name {
			n.State.Handover = nil
			ev.Msg = n
		}
		return ev
	}
	return ev
}

// takesOffice reports whether an entry opens this process' own office.
func (p *process) takesOffice(c core.Committed) bool {
	for _, op := range c.Command.Ops {
		if op.TakeOffice != nil && op.TakeOffice.Node == p.n.name && op.TakeOffice.Incarnation == p.inc {
			return true
		}
	}
	return false
}

// actions changes what the machine wants done.
func (b Break) actions(p *process, acts []core.Action) []core.Action {
	switch b {
	case RenewAfterRelease:
		for i := range p.watch.groups {
			if g := &p.watch.groups[i]; g.bound && p.n.w.dice.chance(0.01) {
				return append(acts, core.Send{To: pick(p.n.w.dice, p.n.w.names), Msg: core.ReleaseRequest{Group: groupName(i), Epoch: g.epoch, Reason: "on purpose"}})
			}
		}
	case AnnounceEarly:
		for _, a := range acts {
			if bind, ok := a.(core.Bind); ok {
				return append(acts, core.Announce{Group: bind.Group, Epoch: bind.Epoch, Spec: bind.Spec, NotAfter: bind.NotAfter, Round: 1})
			}
		}
	case UnbindLate:
		var now []core.Action
		now, p.heldBack = append(now, p.heldBack...), nil
		for _, a := range acts {
			if _, ok := a.(core.Unbind); ok {
				p.heldBack = append(p.heldBack, a)
			} else {
				now = append(now, a)
			}
		}
		return now
	case OldCatchUp:
		for _, a := range acts {
			if c, ok := a.(core.CatchUpServer); ok {
				p.catchingUp = c.Move
			}
		}
	case UnbindUntouched:
		for _, a := range acts {
			if s, ok := a.(core.Send); ok {
				if r, ok := s.Msg.(core.ReleaseRequest); ok {
					spec := p.watch.groups[groupIndex(r.Group)].told.Spec
					return append(acts, core.Unbind{Group: r.Group, Epoch: r.Epoch, Spec: spec})
				}
			}
		}
	}
	return acts
}

// message changes what goes on the wire.
func (b Break) message(p *process, m core.Message) core.Message {
	switch m := m.(type) {
	case core.Report:
		if b == ShortMargin {
			m.Unfenced = false
			return m
		}
	case core.Ack:
		if b == NoMargin {
			m.TTL += core.Margin(m.TTL)
			return m
		}
	case core.Confirm:
		if b == ConfirmTermAtSending {
			m.Term = p.n.raft.term
			return m
		}
	}
	return m
}

// command changes what is handed to Raft.
func (b Break) command(p *process, c core.Command) core.Command {
	if b == OldOffice {
		c.Office = 0
	}
	for i, op := range c.Ops {
		if op.Grant == nil {
			continue
		}
		g := *op.Grant
		switch b {
		case NoMargin:
			g.TTL += core.Millis(core.Margin(g.TTL.Duration()) / time.Millisecond)
		case AckWhileGranting:
			if key := (grantKey{g.Group, g.Prev}); !p.lied[key] {
				p.lied = maps.Clone(p.lied)
				if p.lied == nil {
					p.lied = map[grantKey]bool{}
				}
				p.lied[key] = true
				p.n.deliverAfter(0, core.ProposalFailed{ID: c.ID, Known: true, Reason: "on purpose"})
			}
		default:
			continue
		}
		ops := append([]core.Op(nil), c.Ops...)
		ops[i].Grant = &g
		c.Ops = ops
	}
	return c
}

// afterwards does what a break needs once a step is over.
func (b Break) afterwards(p *process, ev core.Event) {
	switch b {
	case NoWaitInOffice:
		if c, ok := ev.(core.Committed); ok && p.takesOffice(c) {
			p.step(core.Restored{View: c.View}) // the real one
		}
	case GrantUnasked:
		name := groupName(p.n.w.dice.IntN(writerGroups))
		if g := p.ledger.View().Groups[name]; g.Owner != "" && g.Owner != p.n.name && p.n.w.dice.chance(0.002) {
			p.step(core.Received{From: g.Owner, Msg: core.ReleaseRequest{Group: name, Epoch: g.Epoch, Reason: "on purpose"}})
		}
	case EndHandover:
		for name, g := range groupsOf(p.ledger.View()) {
			if key := (grantKey{name, g.Epoch}); g.Handover != nil && p.spoken != key {
				p.spoken = key
				h := g.Handover
				p.step(core.Received{From: h.From, Msg: core.ReleaseRequest{Group: name, Epoch: h.Epoch, Reason: "on purpose"}})
			}
		}
	case OldSnapshot:
		if c, ok := ev.(core.Committed); ok && c.Index > 4 && p.n.w.dice.chance(0.1) {
			p.ledger = core.NewLedger()
			p.n.w.rebuild(p.ledger, p.n.raft.log, int(c.Index)-4)
		}
	}
}

// grantKey names a grant by what it follows.
type grantKey struct {
	group core.GroupName
	prev  core.Epoch
}

// broken is what breaks remember of a process.
type broken struct {
	office     core.Term
	heldBack   []core.Action
	lied       map[grantKey]bool
	catchingUp core.Index
	spoken     grantKey
}

// String names the broken rule.
func (b Break) String() string {
	return [...]string{"nothing", "release before unbind", "failed unbind counts", "claim ends early", "claim carried out late",
		"lease counted from the answer", "no margin", "no wait in office", "ack while a grant is on its way",
		"confirm with the term at sending", "echo any term", "a report echoes any term", "report numbers without incarnation", "renew after release",
		"two lengths of lease", "announce before bind", "unbind a step late", "deaf to MySQL's failure", "deaf to acks",
		"leftovers kept at start", "unbind of what was never bound", "no wait at start", "an old snapshot comes back",
		"proposals of an old office count", "kernel more generous than holder", "lifetimes rounded up",
		"no longer margin without a fence", "grant without waiting", "vote before the start-up wait", "two votes in a term",
		"promotion carried out late", "bind before writable", "choice on moving sets", "drained too early",
		"catch-up of an earlier switchover", "others taken for read-only", "deaf to lag", "handed over and claimed at once", "handover ended at once", "what was given up is opened again"}[b]
}
