package detector

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-ha/remora/core"
)

// script is a server that answers from a function, in bubble time.
type script struct {
	answer  func(n int) (report, time.Duration) // the n-th probe's report, and how long it takes
	n       int
	at      []time.Duration // when each probe began
	start   time.Time
	aborted chan struct{}
}

func newScript(answer func(n int) (report, time.Duration)) *script {
	return &script{answer: answer, start: time.Now(), aborted: make(chan struct{}, 1)}
}

func (s *script) probe(timeout time.Duration) report {
	s.at = append(s.at, time.Since(s.start))
	r, d := s.answer(s.n)
	s.n++
	r.late = d - timeout
	select {
	case <-time.After(d):
	case <-s.aborted:
	}
	return r
}

func (s *script) resume() {
	select {
	case <-s.aborted:
	default:
	}
}

func (s *script) abort() {
	select {
	case s.aborted <- struct{}{}:
	default:
	}
}

// bench is a loop in a bubble.
type bench struct {
	*loop
	events []core.Health
	at     []time.Duration
}

// play runs the loop on a script for a time, and then returns what was delivered.
func play(t *testing.T, s *script, d time.Duration, during func(*bench)) *bench {
	b := &bench{}
	cfg := Config{Address: "test", Timing: lan(t), Clock: func() core.Instant { return core.Instant(time.Since(s.start)) },
		Deliver: func(e core.Event) {
			b.events = append(b.events, e.(core.HealthChanged).Health)
			b.at = append(b.at, time.Since(s.start))
		}}
	det, err := New(Config{Address: "h:1", User: "u", Timing: cfg.Timing, Clock: cfg.Clock, Deliver: cfg.Deliver})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	b.loop = newLoop(det.cfg, det.ride)
	if b.timer, err = det.cfg.Alarms.New(); err != nil {
		t.Fatal(err)
	}
	b.srv = s
	go func() {
		defer close(done)
		b.run(ctx)
	}()
	if during != nil {
		during(b)
	}
	time.Sleep(d)
	synctest.Wait()
	cancel()
	<-done
	return b
}

func good(f facts) report { return report{finding: answered, reason: "answers queries", facts: f} }

func quick(r report) (report, time.Duration) { return r, time.Millisecond }

const timeout = 100 * time.Millisecond

var hung = report{finding: silent, reason: "no answer within 100ms"}

func TestOneEventForASteadyServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(int) (report, time.Duration) { return quick(good(facts{writable: core.Yes, version: "v"})) })
		b := play(t, s, 10*time.Second, nil)
		if len(b.events) != 1 || b.events[0].State != core.Healthy || b.events[0].Writable != core.Yes {
			t.Errorf("events %+v, want one, healthy and writable", b.events)
		}
		if s.n < 99 || s.n > 102 {
			t.Errorf("%d probes in 10 s, want one each 100 ms", s.n)
		}
	})
}

func TestAHungServerFailsAfterFallProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(n int) (report, time.Duration) {
			if n < 5 {
				return quick(good(facts{}))
			}
			return hung, timeout
		})
		b := play(t, s, 2*time.Second, nil)
		last := len(b.events) - 1
		if last != 1 || b.events[last].State != core.Failed {
			t.Fatalf("events %+v, want healthy, failed", b.events)
		}
		if b.at[last] != 700*time.Millisecond {
			t.Errorf("failed at %v: hung since 500 ms, two probes of 100 ms must do", b.at[last])
		}
		if !strings.Contains(b.events[last].Reason, "(2 probes in a row, 200ms since the first)") {
			t.Errorf("reason %q", b.events[last].Reason)
		}
		if s.at[5] != 500*time.Millisecond || s.at[6] != 600*time.Millisecond {
			t.Errorf("probes at %v: the second must be sent when the first has been judged, and not before", s.at[:7])
		}
	})
}

