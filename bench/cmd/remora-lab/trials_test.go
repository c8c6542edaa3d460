package main

import (
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
	"github.com/remora-ha/remora/bench/report"
)

// The node that learns first of the last grant counts, not the new owner's late copy of it, nor somebody's of an earlier one.
func TestGrantedIsWhenTheFirstNodeKnew(t *testing.T) {
	zero := time.Now()
	grant := func(after time.Duration, node, owner string, epoch float64) lab.Event {
		return lab.Event{Time: zero.Add(after), Node: node, What: "grant committed", Attrs: map[string]any{"owner": owner, "epoch": epoch}}
	}
	const ms = time.Millisecond
	r := lab.Report{Zero: zero, After: "db2", Events: []lab.Event{
		grant(-5*ms, "db3", "db2", 7), // before the fault
		grant(1*ms, "db1", "db2", 5),  // a late copy
		grant(2*ms, "db3", "db1", 6),
		grant(4*ms, "db3", "db2", 7),
		grant(270*ms, "db2", "db2", 7),
	}}
	if got := granted(r); got != 4 {
		t.Errorf("granted after %v ms, want 4", got)
	}
	if got := granted(lab.Report{Zero: zero, After: "db2"}); got != report.Missing {
		t.Errorf("without a grant: %v", got)
	}
}
