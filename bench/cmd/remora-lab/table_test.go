package main

import (
	"strings"
	"testing"
	"time"
)

// runs returns samples with these gaps, in milliseconds; each longest wait is half the gap.
func runs(failed int, gaps ...int) []sample {
	var ss []sample
	for _, g := range gaps {
		d := time.Duration(g) * time.Millisecond
		ss = append(ss, sample{Gap: d, Longest: d / 2, Failed: failed, Total: 100})
	}
	return ss
}

func TestJudge(t *testing.T) {
	calm := result{Name: undisturbed, Samples: runs(0, 4, 8, 6)}
	limit := 25 * time.Millisecond
	tests := []struct {
		name string
		r    result
		want string // part of the error; empty: none
	}{
		{"the median counts, not the greatest", result{Name: "x", Limit: limit, Samples: runs(3, 10, 25, 900)}, ""},
		{"too long", result{Name: "x", Limit: limit, Samples: runs(0, 10, 26, 27)}, "median gap is 26.0 ms"},
		{"never came about", result{Name: "x", Limit: limit, Missed: 3}, "not one run"},
		{"need not come about", result{Name: "x", Limit: limit, Optional: true, Missed: 3}, ""},
		{"no impact", result{Name: "x", NoImpact: true, Samples: runs(0, 8, 10, 300)}, ""},
		{"one failed connection", result{Name: "x", NoImpact: true, Samples: runs(1, 8, 8)}, "connections failed"},
		{"slower than undisturbed", result{Name: "x", NoImpact: true, Samples: runs(0, 20, 22, 24)}, "longest wait"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := judge([]result{calm, tt.r}, true)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("judge = %v, want %q", err, tt.want)
			}
			if err := judge([]result{calm, tt.r}, false); err != nil {
				t.Errorf("without --check: %v", err)
			}
		})
	}
}

func TestWriteTable(t *testing.T) {
	var b strings.Builder
	results := []result{{Title: "a fault", Limit: time.Second, Samples: runs(1, 10, 30)}, {Title: "another", Missed: 2}}
	if err := writeTable(&b, results, gapOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"20.0", "10.0", "30.0", "<= 1000.0", "10.0 / 15.0", "2 of 200", "did not come about"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
}

func TestLastLines(t *testing.T) {
	for in, want := range map[string]string{"": "", "a\n": "a", "a\nb\nc\n": "b\nc"} {
		if got := string(lastLines([]byte(in), 2)); got != want {
			t.Errorf("lastLines(%q) = %q, want %q", in, got, want)
		}
	}
}
