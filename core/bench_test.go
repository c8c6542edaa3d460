package core

import (
	"testing"
	"time"
)

// BenchmarkStep shows what the commonest events cost an owner, and a leader with one owner to look after.
func BenchmarkStep(b *testing.B) {
	b.Run("idle tick", func(b *testing.B) {
		s := newSolo(b)
		s.own()
		b.ReportAllocs()
		for b.Loop() {
			s.m.Step(s.now, Tick{})
		}
	})
	b.Run("heartbeat", func(b *testing.B) {
		s := newSolo(b)
		e := s.own()
		b.ReportAllocs()
		for b.Loop() {
			s.now = s.now.Add(s.m.opt.Timing.Heartbeat)
			s.m.Step(s.now, Tick{})
			s.m.Step(s.now, s.ack(e))
		}
	})
	b.Run("report received", func(b *testing.B) {
		s := newSolo(b)
		s.own()
		r := Report{Incarnation: 21, Health: healthy.Health}
		b.ReportAllocs()
		for b.Loop() {
			r.Seq++
			s.m.Step(s.now, Received{From: "n2", Msg: r})
		}
	})
	b.Run("ack", func(b *testing.B) {
		s := newSolo(b)
		ack := s.ack(s.own())
		b.ReportAllocs()
		for b.Loop() {
			s.m.Step(s.now, ack)
		}
	})
	b.Run("renewal by the arbiter", func(b *testing.B) {
		s, e := newArbiterOf(b)
		seq := Seq(100)
		b.ReportAllocs()
		for b.Loop() {
			seq++
			s.now = s.now.Add(time.Millisecond)
			s.renew(seq, e)
		}
	})
}

// What happens many times in a second needs memory for what it sends and for a timer that is set anew, and for nothing else.
func TestStepsNeedLittleMemory(t *testing.T) {
	s := newSolo(t)
	e := s.own()
	ack := s.ack(e)
	for name, c := range map[string]struct {
		ev   Event
		most float64
	}{"idle tick": {Tick{}, 0}, "ack": {ack, 0}} {
		if n := testing.AllocsPerRun(100, func() { s.m.Step(s.now, c.ev) }); n > c.most {
			t.Errorf("%s: %v allocations, want at most %v", name, n, c.most)
		}
	}
	n := testing.AllocsPerRun(100, func() {
		s.now = s.now.Add(s.m.opt.Timing.Heartbeat)
		s.m.Step(s.now, Tick{})
		s.m.Step(s.now, s.ack(e))
	})
	if n > 7 {
		t.Errorf("a heartbeat and its answer: %v allocations, want at most 7", n)
	}
	r := Report{Incarnation: 21, Health: healthy.Health}
	n = testing.AllocsPerRun(100, func() {
		r.Seq++
		s.m.Step(s.now, Received{From: "n2", Msg: r})
	})
	if n > 1 { // the message itself, which the decoder makes
		t.Errorf("a report received: %v allocations, want at most 1", n)
	}
	s, e = newArbiterOf(t)
	seq := Seq(100)
	n = testing.AllocsPerRun(100, func() {
		seq++
		s.now = s.now.Add(time.Millisecond)
		s.renew(seq, e)
	})
	if n > 20 { // one of them for the race detector
		t.Errorf("a renewal by the arbiter: %v allocations, want at most 20", n)
	}
}
