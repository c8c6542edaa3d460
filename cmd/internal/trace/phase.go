package trace

import "time"

// Phase is a stretch of a takeover between two moments on one node.
type Phase struct {
	Name     string
	from, to Moment
}

// phases are in the order of a takeover: those of the old owner, of the arbiter, of the new owner. Where two begin
// differently and end alike, both are told if both have begun.
var phases = []Phase{
	{"drain", DrainBegun, GivingUp},
	{"unbind", GivingUp, Unbound},
	{"release", Unbound, Granted},
	{"silence", LastWord, Proposed},
	{"decide", ReleaseCame, Proposed},
	{"commit", Proposed, Granted},
	{"handover", Granted, Freed},
	{"react", Granted, BindBegun},
	{"promote", PromoteBegun, BindBegun},
	{"bind", BindBegun, Bound},
	{"fence", Bound, FenceOpen},
	{"announce", FenceOpen, Announced},
}

// Phases returns the names of all phases in the order of a takeover.
func Phases() []string {
	var names []string
	for _, p := range phases {
		names = append(names, p.Name)
	}
	return names
}

// OnPhase has f told of each phase of a takeover in which this node has had a part, once it is over. It is called before the
// recorder is used. f is called by those who record: it must not block, nor use the recorder.
func (r *Recorder) OnPhase(f func(p Phase, took time.Duration)) { r.phase = f }

// ended tells of the phases that a moment ends.
func (r *Recorder) ended(c *record, m Moment) {
	if r.phase == nil {
		return
	}
	for _, p := range phases {
		if from := c.at[p.from]; p.to == m && from != 0 && !c.at[m].Before(from) {
			r.phase(p, c.at[m].Sub(from))
		}
	}
}
