package sim

import (
	"net/netip"
	"time"

	"github.com/remora-ha/remora/core"
)

// server is a node's MySQL where a group has policy promote. It outlives the daemon; it is dead while the node's health is
// core.Failed, and read-only when it comes back, as it should be, or not.
type server struct {
	n         *node
	writable  bool
	executed  txns
	received  txns // all that it has, executed or not
	source    int  // the node that it replicates from, -1 for none
	receiving bool
	frozen    bool // it has answered a FreezeServer and follows nobody since
	aside     bool // its daemon has set it aside
	draining  bool // no transaction begins any more
	restarts  int
	seen      core.Health // what the detector has told last
}

// load is how often clients write, replicas receive and apply, and the detector looks.
func (w *world) load() time.Duration { return w.plan.timing.TTL / 6 }

// makeServers lets the first node begin as the primary of all others.
func (w *world) makeServers() {
	if !w.plan.promote {
		return
	}
	for i, n := range w.nodes {
		n.sql = &server{n: n, source: 0, receiving: true}
		n.sql.executed[0], n.sql.received[0] = 5, 5
		if i == 0 {
			n.sql.source, n.sql.receiving, n.sql.writable = -1, false, true
		}
		n.health = n.sql.health()
	}
	w.after(w.load(), w.tickServers)
}

func (s *server) alive() bool { return s.n.health.State != core.Failed }

// tickServers lets clients write and replicas receive and apply.
func (w *world) tickServers() {
	w.or.oneWriter()
	for _, n := range w.nodes {
		s := n.sql
		if s.alive() && s.writable && !s.draining && n.servesPromoted() {
			s.executed[n.id]++
			s.received = s.received.union(s.executed)
			w.or.acknowledged(n)
		}
	}
	receives, applies := w.pace()
	for _, n := range w.nodes {
		s := n.sql
		if !s.alive() {
			continue
		}
		if s.receiving && s.source >= 0 && w.nodes[s.source].sql.alive() && !w.net.cut[s.source][n.id] && !w.net.cut[n.id][s.source] && w.sqlDice.chance(receives) {
			s.received = s.received.union(w.nodes[s.source].sql.executed)
		}
		if s.source >= 0 && w.sqlDice.chance(applies) {
			s.executed = s.received
		}
		s.look()
	}
	w.after(w.load(), w.tickServers)
}

// pace returns how likely a replica is to receive and to apply what there is while clients write once.
func (w *world) pace() (receives, applies float64) {
	if w.plan.slow && w.now < w.calm {
		return 0.4, 0.15
	}
	return 0.8, 0.7
}

// servesPromoted reports whether clients reach the node's server: at an address of the group or one for readers, where they may
// write as well, or at the server's own port, which the kernel's fence keeps closed without a lease.
func (n *node) servesPromoted() bool {
	for _, g := range groupsOf(n.w.or.view) {
		for _, pre := range g.Spec.Addresses {
			if (g.Spec.Policy == core.Promote || g.Spec.Role == core.Reader) && n.kern.answers(addressIndex(pre.Addr())) {
				return true
			}
		}
	}
	return false
}

// health is what the detector finds.
func (s *server) health() core.Health {
	h := core.Health{State: s.n.health.State, Writable: core.No, Replicating: core.No, Executed: s.executed.String()}
	if s.writable {
		h.Writable = core.Yes
	}
	if s.source >= 0 {
		h.Source = s.n.w.nodes[s.source].serverAddress().String()
		if s.receiving {
			h.Replicating = core.Yes
		}
	}
	return h
}

// look lets the detector tell the machine when what it sees has changed.
func (s *server) look() {
	h := s.health()
	if s.n.proc == nil || h.State == s.seen.State && h.Writable == s.seen.Writable && h.Source == s.seen.Source &&
		h.Replicating == s.seen.Replicating && h.Executed == s.seen.Executed {
		return
	}
	s.seen, s.n.health = h, h
	s.n.tellHealth(s.n.w.dice.about(s.n.w.plan.mailbox))
}

func (n *node) serverAddress() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(11 + n.id)}), 3306)
}

// restart is what a server does that was dead, as a rule with read_only set in its configuration.
func (s *server) restart() {
	s.restarts++
	s.writable = s.n.w.sqlDice.chance(0.2) && s.n.w.plan.readers == 0 // beside readers it must be read-only, as it should be
	s.draining = false
	s.received = s.executed.union(s.received)
}

// ask carries out an act on the server: effect happens there, whatever the daemon does meanwhile, and then back is told in
// the process, if that still runs. A server that is dead or restarts meanwhile fails.
func (p *process) ask(d time.Duration, effect func(), back func(err string)) {
	s, w := p.n.sql, p.n.w
	err := ""
	if w.now < w.calm && w.sqlDice.chance(0.05) {
		err = "the server refuses"
	}
	restarts := s.restarts
	w.after(d, func() {
		if s.restarts != restarts || !s.alive() {
			err = "the connection to the server was lost"
		}
		if err == "" {
			effect()
		}
		p.later(w.sqlDice.about(50*time.Microsecond), func() { back(err) })
		s.look()
	})
}

