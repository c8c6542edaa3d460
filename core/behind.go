package core

import (
	"slices"
	"time"
)

// behind measures how far the local server is behind the primary, beside the server's own figure: that one says 0 while a receiver
// waits on a dead line, knows nothing of the servers between a replica and the primary, and hangs on the clocks of two machines.
// The primary's reports carry what it has executed. The oldest one that holds more than the local server has executed tells since
// when this one is behind. Nothing is written for that, and no clock but this node's is read.
type behind struct {
	primary NodeName
	told    string        // what the primary has told last, empty if nothing is known of it now
	lacking []toldAt      // what it has told and the local server has not executed, the oldest first
	gap     time.Duration // how far what is remembered is apart
	own     string        // the local server's set that this was compared with
	caught  bool          // the local server has had all that the primary had told at some time, so nothing keeps it from that
}

// toldAt is an executed set and when it was heard first.
type toldAt struct {
	set string
	at  Instant
}

// maxTold bounds how much is remembered. What is thinned out makes the measured lag shorter, and never longer, than it is.
const maxTold = 64

// lookAge is how old the executed set of the local server may be, beside the time between two probes: the detector asks for it each
// second; the other second is for a probe that is held up.
const lookAge = 2 * time.Second

// behindNow returns how far a server is behind: the longer of the two figures that are known, negative if neither is.
func (h Health) behindNow() time.Duration { return max(h.Lag, h.Measured) }

// primary returns the one node whose server may be written to and replicates from nobody. With two of them nobody knows.
func (m *Machine) primary() (found NodeName, sure bool) {
	for _, n := range m.view.Config.Nodes {
		h := m.healthOf(n.Name)
		if h == nil || h.State != Healthy || h.Writable != Yes || h.Source != "" {
			continue
		}
		if found != "" {
			return "", false
		}
		found = n.Name
	}
	return found, true
}

// healthOf returns what is known of a node's server at the moment, or nil.
func (m *Machine) healthOf(n NodeName) *Health {
	if n == m.opt.Self {
		return &m.health
	}
	if p := m.peers[n]; m.recent(p) {
		return &p.report.Health
	}
	return nil
}

// measure takes note of what the primary has told, and of how far the local server is behind that.
func (m *Machine) measure() {
	b := &m.behind
	n, sure := m.primary()
	switch {
	case !sure || n == m.opt.Self || m.health.Source == "":
		*b = behind{}
	case n != "" && n != b.primary:
		*b = behind{primary: n}
	}
	told := ""
	if n != "" && n == b.primary {
		told = m.healthOf(n).Executed
	}
	if told != "" && told != b.told {
		b.add(toldAt{told, m.now})
	}
	if told != b.told || m.health.Executed != b.own {
		b.told, b.own = told, m.health.Executed
		b.compare(m.opt.Sets)
	}
	m.health.Measured = b.measured(m.now, lookAge+m.opt.Timing.Probe)
	m.age.looked(m.now, m.health)
}

// add takes note of what the primary has told. The newest word is always kept; of those before it only as many as are gap apart.
func (b *behind) add(t toldAt) {
	n := len(b.lacking)
	if n >= 2 && b.lacking[n-1].at.Sub(b.lacking[n-2].at) < b.gap {
		b.lacking[n-1] = t
		return
	}
	if n == maxTold {
		for i := range n / 2 {
			b.lacking[i] = b.lacking[2*i]
		}
		b.lacking = b.lacking[:n/2]
		b.gap = max(2*b.gap, b.lacking[1].at.Sub(b.lacking[0].at))
	}
	b.lacking = append(b.lacking, t)
}

// compare forgets what the local server has executed.
func (b *behind) compare(sets Sets) {
	if sets == nil || b.own == "" {
		return
	}
	done := 0
	for _, t := range b.lacking {
		if n, err := sets.Missing(t.set, b.own); err != nil || n > 0 {
			break
		}
		done++
	}
	b.caught = b.caught || done > 0
	b.lacking = slices.Delete(b.lacking, 0, done)
	if len(b.lacking) == 0 {
		b.gap = 0
	}
}

// measured returns how far the local server is behind, in whole seconds rounded down, or a negative time if that is not known. What
// is known of the local server may be as old as slack, so as much is not counted.
func (b *behind) measured(now Instant, slack time.Duration) time.Duration {
	switch {
	case !b.caught || b.own == "" || len(b.lacking) == 0 && b.told == "":
		return -1
	case len(b.lacking) == 0:
		return 0
	}
	return max(now.Sub(b.lacking[0].at)-slack, 0).Truncate(time.Second)
}
