package consensus

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// isolate cuts all links of a machine.
func (c *vCluster) isolate(m *machine) {
	out, in := c.links(m)
	c.fabric.sever(append(out, in...)...)
}

// commit has the leader append an entry that changes nothing, and returns its ID, 0 if nobody leads.
func (c *vCluster) commit() uint64 {
	l := c.leader()
	if l == nil {
		return 0
	}
	id := c.dice.Uint64() | 1
	l.proc.node.Load().Propose(core.Command{ID: id, By: l.name, Ops: []core.Op{{Pause: &core.Pause{Group: "g1"}}}}, nil)
	return id
}

// loseAppend has the leader's machine lose power while its disk stands still in the append of a command. The others have the
// command, and commit it without that leader.
func (c *vCluster) loseAppend() {
	m := c.leader()
	if m == nil {
		return
	}
	d := m.drive
	d.trips(func() { d.stalled = time.Now().Add(time.Second) })
	id := c.commit()
	have := func(p *platter) bool {
		l := p.logs[p.last]
		cmd, err := decodeCommand(l.Data)
		return l.Type == raft.LogCommand && err == nil && cmd.ID == id
	}
	sent := c.until(100*time.Millisecond, func() bool {
		return !slices.ContainsFunc(c.machines, func(o *machine) bool { return o != m && !have(o.drive.image()) })
	})
	if !sent || have(d.image()) {
		c.oracle.fail(sane, "the followers of %s wait for its disk", m.name)
	}
	c.stop(m, powerLost, 2*time.Second)
	done := c.until(5*time.Second, func() (done bool) {
		c.oracle.locked(func() {
			for _, l := range c.oracle.log {
				done = done || l.id == id
			}
		})
		return done
	})
	if !done {
		c.oracle.fail(sane, "what the leader could not write is not committed by those who have it")
	}
}

// refuseAppend has all followers' disks fail in the append of a command that the leader's disk takes, and the leader's machine
// lose power after that. Nobody may have been told that the command is committed, and another leads soon after the disks work again.
func (c *vCluster) refuseAppend() {
	m := c.leader()
	if m == nil {
		return
	}
	const fails = 300 * time.Millisecond
	var refused atomic.Int32
	for _, o := range c.machines {
		if o != m {
			o.drive.trips(func() {
				refused.Add(1)
				o.drive.failing = time.Now().Add(fails)
			})
		}
	}
	id := c.commit()
	c.run(100 * time.Millisecond)
	last := m.drive.image()
	cmd, err := decodeCommand(last.logs[last.last].Data)
	if n := int(refused.Load()); n < len(c.machines)-1 || err != nil || cmd.ID != id {
		c.oracle.fail(sane, "%d followers refuse what %s writes; its last entry is of command %d, want %d (%v)", n, m.name, cmd.ID, id, err)
	}
	c.stop(m, powerLost, 5*time.Second)
	if !c.until(fails+10*c.timing.RaftHeartbeat, func() bool { l := c.leader(); return l != nil && l != m }) {
		c.oracle.fail(sane, "nobody leads although the disks that failed work again")
	}
	c.run(8 * time.Second)
}

// splitLeadership hands leadership on behind the back of the old leader's agent, and then cuts the new leader off from the owner,
// which the old one still hears.
func (c *vCluster) splitLeadership(span time.Duration) {
	n1, n2, n3 := c.machines[0], c.machines[1], c.machines[2]
	if !c.arrange(n1, n2) {
		return
	}
	n2.hold(span)
	n2.proc.node.Load().TransferLeadership(n3.name)
	if !c.until(time.Second, func() bool { return c.leader() == n3 }) {
		c.oracle.fail(sane, "leadership was not handed on")
		return
	}
	c.fabric.sever(link{n1.id, n3.id}, link{n3.id, n1.id})
	c.run(span)
}

// splitVoters hands leadership on to a node that reaches the owner by TCP alone, and the old leader not at all. The old one
// stays in its term, and its agent in office, for a moment.
func (c *vCluster) splitVoters(span time.Duration) {
	n1, n2, n3 := c.machines[0], c.machines[1], c.machines[2]
	if !c.arrange(n1, n2) {
		return
	}
	n2.hold(span)
	n2.setHealth(false) // it would not hear of a grant
	c.fabric.silence(link{n1.id, n3.id}, link{n3.id, n1.id})
	c.fabric.sever(link{n3.id, n2.id})
	n2.proc.node.Load().TransferLeadership(n3.name)
	if !c.until(time.Second, func() bool { return c.leader() == n3 }) {
		c.oracle.fail(sane, "leadership was not handed on")
		return
	}
	c.run(span)
}

// returnLeadership hands leadership on and back again without the knowledge of the first leader's agent, which does not hear
// the owner meanwhile.
func (c *vCluster) returnLeadership(span time.Duration) {
	n1, n2, n3 := c.machines[0], c.machines[1], c.machines[2]
	if !c.arrange(n1, n2) {
		return
	}
	n2.hold(span)
	c.fabric.silence(link{n1.id, n2.id})
	n2.proc.node.Load().TransferLeadership(n3.name)
	there := c.until(time.Second, func() bool { return c.leader() == n3 && n3.isFollowed() })
	c.run(100 * time.Millisecond)
	n3.proc.node.Load().TransferLeadership(n2.name)
	if !c.until(time.Second, func() bool { return c.leader() == n2 }) || !there {
		c.oracle.fail(sane, "leadership was not handed on and back")
		return
	}
	c.run(span)
}

// shortenLeases makes leases long and short again, and then hands leadership on to a node that is cut off from the owner.
func (c *vCluster) shortenLeases(span time.Duration) {
	n1, n2, n3 := c.machines[0], c.machines[1], c.machines[2]
	if !c.arrange(n1, n2) || !c.configure(1200*time.Millisecond) || !c.run(time.Second) {
		return
	}
	c.fabric.sever(link{n1.id, n3.id}, link{n3.id, n1.id})
	if !c.configure(300 * time.Millisecond) {
		return
	}
	n2.proc.node.Load().TransferLeadership(n3.name)
	c.run(span)
}

// configure changes the length of leases.
func (c *vCluster) configure(ttl time.Duration) bool {
	c.config.Version++
	c.config.TTL = core.Millis(ttl / time.Millisecond)
	for _, m := range c.machines {
		m.proc.agent.TryDeliver(core.ConfigOffered{Config: c.config})
	}
	ok := c.until(time.Second, func() (ok bool) {
		c.oracle.locked(func() { ok = c.oracle.view.Config.Version == c.config.Version })
		return ok
	})
	if !ok {
		c.oracle.fail(sane, "the new configuration was not committed")
	}
	return ok
}

// slowAcks lets what the leader sends the owner take longer than a heartbeat, and then keeps the owner's reports back.
func (c *vCluster) slowAcks(owner, leader *machine) {
	c.fabric.delay(100*time.Millisecond, link{leader.id, owner.id})
	c.run(time.Second)
	out, _ := c.links(owner)
	c.fabric.sever(out...)
	c.run(time.Second)
}
