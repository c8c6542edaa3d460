package sim

import (
	"flag"
	"os"
	"testing"
)

var (
	seedFlag = flag.Uint64("seed", 0, "the seed that TestReplay replays")
)

func TestReplay(t *testing.T) {
	r := Run(Options{Seed: *seedFlag, Trace: os.Stdout})
	t.Logf("%+v", r)
	if r.Failure != nil {
		t.Fatal(r.Failure)
	}
}

func TestFirst(t *testing.T) {
	w := new(world)
	steps := 0
	bad := 0
	var virt float64
	var st Stats
	const N = 300
	for s := uint64(1); s <= N; s++ {
		r := w.run(Options{Seed: s})
		steps += r.Steps
		virt += r.Virtual.Seconds()
		st.Grants += r.Stats.Grants
		st.Failovers += r.Stats.Failovers
		if r.Failure != nil {
			bad++
			if bad < 40 {
				t.Error(r.Failure)
			}
		}
	}
	t.Log(steps/N, virt/N, bad, st)
}
