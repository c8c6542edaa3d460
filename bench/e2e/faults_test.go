package e2e

import (
	"strings"
	"testing"

	"github.com/remora-ha/remora/bench/lab"
)

// What goes wrong here, goes wrong for the owner while every node is asked all the time whether it answers. The other
// faults of the suite have tests of their own; "remora-lab faults" runs them all.
func TestFaults(t *testing.T) {
	const roomForTheRest = 40 // MiB, besides what a daemon takes in advance
	l := raise(t, func(o *lab.Options) { o.StateMiB = roomForTheRest })
	must(t, l.StartServers(within(t)))
	must(t, l.StartDaemons())
	suffer(t, l, "another version", "parted", "isolated", "five times", "down and up", "lost", "busy", "state_dir full", "stand still", "stands still")
	neverTwo(t, l)
}

// A daemon that is frozen or dead leaves its address bound. What counts is that the node does not answer for it.
func TestFaultsOfDeadDaemons(t *testing.T) {
	l := raise(t, nil)
	must(t, l.StartServers(within(t)))
	must(t, l.StartDaemons())
	suffer(t, l, "two interfaces", "anew")
}

// suffer lets the faults happen whose names have one of the parts.
func suffer(t *testing.T, l *lab.Lab, parts ...string) {
	t.Helper()
	for _, part := range parts {
		suffered := 0
		for _, f := range lab.Faults() {
			if !strings.Contains(f.Name, part) {
				continue
			}
			suffered++
			t.Run(strings.ReplaceAll(f.Name, "%", "percent"), func(t *testing.T) {
				s, err := l.Scene(within(t))
				must(t, err)
				o, err := l.Suffer(within(t), f, s)
				must(t, err)
				t.Log(o)
				if err := o.Judge(f.Fate, lab.LongestSilence(timing(t))); err != nil {
					t.Error(err)
				}
			})
		}
		if suffered == 0 {
			t.Errorf("no fault is called %q", part)
		}
	}
}
