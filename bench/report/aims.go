package report

import (
	"errors"
	"fmt"
)

// hung is the scenario of which no ratio is taken: keepalived asks the server by a clock of its own, and its gap is as long as the
// rest of that round.
const hung = "mysqld-hung"

// leaderFactor is how many times as long the address may be away when the node that vanished was the Raft leader, too.
const leaderFactor = 2

// CheckAims checks what must hold whatever keepalived does beside it, and returns an error for each aim that is missed: a server
// that hangs has lost its address in time, a node that vanishes and led costs no more than twice one that did not, and no two
// nodes have ever answered. An aim whose scenario was not run is missed, too.
func CheckAims(runs []Run) error {
	var errs []error
	for _, aim := range []struct {
		system string
		hung   float64 // ms
	}{{"remora-lan", 300}, {"remora-fast", 120}} {
		of := func(scenario string, figure func(Run) float64) Summary {
			s := Summarize(runs, aim.system, scenario, figure)
			if s.N == 0 {
				errs = append(errs, fmt.Errorf("%s %s: was not measured, so its aim is not checked", aim.system, scenario))
			}
			return s
		}
		if s := of(hung, gap); s.Median > aim.hung {
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
