package detector

import (
	"slices"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

// A server whose configuration lets it start writable is an alarm under policy promote, also after the mode was set, and no more
// once it was started with the right one.
func TestAServerThatStartsWritableIsAnAlarm(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newDBServer(t, k, 1)
		alarmed := func(h core.Health) bool { return slices.Contains(h.Alarms, startsWritable) }
		w := watch(t, Config{Address: s.address().String(), User: promoteUser, Policy: core.Promote, Timing: lan(t)})
		w.wait(20*time.Second, "the alarm", alarmed)
		if d := s.actor().Demote(t.Context(), core.DemoteServer{}); d.Err != "" {
			t.Fatal(d.Err)
		}
		s.endSessions()
		w.wait(20*time.Second, "the alarm although it is read-only now", func(h core.Health) bool { return h.Writable == core.No && alarmed(h) })
		other := watch(t, Config{Address: s.address().String(), User: promoteUser, Policy: core.Follow, Timing: lan(t)})
		if h := other.waitState(core.Healthy); len(h.Alarms) != 0 {
			t.Errorf("under policy follow: %v", h.Alarms)
		}
		s.kill()
		w.waitState(core.Failed)
		s.args = append(s.args, "--read-only=ON")
		s.start()
		w.wait(20*time.Second, "healthy and no alarm", func(h core.Health) bool { return h.State == core.Healthy && h.Writable == core.No && !alarmed(h) })
	})
}

func TestStartMode(t *testing.T) {
	for _, test := range []struct {
		rule string
		rows []row
		want core.Tri
	}{
		{"MariaDB, nothing configured", []row{{"origin": "COMPILE-TIME", "value": "OFF"}}, core.No},
		{"MariaDB, configured", []row{{"origin": "CONFIG", "value": "ON"}}, core.Yes},
		{"MariaDB 12, configured", []row{{"origin": "CONFIG", "value": "NO_LOCK"}}, core.Yes},
		{"MariaDB, configured to be writable", []row{{"origin": "CONFIG", "value": "OFF"}}, core.No},
		{"MariaDB, set since", []row{{"origin": "SQL", "value": "ON"}}, core.Unknown},
		{"MySQL, nothing configured", []row{{"origin": "COMPILED", "value": "0"}, {"origin": "COMPILED", "value": "0"}}, core.No},
		{"MySQL, super_read_only alone", []row{{"origin": "COMPILED", "value": "1"}, {"origin": "GLOBAL", "value": "1"}}, core.Yes},
		{"MySQL, persisted", []row{{"origin": "PERSISTED", "value": "1"}, {"origin": "COMPILED", "value": "0"}}, core.Yes},
		{"MySQL, one set since", []row{{"origin": "DYNAMIC", "value": "0"}, {"origin": "COMPILED", "value": "0"}}, core.Unknown},
		{"MySQL, cleared since", []row{{"origin": "DYNAMIC", "value": "0"}, {"origin": "GLOBAL", "value": "0"}}, core.Unknown},
		{"a server that lists neither", nil, core.Unknown},
	} {
		if got := startMode(test.rows); got != test.want {
			t.Errorf("%s: %v, want %v", test.rule, got, test.want)
		}
	}
}
