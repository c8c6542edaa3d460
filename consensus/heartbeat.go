package consensus

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/alarm"
)

// Raft's empty heartbeats travel as datagrams. They are nine tenths of all calls of an idle cluster and cost a tenth of
// what a call over TLS with its general codec does; and a lost one is made good by the next instead of holding up all
// that follow until TCP sends it again. The answer is the follower's own, from the library's heartbeat handler. Without
// a session, or when no answer comes, the heartbeat goes over TCP like any other call.
//
// A renewal says all that a heartbeat does: a Confirm and an Ack, that this leader is alive in this term, an Echo and a voter's
// report, that the follower is still in it. So the follower's Raft is told of the first, and the leader's takes the others for
// the answer of a heartbeat that is then not sent. As long as they come, the heartbeats in between ask for no answer.
//
// An owner that hears from the leader with each Ack needs no heartbeats in between, as long as another voter gets them, which
// then is the first to notice that the leader is gone and asks the owner for its vote. So each of them wakes one follower
// fewer. The owner notices that it is spared, and stands for election by itself one timeout later, or a single Ack that is lost would
// make it do so.
const (
	kindBeat      byte = 0x40
	kindBeatReply byte = 0x41

	beatSize      = 2 + 8 + 8
	beatReplySize = 2 + 8 + 8 + 8 + 1
	// beatTries is how often a heartbeat is sent before TCP is tried.
	beatTries = 4
	// maxBeats bounds the heartbeats that wait for Raft; there is one leader at a time.
	maxBeats = 16
)

// beat is a heartbeat of a leader. It wants an answer if seq is not 0.
type beat struct {
	from      *opener
	seq, term uint64
}

// beatReply is the follower's answer.
type beatReply struct {
	term, last uint64
	success    bool
}

// beats matches the answers with the heartbeats that this node has sent.
type beats struct {
	incoming chan beat
	handler  atomic.Pointer[func(raft.RPC)]

	mu      sync.Mutex
	seq     uint64
	waiting map[uint64]awaited
	alarms  map[raft.ServerID]alarm.Alarm
	told    map[core.NodeName]sign // the last Confirm or Ack to each node
	heard   map[raft.ServerID]sign // the last Echo or report of each voter
	owns    map[core.NodeName]bool // by the last report that each node has sent, this one too

	acks atomic.Int32 // how many of the leader's last signs of life were Acks, with none of another kind after them
}

// sparedFrom is after how many Acks in a row, without anything else of the leader in between, a follower takes it that it is
// spared the heartbeats.
const sparedFrom = 2

// sign is a sign of life in a term.
type sign struct {
	term core.Term
	at   time.Time
	ack  bool // it was an Ack
}

// age returns how long ago the sign was, if it was in the term.
func (s sign) age(term uint64) time.Duration {
	if s.at.IsZero() || uint64(s.term) != term {
		return never
	}
	return time.Since(s.at)
}

// never is for an alarm that shall not ring.
const never = 365 * 24 * time.Hour

type awaited struct {
	server raft.ServerID
	term   uint64
	reply  chan beatReply
}

func newBeats() *beats {
	return &beats{incoming: make(chan beat, maxBeats), waiting: map[uint64]awaited{}, alarms: map[raft.ServerID]alarm.Alarm{},
		told: map[core.NodeName]sign{}, heard: map[raft.ServerID]sign{}, owns: map[core.NodeName]bool{}}
}

// alarm returns the alarm for the heartbeats to a server, of which the library sends one at a time.
func (b *beats) alarm(server raft.ServerID, make alarm.Maker) (alarm.Alarm, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.alarms[server]; a != nil {
		return a, nil
	}
	a, err := make.New()
	if err == nil {
		b.alarms[server] = a
	}
	return a, err
}

// stop ends the alarms, once Raft sends no more.
func (b *beats) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for server, a := range b.alarms {
		a.Stop()
		delete(b.alarms, server)
	}
}

func (b *beats) expect(server raft.ServerID, term uint64) (uint64, chan beatReply) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seq++
	reply := make(chan beatReply, 1)
	b.waiting[b.seq] = awaited{server: server, term: term, reply: reply}
	return b.seq, reply
}

// tells notes that a Confirm or an Ack was sent.
func (b *beats) tells(to core.NodeName, term core.Term, ack bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told[to] = sign{term, time.Now(), ack}
}

