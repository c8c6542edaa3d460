package netio

import (
	"testing"
	"time"
)

// A rhythm is a pace that is asked at regular times.
type rhythm struct {
	pace
	now time.Time
}

func newRhythm() *rhythm {
	return &rhythm{pace: pace{alone: true, rest: paceRest}, now: time.Now()}
}

// claims makes some claims, one every so often, that take some time each, and returns how many of them were raw calls.
func (r *rhythm) claims(n int, every, took time.Duration) int {
	before := r.raw
	for range n {
		r.now = r.now.Add(every)
		r.begin(r.now)
		r.end(r.now.Add(took))
	}
	return r.raw - before
}

const (
	fastReports = 10 * time.Millisecond // of an owner in profile fast
	quickly     = 50 * time.Microsecond
)

func TestPaceIsRawForFrequentClaims(t *testing.T) {
	r := newRhythm()
	r.claims(1, time.Hour, quickly)
	const n, ordinary = 10 * paceWatch, 10
	if got := r.claims(n, fastReports, quickly); got != n-ordinary {
		t.Errorf("%d of %d claims were raw calls, want %d: one of %d is an ordinary one", got, n, n-ordinary, paceWatch)
	}
	if got := r.claims(n, 60*time.Millisecond, quickly); got != 0 {
		t.Errorf("%d claims were raw calls though there was one every 60 ms only", got)
	}
	r.alone = false
	if got := r.claims(n, fastReports, quickly); got != 0 {
		t.Errorf("%d claims were raw calls though others wait for this process", got)
	}
}

// Of a burst of slow claims only the first may be a raw call, and none in the minute after the last.
func TestPaceRestsAfterASlowClaim(t *testing.T) {
	r := newRhythm()
	r.claims(1, time.Hour, quickly)
	if got := r.claims(4, fastReports, 8*time.Millisecond); got != 1 {
		t.Errorf("%d of a burst of slow claims were raw calls, want the first", got)
	}
	if got := r.claims(int((paceRest-time.Second)/fastReports), fastReports, quickly); got != 0 {
		t.Errorf("%d claims were raw calls within %v after a slow one", got, paceRest)
	}
	if got := r.claims(int(2*time.Second/fastReports), fastReports, quickly); got == 0 {
		t.Errorf("claims are still ordinary calls more than %v after the last slow one", paceRest)
	}
}
