package consensus

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/remora-ha/remora/core"
)

// TestEchoesOfNonVotersDoNotCount: a node under a voter's name that does not vote itself has promised nothing, neither by an
// Echo nor by the term in a report.
func TestEchoesOfNonVotersDoNotCount(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.commit()
	l := c.leader()
	m := c.others(l)[0]
	rest := c.others(m)
	m.shutdown()
	m.wipe()
	m.open() // and not started: it can not become a voter
	l.forget()
	eventually(t, "a session", func() bool { return m.peers.get(l.name).out.Load() != nil })
	for range 20 {
		m.Send(l.name, core.Echo{Term: l.Term(), Nonce: 1})
	}
	eventually(t, "a report arrives", func() bool {
		m.Send(l.name, core.Report{Incarnation: 1, Term: l.Term()})
		return len(l.received()) > 0
	})
	if r, ok := l.received()[0].Msg.(core.Report); ok && r.Term != 0 {
		t.Errorf("the report of a server that does not vote was delivered with term %d", r.Term)
	}
	if slices.ContainsFunc(l.received(), func(r core.Received) bool { _, ok := r.Msg.(core.Echo); return ok }) {
		t.Error("an echo of a server that does not vote was delivered")
	}
	c.commit(rest...)
	l = c.leader(rest...)
	voter, term := c.others(l)[0], l.Term()
	if voter == m {
		voter = c.others(l)[1]
	}
	l.forget()
	eventually(t, "the report of a voter keeps its term", func() bool {
		voter.Send(l.name, core.Report{Incarnation: 1, Term: term})
		return slices.ContainsFunc(l.received(), func(r core.Received) bool {
			said, ok := r.Msg.(core.Report)
			return ok && r.From == voter.name && said.Term == term
		})
	})
}

// TestHeartbeatsWithoutDatagrams: where UDP does not get through, heartbeats go over TCP and Raft works.
func TestHeartbeatsWithoutDatagrams(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	newFirewall(t).dropDatagrams()
	c.startAll()
	for range 5 {
		c.have(c.commit(), c.nodes...)
	}
}

// An Echo of the same server and term is the answer to a heartbeat.
func TestEchoAnswersAHeartbeat(t *testing.T) {
	b := newBeats()
	const server = raft.ServerID("db2#00000001")
	if told, heard := b.signs(server, 3); told != never || heard != never {
		t.Errorf("told %v ago, heard %v ago, want never", told, heard)
	}
	_, reply := b.expect(server, 3)
	b.tells("db2", 3, false)
	b.hears(server, 3)
	if r := <-reply; !r.success || r.term != 3 {
		t.Errorf("the echo is taken for %+v", r)
	}
	if told, heard := b.signs(server, 3); told >= never || heard >= never {
		t.Errorf("told %v ago, heard %v ago, want a moment", told, heard)
	}
	if told, heard := b.signs(server, 4); told != never || heard != never {
		t.Errorf("in a later term: told %v ago, heard %v ago, want never", told, heard)
	}
}

// A Confirm tells a follower that its leader is alive. Confirm rounds that are answered leave nothing to be answered by
// heartbeats, and a leader whose rounds get no answer any more sends heartbeats again.
func TestConfirmRoundsAreHeartbeats(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.have(c.commit(), c.nodes...)
	l := c.leader()
	f := c.others(l)[0]
	leads := &opener{peer: f.peers.get(l.name), server: l.id}
	before := time.Now()
	f.takeSign(leads, l.Term(), false)
	if at := f.raft.Load().LastContact(); at.Before(before) {
		t.Errorf("the follower's last contact is %v before the Confirm", before.Sub(at))
	}
	term := uint64(l.Term())
	const many = 50
	sent := l.wire.sent.Load()
	for range many {
		l.beats.tells(f.name, l.Term(), false)
		l.beats.hears(f.id, l.Term())
		var r raft.AppendEntriesResponse
		if !l.trans.beat(f.id, &raft.AppendEntriesRequest{Term: term}, &r) {
			t.Fatal("an Echo did not answer a heartbeat")
		}
	}
	if now := l.wire.sent.Load(); now-sent >= many { // its own heartbeats go on
		t.Errorf("%d datagrams were sent for %d heartbeats that Echoes had just answered", now-sent, many)
	}
	for _, echoed := range []bool{true, false} {
		if echoed {
			l.beats.hears(f.id, l.Term())
		} else {
			eventually(t, "the echo is old", func() bool { _, age := l.beats.signs(f.id, term); return age > l.beatFresh() })
		}
		var r raft.AppendEntriesResponse
		if !l.trans.beat(f.id, &raft.AppendEntriesRequest{Term: term}, &r) || !r.Success || r.Term != term {
			t.Errorf("echoed %v: the heartbeat was answered with %+v", echoed, r)
		}
		// The follower's own answer names its last entry.
		if own := r.LastLog > 0; own == echoed {
			t.Errorf("echoed %v: answered by the follower: %v", echoed, own)
		}
	}
}

