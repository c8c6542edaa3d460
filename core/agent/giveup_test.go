package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-ha/remora/core"
)

// A bind that hangs in the kernel delays no unbind, and no release goes out before the bind has ended and another unbind
// has read back.
func TestI5_HungBindDoesNotDelayUnbind(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		end := make(chan struct{})
		r.kernel.setHooks(hooks{bind: func(context.Context, core.Bind) error {
			<-end
			r.kernel.set(true) // it takes effect late
			return nil
		}})
		r.start()
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if r.kernel.count("bind") != 1 {
			t.Fatalf("no bind: %v", r.kernel.calls)
		}
		before := time.Now()
		r.Deliver(failed)
		synctest.Wait()
		if n := r.kernel.count("unbind"); n != 1 || time.Since(before) != 0 {
			t.Fatalf("%d unbinds after %v", n, time.Since(before))
		}
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		if r.raft.releases() != 0 {
			t.Fatal("released while the bind is still in the kernel")
		}
		unbinds := r.kernel.count("unbind")
		close(end)
		synctest.Wait()
		if r.raft.releases() != 0 || r.kernel.count("unbind") != unbinds+1 {
			t.Fatalf("%d releases and %d more unbinds when the bind has just ended", r.raft.releases(), r.kernel.count("unbind")-unbinds)
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if r.raft.releases() != 1 || r.kernel.isBound() {
			t.Fatalf("%d releases, bound %t", r.raft.releases(), r.kernel.isBound())
		}
		r.stop()
	})
}

// An unbind that hangs for long and then fails is tried again, and nothing is released before one has read back.
func TestI5_FailedUnbindIsTriedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const hangs = 5 * time.Second
		r.serve()
		r.kernel.setHooks(hooks{unbind: func(context.Context, core.Unbind) error {
			if r.kernel.count("unbind") < 3 {
				time.Sleep(hangs)
				return errors.New("on purpose")
			}
			r.kernel.set(false)
			return nil
		}})
		r.Deliver(failed)
		time.Sleep(2 * hangs)
		synctest.Wait()
		if r.askedForRelease() {
			t.Fatal("asked for the release although nothing was read back")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := r.kernel.count("unbind"); n != 3 || r.kernel.isBound() {
			t.Fatalf("bound %t after %d unbinds", r.kernel.isBound(), n)
		}
		r.stop()
	})
}

// While what sees each step is held up, as by a log that nobody reads, the unbind of that step is on its way.
func TestI5_UnbindWaitsForNoObserver(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.serve()
		block := make(chan struct{})
		r.setBlock(block)
		r.Deliver(failed)
		synctest.Wait()
		if n := r.kernel.count("unbind"); n != 1 {
			t.Errorf("%d unbinds while the observer is held up, want 1", n)
		}
		r.setBlock(nil)
		close(block)
		r.stop()
	})
}

// A claim that the kernel's side drops as late is told to the machine as such, and nothing is announced on it.
func TestLateClaimIsDropped(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.kernel.setHooks(hooks{bind: func(_ context.Context, a core.Bind) error {
			time.Sleep(a.NotAfter.Sub(r.kernel.clock()) + time.Millisecond)
			return errLate
		}})
		r.start()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r.kernel.count("bind") == 0 || r.kernel.count("announce") != 0 || r.kernel.isBound() {
			t.Fatalf("calls %v", r.kernel.calls)
		}
		late := false
		for _, s := range r.seen() {
			if done, ok := s.event.(core.BindDone); ok {
				late = late || done.Late && done.Err != ""
			}
		}
		if !late {
			t.Error("the machine was not told that the bind came too late")
		}
		r.stop()
	})
}

// A grant that waits too long before Raft takes it is dropped; what gives up is proposed however late it is.
func TestLateProposalIsDropped(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.raft.delay = time.Second
		r.start()
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		if r.kernel.count("bind") != 0 || r.raft.dropped() == 0 {
			t.Fatalf("bound on a grant of a second ago: %v", r.kernel.calls)
		}
		r.stop()
	})
}

// A machine that was suspended hears of it before anything else, and gives up first.
func TestI5_SuspendGivesUpFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.serve()
		r.mu.Lock()
		r.slept += 14 * time.Second
		begin := len(r.steps)
		r.mu.Unlock()
		r.Deliver(core.LeaderSeen{Leader: "n1"})
		synctest.Wait()
		first := r.seen()[begin]
		if _, ok := first.event.(core.ClockJumped); !ok {
			t.Fatalf("the first event after waking is %#v", first.event)
		}
		for _, a := range first.actions {
			if _, note := a.(core.Note); note {
				continue
			}
			if _, ok := a.(core.Unbind); !ok {
				t.Errorf("the first action after waking is %#v", a)
			}
			break
		}
		r.stop()
	})
}
