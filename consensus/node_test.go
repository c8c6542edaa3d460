package consensus

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

func TestColdStartInAnyOrder(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}} {
		c := newCluster(t, "db1", "db2", "mgr")
		for _, i := range order {
			c.nodes[i].start()
		}
		id := c.commit()
		c.have(id, c.nodes...)
		for _, m := range c.nodes {
			want := []core.NodeName{"db1", "db2", "mgr"}
			eventually(t, "three voters", func() bool {
				vs := eventsOf[core.VotersChanged](m)
				return len(vs) > 0 && slices.Equal(vs[len(vs)-1].Voters, want)
			})
		}
		for _, m := range c.nodes {
			m.shutdown()
		}
	}
}

func TestCommandsAreAppliedInOrderEverywhere(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	l := c.leader()
	c.commit()
	var want []uint64
	for range 100 {
		id := lastID.Add(1)
		want = append(want, id)
		l.Propose(core.Command{ID: id}, nil)
	}
	c.have(want[len(want)-1], c.nodes...)
	for _, m := range c.nodes {
		got := m.committed()
		if i := slices.Index(got, want[0]); i < 0 || !slices.Equal(got[i:], want) {
			t.Errorf("%s was told %v, want %v at the end", m.name, got, want)
		}
	}
}

func TestProposalsThatFailForCertain(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	for _, m := range c.nodes {
		m.open()
	}
	m := c.nodes[0]
	m.Propose(core.Command{ID: 1}, nil)
	failed(t, m, 1, true)
	c.startAll()
	l := c.leader()
	f := c.others(l)[0]
	f.Propose(core.Command{ID: 2}, nil)
	failed(t, f, 2, true)
	l.Propose(core.Command{ID: 3}, func() bool { return true })
	failed(t, l, 3, true)
}

// failed waits for the failure of a proposal.
func failed(t *testing.T, m *member, id uint64, known bool) {
	t.Helper()
	eventually(t, "the failure of a proposal", func() bool {
		for _, f := range eventsOf[core.ProposalFailed](m) {
			if f.ID == id {
				if f.Known != known {
					t.Errorf("proposal %d failed with Known %v, want %v: %s", id, f.Known, known, f.Reason)
				}
				return true
			}
		}
		return false
	})
}

func TestLeaderStopsAndAnotherIsElected(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	id := c.commit()
	old := c.leader()
	term := old.Term()
	old.shutdown()
	rest := c.others(old)
	l := c.leader(rest...)
	es := eventsOf[core.Elected](l)
	if len(es) == 0 || es[len(es)-1].Term <= term {
		t.Errorf("the new leader was told %v, want an election after term %d", es, term)
	}
	second := c.commit(rest...)
	c.have(id, rest...)
	old.forget()
	old.start()
	c.have(second, old)
}

func TestRestartKeepsTheState(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	id := c.commit()
	c.have(id, c.nodes...)
	before := c.nodes[1].Status()
	for _, m := range c.nodes {
		m.shutdown()
		m.forget()
	}
	c.startAll()
	second := c.commit()
	c.have(id, c.nodes...)
	c.have(second, c.nodes...)
	after := c.nodes[1].Status()
	if after.Server != before.Server || after.Term <= before.Term {
		t.Errorf("server %s in term %d after the restart, was %s in %d", after.Server, after.Term, before.Server, before.Term)
	}
}

func TestReinstalledNodeGetsANewServerID(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	id := c.commit()
	for _, m := range []*member{c.nodes[0], c.nodes[2]} {
		old := m.Status().Server
		m.shutdown()
		m.wipe()
		m.start()
		c.have(id, m)
		eventually(t, "the new server votes and the old one is gone", func() bool {
			s := c.leader().Status()
			return m.votes(m.id) && len(s.Servers) == 3 && !slices.ContainsFunc(s.Servers, func(v Server) bool { return v.ID == old || !v.Voter })
		})
	}
	c.have(c.commit(), c.nodes...)
}

