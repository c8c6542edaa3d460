package report

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// some makes runs of a system in a scenario with the given gaps.
func some(system, scenario string, gaps ...float64) (runs []Run) {
	for _, g := range gaps {
		runs = append(runs, Run{System: system, Scenario: scenario, Moved: true, Gap: g, Longest: g, Double: Missing,
			At: time.Unix(1764300000, 0).UTC(), Last: Missing, Reconnect: 2 * g, Pool: Missing,
			Phases: [Moments]float64{1, 2, 2.5, 3, Missing, 4, 4.5, 5, g}})
	}
	return runs
}

func TestRunsAreReadAsTheyWereKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runs.csv")
	want := append(some("remora-lan", "killed", 9.125, 8), some(Baseline, "killed", 5)...)
	for _, r := range want {
		if err := Append(path, r); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(path)
	if err != nil || len(got) != len(want) {
		t.Fatalf("read %d runs of %d: %v", len(got), len(want), err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("run %d: read %+v, kept %+v", i, got[i], want[i])
		}
	}
}

// A file that was written before has less, and keeps it when it goes on.
func TestFilesOfBeforeAreReadAndGoOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runs.csv")
	former := "at,system,scenario,moved,gap_ms,longest_ms,double_ms,addresses,last_ms,reconnect_ms,pool_ms,frames,failed,connections," +
		"detected,unbound,granted,bound,announced,answered\n" +
		"2025-11-28T03:20:00Z,remora-lan,killed,true,9.000,9.000,-1.000,0,-1.000,18.000,-1.000,0,0,0,1.000,2.000,3.000,4.000,5.000,9.000\n"
	if err := os.WriteFile(path, []byte(former), 0o600); err != nil {
		t.Fatal(err)
	}
	was := some("remora-lan", "killed", 9)[0]
	was.Phases = [Moments]float64{1, 2, Missing, 3, Missing, 4, Missing, 5, 9}
	if got, err := Read(path); err != nil || len(got) != 1 || got[0] != was {
		t.Fatalf("read %+v, want %+v: %v", got, was, err)
	}
	next := some(Baseline, "killed", 5)[0]
	if err := Append(path, next); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(path); err != nil || len(got) != 2 || got[0] != was || got[1] != next {
		t.Errorf("read %+v, want %+v and %+v: %v", got, was, next, err)
	}
	left, err := filepath.Glob(path + "?*")
	if err != nil || len(left) > 0 {
		t.Errorf("left beside the file: %v %v", left, err)
	}
}

func TestReadRefusesAnotherTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runs.csv")
	if err := os.WriteFile(path, []byte("a,b\n1,2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if runs, err := Read(path); err == nil {
		t.Errorf("read %v", runs)
	}
}

