package consensus

import (
	"slices"
	"testing"
	"time"
)

// TestVirtualLeaderLost cuts the leader off while another node owns, at ten moments between two heartbeats. The voter that owns
// nothing has had all heartbeats and stands as soon as it may, the owner, which was spared them, votes, and keeps its lease.
func TestVirtualLeaderLost(t *testing.T) {
	id := newIdentities(t)
	v, s := inVirtualTime(t, id, vPlan{seed: 3, nodes: 3, profile: "fast"}, func(c *vCluster) {
		c.settle()
		owner, other, leader := c.machines[0], c.machines[1], c.machines[2]
		var took []time.Duration
		for i := range 10 {
			if !c.arrange(owner, leader) {
				return
			}
			c.run(time.Second + time.Duration(i)*c.timing.Heartbeat/10)
			spared := func() bool { return owner.proc.node.Load().beats.spared() }
			if !c.until(time.Second, spared) {
				c.oracle.fail(sane, "the owner gets heartbeats between its Acks")
				return
			}
			c.isolate(leader)
			from := time.Now()
			c.until(time.Second, func() bool {
				_, first := leadership(owner.raft())
				_, second := leadership(other.raft())
				return first || second
			})
			took = append(took, time.Since(from))
			c.run(time.Second)
			if c.owner(c.config.Groups[0].Name) != owner {
				c.oracle.fail(sane, "the owner has lost its lease with the leader")
				return
			}
			c.fabric.heal()
			c.settle()
		}
		slices.Sort(took)
		t.Logf("another led after %v to %v, mostly %v", took[0], took[len(took)-1], took[len(took)/2])
		if limit := 2 * c.timing.RaftHeartbeat; took[len(took)/2] > limit {
			c.oracle.fail(sane, "another led mostly only after %v, want less than %v", took[len(took)/2], limit)
		}
		// The dice may let both stand at once; then the election begins again after one to two times its timeout.
		if limit := 2*c.timing.RaftHeartbeat + 2*c.timing.RaftElection; took[len(took)-1] > limit {
			c.oracle.fail(sane, "another led only after %v once, want less than %v", took[len(took)-1], limit)
		}
	})
	if v != nil {
		t.Errorf("%v: %v", v, s)
	}
}
