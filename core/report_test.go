package core

import (
	"slices"
	"testing"
	"time"
)

// between lets the machine's own timer ring as often as it wants to until d is over, and returns what that leads to.
func (s *solo) between(d time.Duration) (as []Action) {
	end := s.now.Add(d)
	for at := s.m.wake(); at.Before(end); at = s.m.wake() {
		s.now = max(s.now, at)
		as = append(as, s.step(Tick{})...)
	}
	s.now = end
	return as
}

// A node that holds nothing reports in the step in which it takes part in a confirm round, at every second one, and so wakes up
// for its report neither by itself nor anybody else. This is what keeps an idle cluster cheap.
func TestReportRidesWithConfirmRounds(t *testing.T) {
	for _, inOffice := range []bool{false, true} {
		s := newSolo(t)
		s.grantTo("n2", 21, 1)
		if inOffice {
			s.takeOffice()
		}
		// An owner's heartbeats are a little longer than they should be.
		period := s.m.opt.Timing.Heartbeat + 300*time.Microsecond
		seq := Seq(0)
		round := func() []Action {
			seq++
			if inOffice {
				return s.step(Received{From: "n2", Term: s.term, Msg: Report{Incarnation: 21, Seq: seq, Term: s.term, Health: healthy.Health,
					Config: 1, Holds: []Holding{{"writer", s.group().Epoch, Serving}}}})
			}
			return s.step(Received{From: "n3", Term: s.term, Msg: Confirm{Term: s.term, Nonce: uint64(seq)}})
		}
		for range 4 { // until the two are in step
			s.between(period)
			round()
		}
		const rounds = 20
		riding := 0
		for range rounds {
			if rs := sent[Report](s.between(period)); len(rs) > 0 {
				t.Errorf("in office %v: a report between the rounds at %v", inOffice, s.now)
			}
			if len(sent[Report](round())) > 0 {
				riding++
			}
		}
		if riding != rounds/2 {
			t.Errorf("in office %v: reports with %d of %d rounds, want every second", inOffice, riding, rounds)
		}
	}
}

// Without rounds a node that holds nothing reports by itself, and not later than two heartbeats and an eighth after its last.
func TestReportWithoutConfirmRounds(t *testing.T) {
	s := newSolo(t)
	h := s.m.opt.Timing.Heartbeat
	s.between(3 * h)
	for last := s.m.seq; s.m.seq < last+5; {
		before := s.m.seq
		if s.between(2*h + h/8 + time.Nanosecond); s.m.seq != before+1 {
			t.Fatalf("%d reports in two heartbeats and an eighth, want one", s.m.seq-before)
		}
	}
}

// A node that holds a group reports at each heartbeat, whatever rounds there are: its lease is counted from its reports.
func TestReportOfAHolderWaitsForNoRound(t *testing.T) {
	s := newSolo(t)
	e := s.own()
	s.step(s.ack(e))
	h := s.m.opt.Timing.Heartbeat
	for range 10 {
		before := s.m.seq
		s.between(h/2 + h/4)
		if as := s.step(Received{From: "n3", Term: s.term, Msg: Confirm{Term: s.term, Nonce: 1}}); len(sent[Report](as)) > 0 {
			t.Error("a holder's report came with a round")
		}
		s.between(h / 4)
		s.later(0)
		if s.m.seq != before+1 {
			t.Fatalf("%d reports in one heartbeat", s.m.seq-before)
		}
		s.step(s.ack(e))
	}
}

// The fence is told whether others wait for what this node says: from its election to the end of its office.
func TestArmTellsWhoLeads(t *testing.T) {
	s := newSolo(t)
	s.m.opt.Fence = true
	leads := func() bool {
		t.Helper()
		arms := only[Arm](s.between(3 * s.m.opt.Timing.Heartbeat))
		if len(arms) == 0 {
			t.Fatal("no report")
		}
		return arms[len(arms)-1].Leads
	}
	if leads() {
		t.Error("a follower's fence is told that it leads")
	}
	as := s.step(Elected{Term: s.term})
	if !leads() {
		t.Error("the fence of a leader that is not in office yet is not told that it leads")
	}
	s.commitCommand(only[Propose](as)[0].Command)
	if !leads() {
		t.Error("the fence of a leader in office is not told that it leads")
	}
	s.step(Deposed{})
	if leads() {
		t.Error("the fence of a node that led is told that it leads")
	}
}

