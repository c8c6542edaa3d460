package core

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func soloTiming(t testing.TB) Timing {
	t.Helper()
	timing, err := ProfileTiming("lan")
	if err != nil {
		t.Fatal(err)
	}
	return timing
}

// owner returns the node that has the address in its kernel and is alive, or nothing.
func (c *cluster) owner() NodeName {
	for _, name := range c.names {
		n := c.nodes[name]
		if _, ok := n.bound[vip]; ok && n.up && !n.frozen {
			return name
		}
	}
	return ""
}

// With a quorum and one eligible node the group is bound again within the bounds that the timing gives.
func TestI6_BoundWithinBounds(t *testing.T) {
	lease := soloTTL + Margin(soloTTL)
	const hops = 20 * time.Millisecond // datagrams, commits and system calls of this test's world
	for _, tt := range []struct {
		name  string
		fault func(*cluster)
		bound time.Duration
	}{
		{"the owner's server dies", func(c *cluster) { c.step("n1", failed) }, hops},
		{"switchover", func(c *cluster) { c.step("n3", MoveAsked{Ticket: 1, Group: "writer", To: "n2"}) }, hops},
		{"the owner's daemon stops", func(c *cluster) { c.step("n1", ShutdownAsked{}) }, hops},
		{"the owner's link goes", func(c *cluster) { c.step("n1", LinkChanged{Interface: "eth0"}) }, hops},
		{"the owner's host dies", func(c *cluster) { c.kill("n1") }, lease + hops},
		{"the owner is cut off", func(c *cluster) { c.isolate("n1") }, lease + hops},
		{"owner and leader die, a leader after 100 ms", func(c *cluster) {
			c.elect("n1")
			c.run(50 * time.Millisecond)
			c.kill("n1")
			c.after(100*time.Millisecond, func() { c.elect("n2") })
		}, 150*time.Millisecond + lease + hops},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, soloConfig(), soloTiming(t))
			c.settle("n1", "n3")
			c.run(200 * time.Millisecond)
			begin := c.now
			tt.fault(c)
			for c.owner() == "" || c.owner() == "n1" {
				c.run(time.Millisecond)
				if c.now.Sub(begin) > tt.bound {
					t.Fatalf("bound on %q after %v, the bound is %v", c.owner(), c.now.Sub(begin), tt.bound)
				}
			}
		})
	}
}

// A leader's death costs another node's group nothing, as long as a new one is there before the lease is over.
func TestI6_LeaderDeathMovesNothing(t *testing.T) {
	c := newCluster(t, soloConfig(), soloTiming(t))
	c.settle("n1", "n3")
	for round := range 20 {
		leader := []NodeName{"n3", "n2"}[round%2]
		other := []NodeName{"n2", "n3"}[round%2]
		c.kill(leader)
		c.run(150 * time.Millisecond)
		c.elect(other)
		c.run(500 * time.Millisecond)
		c.boot(leader)
		c.run(500 * time.Millisecond)
		if g := c.nodes[other].ledger.View().Groups["writer"]; g.Epoch != 1 || c.owner() != "n1" {
			t.Fatalf("round %d: epoch %d of %s, bound on %q", round, g.Epoch, g.Owner, c.owner())
		}
	}
}

// misfortune does something bad, or good, to a cluster.
func misfortune(c *cluster, r *rand.Rand) {
	name := c.names[r.IntN(len(c.names))]
	n := c.nodes[name]
	switch r.IntN(12) {
	case 0:
		c.isolate(name)
	case 1, 2:
		c.heal()
	case 3:
		other := c.names[r.IntN(len(c.names))]
		c.cut[[2]NodeName{name, other}] = true
	case 4:
		c.kill(name)
	case 5, 6:
		if !n.up || n.stopped {
			c.boot(name)
		}
	case 7:
		n.health = []Health{failed.Health, healthy.Health, healthy.Health}[r.IntN(3)]
		c.step(name, HealthChanged{Health: n.health})
	case 8:
		c.freeze(name)
		c.after(time.Duration(r.IntN(600))*time.Millisecond, func() { c.thaw(name) })
	case 9:
		n.hang["extend"] = true // a hung bind or unbind outlives the lease: see the scripts
		c.after(time.Duration(r.IntN(400))*time.Millisecond, func() { c.finish(name) })
	case 10:
		c.step(name, MoveAsked{Ticket: r.Uint64(), Group: "writer", To: c.names[r.IntN(len(c.names))]})
	default:
		if n.up && !n.frozen && !n.stopped && c.majority(name) {
			c.elect(name)
		}
	}
}

// Whatever happens, the cluster's own checks of I1, I2, I4 and I7 hold; and once all is well again, the group is bound.
func TestI1_OneHolderWhateverHappens(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			c := newCluster(t, soloConfig(), soloTiming(t))
			c.settle("n1", "n3")
			for range 60 {
				misfortune(c, r)
				c.run(time.Duration(r.IntN(200_000)) * time.Microsecond)
			}
			c.heal()
			for _, name := range c.names {
				n := c.nodes[name]
				n.health = healthy.Health
				clear(n.fail)
				c.finish(name)
				c.thaw(name)
				if !n.up || n.stopped {
					c.boot(name)
				}
				c.step(name, healthy)
			}
			c.run(time.Second)
			c.elect("n2")
			c.run(15 * time.Second)
			if c.owner() == "" {
				t.Errorf("I6: nobody holds the address 15 s after all is well: %s", formatState(c.nodes["n2"].ledger.View().Groups["writer"]))
			}
		})
	}
}
