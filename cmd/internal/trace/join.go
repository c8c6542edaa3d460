package trace

import (
	"cmp"
	"fmt"
	"slices"
)

// Mark is a moment of a piece, in microseconds of the node's own clock since the piece's first moment.
type Mark struct {
	Name string `json:"name"`
	US   int64  `json:"us"`
}

// Piece is what one node saw of one takeover, in the order of time.
type Piece struct {
	Node  string `json:"node"`
	Group string `json:"group"`
	Epoch uint64 `json:"epoch"`
	Marks []Mark `json:"marks"`
}

// at returns the time of a moment in the piece.
func (p *Piece) at(m Moment) (us int64, ok bool) {
	if p == nil {
		return 0, false
	}
	i := slices.IndexFunc(p.Marks, func(k Mark) bool { return k.Name == m.String() })
	if i < 0 {
		return 0, false
	}
	return p.Marks[i].US, true
}

func (p *Piece) has(m Moment) bool {
	_, ok := p.at(m)
	return ok
}

// part reports whether the node did something in the takeover.
func (p *Piece) part() bool { return p.gaveUp() || p.decided() || p.claimed() }

func (p *Piece) gaveUp() bool  { return p.has(GivingUp) || p.has(ReleaseSent) }
func (p *Piece) decided() bool { return p.has(Proposed) }
func (p *Piece) claimed() bool { return p.has(BindBegun) || p.has(PromoteBegun) }

// between returns the time from one moment of the piece to another.
func (p *Piece) between(from, to Moment) (us int64, ok bool) {
	a, okA := p.at(from)
	b, okB := p.at(to)
	return b - a, okA && okB
}

// Way is the time for which a takeover was on its way from one node to another and the news of its consequence back, in
// microseconds.
type Way struct {
	From string `json:"from"`
	To   string `json:"to"`
	US   int64  `json:"us"`
}

// Takeover is one takeover with all pieces that are known.
type Takeover struct {
	// Pieces are those of the old owner, the arbiter and the new owner, in this order. A node that was two of these has one.
	Pieces []Piece `json:"pieces"`
	Ways   []Way   `json:"ways"`
	// LeastUS and MostUS bound the time from the first known moment to the new owner's announcement, in microseconds: without
	// any way, and with all ways there and back. They are null where a part that they need is missing.
	LeastUS *int64 `json:"least_us"`
	MostUS  *int64 `json:"most_us"`
	// Missing says in sentences which parts are not known, and why.
	Missing []string `json:"missing"`
}

// Join puts together what is known of the takeover that brought a group to a node in an epoch. Pieces of other takeovers
// are left out. from is the owner before, empty if there was none; silent says for nodes that were asked in vain why.
func Join(pieces []Piece, group string, epoch uint64, from, to string, silent map[string]string) Takeover {
	var old, arbiter, claimer *Piece
	for i := range pieces {
		p := &pieces[i]
		if p.Group != group || p.Epoch != epoch {
			continue
		}
		if p.gaveUp() {
			old = p
		}
		if p.decided() && (arbiter == nil || p.sooner(arbiter)) {
			arbiter = p
		}
		if p.claimed() {
			claimer = p
		}
	}
	t := Takeover{Pieces: []Piece{}, Ways: []Way{}, Missing: []string{}}
	for _, p := range []*Piece{old, arbiter, claimer} {
		if p != nil && !slices.ContainsFunc(t.Pieces, func(q Piece) bool { return q.Node == p.Node }) {
			t.Pieces = append(t.Pieces, *p)
		}
	}
	t.miss(old == nil && from != "", "the part of the old owner", from, silent)
	t.miss(arbiter == nil, "the part of the arbiter", "", silent)
	t.miss(claimer == nil, "the part of the new owner", to, silent)
	t.sum(old, arbiter, claimer)
	return t
}

// miss adds a sentence on a part that is not known.
func (t *Takeover) miss(missing bool, part, node string, silent map[string]string) {
	if !missing {
		return
	}
	text := part + " is not known"
	if node != "" {
		text = fmt.Sprintf("the part of %s is not known", node)
	}
	switch why := silent[node]; {
	case node != "" && why != "":
		text += ": " + why
	case node == "" && len(silent) > 0:
		text += ": no node that answers has it"
	default:
		text += ": it had none, or its daemon was started again since, or it has forgotten it"
	}
	t.Missing = append(t.Missing, text)
}

