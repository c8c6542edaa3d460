package consensus

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// TestFollowerCommitsOnlyWhatTheLeaderHas lets a leader that has two followers' word for an entry tell a third one so, which has
// another entry in that place, in a call that says nothing of the place.
func TestFollowerCommitsOnlyWhatTheLeaderHas(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	for range 20 {
		c.have(c.commit(), c.nodes...)
		leader := c.leader()
		from, to := leader.Node.trans, c.others(leader)[0].Node
		r := to.raft.Load()
		last := r.LastIndex()
		var before raft.Log
		must(t, to.store.GetLog(last, &before))
		term := r.CurrentTerm() + 10
		call := func(committed uint64, entries ...*raft.Log) bool {
			a := raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader.id), Addr: []byte(leader.id)},
				Term: term, PrevLogEntry: last, PrevLogTerm: before.Term, Entries: entries, LeaderCommitIndex: committed}
			var reply raft.AppendEntriesResponse
			return from.AppendEntries(to.id, raft.ServerAddress(to.id), &a, &reply) == nil && reply.Success
		}
		did := call(last, &raft.Log{Index: last + 1, Term: term, Type: raft.LogNoop}) && call(last+1)
		committed := r.CommitIndex()
		if !did || r.CurrentTerm() != term {
			continue // another one was elected meanwhile
		}
		if committed != last {
			t.Errorf("the follower takes %d for committed, with proof of what it has up to %d", committed, last)
		}
		return
	}
	t.Error("in 20 attempts another leader came in between each time")
}

// A call tells of commits as far as it shows the follower's log to be the leader's, and no less.
func TestACallTellsOfCommitsThatItShows(t *testing.T) {
	for _, tt := range []struct{ before, entries, committed, want uint64 }{
		{before: 7, entries: 2, committed: 12, want: 9},
		{before: 7, entries: 2, committed: 10, want: 9},
		{before: 7, entries: 2, committed: 9, want: 9},
		{before: 7, entries: 2, committed: 8, want: 8},
		{before: 7, entries: 2, committed: 5, want: 5},
		{before: 7, entries: 0, committed: 9, want: 7},
		{before: 0, entries: 1, committed: 9, want: 1},
	} {
		a := raft.AppendEntriesRequest{PrevLogEntry: tt.before, Entries: make([]*raft.Log, tt.entries), LeaderCommitIndex: tt.committed}
		if limitCommit(&a); a.LeaderCommitIndex != tt.want {
			t.Errorf("%+v: tells of %d", tt, a.LeaderCommitIndex)
		}
	}
}

// A leader whose disk stands still makes no calls, so that its followers elect another.
func TestALeaderWhoseDiskStallsIsSilent(t *testing.T) {
	lead(t, func(l *led) {
		l.store.log.stalled.Store(&trouble{op: opAppend})
		last, term := l.raft.Load().LastIndex(), l.raft.Load().CurrentTerm()
		for what, a := range map[string]raft.AppendEntriesRequest{
			"a heartbeat": {Term: term},
			"an append":   {Term: term, PrevLogEntry: last, PrevLogTerm: term, Entries: []*raft.Log{{Index: last + 1, Term: term}}},
		} {
			if err := l.trans.AppendEntries("db2#2", "db2#2", &a, new(raft.AppendEntriesResponse)); !errors.Is(err, errStalled) {
				t.Errorf("%s: %v, want %v", what, err, errStalled)
			}
		}
	})
}
