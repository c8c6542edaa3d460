package core

import (
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

// proposed returns the operations of one kind that are proposed.
func proposed[T any](as []Action, kind func(Op) *T) []T {
	var found []T
	for _, p := range only[Propose](as) {
		for _, op := range p.Command.Ops {
			if o := kind(op); o != nil {
				found = append(found, *o)
			}
		}
	}
	return found
}

func grants(as []Action) []Grant { return proposed(as, func(op Op) *Grant { return op.Grant }) }

func releases(as []Action) []Release { return proposed(as, func(op Op) *Release { return op.Release }) }

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

// A release that comes before the report of its reason goes to another node than the one whose server has just failed.
func TestAReleaseSaysThatTheServerHasFailed(t *testing.T) {
	for _, c := range []struct {
		failed bool
		heir   NodeName
	}{{false, "n2"}, {true, "n3"}} {
		s, e := newArbiterOf(t)
		s.reports("n2", 21, 3, Holding{"writer", e, Serving})
		s.reports("n3", 31, 3)
		as := s.step(Received{From: "n2", Msg: ReleaseRequest{Group: "writer", Epoch: e, Reason: "test", Failed: c.failed}})
		gs := grants(as)
		if len(gs) != 1 || gs[0].To != c.heir {
			t.Errorf("the server of n2 has failed: %v; granted %+v, want to %s", c.failed, gs, c.heir)
		}
		if _, why := s.m.candidates("writer", s.group()); c.failed && why["n2"] != "MySQL: failed" {
			t.Errorf("n2 can not take it: %q", why["n2"])
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
