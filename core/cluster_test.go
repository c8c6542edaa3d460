package core

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// cluster runs the machines of a few nodes in virtual time, with a network, a Raft log and kernels that are as simple as
// can be: every datagram, commit and system call takes a fixed time unless the test holds it back. All clocks are equal.
// It watches over I1, I2, I4 and I7 from outside: what the kernels hold counts, not what the machines say.
type cluster struct {
	t     testing.TB
	now   Instant
	queue []job
	jobs  int // made so far, the tie-breaker of the queue
	cfg   Config
	time  Timing
	nodes map[NodeName]*node
	names []NodeName

	// The Raft log. There is one, because what is committed is the same everywhere; nodes differ in how far they are.
	log     []entry
	term    Term
	leader  NodeName
	holding bool // proposals wait until the test lets them go
	waiting []proposal
	cut     map[[2]NodeName]bool

	// trace is called with what happens, in order.
	trace func(format string, args ...any)
	// act is called with the actions of a step.
	act func(n NodeName, ev Event, as []Action)
}

type job struct {
	at Instant
	no int
	do func()
}

type entry struct {
	term Term
	cmd  Command
}

type proposal struct {
	by   NodeName
	term Term
	cmd  Command
	at   Instant // when it can be in the log at the earliest
}

// node is a machine with its surroundings.
type node struct {
	name     NodeName
	m        *Machine
	ledger   *Ledger
	applied  int
	up       bool
	frozen   bool
	slept    bool    // it was frozen while it had the address: until it has unbound, only the kernel lease (I8) could help
	deaf     bool    // its Raft hears nothing, though datagrams reach it
	inbox    []Event // what came while it was frozen
	timer    int
	restarts int
	term     Term
	health   Health
	dryRun   bool
	bound    map[netip.Addr]Epoch // ours, in the kernel; it outlives the process
	foreign  map[netip.Addr]bool  // bound by somebody else
	hang     map[string]bool      // system calls that do not end by themselves
	fail     map[string]string    // system calls that fail, and how
	hung     []func()             // their ends
	conflict net.HardwareAddr     // who answers a probe
	lease    map[GroupName]Instant
	stopped  bool
	sql      *server // nil if the test has no need of one
}

const (
	netDelay    = time.Millisecond
	commitDelay = 2 * time.Millisecond
	followDelay = 30 * time.Millisecond
	kernelDelay = time.Millisecond
)

func newCluster(t testing.TB, cfg Config, timing Timing) *cluster {
	c := &cluster{
		t: t, now: 1_000_000_000, cfg: cfg, time: timing, nodes: map[NodeName]*node{}, cut: map[[2]NodeName]bool{},
		trace: func(string, ...any) {}, act: func(NodeName, Event, []Action) {},
	}
	for _, n := range cfg.Nodes {
		c.names = append(c.names, n.Name)
		c.nodes[n.Name] = &node{
			name: n.Name, ledger: NewLedger(), bound: map[netip.Addr]Epoch{}, foreign: map[netip.Addr]bool{},
			hang: map[string]bool{}, fail: map[string]string{}, lease: map[GroupName]Instant{},
		}
	}
	return c
}

func (c *cluster) after(d time.Duration, f func()) {
	c.jobs++
	j := job{at: c.now.Add(d), no: c.jobs, do: f}
	i, _ := slices.BinarySearchFunc(c.queue, j, func(a, b job) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.no, b.no)) })
	c.queue = slices.Insert(c.queue, i, j)
}

// run lets d pass.
func (c *cluster) run(d time.Duration) {
	end := c.now.Add(d)
	for len(c.queue) > 0 && c.queue[0].at <= end {
		j := c.queue[0]
		c.queue = c.queue[1:]
		c.now = j.at
		j.do()
	}
	c.now = end
}

