package sim

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/remora-ha/remora/core"
)

// A dumb twin: a stable sort by time.
func TestQueueIsOrdered(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	type entry struct {
		at  int64
		num uint32
	}
	var q queue
	var want []entry
	num := uint32(0)
	for range 5000 {
		if len(want) > 0 && r.IntN(3) == 0 {
			slices.SortStableFunc(want, func(a, b entry) int { return int(a.at - b.at) })
			at, it := q.pop()
			if at != want[0].at || it.num != want[0].num {
				t.Fatalf("got item %d at %d, want %d at %d", it.num, at, want[0].num, want[0].at)
			}
			want = want[1:]
			continue
		}
		num++
		e := entry{at: int64(r.IntN(50)), num: num}
		q.push(e.at, item{num: e.num})
		want = append(want, e)
	}
}

func TestQueueAllocatesNothingOnceItHasGrown(t *testing.T) {
	var q queue
	for i := range 100 {
		q.push(int64(i), item{})
	}
	if n := testing.AllocsPerRun(100, func() {
		at, it := q.pop()
		q.push(at+100, it)
	}); n != 0 {
		t.Errorf("%v allocations for a pop and a push", n)
	}
}

// when is the earliest true time at which a clock reads an instant or more.
func TestClocksThereAndBack(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		c := clock{offset: r.Int64N(1e15), ppm: r.Int64N(20001) - 10000}
		i := core.Instant(c.offset + r.Int64N(1e12))
		at := c.when(i)
		if c.at(at) < i || c.at(at-1) >= i {
			t.Fatalf("%+v reads %d at %d and %d just before; asked for %d", c, c.at(at), at, c.at(at-1), i)
		}
	}
}

// Clocks run as far apart as the protocol allows and not further.
func TestClockRates(t *testing.T) {
	w := &world{dice: newDice(1)}
	low, high := int64(0), int64(0)
	for range 200 {
		c := w.makeClock()
		low, high = min(low, c.ppm), max(high, c.ppm)
	}
	if low != -10000 || high != 10000 {
		t.Errorf("rates from %d to %d ppm, want 1 %% either way", low, high)
	}
}

func TestNamesAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for k := range kinds {
		seen[k.String()] = true
	}
	for b := range breaks {
		seen[b.String()] = true
	}
	if want := int(kinds) + int(breaks); len(seen) != want || seen[""] {
		t.Errorf("%d different names for %d kinds and breaks", len(seen), want)
	}
	if got := (I1 | I9 | Raft).String(); got != "I1+I9+Raft" {
		t.Errorf("got %q", got)
	}
}
