package core

import (
	"testing"
	"time"
)

// A server is compared with the owner's report only when that must have all of the owner's that the server can have.
func TestI10_ComparedWithNothingOlder(t *testing.T) {
	const second = Instant(time.Second)
	g := GroupState{Spec: GroupSpec{Name: "writer", Policy: Promote}, Epoch: 2, Owner: "n2", Grant: &Grant{Prev: 1, Basis: []NodeName{"n1"}}}
	answer := Frozen{Group: "writer", Epoch: 1, Executed: "n2:3", Received: "n2:5"}
	for _, tt := range []struct {
		name     string
		server   localServer
		executed string
		owner    peer
		want     bool
	}{
		{"stopped for the choice", localServer{still: true, frozen: answer}, "n2:5", peer{at: 9 * second}, true},
		{"stopped for the choice, given more since", localServer{still: true, frozen: answer}, "n2:6", peer{at: 9 * second}, false},
		{"stopped for another choice", localServer{still: true, frozen: Frozen{Group: "writer", Epoch: 0, Received: "n2:5"}}, "n2:5", peer{at: 9 * second}, false},
		{"started again since the choice", localServer{frozen: answer}, "n2:5", peer{at: 9 * second}, false},
		{"stopped long before the report", localServer{stillFrom: 7 * second}, "n2:9", peer{at: 9 * second}, true},
		{"stopped just before the report", localServer{stillFrom: 8 * second}, "n2:9", peer{at: 9 * second}, false},
		{"the owner stood still until just before", localServer{stillFrom: 2 * second}, "n2:9", peer{at: 9 * second, steady: 8 * second}, false},
		{"the owner stood still long ago", localServer{stillFrom: 2 * second}, "n2:9", peer{at: 9 * second, steady: 6 * second}, true},
		{"not stopped", localServer{}, "n2:9", peer{at: 9 * second}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := New(Options{Self: "n1", Start: 10 * second, Sets: countSets{}})
			m.server, m.health.Executed = tt.server, tt.executed
			if got := m.comparable(g, &tt.owner); got != tt.want {
				t.Errorf("comparable: %t, want %t", got, tt.want)
			}
		})
	}
}

// After a pause of the owner, and after a start of the local server, what was known of before counts no more.
func TestI10_PausesAndStartsAreNoticed(t *testing.T) {
	s := newSolo(t)
	beat := 2 * s.m.opt.Timing.Heartbeat
	s.reports("n2", 21, 1)
	for i := range Seq(20) {
		s.later(beat)
		s.reports("n2", 21, 2+i)
	}
	if p := s.m.peers["n2"]; p.at.Sub(p.steady) != 20*beat {
		t.Errorf("reports without a pause count for %v, want %v", p.at.Sub(p.steady), 20*beat)
	}
	s.later(looksAfter)
	s.reports("n2", 21, 50)
	if p := s.m.peers["n2"]; p.at != p.steady {
		t.Errorf("the report after a pause counts for %v", p.at.Sub(p.steady))
	}
	up := HealthChanged{Health: Health{State: Healthy, Writable: No, Replicating: No}}
	s.step(up)
	s.m.server.still, s.m.server.stillFrom = true, 1
	s.step(up)
	if !s.m.server.still {
		t.Error("a server that was healthy before counts as started again")
	}
	s.step(failed)
	s.step(up)
	if s.m.server.still || s.m.server.stillFrom != s.now {
		t.Errorf("a server that was started again: still %t from %v, now is %v", s.m.server.still, s.m.server.stillFrom, s.now)
	}
}

// Who follows has a set that moves, whatever it said when it was stopped.
func TestI10_FollowingForgetsTheAnswer(t *testing.T) {
	s := newSolo(t)
	cfg := soloConfig()
	cfg.Version, cfg.Groups[0].Policy = 2, Promote
	s.m.opt.Sets = countSets{}
	s.commit(Op{Configure: &cfg})
	s.step(HealthChanged{Health: Health{State: Healthy, Writable: No, Replicating: No, Executed: "n2:3"}})
	s.grantTo("n2", 21, 1)
	s.m.server.still, s.m.server.stillFrom = true, 1
	s.m.server.frozen = Frozen{Group: "writer", Round: 7, Executed: "n2:3"}
	as := s.step(Received{From: "n2", Msg: Report{Incarnation: 21, Seq: 2, Holds: []Holding{{"writer", s.group().Epoch, Serving}},
		Health: Health{State: Healthy, Writable: Yes, Executed: "n2:3"}}})
	for range 100 {
		as = append(as, s.later(50*time.Millisecond)...)
		as = append(as, s.step(Received{From: "n2", Msg: Report{Incarnation: 21, Seq: Seq(s.now), Holds: []Holding{{"writer", s.group().Epoch, Serving}},
			Health: Health{State: Healthy, Writable: Yes, Executed: "n2:3"}}})...)
	}
	if len(only[FollowServer](as)) == 0 {
		t.Fatalf("it does not follow: %v", as)
	}
	if f := s.m.server.frozen; f.Round != 0 {
		t.Errorf("the answer to round %d is still there", f.Round)
	}
}
