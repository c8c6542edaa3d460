package report

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLostRunsAreReadAsTheyWereKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lost.csv")
	if lost, err := ReadLost(path); err != nil || len(lost) > 0 {
		t.Fatalf("no file: %v %v", lost, err)
	}
	want := []Lost{{At: time.Unix(1764300000, 0).UTC(), System: "a", Scenario: "killed", Cause: NotStarted, Text: `start: "x", y`},
		{At: time.Unix(1764300001, 0).UTC(), System: "b", Scenario: "planned", Cause: NotMeasured}}
	for _, l := range want {
		if err := AppendLost(path, l); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := ReadLost(path); err != nil || !slices.Equal(got, want) {
		t.Errorf("read %+v, kept %+v: %v", got, want, err)
	}
}

func TestTheTableSaysWhatDidNotComeAbout(t *testing.T) {
	runs := append(some("a", "killed", 5, 6, 7), some("b", "killed", 8)...)
	runs[1].Moved = false
	lost := []Lost{{System: "a", Scenario: "killed", Cause: NotStarted}, {System: "a", Scenario: "killed", Cause: NotStarted},
		{System: "b", Scenario: "killed", Cause: NotMeasured}, {System: "c", Scenario: "killed", Cause: NotStarted},
		{System: "c", Scenario: "hung", Cause: NotStarted}}
	var b strings.Builder
	if err := WriteTable(&b, runs, lost); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| killed | 6.0 (5.0 to 7.0), n=3; 1 of 3 did not move, 2 did not start | 8.0 (8.0 to 8.0), n=1; 1 not measured | 1 did not start |",
		"| hung |  |  | 1 did not start |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
	var calm strings.Builder
	if err := WriteTable(&calm, some("a", "killed", 5), nil); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(calm.String(), "| killed | 5.0 (5.0 to 5.0), n=1 |") {
		t.Errorf("nothing failed:\n%s", calm.String())
	}
}
