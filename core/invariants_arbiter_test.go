package core

import (
	"slices"
	"testing"
	"time"
)

// newArbiterOf returns a machine, n1, in office in a cluster where n2 serves the group as process 21 in the epoch
// returned, and n3 is fit to take it as process 31.
func newArbiterOf(t testing.TB) (*solo, Epoch) {
	s := newSolo(t)
	s.step(failed) // n1 itself is no candidate
	s.term = 5
	s.takeOffice()
	s.reports("n2", 21, 1)
	s.reports("n3", 31, 1)
	s.prove()
	s.grantTo("n2", 21, 1)
	// The wait of a new arbiter must be over, so that acks and grants alone decide. Reports keep the others in sight.
	e := s.group().Epoch
	s.reports("n2", 21, 2, Holding{"writer", e, Serving})
	return s, e
}

// other gives n3 a group of its own.
func (s *solo) other() {
	cfg := soloConfig()
	cfg.Version = 2
	cfg.Groups = append(cfg.Groups, GroupSpec{Name: "other", Role: Writer, Policy: AnyHealthy, Interface: "eth0"})
	s.commit(Op{Configure: &cfg})
	s.commit(Op{Grant: &Grant{Group: "other", To: "n3", Incarnation: 31, Seq: 1, TTL: Millis(soloTTL.Milliseconds())}})
}

func (s *solo) echo(from NodeName, nonce uint64) []Action {
	return s.step(Received{From: from, Term: s.term, Msg: Echo{Term: s.term, Nonce: nonce}})
}

// renew lets n2 ask for its lease and a majority confirm the term; it returns what that leads to.
func (s *solo) renew(seq Seq, e Epoch) []Action {
	as := s.reports("n2", 21, seq, Holding{"writer", e, Serving})
	confirms := sent[Confirm](as)
	if len(confirms) == 0 {
		return as
	}
	as = append(as, s.echo("n2", confirms[0].Nonce)...)
	return append(as, s.echo("n3", confirms[0].Nonce)...)
}

func grants(as []Action) []Grant {
	var found []Grant
	for _, p := range only[Propose](as) {
		for _, op := range p.Command.Ops {
			if op.Grant != nil {
				found = append(found, *op.Grant)
			}
		}
	}
	return found
}

// untilGrant lets time pass in steps of a millisecond, with n3 in sight, until a grant is proposed.
func (s *solo) untilGrant(limit time.Duration) (Grant, Propose) {
	s.t.Helper()
	for i := range Seq(limit / time.Millisecond) {
		as := s.later(time.Millisecond)
		if i%20 == 0 {
			as = append(as, s.reports("n3", 31, Seq(s.now/1000))...)
		}
		if got := grants(as); len(got) > 0 {
			return got[0], only[Propose](as)[0]
		}
	}
	s.t.Fatalf("no grant within %v", limit)
	return Grant{}, Propose{}
}

func TestI2_NoGrantBeforeReleaseOrLapse(t *testing.T) {
	s, e := newArbiterOf(t)
	s.later(time.Second / 10)
	if got := sent[Ack](s.renew(3, e)); len(got) != 1 {
		t.Fatalf("want one ack, got %v", got)
	}
	acked := s.now
	g, _ := s.untilGrant(2 * time.Second)
	if wait := s.now.Sub(acked); wait < soloTTL+Margin(soloTTL) {
		t.Errorf("granted %v after the last ack, the lease and the margin are %v", wait, soloTTL+Margin(soloTTL))
	} else if wait > soloTTL+Margin(soloTTL)+2*time.Millisecond {
		t.Errorf("granted only %v after the last ack", wait)
	}
	if g.Prev != e || g.To != "n3" || g.Incarnation != 31 {
		t.Errorf("granted %+v", g)
	}
}

