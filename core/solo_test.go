package core

import (
	"net/netip"
	"testing"
	"time"
)

// solo is one machine, n1 of three, whose whole world is made by the test.
type solo struct {
	t      testing.TB
	m      *Machine
	ledger *Ledger
	index  Index
	term   Term
	now    Instant
}

const (
	soloIncarnation = 11
	soloTTL         = 300 * time.Millisecond
	soloUnbind      = 20 * time.Millisecond // of profile lan
)

var (
	vip     = netip.MustParseAddr("10.77.0.100")
	healthy = HealthChanged{Health: Health{State: Healthy, Writable: Yes, Replicating: Yes}}
	failed  = HealthChanged{Health: Health{State: Failed, Reason: "connection refused"}}
)

func soloConfig() Config {
	node := func(name string, last byte) NodeSpec {
		return NodeSpec{Name: NodeName(name), Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, last}), 7400)}
	}
	return Config{
		Version: 1, Cluster: "test", TTL: Millis(soloTTL.Milliseconds()),
		Nodes: []NodeSpec{node("n1", 11), node("n2", 12), node("n3", 13)},
		Groups: []GroupSpec{{Name: "writer", Role: Writer, Policy: AnyHealthy, Interface: "eth0",
			Addresses: []netip.Prefix{netip.PrefixFrom(vip, 32)}}},
	}
}

// newSolo returns a machine that takes part, with a healthy server and the configuration in the ledger.
func newSolo(t testing.TB) *solo {
	timing, err := ProfileTiming("lan")
	if err != nil {
		t.Fatal(err)
	}
	s := &solo{t: t, ledger: NewLedger(), now: 1e9, term: 1}
	s.m = New(Options{Self: "n1", Incarnation: soloIncarnation, Timing: timing, Seed: 1, Start: s.now, Ready: s.now})
	s.step(ConfigOffered{Config: soloConfig()})
	s.step(VotersChanged{Voters: []NodeName{"n1", "n2", "n3"}})
	s.step(LinkChanged{Interface: "eth0", Up: true})
	s.step(healthy)
	cfg := soloConfig()
	s.commit(Op{Configure: &cfg})
	return s
}

func (s *solo) step(ev Event) []Action {
	return append([]Action(nil), s.m.Step(s.now, ev)...)
}

// later lets d pass and returns what the tick leads to.
func (s *solo) later(d time.Duration) []Action {
	s.now = s.now.Add(d)
	return s.step(Tick{})
}

// commit applies operations as one entry of the present term.
func (s *solo) commit(ops ...Op) []Action {
	return s.commitCommand(Command{ID: 1, By: "n3", Ops: ops})
}

func (s *solo) commitCommand(c Command) []Action {
	s.index++
	out := s.ledger.Apply(s.index, s.term, c)
	return s.step(Committed{Index: s.index, Term: s.term, Command: c, Outcomes: out, View: s.ledger.View()})
}

func (s *solo) group() GroupState { return s.ledger.View().Groups["writer"] }

// grantTo commits the next grant, on the report seq.
func (s *solo) grantTo(n NodeName, inc Incarnation, seq Seq) []Action {
	return s.commit(Op{Grant: &Grant{Group: "writer", Prev: s.group().Epoch, To: n, Incarnation: inc, Seq: seq,
		TTL: Millis(soloTTL.Milliseconds()), Reason: "test"}})
}

// prove makes the ledger know that the addresses have been served, so that nothing is probed: by an epoch of n2.
func (s *solo) prove() {
	s.grantTo("n2", 21, 1)
	s.commit(Op{Release: &Release{Group: "writer", Epoch: s.group().Epoch, Node: "n2"}})
}

// own brings the machine to serve the group, on a report that was sent now.
func (s *solo) own() Epoch {
	s.prove()
	s.later(s.m.opt.Timing.Heartbeat)
	as := s.grantTo("n1", soloIncarnation, s.m.seq)
	if binds := only[Bind](as); len(binds) != 1 {
		s.t.Fatalf("own: %d binds in %v", len(binds), as)
	}
	e := s.group().Epoch
	as = s.step(BindDone{Group: "writer", Epoch: e})
	if len(only[Announce](as)) != 1 {
		s.t.Fatalf("own: not announced in %v", as)
	}
	return e
}

// ack is the arbiter's answer to the last report.
func (s *solo) ack(e Epoch) Received {
	return Received{From: "n3", Msg: Ack{Incarnation: soloIncarnation, Seq: s.m.seq, TTL: soloTTL, Groups: []GroupEpoch{{"writer", e}}}}
}

// takeOffice puts the machine into office.
func (s *solo) takeOffice() []Action {
	as := s.step(Elected{Term: s.term})
	proposals := only[Propose](as)
	if len(proposals) != 1 || proposals[0].Command.Ops[0].TakeOffice == nil {
		s.t.Fatalf("elected: want a proposal to take office, got %v", as)
	}
	return s.commitCommand(proposals[0].Command)
}

// reports lets a peer report, with a healthy server, what it holds.
func (s *solo) reports(n NodeName, inc Incarnation, seq Seq, holds ...Holding) []Action {
	return s.step(Received{From: n, Term: s.term, Msg: Report{Incarnation: inc, Seq: seq, Health: healthy.Health, Holds: holds, Config: 1}})
}

// only returns the actions of one kind.
func only[T Action](as []Action) []T {
	var found []T
	for _, a := range as {
		if a, ok := a.(T); ok {
			found = append(found, a)
		}
	}
	return found
}

// sent returns the messages of one kind among the actions, each once for each receiver.
func sent[T Message](as []Action) []T {
	var found []T
	for _, a := range as {
		if s, ok := a.(Send); ok {
			if m, ok := s.Msg.(T); ok {
				found = append(found, m)
			}
		}
	}
	return found
}

// claims reports whether an action answers for an address or says that it will.
func claims(a Action) bool {
	switch a.(type) {
	case Bind, Extend, Announce, Probe:
		return true
	}
	return false
}
