package consensus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

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

func TestStrangersAreRefused(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	m := c.nodes[0]
	m.open()
	other := newAuthority(t)
	spec := c.specs[0]
	for name, files := range map[string]TLSFiles{
		"another cluster's node":   c.ca.issue(t, "invoices", "db2"),
		"a node that is no member": c.ca.issue(t, testCluster, "db9"),
		"the node's own name":      c.ca.issue(t, testCluster, "db1"),
		"another CA":               other.issue(t, testCluster, "db2"),
	} {
		cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		must(t, err)
		conn, err := tls.Dial("tcp", spec.Address.String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpnSession},
			Certificates: []tls.Certificate{cert}})
		if err != nil {
			continue
		}
		// With TLS 1.3 the client learns of the refusal when it reads.
		must(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
		_ = writeHello(conn, hello{Server: "db2#00000000", Incarnation: 1}, time.Now().Add(time.Second))
		if _, err := readHello(conn, time.Now().Add(5*time.Second)); err == nil {
			t.Errorf("%s was let in", name)
		}
		conn.Close()
	}
	eventually(t, "four refusals are counted", func() bool { return m.Status().Refused >= 4 })
}

func TestAPeerMustBeTheOneThatWasDialed(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	a := c.nodes[0]
	a.open()
	if _, err := a.DialControl(context.Background(), "db2"); err == nil {
		t.Error("a connection to a dead address came up")
	}
	// Now somebody with another member's certificate answers at db2's address.
	files := c.ca.issue(t, testCluster, "mgr")
	cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	must(t, err)
	ln, err := tls.Listen("tcp", c.specs[1].Address.String(), &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{alpnControl}})
	must(t, err)
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	if _, err := a.DialControl(context.Background(), "db2"); err == nil {
		t.Error("node mgr was taken for db2")
	}
}

func TestForeignFilesAreRefusedAtOnce(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	m := c.nodes[0]
	for name, files := range map[string]TLSFiles{
		"another node":    c.nodes[1].tls,
		"another cluster": c.ca.issue(t, "invoices", "db1"),
		"another CA":      {CA: c.nodes[1].tls.CA, Cert: newAuthority(t).issue(t, testCluster, "db1").Cert},
	} {
		cfg := m.config()
		cfg.TLS = files
		if n, err := Open(cfg); err == nil {
			t.Errorf("%s: opened", name)
			must(t, n.Shutdown(context.Background()))
		}
	}
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

func TestStrangersDoNotCrowdOutPeers(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	a, b := c.nodes[0], c.nodes[1]
	a.open()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, 251, 1)}}
	for range 3 * maxStrangers {
		conn, err := d.Dial("tcp", c.specs[0].Address.String())
		must(t, err)
		defer conn.Close()
	}
	b.open()
	eventually(t, "a session among silent strangers", func() bool { return b.Status().Peers[0].Reachable })
}

func TestControlStreams(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	a, b := c.nodes[0], c.nodes[1]
	a.open()
	b.open()
	b.ListenControl(func(_ context.Context, conn net.Conn, peer core.NodeName) {
		fmt.Fprintf(conn, "hello %s\n", peer)
		_, _ = io.Copy(conn, conn)
	})
	conn, err := a.DialControl(context.Background(), "db2")
	must(t, err)
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, "and back")
	must(t, err)
	want := "hello db1\nand back"
	got := make([]byte, len(want))
	_, err = io.ReadFull(conn, got)
	must(t, err)
	if string(got) != want {
		t.Errorf("read %q, want %q", got, want)
	}
	must(t, conn.Close())
	if _, err := a.DialControl(context.Background(), "db9"); !errors.Is(err, ErrNotMember) {
		t.Errorf("dial of a stranger: %v, want %v", err, ErrNotMember)
	}
}

// TestAnotherServerIsNotServed: a node answers Raft calls for its own server ID only.
func TestAnotherServerIsNotServed(t *testing.T) {
	c := newCluster(t, "db1", "db2")
	c.startAll()
	c.commit()
	a, b := c.nodes[0], c.nodes[1]
	if conn, err := a.stream.Dial("db2#00000000", time.Second); !errors.Is(err, errAnother) {
		t.Errorf("dial of a former server: %v, %v; want %v", conn, err, errAnother)
	}
	b.shutdown()
	b.open()
	if _, err := a.stream.Dial(raft.ServerAddress(b.id), time.Second); !errors.Is(err, errStarting) {
		t.Errorf("dial of a starting server: %v, want %v", err, errStarting)
	}
}

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

// An Echo of the same server and term is the answer to a heartbeat.
func TestEchoAnswersAHeartbeat(t *testing.T) {
	b := newBeats()
	const server = raft.ServerID("db2#00000001")
	if told, heard := b.signs(server, 3); told != never || heard != never {
		t.Errorf("told %v ago, heard %v ago, want never", told, heard)
	}
	_, reply := b.expect(server, 3)
	b.tells("db2", 3)
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
	f.takeSign(leads, l.Term())
	if at := f.raft.Load().LastContact(); at.Before(before) {
		t.Errorf("the follower's last contact is %v before the Confirm", before.Sub(at))
	}
	term := uint64(l.Term())
	const many = 50
	sent := l.wire.sent.Load()
	for range many {
		l.beats.tells(f.name, l.Term())
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
