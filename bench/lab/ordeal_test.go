package lab

import (
	"context"
	"errors"
	"slices"
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
	claim.Claims = []Announcement{{Node: "db1"}}
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

// TestTwoFaultsAtOnce: one happens to the target and the other to its peer, preparations included, and both are undone.
func TestTwoFaultsAtOnce(t *testing.T) {
	var did []string
	fault := func(name string) Fault {
		note := func(what string, s Scene) { did = append(did, what+" "+name+" on "+s.Target) }
		return Fault{Name: name,
			Prepare: func(_ context.Context, _ *Lab, s Scene) ([]ProbedInterface, func(context.Context) error, error) {
				note("prepare", s)
				return []ProbedInterface{{Node: s.Target}}, func(context.Context) error { note("unprepare", s); return nil }, nil
			},
			Begin: func(_ context.Context, _ *Lab, s Scene) (undo, error) {
				note("begin", s)
				return func(context.Context) error { note("undo", s); return nil }, nil
			}}
	}
	f := both(fault("a"), fault("b"))
	s := Scene{Target: "db1", Peer: "db2"}
	extra, unprepare, err := f.Prepare(t.Context(), nil, s)
	if err != nil || len(extra) != 2 || extra[0].Node != "db1" || extra[1].Node != "db2" {
		t.Fatalf("prepared %v: %v", extra, err)
	}
	undo, err := f.Begin(t.Context(), nil, s)
	if err := errors.Join(err, undo(t.Context()), unprepare(t.Context())); err != nil {
		t.Fatal(err)
	}
	want := []string{"prepare a on db1", "prepare b on db2", "begin a on db1", "begin b on db2", "undo b on db2", "undo a on db1",
		"unprepare a on db1", "unprepare b on db2"}
	if !slices.Equal(did, want) {
		t.Errorf("did %q, want %q", did, want)
	}
}