func TestRemovedServerStops(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	// A server that has nothing in its log yet does not know that it was a member, and is taken in like any other.
	c.have(c.commit(), c.nodes...)
	m := c.others(c.leader())[0]
	twin := &member{c: c, name: m.name, dir: t.TempDir(), tls: m.tls}
	m.shutdown()
	twin.start()
	c.nodes = append(c.others(m), twin)
	eventually(t, "the twin votes", func() bool { return twin.votes(twin.id) })
	c.leader()
	twin.shutdown()
	m.start()
	select {
	case err := <-m.Failed():
		if !errors.Is(err, ErrRemoved) {
			t.Errorf("failed with %v, want %v", err, ErrRemoved)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the removed server did not notice")
	}
	if m.Term() != 0 {
		t.Errorf("the removed server still answers in term %d", m.Term())
	}
	m.shutdown()
	twin.start()
	c.have(c.commit(), c.nodes...)
}

// A server that was away when it was removed may be told of it with the last entries it gets. It then knows that it is no
// voter, and must not ask its way in again in place of the one that has its part now.
func TestReplacedServerIsNotTakenInAgain(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.have(c.commit(), c.nodes...)
	l := c.leader()
	away := c.others(l)[0]
	away.shutdown()
	old := hello{Server: raft.ServerID(string(away.name) + "#00000001"), Running: true, State: true, Joining: true, Applied: uint64(l.Status().Applied)}
	for _, s := range l.Status().Servers {
		old.Servers = append(old.Servers, serverInfo{ID: s.ID, Voter: s.Voter})
	}
	l.peers.get(away.name).said.Store(&old)
	if err := l.keepMembers(l.raft.Load()); err != nil {
		t.Fatal(err)
	}
	if s := l.Status().Servers; slices.ContainsFunc(s, func(v Server) bool { return v.ID == old.Server }) {
		t.Errorf("the servers are %v: %s was taken in again", s, old.Server)
	}
	empty := old
	empty.Servers = nil
	l.peers.get(away.name).said.Store(&empty)
	if err := l.keepMembers(l.raft.Load()); err != nil {
		t.Fatal(err)
	}
	if s := l.Status().Servers; !slices.ContainsFunc(s, func(v Server) bool { return v.ID == old.Server }) {
		t.Errorf("the servers are %v: the empty server %s was not taken in", s, old.Server)
	}
}

func TestNodesLeaveAndEnterTheConfiguration(t *testing.T) {
	c := newCluster(t, "db1", "db2", "db3", "mgr")
	all := c.specs
	c.specs = all[:3]
	last := c.nodes[3]
	c.nodes = c.nodes[:3]
	c.startAll()
	l := c.leader()
	l.Propose(core.Command{ID: lastID.Add(1), Ops: []core.Op{{Configure: &core.Config{Version: 1, Nodes: all, TTL: 300}}}}, nil)
	c.specs = all
	last.start()
	eventually(t, "the fourth node votes", func() bool { return last.votes(last.id) })
	for _, m := range c.nodes {
		eventually(t, "the longest lease is kept", func() bool {
			d, err := LongestLease(m.dir)
			return err == nil && d == 300*time.Millisecond
		})
	}
	// Then the leader itself leaves.
	l = c.leader()
	rest := slices.DeleteFunc(slices.Clone(all), func(s core.NodeSpec) bool { return s.Name == l.name })
	l.Propose(core.Command{ID: lastID.Add(1), Ops: []core.Op{{Configure: &core.Config{Version: 2, Nodes: rest, TTL: 300}}}}, nil)
	among := append(c.others(l), last)
	eventually(t, "the leader is removed", func() bool {
		s := c.leader(among...).Status()
		return len(s.Servers) == 3 && !slices.ContainsFunc(s.Servers, func(v Server) bool { return v.Node == l.name })
	})
	select {
	case err := <-l.Failed():
		if !errors.Is(err, ErrRemoved) {
			t.Errorf("the node that left failed with %v, want %v", err, ErrRemoved)
		}
	case <-time.After(30 * time.Second):
		t.Error("the node that left was not told")
	}
	c.have(c.commit(among...), among...)
	last.shutdown()
}

func TestBeforeStartNothingIsPromised(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.commit()
	m := c.others(c.leader())[0]
	m.shutdown()
	m.forget()
	m.open()
	l := c.leader(c.others(m)...)
	eventually(t, "a datagram arrives", func() bool {
		l.Send(m.name, core.Confirm{Term: l.Term(), Nonce: 1})
		return len(m.received()) > 0
	})
	if g := m.received()[0]; g.Term != 0 || g.From != l.name {
		t.Errorf("got %+v, want term 0 from %s", g, l.name)
	}
	if s := m.Status(); s.State != "starting" {
		t.Errorf("state is %q, want starting", s.State)
	}
	m.start()
	eventually(t, "the term is told after the start", func() bool { return m.Term() == l.Term() })
}

func TestSnapshotReachesANewNode(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	var last uint64
	for range 20 {
		last = c.commit()
	}
	c.have(last, c.nodes...)
	for _, m := range c.nodes {
		r := m.raft.Load()
		rc := r.ReloadableConfig()
		rc.TrailingLogs = 1
		must(t, r.ReloadConfig(rc))
		must(t, r.Snapshot().Error())
	}
	m := c.others(c.leader())[0]
	m.shutdown()
	m.wipe()
	m.start()
	c.have(last, m)
	if len(eventsOf[core.Restored](m)) == 0 {
		t.Error("the new node was not told of the snapshot")
	}
	// A restart restores it from disk.
	eventually(t, "the new node votes", func() bool { return m.votes(m.id) })
	m.shutdown()
	m.forget()
	m.start()
	if len(eventsOf[core.Restored](m)) != 1 {
		t.Error("no snapshot was restored at the restart")
	}
	c.have(last, m)
}

func TestLeadershipIsHandedOn(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.commit()
	l := c.leader()
	to := c.others(l)[1]
	eventually(t, "the other leads", func() bool {
		if l.Status().State == "leader" {
			l.TransferLeadership(to.name)
			time.Sleep(100 * time.Millisecond)
		}
		return to.Status().State == "leader"
	})
	eventually(t, "the old leader is told", func() bool { return len(eventsOf[core.Deposed](l)) > 0 })
}

func TestOneProcessForEachStateDirectory(t *testing.T) {
	c := newCluster(t, "db1")
	m := c.nodes[0]
	m.start()
	c.commit()
	if _, err := Open(m.config()); !errors.Is(err, ErrInUse) {
		t.Errorf("second open: %v, want %v", err, ErrInUse)
	}
}

func TestShutdownIsBounded(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.commit()
	for _, m := range c.nodes {
		start := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		must(t, m.Shutdown(ctx))
		cancel()
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("shutdown of %s took %v", m.name, d)
		}
		m.Node = nil
	}
}