// What the fence is to open names its epoch, so that a report which waits opens nothing that was given up meanwhile.
func TestI5_ArmOpensByEpoch(t *testing.T) {
	s := newSolo(t)
	s.m.opt.Fence = true
	e := s.own()
	var opened []Opening
	for _, a := range only[Arm](s.between(2 * s.m.opt.Timing.Heartbeat)) {
		opened = append(opened, a.Open...)
	}
	if len(opened) == 0 {
		t.Fatal("the fence is not told to open")
	}
	for _, o := range opened {
		if o.Group != "writer" || o.Epoch != e {
			t.Errorf("opens %q in epoch %d, want writer in %d", o.Group, o.Epoch, e)
		}
	}
}

// Only a report that was sent after the loss of the fence can open it again, so it goes out at once, and so does the one after
// its Ack, by which the fence opens.
func TestLostFenceIsOpenedByReportsAtOnce(t *testing.T) {
	s := newSolo(t)
	s.m.opt.Fence = true
	e := s.own()
	s.later(0) // what the ownership itself has to tell
	s.step(s.ack(e))
	if as := s.later(time.Millisecond); len(sent[Report](as)) > 0 {
		t.Fatalf("a report was due in any case: %v", as)
	}
	open := func(as []Action) int {
		t.Helper()
		arms := only[Arm](as)
		if len(arms) != 1 || len(sent[Report](as)) == 0 {
			t.Fatalf("no report at once: %v", as)
		}
		return len(arms[0].Open)
	}
	before := s.m.seq
	if n := open(s.step(FenceLost{Reason: "nft flush ruleset"})); n != 1 {
		t.Errorf("after the loss the report renews %d groups, want the one that is served", n)
	}
	if s.m.seq != before+1 {
		t.Fatalf("%d reports at the loss, want one", s.m.seq-before)
	}
	open(s.step(s.ack(e)))
	if rests := s.m.held["writer"].rests; rests != before+1 {
		t.Errorf("the fence opens by report %d, want %d, which was sent after the loss", rests, before+1)
	}
}

// Reports share the list of what is held while it is the same. One that was sent stays as it was when the list changes.
func TestReportsThatWereSentStayAsTheyWere(t *testing.T) {
	s := newSolo(t)
	var reports []Report
	var want []Holding
	says := func(as []Action, phase HoldPhase) {
		t.Helper()
		rs := sent[Report](as)
		if len(rs) == 0 {
			t.Fatalf("no report in %v", as)
		}
		reports, want = append(reports, rs[0]), append(want, Holding{"writer", s.group().Epoch, phase})
	}
	s.prove()
	s.later(s.m.opt.Timing.Heartbeat)
	s.grantTo("n1", soloIncarnation, s.m.seq)
	says(s.later(s.m.opt.Timing.Heartbeat), Claiming)
	s.step(BindDone{Group: "writer", Epoch: s.group().Epoch})
	for range 3 {
		says(s.later(s.m.opt.Timing.Heartbeat), Serving)
		s.step(s.ack(s.group().Epoch))
	}
	says(s.step(failed), Yielding)
	for i, r := range reports {
		if !slices.Equal(r.Holds, want[i:i+1]) {
			t.Errorf("report %d holds %v now, want %v", i, r.Holds, want[i])
		}
	}
}

// toldBy returns whom the reports among actions go to, apart from their sender.
func (s *solo) toldBy(as []Action) (nodes []NodeName) {
	for _, a := range only[Send](as) {
		if _, report := a.Msg.(Report); report && a.To != s.m.opt.Self {
			nodes = append(nodes, a.To)
		}
	}
	return nodes
}

// untilReport lets time pass until the next report, and returns what that led to.
func (s *solo) untilReport() []Action {
	s.t.Helper()
	for range 100 {
		before := s.m.seq
		s.now = max(s.now, s.m.wake())
		if as := s.step(Tick{}); s.m.seq != before {
			return as
		}
	}
	s.t.Fatal("no report")
	return nil
}

