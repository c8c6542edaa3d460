package consensus

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// vFault is something that goes wrong in a virtual cluster, or that a person does.
type vFault uint8

const (
	partitioned vFault = iota
	isolated
	oneWay
	slowLinks
	lostDatagrams
	stalledStore
	failedStore
	transferred
	newsHeld
	killed
	powerLost
	serverFails
	moved
	slowKernel
	hungUnbind
	tornAppend
	vFaults
)

func (f vFault) String() string {
	return [...]string{"partition", "isolation", "one-way cut", "slow links", "lost datagrams", "stalled store", "failed store",
		"leadership handed on", "Raft's news held up", "process killed", "power lost", "MySQL fails", "move", "slow kernel", "hung unbind", "torn append"}[f]
}

// about returns a duration with a mean, bounded at three times that.
func (c *vCluster) about(mean time.Duration) time.Duration {
	return time.Duration(min(c.dice.ExpFloat64(), 3) * float64(mean))
}

// chaos lets things of some kinds go wrong for a while, and then ends all that goes wrong.
func (c *vCluster) chaos(span, every time.Duration, kinds []vFault) {
	for end := time.Now().Add(span); time.Now().Before(end); {
		if !c.run(c.about(every)) {
			return
		}
		c.inflict(kinds[c.dice.IntN(len(kinds))], c.someMachine(), 50*time.Millisecond+c.about(600*time.Millisecond))
	}
	c.repair()
}

// someMachine returns a machine, as likely as not one that matters now.
func (c *vCluster) someMachine() *machine {
	switch c.dice.IntN(4) {
	case 0:
		if m := c.owner(c.config.Groups[c.dice.IntN(len(c.config.Groups))].Name); m != nil {
			return m
		}
	case 1:
		if m := c.leader(); m != nil {
			return m
		}
	}
	return c.machines[c.dice.IntN(len(c.machines))]
}

// owner returns the machine that owns a group by the log, nil if none does.
func (c *vCluster) owner(g core.GroupName) (m *machine) {
	c.oracle.locked(func() { m = c.named(c.oracle.view.Groups[g].Owner) })
	return m
}

// leader returns the machine whose Raft leads in the highest term, nil if none does.
func (c *vCluster) leader() (best *machine) {
	var term uint64
	for _, m := range c.machines {
		if r := m.raft(); r != nil && r.State() == raft.Leader && r.CurrentTerm() > term {
			best, term = m, r.CurrentTerm()
		}
	}
	return best
}

func (m *machine) raft() *raft.Raft {
	if m.proc == nil || m.proc.node.Load() == nil {
		return nil
	}
	return m.proc.node.Load().raft.Load()
}

// links returns those from a machine to all others, and those back.
func (c *vCluster) links(m *machine) (out, in []link) {
	for _, o := range c.machines {
		if o != m {
			out, in = append(out, link{m.id, o.id}), append(in, link{o.id, m.id})
		}
	}
	return out, in
}

func (c *vCluster) inflict(f vFault, m *machine, span time.Duration) {
	c.trace(m, "fault: %v for %v", f, span)
	c.oracle.locked(func() { c.oracle.stats.faults[f]++ })
	switch f {
	case partitioned, isolated, oneWay, slowLinks, lostDatagrams:
		c.troubleNetwork(f, m)
		c.after(span, c.fabric.heal)
	case stalledStore:
		if !m.failedOnce {
			m.drive.stall(3 * span)
		}
	case failedStore:
		m.failedOnce = true
		m.drive.trips(nil)
		m.drive.fail(span)
	case transferred:
		if l := c.leader(); l != nil {
			l.proc.node.Load().TransferLeadership(c.machines[c.dice.IntN(len(c.machines))].name)
		}
	case newsHeld:
		m.hold(2 * span)
	case killed, powerLost:
		c.stop(m, f, span)
	case serverFails:
		m.setHealth(false)
		c.after(span, func() { m.setHealth(true) })
	case moved:
		c.move(c.config.Groups[c.dice.IntN(len(c.config.Groups))].Name, c.machines[c.dice.IntN(len(c.machines))])
	case slowKernel:
		m.kernel.takes(time.Millisecond + span/20)
		c.after(span, func() { m.kernel.takes(time.Millisecond) })
	case hungUnbind:
		m.kernel.hang(span)
	case tornAppend:
		c.tearAppend(span)
	}
}

// tearAppend has the leader's disk fail or stand still in the append of a command, and may have the process end in it.
func (c *vCluster) tearAppend(span time.Duration) {
	m := c.leader()
	if m == nil || m.failedOnce {
		return
	}
	d := m.drive
	switch c.dice.IntN(3) {
	case 0:
		m.failedOnce = true
		d.trips(func() { d.failing = time.Now().Add(span) })
	case 1:
		end := killed
		if c.dice.IntN(2) == 0 {
			end = powerLost
		}
		d.trips(func() { d.stalled = later(d.stalled, time.Now().Add(3*span)) })
		c.after(c.about(time.Millisecond), func() { c.stop(m, end, span) })
	default:
		d.trips(func() { d.stalled = later(d.stalled, time.Now().Add(3*span)) })
	}
	c.commit()
}

