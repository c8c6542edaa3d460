package core

import (
	"slices"
	"testing"
	"time"
)

// An ack needs the echoes of a majority of the voters, in this term and to this round.
func TestI2_AckNeedsAMajorityInItsTerm(t *testing.T) {
	for _, tt := range []struct {
		name   string
		echoes func(s *solo, nonce uint64) []Action
		acks   int
	}{
		{"one voter", func(s *solo, n uint64) []Action { return s.echo("n2", n) }, 0},
		{"one voter twice", func(s *solo, n uint64) []Action { return append(s.echo("n2", n), s.echo("n2", n)...) }, 0},
		{"one of two voters", func(s *solo, n uint64) []Action {
			s.step(VotersChanged{Voters: []NodeName{"n1", "n2"}})
			return s.echo("n2", n)
		}, 0},
		{"one that votes no more", func(s *solo, n uint64) []Action {
			s.step(VotersChanged{Voters: []NodeName{"n1", "n2"}})
			return append(s.echo("n2", n), s.echo("n3", n)...)
		}, 0},
		{"two voters", func(s *solo, n uint64) []Action { return append(s.echo("n2", n), s.echo("n3", n)...) }, 1},
		{"all voters", func(s *solo, n uint64) []Action {
			return slices.Concat(s.echo("n2", n), s.echo("n3", n), s.echo("n1", n))
		}, 1},
		{"a stranger", func(s *solo, n uint64) []Action { return append(s.echo("n2", n), s.echo("n9", n)...) }, 0},
		{"another round", func(s *solo, n uint64) []Action { return append(s.echo("n2", n), s.echo("n3", n+1)...) }, 0},
		{"another term", func(s *solo, n uint64) []Action {
			return append(s.echo("n2", n), s.step(Received{From: "n3", Term: 6, Msg: Echo{Term: 6, Nonce: n}})...)
		}, 0},
		{"deposed meanwhile", func(s *solo, n uint64) []Action {
			return slices.Concat(s.echo("n2", n), s.step(Deposed{}), s.echo("n3", n))
		}, 0},
		{"another took office", func(s *solo, n uint64) []Action {
			as := s.echo("n2", n)
			s.commit(Op{TakeOffice: &TakeOffice{Node: "n3", Incarnation: 31}})
			return append(as, s.echo("n3", n)...)
		}, 0},
		{"released meanwhile", func(s *solo, n uint64) []Action {
			as := s.echo("n2", n)
			s.commit(Op{Release: &Release{Group: "writer", Epoch: s.group().Epoch, Node: "n2"}})
			return append(as, s.echo("n3", n)...)
		}, 0},
		{"restarted meanwhile", func(s *solo, n uint64) []Action {
			return slices.Concat(s.echo("n2", n), s.reports("n2", 22, 1), s.echo("n3", n))
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, e := newArbiterOf(t)
			s.later(time.Millisecond)
			confirms := sent[Confirm](s.step(Received{From: "n2", Msg: renewing(e)})) // of nobody's term
			if len(confirms) != 3 {
				t.Fatalf("want three voters asked, got %v", confirms)
			}
			if got := sent[Ack](tt.echoes(s, confirms[0].Nonce)); len(got) != tt.acks {
				t.Fatalf("got %d acks, want %d", len(got), tt.acks)
			}
		})
	}
}

// renewing is a report with which n2 asks for its lease.
func renewing(e Epoch) Report {
	return Report{Incarnation: 21, Seq: 3, Health: healthy.Health, Holds: []Holding{{"writer", e, Serving}}}
}

// A report is its sender's echo, and its arrival this node's own, to what it asks for itself and in the arbiter's term only.
func TestI2_AReportIsItsSendersEcho(t *testing.T) {
	five := []NodeName{"n1", "n2", "n3", "n4", "n5"}
	for _, tt := range []struct {
		name      string
		said, own Term
		starting  bool
		waiting   bool // this node
		voters    []NodeName
		echoes    []NodeName // that come afterwards
		acks      int
	}{
		{name: "both in the term", said: 5, own: 5, acks: 1},
		{name: "the sender is ahead", said: 6, own: 5},
		{name: "the sender is ahead, another voter is not", said: 6, own: 5, echoes: []NodeName{"n3"}, acks: 1},
		{name: "the sender is behind", said: 4, own: 5},
		{name: "the sender does not vote", own: 5},
		{name: "this node is ahead", said: 5, own: 6},
		{name: "this node is ahead, another voter is not", said: 5, own: 6, echoes: []NodeName{"n3"}, acks: 1},
		{name: "the sender is starting", said: 5, own: 5, starting: true},
		{name: "this node is starting", said: 5, own: 5, waiting: true},
		{name: "the sender votes no more", said: 5, own: 5, voters: []NodeName{"n1", "n3", "n4"}},
		{name: "the sender twice", said: 5, echoes: []NodeName{"n2"}},
		{name: "two of five", said: 5, own: 5, voters: five},
		{name: "three of five", said: 5, own: 5, voters: five, echoes: []NodeName{"n4"}, acks: 1},
		{name: "acked once", said: 5, own: 5, echoes: []NodeName{"n1", "n2", "n3"}, acks: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, e := newArbiterOf(t)
			s.later(time.Millisecond)
			if tt.voters != nil {
				s.step(VotersChanged{Voters: tt.voters})
			}
			if tt.waiting {
				s.m.opt.Ready = s.now.Add(time.Minute)
			}
			r := renewing(e)
			r.Term, r.Starting = tt.said, tt.starting
			as := s.step(Received{From: "n2", Term: tt.own, Msg: r})
			confirms := sent[Confirm](as)
			if len(confirms) == 0 {
				t.Fatalf("the other voters are not asked: %v", as)
			}
			for _, n := range tt.echoes {
				as = append(as, s.echo(n, confirms[0].Nonce)...)
			}
			if got := sent[Ack](as); len(got) != tt.acks {
				t.Fatalf("got %d acks, want %d: %v", len(got), tt.acks, as)
			}
		})
	}
}

