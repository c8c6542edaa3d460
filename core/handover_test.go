package core

import (
	"testing"
	"time"
)

// handOver has the arbiter propose that n2 hands the group over to n3, and returns the command.
func (s *solo) handOver() Command {
	s.t.Helper()
	s.reports("n1", soloIncarnation, s.m.seq)
	s.reports("n3", 31, Seq(s.now/1000))
	ps := only[Propose](s.step(MoveAsked{Ticket: 1, Group: "writer", To: "n3", Reason: "test"}))
	if len(ps) != 1 || len(grants([]Action{ps[0]})) != 1 || !ps[0].Command.Ops[0].Grant.Handover {
		s.t.Fatalf("want a handover, got %v", ps)
	}
	return ps[0].Command
}

// The owner of a group that is handed over is renewed until that is committed, however long the disk takes, and no longer. Without its
// word the last lease that it was given is waited for.
func TestI2_AHandoverWaitsForTheLastLease(t *testing.T) {
	s, e := newArbiterOf(t)
	s.renew(3, e)
	c := s.handOver()
	s.later(soloTTL / 2)
	if got := sent[Ack](s.renew(4, e)); len(got) != 1 {
		t.Fatalf("the owner is not renewed while the handover is on its way: %v", got)
	}
	acked := s.now
	s.commitCommand(c)
	if got := sent[Ack](s.renew(5, e)); len(got) > 0 {
		t.Fatalf("the owner is renewed after the handover: %v", got)
	}
	for len(releases(s.later(time.Millisecond))) == 0 {
		if s.now.Sub(acked) > 2*time.Second {
			t.Fatal("the old holding is never ended")
		}
	}
	if wait := s.now.Sub(acked); wait < soloTTL+Margin(soloTTL) || wait > soloTTL+Margin(soloTTL)+2*time.Millisecond {
		t.Errorf("ended %v after the last ack, the lease and the margin are %v", wait, soloTTL+Margin(soloTTL))
	}
}

// The word of another node, or about another epoch, ends no handover.
func TestI2_OnlyTheOwnersWordEndsAHandover(t *testing.T) {
	for _, c := range []struct {
		from  NodeName
		epoch func(e Epoch) Epoch
		ends  bool
	}{
		{"n2", func(e Epoch) Epoch { return e }, true},
		{"n3", func(e Epoch) Epoch { return e }, false},
		{"n2", func(e Epoch) Epoch { return e - 1 }, false},
		{"n3", func(e Epoch) Epoch { return e + 1 }, false},
	} {
		s, e := newArbiterOf(t)
		s.renew(3, e)
		s.commitCommand(s.handOver())
		as := s.step(Received{From: c.from, Msg: ReleaseRequest{Group: "writer", Epoch: c.epoch(e), Reason: "test"}})
		if got := releases(as); len(got) > 0 {
			t.Errorf("%s about %d: %v at once, while clients wait to be served", c.from, c.epoch(e), got)
		}
		as = s.later(s.m.opt.Timing.Heartbeat)
		if got := releases(as); len(got) > 0 != c.ends || c.ends && (got[0].Epoch != e || got[0].Node != "n2") {
			t.Errorf("%s about %d: %v", c.from, c.epoch(e), got)
		}
	}
}

// Who is handed a group claims nothing before its owner has said that nothing is left, or the ledger says so; its lease is renewed
// meanwhile.
func TestI1_AHandoverIsClaimedAfterTheOwnersWord(t *testing.T) {
	word := func(from NodeName, e Epoch) func(*solo) []Action {
		return func(s *solo) []Action {
			return s.step(Received{From: from, Msg: ReleaseRequest{Group: "writer", Epoch: e, Reason: "test"}})
		}
	}
	for _, c := range []struct {
		what   string
		before func(*solo) []Action
		after  func(*solo) []Action
		claims bool
	}{
		{"the owner's word", nil, word("n2", 1), true},
		{"a word that was faster than the news", word("n2", 1), nil, true},
		{"the word of another", nil, word("n3", 1), false},
		{"its own", nil, word("n1", 2), false},
		{"an earlier epoch", nil, word("n2", 0), false},
		{"the ledger", nil, func(s *solo) []Action {
			return s.commit(Op{Release: &Release{Group: "writer", Epoch: 1, Node: "n2", Reason: "the lease is over"}})
		}, true},
		{"nothing", nil, nil, false},
	} {
		s := newSolo(t)
		s.grantTo("n2", 21, 1)
		s.later(s.m.opt.Timing.Heartbeat)
		var as []Action
		if c.before != nil {
			as = append(as, c.before(s)...)
		}
		as = append(as, s.commit(Op{Grant: &Grant{Group: "writer", Prev: 1, To: "n1", Incarnation: soloIncarnation, Seq: s.m.seq,
			TTL: Millis(soloTTL.Milliseconds()), Handover: true, Reason: "test"}})...)
		if c.after != nil {
			if binds := only[Bind](as); len(binds) > 0 {
				t.Errorf("%s: bound before it came", c.what)
			}
			as = append(as, c.after(s)...)
		}
		if binds := only[Bind](as); len(binds) > 0 != c.claims {
			t.Errorf("%s: %d binds", c.what, len(binds))
		}
		if !c.claims {
			for range 10 {
				s.later(s.m.opt.Timing.Heartbeat)
				if as := s.step(s.ack(2)); len(only[Bind](as)) > 0 {
					t.Errorf("%s: bound later", c.what)
				}
			}
			if h := s.m.held["writer"]; h == nil || h.phase != waiting {
				t.Errorf("%s: it does not wait any more: %+v", c.what, h)
			}
		}
	}
}
