package detector

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

// observation is one step of a test: what was found, and whether it is excused.
type observation struct {
	finding finding
	excused bool
}

func TestJudge(t *testing.T) {
	timing := core.Timing{Probe: 100 * time.Millisecond, Fall: 2, Rise: 3}
	tests := []struct {
		// steps: o answered, n silent, N silent and excused, x dead.
		rule, steps, want string // want: u unknown, h healthy, f failed after each step
	}{
		{"one answer is enough at the start", "o", "h"},
		{"nothing is known before fall silences", "nn", "uf"},
		{"a refused dial is proof", "x", "f"},
		{"a refused dial is proof at any time", "oox", "hhf"},
		{"one silence does not matter", "onono", "hhhhh"},
		{"fall silences in a row do", "onn", "hhf"},
		{"a failed server needs rise answers in a row", "xoonooo", "ffffffh"},
		{"a server that is unknown and silent once needs one answer", "no", "uh"},
		{"excused silences count half", "oNNNN", "hhhhf"},
		{"excused silences count half among others", "oNnN", "hhhf"},
		{"an answer wipes out what was excused", "oNNNoNNN", "hhhhhhhh"},
		{"nothing excuses a refused dial", "oNx", "hhf"},
	}
	for _, test := range tests {
		t.Run(test.rule, func(t *testing.T) {
			j := newJudge(timing)
			got := ""
			for i, r := range test.steps {
				o := map[rune]observation{'o': {finding: answered}, 'n': {finding: silent}, 'x': {finding: dead},
					'N': {finding: silent, excused: true}}[r]
				v := j.Observe(core.Instant(i), core.Instant(i), o.finding, o.excused)
				got += string("uhf"[v.state])
			}
			if got != test.want {
				t.Errorf("steps %s: states %s, want %s", test.steps, got, test.want)
			}
		})
	}
}

func TestJudgeTellsHowLongTheSilenceLasts(t *testing.T) {
	j := newJudge(core.Timing{Probe: 100, Fall: 3, Rise: 1})
	j.Observe(900, 1000, silent, false)
	j.Observe(1100, 1200, silent, false)
	if v := j.Observe(1400, 1500, silent, false); !v.changed || v.silences != 3 || v.quiet != 600 {
		t.Errorf("verdict %+v, want a change after 3 silences, 600 ns after the first question", v)
	}
}

// twin judges by looking at the whole past each time.
func twin(past []observation, timing core.Timing) core.HealthState {
	state := core.HealthUnknown
	for i := range past {
		answers, doubt := 0, 0
		for k := i; k >= 0 && past[k].finding == answered; k-- {
			answers++
		}
		for k := i; k >= 0 && past[k].finding != answered; k-- {
			switch {
			case past[k].finding == dead:
			case past[k].excused:
				doubt++
			default:
				doubt += 2
			}
		}
		switch {
		case past[i].finding == dead, past[i].finding == silent && doubt >= 2*timing.Fall:
			state = core.Failed
		case past[i].finding == answered && (state != core.Failed || answers >= timing.Rise):
			state = core.Healthy
		}
	}
	return state
}

func TestJudgeAgreesWithItsTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 11))
	for range 2000 {
		timing := core.Timing{Probe: 100, Fall: 1 + rng.IntN(4), Rise: 1 + rng.IntN(4)}
		j := newJudge(timing)
		var past []observation
		before := core.HealthUnknown
		for i := range 40 {
			o := observation{finding: []finding{answered, answered, silent, silent, dead}[rng.IntN(5)], excused: rng.IntN(2) == 0}
			past = append(past, o)
			v := j.Observe(core.Instant(i), core.Instant(i), o.finding, o.excused)
			if want := twin(past, timing); v.state != want {
				t.Fatalf("%+v after %v: %v, want %v", timing, past, v.state, want)
			}
			if v.changed != (v.state != before) {
				t.Fatalf("changed is %v from %v to %v", v.changed, before, v.state)
			}
			before = v.state
		}
	}
}

// An excuse must never make the verdict fall sooner, and puts it off for twice as many silences at most.
func TestAnExcuseOnlyExcuses(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		timing := core.Timing{Probe: 100, Fall: 1 + rng.IntN(4), Rise: 1}
		strict, mild := newJudge(timing), newJudge(timing)
		for i := range 30 {
			f := []finding{answered, silent, silent, silent}[rng.IntN(4)]
			s := strict.Observe(core.Instant(i), core.Instant(i), f, false)
			m := mild.Observe(core.Instant(i), core.Instant(i), f, rng.IntN(2) == 0)
			if m.state == core.Failed && s.state != core.Failed {
				t.Fatal("the mild judge accused first")
			}
			if m.silences >= 2*timing.Fall && m.state != core.Failed {
				t.Fatalf("%d silences in a row are excused, fall is %d", m.silences, timing.Fall)
			}
		}
	}
}