// reported notes whether a node owns something, which its report says. It reports whether that is new.
func (b *beats) reported(name core.NodeName, r core.Report) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.owns[name]
	b.owns[name] = len(r.Holds) > 0
	return was != b.owns[name]
}

// takes notes what kind of sign the leader has given.
func (b *beats) takes(ack bool) {
	if !ack {
		b.acks.Store(0)
	} else if b.acks.Load() < sparedFrom {
		b.acks.Add(1)
	}
}

// spared reports whether this follower hears from its leader by Acks alone.
func (b *beats) spared() bool { return b.acks.Load() >= sparedFrom }

// hears takes a voter's Echo or report for the answer to the heartbeats of its term that wait for one.
func (b *beats) hears(from raft.ServerID, term core.Term) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heard[from] = sign{term: term, at: time.Now()}
	for _, w := range b.waiting {
		if w.server == from && w.term == uint64(term) {
			w.hand(beatReply{term: w.term, success: true})
		}
	}
}

// signs returns how long ago the server was last told of a leader of the term, and was last heard to be in it.
func (b *beats) signs(server raft.ServerID, term uint64) (told, heard time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.told[nodeOf(server)].age(term), b.heard[server].age(term)
}

// spares reports whether a server needs no heartbeat because it has just had an Ack. Another voter must have been told by a
// Confirm meanwhile and be there: it is not spared, and so the first to miss this leader.
func (b *beats) spares(server raft.ServerID, term uint64, fresh time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if told := b.told[nodeOf(server)]; !told.ack || told.age(term) >= fresh {
		return false
	}
	for other, heard := range b.heard {
		told := b.told[nodeOf(other)]
		if other != server && !told.ack && told.age(term) < fresh && heard.age(term) < fresh {
			return true
		}
	}
	return false
}

// hand gives the call that waits its first answer.
func (w awaited) hand(r beatReply) {
	select {
	case w.reply <- r:
	default:
	}
}

func (b *beats) forget(seq uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.waiting, seq)
}

// answer hands a reply to the call that waits for it, if it is from the server that was asked.
func (b *beats) answer(seq uint64, from raft.ServerID, r beatReply) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w, ok := b.waiting[seq]; ok && w.server == from {
		w.hand(r)
	}
}

// isBeat reports whether an opened datagram belongs to the heartbeats.
func isBeat(plain []byte) bool {
	return len(plain) > 1 && plain[0] == wireV6 && (plain[1] == kindBeat || plain[1] == kindBeatReply)
}

// receiveBeat takes a heartbeat or an answer to one.
func (n *Node) receiveBeat(plain []byte, from *opener) error {
	body := plain[2:]
	switch {
	case plain[1] == kindBeat && len(plain) == beatSize:
		n.beats.takes(false)
		return n.takeBeat(beat{from: from, seq: binary.BigEndian.Uint64(body), term: binary.BigEndian.Uint64(body[8:])})
	case plain[1] == kindBeatReply && len(plain) == beatReplySize && body[24] <= 1:
		n.beats.answer(binary.BigEndian.Uint64(body), from.server, beatReply{term: binary.BigEndian.Uint64(body[8:]),
			last: binary.BigEndian.Uint64(body[16:]), success: body[24] == 1})
		return nil
	}
	return errWireValue
}

// takeBeat has a follower's heartbeat answered at once. Otherwise Raft may have to write a new term to disk first, which
// must not hold up the datagrams that come next.
func (n *Node) takeBeat(b beat) error {
	if r := n.raft.Load(); r != nil && r.State() == raft.Follower && r.CurrentTerm() == b.term {
		n.answerBeat(b)
		return nil
	}
	select {
	case n.beats.incoming <- b:
		return nil
	default:
		return errBusy
	}
}

