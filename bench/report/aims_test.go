package report

import (
	"slices"
	"strings"
	"testing"
)

// asAimed are runs that meet each aim, by little.
func asAimed() (runs []Run) {
	for _, p := range []struct {
		system       string
		hung, vanish float64
	}{{"remora-lan", 300, 280}, {"remora-fast", 120, 50}} {
		runs = append(runs, some(p.system, hung, p.hung, 1000, 1)...)
		runs = append(runs, some(p.system, "node-vanished", p.vanish)...)
		runs = append(runs, some(p.system, "node-vanished-leader", 2*p.vanish)...)
		for _, sc := range []string{"daemon-frozen", "parted"} {
			for _, r := range some(p.system, sc, 90, 90) {
				r.Double = 0
				runs = append(runs, r)
			}
		}
	}
	return runs
}

func TestAimsHoldByThemselves(t *testing.T) {
	if err := CheckAims(asAimed()); err != nil {
		t.Fatalf("what meets each aim: %v", err)
	}
	with := func(runs ...Run) []Run { return append(asAimed(), runs...) }
	twice := some("remora-fast", "parted", 20)[0]
	twice.Double = 0.5
	for name, tt := range map[string]struct {
		runs []Run
		want string
	}{
		"a hang seen late":               {with(some("remora-lan", hung, 301, 301, 301, 301, 301, 301, 301, 301)...), "remora-lan mysqld-hung: the median gap is 301.0 ms, the aim is 300 ms"},
		"hangs seen late by chance":      {with(some("remora-lan", hung, 301, 301, 301)...), ""},
		"hangs that are mostly not seen": {with(some("remora-lan", hung, 900, 900)...), "remora-lan mysqld-hung: the median gap is 900.0 ms"},
		"the leader's node":              {with(some("remora-fast", "node-vanished-leader", 101, 101)...), "remora-fast node-vanished-leader: the median gap is 101.0 ms, more than 2 times the 50.0 ms"},
		"one double answer":              {with(twice), "remora-fast parted: two nodes answered for the address for 0.5 ms"},
		"keepalived's are its own":       {with(Run{System: Baseline, Scenario: "parted", Double: 350}), ""},
	} {
		err := CheckAims(tt.runs)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	for _, sc := range Scenarios(asAimed()) {
		rest := slices.DeleteFunc(asAimed(), func(r Run) bool { return r.Scenario == sc && r.System == "remora-lan" })
		if err := CheckAims(rest); err == nil || !strings.Contains(err.Error(), "remora-lan "+sc+": was not measured") {
			t.Errorf("without %s: %v", sc, err)
		}
	}
}

// Of five runs all must be late, of fifteen twelve (the sign test's table, one-sided, 5 %).
func TestLateHangsBeyondChance(t *testing.T) {
	for _, tt := range []struct {
		n, over int
		want    bool
	}{{1, 1, true}, {3, 2, true}, {4, 2, false}, {5, 4, false}, {5, 5, true}, {8, 6, false}, {8, 7, true}, {15, 11, false}, {15, 12, true}} {
		var runs []Run
		for i := range tt.n {
			gap := 100.0
			if i < tt.over {
				gap = 130
			}
			runs = append(runs, some("remora-fast", hung, gap)...)
		}
		if got := beyond(runs, "remora-fast", 120); got != tt.want {
			t.Errorf("%d of %d late: %t, want %t", tt.over, tt.n, got, tt.want)
		}
	}
}

// A gap that depends on when in its round keepalived's script asks is not what Remora's is measured by.
func TestAHangHasNoRatio(t *testing.T) {
	runs := append(some("remora-lan", hung, 280), some(Baseline, hung, 1600)...)
	if got := Ratios(runs); len(got) != 0 {
		t.Errorf("ratios: %v", got)
	}
}
