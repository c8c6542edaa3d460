package core

import (
	"testing"
	"time"
)

// The grip is firm while every lease stands, and slips from the moment at which something is given up until it was read back
// as gone.
func TestGripFollowsTheHolding(t *testing.T) {
	s := newSolo(t)
	is := func(when string, want Grip) {
		t.Helper()
		if got := s.m.Grip(); got != want {
			t.Errorf("%s: the grip is %d, want %d", when, got, want)
		}
	}
	is("nothing held", GripNone)
	e := s.own()
	is("serving", GripFirm)
	s.later(100 * time.Millisecond)
	s.step(s.ack(e))
	is("renewed", GripFirm)
	s.later(time.Second)
	is("the lease is over, the unbind on its way", GripSlipping)
	s.step(UnbindDone{Group: "writer", Epoch: e, Err: "it hangs"})
	is("the unbind failed", GripSlipping)
	s.later(time.Second)
	s.step(UnbindDone{Group: "writer", Epoch: e, Gone: true})
	is("read back as gone", GripNone)
}

// A machine that is not fit to own gives up what it has, says why, and claims nothing until it is fit again.
func TestI3_AnUnfitHostOwnsNothing(t *testing.T) {
	s := newSolo(t)
	e := s.own()
	as := s.step(HostChanged{Unfit: "no watchdog"})
	if len(only[Unbind](as)) != 1 {
		t.Fatalf("not given up: %v", as)
	}
	if rs := sent[Report](as); len(rs) == 0 || len(rs[0].Blocked) != 1 || rs[0].Blocked[0].Reason != "no watchdog" {
		t.Errorf("the others are not told: %+v", rs)
	}
	s.step(UnbindDone{Group: "writer", Epoch: e, Gone: true})
	s.commit(Op{Release: &Release{Group: "writer", Epoch: e, Node: "n1"}})
	s.later(2 * s.m.opt.Timing.Heartbeat)
	for _, a := range s.grantTo("n1", soloIncarnation, s.m.seq) {
		if claims(a) {
			t.Errorf("claimed all the same: %v", a)
		}
	}
	s.commit(Op{Release: &Release{Group: "writer", Epoch: s.group().Epoch, Node: "n1"}})
	s.step(HostChanged{})
	s.later(2 * s.m.opt.Timing.Heartbeat)
	if binds := only[Bind](s.grantTo("n1", soloIncarnation, s.m.seq)); len(binds) != 1 {
		t.Errorf("fit again, but binds are %v", binds)
	}
}
