package consensus

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// TestVirtualScenarios tries each kind of fault at the node where it hurts most. In all of them no two nodes hold a lease,
// and when it is over every group is served.
func TestVirtualScenarios(t *testing.T) {
	id := newIdentities(t)
	for _, tt := range vScenarios() {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, nodes := range vSizes {
				v, s := inVirtualTime(t, id, vPlan{seed: uint64(nodes), nodes: nodes}, func(c *vCluster) {
					c.settle()
					tt.play(c)
					c.repair()
					c.settle()
				})
				if v != nil {
					t.Errorf("%d nodes: %v", nodes, v)
				}
				if tt.want != nil {
					if why := tt.want(s); why != "" {
						t.Errorf("%d nodes: %s: %v", nodes, why, s)
					}
				}
			}
		})
	}
}

// vScenario is a play of something that goes wrong.
type vScenario struct {
	name string
	play func(c *vCluster)
	// want says what is missing for the play to have been one, or nothing.
	want func(s vStats) string
}

func failedOver(s vStats) string {
	if s.failovers == 0 {
		return "no failover"
	}
	return ""
}

func vScenarios() []vScenario {
	const long = 3 * time.Second
	return []vScenario{
		{"both-way partition around the owner", func(c *vCluster) {
			n1, n2 := c.machines[0], c.machines[1]
			for range 3 {
				if !c.arrange(n1, n2) {
					return
				}
				c.isolate(n1)
				c.run(long)
				c.fabric.heal()
			}
		}, failedOver},
		{"both-way partition around the leader", func(c *vCluster) {
			for range 3 {
				if l := c.leader(); l != nil {
					c.isolate(l)
				}
				c.run(long)
				c.fabric.heal()
				c.settle()
			}
		}, nil},
		{"leader and owner are cut off together", func(c *vCluster) {
			n1 := c.machines[0]
			if !c.arrange(n1, n1) {
				return
			}
			c.isolate(n1)
			c.run(long)
		}, failedOver},
		{"partition without a majority", func(c *vCluster) {
			for _, m := range c.machines {
				c.isolate(m)
			}
			c.run(long)
			if !c.oracle.isBroken() && c.machines[0].kernel.answers("g1") {
				c.oracle.fail(sane, "n1 answers without a majority")
			}
		}, nil},
		{"nobody hears the owner", func(c *vCluster) {
			n1, n2 := c.machines[0], c.machines[1]
			if !c.arrange(n1, n2) {
				return
			}
			out, _ := c.links(n1)
			c.fabric.sever(out...)
			c.run(long)
		}, failedOver},
		{"the owner hears nobody", func(c *vCluster) {
			n1, n2 := c.machines[0], c.machines[1]
			if !c.arrange(n1, n2) {
				return
			}
			_, in := c.links(n1)
			c.fabric.sever(in...)
			c.run(long)
		}, failedOver},
		{"nobody hears the leader", func(c *vCluster) {
			out, _ := c.links(c.leader())
			c.fabric.sever(out...)
			c.run(long)
		}, nil},
		{"the leader hears nobody", func(c *vCluster) {
			_, in := c.links(c.leader())
			c.fabric.sever(in...)
			c.run(long)
		}, nil},
		{"the leader's store stands still", func(c *vCluster) {
			n1, n2 := c.machines[0], c.machines[1]
			for range 3 {
				if !c.arrange(n1, n2) {
					return
				}
				n2.drive.stall(long)
				c.commit() // something to write
				c.run(long + time.Second)
			}
		}, func(s vStats) string {
			if s.failovers > 0 || s.offices < 4 {
				return "a lease was lost, or leadership was not"
			}
			return ""
		}},
		{"the owner's store stands still", func(c *vCluster) {
			n1, n2 := c.machines[0], c.machines[1]
			if !c.arrange(n1, n2) {
				return
			}
			n1.drive.stall(2 * long)
			c.commit()
			c.run(2*long + time.Second)
		}, func(s vStats) string {
			if s.failovers > 0 {
				return "a lease was lost to a disk"
			}
			return ""
		}},
		{"the store of a deposed leader wakes up", func(c *vCluster) {
			n1, n2 := c.machines[0], c.machines[1]
			if !c.arrange(n1, n2) {
				return
			}
			n2.drive.stall(long)
			c.move("g1", c.machines[2])
			c.run(10 * time.Millisecond)
			c.isolate(n2)
			c.run(long - 20*time.Millisecond)
			c.fabric.heal()
			c.run(long)
		}, nil},
		{"all stores stand still", func(c *vCluster) {
			for _, m := range c.machines {
				m.drive.stall(long)
			}
			c.commit()
			c.run(long + time.Second)
		}, nil},
		{"stores fail in turn", func(c *vCluster) {
			for _, m := range c.machines {
				m.drive.fail(time.Second)
				c.commit()
				c.run(1500 * time.Millisecond)
			}
		}, nil},
		{"the leader's store fails", func(c *vCluster) {
			for range 3 {
				if l := c.leader(); l != nil {
					l.drive.fail(long)
				}
				c.commit()
				c.run(long)
				c.settle()
			}
		}, nil},
		{"leadership flips", func(c *vCluster) {
			n1, n2 := c.machines[0], c.machines[1]
			if !c.arrange(n1, n2) {
				return
			}
			for i := range 30 {
				if l := c.leader(); l != nil {
					l.proc.node.Load().TransferLeadership(c.machines[1+i%(len(c.machines)-1)].name)
				}
				c.run(200 * time.Millisecond)
			}
		}, func(s vStats) string {
			if s.offices < 10 || s.failovers > 0 {
				return "leadership did not flip, or a lease was lost"
			}
			return ""
		}},
		{"a deposed leader does not know, and hears an owner that its successor does not", func(c *vCluster) { c.splitLeadership(2 * time.Second) }, failedOver},
		{"the voters are in two terms, and the owner reports to both leaders", func(c *vCluster) { c.splitVoters(2 * time.Second) }, nil},
		{"leadership leaves and comes back, and the agent is not told", func(c *vCluster) { c.returnLeadership(2 * time.Second) }, nil},
		{"leases are made long and short again", func(c *vCluster) { c.shortenLeases(2 * time.Second) }, failedOver},
		{"the owner is killed", func(c *vCluster) {
			for range 3 {
				if m := c.owner("g1"); m != nil {
					c.stop(m, killed, long)
				}
				c.run(long + time.Second)
				c.settle()
			}
		}, failedOver},
		{"the leader loses power", func(c *vCluster) {
			for range 3 {
				if m := c.leader(); m != nil {
					c.stop(m, powerLost, long)
				}
				c.run(long + time.Second)
				c.settle()
			}
		}, nil},
		{"everything is killed, in the middle of writes", func(c *vCluster) {
			for range 3 {
				for _, m := range c.machines {
					m.drive.stall(50 * time.Millisecond)
				}
				c.move("g1", c.machines[c.dice.IntN(len(c.machines))])
				c.run(20 * time.Millisecond)
				for _, m := range c.machines {
					c.stop(m, killed, 100*time.Millisecond)
				}
				c.run(time.Second)
				c.settle()
			}
		}, nil},
		{"the leader is killed while its store stands still", func(c *vCluster) {
			for range 6 {
				c.settle()
				if m := c.leader(); m != nil {
					m.drive.stall(long)
					c.commit()
					c.run(100 * time.Millisecond)
					c.stop(m, killed, time.Second)
				}
				c.run(2 * time.Second)
			}
		}, nil},
		{"the leader loses power in a write that its followers have done", func(c *vCluster) {
			for range 4 {
				c.settle()
				c.loseAppend()
				c.run(2 * time.Second)
			}
		}, nil},
		{"the followers' disks fail in a write that the leader does", func(c *vCluster) {
			for range 4 {
				c.settle()
				c.refuseAppend()
				c.run(2 * time.Second)
			}
		}, nil},
		{"machines are set up anew, one after the other", func(c *vCluster) {
			for _, m := range c.machines {
				c.renew(m, 500*time.Millisecond)
				c.run(long)
				c.settle()
			}
		}, failedOver},
		{"moves, one after the other", func(c *vCluster) {
			for range 10 {
				c.move("g1", c.machines[c.dice.IntN(len(c.machines))])
				c.run(300 * time.Millisecond)
			}
		}, func(s vStats) string {
			if s.releases < 3 {
				return "it did not move"
			}
			return ""
		}},
		{"slow acks", func(c *vCluster) {
			n1, n2 := c.machines[0], c.machines[1]
			for range 3 {
				if !c.arrange(n1, n2) {
					return
				}
				c.slowAcks(n1, n2)
				c.fabric.heal()
			}
		}, failedOver},
	}
}

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
// lose power after that, for longer than the others need to stand for election although their disks have failed. Nobody may have
// been told that the command is committed.
func (c *vCluster) refuseAppend() {
	m := c.leader()
	if m == nil {
		return
	}
	var refused atomic.Int32
	for _, o := range c.machines {
		if o != m {
			o.drive.trips(func() {
				refused.Add(1)
				o.drive.failing = time.Now().Add(300 * time.Millisecond)
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

// vSeeds returns which seeds to play: REMORA_SEED names one, to repeat it, and REMORA_SEEDS says how many.
func vSeeds(t *testing.T) []uint64 {
	number := func(name string, otherwise uint64) uint64 {
		s := os.Getenv(name)
		if s == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(s, 10, 64)
		must(t, err)
		return n
	}
	if seed := number("REMORA_SEED", 0); seed != 0 {
		return []uint64{seed}
	}
	var all []uint64
	for i := range number("REMORA_SEEDS", vDefaultSeeds) {
		all = append(all, i+1)
	}
	return all
}

// TestVirtualSeeds lets everything go wrong at random, one cluster for each seed. The faults and their times follow from the
// seed; Raft's own chance and the order in which goroutines run do not, so a failure may need a few attempts to come again.
func TestVirtualSeeds(t *testing.T) {
	id := newIdentities(t)
	seeds := vSeeds(t)
	began := time.Now()
	var mu sync.Mutex
	var sum vStats
	t.Run("seeds", func(t *testing.T) {
		for _, seed := range seeds {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				v, s := inVirtualTime(t, id, vPlan{seed: seed, nodes: 3 + 2*int(seed%4/3), groups: 1 + int(seed%2)}, atRandom)
				if v != nil {
					t.Errorf("%v\nagain: REMORA_SEED=%d go test ./consensus -run TestVirtualSeeds", v, seed)
				}
				mu.Lock()
				defer mu.Unlock()
				sum.add(s)
			})
		}
	})
	took := time.Since(began)
	t.Logf("%v in %v, %.0f simulated seconds a second: %v", sum.virtual.Round(time.Second), took.Round(time.Millisecond),
		sum.virtual.Seconds()/took.Seconds(), sum)
	if n := len(seeds); n > 1 && (sum.offices < 3*n || sum.failovers < n/2 || sum.releases < n) {
		t.Errorf("not much happened in %d seeds", n)
	}
}

// atRandom plays half of the kinds of faults, so that rare ones get room.
func atRandom(c *vCluster) {
	c.settle()
	kinds := []vFault{isolated}
	for f := range vFaults {
		if c.dice.IntN(2) == 0 {
			kinds = append(kinds, f)
		}
	}
	c.chaos(5*time.Second, time.Duration(100+c.dice.IntN(200))*time.Millisecond, kinds)
	c.settle()
}
