package detector

import (
	"time"

	"github.com/remora-ha/remora/core"
)

// finding is what an attempt to reach the server has shown.
type finding uint8

const (
	// answered: the server spoke the protocol, be it to refuse us.
	answered finding = iota + 1
	// silent: no answer in time, or a broken one. It takes several to make a verdict.
	silent
	// dead: proof that nobody serves: refused, or the process ends.
	dead
)

// judge turns findings into a verdict. It has no clock: the time, and whether a silence is excused, are told to it.
type judge struct {
	fall, rise int

	state core.HealthState
	// doubt grows by 2 with each silence, by 1 with one that is excused; 2*fall makes a verdict.
	doubt    int
	silences int
	since    core.Instant // when the first question was asked of those in a row that were not answered
	answers  int          // in a row
}

// verdict is what the judge makes of an observation.
type verdict struct {
	state   core.HealthState
	changed bool
	// silences and quiet are the number of failed probes in a row and the time since the first began.
	silences int
	quiet    time.Duration
}

func newJudge(t core.Timing) *judge {
	return &judge{fall: t.Fall, rise: t.Rise}
}

// Observe takes one finding, of what was asked at one instant and is judged at another. A silence that is excused, since we
// were late ourselves, counts half, so that twice as many are needed, and no more than that.
func (j *judge) Observe(asked, now core.Instant, f finding, excused bool) verdict {
	switch f {
	case answered:
		return j.answer()
	case silent:
		return j.silence(asked, now, excused)
	case dead:
		j.answers = 0
		return j.become(core.Failed)
	}
	panic("detector: a finding that does not exist")
}

func (j *judge) answer() verdict {
	j.doubt, j.silences = 0, 0
	j.answers++
	// The first word of a server that nobody has accused yet is enough; one that has failed must prove itself.
	if j.state == core.Failed && j.answers < j.rise {
		return verdict{state: j.state}
	}
	return j.become(core.Healthy)
}

func (j *judge) silence(asked, now core.Instant, excused bool) verdict {
	j.answers = 0
	if j.silences == 0 {
		j.since = asked
	}
	j.silences++
	j.doubt += 2
	if excused {
		j.doubt--
	}
	v := verdict{state: j.state}
	if j.doubt >= 2*j.fall {
		v = j.become(core.Failed)
	}
	v.silences, v.quiet = j.silences, now.Sub(j.since)
	return v
}

func (j *judge) become(s core.HealthState) verdict {
	changed := j.state != s
	j.state = s
	return verdict{state: s, changed: changed}
}