// serverAct carries out what the machine wants done on the server.
func (p *process) serverAct(a core.Action) {
	w, s := p.n.w, p.n.sql
	if s == nil {
		p.modeAct(a)
		return
	}
	d := w.sqlDice.about(4 * w.plan.kernelTime)
	switch a := a.(type) {
	case core.FreezeServer:
		ev := core.ServerFrozen{Group: a.Group, Epoch: a.Epoch, Round: a.Round}
		p.ask(d, func() {
			s.receiving = s.receiving && w.opt.Break == ChooseOnMovingSets
			s.frozen = true
			ev.Executed, ev.Received = s.executed.String(), s.received.String()
		}, func(err string) {
			ev.Err = err
			p.step(ev)
		})
	case core.PromoteServer:
		p.promote(a, d)
	case core.DemoteServer:
		p.demote(a, d)
	case core.CatchUpServer:
		ev := core.ServerCaughtUp{Group: a.Group, Epoch: a.Epoch, Move: a.Move}
		p.catchUp(a, w.now+int64(a.Within), func(err string) {
			ev.Err = err
			p.step(ev)
		})
	case core.FollowServer:
		p.follow(a, d)
	}
}

func (p *process) promote(a core.PromoteServer, d time.Duration) {
	w, s := p.n.w, p.n.sql
	ev := core.ServerPromoted{Group: a.Group, Epoch: a.Epoch}
	if w.opt.Break == BindBeforeWritable {
		p.later(0, func() { p.step(ev) })
	}
	if w.sqlDice.chance(0.2) {
		d += w.sqlDice.about(w.plan.timing.TTL) // much is left to be applied
	}
	p.ask(d, func() {
		if ev.Late = p.n.clock.at(w.now) >= a.NotAfter && w.opt.Break != PromoteLate; ev.Late {
			return
		}
		s.executed, s.source, s.receiving, s.frozen, s.writable, s.draining = s.received, -1, false, false, true, false
		w.or.writable(p, a)
	}, func(err string) {
		ev.Err = err
		if w.opt.Break != BindBeforeWritable {
			p.step(ev)
		}
	})
}

func (p *process) demote(a core.DemoteServer, d time.Duration) {
	w, s := p.n.w, p.n.sql
	ev := core.ServerDemoted{Group: a.Group, Epoch: a.Epoch}
	if a.Drain > 0 {
		d += min(w.sqlDice.about(w.load()), a.Drain)
		if w.opt.Break == DrainedEarly {
			early := ev
			early.Executed = s.executed.String()
			p.later(0, func() { p.step(early) })
		} else {
			s.draining = w.sqlDice.chance(0.5) // or transactions go on to begin until it is read-only
		}
	}
	p.ask(d, func() {
		s.writable, s.draining = false, false
		ev.Executed = s.executed.String()
	}, func(err string) {
		s.draining = false
		ev.Err = err
		if a.Drain == 0 || w.opt.Break != DrainedEarly {
			p.step(ev)
		}
	})
}

// catchUp looks again and again whether the server has applied a set.
func (p *process) catchUp(a core.CatchUpServer, until int64, done func(err string)) {
	w := p.n.w
	p.ask(w.sqlDice.about(4*w.plan.kernelTime), func() {}, func(err string) {
		want, bad := parseTxns(a.Executed)
		switch {
		case bad != nil:
			w.fail(I10, "%s is to catch up with %q", p.n.name, a.Executed)
		case err != "":
			done(err)
		case p.n.sql.executed.lacks(want) == 0:
			done("")
		case w.now >= until:
			done("the time is over")
		default:
			p.later(w.load()/4, func() { p.catchUp(a, until, done) })
		}
	})
}

func (p *process) follow(a core.FollowServer, d time.Duration) {
	s := p.n.sql
	ev := core.ServerFollows{Group: a.Group, Epoch: a.Epoch}
	p.ask(d, func() {
		source, err := parseTxns(a.SourceExecuted)
		if err != nil {
			p.n.w.fail(I10, "%s is to follow a source with %q", p.n.name, a.SourceExecuted)
		}
		if n := source.lacks(s.received); n > 0 {
			p.n.w.or.setAside(p.n, a, s.received, source)
			ev.Errant, s.aside = s.received.String(), true
			return
		}
		for _, other := range p.n.w.nodes {
			if other.serverAddress() == a.Source {
				s.source, s.receiving, s.frozen, s.writable = other.id, true, false, false
			}
		}
	}, func(err string) {
		ev.Err = err
		p.step(ev)
	})
}
