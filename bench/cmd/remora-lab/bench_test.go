package main

import (
	"slices"
	"testing"

	"github.com/remora-ha/remora/bench/report"
)

func TestTheQuickSetHasKeepalivedAtItsBest(t *testing.T) {
	jobs, err := benchOptions{runs: 1}.plan(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	has := func(system, scenario string) bool {
		return slices.ContainsFunc(jobs, func(j job) bool { return j.system.Name() == system && j.trial.name == scenario })
	}
	const checked = "keepalived-10ms-check" // which knows soonest of a server that hangs
	for _, system := range []string{"remora-lan", "remora-fast", report.Baseline, checked} {
		for _, scenario := range []string{"mysqld-killed", "planned", "mysqld-hung", "node-vanished"} {
			if !has(system, scenario) {
				t.Errorf("%s, %s is missing", system, scenario)
			}
		}
		if got, want := has(system, report.CrowdScenario(100)), system != checked; got != want {
			t.Errorf("%s with a hundred addresses: %t, want %t", system, got, want)
		}
	}
	if has("keepalived-100ms", "mysqld-killed") || has("remora-lan", report.CrowdScenario(1000)) || has(report.Baseline, "node-vanished-leader") {
		t.Error("the quick set has what is not for it")
	}
}

// The floor is there for the kinds of takeover that an oracle makes sense of, and only for them.
func TestTheQuickSetHasTheFloor(t *testing.T) {
	jobs, err := benchOptions{runs: 1}.plan(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, j := range jobs {
		if j.system.Name() == "floor" {
			got = append(got, j.trial.name)
		}
	}
	if want := []string{"mysqld-killed", "mysqld-stopped", "planned", "node-vanished"}; !slices.Equal(got, want) {
		t.Errorf("the floor is put through %v, want %v", got, want)
	}
}

// A clean shutdown is for all systems, as a crash is.
func TestAllSystemsHaveTheirServersStopped(t *testing.T) {
	for _, all := range []bool{false, true} {
		jobs, err := benchOptions{runs: 1, all: all}.plan(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		killed, stopped := []string{}, []string{}
		for _, j := range jobs {
			switch j.trial.name {
			case "mysqld-killed":
				killed = append(killed, j.system.Name())
			case "mysqld-stopped":
				stopped = append(stopped, j.system.Name())
			}
		}
		if len(stopped) == 0 || !slices.Equal(stopped, killed) {
			t.Errorf("all %t: mysqld-stopped with %v, mysqld-killed with %v", all, stopped, killed)
		}
	}
}

// A measurement that goes on does what is missing, and interleaves that too.
func TestRunsThatAreThereAreNotRepeated(t *testing.T) {
	o := benchOptions{runs: 2, systems: []string{"remora-lan", report.Baseline}, only: []string{"mysqld-killed", "planned"}}
	jobs, err := o.plan(nil, []report.Run{{System: "remora-lan", Scenario: "planned"}, {System: report.Baseline, Scenario: "planned"},
		{System: report.Baseline, Scenario: "planned"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, j := range jobs {
		got = append(got, j.system.Name()+" "+j.trial.name)
	}
	want := []string{"remora-lan mysqld-killed", "keepalived-10ms mysqld-killed",
		"remora-lan mysqld-killed", "remora-lan planned", "keepalived-10ms mysqld-killed"}
	if !slices.Equal(got, want) {
		t.Errorf("to be done: %v, want %v", got, want)
	}
}

func TestNamesThatDoNotExistAreRefused(t *testing.T) {
	for _, o := range []benchOptions{{runs: 1, systems: []string{"remora"}}, {runs: 1, only: []string{"killed"}}} {
		if jobs, err := o.plan(nil, nil); err == nil {
			t.Errorf("%v %v: %d jobs", o.systems, o.only, len(jobs))
		}
	}
}

// MHA takes minutes: it runs where it is named, or with everything, and in the scenarios that it has an answer to.
func TestMHARunsWhereItIsNamed(t *testing.T) {
	for _, tt := range []struct {
		o    benchOptions
		want []string
	}{
		{benchOptions{runs: 1}, nil},
		{benchOptions{runs: 1, all: true}, []string{"mysqld-killed", "mysqld-stopped", "planned", "node-vanished"}},
		{benchOptions{runs: 1, systems: []string{"mha"}, only: []string{"planned", "mysqld-hung"}}, []string{"planned"}},
	} {
		jobs, err := tt.o.plan(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, j := range jobs {
			if j.system.mha {
				got = append(got, j.trial.name)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%+v: MHA is put through %v, want %v", tt.o, got, tt.want)
		}
	}
}