// What a report says of its sender's term is older than a report of another node may be, so it is no echo to that.
func TestI2_AReportIsNoEchoForAnother(t *testing.T) {
	s, e := newArbiterOf(t)
	s.other()
	s.step(Received{From: "n2", Term: 6, Msg: renewing(e)}) // only n2's own report could speak for it
	r := Report{Incarnation: 31, Seq: 2, Health: healthy.Health, Holds: []Holding{{"other", 1, Serving}}, Term: 5}
	as := s.step(Received{From: "n3", Term: 5, Msg: r})
	if got := sent[Ack](as); len(got) != 1 || got[0].Groups[0].Group != "other" {
		t.Fatalf("want an ack for n3 alone, got %v", got)
	}
	// The round that was begun then asks everybody on n2's behalf, the sender of the other report too.
	confirms := sent[Confirm](as)
	if len(confirms) != 3 {
		t.Fatalf("want three voters asked, got %v", confirms)
	}
	as = append(s.echo("n3", confirms[0].Nonce), s.echo("n1", confirms[0].Nonce)...)
	if got := sent[Ack](as); len(got) != 1 || got[0].Groups[0].Group != "writer" {
		t.Fatalf("want an ack for n2, got %v", got)
	}
}

// Who asks without a right to it is not acked, whatever the voters say.
func TestI2_AckOnlyForWhatTheLedgerGives(t *testing.T) {
	for _, tt := range []struct {
		name string
		ask  func(s *solo, e Epoch) []Action
	}{
		{"another process", func(s *solo, e Epoch) []Action { return s.reports("n2", 22, 9, Holding{"writer", e, Serving}) }},
		{"another node", func(s *solo, e Epoch) []Action { return s.reports("n3", 31, 9, Holding{"writer", e, Serving}) }},
		{"another epoch", func(s *solo, e Epoch) []Action { return s.reports("n2", 21, 9, Holding{"writer", e + 1, Serving}) }},
		{"yielding", func(s *solo, e Epoch) []Action { return s.reports("n2", 21, 9, Holding{"writer", e, Yielding}) }},
		{"nothing", func(s *solo, _ Epoch) []Action { return s.reports("n2", 21, 9) }},
		{"MySQL failed", func(s *solo, e Epoch) []Action {
			return s.step(Received{From: "n2", Msg: Report{Incarnation: 21, Seq: 9, Health: failed.Health, Holds: []Holding{{"writer", e, Serving}}}})
		}},
		{"an overtaken report", func(s *solo, e Epoch) []Action { return s.reports("n2", 21, 2, Holding{"writer", e, Serving}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, e := newArbiterOf(t)
			if got := sent[Confirm](tt.ask(s, e)); len(got) > 0 {
				t.Fatalf("a round was begun: %v", got)
			}
		})
	}
}

// A voter echoes only while its own term is the one it is asked about, and only when it takes part.
func TestI2_EchoOnlyInOnesOwnTerm(t *testing.T) {
	timing, _ := ProfileTiming("lan")
	for _, tt := range []struct {
		name       string
		own, asked Term
		ready      Instant
		echoes     int
	}{
		{"the same", 5, 5, 1e9, 1},
		{"voter ahead", 6, 5, 1e9, 0},
		{"voter behind", 4, 5, 1e9, 0},
		{"Raft does not run", 0, 0, 1e9, 0},
		{"starting", 5, 5, 1e9 + 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := New(Options{Self: "n1", Incarnation: 1, Timing: timing, Start: 1e9, Ready: tt.ready})
			as := m.Step(1e9, Received{From: "n2", Term: tt.own, Msg: Confirm{Term: tt.asked, Nonce: 77}})
			got := sent[Echo](as)
			if len(got) != tt.echoes || len(got) == 1 && got[0] != (Echo{Term: tt.asked, Nonce: 77}) {
				t.Fatalf("echoes %v, want %d", got, tt.echoes)
			}
		})
	}
}

// One round serves every report that came before it, so a lost echo of an earlier round costs nobody a renewal.
func TestI6_ARoundServesTheReportsBeforeIt(t *testing.T) {
	s, e := newArbiterOf(t)
	s.other()
	s.reports("n2", 21, 3, Holding{"writer", e, Serving}) // all echoes to this one are lost
	second := sent[Confirm](s.reports("n3", 31, 2, Holding{"other", 1, Serving}))
	as := append(s.echo("n2", second[0].Nonce), s.echo("n3", second[0].Nonce)...)
	if got := sent[Ack](as); len(got) != 2 {
		t.Fatalf("want both owners acked by the second round, got %v", got)
	}
	if got := sent[Ack](s.echo("n1", second[0].Nonce)); len(got) != 0 {
		t.Fatalf("acked again: %v", got)
	}
}
