package sim

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Summary is what many seeds have come to.
type Summary struct {
	Seeds   uint64
	Steps   uint64
	Virtual time.Duration
	Real    time.Duration
	Stats   Stats
	// Failures are the runs in which a rule did not hold, by seed.
	Failures []*Failure
}

// Search runs the seeds first, first+1, ... with the given options on all processors. It ends after count seeds, and
// earlier once there are stopAfter failures, if that is not 0. All seeds before one that was run were run too, so the
// first failure is the same each time.
func Search(first, count uint64, stopAfter int, opt Options) Summary {
	var (
		mu   sync.Mutex
		sum  Summary
		next atomic.Uint64
		wg   sync.WaitGroup
	)
	begin := time.Now()
	done := func(r Result) (more bool) {
		mu.Lock()
		defer mu.Unlock()
		sum.add(r)
		return stopAfter == 0 || len(sum.Failures) < stopAfter
	}
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			w, o := new(world), opt
			o.Trace = nil // lines of several worlds in one text help nobody
			for {
				i := next.Add(1) - 1
				if i >= count {
					return
				}
				o.Seed = first + i
				if !done(w.run(o)) {
					next.Store(count)
				}
			}
		})
	}
	wg.Wait()
	sum.Real = time.Since(begin)
	slices.SortFunc(sum.Failures, func(a, b *Failure) int { return cmp.Compare(a.Seed, b.Seed) })
	return sum
}

func (s *Summary) add(r Result) {
	s.Seeds++
	s.Steps += uint64(r.Steps)
	s.Virtual += r.Virtual
	s.Stats.add(r.Stats)
	if r.Failure != nil {
		s.Failures = append(s.Failures, r.Failure)
	}
}

func (s *Stats) add(o Stats) {
	s.Grants += o.Grants
	s.Releases += o.Releases
	s.Offices += o.Offices
	s.Faults += o.Faults
	s.Boots += o.Boots
	s.Failovers += o.Failovers
	s.Stops += o.Stops
	s.Drained, s.Opened, s.Undone = s.Drained+o.Drained, s.Opened+o.Opened, s.Undone+o.Undone
	s.Balanced += o.Balanced
	s.Handovers, s.Awaited = s.Handovers+o.Handovers, s.Awaited+o.Awaited
	if o.Closest != 0 {
		s.closest(o.Closest)
	}
}

func (s *Stats) closest(d time.Duration) {
	if s.Closest == 0 || d < s.Closest {
		s.Closest = d
	}
}

// String tells the figures in four lines.
func (s Summary) String() string {
	sec := s.Real.Seconds()
	return fmt.Sprintf("%d seeds in %v: %.0f seeds/s, %.1f simulated hours (%.1f h/s), %.2f million steps/s\n"+
		"%d faults, %d starts of daemons, %d terms of office, %d failures\n"+
		"%d grants, %d of them failovers, %d handovers, of which %d waited for the old lease\n"+
		"a lease was over for at least %v when another node was granted its group\n",
		s.Seeds, s.Real.Round(time.Millisecond), float64(s.Seeds)/sec, s.Virtual.Hours(), s.Virtual.Hours()/sec, float64(s.Steps)/sec/1e6,
		s.Stats.Faults, s.Stats.Boots, s.Stats.Offices, len(s.Failures),
		s.Stats.Grants, s.Stats.Failovers, s.Stats.Handovers, s.Stats.Awaited,
		s.Stats.Closest.Round(time.Microsecond))
}
