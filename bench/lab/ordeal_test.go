package lab

import (
	"testing"
	"time"
)

// Whatever is wrong with an ordeal, its judge says so; and nothing else.
func TestOrdealsAreJudged(t *testing.T) {
	const most = time.Second
	scene := Scene{Owner: "db1", Leader: "db2", Target: "db1", Peer: "db3"}
	stayed := Ordeal{Scene: scene, Leader: "db2", Silence: most / 2}
	moved, elected := stayed, stayed
	moved.New, elected.New, elected.Leader = "db3", "db3", "db3"
	long, double, claim := stayed, stayed, stayed
	long.Silence = 2 * most
	double.Doubles = []DoubleAnswer{{Old: "db1", New: "db3"}}
	claim.Claims = []ARPFrame{{Node: "db1"}}
	longMoved := moved
	longMoved.Silence = 2 * most
	for _, c := range []struct {
		name   string
		ordeal Ordeal
		wrong  []Fate // for which it is wrong
	}{
		{"stayed", stayed, []Fate{Moves}},
		{"moved", moved, []Fate{Stays, StaysIfLed}},
		{"moved with another leader", elected, []Fate{Stays}},
		{"long silence", long, []Fate{Moves, Stays, StaysIfLed}},
		{"moved after a long silence", longMoved, []Fate{Moves, Stays, StaysIfLed}},
		{"two answered", double, []Fate{Moves, Stays, StaysIfLed, Either}},
		{"false announcement", claim, []Fate{Moves, Stays, StaysIfLed, Either}},
	} {
		for _, fate := range []Fate{Moves, Stays, StaysIfLed, Either} {
			want := false
			for _, w := range c.wrong {
				want = want || w == fate
			}
			if err := c.ordeal.Judge(fate, most); (err != nil) != want {
				t.Errorf("%s, should be %q: judged %v", c.name, fate, err)
			}
		}
	}
}
