package core

import (
	"testing"
	"time"
)

// A claim that hangs in the kernel must not keep the group on a node that does not serve it, however well that node's
// lease is renewed.
func TestI6_HungBindLosesTheGroup(t *testing.T) {
	s := newSolo(t)
	s.prove()
	s.later(time.Millisecond)
	s.grantTo("n1", soloIncarnation, s.m.seq)
	e := s.group().Epoch
	for range 20 {
		as := append(s.later(20*time.Millisecond), s.step(s.ack(e))...)
		if len(only[Unbind](as)) > 0 {
			return
		}
	}
	t.Fatal("a bind has hung for 400 ms and nothing was given up")
}

// While a claim hangs, no others are piled up behind it.
func TestI5_HungExtendDoesNotPileUp(t *testing.T) {
	s := newSolo(t)
	e := s.own()
	extends := 0
	for range 1000 {
		as := append(s.later(20*time.Millisecond), s.step(s.ack(e))...)
		extends += len(only[Extend](as))
	}
	if extends != 1 {
		t.Fatalf("%d extends were sent although the first has not ended", extends)
	}
	if as := s.step(failed); len(only[Unbind](as)) != 1 {
		t.Fatalf("want an unbind beside the hung extend, got %v", as)
	}
}
