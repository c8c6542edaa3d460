package main

import "testing"

func TestBusyProcessors(t *testing.T) {
	before, err := parseCPU("cpu  100 0 100 1000 50 0 0 10 0 0")
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseCPU("cpu  160 5 120 1004 51 3 2 15 60 0")
	if err != nil {
		t.Fatal(err)
	}
	if got := after.percentSince(before); got != 95 { // 95 of 100 ticks; those of guests are not counted again
		t.Errorf("busy for %v percent", got)
	}
	if got := after.percentSince(after); got != 0 {
		t.Errorf("busy for %v percent of no time", got)
	}
	for _, line := range []string{"", "cpu 1 2 3", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7 x"} {
		if _, err := parseCPU(line); err == nil {
			t.Errorf("%q was read", line)
		}
	}
}
