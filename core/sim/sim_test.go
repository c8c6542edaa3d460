package sim

import (
	"bytes"
	"flag"
	"os"
	"runtime/debug"
	"strings"
	"testing"
)

var (
	seedsFlag = flag.Uint64("seeds", defaultSeeds, "how many seeds TestSeeds runs")
	firstFlag = flag.Uint64("first", 1, "the first of them")
	seedFlag  = flag.Uint64("seed", 1, "the seed that TestReplay replays")
)

func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(4000) // short-lived garbage, and so little of it that a collection is mostly its fixed cost
	os.Exit(m.Run())
}

// All invariants hold in every run.
func TestSeeds(t *testing.T) {
	s := Search(*firstFlag, *seedsFlag, 3, Options{})
	t.Log("\n" + s.String())
	for _, f := range s.Failures {
		t.Errorf("%v\nagain: go test ./core/sim -run TestReplay -seed %d -v\n%s", f, f.Seed, lastLines(traceOf(Options{Seed: f.Seed}), 60))
	}
}

// TestReplay repeats one seed; with -v every step is printed.
func TestReplay(t *testing.T) {
	opt := Options{Seed: *seedFlag}
	if testing.Verbose() {
		opt.Trace = os.Stdout
	}
	if r := Run(opt); r.Failure != nil {
		t.Fatal(r.Failure)
	}
}

func traceOf(opt Options) string {
	var b bytes.Buffer
	opt.Trace = &b
	Run(opt)
	return b.String()
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(append(lines[:1:1], lines[max(1, len(lines)-n):]...), "\n")
}

// The same seed gives the same run to the last step, in a new world and in one that has run others before.
func TestSameSeedSameRun(t *testing.T) {
	used := new(world)
	for seed := uint64(1); seed <= 60; seed++ {
		opt := Options{Seed: seed}
		first, plain := traceOf(opt), Run(opt)
		var b bytes.Buffer
		opt.Trace = &b
		again := used.run(opt)
		if first != b.String() {
			t.Fatalf("seed %d: two traces of one seed differ", seed)
		}
		if plain != again {
			t.Fatalf("seed %d: %+v with a trace, %+v without", seed, again, plain)
		}
	}
}

// A failure is the same each time too, and tells the seed.
func TestSameFailure(t *testing.T) {
	opt := Options{Break: ReleaseBeforeUnbind}
	one, two := Search(1, 100, 1, opt), Search(1, 100, 1, opt)
	if len(one.Failures) == 0 || len(two.Failures) == 0 || *one.Failures[0] != *two.Failures[0] {
		t.Fatalf("got %v and %v", one.Failures, two.Failures)
	}
	opt.Seed = one.Failures[0].Seed
	if tr := lastLines(traceOf(opt), 1); !strings.Contains(tr, "BROKEN: "+one.Failures[0].Rule.String()) {
		t.Errorf("the trace does not end with the broken rule:\n%s", tr)
	}
}

// The seeds do what they are there for: all sizes of clusters, all kinds of faults, both kernels, many ways for a group to
// change hands.
func TestSeedsAreNotVacuous(t *testing.T) {
	var sizes [maxNodes + 1]int
	var kernels [2]int
	var seen [kinds]int
	var sum Stats
	w := new(world)
	const runs = 200
	for seed := uint64(1); seed <= runs; seed++ {
		sum.add(w.run(Options{Seed: seed}).Stats)
		sizes[w.plan.nodes]++
		if w.plan.kernelLease {
			kernels[1]++
		} else {
			kernels[0]++
		}
		for _, k := range w.plan.faults {
			seen[k]++
		}
	}
	for _, n := range []int{3, 5, 7} {
		if sizes[n] == 0 {
			t.Errorf("no cluster of %d nodes in %d seeds", n, runs)
		}
	}
	if kernels[0] == 0 || kernels[1] == 0 {
		t.Errorf("the kernel holds the leases in %d seeds, not in %d", kernels[1], kernels[0])
	}
	for k := range kinds {
		if seen[k] < runs/10 {
			t.Errorf("%v was in use in only %d of %d seeds", k, seen[k], runs)
		}
	}
	if sum.Failovers < runs/10 || sum.Grants < 2*runs || sum.Offices < 2*runs || sum.Releases < runs || sum.Stops < runs/5 || sum.Drained < runs/10 || sum.Opened < runs/20 ||
		sum.Undone < runs/50 || sum.Balanced < runs/100 || sum.Handovers < runs/20 {
		t.Errorf("not much happened in %d seeds: %+v", runs, sum)
	}
}

func BenchmarkSeed(b *testing.B) {
	w := new(world)
	for i := 0; b.Loop(); i++ {
		if r := w.run(Options{Seed: uint64(i%500) + 1}); r.Failure != nil {
			b.Fatal(r.Failure)
		}
	}
}
