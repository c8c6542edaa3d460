package daemon

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/remora-ha/remora/cmd/internal/config"
	"github.com/remora-ha/remora/cmd/internal/sdnotify"
	"github.com/remora-ha/remora/consensus"
	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/agent"
)

// A daemon that has lost a part gives everything up in order and ends with the part's error; it does not go on without it.
func TestAPartThatFailsEndsTheDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{log: slog.New(slog.DiscardHandler), agent: agent.New(agent.Config{}), node: new(consensus.Node), notify: sdnotify.FromEnvironment()}
		p := newParts()
		lost, late := errors.New("lost"), errors.New("late")
		ended := false
		p.run(func(ctx context.Context) error { <-ctx.Done(); ended = true; return nil })
		p.run(func(context.Context) error { return nil }) // has nothing to do
		loop, waited := make(chan error), make(chan error, 1)
		go func() { waited <- d.wait(t.Context(), loop, p.broken) }()
		synctest.Wait()
		if len(waited) > 0 {
			t.Fatalf("ends for a part that has nothing to do: %v", <-waited)
		}
		p.run(func(context.Context) error { return lost })
		p.run(func(ctx context.Context) error { <-ctx.Done(); return late })
		synctest.Wait()
		if len(waited) > 0 || ended {
			t.Fatal("the end does not wait for the loop, or the other parts do not go on until then")
		}
		loop <- nil // the machine has given everything up
		cause := <-waited
		if !errors.Is(cause, lost) {
			t.Errorf("ends with %v, want %v", cause, lost)
		}
		p.end()
		if err := p.wait(cause); err != nil || !ended {
			t.Errorf("the error is told again: %v", err)
		}
	})
}

// What fails while all end is told, too.
func TestAPartThatFailsAtTheEndIsTold(t *testing.T) {
	p := newParts()
	late := errors.New("late")
	p.run(func(ctx context.Context) error { <-ctx.Done(); return late })
	p.end()
	if err := p.wait(nil); !errors.Is(err, late) {
		t.Errorf("got %v, want %v", err, late)
	}
	if len(p.broken) > 0 {
		t.Error("the end of a part that was asked for counts as a failure")
	}
}

// A file that comes while the watch has not taken the one before, or has ended, takes its place: a reload waits for nobody.
func TestTheNewestFileIsWatched(t *testing.T) {
	h := newHealth(core.NodeSpec{Name: "n1"}, func(core.Event) {}, slog.New(slog.DiscardHandler))
	for _, user := range []string{"a", "b", "c"} {
		n := config.Node{NodeSpec: core.NodeSpec{Name: "n1"}, MySQL: config.MySQL{User: user}}
		h.use(&config.Config{Nodes: []config.Node{n}})
	}
	n, _ := (<-h.restart).Node("n1")
	if n.MySQL.User != "c" || len(h.restart) > 0 {
		t.Errorf("user %q is next, and %d files wait behind", n.MySQL.User, len(h.restart))
	}
}
