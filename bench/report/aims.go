package report

import (
	"errors"
	"fmt"
	"math"
)

// hung is the scenario of which no ratio is taken: keepalived asks the server by a clock of its own, and its gap is as long as the
// rest of that round.
const hung = "mysqld-hung"

// leaderFactor is how many times as long the address may be away when the node that vanished was the Raft leader, too.
const leaderFactor = 2

// chance is how improbable it must be that so many runs are beyond an aim by luck. A hang is seen up to a probe's interval sooner or
// later by when in it the server stops, so three of five runs are beyond an aim that the median of many meets.
const chance = 0.05

// CheckAims checks what must hold whatever keepalived does beside it, and returns an error for each aim that is missed: a server
// that hangs has lost its address in time, but for what may be luck, a node that vanishes and led costs no more than twice one that
// did not, and no two nodes have ever answered. An aim whose scenario was not run is missed, too.
func CheckAims(runs []Run) error {
	var errs []error
	for _, aim := range []struct {
		system string
		hung   float64 // ms
		luck   float64 // ms that no median can be beyond it by luck: half the interval between two probes
	}{{"remora-lan", 300, 50}, {"remora-fast", 120, 22}} {
		of := func(scenario string, figure func(Run) float64) Summary {
			s := Summarize(runs, aim.system, scenario, figure)
			if s.N == 0 {
				errs = append(errs, fmt.Errorf("%s %s: was not measured, so its aim is not checked", aim.system, scenario))
			}
			return s
		}
		if s := of(hung, gap); s.Median > aim.hung+aim.luck || beyond(runs, aim.system, aim.hung) {
			errs = append(errs, fmt.Errorf("%s %s: the median gap is %.1f ms, the aim is %.0f ms", aim.system, hung, s.Median, aim.hung))
		}
		plain, led := of("node-vanished", gap), of("node-vanished-leader", gap)
		if plain.N > 0 && led.Median > leaderFactor*plain.Median {
			errs = append(errs, fmt.Errorf("%s node-vanished-leader: the median gap is %.1f ms, more than %d times the %.1f ms of node-vanished",
				aim.system, led.Median, leaderFactor, plain.Median))
		}
		for _, sc := range []string{"daemon-frozen", "parted"} {
			if s := of(sc, double); s.Max > 0 {
				errs = append(errs, fmt.Errorf("%s %s: two nodes answered for the address for %.1f ms, which must never be", aim.system, sc, s.Max))
			}
		}
	}
	return errors.Join(errs...)
}

// beyond reports whether more of a system's runs of hung took longer than limit, in ms, than chance allows if half of all did: a
// sign test. With fewer than five runs it is the median alone that counts.
func beyond(runs []Run, system string, limit float64) bool {
	n, over := 0, 0
	for _, r := range runs {
		if r.System != system || r.Scenario != hung {
			continue
		}
		n++
		if gap(r) > limit {
			over++
		}
	}
	if n < 5 {
		return 2*over > n
	}
	return tail(n, over) <= chance
}

// tail is the probability of at least k heads of n coins.
func tail(n, k int) float64 {
	p, ways := 0.0, math.Pow(0.5, float64(n)) // of no heads
	for i := 0; i <= n; i++ {
		if i >= k {
			p += ways
		}
		ways *= float64(n-i) / float64(i+1)
	}
	return p
}