// While the machine has no processor for the server, one stall of it lasts for as long as two probes may take, and this daemon, which
// comes first by its scheduling class, judges each of them in time. It is one silence, since the question waits on. That has a bound: a
// server that never gets a processor has failed after twice the time.
func TestAStallOfTheMachineIsNotTwoSilences(t *testing.T) {
	for _, c := range []struct{ stall, failed time.Duration }{{290 * time.Millisecond, 0}, {time.Hour, 900 * time.Millisecond}} {
		synctest.Test(t, func(t *testing.T) {
			var s *script
			s = newScript(func(int) (report, time.Duration) {
				const begins = 450 * time.Millisecond
				now := time.Since(s.start)
				if now < begins || now >= begins+c.stall {
					return quick(good(facts{}))
				}
				if left := begins + c.stall - now; left < 2*timeout {
					return good(facts{}), left
				}
				r := hung
				r.again = "the server waited for a processor"
				return r, 2 * timeout
			})
			b := play(t, s, 3*time.Second, nil)
			if c.failed == 0 && len(b.events) != 1 {
				t.Errorf("a stall of %v: events %+v, want none after the first", c.stall, b.events)
			}
			if c.failed > 0 && (len(b.at) != 2 || b.at[1] != c.failed || !strings.HasSuffix(b.events[1].Reason, "; the last had its time twice, since the server waited for a processor")) {
				t.Errorf("a stall of %v: events %+v at %v, want one at %v", c.stall, b.events, b.at, c.failed)
			}
		})
	}
}

// What was given once for our lateness is not given twice.
func TestAProbeThatHadItsTimeAgainCountsInFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(n int) (report, time.Duration) {
			if n < 5 {
				return quick(good(facts{}))
			}
			r := hung
			r.again = "we were late"
			return r, 2*timeout + 60*time.Millisecond
		})
		b := play(t, s, 3*time.Second, nil)
		if want := 500*time.Millisecond + 2*260*time.Millisecond; len(b.at) != 2 || b.at[1] != want {
			t.Errorf("failed at %v, want %v: two probes", b.at, want)
		}
	})
}

func TestTheEndOfTheProcessNeedsNoProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(n int) (report, time.Duration) {
			if n < 5 {
				return quick(good(facts{writable: core.Yes, source: "a:1"}))
			}
			return good(facts{}), time.Hour // the answer of a dying server must not count
		})
		b := play(t, s, time.Second, func(b *bench) {
			time.Sleep(550 * time.Millisecond) // the sixth probe is under way
			b.tell(hint{exit: "mysqld (pid 7) is exiting"})
		})
		h := b.events[1]
		if h.State != core.Failed || b.at[1] != 550*time.Millisecond || h.Reason != "mysqld (pid 7) is exiting" {
			t.Errorf("%+v at %v, want failed at once", h, b.at[1])
		}
		if h.Writable != core.Unknown || h.Lag >= 0 || h.Listens != nil || h.Source != "a:1" {
			t.Errorf("a dead server is %+v", h)
		}
		if len(b.events) != 2 {
			t.Errorf("later events: %+v", b.events[2:])
		}
	})
}

func TestALostConnectionIsDialledAtOnceAndIsNoAlarm(t *testing.T) {
	for _, busy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newScript(func(n int) (report, time.Duration) {
				if n == 5 && busy {
					return report{finding: silent, broken: true, lost: true}, 50 * time.Millisecond
				}
				return quick(good(facts{}))
			})
			b := play(t, s, time.Second, func(b *bench) {
				time.Sleep(550 * time.Millisecond)
				b.tell(hint{})
			})
			if len(b.events) != 1 {
				t.Errorf("events %+v, want only the first", b.events)
			}
			if s.at[6] != 550*time.Millisecond {
				t.Errorf("dialled at %v, the connection was lost at 550ms", s.at[6])
			}
		})
	}
}

func TestARefusedDialIsProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(n int) (report, time.Duration) {
			if n < 5 {
				return quick(good(facts{}))
			}
			return report{finding: dead, reason: "connection refused"}, 0
		})
		b := play(t, s, time.Second, func(b *bench) {
			time.Sleep(450 * time.Millisecond)
			b.tell(hint{})
		})
		if len(b.events) != 2 || b.events[1].State != core.Failed || b.at[1] != 450*time.Millisecond {
			t.Errorf("events %+v at %v, want failed at 450 ms", b.events, b.at)
		}
		if s.n < 10 {
			t.Errorf("%d probes: a dead server must be dialled on", s.n)
		}
	})
}

func TestAServerThatReturnsNeedsRiseAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(n int) (report, time.Duration) {
			if n == 3 {
				return report{finding: dead, reason: "connection refused"}, 0
			}
			return good(facts{writable: core.Yes}), 0
		})
		b := play(t, s, time.Second, nil)
		if len(b.events) != 3 || b.at[2] != 500*time.Millisecond || b.events[2].State != core.Healthy {
			t.Errorf("events %+v at %v, want the return at 500 ms, with the second answer", b.events, b.at)
		}
	})
}

func TestARefusedLoginIsAnAlarmAndAskedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(n int) (report, time.Duration) {
			if n == 0 {
				return quick(good(facts{writable: core.Yes, version: "v", gtid: "g"}))
			}
			return quick(refused("error 1045: wrong password"))
		})
		b := play(t, s, 5*time.Second, nil)
		h := b.events[len(b.events)-1]
		if h.State != core.Healthy || h.Writable != core.Unknown || len(h.Alarms) != 1 || h.Version != "v" || h.GTID != "g" {
			t.Errorf("%+v, want healthy with an alarm, not known to be writable", h)
		}
		if s.n > 12 {
			t.Errorf("%d logins in 5 s: each costs the server a line in its log", s.n)
		}
	})
}

func TestLatenessOfTheLoopDoublesTheCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(n int) (report, time.Duration) {
			if n < 5 {
				return quick(good(facts{}))
			}
			return hung, timeout + 60*time.Millisecond // the deadline was 100 ms: we were stopped, not the server
		})
		b := play(t, s, 3*time.Second, nil)
		if want := 500*time.Millisecond + 4*160*time.Millisecond; len(b.at) != 2 || b.at[1] != want {
			t.Errorf("failed at %v, want %v: four late probes", b.at, want)
		}
		if !strings.Contains(b.events[1].Reason, "our own loop was 60ms late") {
			t.Errorf("reason %q does not say that we were late", b.events[1].Reason)
		}
	})
}

func TestThePositionAloneIsToldTwiceASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(n int) (report, time.Duration) {
			return quick(good(facts{gtid: time.Duration(n).String()}))
		})
		b := play(t, s, 10*time.Second, nil)
		if len(b.events) < 15 || len(b.events) > 21 {
			t.Errorf("%d events in 10 s", len(b.events))
		}
	})
}

// A position that is asked for each second is told when it is known, whatever else is told shortly before.
func TestOtherNewsHoldsNoPositionBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []time.Duration
		var s *script
		s = newScript(func(int) (report, time.Duration) {
			since := time.Since(s.start)
			second := since / time.Second
			if int(second) == len(asked) {
				asked = append(asked, since)
			}
			// The lag changes half a second after each position.
			return quick(good(facts{gtid: second.String(), lag: (since + time.Second/2) / time.Second * time.Second}))
		})
		b := play(t, s, 10*time.Second+time.Second/2, nil)
		for n, at := range asked {
			i := slices.IndexFunc(b.events, func(h core.Health) bool { return h.GTID == time.Duration(n).String() })
			if i < 0 || b.at[i]-at > 150*time.Millisecond {
				t.Errorf("position %d, known after %v, was told late or never (%d of %d events)", n, at, i, len(b.events))
			}
		}
	})
}

// orderLog notes that something was logged.
type orderLog struct {
	slog.Handler
	order *[]string
}

func (o orderLog) Handle(_ context.Context, r slog.Record) error {
	*o.order = append(*o.order, r.Message)
	return nil
}

// A log may be on a disk that is slow, and what a death calls for does not wait for it.
func TestADeathIsToldBeforeItIsLogged(t *testing.T) {
	var order []string
	det, err := New(Config{Address: "h:1", User: "u", Timing: lan(t), Clock: func() core.Instant { return 1 },
		Deliver: func(e core.Event) {
			order = append(order, "told of "+e.(core.HealthChanged).Health.State.String())
		},
		Logger: slog.New(orderLog{slog.NewTextHandler(io.Discard, nil), &order})})
	if err != nil {
		t.Fatal(err)
	}
	l := newLoop(det.cfg, det.ride)
	l.conclude(verdict{changed: true, state: core.Failed}, "it was killed")
	if want := []string{"told of failed", "server is failed"}; !slices.Equal(order, want) {
		t.Errorf("%q, want %q", order, want)
	}
}
