package core

import (
	"testing"
	"time"
)

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