// boot starts the process of a node. What an earlier one left in the kernel is removed first, as the daemon does.
func (c *cluster) boot(name NodeName) {
	n := c.nodes[name]
	n.restarts++
	clear(n.bound)
	inc := Incarnation(100*(slices.Index(c.names, name)+1) + n.restarts)
	n.m = New(Options{Self: name, Incarnation: inc, Timing: c.time, Release: "test", Seed: 1, DryRun: n.dryRun, Sets: countSets{},
		Start: c.now, Ready: c.now.Add(c.time.TTL + Margin(c.time.TTL))})
	n.up, n.stopped, n.frozen, n.slept, n.inbox, n.hung = true, false, false, false, nil, nil
	n.lease = map[GroupName]Instant{}
	c.step(name, ConfigOffered{Config: c.cfg})
	if n.applied > 0 {
		c.step(name, Restored{View: n.ledger.View()})
	}
	c.step(name, VotersChanged{Voters: c.names})
	for _, g := range c.cfg.Groups {
		c.step(name, LinkChanged{Interface: g.Interface, Up: true})
		for _, p := range g.Addresses {
			c.step(name, AddressSeen{Address: p.Addr(), Present: n.foreign[p.Addr()]})
		}
	}
	c.step(name, HealthChanged{Health: n.health})
	c.step(name, LeaderSeen{Leader: c.leader})
	c.catchUp(name)
}

// kill ends the process of a node at once. Its addresses stay.
func (c *cluster) kill(name NodeName) {
	c.nodes[name].up = false
	if c.leader == name {
		c.leader = ""
	}
}

// step gives an event to a machine and carries out what it wants.
func (c *cluster) step(name NodeName, ev Event) {
	n := c.nodes[name]
	switch {
	case !n.up || n.stopped:
		return
	case n.frozen:
		n.inbox = append(n.inbox, ev)
		return
	}
	as := slices.Clone(n.m.Step(c.now, ev))
	c.act(name, ev, as)
	for g, h := range n.m.held {
		if h.claiming() {
			n.lease[g] = max(n.lease[g], h.lease)
		}
	}
	for _, a := range as {
		c.do(n, a)
	}
}

func (c *cluster) do(n *node, a Action) {
	switch a := a.(type) {
	case Bind:
		hung := n.hang["bind"]
		c.call(n, "bind", func(bad string) { c.bind(n, a, bad, hung) })
	case Extend:
		c.call(n, "extend", func(bad string) { c.extend(n, a, bad) })
	case Unbind:
		c.call(n, "unbind", func(bad string) { c.unbind(n, a, bad) })
	case Probe:
		c.after(a.For, func() { c.step(n.name, ProbeDone{Group: a.Group, Epoch: a.Epoch, Conflict: n.conflict}) })
	case Announce:
		c.checkAnnounce(n, a)
	case Send:
		c.send(n, a)
	case Propose:
		c.propose(n, a)
	case TransferLeadership:
		c.after(10*time.Millisecond, func() {
			if c.majority(a.To) {
				c.elect(a.To)
			}
		})
	case SetTimer:
		n.timer++
		timer := n.timer
		c.after(max(0, a.At.Sub(c.now)), func() {
			if n.timer == timer && !n.frozen {
				c.step(n.name, Tick{})
			}
		})
	case Stopped:
		n.stopped = true
	default:
		c.onServer(n, a)
	}
}

// call is a system call: f gets what went wrong, or nothing.
func (c *cluster) call(n *node, what string, f func(bad string)) {
	m := n.m
	end := func() {
		if n.up && n.m == m {
			f(n.fail[what])
		}
	}
	if n.hang[what] {
		n.hung = append(n.hung, end)
		return
	}
	c.after(kernelDelay, end)
}

func (c *cluster) bind(n *node, a Bind, bad string, hung bool) {
	switch {
	case bad != "":
		c.step(n.name, BindDone{Group: a.Group, Epoch: a.Epoch, Err: bad})
		return
	case c.now > a.NotAfter && !hung: // one that hung had looked at the clock before
		c.step(n.name, BindDone{Group: a.Group, Epoch: a.Epoch, Err: "too late", Late: true})
		return
	}
	for _, p := range a.Spec.Addresses {
		n.bound[p.Addr()] = a.Epoch
		delete(n.foreign, p.Addr())
		c.checkOneHolder(p.Addr())
	}
	c.step(n.name, BindDone{Group: a.Group, Epoch: a.Epoch})
	for _, p := range a.Spec.Addresses {
		c.step(n.name, AddressSeen{Address: p.Addr(), Present: true, Ours: true})
	}
}

