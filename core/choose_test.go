package core

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// bitSets are sets of up to eight transactions, written as a number.
type bitSets struct{}

func parseBits(s string) (b uint8) {
	if s != "" {
		fmt.Sscanf(s, "%d", &b)
	}
	return b
}

func (bitSets) Missing(a, b string) (uint64, error) {
	return uint64(bits.OnesCount8(parseBits(a) &^ parseBits(b))), nil
}

func (bitSets) Union(a, b string) (string, error) {
	return fmt.Sprint(parseBits(a) | parseBits(b)), nil
}

// plainChoice is choose without any of its order: it asks of each server whether another one is better, and of the best one
// whether it has everything.
func plainChoice(ss []standing) NodeName {
	var everything uint8
	for _, s := range ss {
		everything |= parseBits(s.all)
	}
	better := func(a, b standing) bool {
		if a.failed != b.failed {
			return b.failed != 0 && (a.failed == 0 || a.failed < b.failed)
		}
		if x, y := bits.OnesCount8(parseBits(a.executed)&^parseBits(b.executed)), bits.OnesCount8(parseBits(b.executed)&^parseBits(a.executed)); x != y {
			return x > y
		}
		if a.wanted != b.wanted {
			return a.wanted
		}
		if a.priority != b.priority {
			return a.priority > b.priority
		}
		return a.node < b.node
	}
	complete := func(s standing) bool { return s.unfit == "" && parseBits(s.all) == everything }
	for _, s := range ss {
		best := complete(s)
		for _, other := range ss {
			best = best && !(complete(other) && better(other, s))
		}
		if best {
			return s.node
		}
	}
	return ""
}

func TestChoiceIsThatOfItsPlainTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	chosen := 0
	for range 20000 {
		ss := make([]standing, 1+rng.IntN(4))
		for i := range ss {
			// Executed sets are prefixes, as those of replicas of one source are; what was received besides is not.
			executed := uint8(1)<<rng.IntN(6) - 1
			ss[i] = standing{node: NodeName('a' + rune(i)), executed: fmt.Sprint(executed), priority: rng.IntN(2),
				all: fmt.Sprint(executed | uint8(rng.IntN(4))<<4), failed: Instant(max(0, rng.IntN(5)-2)), wanted: rng.IntN(4) == 0}
			if rng.IntN(5) == 0 {
				ss[i].unfit = "its link is down"
			}
		}
		want := plainChoice(ss)
		got, why := choose(bitSets{}, ss)
		if got == nil && (want != "" || why == "") || got != nil && (got.node != want || why != "") {
			t.Fatalf("of %+v, %+v is chosen (%q), want %q", ss, got, why, want)
		}
		if got != nil {
			chosen++
		}
	}
	if chosen < 5000 {
		t.Errorf("a choice was possible in %d cases only: the test says too little", chosen)
	}
}

func TestChoiceRefusesSetsThatItCannotRead(t *testing.T) {
	ss := []standing{{node: "n1", all: "n1:5"}, {node: "n2", all: "what?"}}
	if got, why := choose(countSets{}, ss); got != nil || !strings.Contains(why, "can not be compared") {
		t.Errorf("chosen %v, %q", got, why)
	}
}

func TestI10_NoChoiceDropsTransactionsThatAreKnown(t *testing.T) {
	have := standing{node: "n2", all: "n1:8"}
	for _, c := range []struct {
		last  string
		limit int64
		want  string
	}{
		{"n1:8", 0, ""},
		{"n1:10", 2, ""},
		{"n1:10", -1, ""},
		{"n1:10", 1, "lacks 2 transactions"},
		{"n1:8,x:1", 0, "lacks 1 transactions"},
		{"", 0, "nobody knows"},
		{"?", 0, "can not be compared"},
	} {
		got := lost(countSets{}, have, "n1", c.last, c.limit)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("last known %q, limit %d: %q, want %q", c.last, c.limit, got, c.want)
		}
	}
}

// A replica with something left to apply is not chosen if it is further behind than allowed, nor if nobody knows how far; one
// that has applied all it has is not behind.
func TestTooFarBehind(t *testing.T) {
	m := &Machine{opt: Options{Sets: countSets{}}}
	const limit = 3 * time.Second
	for _, c := range []struct {
		executed string
		lag      time.Duration
		limit    time.Duration
		want     string
	}{
		{"n1:5", 4 * time.Second, limit, "it is 4s behind, and max_lag is 3s"},
		{"n1:5", -1, limit, "it has 2 transactions to apply, how far it is behind is not known, and max_lag is 3s"},
		{"n1:5", 3 * time.Second, limit, ""},
		{"n1:5", time.Hour, 0, ""},
		{"n1:7", time.Hour, limit, ""},
		{"n1:7", -1, limit, ""},
	} {
		if got := m.tooFarBehind(standing{executed: c.executed, all: "n1:7"}, c.lag, c.limit); got != c.want {
			t.Errorf("%s of n1:7 with a lag of %v: %q, want %q", c.executed, c.lag, got, c.want)
		}
	}
}
