package control

import (
	"encoding/json"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-ha/remora/cmd/internal/trace"
	"github.com/remora-ha/remora/core"
)

var sampleTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sample is a status with a bit of everything.
func sample() Status {
	return FromCore(coreSample(), Facts{Node: "db1", Cluster: "orders", Version: "v0.1.0", Now: sampleTime, Profile: "lan",
		Timing:  core.Timing{Heartbeat: 60 * time.Millisecond, TTL: 300 * time.Millisecond},
		Process: Process{OldConnections: "KILL", OldConnectionsWhy: "the kernel\nhas no SOCK_DESTROY"}})
}

func coreSample() core.Status {
	spec := core.GroupSpec{Name: "writer", Role: core.Writer, Policy: core.Follow, Interface: "eth0",
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.77.0.100/32")}}
	idle := spec
	idle.Name, idle.Addresses = "spare", []netip.Prefix{netip.MustParsePrefix("10.77.0.101/32"), netip.MustParsePrefix("fd00::101/128")}
	node := func(name, addr string) core.NodeSpec {
		return core.NodeSpec{Name: core.NodeName(name), Address: netip.MustParseAddrPort(addr)}
	}
	witness := node("mgr", "10.77.0.20:7400")
	witness.Witness = true
	return core.Status{
		View:   core.View{Config: core.Config{Version: 3, TTL: 300}},
		Leader: "mgr", Voters: []core.NodeName{"db1", "db2", "mgr"},
		Groups: []core.GroupStatus{
			{Name: "writer", Phase: "serving", Held: 8, LeaseLeft: 240 * time.Millisecond, BoundHere: []netip.Addr{netip.MustParseAddr("10.77.0.100")},
				State: core.GroupState{Spec: spec, Epoch: 8, Owner: "db1", Since: sampleTime.Add(-26 * time.Hour).UnixMilli(), Reason: "operator: asked for by anna"}},
			{Name: "spare", State: core.GroupState{Spec: idle, Paused: true, Move: &core.Move{To: "db2"}}},
		},
		Nodes: []core.NodeStatus{
			{Spec: node("db1", "10.77.0.11:7400"), Heard: true, Reachable: true, Voter: true, Report: core.Report{Release: "v0.1.0", Config: 3,
				Health: core.Health{State: core.Healthy, Reason: "answers", Writable: core.Yes, GTID: "0-1-4711", Version: "10.11.6-MariaDB",
					Listens: []netip.Addr{netip.IPv6Unspecified()}}}},
			{Spec: node("db2", "10.77.0.12:7400"), Heard: true, Age: 90 * time.Second, Voter: true, Unfit: map[core.GroupName]string{"writer": "not heard"},
				Report: core.Report{Release: "v0.1.0", Config: 2, Health: core.Health{State: core.Failed, Reason: "connection\x1b[2J refused",
					Writable: core.No, Source: "10.77.0.11:3306", Replicating: core.No, Lag: 1500 * time.Millisecond, Measured: 12 * time.Second, GTID: strings.Repeat("0-1-4711,", 9),
					Version: "10.11.6\nMariaDB", Alarms: []string{"the password is wrong"}}}},
			{Spec: witness, Heard: true, Reachable: true, Age: 31 * time.Millisecond, Voter: true, Report: core.Report{Release: "v0.1.0", Config: 3, DryRun: true}},
		},
		Problems: []core.Finding{{Subject: "node db2", Text: "Not heard for 1m30s."}, {Subject: "group spare", Text: "Nobody owns it:\nforged line."}},
	}
}

func TestText(t *testing.T) {
	var b strings.Builder
	if err := sample().WriteText(&b); err != nil {
		t.Fatal(err)
	}
	want := `writer 10.77.0.100/32 owner=db1 epoch=8 lease=240ms bound-here since=1d2h policy=follow reason="operator: asked for by anna"
spare 10.77.0.101/32 fd00::101/128 owner=- epoch=0 policy=follow PAUSED moving-to=db2

cluster orders, quorum, leader mgr, seen by db1 (remora v0.1.0)
connections to an address that has left db1 are ended there by: KILL (the kernel has no SOCK_DESTROY)

NODE  ADDRESS          STATE                         HEARD  MYSQL    ROLE     LAG       GTID                                      SERVER
db1   10.77.0.11:7400  up                            0s     healthy  primary  -         0-1-4711                                  10.11.6-MariaDB
db2   10.77.0.12:7400  DOWN                          1m30s  failed   replica  1.5s/12s  0-1-4711,0-1-4711,0-1-4711,0-1-4711,0...  10.11.6 MariaDB
mgr   10.77.0.20:7400  up, leader, witness, dry run  31ms   -        -        -         -                                         -

not as it should be:
  node db2: Not heard for 1m30s.
  group spare: Nobody owns it: forged line.
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

func TestTextOfAnEmptyCluster(t *testing.T) {
	var b strings.Builder
	if err := FromCore(core.Status{}, Facts{Node: "db1", Cluster: "orders"}).WriteText(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"no groups yet", "NO QUORUM, leader -", "all is as it should be"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
}

// TestEmptyListsAreLists holds that a reader of the JSON form never meets null where it expects a list.
func TestEmptyListsAreLists(t *testing.T) {
	for _, s := range []Status{FromCore(core.Status{}, Facts{}), sample()} {
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"groups", "nodes", "problems", "addresses", "bound", "listens", "alarms"} {
			if strings.Contains(string(data), `"`+key+`":null`) {
				t.Errorf("%s is null in %s", key, data)
			}
		}
	}
}

// TestEveryFieldIsDocumented holds docs/status.md to the types: every field of the JSON form has its row.
func TestEveryFieldIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../../docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	documented(t, doc, reflect.TypeFor[Status](), "")
	documented(t, doc, reflect.TypeFor[HistoryEntry](), "entries[].")
	documented(t, doc, reflect.TypeFor[trace.Takeover](), "entries[].trace.")
}

func documented(t *testing.T, doc string, typ reflect.Type, prefix string) {
	t.Helper()
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		path, ft := prefix+name, f.Type
		if !strings.Contains(doc, "| `"+path+"` |") {
			t.Errorf("docs/status.md has no row for %s", path)
		}
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		sep := "."
		if ft.Kind() == reflect.Slice {
			ft, sep = ft.Elem(), "[]."
		}
		if ft.Kind() == reflect.Struct && ft != reflect.TypeFor[time.Time]() {
			documented(t, doc, ft, path+sep)
		}
	}
}

func TestHistoryText(t *testing.T) {
	var b strings.Builder
	err := WriteHistory(&b, []HistoryEntry{
		{Index: 7, Time: sampleTime, Kind: "grant", Group: "writer", Epoch: 8, Node: "db1", From: "db2", Reason: "mysqld died"},
		{Index: 12, Time: sampleTime, Kind: "configure", Reason: "version 2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	local := sampleTime.Local().Format("2006-01-02 15:04:05.000")
	want := "INDEX  TIME                     GROUP   EPOCH  WHAT       NODE        REASON\n" +
		"7      " + local + "  writer  8      grant      db2 -> db1  mysqld died\n" +
		"12     " + local + "  -       -      configure  -           version 2\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
}

func TestTraces(t *testing.T) {
	history := []HistoryEntry{
		{Index: 3, Time: sampleTime, Kind: core.KindGrant, Group: "writer", Epoch: 7, Node: "db1", Reason: "nobody had it"},
		{Index: 5, Time: sampleTime, Kind: core.KindGrant, Group: "reader", Epoch: 2, Node: "db2", Reason: "nobody had it"},
		{Index: 8, Time: sampleTime, Kind: core.KindRelease, Group: "writer", Epoch: 7, Node: "db1", Reason: "mysqld died"},
		{Index: 8, Time: sampleTime, Kind: core.KindGrant, Group: "writer", Epoch: 8, Node: "db2", Reason: "mysqld died"},
	}
	marks := func(name string, us int64, more ...any) (ms []trace.Mark) {
		ms = append(ms, trace.Mark{Name: name, US: us})
		for i := 0; i < len(more); i += 2 {
			ms = append(ms, trace.Mark{Name: more[i].(string), US: int64(more[i+1].(int))})
		}
		return ms
	}
	r := TraceResult{Silent: map[string]string{"db3": "gone"}, Pieces: []trace.Piece{
		{Node: "db2", Group: "writer", Epoch: 8, Marks: marks("granted", 0, "bind_begun", 0, "fence_open", 620, "announced", 650)},
		{Node: "db1", Group: "writer", Epoch: 8, Marks: marks("giving_up", 0, "unbound", 380, "release_sent", 400, "granted", 3400)},
		{Node: "mgr", Group: "writer", Epoch: 8, Marks: marks("release_came", 0, "proposed", 0, "granted", 2000, "serving_heard", 3500)},
	}}
	entries := Traced(history, r, "writer", 1)
	if len(entries) != 1 || entries[0].Index != 8 || len(Traced(history, r, "", 0)) != 3 || len(Traced(history, r, "writer", 0)) != 2 {
		t.Fatalf("%+v", entries)
	}
	var b strings.Builder
	if err := WriteTraces(&b, entries); err != nil {
		t.Fatal(err)
	}
	want := sampleTime.Local().Format("2006-01-02 15:04:05.000") + `  writer epoch 8: db1 -> db2, mysqld died
  db1: giving up, unbound +0.38, release sent +0.02, granted +3.00
  mgr: release came, proposed +0.00, granted +2.00, serving heard +1.50
  db2: granted, bind begun +0.00, fence open +0.62, announced +0.03
  on the way from db1 to mgr and back: 1.00 ms
  on the way from mgr to db2 and back: 0.88 ms
  from the first moment known to the announcement: 3.05 to 4.93 ms
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("traces (-want +got):\n%s", diff)
	}
	recovered := Traced(append(history[:3:3], HistoryEntry{Index: 9, Kind: core.KindGrant, Group: "writer", Epoch: 1<<20 + 8, Node: "db2"}), r, "writer", 1)
	if recovered[0].From != "" {
		t.Errorf("after a recovery %q is the owner before", recovered[0].From)
	}
	b.Reset()
	if err := WriteTraces(&b, Traced(history, TraceResult{}, "reader", 0)); err != nil || !strings.Contains(b.String(), "  the part of db2 is not known: it had none") {
		t.Errorf("a takeover of which nothing is known: %v\n%s", err, b.String())
	}
}
