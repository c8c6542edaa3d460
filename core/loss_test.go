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
	report(2*time.Second, Health{State: Healthy, Executed: "n2:1500"})
	report(2*time.Second+500*time.Millisecond, Health{State: Failed})
	at(3 * time.Second)
	for _, c := range []struct{ has, want string }{
		{"n2:1500", "n1 has all that n2 is known to have executed; of its last 500ms about 250 more may be lost"},
		{"n2:1490", "n1 lacks 10 transactions that n2 is known to have executed; of its last 500ms about 250 more may be lost"},
	} {
		if got := m.mayBeLost(standing{node: "n1", all: c.has}, "n2", m.executed["n2"]); got != c.want {
			t.Errorf("of %s it is said: %s", c.has, got)
		}
	}
	if got := m.mayBeLost(standing{node: "n1"}, "n2", ""); !strings.Contains(got, "nobody knows") {
		t.Errorf("without a known set it is said: %s", got)
	}
	if got := m.mayBeLost(standing{node: "n1"}, "", ""); got != "" {
		t.Errorf("with an owner that has answered it is said: %s", got)
	}
	// An owner that wrote nothing for long may have written nothing since.
	report(20*time.Second, Health{State: Failed})
	if got := m.mayBeLost(standing{node: "n1", all: "n2:1500"}, "n2", "n2:1500"); !strings.Contains(got, "may be lost") {
		t.Errorf("the moment of the failure has moved: %s", got)
	}
}
