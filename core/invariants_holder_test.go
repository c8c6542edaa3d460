package core

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
)

// last is the instant after which the present lease allows no claim.
func (s *solo) last() Instant { return s.m.held["writer"].last(s.m.opt.Timing) }

func TestI2_ReleaseOnlyAfterReadBack(t *testing.T) {
	s := newSolo(t)
	e := s.own()
	as := s.step(failed)
	for range 10 {
		as = append(as, s.step(UnbindDone{Group: "writer", Epoch: e, Err: "device or resource busy"})...)
		as = append(as, s.later(100*time.Millisecond)...)
	}
	if got := sent[ReleaseRequest](as); len(got) > 0 {
		t.Fatalf("%d requests for the release of an address that is still there", len(got))
	}
	as = s.step(UnbindDone{Group: "writer", Epoch: e, Gone: true})
	if got := sent[ReleaseRequest](as); len(got) != 3 {
		t.Fatalf("want a request to each of three nodes, got %v", as)
	}
}

func TestI2_ALeaseCountsFromTheReport(t *testing.T) {
	s := newSolo(t)
	e := s.own()
	s.later(s.m.opt.Timing.Heartbeat)
	asked := s.now
	ack := s.ack(e)
	s.later(100 * time.Millisecond) // so long the answer takes
	s.step(ack)
	if got, want := s.m.held["writer"].lease, asked.Add(soloTTL); got > want {
		t.Fatalf("the lease ends %v after the report, want %v", got.Sub(asked), soloTTL)
	}
}

// An ack renews only what it names, and nothing that is being given up.
func TestI3_AckRenewsOnlyWhatItNames(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Ack)
	}{
		{"another process", func(a *Ack) { a.Incarnation++ }},
		{"another epoch", func(a *Ack) { a.Groups[0].Epoch++ }},
		{"the epoch before", func(a *Ack) { a.Groups[0].Epoch-- }},
		{"another group", func(a *Ack) { a.Groups[0].Group = "reader" }},
		{"a report that was never sent", func(a *Ack) { a.Seq++ }},
		{"report zero", func(a *Ack) { a.Seq = 0 }},
		{"a report long ago", func(a *Ack) { a.Seq -= min(a.Seq, sentRing) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSolo(t)
			e := s.own()
			s.later(s.m.opt.Timing.Heartbeat)
			before := s.m.held["writer"].lease
			r := s.ack(e)
			a := r.Msg.(Ack)
			tt.change(&a)
			s.step(Received{From: "n3", Msg: a})
			if got := s.m.held["writer"].lease; got != before {
				t.Fatalf("the lease was prolonged by %v", got.Sub(before))
			}
		})
	}
}

func TestI3_NothingGivenUpIsClaimedAgainInItsEpoch(t *testing.T) {
	s := newSolo(t)
	e := s.own()
	s.step(failed)
	s.step(UnbindDone{Group: "writer", Epoch: e, Gone: true})
	s.step(healthy)
	for range 20 {
		for _, a := range append(s.later(20*time.Millisecond), s.step(s.ack(e))...) {
			if claims(a) {
				t.Fatalf("epoch %d was given up, and yet: %#v", e, a)
			}
		}
	}
	s.later(time.Millisecond)
	if as := s.grantTo("n1", soloIncarnation, s.m.seq); len(only[Bind](as)) != 1 {
		t.Fatalf("the next epoch is claimed, want a bind in %v", as)
	}
}

// What must be true for a grant to be bound is taken away one by one.
func TestI3_GrantThatMayNotBeBoundIsHandedBack(t *testing.T) {
	for _, tt := range []struct {
		name  string
		grant func(*solo) []Action
	}{
		{"to another process", func(s *solo) []Action { return s.grantTo("n1", soloIncarnation+1, s.m.seq) }},
		{"on a report never sent", func(s *solo) []Action { return s.grantTo("n1", soloIncarnation, s.m.seq+7) }},
		{"too late", func(s *solo) []Action {
			seq := s.m.seq
			s.now = s.now.Add(soloTTL - soloUnbind)
			return s.grantTo("n1", soloIncarnation, seq)
		}},
		{"MySQL failed", func(s *solo) []Action { s.step(failed); return s.grantTo("n1", soloIncarnation, s.m.seq) }},
		{"MySQL unknown", func(s *solo) []Action {
			s.step(HealthChanged{})
			return s.grantTo("n1", soloIncarnation, s.m.seq)
		}},
		{"link down", func(s *solo) []Action {
			s.step(LinkChanged{Interface: "eth0"})
			return s.grantTo("n1", soloIncarnation, s.m.seq)
		}},
		{"interface missing", func(s *solo) []Action {
			s.step(LinkChanged{Interface: "eth0", Missing: true})
			return s.grantTo("n1", soloIncarnation, s.m.seq)
		}},
		{"the daemon stops", func(s *solo) []Action {
			seq := s.m.seq
			s.m.stopping = s.now // the machine ends at once when it holds nothing
			return s.grantTo("n1", soloIncarnation, seq)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSolo(t)
			s.prove()
			s.later(s.m.opt.Timing.Heartbeat)
			as := tt.grant(s)
			for _, a := range as {
				if claims(a) {
					t.Errorf("claimed: %#v", a)
				}
			}
			if len(sent[ReleaseRequest](as)) != 3 {
				t.Errorf("want it handed back, got %v", as)
			}
		})
	}
}

