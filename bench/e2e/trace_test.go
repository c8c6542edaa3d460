package e2e

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// lastTrace asks a node for the newest takeover until that is the one from a node to another, and has all moments that are
// named, of whatever node.
func lastTrace(t *testing.T, n *lab.Node, from, to string, moments ...string) lab.Takeover {
	t.Helper()
	var last lab.Takeover
	eventually(t, n.Name+" has a whole trace", func() bool {
		var err error
		last, err = n.LastTakeover(within(t))
		must(t, err)
		if last.From != from || last.Node != to {
			return false // its log is behind
		}
		var has []string
		for _, p := range last.Trace.Pieces {
			for _, m := range p.Marks {
				has = append(has, m.Name)
			}
		}
		return !slices.ContainsFunc(moments, func(m string) bool { return !slices.Contains(has, m) })
	})
	text, err := n.Remora(within(t), "history", "--trace", "--limit", "1")
	must(t, err)
	t.Logf("\n%s", text)
	return last
}

// Where the milliseconds of a takeover went is known afterwards from any node, as far as the nodes that took part live.
func TestTraces(t *testing.T) {
	l := up(t, nil)
	whole := []string{"giving_up", "unbound", "release_sent", "release_came", "proposed", "granted", "bind_begun", "bound",
		"fence_open", "announced"}
	// check holds what is known of a takeover against the time that the laboratory waited for it.
	check := func(from, to string, start time.Time) {
		t.Helper()
		for _, n := range others(l, from) {
			tr := lastTrace(t, n, from, to, whole...)
			if len(tr.Trace.Missing) != 0 || tr.Trace.LeastUS == nil || tr.Trace.MostUS == nil {
				t.Fatalf("%s knows %+v of the move from %s to %s", n.Name, tr, from, to)
			}
			if least, most := *tr.Trace.LeastUS, *tr.Trace.MostUS; least <= 0 || least > most || least > time.Since(start).Microseconds() {
				t.Errorf("%s: between %d and %d µs, watched for %v", n.Name, least, most, time.Since(start))
			}
		}
	}

	from := l.Holder(l.VIP())
	start := time.Now()
	must(t, l.Switchover(within(t), others(l, from)[0].Name))
	check(from, l.Holder(l.VIP()), start)

	must(t, l.WaitStable(within(t)))
	from, start = l.Holder(l.VIP()), time.Now()
	must(t, l.Node(from).SignalServer(syscall.SIGKILL))
	to, err := l.WaitMoved(within(t), from)
	must(t, err)
	check(from, to, start)
}

// Of an owner that has vanished nothing is known but its last word.
func TestTraceOfAVanishedOwner(t *testing.T) {
	l := up(t, nil)
	from := l.Holder(l.VIP())
	must(t, l.Drop(from, lab.Both))
	to, err := l.WaitMoved(within(t), from)
	must(t, err)
	tr := lastTrace(t, l.Node(to), from, to, "last_word", "proposed", "granted", "bound", "announced")
	if len(tr.Trace.Missing) != 1 || tr.Trace.LeastUS == nil {
		t.Errorf("known: %+v", tr)
	}
	neverTwo(t, l)
}