// A server that had an Ack needs no heartbeat, but only while another voter is there who is told by Confirms and so gets them.
func TestWhoIsSparedHeartbeats(t *testing.T) {
	const owner, other, term, fresh = raft.ServerID("db1#00000001"), raft.ServerID("mgr#00000002"), 3, time.Hour
	ack := func(b *beats) { b.tells("db1", term, true) }
	confirm := func(b *beats) { b.tells("mgr", term, false) }
	echo := func(b *beats) { b.hears(other, term) }
	for name, c := range map[string]struct {
		said []func(*beats)
		want bool
	}{
		"an Ack, and another voter answers a Confirm":     {[]func(*beats){ack, confirm, echo}, true},
		"nobody else was told":                            {[]func(*beats){ack, echo}, false},
		"the other does not answer":                       {[]func(*beats){ack, confirm}, false},
		"the other does not vote":                         {[]func(*beats){ack, confirm, func(b *beats) { b.hears(other, 0) }}, false},
		"the other had an Ack, too":                       {[]func(*beats){ack, echo, func(b *beats) { b.tells("mgr", term, true) }}, false},
		"a Confirm after the Ack":                         {[]func(*beats){ack, confirm, echo, func(b *beats) { b.tells("db1", term, false) }}, false},
		"an Ack of an earlier term":                       {[]func(*beats){confirm, echo, func(b *beats) { b.tells("db1", term-1, true) }}, false},
		"only the owner itself was heard":                 {[]func(*beats){ack, confirm, func(b *beats) { b.hears(owner, term) }}, false},
		"the other was told and heard in an earlier term": {[]func(*beats){ack, func(b *beats) { b.tells("mgr", term-1, false); b.hears(other, term-1) }}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBeats()
			for _, say := range c.said {
				say(b)
			}
			if got := b.spares(owner, term, fresh); got != c.want {
				t.Errorf("spared: %v, want %v", got, c.want)
			}
			if b.spares(owner, term, 0) {
				t.Error("an old Ack spares")
			}
		})
	}
}

// Voters that own nothing stand first, and one that hears by Acks alone waits a timeout longer, until something else comes.
func TestOwnersStandLater(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.have(c.commit(), c.nodes...)
	l := c.leader()
	a, b := c.others(l)[0], c.others(l)[1]
	for _, n := range []*member{a, b} {
		eventually(t, "it knows the leader", func() bool { return n.Leader() == l.name })
	}
	step := a.cfg.Timing.RaftHeartbeat / 4
	patience := func(when string, ofA, ofB time.Duration) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s: %s waits %v and %s %v", when, a.name, ofA, b.name, ofB), func() bool {
			return a.patience() == ofA && b.patience() == ofB
		})
	}
	patience("nobody owns", step, 2*step)
	owns := core.Report{Holds: []core.Holding{{Group: "writer", Epoch: 1}}}
	a.Send(b.name, owns)
	patience("the first owns", 2*step, step)
	a.Send(b.name, core.Report{})
	patience("it has given up", step, 2*step)
}

// A follower is spared when it hears by Acks alone, and no longer once anything else comes.
func TestAFollowerNoticesThatItIsSpared(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.have(c.commit(), c.nodes...)
	l := c.leader()
	f := c.others(l)[0]
	ack := core.Ack{Term: l.Term(), Incarnation: 1, Seq: 1, TTL: time.Second, Groups: []core.GroupEpoch{{Group: "writer", Epoch: 1}}}
	eventually(t, "two Acks in a row", func() bool { l.Send(f.name, ack); return f.beats.spared() })
	eventually(t, "a heartbeat or a Confirm", func() bool {
		l.Send(f.name, core.Confirm{Term: l.Term(), Nonce: 1})
		return !f.beats.spared()
	})
	eventually(t, "two Acks in a row", func() bool { l.Send(f.name, ack); return f.beats.spared() })
	if n, hb := f.patience(), f.cfg.Timing.RaftHeartbeat; f.beats.spared() && n <= hb {
		t.Errorf("it is spared and waits %v more than the timeout, want more than %v", n, hb)
	}
	eventually(t, "heartbeats go on where no other voter is told of the leader", func() bool { return !f.beats.spared() })
}

func TestAnswersOfOthersDoNotCount(t *testing.T) {
	b := newBeats()
	seq, reply := b.expect("db2#00000001", 3)
	b.hears("db2#00000002", 3)
	b.hears("db2#00000001", 2)
	b.answer(seq, "db2#00000002", beatReply{})
	b.answer(seq+1, "db2#00000001", beatReply{})
	if len(reply) != 0 {
		t.Error("an answer of another server, or to another heartbeat, was taken")
	}
	b.answer(seq, "db2#00000001", beatReply{term: 3})
	b.answer(seq, "db2#00000001", beatReply{term: 3})
	if len(reply) != 1 {
		t.Errorf("%d answers wait, want 1", len(reply))
	}
	b.forget(seq)
	if len(b.waiting) != 0 {
		t.Error("a call that has ended still waits")
	}
}
