package consensus

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// broken says which rule of the protocol is broken on purpose, to show that an oracle sees it. Rules are broken by changing
// what passes between the agent, the node and the kernel; each of these is the real one, or behaves as ever.
type broken struct {
	confirmTerm bool          // a Confirm asks for the sender's term at sending, not for that of its office
	echoAny     bool          // a voter echoes whatever term it is asked for
	reportAny   bool          // a report is taken for its sender's echo whatever term the sender is in
	fromAnswer  bool          // a lease is counted from the last report before the ack came, not from the acked one
	noMargin    bool          // leases last as long as the arbiter waits
	oldOffice   bool          // proposals count although the office in which they were decided has ended
	forgetLong  bool          // the ledger forgets at once that longer leases than the present ones may be out
	noWait      bool          // an arbiter new in office believes that no lease can be out
	deaf        bool          // acks are not told
	generous    bool          // the fence holds leases for twice their length
	lazyUnbind  time.Duration // an unbind is said to be done, and is carried out that much later
	believes    bool          // a leader takes any answer to what it has sent early, and none, for that of a follower that has it
	rollback    bool          // a disk goes back to an earlier state, between two processes
}

// credulous is the disk of a node that believes its followers. When it has written an entry, they have.
type credulous struct {
	opened
	p *process
}

func (c credulous) StoreLogs(ls []*raft.Log) error {
	err := c.opened.StoreLogs(ls)
	n := c.p.node.Load()
	if err != nil || n == nil {
		return err
	}
	n.earlies.mu.Lock()
	defer n.earlies.mu.Unlock()
	for to, e := range n.earlies.calls {
		said := &early{request: e.request, reply: raft.AppendEntriesResponse{Term: e.request.Term, Success: true}, sent: time.Now(), done: make(chan struct{})}
		close(said.done)
		n.earlies.calls[to] = said
	}
	return nil
}

// told changes what an agent is told.
func (b broken) told(p *process, ev core.Event) []core.Event {
	switch e := ev.(type) {
	case core.Restored:
		if b.forgetLong {
			e.View.Longest = e.View.Config.TTL
		}
		return []core.Event{e}
	case core.Committed:
		if b.forgetLong {
			e.View.Longest = e.View.Config.TTL
			ev = e
		}
		if !p.takesOffice(e) {
			break
		}
		p.office.Store(uint64(e.Term))
		if b.noWait {
			blind := e
			blind.View.Longest, blind.View.Config.TTL = 1, 1
			return []core.Event{blind, core.Restored{View: e.View}}
		}
	case core.Received:
		switch msg := e.Msg.(type) {
		case core.Report:
			if b.reportAny && msg.Term != 0 {
				msg.Term = core.Term(p.office.Load())
				e.Msg = msg
			}
		case core.Confirm:
			if b.echoAny {
				e.Term = msg.Term
			}
		case core.Echo:
			if b.confirmTerm {
				msg.Term = core.Term(p.office.Load())
				e.Msg = msg
			}
		case core.Ack:
			if b.deaf {
				return nil
			}
			if b.fromAnswer && msg.Incarnation == p.inc {
				msg.Seq = core.Seq(p.report.Load())
				e.Msg = msg
			}
		}
		return []core.Event{e}
	}
	return []core.Event{ev}
}

// takesOffice reports whether an entry opens this process' own office.
func (p *process) takesOffice(c core.Committed) bool {
	for _, op := range c.Command.Ops {
		if op.TakeOffice != nil && op.TakeOffice.Incarnation == p.inc {
			return true
		}
	}
	return false
}

// sent changes what goes on the wire.
func (b broken) sent(p *process, m core.Message) core.Message {
	switch m := m.(type) {
	case core.Confirm:
		if b.confirmTerm {
			m.Term = p.node.Load().Term()
			return m
		}
	case core.Ack:
		if b.noMargin {
			m.TTL += core.Margin(m.TTL)
			return m
		}
	}
	return m
}

// proposed changes what is handed to Raft.
func (b broken) proposed(c core.Command) core.Command {
	if b.oldOffice {
		c.Office = 0
	}
	if !b.noMargin {
		return c
	}
	ops := append([]core.Op(nil), c.Ops...)
	for i, op := range ops {
		if op.Grant != nil {
			g := *op.Grant
			g.TTL += core.Millis(core.Margin(g.TTL.Duration()) / time.Millisecond)
			ops[i].Grant = &g
		}
	}
	c.Ops = ops
	return c
}

