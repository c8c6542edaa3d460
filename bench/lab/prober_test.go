package lab

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// said returns answers of a node to questions sent every millisecond from one to another, each answered 0.2 ms later.
func said(node string, from, to int) Answers {
	var as Answers
	for ms := from; ms <= to; ms++ {
		sent := at(ms)
		as = append(as, Answer{Node: node, Kind: kindOf(number(uint32(ms), 0)), Sent: sent, Received: sent.Add(200 * time.Microsecond)})
	}
	return as
}

// at returns a moment, in milliseconds from a beginning.
func at(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }

func TestDoubleAnswers(t *testing.T) {
	slow := Answer{Node: "a", Kind: AnswerTCP, Sent: at(99), Received: at(180)}
	late := Answer{Node: "a", Kind: AnswerTCP, Sent: at(100), Received: at(720)}
	tests := []struct {
		name string
		in   []Answers
		old  string // empty: no double answer
		long time.Duration
		n    int
	}{
		{name: "nobody"},
		{name: "one node", in: []Answers{said("a", 0, 500)}},
		{name: "a move with a gap", in: []Answers{said("a", 0, 100), said("b", 120, 300)}},
		{name: "a move without a gap", in: []Answers{said("a", 0, 100), said("b", 101, 300)}},
		{name: "asked before, answered after", in: []Answers{said("a", 0, 100), {slow}, said("b", 120, 300)}},
		{name: "asked before, answered after the return", in: []Answers{said("a", 0, 99), {late}, said("b", 120, 600), said("a", 700, 800)}},
		{name: "both ways with gaps", in: []Answers{said("a", 0, 100), said("b", 120, 300), said("a", 310, 400)}},
		{name: "the old one answers on for 20 ms", in: []Answers{said("a", 0, 120), said("b", 100, 300)}, old: "a",
			long: 20 * time.Millisecond, n: 20},
		{name: "the old one wakes up for a moment", in: []Answers{said("a", 0, 100), said("b", 120, 300), said("a", 200, 204)},
			old: "b", long: 4 * time.Millisecond, n: 100},
		{name: "a stranger answers once", in: []Answers{said("a", 0, 300), said("b", 150, 150)}, old: "a", n: 150},
		{name: "in the order of reception", in: []Answers{said("b", 120, 300), said("a", 0, 100)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ds := slices.Concat(tt.in...).DoubleAnswers()
			if tt.old == "" {
				if len(ds) > 0 {
					t.Errorf("found %v", ds)
				}
				return
			}
			if len(ds) != 1 || ds[0].Old != tt.old || ds[0].Duration() != tt.long || ds[0].Count != tt.n {
				t.Fatalf("found %v, want %s for %v with %d answers", ds, tt.old, tt.long, tt.n)
			}
			e := ds[0].Evidence
			if want := 1 + min(tt.n, 2*evidenceKept); len(e) != want || e[0].Node == tt.old || !e[0].Received.Equal(ds[0].From) {
				t.Errorf("%d pieces of evidence, want %d, beginning with the first answer of the other node:%v", len(e), want, ds[0])
			}
			for _, a := range e[1:] {
				if a.Node != tt.old || !a.Sent.After(ds[0].From) {
					t.Errorf("no evidence: %v", a)
				}
			}
		})
	}
}

func TestAnswersLookups(t *testing.T) {
	as := slices.Concat(said("b", 150, 200), said("a", 0, 100))
	if last, ok := as.Last("a", at(50), at(90)); !ok || !last.Sent.Equal(at(89)) {
		t.Errorf("the last answer of a up to 90 ms: %+v, %v", last, ok)
	}
	if _, ok := as.Last("a", at(110), at(300)); ok {
		t.Error("a has an answer after 110 ms")
	}
	if first, ok := as.FirstBut("a", at(20)); !ok || first.Node != "b" || !first.Sent.Equal(at(150)) {
		t.Errorf("the first answer of another: %+v, %v", first, ok)
	}
	if got := as.Silence(at(10), at(190)); got != 50*time.Millisecond {
		t.Errorf("silence of %v", got)
	}
	if got := as.Silence(at(190), at(400)); got < 199*time.Millisecond {
		t.Errorf("silence at the end: %v", got)
	}
	spells := as.Spells()
	if len(spells) != 2 || spells[0].Node != "a" || spells[1].Count != 51 {
		t.Errorf("spells %+v", spells)
	}
}

