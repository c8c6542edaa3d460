package agent

import (
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

// mute is a Raft that sends nothing.
type mute struct{ Consensus }

func (mute) Send(core.NodeName, core.Message) {}
func (mute) Term() core.Term                  { return 1 }

// newReporting returns what has an agent of a node with a fence make a report, send it to two others and hear it itself.
func newReporting(tb testing.TB) func() {
	timing, err := core.ProfileTiming("lan")
	if err != nil {
		tb.Fatal(err)
	}
	now := core.Instant(1e9)
	a := New(Config{Self: "n1", Consensus: mute{}, Clock: func() core.Instant { return now },
		Machine: core.New(core.Options{Self: "n1", Incarnation: 7, Timing: timing, Fence: true, Start: now, Ready: now})})
	if a.timer, err = a.cfg.Alarms.New(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(a.timer.Stop)
	cfg := testConfig()
	cfg.Nodes = []core.NodeSpec{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}
	a.step(tb.Context(), core.ConfigOffered{Config: cfg})
	report := func() {
		r := <-a.reports
		a.tell(r.report, r.to...)
		a.step(tb.Context(), <-a.mail)
	}
	report()
	return func() {
		now = now.Add(time.Second)
		a.step(tb.Context(), core.Tick{})
		report()
	}
}

func BenchmarkReport(b *testing.B) {
	report := newReporting(b)
	b.ReportAllocs()
	for b.Loop() {
		report()
	}
}

// The agent itself needs memory three times for a report: for whom it is, for the copy that tells the term, and for what the
// mailbox takes. The machine needs it six times: for the report, its ticket, three sends and the timer.
func TestAReportNeedsLittleMemory(t *testing.T) {
	if n := testing.AllocsPerRun(100, newReporting(t)); n > 9 {
		t.Errorf("a report: %v allocations, want at most 9", n)
	}
}
