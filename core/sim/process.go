package sim

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// node is a machine with its disk, its kernel and its MySQL, and the process that runs on it, if one does.
type node struct {
	w     *world
	id    int
	name  core.NodeName
	clock clock
	raft  raft
	kern  kernel

	gen         uint32   // grows with each process, and when one ends
	proc        *process // nil while none runs
	history     []*process
	frozenUntil int64
	frozen      []item // what waits for a frozen process, in order
	diskStall   int64
	newsStall   int64 // until then Raft's news and committed entries do not get through to the machine
	snapshotAt  int   // up to which entry the disk has a snapshot of the ledger
	health      core.Health
	healthTold  int64 // when the last news of it arrives, or arrived
	linkDown    bool
	file        core.Config
	sql         *server // nil where no group has policy promote
	netlinkAt   int64
	comesBack   bool // a start is scheduled
	unfenced    bool // its kernel has address lifetimes and no fence
}

// maxReports is how many of its own reports the oracles remember of a process, more than the machine does.
const maxReports = 256

// process is one run of the daemon: the machine, and what the agent and the edges around it do.
type process struct {
	n      *node
	gen    uint32
	inc    core.Incarnation
	m      *core.Machine
	ledger *core.Ledger
	// wakeAt is when the machine wants its next Tick, timerAt when an item of the queue looks whether it is time; 0: none.
	wakeAt, timerAt int64
	workers         [maxGroups]worker
	gate            [maxGroups]core.Epoch // up to which epoch claims are shut out
	prolonged       [maxGroups]core.Prolong
	stopped         bool
	steps           int
	reports         []fencedReport // those that wait for the fence
	watch           watch
	broken
}

// deliverAfter puts an event into the mailbox of the process that runs now.
func (n *node) deliverAfter(d time.Duration, ev core.Event) {
	n.w.q.push(n.w.now+int64(d), item{kind: processEvent, node: int8(n.id), gen: n.gen, ev: ev})
}

// deliverSoon puts an event into the mailbox after the time that a busy host takes for that.
func (n *node) deliverSoon(ev core.Event) { n.deliverAfter(n.w.dice.about(n.w.plan.mailbox), ev) }

// tellHealth has the detector tell what it sees now. It says one thing after the other, never an older one later.
func (n *node) tellHealth(after time.Duration) {
	n.healthTold = max(n.w.now+int64(after), n.healthTold+1)
	n.deliverAfter(time.Duration(n.healthTold-n.w.now), core.HealthChanged{Health: n.health})
}

// boot starts a process. Before anything else it removes what an earlier one has left in the kernel.
func (n *node) boot() {
	if left := n.kern.pendingUntil - n.w.now; n.proc == nil && left >= 0 {
		n.w.after(time.Duration(left)+1, n.boot) // the process before is not out of the kernel yet
		return
	}
	n.comesBack = false
	if n.proc != nil {
		return
	}
	n.gen++
	gen := n.gen
	n.w.trace.line(n, "boot", "")
	n.w.after(n.w.dice.about(n.w.plan.kernelTime), func() {
		if n.gen == gen {
			if n.w.opt.Break != KeepLeftovers {
				n.kern.removeOurs()
			}
			n.kern.closeAll()
			n.run()
		}
	})
}

// run makes the machine and tells it what a real start tells it.
func (n *node) run() {
	w := n.w
	p := &process{n: n, gen: n.gen, inc: core.Incarnation(w.dice.Uint64() | 1), ledger: core.NewLedger()}
	if w.opt.Break == SameIncarnation {
		p.inc = core.Incarnation(n.id + 1)
	}
	n.proc = p
	n.history = append(n.history, p)
	w.rebuild(p.ledger, n.raft.log, n.snapshotAt)
	start := n.clock.at(w.now)
	longest := max(w.plan.timing.TTL, p.ledger.View().Longest.Duration(), n.file.TTL.Duration())
	ready := start.Add(longest + core.Margin(longest))
	if w.plan.lifetimes {
		ready = start.Add(longest + core.UnfencedMargin(longest))
	}
	p.watch.init(p, ready)
	w.or.started(p)
	if w.opt.Break == NoWaitAtStart {
		ready = start
	}
	p.m = core.New(core.Options{Self: n.name, Incarnation: p.inc, Timing: w.plan.timing, Seed: w.dice.Uint64(),
		Fence: w.plan.kernelLease && !n.unfenced, Unfenced: n.unfenced, Sets: txnSets{}, Start: start, Ready: ready})
	n.raft.start()
	n.raft.commit, n.raft.handed = n.snapshotAt, n.snapshotAt
	n.raft.mayVoteAt = 0
	if w.plan.waitToVote && w.opt.Break != VoteAtOnce {
		n.raft.mayVoteAt = n.clock.when(ready)
	}
	p.step(core.ConfigOffered{Config: n.file})
	if n.snapshotAt > 0 {
		p.step(core.Restored{View: p.ledger.View()})
	}
	p.step(core.VotersChanged{Voters: w.names})
	n.deliverSoon(core.LinkChanged{Interface: iface, Up: !n.linkDown})
	n.healthTold = 0
	n.tellHealth(w.dice.about(5 * time.Millisecond))
	for a := range n.kern.addrs {
		if n.kern.addrs[a].bound {
			n.seen(a)
		}
	}
}

