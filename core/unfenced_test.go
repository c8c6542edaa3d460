package core

import (
	"strings"
	"testing"
	"time"
)

const unfencedTTL = 4 * time.Second

// unfencedConfig puts leases of four seconds into the ledger.
func (s *solo) unfencedConfig() {
	c := soloConfig()
	c.Version, c.TTL = 2, Millis(unfencedTTL.Milliseconds())
	s.commit(Op{Configure: &c})
}

// reportsUnfenced lets a peer without a fence report.
func (s *solo) reportsUnfenced(n NodeName, inc Incarnation, seq Seq, holds ...Holding) []Action {
	return s.step(Received{From: n, Term: s.term, Msg: Report{Incarnation: inc, Seq: seq, Health: healthy.Health, Holds: holds, Config: 2, Unfenced: true}})
}

// The margin of a node without a fence covers the clocks and a kernel that removes an address 1.25 s late, and is never
// shorter than 1.5 s.
func TestUnfencedMarginCoversTheClocksAndALateKernel(t *testing.T) {
	for _, ttl := range []time.Duration{UnfencedTTL, 4 * time.Second, 10 * time.Second, time.Minute} {
		holder := time.Duration(float64(ttl)/0.99) + lifetimeLate
		arbiter := time.Duration(float64(ttl+UnfencedMargin(ttl)) / 1.01)
		if left := arbiter - holder; left <= 0 {
			t.Errorf("with a lease of %v the arbiter is %v ahead of the kernel", ttl, -left)
		}
		if m := UnfencedMargin(ttl); m < 1500*time.Millisecond {
			t.Errorf("the margin of %v is %v", ttl, m)
		}
	}
}

// A profile that is too short for address lifetimes is refused, with what to do about it.
func TestAShortProfileIsRefusedWithoutAFence(t *testing.T) {
	for profile, refused := range map[string]bool{"lan": true, "fast": true, "wan": false} {
		tm, err := ProfileTiming(profile)
		if err != nil {
			t.Fatal(err)
		}
		ps := tm.CheckUnfenced()
		if got := len(ps) > 0; got != refused {
			t.Errorf("%s: problems %v", profile, ps)
		}
		if refused && (ps[0].Key != "ttl" || !strings.Contains(ps[0].Text, "nf_tables") || !strings.Contains(ps[0].Text, "3s")) {
			t.Errorf("%s: the message says not what to do: %+v", profile, ps[0])
		}
	}
}

// A node without a fence says so, and neither takes nor is given a group while leases are too short for it.
func TestI8_NoShortLeaseWithoutAFence(t *testing.T) {
	s := newSolo(t)
	s.m.opt.Unfenced = true
	s.prove()
	as := s.later(3 * s.m.opt.Timing.Heartbeat)
	if rs := sent[Report](as); len(rs) == 0 || !rs[0].Unfenced || len(rs[0].Blocked) != 1 {
		t.Fatalf("want reports that say so, got %v", rs)
	}
	for _, a := range s.grantTo("n1", soloIncarnation, s.m.seq) {
		if claims(a) {
			t.Errorf("claimed all the same: %v", a)
		}
	}
	arb := newSolo(t)
	arb.step(failed)
	arb.takeOffice()
	arb.prove()
	for i := range Seq(40) {
		arb.later(10 * time.Millisecond)
		if got := grants(arb.reportsUnfenced("n2", 22, i+1)); len(got) > 0 {
			t.Fatalf("granted all the same: %+v", got)
		}
	}
}

// What the kernel of a node without a fence is told ends inside the lease, whenever within its time a claim is carried out,
// and goes on with each renewal.
func TestI8_LifetimesEndInsideTheLeaseWithoutAFence(t *testing.T) {
	s := newSolo(t)
	s.m.opt.Unfenced = true
	s.unfencedConfig()
	s.prove()
	s.later(s.m.opt.Timing.Heartbeat)
	sent := s.now
	as := s.commit(Op{Grant: &Grant{Group: "writer", Prev: s.group().Epoch, To: "n1", Incarnation: soloIncarnation, Seq: s.m.seq,
		TTL: Millis(unfencedTTL.Milliseconds()), Unfenced: true, Reason: "test"}})
	binds := only[Bind](as)
	if len(binds) != 1 {
		t.Fatalf("want a bind, got %v", as)
	}
	inside := func(life time.Duration, notAfter, lease Instant) {
		t.Helper()
		if life < time.Second || life%time.Second != 0 || notAfter.Add(life).After(lease) {
			t.Fatalf("a lifetime of %v, given until %v, for a lease until %v", life, notAfter, lease)
		}
	}
	inside(binds[0].Lifetime, binds[0].NotAfter, sent.Add(unfencedTTL))
	s.step(BindDone{Group: "writer", Epoch: s.group().Epoch})
	extends := 0
	for range 200 {
		as := s.later(60 * time.Millisecond)
		ack := Ack{Incarnation: soloIncarnation, Seq: s.m.seq, TTL: unfencedTTL, Groups: []GroupEpoch{{"writer", s.group().Epoch}}}
		at, _ := s.m.sentAt(s.m.seq)
		as = append(as, s.step(Received{From: "n3", Msg: ack})...)
		for _, e := range only[Extend](as) {
			extends++
			inside(e.Lifetime, e.NotAfter, at.Add(unfencedTTL))
			s.step(ExtendDone{Group: "writer", Epoch: e.Epoch})
		}
	}
	if extends < 12 { // twelve seconds, and a lifetime of three
		t.Errorf("the lifetime was renewed only %d times", extends)
	}
}

// Everybody waits longer for an owner without a fence: the arbiter that has acked it, and the next one, which knows from the
// ledger.
func TestI2_AnOwnerWithoutAFenceIsWaitedForLonger(t *testing.T) {
	longer := unfencedTTL + UnfencedMargin(unfencedTTL)
	t.Run("the same arbiter", func(t *testing.T) {
		s := newSolo(t)
		s.unfencedConfig()
		s.step(failed)
		s.prove()
		s.takeOffice()
		as := s.reportsUnfenced("n2", 22, 1)
		for len(grants(as)) == 0 && s.now < 5e9 {
			as = s.later(time.Millisecond)
		}
		got := grants(as)
		if len(got) != 1 || !got[0].Unfenced {
			t.Fatalf("want a grant that says that its node has no fence, got %+v", got)
		}
		s.commitCommand(only[Propose](as)[0].Command)
		since := s.now
		s.untilGrant(20 * time.Second)
		if wait := s.now.Sub(since); wait < longer {
			t.Errorf("granted after %v, the lease and the margin are %v", wait, longer)
		}
	})
	t.Run("the next arbiter", func(t *testing.T) {
		s := newSolo(t)
		s.unfencedConfig()
		s.prove()
		s.commit(Op{Grant: &Grant{Group: "writer", Prev: s.group().Epoch, To: "n2", Incarnation: 21, Seq: 1, TTL: 4000, Unfenced: true, Reason: "test"}})
		s.step(failed)
		s.term = 7
		s.takeOffice()
		since := s.now
		s.untilGrant(20 * time.Second)
		if wait := s.now.Sub(since); wait < longer {
			t.Errorf("granted after %v, the lease and the margin are %v", wait, longer)
		}
	})
}
