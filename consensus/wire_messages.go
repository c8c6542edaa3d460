package consensus

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/remora-ha/remora/core"
)

// The bits of a report's flags.
const (
	flagLeaving = 1 << iota
	flagStarting
	flagDryRun
	flagUnfenced
)

func (e *encoder) report(r core.Report) {
	e.fixed(uint64(r.Incarnation))
	e.uint(uint64(r.Seq))
	e.uint(uint64(r.Term))
	e.byte(flags(r.Leaving, r.Starting, r.DryRun, r.Unfenced))
	e.uint(r.Config)
	e.text(r.Release, e.small)
	e.text(r.Aside, e.reason)
	e.count(len(r.Holds))
	for _, h := range r.Holds {
		e.name(string(h.Group))
		e.uint(uint64(h.Epoch))
		e.byte(byte(h.Phase))
	}
	e.count(len(r.Blocked))
	for _, b := range r.Blocked {
		e.name(string(b.Group))
		e.text(b.Reason, e.reason)
	}
	e.count(len(r.Foreign))
	for _, g := range r.Foreign {
		e.name(string(g))
	}
	e.health(r.Health)
}

func (d *decoder) report() core.Report {
	r := core.Report{Incarnation: core.Incarnation(d.fixed()), Seq: core.Seq(d.uint()), Term: core.Term(d.uint())}
	f := d.enum(flagLeaving | flagStarting | flagDryRun | flagUnfenced)
	r.Leaving, r.Starting, r.DryRun, r.Unfenced = f&flagLeaving != 0, f&flagStarting != 0, f&flagDryRun != 0, f&flagUnfenced != 0
	r.Config = d.uint()
	r.Release = d.text(maxWireSmall)
	r.Aside = d.text(core.MaxReason)
	for range d.count(maxWireList) {
		r.Holds = append(r.Holds, core.Holding{Group: core.GroupName(d.text(maxWireName)), Epoch: core.Epoch(d.uint()),
			Phase: core.HoldPhase(d.enum(byte(core.Yielding)))})
	}
	for range d.count(maxWireList) {
		r.Blocked = append(r.Blocked, core.Blocked{Group: core.GroupName(d.text(maxWireName)), Reason: d.text(core.MaxReason)})
	}
	for range d.count(maxWireList) {
		r.Foreign = append(r.Foreign, core.GroupName(d.text(maxWireName)))
	}
	r.Health = d.health()
	return r
}

func flags(bits ...bool) byte {
	var f byte
	for i, b := range bits {
		if b {
			f |= 1 << i
		}
	}
	return f
}

func (e *encoder) health(h core.Health) {
	e.byte(byte(h.State))
	e.byte(byte(h.Writable))
	e.byte(byte(h.Replicating))
	e.byte(byte(h.MHAWatches))
	e.byte(byte(h.MHAActs))
	e.duration(h.Lag)
	e.duration(h.Measured)
	e.semiSync(h.SemiSync)
	e.text(h.Source, maxWireName)
	e.text(h.GTID, e.gtid)
	if len(h.Executed) <= e.set {
		e.string(h.Executed)
	} else {
		e.string("")
	}
	e.text(h.Version, e.small)
	e.text(h.Reason, e.reason)
	// Unknown listeners are nil and not the same as none; a list is its length plus one.
	if h.Listens == nil {
		e.uint(0)
	} else {
		listens := h.Listens[:min(len(h.Listens), e.addrs)]
		e.uint(uint64(len(listens)) + 1)
		for _, a := range listens {
			e.addr(a)
		}
	}
	alarms := h.Alarms[:min(len(h.Alarms), e.alarms)]
	e.count(len(alarms))
	for _, a := range alarms {
		e.text(a, e.reason)
	}
}

func (d *decoder) health() core.Health {
	h := core.Health{State: core.HealthState(d.enum(byte(core.Failed))), Writable: core.Tri(d.enum(byte(core.No))),
		Replicating: core.Tri(d.enum(byte(core.No))), MHAWatches: core.Tri(d.enum(byte(core.No))), MHAActs: core.Tri(d.enum(byte(core.No))),
		Lag: d.duration(), Measured: d.duration()}
	h.SemiSync = d.semiSync()
	h.Source = d.text(maxWireName)
	h.GTID = d.text(core.MaxGTID)
	h.Executed = d.text(core.MaxSet)
	h.Version = d.text(maxWireSmall)
	h.Reason = d.text(core.MaxReason)
	if n := d.count(maxWireList); n > 0 {
		h.Listens = make([]netip.Addr, 0, n-1)
		for range n - 1 {
			h.Listens = append(h.Listens, d.addr())
		}
	}
	for range d.count(core.MaxAlarms) {
		h.Alarms = append(h.Alarms, d.text(core.MaxReason))
	}
	return h
}

