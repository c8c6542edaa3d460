package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-ha/remora/bench/peers"
)

// seenForTest is a calm span of one system and a loaded one of two, cut off after 90 s.
func seenForTest() []watched {
	begin := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	calm := span{name: "calm", planned: time.Minute, from: begin, to: begin.Add(time.Minute + 3*time.Millisecond), busy: 12.4}
	load := span{name: "load", planned: 30 * time.Minute, from: begin, to: begin.Add(90 * time.Second), busy: 99.6}
	after := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	return []watched{
		{span: calm, system: "remora-lan", tells: true, gap: 20 * time.Millisecond},
		{span: load, system: "remora-lan", tells: true, moves: 1, double: 2 * time.Millisecond, unowned: 62 * time.Millisecond,
			losses: []peers.Incident{{Time: after(1500), Node: "db1", Reason: "the lease has run out"}, {Time: after(4000), Node: "db2", Reason: "why not"}},
			alarms: []peers.Incident{{Time: after(1400), Node: "db3", Reason: "no answer"}}},
		{span: load, system: "ucarp-1s", err: errors.New("ucarp-1s: events are missing")},
	}
}

func TestLoadTable(t *testing.T) {
	want := `a machine

| | span | processors busy | false moves | times given up | false alarms | two nodes had it | none had it, longest | client's gap |
|---|---|---|---|---|---|---|---|---|
| remora-lan, calm | 1m0s | 12 % | 0 | 0 | 0 | 0.0 ms | 0.0 ms | 20.0 ms |
| remora-lan, load | 1m30s of 30m0s | 100 % | 1 | 2 | 1 | 2.0 ms | 62.0 ms | 0.0 ms |
| ucarp-1s, load | 1m30s of 30m0s | 100 % | 0 | 0 |  | 0.0 ms | 0.0 ms | 0.0 ms |

Why, as the logs have it:

- remora-lan, load, given up after 1.5s, db1: the lease has run out
- remora-lan, load, given up after 4s, db2: why not
- remora-lan, load, false alarm after 1.4s, db3: no answer
- load: ucarp-1s: events are missing
`
	if d := cmp.Diff(want, loadTable("a machine", seenForTest())); d != "" {
		t.Errorf("the table (-want +got):\n%s", d)
	}
	if got := loadTable("a machine", seenForTest()[:1]); strings.Contains(got, "Why") {
		t.Errorf("reasons of nothing:\n%s", got)
	}
}

func TestLoadProgress(t *testing.T) {
	want := "load, 1m30s of 30m0s: given up: remora-lan 2 (false alarms 1), ucarp-1s 0"
	if got := soFar(seenForTest()[1:]); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestJudgeLoad(t *testing.T) {
	once := []peers.Incident{{Node: "db1"}}
	tests := []struct {
		w    watched
		want bool
	}{
		{watched{system: "remora-lan", losses: once}, true},
		{watched{system: "remora-fast", losses: once}, false},
		{watched{system: "keepalived-10ms", losses: once, alarms: once}, false},
		{watched{system: "remora-lan", alarms: once}, true},
		{watched{system: "remora-fast", alarms: once}, true},
		{watched{system: "remora-lan", moves: 1}, false}, // nobody gives up without a loss
	}
	for _, tt := range tests {
		if err := judgeLoad([]watched{{system: "remora-lan"}, tt.w}); (err != nil) != tt.want {
			t.Errorf("%s, %d losses, %d alarms: %v", tt.w.system, len(tt.w.losses), len(tt.w.alarms), err)
		}
	}
}
