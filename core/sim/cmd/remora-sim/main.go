// Command remora-sim runs simulated clusters and reports the seeds that break an invariant.
//
//	remora-sim -seeds 100000          many seeds, on all processors
//	remora-sim -seed 4711 -trace      one seed again, with every step
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/remora-ha/remora/core/sim"
)

func main() {
	first := flag.Uint64("first", 1, "the first seed")
	seeds := flag.Uint64("seeds", 10000, "how many seeds to run")
	seed := flag.Uint64("seed", 0, "run this seed alone")
	trace := flag.Bool("trace", false, "with -seed: print every step")
	nodes := flag.Int("nodes", 0, "the size of all clusters, 3, 5 or 7; 0 lets the seed choose")
	stop := flag.Int("stop", 10, "stop after so many failures; 0 means never")
	flag.Parse()
	debug.SetGCPercent(4000) // short-lived garbage, and so little of it that a collection is mostly its fixed cost
	if *nodes != 0 && *nodes != 3 && *nodes != 5 && *nodes != 7 {
		fmt.Fprintf(os.Stderr, "remora-sim: -nodes is %d: use 3, 5 or 7\n", *nodes)
		os.Exit(2)
	}
	opt := sim.Options{Seed: *seed, Nodes: *nodes}
	if *seed != 0 {
		os.Exit(one(opt, *trace))
	}
	os.Exit(many(*first, *seeds, *stop, opt))
}

func one(opt sim.Options, trace bool) int {
	if trace {
		opt.Trace = os.Stdout
	}
	r := sim.Run(opt)
	fmt.Printf("seed %d: %v simulated, %d steps, %d faults\n", opt.Seed, r.Virtual.Round(time.Millisecond), r.Steps, r.Stats.Faults)
	if r.Failure != nil {
		fmt.Println(r.Failure)
		return 1
	}
	return 0
}

func many(first, count uint64, stop int, opt sim.Options) int {
	s := sim.Search(first, count, stop, opt)
	fmt.Print(s)
	for _, f := range s.Failures {
		fmt.Printf("%v\n    again: remora-sim -seed %d -trace\n", f, f.Seed)
	}
	if len(s.Failures) > 0 {
		return 1
	}
	return 0
}
