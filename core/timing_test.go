package core

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestProfilesHoldTheirOwnRules(t *testing.T) {
	for _, name := range Profiles() {
		timing, err := ProfileTiming(name)
		if err != nil {
			t.Fatal(err)
		}
		if ps := timing.Check(); len(ps) > 0 {
			t.Errorf("%s: %v", name, ps)
		}
	}
	if _, err := ProfileTiming("slow"); err == nil || !strings.Contains(err.Error(), `"slow": use one of lan, fast, wan`) {
		t.Errorf("unknown profile: %v", err)
	}
}

// Every relation is named with its key, and all that fail are named at once.
func TestTimingCheck(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Timing)
		keys   []string
	}{
		{"nothing", func(*Timing) {}, nil},
		{"no heartbeat", func(t *Timing) { t.Heartbeat = 0 }, []string{"heartbeat"}},
		{"lease shorter than three heartbeats", func(t *Timing) { t.TTL = 3*t.Heartbeat + t.Unbind - time.Millisecond }, []string{"ttl"}},
		{"lease of just three heartbeats", func(t *Timing) { t.TTL = 3*t.Heartbeat + t.Unbind }, nil},
		{"lease of half milliseconds", func(t *Timing) { t.TTL += 500 * time.Microsecond }, []string{"ttl"}},
		{"lease of hours", func(t *Timing) { t.TTL = time.Hour }, []string{"ttl"}},
		{"lease of a minute", func(t *Timing) { t.TTL = time.Minute }, nil},
		{"raft too fast", func(t *Timing) { t.RaftHeartbeat = 4 * time.Millisecond }, []string{"raft_heartbeat"}},
		{"election before heartbeat", func(t *Timing) { t.RaftElection = t.RaftHeartbeat - 1 }, []string{"raft_election"}},
		{"no fall, no rise", func(t *Timing) { t.Fall, t.Rise = 0, 0 }, []string{"fall", "rise"}},
		{"negative cool-down", func(t *Timing) { t.CoolDown = -1 }, []string{"cool_down"}},
		{"no cool-down", func(t *Timing) { t.CoolDown = 0 }, nil},
		{"nothing set", func(t *Timing) { *t = Timing{} },
			[]string{"heartbeat", "ttl", "unbind", "raft_heartbeat", "raft_election", "probe", "probe_timeout", "fall", "rise"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			timing, _ := ProfileTiming("lan")
			tt.change(&timing)
			var keys []string
			for _, p := range timing.Check() {
				keys = append(keys, p.Key)
				if !strings.Contains(p.Text, " is ") && !strings.Contains(p.Text, " must ") {
					t.Errorf("%s: %q does not say what is wrong", p.Key, p.Text)
				}
			}
			slices.Sort(keys)
			slices.Sort(tt.keys)
			if !slices.Equal(slices.Compact(keys), tt.keys) {
				t.Fatalf("problems with %v, want %v", keys, tt.keys)
			}
		})
	}
}

// The margin covers two clocks of which one runs 1 % slow and the other 1 % fast.
func TestMarginCoversTheClocks(t *testing.T) {
	for _, ttl := range []time.Duration{45 * time.Millisecond, 300 * time.Millisecond, 4 * time.Second, time.Minute} {
		holder := time.Duration(float64(ttl) / 0.99) // real time in which a slow clock counts ttl
		arbiter := time.Duration(float64(ttl+Margin(ttl)) / 1.01)
		if left := arbiter - holder; left <= 0 {
			t.Errorf("with a lease of %v the arbiter is %v ahead of the holder", ttl, -left)
		}
	}
}

func TestSurvivesLeader(t *testing.T) {
	for _, tt := range []struct {
		profile       string
		rtt, storeP99 time.Duration
		want          bool
	}{
		{"lan", time.Millisecond, time.Millisecond, true},
		{"lan", time.Millisecond, 10 * time.Millisecond, false},
		{"fast", 200 * time.Microsecond, 200 * time.Microsecond, false},
		{"wan", 50 * time.Millisecond, 10 * time.Millisecond, true},
	} {
		timing, _ := ProfileTiming(tt.profile)
		ok, left, needed := timing.SurvivesLeader(tt.rtt, tt.storeP99)
		if ok != tt.want || ok != (left >= needed) {
			t.Errorf("%s, rtt %v, store %v: %t with %v left of %v needed", tt.profile, tt.rtt, tt.storeP99, ok, left, needed)
		}
	}
}

func TestAnnouncePlan(t *testing.T) {
	plan := announcePlan()
	if plan[0] != 0 {
		t.Error("the first announcement does not come at once")
	}
	if !slices.IsSorted(plan[:]) {
		t.Error("the plan is not in order")
	}
	if !slices.ContainsFunc(plan[:], func(d time.Duration) bool { return d > time.Second && d < 2*time.Second }) {
		t.Error("nothing comes just after a second, when receivers with a locktime listen again")
	}
}
