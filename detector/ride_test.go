package detector

import (
	"testing"
	"testing/synctest"
	"time"
)

// offered plays a script while the process is awake for something else at an interval, and returns how far apart the probes
// were.
func offered(t *testing.T, s *script, every time.Duration) (gaps []time.Duration) {
	const span = 10 * time.Second // at its end a probe is aborted, and another one may begin
	play(t, s, 0, func(b *bench) {
		for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(every) {
			b.ride.offer(b.cfg.Clock())
		}
	})
	for i := 1; i < len(s.at) && s.at[i] < span; i++ {
		gaps = append(gaps, s.at[i]-s.at[i-1])
	}
	return gaps
}

func TestAProbeRidesWithWhatWakesTheProcess(t *testing.T) {
	for _, c := range []struct{ every, want time.Duration }{
		{95 * time.Millisecond, 95 * time.Millisecond},
		{time.Millisecond, 88 * time.Millisecond}, // not before an eighth of the interval is left
		{3 * time.Second, 100 * time.Millisecond}, // nothing to ride with
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newScript(func(int) (report, time.Duration) { return quick(good(facts{})) })
			ridden := 0
			gaps := offered(t, s, c.every)
			for _, gap := range gaps {
				if gap < 87*time.Millisecond || gap > 100*time.Millisecond {
					t.Errorf("awake every %v: a probe %v after the last, want 87.5 to 100 ms", c.every, gap)
				}
				if gap == c.want {
					ridden++
				}
			}
			if ridden < 9*len(gaps)/10 || len(gaps) < 90 {
				t.Errorf("awake every %v: %d of %d probes came %v after the last", c.every, ridden, len(gaps), c.want)
			}
		})
	}
}

// The alarm of a probe that went out early rings while the answer is on its way. That is no reason for another one.
func TestAProbeThatRodeIsNotMadeTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(int) (report, time.Duration) { return good(facts{}), 30 * time.Millisecond })
		for _, gap := range offered(t, s, 10*time.Millisecond) {
			if gap != 90*time.Millisecond {
				t.Errorf("a probe %v after the last, want 90 ms", gap)
			}
		}
	})
}

// A server that does not answer gets all the time that it is promised, however often the process is awake.
func TestOnlyTheProbesOfAServerThatAnswersRide(t *testing.T) {
	for _, r := range []report{{finding: silent, broken: true}, {finding: dead, reason: "connection refused"}, refused("error 1045: wrong password")} {
		synctest.Test(t, func(t *testing.T) {
			s := newScript(func(int) (report, time.Duration) { return r, 0 })
			for _, gap := range offered(t, s, time.Millisecond) {
				if gap < timeout {
					t.Errorf("finding %v: a probe %v after the last, want 100 ms at least", r.finding, gap)
				}
			}
		})
	}
}

// Nor do those of a server whose process has ended, of which something else than a probe tells.
func TestNoProbeRidesAfterAnExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(int) (report, time.Duration) { return quick(good(facts{})) })
		play(t, s, 5*time.Millisecond, func(b *bench) {
			time.Sleep(50 * time.Millisecond)
			b.tell(hint{exit: "mysqld (pid 7) is exiting"})
			time.Sleep(40 * time.Millisecond)
			b.ride.offer(b.cfg.Clock())
		})
		if len(s.at) != 1 {
			t.Errorf("probes at %v, want none after the first for 100 ms", s.at)
		}
	})
}

// A chance that was offered before the loop had other news is not taken for the probe after that.
func TestAnOldChanceIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(n int) (report, time.Duration) {
			if n == 1 {
				return good(facts{}), 20 * time.Millisecond
			}
			return quick(good(facts{}))
		})
		play(t, s, 95*time.Millisecond, func(b *bench) {
			time.Sleep(95 * time.Millisecond)
			b.ride.offer(b.cfg.Clock())
			synctest.Wait() // the second probe is under way
			b.ride.offer(b.cfg.Clock())
		})
		if len(s.at) != 2 || s.at[1] != 95*time.Millisecond {
			t.Errorf("probes at %v, want the second at 95 ms and no other", s.at)
		}
	})
}