// Every report of an owner goes to the leader, and every second one to the others, unless it may be for another to renew the lease, or
// something is new in it.
func TestWhoDoesNotLeadHearsEverySecondReport(t *testing.T) {
	all, leader := []NodeName{"n2", "n3"}, []NodeName{"n3"}
	s := newSolo(t)
	e := s.own()
	s.step(LeaderSeen{Leader: "n3"})
	s.step(s.ack(e))
	expect := func(why string, as []Action, want []NodeName) {
		t.Helper()
		if got := s.toldBy(as); !slices.Equal(got, want) {
			t.Errorf("%s: the report goes to %v, want %v", why, got, want)
		}
	}
	expect("the one before went to all, and was acked", s.untilReport(), leader)
	s.step(s.ack(e))
	for range 3 {
		expect("the one before went to the leader alone", s.untilReport(), all)
		s.step(s.ack(e))
		expect("the one before went to all, and was acked", s.untilReport(), leader)
		s.step(s.ack(e))
	}
	expect("the one before went to the leader alone", s.untilReport(), all)
	expect("the one before was not acked", s.untilReport(), all)
	s.step(s.ack(e))
	read := healthy
	read.Health.Writable = No
	expect("something is new", s.step(read), all)
	s.step(s.ack(e))
	s.step(LeaderSeen{})
	expect("nobody leads", s.untilReport(), all)
	s.step(s.ack(e))
	expect("the new leader may have heard every second one only", s.step(LeaderSeen{Leader: "n2"}), all)
	s.step(s.ack(e))
	expect("the one before went to all, and was acked", s.untilReport(), []NodeName{"n2"})
}

// A node that holds nothing gets no Acks and wants none: to the others it reports half as often as to the leader, and they know that.
func TestAnIdleNodeReportsToTheLeader(t *testing.T) {
	s := newSolo(t)
	s.step(LeaderSeen{Leader: "n3"})
	for range 3 {
		if got := s.toldBy(s.untilReport()); !slices.Equal(got, []NodeName{"n3"}) {
			t.Errorf("a report after one to all goes to %v, want n3", got)
		}
		if got := s.toldBy(s.untilReport()); !slices.Equal(got, []NodeName{"n2", "n3"}) {
			t.Errorf("a report after one to the leader goes to %v, want both", got)
		}
	}
	timing := s.m.opt.Timing
	s.step(Received{From: "n2", Msg: Report{Incarnation: 21, Seq: 1, Health: healthy.Health}})
	s.later(2*(2*timing.Heartbeat+roundLate(timing)) + timing.Heartbeat) // the next but one is late
	if p := s.m.peers["n2"]; !s.m.recent(p) {
		t.Errorf("who was heard %v ago counts as silent on a node that does not lead", s.now.Sub(p.at))
	}
	s.step(Elected{Term: s.term})
	if p := s.m.peers["n2"]; s.m.recent(p) {
		t.Errorf("who was heard %v ago counts as there on the leader", s.now.Sub(p.at))
	}
}

// A grant may rest on a report that is old by then, and acks get lost. The fence would close before the next report opens it by a
// later one; so that goes out with the ack, and only then.
func TestAFenceThatShutsSoonIsOpenedWithTheAck(t *testing.T) {
	for _, c := range []struct {
		age  time.Duration
		want int
	}{{0, 0}, {soloTTL - 2*time.Millisecond - 90*time.Millisecond, 0}, {soloTTL + 2*time.Millisecond - 90*time.Millisecond, 1}} {
		s := newSolo(t)
		s.m.opt.Fence = true
		s.prove()
		rests := s.m.seq
		s.between(c.age)
		s.grantTo("n1", soloIncarnation, rests)
		e := s.group().Epoch
		s.step(BindDone{Group: "writer", Epoch: e})
		acked := s.ack(e)
		arms := only[Arm](s.step(acked))
		if len(arms) != c.want {
			t.Errorf("a grant on a report of %v: %d reports with the ack, want %d", c.age, len(arms), c.want)
		}
		if len(arms) > 0 && (len(arms[0].Open) != 1 || arms[0].Open[0].Report != acked.Msg.(Ack).Seq) {
			t.Errorf("a grant on a report of %v: it opens %+v, want by report %d", c.age, arms[0].Open, acked.Msg.(Ack).Seq)
		}
		if again := only[Arm](s.step(s.ack(e))); len(again) > 0 {
			t.Errorf("a grant on a report of %v: the next ack brings a report too", c.age)
		}
	}
}
