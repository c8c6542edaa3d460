package netio

import (
	"fmt"
	"sync"

	"github.com/remora-ha/remora/core"
)

// gate remembers up to which epoch each group was given up, and until when claims may go on whose lease was renewed. Its
// lock is never held over I/O.
type gate struct {
	mu        sync.Mutex
	closed    map[core.GroupName]core.Epoch
	prolonged map[core.GroupName]prolonged
}

// prolonged is until when the claims of an epoch may go on, and the report that this rests on.
type prolonged struct {
	epoch  core.Epoch
	report core.Seq
	until  core.Instant
}

// close shuts out the claims of a group in all epochs up to e, for good: a grant that comes later has a higher epoch.
func (g *gate) close(group core.GroupName, e core.Epoch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		g.closed = make(map[core.GroupName]core.Epoch)
	}
	g.closed[group] = max(g.closed[group], e)
}

// prolong lets the claims of a group in an epoch go on.
func (g *gate) prolong(a core.Prolong) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.prolonged == nil {
		g.prolonged = make(map[core.GroupName]prolonged)
	}
	if p := g.prolonged[a.Group]; a.Epoch > p.epoch || a.Epoch == p.epoch && a.NotAfter > p.until {
		g.prolonged[a.Group] = prolonged{a.Epoch, a.Report, a.NotAfter}
	}
}

// report returns the report that the lease of a group in epoch e rests on by now, if it rested on r when the claim was made.
func (g *gate) report(group core.GroupName, e core.Epoch, r core.Seq) core.Seq {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.prolonged[group]; p.epoch == e {
		return max(r, p.report)
	}
	return r
}

// look reports whether a claim of a group in epoch e may go on, and until when if its lease was renewed since.
func (g *gate) look(group core.GroupName, e core.Epoch) (open bool, until core.Instant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.prolonged[group]; p.epoch == e {
		until = p.until
	}
	return e > g.closed[group], until
}

// permit is what a claiming action is allowed to do, and until when.
type permit struct {
	group    core.GroupName
	epoch    core.Epoch
	notAfter core.Instant
	clock    func() core.Instant
	gate     *gate
}

// check returns an ErrLate if the claim must not go on. It looks at the gate last: if the process is stopped while it
// reads the clock, an unbind of that time is still seen.
func (p permit) check() error {
	now := p.clock()
	open, until := p.gate.look(p.group, p.epoch)
	if late := now.Sub(max(p.notAfter, until)); late >= 0 {
		return fmt.Errorf("%w: group %s epoch %d, %v after its time", ErrLate, p.group, p.epoch, late)
	}
	if !open {
		return fmt.Errorf("%w: group %s was unbound in epoch %d or later", ErrLate, p.group, p.epoch)
	}
	return nil
}