// TestVirtualOraclesSeeBrokenRules breaks a rule on purpose, and requires that each oracle notices by itself. The same play
// with nothing broken passes.
func TestVirtualOraclesSeeBrokenRules(t *testing.T) {
	id := newIdentities(t)
	split := func(c *vCluster) { c.splitLeadership(2 * time.Second) }
	slow := func(c *vCluster) {
		if c.arrange(c.machines[0], c.machines[1]) {
			c.slowAcks(c.machines[0], c.machines[1])
		}
	}
	for _, tt := range []struct {
		name   string
		broken broken
		see    []rule
		play   func(c *vCluster)
	}{
		{"confirm with the term at sending", broken{confirmTerm: true}, []rule{oneAnswers, oneHolder, oneLease}, split},
		{"echo any term", broken{echoAny: true}, []rule{oneAnswers, oneHolder, oneLease}, split},
		{"a report echoes any term", broken{reportAny: true}, []rule{oneAnswers, oneHolder, oneLease}, func(c *vCluster) { c.splitVoters(2 * time.Second) }},
		{"proposals of an old office count", broken{oldOffice: true}, []rule{oneLease}, func(c *vCluster) { c.returnLeadership(2 * time.Second) }},
		{"two lengths of lease", broken{forgetLong: true}, []rule{oneHolder, oneLease}, func(c *vCluster) { c.shortenLeases(2 * time.Second) }},
		{"lease counted from the answer", broken{fromAnswer: true}, []rule{oneAnswers, oneHolder}, slow},
		{"no margin", broken{noMargin: true}, []rule{oneLease}, func(c *vCluster) {
			if c.arrange(c.machines[0], c.machines[2]) {
				c.isolate(c.machines[0])
				c.run(time.Second)
			}
		}},
		{"no wait in office", broken{noWait: true}, []rule{oneAnswers, oneHolder, oneLease}, func(c *vCluster) {
			if !c.arrange(c.machines[0], c.machines[1]) {
				return
			}
			c.fabric.sever(link{0, 2}, link{2, 0})
			c.run(250 * time.Millisecond)
			c.machines[1].proc.node.Load().TransferLeadership("n3")
			c.run(time.Second)
		}},
		{"the kernel is more generous than the holder", broken{generous: true}, []rule{oneAnswers}, func(c *vCluster) {
			if c.arrange(c.machines[0], c.machines[1]) {
				c.machines[0].die(true)
				c.run(time.Second)
			}
		}},
		{"an unbind is said to be done and is not", broken{lazyUnbind: 200 * time.Millisecond}, []rule{oneAnswers, oneLease}, func(c *vCluster) {
			if c.arrange(c.machines[0], c.machines[1]) {
				c.move("g1", c.machines[2])
				c.run(time.Second)
			}
		}},
		{"a leader believes its followers", broken{believes: true}, []rule{oneLog, onDisks}, (*vCluster).refuseAppend},
		{"a leader believes its followers, at random", broken{believes: true}, []rule{onDisks}, atRandom},
		{"deaf to acks", broken{deaf: true}, []rule{served}, func(c *vCluster) { c.settle() }},
		{"a disk goes back in time", broken{rollback: true}, []rule{oneLog}, func(c *vCluster) {
			if !c.arrange(c.machines[0], c.machines[1]) {
				return
			}
			old := c.machines[0].drive.image()
			// Not cut off: what a leader has sent before it ends arrives when the network is well again, and is not lost then.
			c.machines[2].die(true)
			for range 3 {
				c.commit()
				c.run(100 * time.Millisecond)
			}
			c.machines[0].die(true)
			c.machines[1].die(true)
			c.run(100 * time.Millisecond)
			if c.broken.rollback {
				c.machines[0].drive.restore(old)
			}
			c.machines[0].boot()
			c.machines[2].boot()
			c.run(3 * time.Second)
		}},
	} {
		for _, r := range append(tt.see, 0) {
			name := tt.name + ", " + r.String()
			if r == 0 {
				name = tt.name + ", not broken"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				p := vPlan{seed: 1, nodes: 3, rules: r, clocks: []int64{-10000, 0, 10000}}
				if r != 0 {
					p.broken = tt.broken
				}
				v, _ := inVirtualTime(t, id, p, func(c *vCluster) {
					if !p.broken.deaf {
						c.settle()
					}
					tt.play(c)
				})
				switch {
				case r == 0 && v != nil:
					t.Errorf("with nothing broken: %v", v)
				case r != 0 && (v == nil || v.rule != r):
					t.Errorf("not seen: %v", v)
				case r != 0:
					t.Log(v.text)
				}
			})
		}
	}
}