func TestManyAddressesHaveATableWithTheirGrowth(t *testing.T) {
	var runs []Run
	for n, last := range map[int]float64{10: 8, 100: 20} {
		r := some("remora-lan", CrowdScenario(n), 5)[0]
		r.Addresses, r.Last = n, last
		runs = append(runs, r)
	}
	lost := runs[0]
	lost.Last = Missing
	var b strings.Builder
	if err := WriteTable(&b, append(runs, lost), nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| 10 | 8.0", "| 100 | 20.0", "| 100 against 10 | x 2.5 |", "1 did not end in time"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
}

func TestTheBriefTableHasAllSystemsAndScenarios(t *testing.T) {
	runs := append(some("remora-lan", "killed", 10, 30), some(Baseline, "hung", 5)...)
	var b strings.Builder
	if err := WriteBrief(&b, runs); err != nil {
		t.Fatal(err)
	}
	want := "| client's gap, median, ms | remora-lan | keepalived-10ms |\n|---|---|---|\n| killed | 20.0 |  |\n| hung |  | 5.0 |\n"
	if b.String() != want {
		t.Errorf("printed\n%s, want\n%s", b.String(), want)
	}
}

func TestSummaryIsMedianAndExtremesOfWhatWasSeen(t *testing.T) {
	runs := append(some("a", "s", 4, 1, 9, 2), some("a", "other", 100)...)
	runs = append(runs, some("b", "s", 50)...)
	if got, want := Summarize(runs, "a", "s", gap), (Summary{N: 4, Median: 3, Min: 1, Max: 9}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := Summarize(runs, "a", "s", func(r Run) float64 { return r.Double }); got != (Summary{}) {
		t.Errorf("what was never seen is summed up as %+v", got)
	}
}

func TestVerdictsNameWhatIsSlower(t *testing.T) {
	runs := append(some("remora-lan", "killed", 10), some(Baseline, "killed", 5)...)
	runs = append(runs, append(some("remora-lan", "hung", 100), some(Baseline, "hung", 200)...)...)
	text := strings.Join(Verdicts(runs), "\n")
	for _, want := range []string{"killed, remora-lan: SLOWER", "ratio 2.00", "hung, remora-lan: faster"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}

// keepalived's best for a server that hangs is another one than for one that was killed.
func TestVerdictsCompareWithKeepalivedAtItsBest(t *testing.T) {
	var runs []Run
	for system, gaps := range map[string][2]float64{"remora-lan": {8, 280}, "keepalived-1s": {2000, 3000}, Baseline: {9, 1600},
		"keepalived-10ms-check": {10, 130}, "ucarp-fast": {1, 1}} {
		runs = append(append(runs, some(system, "killed", gaps[0])...), some(system, "hung", gaps[1])...)
	}
	text := strings.Join(Verdicts(runs), "\n")
	for _, want := range []string{"killed, remora-lan: faster than keepalived-10ms: 8.0 against 9.0 ms, ratio 0.89",
		"hung, remora-lan: SLOWER than keepalived-10ms-check: 280.0 against 130.0 ms, ratio 2.15"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}

func TestCheckFailsOnALossAndOnAMissingScenarioOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "baseline.json")
	before := append(some("remora-lan", "killed", 10), some(Baseline, "killed", 10)...)
	if err := Record(path, before, "a machine"); err != nil {
		t.Fatal(err)
	}
	slowMachine := append(some("remora-lan", "killed", 30), some(Baseline, "killed", 30)...)
	if err := Check(path, slowMachine); err != nil {
		t.Errorf("a machine that is slower for both: %v", err)
	}
	loss := append(some("remora-lan", "killed", 20), some(Baseline, "killed", 10)...)
	if err := Check(path, loss); err == nil {
		t.Error("twice the ratio passes")
	}
	tiny := append(some("remora-lan", "killed", 2), some(Baseline, "killed", 1)...)
	if err := Check(path, tiny); err != nil {
		t.Errorf("one millisecond more: %v", err)
	}
	if err := Check(path, some(Baseline, "killed", 10)); err == nil {
		t.Error("a scenario that was not run passes")
	}
}

func TestTheRecordSaysWhenAndOnWhat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "baseline.json")
	runs := append(some("remora-lan", "killed", 10, 10, 10), some(Baseline, "killed", 10, 10)...)
	runs = append(runs, some(Baseline, "hung", 10)...) // which no ratio rests on
	if err := Record(path, runs, "a machine"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"date": "2025-11-28"`, `"runs": 2`, `"machine": "a machine"`, `"remora-lan killed": 1`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing in %s", want, text)
		}
	}
	if err := os.WriteFile(path, []byte(`{"remora-lan killed": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Check(path, runs); err == nil || !strings.Contains(err.Error(), "make bench-baseline") {
		t.Errorf("a file without a record: %v", err)
	}
}

func TestStepsAddUpToTheLastMoment(t *testing.T) {
	runs := some("remora-lan", "killed", 9)
	sum := 0.0
	for i := range PhaseNames() {
		sum += Step(runs, "remora-lan", "killed", i).Median
	}
	if sum != 9 {
		t.Errorf("the steps add up to %v, the answer came at 9", sum)
	}
}

func TestPlotsAreDrawn(t *testing.T) {
	dir := t.TempDir()
	runs := append(some("remora-lan", "mysqld-killed", 9, 10), some(Baseline, "mysqld-killed", 5)...)
	runs = append(append(runs, some("remora-fast", hung, 100)...), parted()...)
	if err := Plots(dir, runs); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"gap.svg": "mysqld-killed", "phases-remora-lan.svg": "mysqld-killed", "phases-long-remora-fast.svg": hung} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(text), "<svg") || !strings.Contains(string(text), want) {
			t.Errorf("%s: no plot of %s: %v", name, want, err)
		}
		if stars := strings.Count(string(text), ">*</text>"); (stars > 0) != (name == "gap.svg") {
			t.Errorf("%s has %d stars", name, stars)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "phases-long-remora-lan.svg")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a plot of scenarios that were not run: %v", err)
	}
}

// parted are runs in which keepalived's owner goes on, and Remora's does not.
func parted() []Run {
	runs := append(some("remora-lan", "parted", 46, 46), some(Baseline, "parted", 3.5, 3.5)...)
	for i, ms := range []float64{0, 0, 0, 351} {
		runs[i].Double = ms
	}
	return runs
}

// A gap that looks short because the old owner answers beside the new one must not pass for a quick takeover.
func TestWhereTwoNodesAnswerIsMarked(t *testing.T) {
	const note = "Two nodes answer: the old owner goes on"
	runs := append(parted(), some(Baseline, "killed", 5)...)
	var table, brief strings.Builder
	if err := errors.Join(WriteTable(&table, runs, nil), WriteBrief(&brief, runs)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ text, want string }{
		{table.String(), "| parted | 46.0 (46.0 to 46.0), n=2 | 3.5 (3.5 to 3.5), n=2 \\* |\n| killed |  | 5.0 (5.0 to 5.0), n=1 |\n\n\\* " + note},
		{table.String(), "parted, remora-lan: SLOWER than keepalived-10ms: 46.0 against 3.5 ms, ratio 13.14, where two nodes answer\n"},
		{brief.String(), "| parted | 46.0 | 3.5 \\* |\n| killed |  | 5.0 |\n| parted: two nodes answer, at most | 0.0 | 351.0 |\n\n\\* " + note},
	} {
		if !strings.Contains(tt.text, tt.want) {
			t.Errorf("%q is missing in:\n%s", tt.want, tt.text)
		}
	}
	table.Reset()
	if err := WriteTable(&table, some("remora-lan", "parted", 46), nil); err != nil || strings.Contains(table.String(), `\*`) {
		t.Errorf("stars where nobody looked (%v):\n%s", err, table.String())
	}
}

// Where a group is handed over the grant comes before the old owner gives up.
func TestStepsOfAHandover(t *testing.T) {
	run := Run{System: "remora-lan", Scenario: "planned", Gap: 3, Phases: [Moments]float64{9, 9.5, 7, 8, 8.5, 10, Missing, 10.5, 12}}
	want := []float64{1, 0.5, 7, 1, 0, 0.5, 0, 0.5, 1.5}
	for i, name := range PhaseNames() {
		if got := Step([]Run{run}, "remora-lan", "planned", i).Median; got != want[i] {
			t.Errorf("%s took %v, want %v", name, got, want[i])
		}
	}
}
