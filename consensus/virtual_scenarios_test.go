package consensus

import (
	"testing"
	"time"
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