// Whatever takes away the right to serve: the unbind is in the same step, and that step claims nothing.
func TestI3_LosingTheRightUnbindsAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(*solo) []Action
	}{
		{"MySQL failed", func(s *solo) []Action { return s.step(failed) }},
		{"link down", func(s *solo) []Action { return s.step(LinkChanged{Interface: "eth0"}) }},
		{"another owner", func(s *solo) []Action { return s.grantTo("n2", 21, 1) }},
		{"the same owner in a new epoch", func(s *solo) []Action { return s.grantTo("n1", soloIncarnation, s.m.seq) }},
		{"a notice of another owner", func(s *solo) []Action {
			g := s.group()
			g.Index, g.Epoch, g.Owner = g.Index+1, g.Epoch+1, "n2"
			return s.step(Received{From: "n3", Msg: Notice{Group: "writer", State: g}})
		}},
		{"a switchover", func(s *solo) []Action {
			return s.commit(Op{Move: &Move{Group: "writer", Epoch: s.group().Epoch, To: "n2"}})
		}},
		{"a changed configuration", func(s *solo) []Action {
			cfg := soloConfig()
			cfg.Version, cfg.Groups[0].Interface = 2, "eth1"
			return s.commit(Op{Configure: &cfg})
		}},
		{"a configuration without the group", func(s *solo) []Action {
			cfg := soloConfig()
			cfg.Version, cfg.Groups = 2, nil
			return s.commit(Op{Configure: &cfg})
		}},
		{"a snapshot with another owner", func(s *solo) []Action {
			v := s.ledger.View()
			g := v.Groups["writer"]
			g.Index, g.Epoch, g.Owner = g.Index+1, g.Epoch+1, "n2"
			v.Groups["writer"] = g
			return s.step(Restored{View: v})
		}},
		{"a clock that jumped", func(s *solo) []Action { return s.step(ClockJumped{Reason: "test"}) }},
		{"shutdown", func(s *solo) []Action { return s.step(ShutdownAsked{}) }},
		{"the end of the lease", func(s *solo) []Action { return s.later(s.last().Sub(s.now)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSolo(t)
			e := s.own()
			as := tt.lose(s)
			got := only[Unbind](as)
			if len(got) != 1 || got[0].Epoch != e {
				t.Errorf("want an unbind of epoch %d at once, got %v", e, as)
			}
			for _, a := range as {
				if claims(a) {
					t.Errorf("claimed: %#v", a)
				}
			}
		})
	}
}

// A notice that was overtaken by the log is not believed.
func TestI3_AnOldNoticeChangesNothing(t *testing.T) {
	s := newSolo(t)
	s.prove()
	s.later(s.m.opt.Timing.Heartbeat)
	old := s.group()
	old.Owner, old.Epoch = "n1", old.Epoch+1
	old.Grant = &Grant{Group: "writer", Prev: old.Epoch - 1, To: "n1", Incarnation: soloIncarnation, Seq: s.m.seq, TTL: Millis(soloTTL.Milliseconds())}
	s.grantTo("n2", 21, 1)
	as := s.step(Received{From: "n3", Msg: Notice{Group: "writer", State: old}})
	for _, a := range append(as, s.later(time.Millisecond)...) {
		if claims(a) {
			t.Fatalf("claimed on a notice of index %d: %#v", old.Index, a)
		}
	}
}

func TestI3_PauseKeepsAFailedServerButNotABrokenLink(t *testing.T) {
	s := newSolo(t)
	s.own()
	s.commit(Op{Pause: &Pause{Group: "writer", On: true}})
	if as := s.step(failed); len(only[Unbind](as)) != 0 {
		t.Errorf("a paused group stays where it is, got %v", as)
	}
	if as := s.step(LinkChanged{Interface: "eth0"}); len(only[Unbind](as)) != 1 {
		t.Errorf("without a link it can not be served, got %v", as)
	}
}