func (c *cluster) extend(n *node, a Extend, bad string) {
	done := ExtendDone{Group: a.Group, Epoch: a.Epoch, Err: bad}
	for _, p := range a.Spec.Addresses {
		if _, ok := n.bound[p.Addr()]; !ok {
			done.Err, done.Absent = "address is gone", true
		}
	}
	c.step(n.name, done)
}

func (c *cluster) unbind(n *node, a Unbind, bad string) {
	if bad == "" {
		for _, p := range a.Spec.Addresses {
			delete(n.bound, p.Addr())
		}
		n.slept = false
	}
	c.step(n.name, UnbindDone{Group: a.Group, Epoch: a.Epoch, Gone: bad == "", Err: bad})
	for _, p := range a.Spec.Addresses {
		_, ours := n.bound[p.Addr()]
		c.step(n.name, AddressSeen{Address: p.Addr(), Present: ours || n.foreign[p.Addr()], Ours: ours})
	}
}

func (c *cluster) send(n *node, s Send) {
	if r, ok := s.Msg.(Report); ok {
		r.Term = n.term
		s.Msg = r
	}
	if s.To == n.name {
		c.after(0, func() { c.step(n.name, Received{From: n.name, Msg: s.Msg, Term: n.term}) })
		return
	}
	to := c.nodes[s.To]
	if to == nil || c.cut[[2]NodeName{n.name, s.To}] {
		return
	}
	m := to.m
	c.after(netDelay, func() {
		if to.m == m && m != nil && !c.cut[[2]NodeName{n.name, s.To}] {
			c.step(s.To, Received{From: n.name, Msg: s.Msg, Term: to.term})
		}
	})
}

func (c *cluster) propose(n *node, p Propose) {
	switch {
	case c.leader != n.name && n.term == c.term:
		c.after(netDelay, func() { c.step(n.name, ProposalFailed{ID: p.Command.ID, Known: true, Reason: "not the leader"}) })
	case p.NotAfter != 0 && c.now > p.NotAfter:
		c.after(0, func() { c.step(n.name, ProposalFailed{ID: p.Command.ID, Known: true, Reason: "too late"}) })
	default:
		c.waiting = append(c.waiting, proposal{by: n.name, term: n.term, cmd: p.Command, at: c.now.Add(commitDelay)})
		c.after(commitDelay, c.commit)
	}
}

// commit puts what waits into the log, if it may.
func (c *cluster) commit() {
	if c.holding || c.leader == "" || !c.majority(c.leader) {
		return
	}
	ready := c.waiting
	c.waiting = nil
	for _, p := range ready {
		if p.by != c.leader || p.term != c.term || c.now.Before(p.at) {
			c.waiting = append(c.waiting, p)
			continue
		}
		c.log = append(c.log, entry{term: p.term, cmd: p.cmd})
		c.trace("log %d: %s", len(c.log), formatOps(p.cmd.Ops))
		c.apply(c.leader)
	}
	for _, name := range c.names {
		if name != c.leader {
			c.after(followDelay, func() { c.catchUp(name) })
		}
	}
}

func (c *cluster) catchUp(name NodeName) {
	if c.leader != "" && (name == c.leader || c.linked(name, c.leader) && !c.nodes[name].deaf) {
		c.apply(name)
	}
}

// apply brings a node to the end of the log.
func (c *cluster) apply(name NodeName) {
	n := c.nodes[name]
	for n.up && n.applied < len(c.log) {
		e := c.log[n.applied]
		n.applied++
		before := n.ledger.View()
		out := n.ledger.Apply(Index(n.applied), e.term, e.cmd)
		if name == c.leader {
			c.checkGrants(before, n.ledger.View())
		}
		c.step(name, Committed{Index: Index(n.applied), Term: e.term, Command: e.cmd, Outcomes: out, View: n.ledger.View()})
	}
}

func (c *cluster) linked(a, b NodeName) bool {
	return c.nodes[a].up && c.nodes[b].up && !c.cut[[2]NodeName{a, b}] && !c.cut[[2]NodeName{b, a}]
}