func (e *encoder) semiSync(s core.SemiSync) {
	e.byte(flags(s.Waits, s.AfterSync, s.Alone))
	e.uint(uint64(s.Acks))
	e.uint(uint64(s.Replicas))
	e.duration(s.Timeout)
}

func (d *decoder) semiSync() core.SemiSync {
	f := d.enum(1<<3 - 1)
	return core.SemiSync{Waits: f&1 != 0, AfterSync: f&2 != 0, Alone: f&4 != 0, Acks: uint32(d.uint()), Replicas: uint32(d.uint()),
		Timeout: d.duration()}
}

func (d *decoder) group() core.GroupName { return core.GroupName(d.text(maxWireName)) }

func (e *encoder) ack(a core.Ack) {
	e.uint(uint64(a.Term))
	e.fixed(uint64(a.Incarnation))
	e.uint(uint64(a.Seq))
	e.duration(a.TTL)
	e.count(len(a.Groups))
	for _, g := range a.Groups {
		e.name(string(g.Group))
		e.uint(uint64(g.Epoch))
	}
}

func (d *decoder) ack() core.Ack {
	a := core.Ack{Term: core.Term(d.uint()), Incarnation: core.Incarnation(d.fixed()), Seq: core.Seq(d.uint()), TTL: d.duration()}
	for range d.count(maxWireList) {
		a.Groups = append(a.Groups, core.GroupEpoch{Group: core.GroupName(d.text(maxWireName)), Epoch: core.Epoch(d.uint())})
	}
	return a
}

func (d *decoder) message(kind byte) core.Message {
	switch kind {
	case kindReport:
		return d.report()
	case kindConfirm:
		return core.Confirm{Term: core.Term(d.uint()), Nonce: d.fixed()}
	case kindEcho:
		return core.Echo{Term: core.Term(d.uint()), Nonce: d.fixed()}
	case kindAck:
		return d.ack()
	case kindNotice:
		return core.Notice{Group: core.GroupName(d.text(maxWireName)), State: d.state(), Spec: core.AddressDigest(d.uint()),
			Next: core.AddressDigest(d.uint())}
	case kindReleaseRequest:
		return core.ReleaseRequest{Group: d.group(), Epoch: core.Epoch(d.uint()), Unproved: d.bool(), Failed: d.bool(),
			Reason: d.text(core.MaxReason)}
	case kindFreeze:
		return core.Freeze{Group: d.group(), Epoch: core.Epoch(d.uint()), Round: d.uint(), Term: core.Term(d.uint())}
	case kindFrozen:
		return core.Frozen{Group: d.group(), Epoch: core.Epoch(d.uint()), Round: d.uint(), Executed: d.text(maxWireSet),
			Received: d.text(maxWireSet), Err: d.text(core.MaxReason)}
	case kindDrained:
		return core.Drained{Group: d.group(), Epoch: core.Epoch(d.uint()), Move: core.Index(d.uint()), Executed: d.text(maxWireSet),
			Err: d.text(core.MaxReason)}
	case kindCaughtUp:
		return core.CaughtUp{Group: d.group(), Epoch: core.Epoch(d.uint()), Move: core.Index(d.uint()), Err: d.text(core.MaxReason)}
	}
	if kind == kindClients {
		return d.clients()
	}
	d.fail(errWireKind)
	return nil
}

func (e *encoder) clients(c core.Clients) {
	if len(c.Ends) > core.MaxClients {
		e.err = fmt.Errorf("%w: %d clients, at most %d are allowed", errWireValue, len(c.Ends), core.MaxClients)
		return
	}
	e.name(string(c.Group))
	e.uint(uint64(c.Epoch))
	e.addrPort(c.Server)
	e.count(len(c.Ends))
	for _, a := range c.Ends {
		e.addrPort(a)
	}
}

func (d *decoder) clients() core.Clients {
	c := core.Clients{Group: d.group(), Epoch: core.Epoch(d.uint()), Server: d.addrPort()}
	for range d.count(core.MaxClients) {
		c.Ends = append(c.Ends, d.addrPort())
	}
	return c
}