// answerBeats has Raft answer the heartbeats that may take long, until the node ends.
func (n *Node) answerBeats() {
	for {
		select {
		case b := <-n.beats.incoming:
			n.answerBeat(b)
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) answerBeat(b beat) {
	handler := n.beats.handler.Load()
	if handler == nil || n.raft.Load() == nil || n.retired.Load() {
		return
	}
	server := []byte(b.from.server)
	answer := make(chan raft.RPCResponse, 1)
	(*handler)(raft.RPC{RespChan: answer, Command: &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: server, Addr: server},
		Term:      b.term}})
	select {
	case a := <-answer:
		r, ok := a.Response.(*raft.AppendEntriesResponse)
		if !ok || a.Error != nil {
			return
		}
		if r.Success {
			poke(n.contacted)
		}
		if b.seq != 0 {
			n.replyBeat(b, r)
		}
	default: // Raft is shutting down
	}
}

func (n *Node) replyBeat(b beat, r *raft.AppendEntriesResponse) {
	msg := append(make([]byte, 0, beatReplySize), wireV6, kindBeatReply)
	msg = binary.BigEndian.AppendUint64(msg, b.seq)
	msg = binary.BigEndian.AppendUint64(msg, r.Term)
	msg = binary.BigEndian.AppendUint64(msg, r.LastLog)
	if msg = append(msg, 0); r.Success {
		msg[len(msg)-1] = 1
	}
	if err := n.wire.sendPlain(b.from.peer, msg); err != nil {
		n.log.Debug("heartbeat not answered", "to", b.from.peer.name, "error", err)
	}
}

// takeSign tells Raft that the leader of its term is alive. Of a later term it learns from the heartbeats.
func (n *Node) takeSign(from *opener, term core.Term, ack bool) {
	if r := n.raft.Load(); r != nil && r.State() != raft.Leader && r.CurrentTerm() == uint64(term) {
		n.beats.takes(ack)
		_ = n.takeBeat(beat{from: from, term: uint64(term)}) // when Raft is busy, the next one will do
	}
}

// beatFresh is how long an Echo or a report stands for the answers to the heartbeats that follow. A leader that hears nothing
// any more stands down that much later than Raft's own limit.
func (n *Node) beatFresh() time.Duration { return 4 * n.cfg.Timing.RaftHeartbeat / 7 }

// beat sends a heartbeat as a datagram, unless a renewal was one, and waits for the answer. It reports whether one came.
func (t *transport) beat(id raft.ServerID, a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) bool {
	n := t.n
	p := n.peers.get(nodeOf(id))
	if p == nil {
		return false
	}
	// The session must lead to the server that is meant and not to another one under its node's name.
	if h := p.said.Load(); h == nil || h.Server != id {
		return false
	}
	seq, reply := n.beats.expect(id, a.Term)
	defer n.beats.forget(seq)
	told, heard := n.beats.signs(id, a.Term)
	got := beatReply{term: a.Term, success: true}
	switch {
	case told < n.lim.again && heard < n.lim.again:
	case told >= n.lim.again && heard < n.beatFresh():
		if n.beats.spares(id, a.Term, n.beatFresh()) {
			break
		}
		if n.wire.sendPlain(p, appendBeat(0, a.Term)) != nil {
			return false
		}
	default:
		var answered bool
		if got, answered = t.ask(p, id, appendBeat(seq, a.Term), told < n.lim.again, reply); !answered {
			return false
		}
	}
	*r = raft.AppendEntriesResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(id)},
		Term: got.term, LastLog: got.last, Success: got.success}
	return true
}

func appendBeat(seq, term uint64) []byte {
	msg := append(make([]byte, 0, beatSize), wireV6, kindBeat)
	msg = binary.BigEndian.AppendUint64(msg, seq)
	return binary.BigEndian.AppendUint64(msg, term)
}

// ask sends a heartbeat until an answer comes. If the server was just told of this leader, its Echo or report may be that.
func (t *transport) ask(p *peer, id raft.ServerID, msg []byte, told bool, reply <-chan beatReply) (beatReply, bool) {
	n := t.n
	timer, err := n.beats.alarm(id, n.cfg.Alarms)
	if err != nil {
		n.log.Warn("no timer for a heartbeat, it goes over TCP", "to", id, "error", err)
		return beatReply{}, false
	}
	defer timer.Reset(never)
	for range beatTries {
		if !told && n.wire.sendPlain(p, msg) != nil {
			return beatReply{}, false
		}
		told = false
		timer.Reset(n.lim.again)
		select {
		case got := <-reply:
			return got, true
		case <-timer.C():
		case <-n.ctx.Done():
			return beatReply{}, false
		}
	}
	return beatReply{}, false
}