// rebuild brings an empty ledger to the state after an entry of a log, sometimes by way of an encoded snapshot.
func (w *world) rebuild(l *core.Ledger, log []entry, index int) {
	for i := 1; i <= index; i++ {
		if log[i].cmd != nil {
			l.Apply(core.Index(i), log[i].term, *log[i].cmd)
		}
	}
	if index == 0 || !w.dice.chance(0.1) {
		return
	}
	b, err := l.Snapshot()
	if err == nil {
		err = l.Restore(b)
	}
	if err != nil {
		w.fail(I7, "a snapshot of the ledger at entry %d does not come back: %v", index, err)
	}
}

// apply is the state machine of Raft: it applies a committed entry and tells the machine.
func (p *process) apply(index int, e entry) {
	outs := p.ledger.Apply(core.Index(index), e.term, *e.cmd)
	v := p.ledger.View()
	p.n.w.or.applied(p, index, v)
	p.step(core.Committed{Index: core.Index(index), Term: e.term, Command: *e.cmd, Outcomes: outs, View: v})
	if p.n.w.dice.chance(0.1) {
		p.n.snapshotAt = index
	}
}

// restore is the state machine of Raft when the leader sends a snapshot.
func (p *process) restore(index int) {
	p.ledger = core.NewLedger()
	p.n.w.rebuild(p.ledger, p.n.raft.log, index)
	v := p.ledger.View()
	p.n.w.or.applied(p, index, v)
	p.step(core.Restored{View: v})
	p.n.snapshotAt = index
}

// step is the agent's loop: one event in, actions out, each carried out in order.
func (p *process) step(ev core.Event) {
	n, w := p.n, p.n.w
	if p.stopped || n.proc != p {
		return
	}
	w.steps++
	now := n.clock.at(w.now)
	w.or.told(p, now, ev)
	p.asked(now)
	told := w.opt.Break.event(p, ev)
	acts := p.m.Step(now, told)
	w.trace.step(n, told, acts)
	acts = w.opt.Break.actions(p, acts)
	w.or.acted(p, now, acts)
	p.carryOut(acts)
	w.or.after(p, now)
	w.opt.Break.afterwards(p, ev)
	if p.stopped {
		n.end("stopped")
	}
}

// An operator asks for the status at some of the first steps of each process and, later, with every askedEvery-th of the world.
const (
	askedFirst = 12
	askedEvery = 1024
)

// asked is what an operator asks the daemon, at any time and most of all when it has just begun. The answer changes nothing.
func (p *process) asked(now core.Instant) {
	if p.steps < askedFirst && p.steps%3 == 0 || p.n.w.steps%askedEvery == 0 {
		p.m.Status(now)
	}
	p.steps++
}

// carryOut does what the machine wants done, in order, except that a report with an Arm before it goes its own way.
func (p *process) carryOut(acts []core.Action) {
	var r fencedReport
	armed := false
	for _, a := range acts {
		switch a := a.(type) {
		case core.Arm:
			r.arm, armed = a, true
		case core.Send:
			if _, report := a.Msg.(core.Report); report && armed {
				r.sends = append(r.sends, a)
			} else {
				p.send(a)
			}
		default:
			p.do(a)
		}
	}
	if armed {
		p.report(r)
	}
}

func (p *process) send(a core.Send) {
	if r, ok := a.Msg.(core.Report); ok {
		r.Term = p.n.raft.term
		a.Msg = r
	}
	msg := p.n.w.opt.Break.message(p, a.Msg)
	p.n.w.or.sent(p, a.To, msg)
	p.n.w.send(p.n.id, nodeIndex(a.To), msg)
}

func (p *process) do(a core.Action) {
	n, w := p.n, p.n.w
	switch a := a.(type) {
	case core.SetTimer:
		p.setTimer(max(w.now, n.clock.when(a.At)))
	case core.Propose:
		n.handProposal(a)
	case core.Unbind:
		p.unbind(a)
	case core.Bind, core.Extend, core.Probe, core.Announce:
		p.claim(a)
	case core.Prolong:
		p.prolonged[groupIndex(a.Group)] = a
	case core.TransferLeadership:
		w.q.push(w.now, item{kind: raftCall, node: int8(n.id), gen: n.gen, call: func() { n.raft.transferTo(nodeIndex(a.To)) }})
	case core.Answer:
		w.or.answered(a)
	case core.Stopped:
		p.stopped = true
	case core.FreezeServer, core.PromoteServer, core.DemoteServer, core.CatchUpServer, core.FollowServer:
		p.serverAct(a)
	}
}

// setTimer asks for a Tick. An item that is in the queue for an earlier time serves: it will find that it is early.
func (p *process) setTimer(at int64) {
	p.wakeAt = at
	if p.timerAt == 0 || at < p.timerAt {
		p.timerAt = at
		p.n.w.q.push(at, item{kind: timer, node: int8(p.n.id), gen: p.gen})
	}
}

// timerFired is called for each timer item, those that a later setting has overtaken included.
func (p *process) timerFired() {
	now := p.n.w.now
	if p.timerAt <= now {
		p.timerAt = 0
	}
	if now >= p.wakeAt {
		p.step(core.Tick{})
	} else if p.timerAt == 0 {
		p.setTimer(p.wakeAt)
	}
}

// end ends the process at once, as SIGKILL does. What it has put into the kernel stays there.
func (n *node) end(how string) {
	n.w.trace.line(n, how, "")
	n.proc, n.frozenUntil, n.frozen = nil, 0, n.frozen[:0]
	n.gen++
}

// datagramCame hands a message to the process. The term is read when the datagram arrives: here, or a moment later.
func (n *node) datagramCame(from int, m core.Message) {
	ev := core.Received{From: n.w.nodes[from].name, Msg: m, Term: n.raft.term}
	n.proc.step(ev)
}
