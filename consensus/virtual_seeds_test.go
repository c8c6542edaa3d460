package consensus

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// vSeeds returns which seeds to play: REMORA_SEED names one, to repeat it, and REMORA_SEEDS says how many.
func vSeeds(t *testing.T) []uint64 {
	number := func(name string, otherwise uint64) uint64 {
		s := os.Getenv(name)
		if s == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(s, 10, 64)
		must(t, err)
		return n
	}
	if seed := number("REMORA_SEED", 0); seed != 0 {
		return []uint64{seed}
	}
	var all []uint64
	for i := range number("REMORA_SEEDS", vDefaultSeeds) {
		all = append(all, i+1)
	}
	return all
}

// TestVirtualSeeds lets everything go wrong at random, one cluster for each seed. The faults and their times follow from the
// seed; Raft's own chance and the order in which goroutines run do not, so a failure may need a few attempts to come again.
func TestVirtualSeeds(t *testing.T) {
	id := newIdentities(t)
	seeds := vSeeds(t)
	began := time.Now()
	var mu sync.Mutex
	var sum vStats
	t.Run("seeds", func(t *testing.T) {
		for _, seed := range seeds {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				v, s := inVirtualTime(t, id, vPlan{seed: seed, nodes: 3 + 2*int(seed%4/3), groups: 1 + int(seed%2)}, atRandom)
				if v != nil {
					t.Errorf("%v\nagain: REMORA_SEED=%d go test ./consensus -run TestVirtualSeeds", v, seed)
				}
				mu.Lock()
				defer mu.Unlock()
				sum.add(s)
			})
		}
	})
	took := time.Since(began)
	t.Logf("%v in %v, %.0f simulated seconds a second: %v", sum.virtual.Round(time.Second), took.Round(time.Millisecond),
		sum.virtual.Seconds()/took.Seconds(), sum)
	if n := len(seeds); n > 1 && (sum.offices < 3*n || sum.failovers < n/2 || sum.releases < n) {
		t.Errorf("not much happened in %d seeds", n)
	}
}

// atRandom plays half of the kinds of faults, so that rare ones get room.
func atRandom(c *vCluster) {
	c.settle()
	kinds := []vFault{isolated}
	for f := range vFaults {
		if c.dice.IntN(2) == 0 {
			kinds = append(kinds, f)
		}
	}
	c.chaos(5*time.Second, time.Duration(100+c.dice.IntN(200))*time.Millisecond, kinds)
	c.settle()
}
