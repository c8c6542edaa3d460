package core

import (
	"strings"
	"testing"
	"time"
)

// What a chosen server may lack is what the old owner was known to have executed and it has not, and by the old owner's
// pace what that has executed since it was last heard.
func TestMayBeLostCountsKnownAndUnknown(t *testing.T) {
	timing, err := ProfileTiming("lan")
	if err != nil {
		t.Fatal(err)
	}
	m := New(Options{Self: "n1", Incarnation: 1, Timing: timing, Sets: countSets{}})
	at := func(d time.Duration) { m.now = Instant(d) }
	report := func(d time.Duration, h Health) {
		at(d)
		m.reportReceived("n2", Report{Incarnation: 7, Seq: Seq(d), Health: h}, 0)
	}
	report(time.Second, Health{State: Healthy, Executed: "n2:1000"})
	report(1200*time.Millisecond, Health{State: Failed})
	want := "n1 has all that n2 is known to have executed; of its last 200ms some more may be lost"
	if got := m.mayBeLost(standing{node: "n1", all: "n2:1000"}, "n2", m.executed["n2"], nil); got != want {
		t.Errorf("by one report, which shows no pace, it is said: %s", got)
	}
	report(2*time.Second, Health{State: Healthy, Executed: "n2:1500"})
	report(2*time.Second+500*time.Millisecond, Health{State: Failed})
	at(3 * time.Second)
	for _, c := range []struct{ has, want string }{
		{"n2:1500", "n1 has all that n2 is known to have executed; of its last 500ms about 250 more may be lost"},
		{"n2:1490", "n1 lacks 10 transactions that n2 is known to have executed; of its last 500ms about 250 more may be lost"},
	} {
		if got := m.mayBeLost(standing{node: "n1", all: c.has}, "n2", m.executed["n2"], nil); got != c.want {
			t.Errorf("of %s it is said: %s", c.has, got)
		}
	}
	if got := m.mayBeLost(standing{node: "n1"}, "n2", "", nil); !strings.Contains(got, "nobody knows") {
		t.Errorf("without a known set it is said: %s", got)
	}
	if got := m.mayBeLost(standing{node: "n1"}, "", "", nil); got != "" {
		t.Errorf("with an owner that has answered it is said: %s", got)
	}
	// An owner that wrote nothing for long may have written nothing since.
	report(20*time.Second, Health{State: Failed})
	if got := m.mayBeLost(standing{node: "n1", all: "n2:1500"}, "n2", "n2:1500", nil); !strings.Contains(got, "may be lost") {
		t.Errorf("the moment of the failure has moved: %s", got)
	}
}

// A set that is told with the failure may have been read up to a second before, in which the owner went on.
func TestASetThatComesWithTheFailureIsOld(t *testing.T) {
	timing, err := ProfileTiming("lan")
	if err != nil {
		t.Fatal(err)
	}
	m := New(Options{Self: "n1", Incarnation: 1, Timing: timing, Sets: countSets{}})
	for _, r := range []struct {
		at time.Duration
		h  Health
	}{
		{time.Second, Health{State: Healthy, Executed: "n2:1000"}},
		{2 * time.Second, Health{State: Healthy, Executed: "n2:1500"}},
		{2*time.Second + 800*time.Millisecond, Health{State: Failed, Executed: "n2:1600"}},
	} {
		m.now = Instant(r.at)
		m.reportReceived("n2", Report{Incarnation: 7, Seq: Seq(r.at), Health: r.h}, 0)
	}
	want := "n1 lacks 10 transactions that n2 is known to have executed; of its last 800ms about 400 more may be lost"
	if got := m.mayBeLost(standing{node: "n1", all: "n2:1590"}, "n2", m.executed["n2"], nil); got != want {
		t.Errorf("it is said: %s", got)
	}
}

// That nothing acknowledged is lost is said only where the old owner's commits waited for replicas which can not all be missing in
// the choice.
func TestNothingIsLostOnlyUnderAllConditions(t *testing.T) {
	timing, err := ProfileTiming("lan")
	if err != nil {
		t.Fatal(err)
	}
	ss := []standing{{node: "n2", all: "n1:1500"}, {node: "n3", all: "n1:1490"}}
	for _, c := range []struct {
		name   string
		change func(m *Machine, semi *SemiSync)
		chosen int
		ss     []standing
		want   bool
	}{
		{"all are met", func(*Machine, *SemiSync) {}, 0, ss, true},
		{"commits do not wait", func(_ *Machine, s *SemiSync) { s.Waits = false }, 0, ss, false},
		{"others see them before", func(_ *Machine, s *SemiSync) { s.AfterSync = false }, 0, ss, false},
		{"not while nobody replicates", func(_ *Machine, s *SemiSync) { s.Alone = false }, 0, ss, false},
		{"given up before the death was noticed", func(_ *Machine, s *SemiSync) { s.Timeout = noticed }, 0, ss, false},
		{"heard of long ago", func(m *Machine, _ *SemiSync) { m.now = m.now.Add(6 * time.Second) }, 0, ss, false},
		{"a replica outside of the cluster", func(_ *Machine, s *SemiSync) { s.Replicas = 3 }, 0, ss, false},
		{"unknown how many acknowledge", func(_ *Machine, s *SemiSync) { s.Acks = 0 }, 0, ss, false},
		{"who acknowledged may be missing", func(*Machine, *SemiSync) {}, 0, ss[:1], false},
		{"both had to acknowledge", func(_ *Machine, s *SemiSync) { s.Acks = 2 }, 0, ss[:1], true},
		{"another one has more", func(*Machine, *SemiSync) {}, 1, ss, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New(Options{Self: "n2", Incarnation: 1, Timing: timing, Sets: countSets{}})
			m.view.Config.Nodes = []NodeSpec{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}, {Name: "w", Witness: true}}
			semi := SemiSync{Waits: true, AfterSync: true, Alone: true, Acks: 1, Replicas: 2, Timeout: 10 * time.Second}
			m.now = Instant(time.Second)
			c.change(m, &semi)
			now := m.now
			m.now = Instant(time.Second)
			m.reportReceived("n1", Report{Incarnation: 7, Seq: 1, Health: Health{State: Failed, Executed: "n1:1510", SemiSync: semi}}, 0)
			m.now = now
			for _, last := range []string{"n1:1510", ""} {
				got := m.mayBeLost(c.ss[c.chosen], "n1", last, c.ss)
				if strings.Contains(got, "nothing that was acknowledged is lost") != c.want {
					t.Errorf("it is said: %s", got)
				}
				if c.want && (strings.Contains(got, "may be lost") || strings.Contains(got, "nobody knows")) {
					t.Errorf("of what may be lost besides it is said: %s", got)
				}
			}
		})
	}
}
