package peers

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-ha/remora/bench/lab"
)

// keepalivedLog is of a real one: a script that took too long, a peer of a higher priority, a server that was killed.
const keepalivedLog = `Sun Nov 29 14:38:18 2026: Running on Linux 6.18.44
Sun Nov 29 14:38:18 2026: (vip) Entering BACKUP STATE
Sun Nov 29 14:38:20 2026: (vip) Entering MASTER STATE
Sun Nov 29 14:38:21 2026: VRRP_Script(server) timed_out
Sun Nov 29 14:38:21 2026: (vip) Entering FAULT STATE
Sun Nov 29 14:38:23 2026: (vip) Entering MASTER STATE
a line without a time
Sun Nov 29 14:38:31 2026: (vip) Master received advert from 10.77.0.11 with higher priority 110, ours 109
Sun Nov 29 14:38:31 2026: (vip) Entering BACKUP STATE
Sun Nov  1 00:00:01 2026: Quorum lost for tracked process mariadbd
Sun Nov  1 00:00:02 2026: (vip) Entering FAULT STATE
`

func keepalivedLines(t *testing.T) []logLine {
	t.Helper()
	var lines []logLine
	for _, text := range strings.Split(strings.TrimSuffix(keepalivedLog, "\n"), "\n") {
		if l, ok := parseKeepalived(text); ok {
			lines = append(lines, l)
		}
	}
	if len(lines) != 10 {
		t.Fatalf("%d lines were read, want all but one of 11", len(lines))
	}
	return lines
}

func clock(day, hour, minute, second int) time.Time {
	return time.Date(2026, 11, day, hour, minute, second, 0, time.Local)
}

func TestKeepalivedFaults(t *testing.T) {
	lines := keepalivedLines(t)
	want := []Incident{{clock(29, 14, 38, 21), "db1", "VRRP_Script(server) timed_out"},
		{clock(1, 0, 0, 2), "db1", "no reason is logged"}}
	if d := cmp.Diff(want, faults(lines, "db1", clock(1, 0, 0, 0), clock(30, 0, 0, 0))); d != "" {
		t.Errorf("the whole log (-want +got):\n%s", d)
	}
	if got := faults(lines, "db1", clock(29, 14, 38, 22), clock(30, 0, 0, 0)); len(got) > 0 {
		t.Errorf("after the fault: %v", got)
	}
	if got := faults(lines, "db1", clock(2, 0, 0, 0), clock(29, 14, 38, 20)); len(got) > 0 {
		t.Errorf("before the fault: %v", got)
	}
}

func TestKeepalivedWhy(t *testing.T) {
	lines := keepalivedLines(t)
	for _, tt := range []struct {
		at   time.Time
		want string
	}{
		{clock(29, 14, 38, 31).Add(900 * time.Millisecond),
			"(vip) Master received advert from 10.77.0.11 with higher priority 110, ours 109; (vip) Entering BACKUP STATE"},
		{clock(29, 14, 38, 24).Add(time.Millisecond), "(vip) Entering MASTER STATE"},
		{clock(29, 14, 38, 30), ""},
	} {
		if got := saidAt(lines, tt.at); got != tt.want {
			t.Errorf("at %v: %q, want %q", tt.at, got, tt.want)
		}
	}
}

func TestWhyADaemonGaveUp(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	ev := func(ms int, node, what, why string) lab.Event {
		return lab.Event{Time: at(ms), Node: node, What: what, Attrs: map[string]any{"reason": why}}
	}
	early, late := ev(10, "db1", "giving up", "a"), ev(30, "db1", "giving up", "b")
	tests := []struct {
		name   string
		events []lab.Event
		want   string
	}{
		{"nothing", nil, ""},
		{"the last before", []lab.Event{early, ev(15, "db1", "giving up", "c"), late}, "c"},
		{"before rather than after", []lab.Event{early, late}, "a"},
		{"the first after", []lab.Event{late, ev(40, "db1", "giving up", "c")}, "b"},
		{"another node, another word", []lab.Event{ev(10, "db2", "giving up", "x"), ev(11, "db1", "unbound", "y")}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := whyGaveUp(tt.events, "db1", at(20)); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
