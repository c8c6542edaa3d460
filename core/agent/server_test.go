package agent

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-ha/remora/core"
)

// fakeServer is a MySQL server whose acts take a millisecond. A hook takes the place of Promote.
type fakeServer struct {
	agent *Agent

	mu       sync.Mutex
	calls    []string
	writable bool
	promote  func(context.Context, core.PromoteServer) core.ServerPromoted
}

func (s *fakeServer) act(call string, f func()) {
	s.mu.Lock()
	s.calls = append(s.calls, call)
	s.mu.Unlock()
	time.Sleep(time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *fakeServer) is() (writable bool, calls []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writable, slices.Clone(s.calls)
}

func (s *fakeServer) Freeze(context.Context, core.FreezeServer) core.ServerFrozen {
	s.act("freeze", func() {})
	return core.ServerFrozen{Executed: "a"}
}

func (s *fakeServer) Promote(ctx context.Context, a core.PromoteServer) core.ServerPromoted {
	if s.promote != nil {
		s.act("promote", func() {})
		return s.promote(ctx, a)
	}
	s.act("promote", func() { s.writable = true })
	return core.ServerPromoted{Executed: "a"}
}

func (s *fakeServer) Demote(context.Context, core.DemoteServer) core.ServerDemoted {
	s.act("demote", func() { s.writable = false })
	return core.ServerDemoted{Executed: "a"}
}

func (s *fakeServer) CatchUp(context.Context, core.CatchUpServer) core.ServerCaughtUp {
	s.act("catch up", func() {})
	return core.ServerCaughtUp{}
}

func (s *fakeServer) Follow(context.Context, core.FollowServer) core.ServerFollows {
	s.act("follow", func() {})
	return core.ServerFollows{}
}

// plainSets knows equal sets only.
type plainSets struct{}

func (plainSets) Missing(a, b string) (uint64, error) {
	if strings.Contains(b, a) {
		return 0, nil
	}
	return 1, nil
}
func (plainSets) Union(a, _ string) (string, error) { return a, nil }

// withServer makes the group of a rig one of policy promote.
func withServer(r *rig) *fakeServer {
	timing, _ := core.ProfileTiming("lan")
	r.cfg.Machine = core.New(core.Options{Self: "n1", Incarnation: 7, Timing: timing, Sets: plainSets{}, Start: r.cfg.Clock(), Ready: r.cfg.Clock()})
	s := &fakeServer{agent: r.Agent}
	r.cfg.Server = s
	r.edit = func(c *core.Config) { c.Groups[0].Policy = core.Promote }
	return s
}

// The server is writable before the address is bound.
func TestI10_WritableBeforeBound(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := withServer(r)
		writable := false
		r.kernel.setHooks(hooks{bind: func(context.Context, core.Bind) error {
			writable, _ = s.is()
			r.kernel.set(true)
			return nil
		}})
		r.serve()
		if _, calls := s.is(); !writable || !slices.Equal(calls, []string{"freeze", "promote"}) {
			t.Errorf("writable when it was bound: %t; the server was told to %v", writable, calls)
		}
		r.stop()
	})
}

// A promotion that hangs delays neither unbinding nor the order to be read-only, and is ended before that.
func TestI5_HungPromotionDelaysNoGivingUp(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := withServer(r)
		ended := false
		s.promote = func(ctx context.Context, _ core.PromoteServer) core.ServerPromoted {
			<-ctx.Done()
			ended = true
			return core.ServerPromoted{Err: ctx.Err().Error()}
		}
		r.start()
		time.Sleep(time.Second)
		synctest.Wait()
		if _, calls := s.is(); !slices.Contains(calls, "promote") {
			t.Fatalf("no promotion: %v", calls)
		}
		r.Deliver(failed)
		synctest.Wait()
		if _, calls := s.is(); !slices.Contains(calls, "demote") || !ended {
			t.Errorf("the promotion has ended: %t; the server was told to %v", ended, calls)
		}
		r.stop()
	})
}

func TestActsWithoutServerAreAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		withServer(r)
		r.cfg.Server = nil
		r.start()
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		for _, act := range []core.Action{core.FreezeServer{Group: "writer", Round: 9}, core.PromoteServer{Group: "writer"},
			core.DemoteServer{Group: "writer"}, core.CatchUpServer{Group: "writer", Move: 7}, core.FollowServer{Group: "writer"}} {
			before := len(r.seen())
			r.serverAct(t.Context(), act)
			time.Sleep(time.Millisecond)
			synctest.Wait()
			answered := false
			for _, s := range r.seen()[before:] {
				switch ev := s.event.(type) {
				case core.ServerFrozen:
					answered = answered || ev.Err == noServer && ev.Round == 9
				case core.ServerPromoted:
					answered = answered || ev.Err == noServer
				case core.ServerDemoted:
					answered = answered || ev.Err == noServer
				case core.ServerCaughtUp:
					answered = answered || ev.Err == noServer && ev.Move == 7
				case core.ServerFollows:
					answered = answered || ev.Err == noServer
				}
			}
			if !answered {
				t.Errorf("%T is not answered", act)
			}
		}
		r.stop()
	})
}
