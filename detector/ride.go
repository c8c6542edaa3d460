package detector

import (
	"math"
	"sync/atomic"

	"github.com/remora-ha/remora/core"
)

// earlyBy is the part of a probe's interval by which it may come early. In profile fast, with a report each 14 ms and 44 ms from
// one probe to the next, every third report takes one along. Reports are late by a tenth of a millisecond each: with 42 ms the third
// would come just after the probe's own alarm.
const earlyBy = 8

// ride lets a probe go out a little before it is due, when the process is awake for something else: what an idle daemon
// pays for is waking up, and of the probe's own two times that is one; and the server's answer often comes while the process
// still works. Nothing relies on it. The alarm of the probe stays set to when it is due.
type ride struct {
	from atomic.Int64 // the instant from which the next probe may go out
	bell chan struct{}
}

func newRide() *ride {
	r := &ride{bell: make(chan struct{}, 1)}
	r.forbid()
	return r
}

// permit lets the next probe go out from an instant on.
func (r *ride) permit(from core.Instant) { r.from.Store(int64(from)) }

// forbid has the next probe wait until it is due.
func (r *ride) forbid() { r.from.Store(math.MaxInt64) }

// open reports whether the probe may go out now.
func (r *ride) open(now core.Instant) bool { return int64(now) >= r.from.Load() }

// offer tells the loop of a chance, if it is one.
func (r *ride) offer(now core.Instant) {
	if !r.open(now) {
		return
	}
	select {
	case r.bell <- struct{}{}:
	default: // it was told, and has not looked yet
	}
}
