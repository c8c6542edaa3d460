package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
	"github.com/remora-ha/remora/bench/peers"
	"github.com/remora-ha/remora/bench/report"
)

// inert is a system that moves no address.
type inert struct {
	peers.System
	start, settle error
}

func (inert) Name() string                   { return "inert" }
func (s inert) Start(context.Context) error  { return s.start }
func (inert) Stop(context.Context) error     { return nil }
func (s inert) Settle(context.Context) error { return s.settle }
func (inert) Config() string                 { return "" }
func (inert) Patience() time.Duration        { return 20 * time.Millisecond }

// turn has a system take its turn in two scenarios, in which nothing happens, and returns the runs that were kept and
// those that were lost.
func turn(t *testing.T, l *lab.Lab, s inert) (runs []report.Run, lost []report.Lost, err error) {
	t.Helper()
	dir := t.TempDir()
	b := &session{lab: l, out: dir, progress: io.Discard, total: 2, begun: time.Now()}
	var jobs []job
	for _, name := range []string{"first", "second"} {
		jobs = append(jobs, job{0, contender{System: s}, trial{name: name,
			act: func(context.Context, *lab.Lab, peers.System, string) error { return nil }}})
	}
	err = b.takeTurn(t.Context(), jobs)
	if s.start == nil {
		var bad error
		if runs, bad = report.Read(filepath.Join(dir, runsFile)); bad != nil {
			t.Fatal(bad)
		}
	}
	lost, bad := report.ReadLost(filepath.Join(dir, lostFile))
	if bad != nil {
		t.Fatal(bad)
	}
	return runs, lost, err
}

// What was measured is kept, and what was not is not passed over.
func TestRunsWithoutAWayBackAreKeptAndThoseAfterThemAreLost(t *testing.T) {
	l := newLab(t)
	if _, err := l.StartStream(lab.StreamOptions{Timeout: 50 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken\nand more")

	runs, lost, err := turn(t, l, inert{})
	if err != nil || len(runs) != 2 || len(lost) != 0 {
		t.Errorf("all is well: kept %+v, lost %+v: %v", runs, lost, err)
	}
	runs, lost, err = turn(t, l, inert{settle: broken})
	if !errors.Is(err, broken) || len(runs) != 1 || runs[0].Scenario != "first" || runs[0].Moved {
		t.Errorf("no way back: kept %+v: %v", runs, err)
	}
	if len(lost) != 1 || lost[0].Scenario != "second" || lost[0].Cause != report.NotMeasured || !strings.HasSuffix(lost[0].Text, "broken") {
		t.Errorf("no way back: lost %+v", lost)
	}
	_, lost, err = turn(t, l, inert{start: broken})
	if !errors.Is(err, broken) || len(lost) != 2 || lost[0].Cause != report.NotStarted || lost[1].Scenario != "second" {
		t.Errorf("no start: lost %+v: %v", lost, err)
	}
}
