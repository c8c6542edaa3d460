package detector

import (
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// A walk through the processes lets others have the processor in between, although no call of it waits.
func TestTheWalkRests(t *testing.T) {
	for range 3 * walkAtOnce { // a container may have few
		c := exec.Command("sleep", "60")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var turns atomic.Int64
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(walkRest / 4)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				turns.Add(1)
			case <-stop:
				return
			}
		}
	}()
	for turns.Load() == 0 {
		runtime.Gosched()
	}
	before := turns.Load()
	all, err := allProcesses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// What the last rest has made ready may come after the end.
	if n, rests := turns.Load()-before, int64(len(all)/walkAtOnce); n < rests-1 {
		t.Errorf("another goroutine had %d turns while %d processes were looked at, want one at each of %d rests", n, len(all), rests)
	}
	close(stop)
	<-ended
	self := 0
	for _, p := range all {
		if p.pid == os.Getpid() {
			self++
		}
	}
	if self != 1 {
		t.Errorf("this process is %d times among %d", self, len(all))
	}
}

// The look for the next process of a server comes a while after the end of the last, and not in the middle of a takeover; a process
// that is still ending is no new one.
func TestTheNextProcessIsNotLookedForAtOnce(t *testing.T) {
	p := newProcesses(time.Second, nil, nil)
	end := time.Now()
	p.soughtAt = end
	asked := func(at time.Time) bool {
		p.starting(at)
		select {
		case <-p.looks:
			return true
		default:
			return false
		}
	}
	for _, tt := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {statusEvery / 2, false}, {statusEvery, true}, {statusEvery + time.Millisecond, false}, {2 * statusEvery, true}} {
		if got := asked(end.Add(tt.after)); got != tt.want {
			t.Errorf("%v after the end a look is asked for: %t, want %t", tt.after, got, tt.want)
		}
	}
}