func (e *encoder) addrPort(a netip.AddrPort) {
	e.addr(a.Addr())
	e.uint(uint64(a.Port()))
}

// addrPort takes an address with a port. It must be a whole one.
func (d *decoder) addrPort() netip.AddrPort {
	a, port := d.addr(), d.uint()
	if !a.IsValid() || port > math.MaxUint16 {
		d.fail(errWireValue)
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, uint16(port))
}

// The bits of a group state's flags.
const (
	flagPaused = 1 << iota
	flagRetired
	flagProved
	flagGrant
	flagMove
	flagNext
	flagAdvice
	flagWaived // the grant closes an operation, waives the policy, or is about read_only
)

// The bits of a grant's flags on advice, and of an operation's.
const (
	flagClear = 1 << iota
	flagUndo

	flagOnline   = 1 << 0
	flagGraceful = 1 << 1
	flagWritable = 1 << 2
	flagOver     = 1 << 3
)

func (e *encoder) state(s core.GroupState) {
	e.uint(uint64(s.Index))
	e.byte(flags(s.Paused, s.Retired, s.Proved, s.Grant != nil, s.Move != nil, s.Next != nil, s.Advice != nil,
		waived(s.Grant)))
	e.uint(uint64(s.Epoch))
	e.name(string(s.Owner))
	e.int(s.Since)
	e.text(s.Reason, e.reason)
	e.spec(s.Spec)
	e.handover(s.Handover)
	if s.Grant != nil {
		e.grant(*s.Grant)
		if waived(s.Grant) {
			e.fixed(s.Grant.Advice)
			e.int(int64(s.Grant.Waive))
			e.byte(flags(s.Grant.Clear, s.Grant.Undo))
		}
	}
	if s.Move != nil {
		e.name(string(s.Move.Group))
		e.uint(uint64(s.Move.Epoch))
		e.name(string(s.Move.To))
		e.text(s.Move.Reason, e.reason)
		e.uint(uint64(s.Move.Began))
		e.bool(s.Move.Drained)
		e.sets(s.Move.Executed)
	}
	if s.Next != nil {
		e.spec(*s.Next)
	}
	if s.Advice != nil {
		e.advice(*s.Advice)
	}
}

// handover appends nothing but an empty name where there is none.
func (e *encoder) handover(h *core.Handover) {
	if h == nil {
		e.name("")
		return
	}
	if h.From == "" {
		e.err = fmt.Errorf("%w: a handover from nobody", errWireValue)
	}
	e.name(string(h.From))
	e.uint(uint64(h.Epoch))
	e.bool(h.Unfenced)
}

func (d *decoder) handover() *core.Handover {
	from := core.NodeName(d.text(maxWireName))
	if from == "" {
		return nil
	}
	return &core.Handover{From: from, Epoch: core.Epoch(d.uint()), Unfenced: d.bool()}
}

// waived reports whether a grant has what a grant on advice has.
func waived(g *core.Grant) bool {
	return g != nil && (g.Advice != 0 || g.Waive != 0 || g.Clear || g.Undo)
}

func (e *encoder) advice(a core.Advice) {
	e.fixed(a.ID)
	e.name(string(a.Group))
	e.uint(uint64(a.Epoch))
	e.name(string(a.From))
	e.byte(flags(a.Online, a.Graceful, a.Writable, a.Over))
	e.int(int64(a.Wait))
	e.int(int64(a.Drain))
	e.text(a.By, e.reason)
	e.name(string(a.Given))
}

func (d *decoder) advice() *core.Advice {
	a := &core.Advice{ID: d.fixed(), Group: core.GroupName(d.text(maxWireName)), Epoch: core.Epoch(d.uint()),
		From: core.NodeName(d.text(maxWireName))}
	f := d.enum(flagOnline | flagGraceful | flagWritable | flagOver)
	a.Online, a.Graceful, a.Writable, a.Over = f&flagOnline != 0, f&flagGraceful != 0, f&flagWritable != 0, f&flagOver != 0
	a.Wait, a.Drain = core.Millis(d.int()), core.Millis(d.int())
	a.By, a.Given = d.text(core.MaxReason), core.NodeName(d.text(maxWireName))
	return a
}

