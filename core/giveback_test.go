package core

import (
	"strings"
	"testing"
	"time"
)

// What is not known of any member forbids making a server writable again: it may be writable there, or MHA at work.
func TestUndoIsForbiddenByWhatIsNotKnown(t *testing.T) {
	fit := Health{State: Healthy, Writable: No, MHAWatches: No, MHAActs: No}
	for _, tt := range []struct {
		name   string
		change func(m *Machine)
		want   string
	}{
		{"all is known", func(*Machine) {}, ""},
		{"the witness is silent", func(m *Machine) { delete(m.peers, "mgr") }, ""},
		{"the server itself is writable", func(m *Machine) { m.peers["n1"].report.Health.Writable = Yes }, ""},
		{"another one is writable", func(m *Machine) { m.peers["n2"].report.Health.Writable = Yes }, "the server of n2 is writable"},
		{"another one may be writable", func(m *Machine) { m.peers["n2"].report.Health.Writable = Unknown }, "not known whether the server of n2"},
		{"another one is dead", func(m *Machine) { m.peers["n2"].report.Health.State = Failed }, "not known whether the server of n2"},
		{"a member was never heard", func(m *Machine) { delete(m.peers, "n2") }, "n2 is not heard"},
		{"a member is silent", func(m *Machine) { m.peers["n2"].at = m.now.Add(-time.Minute) }, "n2 is not heard"},
		{"the server replicates", func(m *Machine) { m.peers["n1"].report.Health.Source = "10.77.0.12:3306" }, "replicates from 10.77.0.12:3306"},
		{"MHA works elsewhere", func(m *Machine) { m.peers["n2"].report.Health.MHAActs = Yes }, "failover lock is held on the server of n2"},
		{"MHA watches here", func(m *Machine) { m.peers["n1"].report.Health.MHAWatches = Yes }, "monitor lock is held on the server of n1"},
		{"MHA may work elsewhere", func(m *Machine) { m.peers["n2"].report.Health.MHAActs = Unknown }, "not known whether MHA's locks"},
		{"MHA may watch elsewhere", func(m *Machine) { m.peers["n2"].report.Health.MHAWatches = Unknown }, "not known whether MHA's locks"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			timing, err := ProfileTiming("lan")
			if err != nil {
				t.Fatal(err)
			}
			m := New(Options{Self: "n1", Timing: timing, Start: 1e12})
			m.view.Config.Nodes = []NodeSpec{{Name: "n1"}, {Name: "n2"}, {Name: "mgr", Witness: true}}
			for _, n := range m.view.Config.Nodes {
				m.peers[n.Name] = &peer{heard: true, at: m.now, report: Report{Health: fit}}
			}
			tt.change(m)
			if got := m.undoForbidden("n1"); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("forbidden by %q, want %q", got, tt.want)
			}
		})
	}
}

// The release waits while it is not known what has become of the server, and never longer than the lease.
func TestReleaseWaitsForTheServer(t *testing.T) {
	const now = Instant(time.Hour)
	for _, tt := range []struct {
		name    string
		policy  Policy
		grant   Grant
		server  localServer
		earlier bool
		dead    bool
		lease   Instant
		want    bool
	}{
		{name: "promote, on its way to be writable", policy: Promote, server: localServer{promoting: true}, lease: now + 1, want: true},
		{name: "promote, on its way to be read-only", policy: Promote, server: localServer{demote: true}, lease: now + 1, want: true},
		{name: "promote, dead", policy: Promote, server: localServer{demote: true}, dead: true, lease: now + 1},
		{name: "promote, at rest", policy: Promote, lease: now + 1},
		{name: "promote, an earlier process", policy: Promote, earlier: true, dead: true, lease: now + 1, want: true},
		{name: "promote, the lease is over", policy: Promote, server: localServer{promoting: true}, earlier: true, lease: now},
		{name: "follow", policy: Follow, server: localServer{promoting: true}, earlier: true, lease: now + 1},
		{name: "follow, cleared on advice", policy: Follow, grant: Grant{Clear: true}, server: localServer{promoting: true}, lease: now + 1, want: true},
		{name: "follow, given back", policy: Follow, grant: Grant{Undo: true}, server: localServer{promoting: true}, lease: now + 1, want: true},
		{name: "follow, given back, an earlier process", policy: Follow, grant: Grant{Undo: true}, earlier: true, lease: now + 1, want: true},
		{name: "follow, given back and at rest", policy: Follow, grant: Grant{Undo: true}, lease: now + 1},
		{name: "follow, given back, the lease is over", policy: Follow, grant: Grant{Undo: true}, server: localServer{promoting: true}, lease: now},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := New(Options{Self: "n1", Start: now})
			m.server = tt.server
			if m.health.State = Healthy; tt.dead {
				m.health.State = Failed
			}
			h := &holding{group: "writer", epoch: 3, earlier: tt.earlier, lease: tt.lease}
			g := GroupState{Epoch: 3, Owner: "n1", Grant: &tt.grant, Spec: GroupSpec{Name: "writer", Policy: tt.policy}}
			if got := m.holdRelease(h, g); got != tt.want {
				t.Errorf("waits: %t, want %t", got, tt.want)
			}
		})
	}
}
