package netio

import (
	"fmt"
	"sync"

	"github.com/remora-ha/remora/core"
)

// gate remembers up to which epoch each group was given up. Its lock is never held over I/O.
type gate struct {
	mu     sync.Mutex
	closed map[core.GroupName]core.Epoch
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

// open reports whether a claim of a group in epoch e may go on.
func (g *gate) open(group core.GroupName, e core.Epoch) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return e > g.closed[group]
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
	if late := p.clock().Sub(p.notAfter); late >= 0 {
		return fmt.Errorf("%w: group %s epoch %d, %v after its time", ErrLate, p.group, p.epoch, late)
	}
	if !p.gate.open(p.group, p.epoch) {
		return fmt.Errorf("%w: group %s was unbound in epoch %d or later", ErrLate, p.group, p.epoch)
	}
	return nil
}
