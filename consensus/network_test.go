package consensus

import (
	"net"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

// TestLeaderCutOff drops all packets of the leader: the others elect another, the old one stands down, nothing that was
// committed is lost, and after the repair all have the same log.
func TestLeaderCutOff(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	first := c.commit()
	c.have(first, c.nodes...)
	f := newFirewall(t)
	for range 2 {
		old := c.leader()
		rest := c.others(old)
		start := time.Now()
		f.cut(old, rest...)
		l := c.leader(rest...)
		t.Logf("another leader %v after the power cut (heartbeat timeout %v)", time.Since(start), c.timing.RaftHeartbeat)
		eventually(t, "the old leader is told", func() bool { return len(eventsOf[core.Deposed](old)) > 0 })
		id := lastID.Add(1)
		old.Propose(core.Command{ID: id}, nil)
		failed(t, old, id, true)
		second := c.commit(rest...)
		c.have(second, rest...)
		f.heal()
		start = time.Now()
		c.have(second, old)
		t.Logf("caught up %v after the repair", time.Since(start))
		if l.Status().State != "leader" {
			t.Logf("%s lost its leadership when %s came back", l.name, old.name)
		}
		old.forget()
	}
}

// TestUncertainProposal cuts the leader off with a proposal under way: nobody can say that it will never be committed.
func TestUncertainProposal(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.commit()
	l := c.leader()
	newFirewall(t).cut(l, c.others(l)...)
	id := lastID.Add(1)
	l.Propose(core.Command{ID: id}, nil)
	failed(t, l, id, false)
}

// TestReturnAfterALongAbsence: a follower that was away is of use as soon as it is back.
func TestReturnAfterALongAbsence(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.commit()
	l := c.leader()
	away := c.others(l)[0]
	f := newFirewall(t)
	f.cut(away, c.others(away)...)
	time.Sleep(5 * time.Second)
	rest := c.others(away)
	id := c.commit(rest...)
	f.heal()
	start := time.Now()
	c.have(id, away)
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("caught up %v after the repair", d)
	}
}

// TestSessionsNoticeAPowerCut: reachability follows the packets and not TCP's patience.
func TestSessionsNoticeAPowerCut(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	a, b := c.nodes[0], c.nodes[1]
	a.open()
	b.open()
	reachable := func() bool { return a.Status().Peers[0].Reachable }
	eventually(t, "a session", reachable)
	f := newFirewall(t)
	f.cut(a, b)
	start := time.Now()
	eventually(t, "the loss is noticed", func() bool { return !reachable() })
	if d := time.Since(start); d > a.lim.hello+10*a.lim.rpc {
		t.Errorf("noticed after %v", d)
	}
	f.heal()
	eventually(t, "the session is back", reachable)
}

// TestSilentPeerDelaysNobody has an address of a peer accept connections and never answer.
func TestSilentPeerDelaysNobody(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.commit()
	dead := c.nodes[2]
	dead.shutdown()
	ln, err := net.Listen("tcp", c.specs[2].Address.String())
	must(t, err)
	defer ln.Close()
	held := make(chan net.Conn, 4096)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				close(held)
				return
			}
			held <- conn
		}
	}()
	rest := c.others(dead)
	for range 5 {
		c.commit(rest...)
	}
	l := c.leader(rest...)
	if p50, _ := l.commits.percentiles(); p50 > time.Second {
		t.Errorf("a commit takes %v", p50)
	}
	must(t, ln.Close())
	for conn := range held {
		conn.Close()
	}
}

// TestOneWayCut: a leader whose packets do not reach anybody is replaced, and one that hears nobody stands down.
func TestOneWayCut(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.commit()
	f := newFirewall(t)
	for _, outward := range []bool{true, false} {
		old := c.leader()
		rest := c.others(old)
		for _, o := range rest {
			if outward {
				f.drop(old.address(), o.address())
			} else {
				f.drop(o.address(), old.address())
			}
		}
		c.have(c.commit(rest...), rest...)
		eventually(t, "the old leader stands down", func() bool { return len(eventsOf[core.Deposed](old)) > 0 })
		f.heal()
		c.have(c.commit(), c.nodes...)
		old.forget()
	}
}