func TestI4_NothingIsAnnouncedThatIsNotBound(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 0x66}
	s := newSolo(t)
	s.prove()
	s.later(time.Millisecond)
	as := s.grantTo("n1", soloIncarnation, s.m.seq)
	e := s.group().Epoch
	as = append(as, s.step(ForeignClaim{Address: vip, MAC: mac})...)
	as = append(as, s.step(LinkChanged{Interface: "eth0", Up: true})...)
	as = append(as, s.step(BindDone{Group: "writer", Epoch: e - 1})...) // an end from another epoch
	as = append(as, s.later(10*time.Millisecond)...)
	if got := only[Announce](as); len(got) > 0 {
		t.Fatalf("announced before it is bound: %v", got)
	}
	if as = s.step(BindDone{Group: "writer", Epoch: e}); len(only[Announce](as)) != 1 {
		t.Fatalf("want an announcement at once, got %v", as)
	}
	as = s.step(failed)
	as = append(as, s.step(ForeignClaim{Address: vip, MAC: mac})...)
	as = append(as, s.step(LinkChanged{Interface: "eth0", Up: false})...)
	as = append(as, s.step(LinkChanged{Interface: "eth0", Up: true})...)
	as = append(as, s.later(time.Second)...)
	if got := only[Announce](as); len(got) > 0 {
		t.Fatalf("announced while it is given up: %v", got)
	}
}

func TestI4_AFailedBindIsNotAnnounced(t *testing.T) {
	for _, done := range []BindDone{{Err: "no such device"}, {Err: "too late", Late: true}} {
		s := newSolo(t)
		s.prove()
		s.later(time.Millisecond)
		s.grantTo("n1", soloIncarnation, s.m.seq)
		done.Group, done.Epoch = "writer", s.group().Epoch
		as := s.step(done)
		if len(only[Announce](as)) != 0 || len(only[Unbind](as)) != 1 {
			t.Errorf("%+v: want an unbind and no announcement, got %v", done, as)
		}
	}
}

// Every claim that a serving node makes ends before its lease does, with the time for the unbind to spare.
func TestI5_ClaimsCarryTheirEnd(t *testing.T) {
	s := newSolo(t)
	e := s.own()
	for range 300 {
		as := append(s.later(17*time.Millisecond), s.step(s.ack(e))...)
		as = append(as, s.step(AddressesSeen{{Address: vip}})...) // gone: it is bound again
		for _, a := range append(as, s.step(BindDone{Group: "writer", Epoch: e})...) {
			var notAfter Instant
			switch a := a.(type) {
			case Bind:
				notAfter = a.NotAfter
			case Extend:
				notAfter = a.NotAfter
				s.step(ExtendDone{Group: "writer", Epoch: e})
			case Announce:
				notAfter = a.NotAfter
			default:
				continue
			}
			if notAfter <= s.now || notAfter > s.last() {
				t.Fatalf("%T at %v may be carried out until %v, the lease allows %v", a, s.now, notAfter, s.last())
			}
		}
	}
}

// After a freeze that outlasted the lease, whatever event comes first: the unbind is before everything else, and the
// event brings nothing back.
func TestI5_GivingUpPrecedesEverythingAfterAFreeze(t *testing.T) {
	events := func(s *solo, e Epoch) []Event {
		g := s.group()
		g.Index, g.Reason = g.Index+1, "newer"
		return []Event{
			Tick{}, s.ack(e), healthy, failed, LinkChanged{Interface: "eth0", Up: true}, AddressesSeen{{Address: vip}},
			AddressesSeen{{Address: vip, Present: true, Ours: true}}, ForeignClaim{Address: vip}, BindDone{Group: "writer", Epoch: e},
			ExtendDone{Group: "writer", Epoch: e}, ExtendDone{Group: "writer", Epoch: e, Absent: true},
			UnbindDone{Group: "writer", Epoch: e, Gone: true}, UnbindDone{Group: "writer", Epoch: e - 1, Gone: true},
			Received{From: "n3", Msg: Notice{Group: "writer", State: g}}, Restored{View: s.ledger.View()},
			Received{From: "n3", Term: 1, Msg: Confirm{Term: 1, Nonce: 5}}, Received{From: "n2", Msg: Report{Incarnation: 3, Seq: 9}},
			Elected{Term: 1}, Deposed{}, LeaderSeen{}, VotersChanged{Voters: []NodeName{"n1"}}, ClockJumped{Reason: "test"}, ShutdownAsked{},
			MoveAsked{Ticket: 1, Group: "writer", To: "n2"}, PauseAsked{Ticket: 2, Group: "writer", On: true}, ConfigOffered{Config: soloConfig()},
		}
	}
	probe := newSolo(t)
	for i := range events(probe, probe.own()) {
		s := newSolo(t)
		e := s.own()
		ev := events(s, e)[i]
		t.Run(fmt.Sprintf("%T", ev), func(t *testing.T) {
			s.now = s.now.Add(10 * soloTTL)
			as := s.step(ev)
			for _, a := range as {
				if n, ok := a.(Note); ok && n.Text == "giving up" {
					continue
				}
				if u, ok := a.(Unbind); !ok || u.Epoch != e {
					t.Errorf("before the unbind comes %#v", a)
				}
				break
			}
			for _, a := range as {
				if claims(a) {
					t.Errorf("claimed: %#v", a)
				}
			}
		})
	}
}