func TestFalseAnnouncements(t *testing.T) {
	queued := Answer{Node: "a", Kind: AnswerTCP, Sent: at(100), Received: at(290)}
	as := slices.Concat(said("a", 0, 99), Answers{queued}, said("b", 120, 300), said("a", 310, 400))
	tests := []struct {
		node string
		ms   int
		want bool
	}{{"a", 50, false}, {"a", 110, false}, {"a", 200, true}, {"b", 119, false}, {"b", 200, false}, {"a", 305, false},
		{"a", 320, false}, {"b", 320, true}, {"c", 350, true}, {"c", 500, false}}
	for _, tt := range tests {
		got := as.FalseAnnouncements([]Announcement{{Node: tt.node, Time: at(tt.ms)}})
		if (len(got) == 1) != tt.want {
			t.Errorf("an announcement of %s at %d ms: %v, want found: %v", tt.node, tt.ms, got, tt.want)
		}
	}
}

func testQuestioner() questioner {
	return questioner{mac: [6]byte{2, 0x77, 0, 0, 0, 200}, vip: testVIP, port: 3306}
}

func testQuestioner6() questioner {
	q := testQuestioner()
	q.vip = DefaultVIP6().Addr()
	return q
}

// reply turns a question into the answer that a kernel would give.
func reply(q questioner, n uint32) []byte {
	node := [6]byte{2, 0x77, 0, 0, 0, 11}
	b := q.frame(n, node)
	copy(b, b[6:12])
	copy(b[6:], node[:])
	swap := func(i, j, size int) {
		tmp := slices.Clone(b[i : i+size])
		copy(b[i:i+size], b[j:j+size])
		copy(b[j:j+size], tmp)
	}
	if q.vip.Is6() {
		swap(etherLen+8, etherLen+24, 16)
		reply6(q, n, b, node)
		return b
	}
	switch kindOf(n) {
	case AnswerNeighbor:
		b[etherLen+7] = 2
		swap(etherLen+8, etherLen+18, 10)
	case AnswerICMP:
		swap(etherLen+12, etherLen+16, 4)
		b[etherLen+ipv4Len] = 0
	case AnswerTCP:
		swap(etherLen+12, etherLen+16, 4)
		tcp := b[etherLen+ipv4Len:]
		swap(etherLen+ipv4Len, etherLen+ipv4Len+2, 2)
		binary.BigEndian.PutUint32(tcp[8:], n+1)
		tcp[13] |= tcpACK
	}
	return b
}

// reply6 does it with what follows the IP header.
func reply6(q questioner, n uint32, b []byte, node [6]byte) {
	const at = etherLen + ipv6Len
	p, proto, sum := b[at:], uint8(protoICMPv6), 2
	switch kindOf(n) {
	case AnswerNeighbor:
		p[0], p[4], p[ndLen] = ndAdvertisement, ndSolicited|ndOverride, ndTargetLink
		copy(p[ndLen+2:], node[:])
	case AnswerICMP:
		p[0] = echoReply6
	case AnswerTCP:
		proto, sum = protoTCP, 16
		p[0], p[1], p[2], p[3] = p[2], p[3], p[0], p[1]
		binary.BigEndian.PutUint32(p[8:], n+1)
		p[13] |= tcpACK
	}
	binary.BigEndian.PutUint16(p[sum:], 0)
	binary.BigEndian.PutUint16(p[sum:], ^onesSum(q.pseudo(b, at, proto), p))
}

func TestQuestionsAndAnswers(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) { testQuestionsAndAnswers(t, testQuestioner(), hostAddr4(77)) })
	t.Run("IPv6", func(t *testing.T) { testQuestionsAndAnswers(t, testQuestioner6(), hostAddr6(77)) })
}

