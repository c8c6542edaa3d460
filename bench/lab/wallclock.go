package lab

import (
	"math"
	"slices"
	"sync"
	"time"
)

// wallClock finds out when something was that the kernel has stamped by the wall clock. Faults step that clock, those of another
// laboratory on this machine, too, and a stamp of before a step may be read after it.
type wallClock struct {
	begin time.Time

	mu sync.Mutex
	// ahead is what the wall clock has gained on the monotonic one since begin: now, and before its last steps.
	ahead []time.Duration
}

var wall = wallClock{begin: time.Now()}

const (
	// steady is how much the two clocks differ without a step: the wall clock is slewed, and a pause may come between two readings.
	steady = 100 * time.Millisecond
	// stepsKept is of how many steps the clock before them is remembered.
	stepsKept = 3
)

// when returns the moment of a stamp that was read at now.
func (w *wallClock) when(now, stamp time.Time) time.Time {
	since, byWall := now.Sub(w.begin), now.Round(0).Sub(w.begin.Round(0))
	return now.Add(-w.ago(since, byWall, stamp.Round(0).Sub(w.begin.Round(0))))
}

// ago returns how long ago a stamp was made. All are counted from begin: now by the monotonic clock and by the wall clock, the stamp by
// the wall clock. Of what the stamp may mean, by the clock before or after each step, the moment next to now is taken.
func (w *wallClock) ago(now, byWall, stamp time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	ahead := byWall - now
	w.ahead = slices.DeleteFunc(w.ahead, func(d time.Duration) bool { return (d - ahead).Abs() < steady })
	w.ahead = slices.Insert(w.ahead, 0, ahead)
	w.ahead = w.ahead[:min(len(w.ahead), 1+stepsKept)]
	best := time.Duration(math.MaxInt64)
	for _, d := range w.ahead {
		if ago := now - (stamp - d); ago.Abs() < best.Abs() {
			best = ago
		}
	}
	return best
}