func (c *cluster) majority(name NodeName) bool {
	count := 0
	for _, other := range c.names {
		if other == name && c.nodes[name].up || other != name && c.linked(name, other) {
			count++
		}
	}
	return 2*count > len(c.names)
}

// elect makes a node the Raft leader. Nodes that it can not reach do not hear of it.
func (c *cluster) elect(name NodeName) {
	if !c.majority(name) {
		c.t.Fatalf("elect %s: it reaches no majority", name)
	}
	old := c.leader
	c.term++
	c.leader = name
	for _, n := range c.names {
		if n == name || c.linked(n, name) && !c.nodes[n].deaf {
			c.nodes[n].term = c.term
		}
	}
	if old != "" && old != name && c.nodes[old].term == c.term {
		c.depose(old)
	}
	c.apply(name)
	for _, n := range c.names {
		if c.nodes[n].term == c.term {
			c.step(n, LeaderSeen{Leader: name})
		}
	}
	c.step(name, Elected{Term: c.term})
}

// depose tells a former leader that it is none any more. What it has proposed and is not committed never will be.
func (c *cluster) depose(name NodeName) {
	keep := c.waiting[:0:0]
	for _, p := range c.waiting {
		if p.by == name && p.term < c.term {
			c.step(name, ProposalFailed{ID: p.cmd.ID, Reason: "leadership lost"})
			continue
		}
		keep = append(keep, p)
	}
	c.waiting = keep
	c.step(name, Deposed{})
}

// heal joins the network again.
func (c *cluster) heal() {
	clear(c.cut)
	for _, name := range c.names {
		n := c.nodes[name]
		n.deaf = false
		if n.up && n.term < c.term {
			n.term = c.term
			c.depose(name)
			c.step(name, LeaderSeen{Leader: c.leader})
		}
		c.catchUp(name)
	}
}

func (c *cluster) isolate(name NodeName) {
	for _, other := range c.names {
		c.cut[[2]NodeName{name, other}], c.cut[[2]NodeName{other, name}] = true, true
	}
}

func (c *cluster) freeze(name NodeName) {
	n := c.nodes[name]
	n.frozen = n.up
	n.slept = n.up && len(n.bound) > 0
}

func (c *cluster) thaw(name NodeName) {
	n := c.nodes[name]
	n.frozen = false
	n.slept = n.slept && n.lease["writer"] < c.now
	inbox := n.inbox
	n.inbox = nil
	for _, ev := range inbox {
		c.step(name, ev)
	}
	c.step(name, Tick{})
}

// finish ends the system calls of a node that hang.
func (c *cluster) finish(name NodeName) {
	n := c.nodes[name]
	ends := n.hung
	n.hung = nil
	clear(n.hang)
	for _, end := range ends {
		end()
	}
}

// settle boots all nodes with healthy servers and lets time pass until owner serves the first group and leader leads.
func (c *cluster) settle(owner, leader NodeName) {
	healthy := Health{State: Healthy, Writable: Yes}
	for _, name := range c.names {
		if c.nodes[name].health.State == HealthUnknown && name == owner {
			c.nodes[name].health = healthy
			if c.nodes[name].sql != nil {
				c.look(c.nodes[name])
			}
		}
		c.boot(name)
	}
	c.elect(leader)
	c.run(700 * time.Millisecond)
	for _, n := range c.cfg.Nodes {
		if !n.Witness && n.Name != owner && c.nodes[n.Name].health.State == HealthUnknown {
			c.nodes[n.Name].health = healthy
			if c.nodes[n.Name].sql != nil {
				c.look(c.nodes[n.Name])
				continue
			}
			c.step(n.Name, HealthChanged{Health: healthy})
		}
	}
	c.run(100 * time.Millisecond)
	first := c.cfg.Groups[0].Name
	if g := c.nodes[leader].ledger.View().Groups[first]; g.Owner != owner {
		c.t.Fatalf("not settled: %s is owned by %q", first, g.Owner)
	}
	if c.leader != leader {
		c.t.Fatalf("not settled: %s leads", c.leader)
	}
}