func (d *decoder) state() core.GroupState {
	s := core.GroupState{Index: core.Index(d.uint())}
	f := d.enum(flagPaused | flagRetired | flagProved | flagGrant | flagMove | flagNext | flagAdvice | flagWaived)
	s.Paused, s.Retired, s.Proved = f&flagPaused != 0, f&flagRetired != 0, f&flagProved != 0
	s.Epoch = core.Epoch(d.uint())
	s.Owner = core.NodeName(d.text(maxWireName))
	s.Since = d.int()
	s.Reason = d.text(core.MaxReason)
	s.Spec = d.spec()
	s.Handover = d.handover()
	if f&flagGrant != 0 {
		g := d.grant()
		s.Grant = &g
		if f&flagWaived != 0 {
			g.Advice, g.Waive = d.fixed(), core.Millis(d.int())
			f := d.enum(flagClear | flagUndo)
			g.Clear, g.Undo = f&flagClear != 0, f&flagUndo != 0
		}
	}
	if f&flagMove != 0 {
		s.Move = &core.Move{Group: core.GroupName(d.text(maxWireName)), Epoch: core.Epoch(d.uint()),
			To: core.NodeName(d.text(maxWireName)), Reason: d.text(core.MaxReason), Began: core.Index(d.uint()), Drained: d.bool(),
			Executed: d.text(maxWireSet)}
	}
	if f&flagNext != 0 {
		next := d.spec()
		s.Next = &next
	}
	if f&flagAdvice != 0 {
		s.Advice = d.advice()
	}
	return s
}

func (e *encoder) grant(g core.Grant) {
	e.name(string(g.Group))
	e.uint(uint64(g.Prev))
	e.name(string(g.To))
	e.fixed(uint64(g.Incarnation))
	e.uint(uint64(g.Seq))
	e.int(int64(g.TTL))
	e.bool(g.Unfenced)
	e.bool(g.Handover)
	e.text(g.Reason, e.reason)
	e.count(len(g.Basis))
	for _, n := range g.Basis {
		e.name(string(n))
	}
}

func (d *decoder) grant() core.Grant {
	g := core.Grant{Group: core.GroupName(d.text(maxWireName)), Prev: core.Epoch(d.uint()),
		To: core.NodeName(d.text(maxWireName)), Incarnation: core.Incarnation(d.fixed()), Seq: core.Seq(d.uint()),
		TTL: core.Millis(d.int()), Unfenced: d.bool(), Handover: d.bool(), Reason: d.text(core.MaxReason)}
	for range d.count(maxWireList) {
		g.Basis = append(g.Basis, core.NodeName(d.text(maxWireName)))
	}
	return g
}

func (e *encoder) spec(s core.GroupSpec) {
	e.name(string(s.Name))
	e.name(string(s.Role))
	e.name(string(s.Policy))
	e.name(s.Interface)
	e.bool(s.Preempt)
	e.int(int64(s.KeepUnwritable))
	e.int(s.Promotion.MaxLost)
	for _, limit := range []core.Millis{s.Promotion.MaxLag, s.Promotion.ApplyWithin, s.Promotion.Drain, s.Promotion.CatchUp} {
		e.int(int64(limit))
	}
	e.count(len(s.Addresses))
	for _, a := range s.Addresses {
		e.addr(a.Addr())
		e.byte(byte(a.Bits()))
	}
	e.name(string(s.Pool))
	e.int(int64(s.Reading.MaxLag))
	e.bool(s.Reading.AllowPrimary)
	e.int(int64(s.Reading.BalanceAfter))
}

func (d *decoder) spec() core.GroupSpec {
	s := core.GroupSpec{Name: core.GroupName(d.text(maxWireName)), Role: core.Role(d.text(maxWireName)),
		Policy: core.Policy(d.text(maxWireName)), Interface: d.text(maxWireName), Preempt: d.bool(),
		KeepUnwritable: core.Millis(d.int())}
	s.Promotion.MaxLost = d.int()
	for _, limit := range []*core.Millis{&s.Promotion.MaxLag, &s.Promotion.ApplyWithin, &s.Promotion.Drain, &s.Promotion.CatchUp} {
		*limit = core.Millis(d.int())
	}
	for range d.count(maxWireList) {
		s.Addresses = append(s.Addresses, d.prefix())
	}
	s.Pool = core.GroupName(d.text(maxWireName))
	s.Reading = core.Reading{MaxLag: core.Millis(d.int()), AllowPrimary: d.bool(), BalanceAfter: core.Millis(d.int())}
	return s
}

func (d *decoder) prefix() netip.Prefix {
	p := netip.PrefixFrom(d.addr(), int(d.byte()))
	if !p.IsValid() {
		d.fail(errWireValue)
	}
	return p
}
