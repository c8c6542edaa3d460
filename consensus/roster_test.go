package consensus

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/hashicorp/raft"
)

// TestWhoVotesIsAskedAnewWhileRaftMayChangeIt: from the beginning of each of the three steps after which Raft takes a
// configuration until its next append, and only then.
func TestWhoVotesIsAskedAnewWhileRaftMayChangeIt(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	config := raft.Configuration{Servers: []raft.Server{{ID: "db1#00000001"}, {ID: "mgr#00000002", Suffrage: raft.Nonvoter}}}
	asked := 0
	latest := func() raft.Configuration { asked++; return config }
	check := func(when string, anew bool) {
		t.Helper()
		for range 3 {
			asked = 0
			for _, server := range append(config.Servers, raft.Server{ID: "db2#00000003", Suffrage: raft.Nonvoter}) {
				if got := s.roster.votes(server.ID, latest); got != (server.Suffrage == raft.Voter) {
					t.Errorf("%s: %s votes: %v", when, server.ID, got)
				}
			}
		}
		if (asked > 0) != anew {
			t.Errorf("%s: asked %d times, want it asked anew: %v", when, asked, anew)
		}
	}
	next := uint64(1)
	appends := func(kind raft.LogType) {
		t.Helper()
		must(t, s.StoreLogs([]*raft.Log{{Index: next, Term: 1, Type: kind}}))
		next++
	}
	turn := func() { // whoever votes does not any more, and the other does
		for i := range config.Servers {
			config.Servers[i].Suffrage = raft.Voter + raft.Nonvoter - config.Servers[i].Suffrage
		}
	}
	check("at first", false)
	appends(raft.LogCommand)
	appends(raft.LogNoop)
	check("after entries without a configuration", false)
	if n := testing.AllocsPerRun(100, func() { s.roster.votes("db1#00000001", latest) }); n > 0 {
		t.Errorf("%v allocations where nothing is asked", n)
	}
	down := errors.New("no network")
	for when, step := range map[string]func(){
		"an entry with a configuration":  func() { appends(raft.LogConfiguration) },
		"the end of the log was removed": func() { next--; must(t, s.DeleteRange(next, next)) },
		"a snapshot is restored": func() {
			a := &adapter{n: &Node{store: s}}
			if err := a.Restore(io.NopCloser(iotest.ErrReader(down))); !errors.Is(err, down) {
				t.Fatalf("restored: %v", err)
			}
		},
	} {
		step()
		check(when+", and Raft has not taken it", true)
		turn()
		check(when, true)
		appends(raft.LogCommand)
		check(when+", and then another entry", false)
		appends(raft.LogConfiguration)
		appends(raft.LogConfiguration)
		check(when+", and then two configurations", true)
		appends(raft.LogCommand)
	}
}

// TestWhoVotesIsWhatRaftSays at every moment of changes of the configuration, on each node.
func TestWhoVotesIsWhatRaftSays(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.have(c.commit(), c.nodes...)
	l := c.leader()
	m := c.others(l)[0]
	raftSays := func(n *member) bool { return isVoter(n.raft.Load().GetConfiguration().Configuration(), m.id) }
	var done atomic.Bool
	var watch sync.WaitGroup
	for _, n := range c.nodes {
		watch.Go(func() {
			for !done.Load() {
				before := raftSays(n)
				got := n.votes(m.id)
				if after := raftSays(n); before == after && got != before {
					t.Errorf("%s takes it that %s votes: %v, Raft that it does: %v", n.name, m.name, got, before)
				}
				time.Sleep(50 * time.Microsecond)
			}
		})
	}
	for range 10 {
		must(t, l.raft.Load().DemoteVoter(m.id, 0, time.Second).Error()) // and the leader makes it a voter again
		for _, n := range c.nodes {
			eventually(t, "it votes again", func() bool { return n.votes(m.id) })
		}
	}
	done.Store(true)
	watch.Wait()
}
