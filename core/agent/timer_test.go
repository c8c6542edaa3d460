package agent

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/alarm"
)

// tally is an alarm that notes what it is set to.
type tally struct {
	alarm.Alarm
	start time.Time
	at    []time.Duration // since start
	again int             // how often it was set to what it was set to already
	rang  int             // how often it was set when what it was set to was over
}

func newTally(t *testing.T) *tally {
	t.Helper()
	inner, err := alarm.Maker(nil).New()
	if err != nil {
		t.Fatal(err)
	}
	return &tally{Alarm: inner, start: time.Now()}
}

func (y *tally) Reset(d time.Duration) {
	at := time.Since(y.start) + d
	if n := len(y.at); n > 0 && y.at[n-1] <= at-d {
		y.rang++
	}
	if n := len(y.at); n > 0 && y.at[n-1] == at && d > 0 {
		y.again++
	}
	y.at = append(y.at, at)
	y.Alarm.Reset(d)
}

// tallies has the agent make its two alarms of these: the loop's and the one for signs of life.
func (r *rig) tallies() (loop, alive *tally) {
	loop, alive = newTally(r.t), newTally(r.t)
	next := []*tally{loop, alive}
	r.cfg.Alarms = func() (alarm.Alarm, error) {
		y := next[0]
		next = next[1:]
		return y, nil
	}
	return loop, alive
}

func TestTheTimerIsSetOnlyToSomethingNew(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		y, alive := r.tallies()
		r.serve()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.stop()
		if fed := r.fed(); fed < 10 || fed > 24 || alive.rang > 0 {
			t.Errorf("%d signs of life in 10 s, and the alarm for them rang %d times: a loop that turns needs none", fed, alive.rang)
		}
		ticks := 0
		for _, s := range r.seen() {
			if _, ok := s.event.(core.Tick); ok {
				ticks++
			}
		}
		if y.again > len(y.at)/20 { // it may have rung just when it was set, which is taken for a ring of the new time
			t.Errorf("of %d times it was set %d times to what it was set to already", len(y.at), y.again)
		}
		if ticks < 150 || len(y.at) < ticks {
			t.Errorf("%d ticks in 10 s, set %d times: a report goes out each 60 ms", ticks, len(y.at))
		}
	})
}

func TestATimerThatRingsTooEarlyIsSetAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		y := newTally(t)
		r.timer = y
		r.ring(t.Context())
		r.ring(t.Context())
		if len(y.at) != 2 || y.at[0] != y.at[1] || y.at[0] <= 0 {
			t.Errorf("set to %v, want twice the same", y.at)
		}
		y.Stop()
	})
}

// A timer of the kernel stands still while the machine sleeps, so what it is set to is too late then.
func TestTheTimerIsSetAnewAfterASleep(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		y := newTally(t)
		r.timer = y
		r.step(t.Context(), core.Tick{})
		r.step(t.Context(), core.Tick{})
		set := len(y.at)
		r.mu.Lock()
		r.slept = 5 * time.Millisecond
		r.mu.Unlock()
		r.step(t.Context(), core.Tick{})
		if set != 1 || len(y.at) != 2 || y.at[0] != y.at[1] {
			t.Errorf("set %d times before the sleep and %d after, to %v; want once each, to the same", set, len(y.at)-set, y.at)
		}
		y.Stop()
	})
}

// A step that unbinds steps aside for that. What it takes meanwhile must not make the timer ring later.
func TestTheTimerCountsFromWhenItIsSet(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	inBubble(t, func(t *testing.T, r *rig) {
		y := newTally(t)
		r.timer = y
		const took = 3 * time.Millisecond
		var late atomic.Int64
		began := r.cfg.Clock()
		r.cfg.Clock = func() core.Instant { return began.Add(time.Duration(late.Load())) }
		r.kernel.setHooks(hooks{unbind: func(context.Context, core.Unbind) error {
			late.Store(int64(took))
			return nil
		}})
		due := began.Add(10 * time.Millisecond)
		right := 0
		const times = 100
		for range times { // the scheduler now and then looks first for what has stepped aside
			late.Store(0)
			r.due = 0
			r.perform(t.Context(), began, core.Tick{}, []core.Action{core.Unbind{Group: "writer"}, core.SetTimer{At: due}})
			if set := y.at[len(y.at)-1]; set == due.Sub(began)-took {
				right++
			}
			<-r.mail // UnbindDone
		}
		if right < times*4/5 {
			t.Errorf("in %d of %d steps the timer was set to what was left, the last was %v", right, times, y.at[len(y.at)-1])
		}
		y.Stop()
	})
}