func testQuestionsAndAnswers(t *testing.T, q questioner, stranger netip.Addr) {
	for _, n := range []uint32{number(0, 0), number(1, 1), number(2, 2), number(200, 7), number(201, 0), number(202, 1), 1<<32 - 1} {
		h, err := q.hear(reply(q, n))
		want := n
		if kindOf(n) == AnswerNeighbor {
			want = uint32(asker(n))
		}
		if err != nil || h.kind != kindOf(n) || h.number != want || h.from[5] != 11 || h.opens != (h.kind == AnswerTCP) || h.asks {
			t.Errorf("the answer to question %d (%v): %+v, %v", n, kindOf(n), h, err)
		}
		if h, err := q.hear(q.frame(n, [6]byte{})); err == nil {
			t.Errorf("question %d counts as an answer: %+v", n, h)
		}
		if b := q.frame(n, [6]byte{}); !rightSums(q, b) {
			t.Errorf("question %d: wrong checksum: % x", n, b)
		}
		for cut := range len(reply(q, n)) {
			if h, err := q.hear(reply(q, n)[:cut]); err == nil && cut < etherLen+28 {
				t.Errorf("%d bytes of the answer to question %d: %+v", cut, n, h)
			}
		}
	}
	other := q
	other.vip = stranger
	for turn := range uint32(3) {
		if h, err := q.hear(reply(other, number(turn, 0))); err == nil {
			t.Errorf("an answer for another address: %+v", h)
		}
	}
}

// rightSums reports whether a receiver would take a question's checksums for right.
func rightSums(q questioner, b []byte) bool {
	head, proto := ipv6Len, b[etherLen+6]
	switch binary.BigEndian.Uint16(b[12:]) {
	case etherTypeARP:
		return true
	case etherTypeIPv4:
		if head, proto = ipv4Len, b[etherLen+9]; onesSum(0, b[etherLen:etherLen+head]) != 0xffff {
			return false
		}
	}
	at, sum := etherLen+head, uint16(0)
	if proto != protoICMP {
		sum = q.pseudo(b, at, proto)
	}
	return onesSum(sum, b[at:]) == 0xffff
}

// Who wants to answer the prober over IPv6 asks where it is, and is told.
func TestProberSaysWhereItIs(t *testing.T) {
	q := testQuestioner6()
	mac := [6]byte{2, 0x77, 0, 0, 0, 11}
	for _, own := range []netip.Addr{proberAddr6(), askerAddr6(0), askerAddr6(askers - 1)} {
		node := questioner{mac: mac, vip: own} // a node that asks for the prober is a prober that asks for it
		h, err := q.hear(node.solicit(q.mac, q.vip))
		if err != nil || !h.asks || h.asked != own || h.sender != q.vip || h.from != mac {
			t.Fatalf("asked where %v is, and heard %+v, %v", own, h, err)
		}
		said := q.own(h)
		f, err := parseND(said)
		if err != nil || !f.advertises || !f.solicited || f.announces() || f.source != own || f.dest != q.vip || f.target != own || [6]byte(said) != mac {
			t.Errorf("said where %v is: %+v, %v", own, f, err)
		}
	}
	for _, other := range []netip.Addr{q.vip, hostAddr6(hostClient), askerAddr6(askers)} {
		if h, err := q.hear(questioner{mac: mac, vip: other}.solicit(q.mac, q.vip)); err == nil {
			t.Errorf("who asks for %v asks for the prober: %+v", other, h)
		}
	}
}

func FuzzHear(f *testing.F) {
	for turn := range uint32(3) {
		f.Add(reply(testQuestioner(), number(turn, 0)))
		f.Add(reply(testQuestioner6(), number(turn, 0)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, q := range []questioner{testQuestioner(), testQuestioner6()} {
			h, err := q.hear(b)
			if err != nil || h.asks {
				continue
			}
			if h.kind >= answerKinds || h.kind == AnswerNeighbor && h.number >= askers || !bytes.Contains(b, q.vip.AsSlice()) {
				t.Errorf("heard %+v in % x", h, b)
			}
		}
	})
}