func TestI2_AReleaseAndItsSuccessorAreOneEntry(t *testing.T) {
	s, e := newArbiterOf(t)
	as := s.step(Received{From: "n2", Msg: ReleaseRequest{Group: "writer", Epoch: e, Reason: "test"}})
	ps := only[Propose](as)
	if len(ps) != 1 || len(ps[0].Command.Ops) != 2 || ps[0].Command.Ops[0].Release == nil || ps[0].Command.Ops[1].Grant == nil {
		t.Fatalf("want release and grant in one command, got %v", ps)
	}
	for _, r := range []Received{
		{From: "n2", Msg: ReleaseRequest{Group: "writer", Epoch: e}},     // asked again
		{From: "n3", Msg: ReleaseRequest{Group: "writer", Epoch: e}},     // not the owner
		{From: "n2", Msg: ReleaseRequest{Group: "writer", Epoch: e - 1}}, // an epoch that has passed
	} {
		if got := only[Propose](s.step(r)); len(got) != 0 {
			t.Errorf("%+v led to %v", r, got)
		}
	}
}

// A grant counts as an ack given when it was proposed, whether or not its receiver is ever heard.
func TestI2_AGrantCountsAsAnAckGivenWhenItWasProposed(t *testing.T) {
	s, _ := newArbiterOf(t)
	_, p := s.untilGrant(2 * time.Second)
	proposed := s.now
	s.later(50 * time.Millisecond)
	s.commitCommand(p.Command)
	s.reports("n2", 22, 1) // n2 is back as another process and fit
	for {
		as := s.later(time.Millisecond)
		if s.now%20e6 == 0 {
			as = append(as, s.reports("n2", 22, Seq(s.now/1000))...)
		}
		if len(grants(as)) > 0 {
			break
		}
		if s.now.Sub(proposed) > time.Second {
			t.Fatal("no other grant within a second")
		}
	}
	if wait := s.now.Sub(proposed); wait < soloTTL+Margin(soloTTL) {
		t.Fatalf("granted to another %v after the proposal", wait)
	}
}

func TestI2_NoAckWhileACommandIsInFlight(t *testing.T) {
	s, e := newArbiterOf(t)
	confirms := sent[Confirm](s.reports("n2", 21, 3, Holding{"writer", e, Serving}))
	as := s.step(Received{From: "n2", Msg: ReleaseRequest{Group: "writer", Epoch: e}})
	if len(grants(as)) != 1 {
		t.Fatalf("want a grant in flight, got %v", as)
	}
	id := only[Propose](as)[0].Command.ID
	as = append(s.echo("n2", confirms[0].Nonce), s.echo("n3", confirms[0].Nonce)...)
	as = append(as, s.renew(4, e)...)
	if got := sent[Ack](as); len(got) > 0 {
		t.Fatalf("acked while a grant of the next epoch is in flight: %v", got)
	}
	s.step(ProposalFailed{ID: id, Known: false, Reason: "timeout"})
	if got := sent[Ack](s.renew(5, e)); len(got) > 0 {
		t.Fatalf("acked although the grant may still be committed: %v", got)
	}
	s.step(ProposalFailed{ID: id, Known: true, Reason: "never appended"})
	if got := sent[Ack](s.renew(6, e)); len(got) != 1 {
		t.Fatalf("want an ack once the grant is known to be nothing, got %v", got)
	}
}

func TestI2_TakingOfficeTwiceForgetsNothing(t *testing.T) {
	s, e := newArbiterOf(t)
	s.step(Received{From: "n2", Msg: ReleaseRequest{Group: "writer", Epoch: e}})
	s.commit(Op{TakeOffice: &TakeOffice{Node: "n1", Incarnation: soloIncarnation}})
	if got := sent[Ack](s.renew(3, e)); len(got) > 0 {
		t.Fatalf("acked while a grant is in flight: %v", got)
	}
}

