package lab

import (
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
)

// probed stops a prober and returns what it saw.
func probed(t *testing.T, p *Prober) Answers {
	t.Helper()
	p.Stop()
	as, err := p.Answers()
	if err != nil {
		t.Fatal(err)
	}
	return as
}

// answersOf waits until a node has given n answers of each kind.
func answersOf(t *testing.T, p *Prober, node string, n int) {
	t.Helper()
	eventually(t, "answers of "+node, func() bool {
		as, err := p.Answers()
		if err != nil {
			t.Fatal(err)
		}
		var count [answerKinds]int
		for _, a := range as {
			if a.Node == node {
				count[a.Kind]++
			}
		}
		return slices.Min(count[:]) >= n
	})
}

// An address that is on two nodes by hand is answered for twice, and the prober sees it although switch and client know
// one of them only; an address that moves in order is not.
func TestProber(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}, {Name: "db2"}}})
	t.Run("IPv4", func(t *testing.T) { testProber(t, l, DefaultVIP()) })
	t.Run("IPv6", func(t *testing.T) { testProber(t, l, DefaultVIP6()) })
}

func testProber(t *testing.T, l *Lab, addr netip.Prefix) {
	vip := addr.String() + " dev eth0"
	if addr.Addr().Is6() {
		vip += " nodad"
	}
	prober := func() *Prober {
		p, err := l.StartProber(ProberOptions{Target: netip.AddrPortFrom(addr.Addr(), 9)})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := prober()
	ip(t, l.Node("db1").Host, "address add "+vip)
	answersOf(t, p, "db1", 20)
	ip(t, l.Node("db1").Host, "address del "+vip)
	ip(t, l.Node("db2").Host, "address add "+vip)
	answersOf(t, p, "db2", 20)
	as := probed(t, p)
	if ds := as.DoubleAnswers(); len(ds) > 0 {
		t.Errorf("a move in order: %v", ds)
	}
	if s := as.Spells(); len(s) != 2 || s[0].Node != "db1" || s[1].Node != "db2" {
		t.Errorf("a move in order: spells %+v", s)
	}

	p = prober()
	answersOf(t, p, "db2", 20)
	ip(t, l.Node("db1").Host, "address add "+vip)
	answersOf(t, p, "db1", 20)
	ds := probed(t, p).DoubleAnswers()
	if len(ds) != 1 || ds[0].Old != "db2" || ds[0].New != "db1" || len(ds[0].Kinds) != int(answerKinds) {
		t.Errorf("an address on two nodes: %v", ds)
	}
	t.Logf("found: %v; longest pause of the prober %v", ds, p.Pause())
}

// A server that listens is asked without being disturbed: a connection is taken back before it is made.
func TestProberSeesListener(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}}})
	db1 := l.Node("db1")
	ip(t, db1.Host, "address add "+l.VIP().String()+"/32 dev eth0")
	var ln net.Listener
	err := db1.NS.Do(func() (err error) {
		ln, err = net.Listen("tcp4", netip.AddrPortFrom(l.VIP(), ServerPort).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	var accepted atomic.Int32
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conn.Close()
			accepted.Add(1)
		}
	}()
	p, err := l.StartProber(ProberOptions{})
	if err != nil {
		t.Fatal(err)
	}
	answersOf(t, p, "db1", 200)
	p.Stop()
	if n := accepted.Load(); n > 0 {
		t.Errorf("%d of the prober's connections were made", n)
	}
}

// A second interface of a node is asked when it is named.
func TestProberSecondInterface(t *testing.T) {
	l := newLab(t, Options{Nodes: []NodeOptions{{Name: "db1"}, {Name: "db2"}}})
	mac, err := l.Node("db1").AddInterface(t.Context(), "eth1")
	if err != nil {
		t.Fatal(err)
	}
	ip(t, l.Node("db1").Host, "address add "+l.VIP().String()+"/32 dev lo")
	ip(t, l.Node("db1").Host, "link set eth0 address 02:77:00:00:01:0b") // nobody is asked at that one any more
	p, err := l.StartProber(ProberOptions{Extra: []ProbedInterface{{Node: "db1", MAC: mac}}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "answers at the second interface", func() bool { as, _ := p.Answers(); return len(as) > 20 })
	for _, a := range probed(t, p) {
		if a.Node != "db1" && a.Node != "" {
			t.Fatalf("an answer of %q", a.Node)
		}
	}
}

// A node that has given an address up may send on to the next owner what it was asked, and may have kept it for seconds. The
// answer says nothing of when the next owner was asked.
func TestAnswersToWhatAnotherWasAskedDoNotCount(t *testing.T) {
	db1, db2 := [6]byte{2, 0x77, 0, 0, 0, 11}, [6]byte{2, 0x77, 0, 0, 0, 12}
	p := &Prober{q: testQuestioner(), names: map[[6]byte]string{}}
	p.add("db1", db1[:])
	p.add("db2", db2[:])
	const turn = probeSeries + 4 // a question for TCP
	for i := range p.targets {
		p.targets[i].sent[turn%probeRing] = question{number(turn, i), at(i)}
	}
	for asked := range 2 {
		h, err := p.q.hear(reply(p.q, number(turn, asked))) // from db1
		if err != nil || h.kind != AnswerTCP {
			t.Fatalf("heard %+v, %v", h, err)
		}
		if sent, ok := p.sentAt(h); ok != (asked == 0) || ok && !sent.Equal(at(0)) {
			t.Errorf("what %s was asked, and db1 answered: sent at %v, counts: %v", p.targets[asked].node, sent, ok)
		}
	}
	for _, n := range []uint32{number(5, 0), number(turn+probeRing, 0), number(turn, 7)} {
		h, err := p.q.hear(reply(p.q, n))
		if _, ok := p.sentAt(h); err != nil || ok {
			t.Errorf("an answer to question %#x, which was not asked, counts: %v", n, err)
		}
	}
}
