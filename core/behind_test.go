package core

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// lagging is a machine of n1, a replica, that hears n2, and n3.
type lagging struct {
	*Machine
	seq Seq
}

func newLagging(t *testing.T) *lagging {
	t.Helper()
	timing, err := ProfileTiming("lan")
	if err != nil {
		t.Fatal(err)
	}
	l := &lagging{Machine: New(Options{Self: "n1", Incarnation: 1, Timing: timing, Sets: countSets{}})}
	for _, n := range []NodeName{"n1", "n2", "n3"} {
		l.view.Config.Nodes = append(l.view.Config.Nodes, NodeSpec{Name: n})
	}
	l.now = Instant(time.Hour)
	return l
}

// tell lets a node's report come in.
func (l *lagging) tell(n NodeName, h Health) {
	l.seq++
	l.reportReceived(n, Report{Incarnation: 7, Seq: l.seq, Health: h}, 0)
}

func (l *lagging) executes(set string) {
	l.health = Health{State: Healthy, Writable: No, Source: "n2:3306", Replicating: Yes, Executed: set, Measured: l.health.Measured}
}

func primaryWith(set string) Health {
	return Health{State: Healthy, Writable: Yes, Lag: -1, Executed: set}
}

// What the primary has told and the replica does not have counts from when it was told; what nobody can know stays unknown.
func TestMeasuredLag(t *testing.T) {
	const unknown = time.Duration(-1)
	type step struct {
		after   time.Duration
		primary string // what n2 tells, empty if nothing is heard of it
		own     string
		want    time.Duration
	}
	for _, tt := range []struct {
		name  string
		steps []step
		third Health
	}{
		{"it never had all", []step{{0, "n2:5", "n2:4", unknown}, {time.Minute, "n2:9", "n2:4", unknown}}, Health{}},
		{"it keeps up", []step{{0, "n2:5", "n2:5", 0}, {time.Second, "n2:6", "n2:5", 0}, {time.Second, "n2:7", "n2:6", 0},
			{time.Minute, "n2:7", "n2:7", 0}}, Health{}},
		{"nothing is written", []step{{0, "n2:5", "n2:5", 0}, {time.Hour, "n2:5", "n2:5", 0}}, Health{}},
		{"it stands still", []step{{0, "n2:5", "n2:5", 0}, {0, "n2:6", "n2:5", 0}, {12200 * time.Millisecond, "n2:9", "n2:5", 10 * time.Second},
			{0, "n2:9", "n2:8", 0}, {5 * time.Second, "n2:9", "n2:8", 2 * time.Second}}, Health{}},
		{"it comes from far behind", []step{{0, "n2:5", "n2:4", unknown}, {10 * time.Second, "n2:9", "n2:6", 0}, {10 * time.Second, "n2:9", "n2:6", 7 * time.Second}}, Health{}},
		{"the primary dies meanwhile", []step{{0, "n2:5", "n2:5", 0}, {0, "n2:6", "n2:5", 0}, {10 * time.Second, "", "n2:5", 7 * time.Second}}, Health{}},
		{"the primary dies, and nothing is missing", []step{{0, "n2:5", "n2:5", 0}, {10 * time.Second, "", "n2:5", unknown}}, Health{}},
		{"its own set is not known", []step{{0, "n2:5", "n2:5", 0}, {0, "n2:6", "", unknown}}, Health{}},
		{"two primaries", []step{{0, "n2:5", "n2:5", unknown}}, primaryWith("n3:1")},
		{"another one is a writable replica", []step{{0, "n2:5", "n2:5", 0}}, Health{State: Healthy, Writable: Yes, Source: "n2:3306"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLagging(t)
			for i, s := range tt.steps {
				l.now = l.now.Add(s.after)
				if s.primary != "" {
					l.tell("n2", primaryWith(s.primary))
				}
				l.tell("n3", tt.third)
				l.executes(s.own)
				l.measure()
				if got := l.health.Measured; got != s.want {
					t.Fatalf("step %d: measured %v, want %v", i+1, got, s.want)
				}
			}
		})
	}
}