func TestI2_ANewArbiterWaitsFromItsOffice(t *testing.T) {
	s := newSolo(t)
	s.prove()
	s.grantTo("n2", 21, 1) // by an arbiter before, which may have acked it until just now
	s.step(failed)
	s.later(10 * time.Second)
	s.term = 7
	s.reports("n3", 31, 1)
	s.takeOffice()
	since := s.now
	s.untilGrant(2 * time.Second)
	if wait := s.now.Sub(since); wait < soloTTL+Margin(soloTTL) {
		t.Fatalf("granted %v after taking office", wait)
	}
}

func TestI2_TheLongestLeaseIsWaitedFor(t *testing.T) {
	s := newSolo(t)
	long, short := soloConfig(), soloConfig()
	long.Version, long.TTL = 2, 4000
	short.Version = 3
	s.commit(Op{Configure: &long})
	s.prove()
	s.grantTo("n2", 21, 1)
	s.commit(Op{Configure: &short})
	s.step(failed)
	s.term = 7
	s.reports("n3", 31, 1)
	s.takeOffice()
	since := s.now
	s.untilGrant(10 * time.Second)
	if wait, want := s.now.Sub(since), 4*time.Second+Margin(4*time.Second); wait < want {
		t.Fatalf("granted after %v, leases of %v may be out", wait, want)
	}
}

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

func TestI2_NoAckBeforeOffice(t *testing.T) {
	s := newSolo(t)
	s.prove()
	s.grantTo("n2", 21, 1)
	s.step(Elected{Term: s.term})
	if got := sent[Confirm](s.reports("n2", 21, 2, Holding{"writer", s.group().Epoch, Serving})); len(got) > 0 {
		t.Fatalf("a round before the entry of this office is committed: %v", got)
	}
}

// The term of an office is that of its entry in the log. An entry of an earlier term that is committed late opens none.
func TestI2_AnOldEntryOpensNoOffice(t *testing.T) {
	s := newSolo(t)
	s.term = 5
	command := only[Propose](s.step(Elected{Term: 5}))[0].Command
	s.step(Deposed{})
	s.step(Elected{Term: 7})
	s.commitCommand(command) // still in term 5
	if s.m.Status(s.now).InOffice {
		t.Fatal("in office by an entry of term 5 while elected in term 7")
	}
	s.term = 7
	s.commit(Op{TakeOffice: &TakeOffice{Node: "n1", Incarnation: soloIncarnation + 1}})
	if s.m.Status(s.now).InOffice {
		t.Fatal("in office by the entry of another process")
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

func TestI3_AGrantRestsOnAReportAndOnAFitNode(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    Report
	}{
		{"failed", Report{Health: failed.Health}},
		{"unknown", Report{}},
		{"leaving", Report{Health: healthy.Health, Leaving: true}},
		{"starting", Report{Health: healthy.Health, Starting: true}},
		{"dry run", Report{Health: healthy.Health, DryRun: true}},
		{"blocked", Report{Health: healthy.Health, Blocked: []Blocked{{"writer", "link eth0 is down"}}}},
		{"foreign elsewhere", Report{Health: healthy.Health}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, e := newArbiterOf(t)
			tt.r.Incarnation, tt.r.Seq = 31, 2
			s.step(Received{From: "n3", Msg: tt.r})
			s.step(Received{From: "n2", Msg: Report{Incarnation: 21, Seq: 5, Health: failed.Health, Foreign: foreignIf(tt.name == "foreign elsewhere")}})
			as := s.step(Received{From: "n2", Msg: ReleaseRequest{Group: "writer", Epoch: e}})
			if got := grants(as); len(got) != 0 {
				t.Fatalf("granted: %+v", got)
			}
			s.reports("n2", 21, 6)
			s.reports("n3", 31, 3)
			s.commitCommand(only[Propose](as)[0].Command)
			if g, _ := s.untilGrant(time.Second); g.Prev != e {
				t.Fatalf("granted %+v", g)
			}
		})
	}
}

func foreignIf(on bool) []GroupName {
	if on {
		return []GroupName{"writer"}
	}
	return nil
}
