package consensus

import (
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// maxPool is the number of idle connections that are kept to each peer.
const maxPool = 3

// transport is Raft's network transport, adapted to short timeouts and to a dead peer's return.
type transport struct {
	*raft.NetworkTransport
	n *Node
}

func newTransport(n *Node, l hclog.Logger) *transport {
	return &transport{n: n,
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Logger: l, Stream: n.stream, MaxPool: maxPool, Timeout: n.lim.rpc,
			// No pipelining: Remora's log is short, and the library takes a failed answer in a pipeline for contact.
			MaxRPCsInFlight:         1,
			MsgpackUseNewTimeFormat: true,
		})}
}

// isHeartbeat says what the library takes for a heartbeat: an append that names no position in the log.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}

// errStalled is what a leader's own calls fail with while its disk stands still.
var errStalled = errors.New("this leader's disk stands still: it is silent, so that another node leads")

// AppendEntries implements raft.Transport. Raft can not stand down while it waits for its disk, and would go on sending
// heartbeats: nothing could be committed, and nobody else would lead.
func (t *transport) AppendEntries(id raft.ServerID, at raft.ServerAddress, a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
	if !t.n.mayLead() {
		return errStalled
	}
	if isHeartbeat(a) {
		if t.beat(id, a, r) {
			return nil
		}
		return t.NetworkTransport.AppendEntries(id, at, a, r)
	}
	limitCommit(a)
	if t.n.answerEarly(id, a, r) {
		return nil
	}
	return t.appendLog(id, at, a, r)
}

// limitCommit has a call tell a follower of commits no further than the call itself shows the follower's log to be the leader's.
// The library tells all that is committed by now, also in a call for which it has picked the entries before a pause, and its
// followers believe that of whatever they have at those places: it may be what an earlier leader could not commit. A call that
// shows more tells of more.
func limitCommit(a *raft.AppendEntriesRequest) {
	a.LeaderCommitIndex = min(a.LeaderCommitIndex, a.PrevLogEntry+uint64(len(a.Entries)))
}

// SetHeartbeatHandler implements raft.Transport.
func (t *transport) SetHeartbeatHandler(f func(raft.RPC)) {
	t.n.beats.handler.Store(&f)
	t.NetworkTransport.SetHeartbeatHandler(f)
}

// appendLog sends entries until they arrive, the follower is removed or this node leads no more. The library would
// pause after each failure, and after a long absence of the follower for ten seconds: so long would its return be of no
// use to a cluster that has lost another node meanwhile.
func (t *transport) appendLog(id raft.ServerID, at raft.ServerAddress, a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
	for {
		err := t.NetworkTransport.AppendEntries(id, at, a, r)
		if err == nil || !t.n.mayLead() || !t.stillLeads(a.Term, id) || !t.n.pause(t.n.lim.redial) {
			return err
		}
	}
}

// stillLeads reports whether it makes sense to go on. It is a hint, and nothing is decided by it.
func (t *transport) stillLeads(term uint64, follower raft.ServerID) bool {
	r := t.n.raft.Load()
	if r == nil || r.State() != raft.Leader || r.CurrentTerm() != term {
		return false
	}
	_, listed := suffrage(r.GetConfiguration().Configuration(), follower)
	return listed
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, at raft.ServerAddress, a *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	return t.retry(func() error { return t.NetworkTransport.RequestVote(id, at, a, r) })
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, at raft.ServerAddress, a *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	return t.retry(func() error { return t.NetworkTransport.RequestPreVote(id, at, a, r) })
}

// TimeoutNow implements raft.Transport.
func (t *transport) TimeoutNow(id raft.ServerID, at raft.ServerAddress, a *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
	return t.retry(func() error { return t.NetworkTransport.TimeoutNow(id, at, a, r) })
}

// retry calls again when a call fails at once: the idle connections that the library keeps may have ended since they
// were used, and an election should not be lost to that.
func (t *transport) retry(call func() error) error {
	by := time.Now().Add(t.n.lim.rpc / 4)
	err := call()
	for range maxPool {
		if err == nil || time.Now().After(by) {
			break
		}
		err = call()
	}
	return err
}