// A new primary begins anew: what the old one alone had keeps nobody behind.
func TestMeasuredLagBeginsAnewWithANewPrimary(t *testing.T) {
	l := newLagging(t)
	l.tell("n2", primaryWith("n2:5"))
	l.executes("n2:5")
	l.measure()
	l.tell("n2", primaryWith("n2:9"))
	l.measure()
	l.now = l.now.Add(time.Minute)
	l.tell("n3", primaryWith("n2:5,n3:1"))
	l.measure()
	if got := l.health.Measured; got >= 0 {
		t.Errorf("before it had all of the new primary's: %v", got)
	}
	l.executes("n2:5,n3:1")
	l.measure()
	if got := l.health.Measured; got != 0 {
		t.Errorf("with all of the new primary's: %v", got)
	}
}

// Over random histories the measured lag is never longer than the truth, and shorter by no more than what is allowed for and what is
// thinned out.
func TestMeasuredLagIsNeverTooLong(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := newLagging(t)
		written := []Instant{l.now} // when the primary wrote each of its transactions
		applied := 1
		for range 600 {
			l.now = l.now.Add(time.Duration(r.IntN(1000)) * time.Millisecond)
			for range r.IntN(3) {
				written = append(written, l.now)
			}
			switch r.IntN(4) {
			case 0:
				applied = len(written)
			case 1:
				applied += r.IntN(len(written) - applied + 1)
			}
			l.tell("n2", primaryWith(fmt.Sprintf("n2:%d", len(written))))
			l.executes(fmt.Sprintf("n2:%d", applied))
			l.measure()
			truth := time.Duration(0)
			if applied < len(written) {
				truth = l.now.Sub(written[applied])
			}
			got, slack := l.health.Measured, lookAge+l.opt.Timing.Probe+time.Second
			if got > truth || got >= 0 && got < truth-slack-truth/8 {
				t.Fatalf("seed %d: measured %v, and it is %v behind", seed, got, truth)
			}
		}
	}
}

// However long a replica stands still, what is remembered is bounded, and since when it is behind is not forgotten.
func TestMeasuredLagOfALongStandstill(t *testing.T) {
	l := newLagging(t)
	l.tell("n2", primaryWith("n2:1"))
	l.executes("n2:1")
	l.measure()
	for i := range 5000 {
		l.now = l.now.Add(time.Second)
		l.tell("n2", primaryWith(fmt.Sprintf("n2:%d", i+2)))
		l.measure()
	}
	if n := len(l.behind.lacking); n > maxTold {
		t.Errorf("%d sets are remembered, and %d are allowed", n, maxTold)
	}
	if got, want := l.health.Measured, 4996*time.Second; got != want {
		t.Errorf("measured %v, want %v", got, want)
	}
	l.executes("n2:2501")
	l.measure()
	if got := l.health.Measured; got > 2498*time.Second || got < 2200*time.Second {
		t.Errorf("half of it applied: measured %v, and it is 2500 s behind", got)
	}
}

// The larger figure that is known decides, for readers and for promotion.
func TestTheLargerLagDecides(t *testing.T) {
	for _, c := range []struct{ lag, measured, want time.Duration }{
		{0, 9 * time.Second, 9 * time.Second}, {9 * time.Second, -1, 9 * time.Second}, {-1, 4 * time.Second, 4 * time.Second}, {-1, -1, -1},
	} {
		if got := (Health{Lag: c.lag, Measured: c.measured}).behindNow(); got != c.want {
			t.Errorf("%v by the server, %v measured: %v, want %v", c.lag, c.measured, got, c.want)
		}
	}
	l := newLagging(t)
	l.tell("n2", primaryWith("n2:1"))
	l.executes("n2:1")
	l.measure()
	l.tell("n2", primaryWith("n2:2"))
	l.measure()
	spec := GroupSpec{Role: Reader, Reading: Reading{MaxLag: 5000}}
	if why := l.unreadable(spec); why != "" {
		t.Fatalf("it can not serve readers: %s", why)
	}
	l.now = l.now.Add(10 * time.Second)
	l.measure()
	if why := l.unreadable(spec); why != "MySQL is 7s behind, and max_lag is 5s" {
		t.Errorf("a server that says it is 0 s behind and stands still: %q", why)
	}
}
