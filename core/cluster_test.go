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
			c.step(name, AddressesSeen{{Address: p.Addr(), Present: n.foreign[p.Addr()]}})
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
