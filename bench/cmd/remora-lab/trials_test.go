package main

import (
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
	"github.com/remora-ha/remora/bench/report"
)

// The node that learns first of the last grant counts, not the new owner's late copy of it, nor somebody's of an earlier one.
func TestCommittedIsWhenTheFirstNodeKnew(t *testing.T) {
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
	if got := committed(r); got != 4 {
		t.Errorf("committed after %v ms, want 4", got)
	}
	if got := committed(lab.Report{Zero: zero, After: "db2"}); got != report.Missing {
		t.Errorf("without a grant: %v", got)
	}
}

// What a node has measured by its own clock is put beside what was seen from outside by a line of that node's log.
func TestMomentsThatOnlyTheDaemonsRemember(t *testing.T) {
	zero := time.Now()
	line := func(after time.Duration, node, what string, epoch float64) lab.Event {
		return lab.Event{Time: zero.Add(after), Node: node, What: what, Attrs: map[string]any{"owner": "db2", "epoch": epoch}}
	}
	const ms = time.Millisecond
	r := lab.Report{Zero: zero, Before: "db1", After: "db2", Events: []lab.Event{
		line(-3*ms, "db3", "grant committed", 7), // before the fault
		line(1*ms, "db2", "announced", 6),        // of an epoch before
		line(4*ms, "db3", "grant committed", 7),
		line(5*ms, "db2", "grant committed", 7),
		line(9*ms, "db2", "announced", 7),
	}}
	var last lab.Takeover
	last.Epoch, last.Node = 7, "db2"
	last.Trace.Pieces = []lab.TracePiece{
		{Node: "db1", Marks: []lab.TraceMark{{Name: "giving_up", US: 0}, {Name: "unbound", US: 500}, {Name: "granted", US: 9000}}},
		{Node: "db3", Marks: []lab.TraceMark{{Name: "release_came", US: 0}, {Name: "proposed", US: 100}, {Name: "granted", US: 1600}}},
		{Node: "db2", Marks: []lab.TraceMark{{Name: "granted", US: 0}, {Name: "bind_begun", US: 100}, {Name: "bound", US: 2000}, {Name: "fence_open", US: 2500},
			{Name: "announced", US: 3000}}},
	}
	if proposed, granted, open := recalled(r, last); proposed != 2.5 || granted != 6 || open != 8.5 {
		t.Errorf("proposed %v, granted %v, fence open %v, want 2.5, 6 and 8.5 ms", proposed, granted, open)
	}
	attempt := func(end time.Duration, result lab.Result, server string) lab.Attempt {
		return lab.Attempt{Start: zero, End: zero.Add(end), Result: result, Server: server}
	}
	at := phases(r, last, []lab.Attempt{attempt(-ms, lab.Answered, "db2"), attempt(2*ms, lab.Answered, "db1"), attempt(5*ms, lab.Reset, "db2"),
		attempt(12*ms, lab.Answered, "db2"), attempt(11*ms, lab.Answered, "db2")})
	if at[2] != 2.5 || at[3] != 4 || at[4] != 6 || at[6] != 8.5 || at[8] != 11 {
		t.Errorf("phases %v of %v", at, report.PhaseNames())
	}
	for name, last := range map[string]lab.Takeover{"nothing": {}, "another epoch": {Epoch: 8, Node: "db2", Trace: last.Trace}} {
		if proposed, granted, open := recalled(r, last); proposed != report.Missing || granted != report.Missing || open != report.Missing {
			t.Errorf("%s remembered: proposed %v, granted %v, fence open %v", name, proposed, granted, open)
		}
	}
}