// sooner reports whether p rather than q is the arbiter's piece, if both have proposed the grant: the one that had it
// committed saw that at once, the other waited for its successor.
func (p *Piece) sooner(q *Piece) bool {
	a, okA := p.between(Proposed, Granted)
	b, okB := q.between(Proposed, Granted)
	return okA && (!okB || a < b)
}

// sum adds up the parts, each by its own clock, and the ways between them.
func (t *Takeover) sum(old, arbiter, claimer *Piece) {
	if arbiter == nil || claimer == nil {
		return
	}
	end, ok := claimer.at(Announced)
	if !ok {
		return
	}
	if old.handover() {
		t.sumHandover(old, arbiter, claimer, end)
		return
	}
	if old != nil && old.Node == claimer.Node { // its clock saw both ends
		t.bound(end-start(old), 0, true)
		t.way(old, arbiter, ReleaseSent, Granted, ReleaseCame, Granted)
		return
	}
	least, ways, known := int64(0), int64(0), true
	begin := start(arbiter)
	if old != nil && old.Node != arbiter.Node {
		sent, okSent := old.at(ReleaseSent)
		came, okCame := arbiter.at(ReleaseCame)
		if okSent && okCame {
			least, begin = least+sent-start(old), came
		}
		us, ok := t.way(old, arbiter, ReleaseSent, Granted, ReleaseCame, Granted)
		ways, known = ways+us, known && ok
	}
	if claimer.Node == arbiter.Node {
		t.bound(least+end-begin, ways, known)
		return
	}
	committed, okA := arbiter.at(Granted)
	heard, okB := claimer.at(Granted)
	if !okA || !okB {
		return
	}
	us, ok := t.way(arbiter, claimer, Granted, ServingHeard, Granted, FenceOpen)
	t.bound(least+committed-begin+end-heard, ways+us, known && ok)
}

// handover reports whether the old owner gave up because the grant to the next one was committed.
func (p *Piece) handover() bool {
	us, ok := p.between(Granted, GivingUp)
	return ok && us >= 0
}

// sumHandover adds up the parts of a takeover in which the arbiter comes first, then the old owner, then the new one.
func (t *Takeover) sumHandover(old, arbiter, claimer *Piece, end int64) {
	committed, okA := arbiter.at(Granted)
	heard, okB := old.at(Granted)
	sent, okC := old.at(ReleaseSent)
	freed, okD := claimer.at(Freed)
	if !okD { // the word came before the news of the grant
		freed, okD = claimer.at(Granted)
	}
	if !okA || !okB || !okC || !okD {
		return
	}
	least := committed - start(arbiter) + sent - heard + end - freed
	news, known := t.way(arbiter, old, Granted, ReleaseCame, Granted, ReleaseSent)
	word, knownToo := t.way(old, claimer, ReleaseSent, ServingHeard, Freed, FenceOpen)
	t.bound(least, news+word, known && knownToo)
}

// way adds the way between two nodes: the time from a moment of the one to its consequence there, without the part that
// the other had in it.
func (t *Takeover) way(a, b *Piece, sent, back, came, done Moment) (us int64, ok bool) {
	if a.Node == b.Node {
		return 0, true
	}
	there, okA := a.between(sent, back)
	own, okB := b.between(came, done)
	if !okA || !okB {
		return 0, false
	}
	us = max(there-own, 0)
	t.Ways = append(t.Ways, Way{From: a.Node, To: b.Node, US: us})
	return us, true
}

func (t *Takeover) bound(least, ways int64, known bool) {
	t.LeastUS = &least
	if most := least + ways; known {
		t.MostUS = &most
	}
}

// start is the first moment of a piece in which the takeover concerned the node.
func start(p *Piece) int64 {
	return slices.MinFunc(p.Marks, func(a, b Mark) int { return cmp.Compare(a.US, b.US) }).US
}