// TestShutdownWaitsForNoAnswer: a Raft that has ended takes questions that nobody will answer.
func TestShutdownWaitsForNoAnswer(t *testing.T) {
	c := newCluster(t, "db1")
	c.startAll()
	m := c.leader()
	r := m.raft.Load()
	must(t, r.Shutdown().Error())
	for range 20 {
		m.beatNow(r)
		m.asking.Store(false)
	}
	m.shutdown()
}

// TestOlderHello: what a node has said last counts, on whichever session it comes.
func TestOlderHello(t *testing.T) {
	p := &peer{}
	for _, h := range []struct {
		hello
		counts bool
	}{
		{hello{Incarnation: 1, Seq: 5, Leader: "db1"}, true},
		{hello{Incarnation: 1, Seq: 4}, false},
		{hello{Incarnation: 1, Seq: 6, Leader: "db2"}, true},
		{hello{Incarnation: 2, Seq: 1, Leader: "db3"}, true},
	} {
		if p.note(&h.hello) != h.counts || h.counts && p.hello().Leader != h.Leader {
			t.Errorf("of hello %d of process %d it is not %t that it counts; kept is %+v", h.Seq, h.Incarnation, h.counts, p.hello())
		}
	}
}

// A session is known a moment before what the peer has said on it.
func TestSurveyBetweenSessionAndHello(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	m := c.nodes[0]
	m.open()
	m.peers.get("db2").session.Store(7)
	if v := m.survey(); !slices.Contains(v.silent, "db2") {
		t.Errorf("silent %v, want db2 among them", v.silent)
	}
}
