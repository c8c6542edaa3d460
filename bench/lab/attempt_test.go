package lab

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func try(start, end int, r Result, server string) Attempt {
	return Attempt{Start: moment(start), End: moment(end), Result: r, Server: server}
}

func TestSummarize(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name     string
		attempts []Attempt
		want     Stats // from 100 ms to 200 ms
	}{
		{"nothing at all is one gap", nil, Stats{Gap: 100 * ms, GapStart: moment(100), GapEnd: moment(200)}},
		{"a takeover", []Attempt{
			try(98, 99, Answered, "a"), // before the stretch
			try(100, 101, Answered, "a"), try(120, 121, Answered, "a"),
			try(122, 123, Refused, ""), try(124, 125, Reset, ""),
			try(160, 162, Answered, "b"), try(180, 181, Answered, "b"),
			try(130, 230, TimedOut, ""), // ends after the stretch and counts: it began inside
		}, Stats{Attempts: 7, Failed: 3, Failures: map[Result]int{Refused: 1, Reset: 1, TimedOut: 1},
			Gap: 41 * ms, GapStart: moment(121), GapEnd: moment(162), Longest: 100 * ms, Median: ms, Servers: []string{"a", "b"}}},
		{"an answer that began before the stretch ends the gap", []Attempt{
			try(10, 150, Answered, "b")},
			Stats{Gap: 50 * ms, GapStart: moment(100), GapEnd: moment(150), Servers: []string{"b"}}},
		{"answers out of order", []Attempt{
			try(110, 190, Answered, "b"), try(111, 140, Answered, "a"), try(112, 180, Answered, "b")},
			Stats{Attempts: 3, Gap: 40 * ms, GapStart: moment(100), GapEnd: moment(140), Longest: 80 * ms, Median: 68 * ms,
				Servers: []string{"a", "b"}}},
		{"pending attempts count as waiting", []Attempt{
			try(110, 120, Answered, "a"), try(115, 195, Pending, "")},
			Stats{Attempts: 2, Pending: 1, Gap: 80 * ms, GapStart: moment(120), GapEnd: moment(200), Longest: 80 * ms,
				Median: 10 * ms, Servers: []string{"a"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Summarize(tt.attempts, moment(100), moment(200))
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestMedianOf(t *testing.T) {
	for _, tt := range []struct {
		in   []time.Duration
		want time.Duration
	}{{nil, 0}, {[]time.Duration{7}, 7}, {[]time.Duration{9, 1}, 5}, {[]time.Duration{9, 1, 4}, 4}} {
		if got := medianOf(tt.in); got != tt.want {
			t.Errorf("medianOf(%v) = %v, want %v", tt.in, got, tt.want)
		}
	}
}