// Every step but the last one asks for a timer, in the future and as its last action.
func TestStepEndsWithATimerInTheFuture(t *testing.T) {
	s := newSolo(t)
	e := s.own()
	check := func(as []Action) {
		t.Helper()
		timers := only[SetTimer](as)
		if len(timers) != 1 || as[len(as)-1] != Action(timers[0]) || timers[0].At <= s.now {
			t.Fatalf("at %v: %v", s.now, as)
		}
	}
	for range 100 {
		check(s.later(7 * time.Millisecond))
		check(s.step(s.ack(e)))
	}
	check(s.step(ExtendDone{Group: "writer", Epoch: e}))
	check(s.step(failed))
	check(s.step(UnbindDone{Group: "writer", Epoch: e, Gone: true}))
	check(s.step(ShutdownAsked{}))
	as := s.commit(Op{Release: &Release{Group: "writer", Epoch: e, Node: "n1"}})
	if len(only[Stopped](as)) != 1 || len(only[SetTimer](as)) != 0 {
		t.Fatalf("want the end and no timer, got %v", as)
	}
}

func TestStepTakesAnEarlierTimeForTheLatest(t *testing.T) {
	s := newSolo(t)
	e := s.own()
	late := s.now.Add(10 * soloTTL)
	if as := s.m.Step(late, Tick{}); len(only[Unbind](as)) != 1 {
		t.Fatalf("want an unbind, got %v", as)
	}
	s.m.Step(s.now, s.ack(e))
	if s.m.now != late {
		t.Fatalf("the time went back to %v", s.m.now)
	}
}

// A Bind of many addresses goes on while the lease is renewed, but one that hangs is not waited for without end.
func TestI5_ClaimsOfManyAddressesAreProlongedWithTheLease(t *testing.T) {
	for _, n := range []int{1, 1000} {
		s := newSolo(t)
		cfg := soloConfig()
		cfg.Version, cfg.Groups[0].Addresses = 2, nil
		for i := range n {
			cfg.Groups[0].Addresses = append(cfg.Groups[0].Addresses, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 78, byte(i >> 8), byte(i)}), 32))
		}
		s.commit(Op{Configure: &cfg})
		s.prove()
		s.later(s.m.opt.Timing.Heartbeat)
		begun := s.now
		end := only[Bind](s.grantTo("n1", soloIncarnation, s.m.seq))[0].NotAfter
		e := s.group().Epoch
		for {
			if len(only[Unbind](s.later(s.m.opt.Timing.Heartbeat))) > 0 {
				break
			}
			for _, p := range only[Prolong](s.step(s.ack(e))) {
				if p.Epoch != e || p.NotAfter <= end || p.NotAfter > s.last() {
					t.Fatalf("%d addresses: prolonged from %v to %v, the lease allows %v", n, end, p.NotAfter, s.last())
				}
				end = p.NotAfter
			}
			if s.now.Sub(begun) > 10*time.Second {
				t.Fatalf("%d addresses: a Bind that hangs is prolonged for ever", n)
			}
		}
		if took, want := s.now.Sub(begun), time.Duration(n)*claimEach; took < want || took > want+soloTTL+s.m.opt.Timing.Heartbeat {
			t.Errorf("%d addresses: the Bind was given up after %v, want a lease more than %v", n, took, want)
		}
	}
}

// What is read back at one time is one event: a holding that lacks some of its addresses is bound again once, and what others lack is
// nothing to it.
func TestAddressesSeenTogetherAreBoundAgainOnce(t *testing.T) {
	other := netip.MustParseAddr("10.77.0.201")
	for _, tt := range []struct {
		seen  AddressesSeen
		binds int
	}{
		{AddressesSeen{{Address: other}, {Address: vip}, {Address: vip.Next()}}, 1},
		{AddressesSeen{{Address: other}}, 0},
		{AddressesSeen{{Address: vip, Present: true, Ours: true}, {Address: other}}, 0},
		{AddressesSeen{{Address: vip, Present: true, Ours: true}, {Address: vip.Next()}}, 1},
	} {
		s := newSolo(t)
		s.own()
		s.m.held["writer"].spec.Addresses = []netip.Prefix{netip.PrefixFrom(vip, 32), netip.PrefixFrom(vip.Next(), 32)}
		if got := only[Bind](s.step(tt.seen)); len(got) != tt.binds {
			t.Errorf("%v: %d binds, want %d", tt.seen, len(got), tt.binds)
		}
	}
}
