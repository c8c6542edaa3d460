package core

import (
	"testing"
	"time"
)

// promoteCluster is three nodes with servers, of which n1 owns the group of policy promote and n3 leads.
func promoteCluster(t *testing.T) *cluster {
	cfg := soloConfig()
	cfg.Groups[0].Policy = Promote
	c := newCluster(t, cfg, soloTiming(t))
	for _, name := range c.names {
		c.sql(c.nodes[name], func(s *server) {
			s.writable, s.executed = name == "n1", counts{"n1": 7}
			if !s.writable {
				s.source, s.receiving = "n1", true
			}
		})
	}
	c.settle("n1", "n3")
	return c
}

// ticks counts how often the machine of a node wakes by itself while d passes.
func (c *cluster) ticks(name NodeName, d time.Duration) int {
	n := 0
	before := c.act
	c.act = func(who NodeName, ev Event, as []Action) {
		if _, tick := ev.(Tick); tick && who == name {
			n++
		}
		before(who, ev, as)
	}
	defer func() { c.act = before }()
	c.run(d)
	return n
}

// A machine that waits for something wakes no more often for that than it reports and announces.
func TestWaitingCostsNoTicks(t *testing.T) {
	const second = time.Second
	retired, followed := soloConfig(), soloConfig()
	retired.Version, retired.Groups = 2, nil
	followed.Version, followed.Groups[0].Policy = 2, Follow
	configure := func(cfg Config) func(*cluster) {
		return func(c *cluster) {
			c.nodes["n1"].fail["demote"] = "nobody answers"
			c.nodes["n1"].health.State = Failed
			c.look(c.nodes["n1"])
			c.run(second)
			if s := &c.nodes["n1"].m.server; !s.demote {
				c.t.Fatal("the server is not to be made read-only any more")
			}
			for _, name := range c.names {
				c.step(name, ConfigOffered{Config: cfg})
			}
			c.run(second)
			if !c.nodes["n1"].m.quietServer() {
				c.t.Error("something is still on its way to the server")
			}
		}
	}
	for _, tt := range []struct {
		name string
		wait func(*cluster)
	}{
		{"for nothing", func(*cluster) {}},
		{"for the target of a switchover", func(c *cluster) {
			c.nodes["n2"].hang["catchup"] = true
			c.step("n3", MoveAsked{Ticket: 1, Group: "writer", To: "n2"})
			c.run(100 * time.Millisecond)
			if mv := c.nodes["n1"].m.fresh["writer"].Move; mv == nil || !mv.Drained {
				c.t.Fatalf("the switchover is at %+v, want it drained", mv)
			}
		}},
		{"for the end of a drain whose switchover was aborted", func(c *cluster) {
			c.nodes["n1"].hang["demote"] = true
			c.step("n3", MoveAsked{Ticket: 1, Group: "writer", To: "n2"})
			c.run(50 * time.Millisecond)
			c.step("n3", PauseAsked{Ticket: 2, Group: "writer", On: true})
			c.run(50 * time.Millisecond)
			c.finish("n1")
			c.run(100 * time.Millisecond)
			if h := c.nodes["n1"].m.held["writer"]; h == nil || h.unwritable || c.nodes["n1"].m.fresh["writer"].Move != nil {
				c.t.Fatalf("the switchover was not aborted: %+v", h)
			}
		}},
		{"for a dead server of a group that is gone", configure(retired)},
		{"for a dead server of a group that has another policy", configure(followed)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := promoteCluster(t)
			tt.wait(c)
			if n := c.ticks("n1", second); n > 30 {
				t.Errorf("%d ticks in a second", n)
			}
		})
	}
}
