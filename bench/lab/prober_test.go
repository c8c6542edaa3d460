package lab

import (
	"bytes"
	"encoding/binary"
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
		got := as.FalseAnnouncements([]ARPFrame{{Node: tt.node, Time: at(tt.ms)}})
		if (len(got) == 1) != tt.want {
			t.Errorf("an announcement of %s at %d ms: %v, want found: %v", tt.node, tt.ms, got, tt.want)
		}
	}
}

func testQuestioner() questioner {
	return questioner{mac: [6]byte{2, 0x77, 0, 0, 0, 200}, vip: testVIP, port: 3306}
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
	switch kindOf(n) {
	case AnswerARP:
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

func TestQuestionsAndAnswers(t *testing.T) {
	q := testQuestioner()
	for _, n := range []uint32{number(0, 0), number(1, 1), number(2, 2), number(200, 7), number(201, 0), number(202, 1), 1<<32 - 1} {
		h, err := q.hear(reply(q, n))
		want := n
		if kindOf(n) == AnswerARP {
			want = uint32(asker(n))
		}
		if err != nil || h.kind != kindOf(n) || h.number != want || h.from[5] != 11 || h.opens != (h.kind == AnswerTCP) || h.asks {
			t.Errorf("the answer to question %d (%v): %+v, %v", n, kindOf(n), h, err)
		}
		if h, err := q.hear(q.frame(n, [6]byte{})); err == nil {
			t.Errorf("question %d counts as an answer: %+v", n, h)
		}
		if b := q.frame(n, [6]byte{}); kindOf(n) != AnswerARP && onesSum(0, b[etherLen:etherLen+ipv4Len]) != 0xffff {
			t.Errorf("question %d: wrong checksum: % x", n, b)
		}
		for cut := range len(reply(q, n)) {
			if h, err := q.hear(reply(q, n)[:cut]); err == nil && cut < etherLen+28 {
				t.Errorf("%d bytes of the answer to question %d: %+v", cut, n, h)
			}
		}
	}
	other := q
	other.vip = hostAddr4(77)
	for turn := range uint32(3) {
		if h, err := q.hear(reply(other, number(turn, 0))); err == nil {
			t.Errorf("an answer for another address: %+v", h)
		}
	}
}

func FuzzHear(f *testing.F) {
	q := testQuestioner()
	for turn := range uint32(3) {
		f.Add(reply(q, number(turn, 0)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := q.hear(b)
		if err != nil || h.asks {
			return
		}
		if h.kind >= answerKinds || h.kind == AnswerARP && h.number >= askers || !bytes.Contains(b, q.vip.AsSlice()) {
			t.Errorf("heard %+v in % x", h, b)
		}
	})
}
