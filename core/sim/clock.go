package sim

import (
	"math/rand/v2"
	"time"

	"github.com/remora-ha/remora/core"
)

// clock is a node's lease clock: it reads offset + (1 + ppm/1e6) * true time.
type clock struct {
	offset int64
	ppm    int64
}

// at returns what the clock reads at a true time.
func (c clock) at(t int64) core.Instant { return core.Instant(c.offset + t + t*c.ppm/1e6) }

// when returns the earliest true time at which the clock reads i or more.
func (c clock) when(i core.Instant) int64 {
	t := (int64(i)-c.offset)*1e6/(1e6+c.ppm) - 1
	for c.at(t) < i {
		t++
	}
	return t
}

// dice is the only source of chance in a world.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 0x72656d6f7261))} }

// chance is true with probability p.
func (d dice) chance(p float64) bool { return d.Float64() < p }

// between returns a duration from lo to hi.
func (d dice) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(d.Int64N(int64(hi-lo)+1))
}

// about returns a duration with the given mean, exponentially distributed and bounded at four times the mean.
func (d dice) about(mean time.Duration) time.Duration {
	return time.Duration(min(d.ExpFloat64(), 4) * float64(mean))
}

// pick returns one of the elements.
func pick[T any](d dice, s []T) T { return s[d.IntN(len(s))] }
