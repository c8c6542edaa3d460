package lab

import (
	"fmt"
	"slices"
	"time"
)

// Result says how a client's attempt ended.
type Result uint8

// The results of an attempt.
const (
	Pending     Result = iota // not over yet
	Answered                  // a server greeted, or answered the query
	Refused                   // a reset in answer to the SYN: nobody listens
	Reset                     // the connection was broken after it was made
	Unreachable               // no route, or no answer to ARP
	TimedOut                  // nothing within the time limit
	Rejected                  // the server answered with an error
)

// String returns the result in words.
func (r Result) String() string {
	names := []string{"pending", "answered", "refused", "reset", "unreachable", "timed out", "rejected"}
	if int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("result %d", uint8(r))
}

// Attempt is one connection that the client opened.
type Attempt struct {
	Start, End time.Time // End is when it was looked at, if it is pending
	Result     Result
	Server     string // the node that answered
}

// Wait returns how long the client waited.
func (a Attempt) Wait() time.Duration { return a.End.Sub(a.Start) }

// Stats sums up the attempts of a stretch of time.
type Stats struct {
	Attempts int
	Failed   int            // neither answered nor pending
	Pending  int            // still waiting
	Failures map[Result]int // by kind
	// Gap is the longest time in which no answer came, from the end of one answered attempt to the end of the next. The
	// beginning and the end of the stretch count as answers, so a stretch without any answer is a gap as a whole.
	Gap time.Duration
	// GapStart is when Gap began: the last answer before it. GapEnd is the first answer after it.
	GapStart, GapEnd time.Time
	// Longest is the longest wait of a single attempt, failed ones and those that are still pending included.
	Longest time.Duration
	// Median is the median wait of the answered attempts.
	Median time.Duration
	// Servers lists who answered, in the order of the answers without repeats in a row.
	Servers []string
}

// Summarize sums up the attempts that began, or were answered, between from and to.
func Summarize(attempts []Attempt, from, to time.Time) Stats {
	s := Stats{Failures: map[Result]int{}}
	var waits []time.Duration
	var answers []Attempt
	for _, a := range attempts {
		if a.Result == Answered && !a.End.Before(from) && !a.End.After(to) {
			answers = append(answers, a)
		}
		if a.Start.Before(from) || a.Start.After(to) {
			continue
		}
		s.Attempts++
		s.Longest = max(s.Longest, a.Wait())
		switch a.Result {
		case Pending:
			s.Pending++
		case Answered:
			waits = append(waits, a.Wait())
		default:
			s.Failed++
			s.Failures[a.Result]++
		}
	}
	s.Median = medianOf(waits)
	s.addAnswers(answers, from, to)
	return s
}

// addAnswers fills in what depends on the order of the answers.
func (s *Stats) addAnswers(answers []Attempt, from, to time.Time) {
	slices.SortStableFunc(answers, func(a, b Attempt) int { return a.End.Compare(b.End) })
	last := from
	widen := func(t time.Time) {
		if d := t.Sub(last); d > s.Gap {
			s.Gap, s.GapStart, s.GapEnd = d, last, t
		}
		last = t
	}
	for _, a := range answers {
		widen(a.End)
		if n := len(s.Servers); n == 0 || s.Servers[n-1] != a.Server {
			s.Servers = append(s.Servers, a.Server)
		}
	}
	widen(to)
}

func medianOf(ds []time.Duration) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	ds = slices.Sorted(slices.Values(ds))
	return (ds[(len(ds)-1)/2] + ds[len(ds)/2]) / 2
}