func (k *vKernel) takes(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.slow = d
}

func (k *vKernel) hang(span time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hangs = time.Now().Add(span)
}

func (c *vCluster) troubleNetwork(f vFault, m *machine) {
	out, in := c.links(m)
	switch f {
	case partitioned:
		side := map[int]bool{}
		for _, m := range c.machines {
			side[m.id] = c.dice.IntN(2) == 0
		}
		for _, a := range c.machines {
			for _, b := range c.machines {
				if side[a.id] != side[b.id] {
					c.fabric.sever(link{a.id, b.id})
				}
			}
		}
	case isolated:
		c.fabric.sever(append(out, in...)...)
	case oneWay:
		way := out
		if c.dice.IntN(2) == 0 {
			way = in
		}
		for _, l := range way {
			if c.dice.IntN(3) > 0 {
				c.fabric.sever(l)
			}
		}
	case slowLinks:
		c.fabric.delay(c.about(30*time.Millisecond), append(out, in...)...)
	case lostDatagrams:
		c.fabric.locked(func() { c.fabric.loss = 0.5 * c.dice.Float64() })
	}
}

// stop ends a process, which is started again after a while.
func (c *vCluster) stop(m *machine, f vFault, span time.Duration) {
	if m.proc == nil {
		return
	}
	m.die(f == killed)
	m.failedOnce = false
	c.after(span, m.boot)
}

// renew ends a process and has the machine set up anew: its state directory is gone.
func (c *vCluster) renew(m *machine, span time.Duration) {
	if m.proc == nil {
		return
	}
	m.die(false)
	c.after(span, func() {
		<-m.last.ended
		must(c.t, os.RemoveAll(m.dir))
		m.drive.restore(newPlatter())
		m.boot()
	})
}

// move asks whoever leads to bring a group to a machine. What comes of it the oracles see.
func (c *vCluster) move(g core.GroupName, to *machine) {
	l := c.leader()
	if l == nil {
		return
	}
	a := l.proc.agent
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = a.Move(ctx, g, to.name, "on purpose")
	}()
}

// repair ends all faults. A store that stands still goes on when its time has come.
func (c *vCluster) repair() {
	c.trace(nil, "everything is repaired")
	c.fabric.heal()
	c.due = nil
	for _, m := range c.machines {
		m.drive.mend()
		m.hold(0)
		m.kernel.takes(time.Millisecond)
		m.kernel.hang(0)
		if !m.healthy {
			m.setHealth(true)
		}
		m.boot()
	}
}

const (
	// settleWithin is how long it may take until all is well after the last fault.
	settleWithin = 12 * time.Second
	// settledFor is how long all must be well to count.
	settledFor = 500 * time.Millisecond
)

// settle waits until every group is served by its owner, and holds the cluster to it.
func (c *vCluster) settle() {
	began := time.Now()
	well := began
	for time.Since(well) < settledFor {
		if !c.run(10 * time.Millisecond) {
			return
		}
		why := c.oracle.unserved()
		if why == "" {
			continue
		}
		if well = time.Now(); well.Sub(began) > settleWithin {
			c.oracle.fail(served, "%v after the last fault %s", well.Sub(began), why)
			return
		}
	}
	c.oracle.locked(func() { c.oracle.stats.settled = max(c.oracle.stats.settled, well.Sub(began)) })
}

// isFollowed reports whether a leader has heard from all others that they follow it. It hands leadership to no others.
func (m *machine) isFollowed() bool {
	n := m.proc.node.Load()
	for _, p := range n.peers.all() {
		if p.hello().Leader != n.id {
			return false
		}
	}
	return true
}

// arrange brings the first group to one machine and Raft's leadership to another.
func (c *vCluster) arrange(owner, leader *machine) bool {
	g := c.config.Groups[0].Name
	ok := c.until(20*time.Second, func() bool {
		now := c.leader()
		switch {
		case now == nil || c.oracle.unserved() != "":
			return false
		case c.owner(g) != owner:
			c.move(g, owner)
			return !c.run(200 * time.Millisecond)
		case now != leader:
			now.proc.node.Load().TransferLeadership(leader.name)
			return !c.run(200 * time.Millisecond)
		}
		return leader.isFollowed()
	})
	if !ok {
		c.oracle.fail(sane, "%s could not be made the owner and %s the leader", owner.name, leader.name)
	}
	return ok && !c.oracle.isBroken()
}

func (s vStats) String() string {
	text := fmt.Sprintf("%v of virtual time, %d offices, %d grants of which %d failovers, %d releases; at most %v until all was well; "+
		"a lease had been over for %v at least when its group was granted to another node; groups answered at %.0f %% of the looks; faults:",
		s.virtual.Round(time.Second), s.offices, s.grants, s.failovers, s.releases, s.settled, s.closest, 100*float64(s.answered)/float64(max(s.looked, 1)))
	for f := range vFaults {
		text += fmt.Sprintf(" %d %v,", s.faults[f], f)
	}
	return text
}
