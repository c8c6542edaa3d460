package lab

import (
	"testing"
	"time"
)

func TestStampsAcrossStepsOfTheWallClock(t *testing.T) {
	const ms, s = time.Millisecond, time.Second
	for name, c := range map[string]struct {
		before []time.Duration // how far ahead the wall clock was when stamps were read before, the first one first
		ahead  time.Duration   // and is now
		stamp  time.Duration   // a minute by the wall clock, and so much
		ago    time.Duration
	}{
		"no step":                            {nil, 0, -5 * ms, 5 * ms},
		"a slewed clock":                     {[]time.Duration{0}, 20 * ms, 15 * ms, 5 * ms},
		"stamped after a step":               {[]time.Duration{0}, 10 * s, 10*s - 5*ms, 5 * ms},
		"stamped before a step":              {[]time.Duration{0}, 10 * s, -5 * ms, 5 * ms},
		"stamped before a step back":         {[]time.Duration{0, 10 * s}, -10 * s, 10*s - 2*ms, 2 * ms},
		"stamped two steps ago":              {[]time.Duration{0, 10 * s}, -10 * s, -400 * ms, 400 * ms},
		"stamped two steps ago, now at home": {[]time.Duration{0, 10 * s, -10 * s}, 0, 10*s - 300*ms, 300 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			var w wallClock
			for _, d := range c.before {
				w.ago(time.Minute, time.Minute+d, time.Minute+d)
			}
			if got := w.ago(time.Minute, time.Minute+c.ahead, time.Minute+c.stamp); got != c.ago {
				t.Errorf("%v ago, want %v", got, c.ago)
			}
		})
	}
}
