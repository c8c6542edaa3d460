package consensus

import (
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// The library's leader writes an entry to its own disk first and sends it to the followers then, so that a commit waits for
// two disks, one after the other; that is most of what a takeover takes. Raft does not ask for that order: a leader may
// send what it has not written yet, as long as it counts itself only for what it has (Ongaro's thesis, 10.2.1). Here a
// leader's commands go to the followers while its own write goes on. The library makes the same call when the write has
// ended, and is given the answer to the first. It counts nobody before that, so nothing is committed that the leader lacks.
//
// Nobody is sent another entry of that term and index. Only the leader of a term makes its entries, one after the other in
// one goroutine, and one that ends or fails before it has written an entry leads no more in that term. The followers may have
// the entry all the same; it then is committed or replaced like any whose leader was lost, and who proposed it is told that
// nobody knows.
//
// The entry before is always one that this leader has written in this term. A follower that has that one too has all that is
// before it, and the leader knows of nothing after it that is committed. Late and twice, as a call may come, this one is what
// a call of the library's may be.

// leaderLog is the log to which Raft appends, in one goroutine.
type leaderLog struct {
	*store
	n    *Node
	last place // of the entry that was written last
}

// place is where an entry is.
type place struct{ index, term uint64 }

func placeOf(l *raft.Log) place { return place{l.Index, l.Term} }

// StoreLogs implements raft.LogStore.
func (l *leaderLog) StoreLogs(ls []*raft.Log) error {
	l.n.appendEarly(l.last, ls)
	err := l.store.StoreLogs(ls)
	if err == nil && len(ls) > 0 {
		l.last = placeOf(ls[len(ls)-1])
	}
	return err
}

// early is an append that a follower is sent before the leader has written the entries itself.
type early struct {
	request raft.AppendEntriesRequest
	reply   raft.AppendEntriesResponse
	err     error
	sent    time.Time
	done    chan struct{} // closed when reply or err is there
}

// earlies holds the last early append to each follower, whose answer Raft has not taken.
type earlies struct {
	mu    sync.Mutex
	calls map[raft.ServerID]*early
}

// begin notes an append, unless the one before it has no answer yet.
func (es *earlies) begin(to raft.ServerID, e *early) bool {
	es.mu.Lock()
	defer es.mu.Unlock()
	if before := es.calls[to]; before != nil {
		select {
		case <-before.done:
		default:
			return false
		}
	}
	if es.calls == nil {
		es.calls = map[raft.ServerID]*early{}
	}
	es.calls[to] = e
	return true
}

// take returns the append that was the same as a, nil if none was. It is taken once.
func (es *earlies) take(to raft.ServerID, a *raft.AppendEntriesRequest) *early {
	es.mu.Lock()
	defer es.mu.Unlock()
	e := es.calls[to]
	if e == nil || !sameAppend(&e.request, a) {
		return nil
	}
	delete(es.calls, to)
	return e
}

// sameAppend reports whether two calls of one leader say the same: in a term there is one entry of an index.
func sameAppend(a, b *raft.AppendEntriesRequest) bool {
	return a.Term == b.Term && a.PrevLogEntry == b.PrevLogEntry && a.PrevLogTerm == b.PrevLogTerm &&
		a.LeaderCommitIndex == b.LeaderCommitIndex && len(a.Entries) == len(b.Entries)
}

// mayPrecede reports whether a leader of the term may send entries before it has written them: they are commands, and follow
// an entry that it has written in the same term, as all its commands do.
func mayPrecede(before place, ls []*raft.Log, term uint64) bool {
	return len(ls) > 0 && ls[0].Type == raft.LogCommand && ls[0].Term == term && before == place{ls[0].Index - 1, term}
}

// appendEarly sends the commands that this leader is about to write to all voters.
func (n *Node) appendEarly(before place, ls []*raft.Log) {
	r := n.raft.Load()
	// The state is read after the term of the entries was: Raft stands down before it takes another term.
	if r == nil || r.State() != raft.Leader || !mayPrecede(before, ls, r.CurrentTerm()) || !n.mayLead() {
		return
	}
	self := []byte(n.id)
	request := raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: self, Addr: self},
		Term: before.term, PrevLogEntry: before.index, PrevLogTerm: before.term, Entries: ls, LeaderCommitIndex: r.CommitIndex()}
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if s.ID == n.id || s.Suffrage != raft.Voter {
			continue
		}
		if e := (&early{request: request, sent: time.Now(), done: make(chan struct{})}); n.earlies.begin(s.ID, e) {
			n.spawn(func() {
				defer close(e.done)
				e.err = n.trans.NetworkTransport.AppendEntries(s.ID, s.Address, &e.request, &e.reply)
			})
		}
	}
	// With one processor they would start when the scheduler has noticed that the write blocks, up to a millisecond later.
	runtime.Gosched()
}

// answerEarly answers Raft's call with the answer to the same one that was sent before, if the follower has the entries. Raft
// takes an answer for a sign of life, so one that is older than that to a call of its own can be does not count.
func (n *Node) answerEarly(id raft.ServerID, a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) bool {
	e := n.earlies.take(id, a)
	if e == nil {
		return false
	}
	select {
	case <-e.done:
	case <-n.ctx.Done():
		return false
	}
	if e.err != nil || !e.reply.Success || time.Since(e.sent) > n.lim.rpc {
		return false
	}
	*r = e.reply
	return true
}
