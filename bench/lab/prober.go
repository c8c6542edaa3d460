package lab

import (
	"fmt"
	"slices"
	"time"
)

// AnswerKind says how a node answered for an address.
type AnswerKind uint8

// The kinds of answers, each to a question of its own.
const (
	AnswerNeighbor AnswerKind = iota // an ARP reply to a request, RFC 826; for IPv6 a neighbour advertisement, RFC 4861
	AnswerICMP                       // an echo reply, RFC 792 and RFC 4443
	AnswerTCP                        // a SYN-ACK, or a reset, to a SYN
	answerKinds
)

// String returns "ARP or ND", "ICMP" or "TCP".
func (k AnswerKind) String() string {
	names := [answerKinds]string{"ARP or ND", "ICMP", "TCP"}
	if k < answerKinds {
		return names[k]
	}
	return fmt.Sprintf("answer %d", uint8(k))
}

// Answer is one answer of a node for an address. At some moment from Sent to Received the node answered for it.
type Answer struct {
	Node string
	Kind AnswerKind
	// Sent is just before the question was handed to the kernel.
	Sent time.Time
	// Received is the kernel's time stamp of the answer.
	Received time.Time
	// Frame is the answer as it came.
	Frame []byte
}

// String returns when the question was sent and answered, how, and the frame in hexadecimal digits.
func (a Answer) String() string {
	return fmt.Sprintf("%s by %s, asked at %s, received at %s: %x", a.Kind, a.Node, a.Sent.Format(time.StampMicro),
		a.Received.Format(time.StampMicro), a.Frame)
}

// Answers are what a [Prober] has seen, in any order.
type Answers []Answer

// spellGap is how long a node must be silent for its answers afterwards to count as a holding of its own. It is much
// longer than the time between two questions, also on a busy machine, and shorter than any return of an address.
const spellGap = 50 * time.Millisecond

// Spell is a time for which a node answered without a pause.
type Spell struct {
	Node        string
	First, Last time.Time // it answered for sure from First, when its first answer was received, to Last, when the last question was sent
	Count       int       // answers

	answers []Answer // in the order in which their questions were sent
}

// Spells returns the times for which nodes answered, in the order of their first answers.
func (as Answers) Spells() []Spell {
	sorted := slices.SortedStableFunc(slices.Values(as), func(a, b Answer) int { return a.Sent.Compare(b.Sent) })
	var spells []Spell
	latest := map[string]int{}
	for _, a := range sorted {
		i, known := latest[a.Node]
		if !known || a.Sent.Sub(spells[i].Last) > spellGap {
			i = len(spells)
			latest[a.Node] = i
			spells = append(spells, Spell{Node: a.Node, First: a.Received, Last: a.Sent})
		}
		s := &spells[i]
		s.answers = append(s.answers, a)
		s.Count++
		if a.Received.Before(s.First) {
			s.First = a.Received
		}
		s.Last = a.Sent
	}
	slices.SortStableFunc(spells, func(a, b Spell) int { return a.First.Compare(b.First) })
	return spells
}

// DoubleAnswer is a time for which two nodes answered for one address.
type DoubleAnswer struct {
	Old, New string
	// From is when the first answer of New was received, To when Old or New was last seen to answer, whichever stopped
	// first, but not before From.
	From, To time.Time
	// Count is the number of answers of Old to questions that were sent after From, Kinds what they were.
	Count int
	Kinds []AnswerKind
	// Evidence are the first answer of New, and the first and the last answers of Old that count.
	Evidence []Answer
}

// evidenceKept is how many of the first answers are kept for those who look for the cause, and of the last ones.
const evidenceKept = 4

// Duration returns for how long both are known to have answered.
func (d DoubleAnswer) Duration() time.Duration { return d.To.Sub(d.From) }

// String returns who answered together with whom, for how long and how, and the evidence in lines of their own.
func (d DoubleAnswer) String() string {
	s := fmt.Sprintf("%s answered %d questions (%v) sent after the first answer of %s, for %v", d.Old, d.Count, d.Kinds,
		d.New, d.Duration())
	for _, a := range d.Evidence {
		s += "\n\t" + a.String()
	}
	return s
}

// DoubleAnswers returns every time for which a node answered a question that was sent after another node had begun to
// answer. A node that had been silent, and answers after the other's last answer, has got the address back.
func (as Answers) DoubleAnswers() []DoubleAnswer {
	spells := as.Spells()
	var found []DoubleAnswer
	for i, old := range spells {
		for _, next := range spells[i+1:] {
			if next.Node == old.Node || next.First.After(old.Last) {
				continue
			}
			if d, ok := overlap(old, next); ok {
				found = append(found, d)
			}
		}
	}
	return found
}

// overlap compares two spells of which next began later.
func overlap(old, next Spell) (DoubleAnswer, bool) {
	d := DoubleAnswer{Old: old.Node, New: next.Node, From: next.First, To: next.First}
	var late []Answer
	for _, a := range old.answers {
		if !a.Sent.After(next.First) {
			continue
		}
		late = append(late, a)
		if !slices.Contains(d.Kinds, a.Kind) {
			d.Kinds = append(d.Kinds, a.Kind)
		}
		if !a.Sent.After(next.Last) {
			d.To = later(d.To, a.Received)
		}
	}
	slices.Sort(d.Kinds)
	d.Count = len(late)
	first := slices.IndexFunc(next.answers, func(a Answer) bool { return a.Received.Equal(next.First) })
	head := min(evidenceKept, len(late))
	d.Evidence = slices.Concat(next.answers[first:first+1], late[:head], late[max(head, len(late)-evidenceKept):])
	return d, d.Count > 0
}

// FalseAnnouncements returns the announcements that a node sent while another one answered, before them and after them.
func (as Answers) FalseAnnouncements(announced []Announcement) []Announcement {
	spells := as.Spells()
	var found []Announcement
	for _, a := range announced {
		if slices.ContainsFunc(spells, func(s Spell) bool {
			return s.Node != a.Node && a.Time.After(s.First) && a.Time.Before(s.Last)
		}) {
			found = append(found, a)
		}
	}
	return found
}

// Last returns the last answer of a node that was received between from and to, and whether there is one.
func (as Answers) Last(node string, from, to time.Time) (last Answer, ok bool) {
	for _, a := range as {
		if a.Node == node && !a.Received.Before(from) && !a.Received.After(to) && (!ok || a.Received.After(last.Received)) {
			last, ok = a, true
		}
	}
	return last, ok
}

// FirstBut returns the first answer after from of a node other than the named one, and whether there is one.
func (as Answers) FirstBut(node string, from time.Time) (first Answer, ok bool) {
	for _, a := range as {
		if a.Node != node && a.Received.After(from) && (!ok || a.Received.Before(first.Received)) {
			first, ok = a, true
		}
	}
	return first, ok
}

// Silence returns the longest time from one moment to another for which nobody answered.
func (as Answers) Silence(from, to time.Time) time.Duration {
	sorted := slices.SortedStableFunc(slices.Values(as), func(a, b Answer) int { return a.Received.Compare(b.Received) })
	longest, last := time.Duration(0), from
	for _, a := range sorted {
		if a.Received.Before(from) || a.Received.After(to) {
			continue
		}
		longest, last = max(longest, a.Received.Sub(last)), a.Received
	}
	return max(longest, to.Sub(last))
}
