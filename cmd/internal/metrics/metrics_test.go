package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/remora-ha/remora/cmd/internal/control"
	"github.com/remora-ha/remora/cmd/internal/trace"
	"github.com/remora-ha/remora/consensus"
	"github.com/remora-ha/remora/core"
)

func ptr[T any](v T) *T { return &v }

// owner is the status of a node that owns a group, in which everything is set that may be missing.
func owner() Snapshot {
	return Snapshot{
		Status: control.Status{Node: "db1", Cluster: "orders", Version: "v1", Quorum: true, ConfigVersion: 3,
			Timing:  control.Timing{Profile: "lan", TTLMS: 300, MarginMS: 20},
			Process: control.Process{KernelLease: "nftables", Watchdog: "required", CertificateEnds: time.Unix(1800000000, 0)},
			Groups: []control.Group{{Name: "writer", Owner: "db1", Epoch: 7, LeaseLeftMS: ptr(int64(250)), Addresses: []string{"10.77.0.100"},
				Bound: []string{"10.77.0.100"}, Phase: "serving", Clients: ptr(5), Conflicts: 2, Contested: true},
				{Name: "other", Phase: "none", Conflicts: 3}},
			Nodes: []control.Node{
				{Name: "db1", Reachable: true, ConfigVersion: 3, MySQL: &control.MySQL{Health: "healthy", Role: "primary", Writable: "yes", LagMS: ptr(int64(1500)), Alarms: []string{"secret-word"}}},
				{Name: "db2", Reachable: true, ConfigVersion: 2, Unfenced: true, SetAside: "x", MySQL: &control.MySQL{Health: "failed"}},
				{Name: "mgr"}},
			Problems: []control.Problem{{Subject: "node db1", Text: "secret-word"}}},
		Raft: consensus.Status{State: "follower", Leader: "mgr", Term: 4, Applied: 90, Disk: "secret-word",
			Peers: []consensus.Peer{{Node: "db2", Reachable: true, RTT: 300 * time.Microsecond}, {Node: "mgr"}}},
	}
}

func of(s Snapshot) *Metrics {
	return New("db1", time.UnixMilli(1000), func(context.Context) (Snapshot, error) { return s, nil })
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	s := httptest.NewServer(m.handler(slog.New(slog.DiscardHandler)))
	defer s.Close()
	return get(t, s.URL+"/metrics")
}

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("status %s, %v: %s", r.Status, err, body)
	}
	return string(body)
}

func has(t *testing.T, text string, lines ...string) {
	t.Helper()
	all := strings.Split(text, "\n")
	for _, l := range lines {
		if !slices.Contains(all, l) {
			t.Errorf("there is no line %q", l)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestLint(t *testing.T) {
	m := of(owner())
	m.committed(core.Op{Grant: &core.Grant{Group: "writer", To: "db1"}}, true)
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v: %v", problems, err)
	}
}

func TestStatus(t *testing.T) {
	text := scrape(t, of(owner()))
	has(t, text,
		`remora_status_available 1`, `remora_quorum 1`, `remora_lease_ttl_seconds 0.3`, `remora_kernel_lease{mode="nftables"} 1`,
		`remora_kernel_lease{mode="none"} 0`, `remora_group_is_owner{group="writer"} 1`, `remora_group_is_owner{group="other"} 0`,
		`remora_group_lease_remaining_seconds{group="writer"} 0.25`, `remora_group_epoch{group="writer"} 7`, `remora_group_conflicts_total{group="writer"} 2`,
		`remora_mysql_health{state="healthy"} 1`, `remora_mysql_writable 1`, `remora_mysql_replication_lag_seconds 1.5`,
		`remora_raft_state{state="follower"} 1`, `remora_raft_term 4`, `remora_raft_leader{node="mgr"} 1`, `remora_peer_round_trip_seconds{node="db2"} 0.0003`,
		`remora_problems 1`, `remora_certificate_end_timestamp_seconds 1.8e+09`)
	for name, n := range map[string]string{"no_quorum": "0", "group_without_owner": "1", "address_conflict": "1", "node_unheard": "1", "mysql_not_healthy": "1",
		"mysql_attention": "1", "server_set_aside": "1", "kernel_without_fence": "1", "config_version_differs": "1", "state_dir_disk": "1", "raft_stopped": "0",
		"watchdog_not_armed": "1"} {
		has(t, text, `remora_alarm_active{alarm="`+name+`"} `+n)
	}
	if strings.Contains(text, "secret-word") {
		t.Error("free text has become a label")
	}
	if strings.Contains(text, `remora_group_lease_remaining_seconds{group="other"}`) {
		t.Error("a lease that this node does not have is shown")
	}
}

// A loop that does not answer takes the status away, and nothing else.
func TestNoStatus(t *testing.T) {
	m := New("db1", time.Now(), func(context.Context) (Snapshot, error) { return Snapshot{}, errors.New("stopped") })
	text := scrape(t, m)
	has(t, text, `remora_status_available 0`, `remora_fence_losses_total 0`)
	if strings.Contains(text, "remora_quorum") {
		t.Error("a status is shown that is not known")
	}
}

// Scrapers share a snapshot: the loop is asked once a second at the most.
func TestSnapshotIsShared(t *testing.T) {
	asked := 0
	p := newPicture(func(context.Context) (Snapshot, error) { asked++; return owner(), nil })
	for range 50 {
		if _, err := p.snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	p.taken = p.taken.Add(-fresh)
	if _, err := p.snapshot(); err != nil || asked != 2 {
		t.Errorf("asked %d times, error %v", asked, err)
	}
}

func TestOnlyMetricsAreServed(t *testing.T) {
	s := httptest.NewServer(of(owner()).handler(slog.New(slog.DiscardHandler)))
	defer s.Close()
	for _, c := range []struct {
		method, path string
		status       int
	}{{"GET", "/", 404}, {"GET", "/debug/pprof/", 404}, {"POST", "/metrics", 405}} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != c.status {
			t.Errorf("%s %s: %s", c.method, c.path, r.Status)
		}
	}
}

// An address that is taken is waited for; the end of the daemon is not.
func TestServeEnds(t *testing.T) {
	taken := httptest.NewServer(http.NotFoundHandler())
	defer taken.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		of(owner()).Serve(ctx, netip.MustParseAddrPort(taken.Listener.Addr().String()), slog.New(slog.DiscardHandler))
		close(ended)
	}()
	select {
	case <-ended:
		t.Fatal("it has given up")
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
}

func grant(m *Metrics, at int64, to core.NodeName, before ...core.Op) {
	ops := append(before, core.Op{Grant: &core.Grant{Group: "writer", To: to}})
	m.Observe(1, 2, core.Committed{Command: core.Command{At: at, Ops: ops}, Outcomes: make([]core.Outcome, len(ops))}, nil)
}

// handOver lets the ledger have a grant to a node and then the end of the holding before it.
func handOver(m *Metrics, to core.NodeName, reason string) {
	for _, op := range []core.Op{{Grant: &core.Grant{Group: "writer", Prev: 6, To: to, Handover: true, Reason: reason}},
		{Release: &core.Release{Group: "writer", Epoch: 6, Reason: reason}}} {
		m.Observe(1, 2, core.Committed{Command: core.Command{At: 2000, Ops: []core.Op{op}}, Outcomes: make([]core.Outcome, 1)}, nil)
	}
}

func TestCauses(t *testing.T) {
	m := of(owner())
	move := func(reason string) core.Op { return core.Op{Move: &core.Move{Group: "writer", Reason: reason}} }
	release := func(reason string) core.Op { return core.Op{Release: &core.Release{Group: "writer", Reason: reason}} }
	grant(m, 999, "db1") // before this daemon's time
	grant(m, 2000, "db1")
	grant(m, 2000, "db2") // not ours
	grant(m, 2000, "db1", release("MySQL has failed"))
	grant(m, 2000, "db1", move("maintenance"), release("the owner is drained"))
	handOver(m, "db1", core.ReasonSwitchover+"db1: maintenance")
	grant(m, 2000, "db1") // the release that has come after the grant explains nothing
	grant(m, 2000, "db1", move(core.ReasonPreempted))
	grant(m, 2000, "db1", move(core.ReasonBalance+"db2 has none"))
	grant(m, 2000, "db1", release(core.ReasonStopping))
	grant(m, 2000, "db1", core.Op{Advise: &core.Advice{Group: "writer"}})
	grant(m, 2000, "db2", move("maintenance"), core.Op{Abort: &core.Abort{Group: "writer"}})
	grant(m, 2000, "db1", move("maintenance"), core.Op{Abort: &core.Abort{Group: "writer"}})
	m.Observe(1, 2, core.Committed{Command: core.Command{At: 2000, Ops: []core.Op{{Grant: &core.Grant{Group: "writer", To: "db1"}}}},
		Outcomes: []core.Outcome{{Refused: "too late"}}}, nil)
	got := map[string]float64{}
	for _, cause := range []string{causeFirst, causeAgain, causeFailover, causeShutdown, causeSwitchover, causePreempted, causeBalance, causeAdvice} {
		got[cause] = testutil.ToFloat64(m.takeovers.WithLabelValues("writer", cause))
	}
	want := map[string]float64{causeFirst: 0, causeAgain: 2, causeFailover: 2, causeShutdown: 1, causeSwitchover: 2, causePreempted: 1, causeBalance: 1, causeAdvice: 1}
	if !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

func TestRenewal(t *testing.T) {
	m := of(owner())
	send := func(seq core.Seq, at core.Instant) {
		m.Observe(at, at, core.Tick{}, []core.Action{core.Send{To: "db2", Msg: core.Report{Seq: seq}}, core.Send{To: "mgr", Msg: core.Report{Seq: seq}}})
	}
	ack := func(seq core.Seq, at core.Instant, groups ...core.GroupEpoch) {
		m.Observe(at, at, core.Received{From: "mgr", Msg: core.Ack{Seq: seq, Groups: groups}}, nil)
	}
	ms := core.Instant(time.Millisecond)
	renewed := core.GroupEpoch{Group: "writer", Epoch: 7}
	send(1, 10*ms)
	send(2, 20*ms)
	ack(1, 22*ms, renewed) // 12 ms
	ack(1, 30*ms, renewed) // again: not counted
	ack(2, 23*ms)          // renews nothing
	ack(2, 24*ms, renewed) // 4 ms
	ack(sentKept+2, 25*ms, renewed)
	has(t, scrape(t, m), `remora_renewal_round_trip_seconds_count 2`, `remora_renewal_round_trip_seconds_sum 0.016`)
}

func TestEvents(t *testing.T) {
	m := of(owner())
	m.Observe(0, core.Instant(3*time.Millisecond), core.FenceLost{}, nil)
	m.Observe(0, core.Instant(time.Millisecond), core.ClockJumped{}, nil)
	r := trace.NewRecorder()
	r.OnPhase(m.Phase)
	r.Mark("writer", 8, trace.Bound, core.Instant(time.Millisecond))
	r.Mark("writer", 8, trace.FenceOpen, core.Instant(2*time.Millisecond))
	has(t, scrape(t, m), `remora_fence_losses_total 1`, `remora_clock_jumps_total 1`, `remora_step_duration_seconds_sum 0.004`,
		`remora_takeover_phase_duration_seconds_sum{phase="fence"} 0.001`, `remora_takeover_phase_duration_seconds_count{phase="bind"} 0`)
}

// Every name, phase, cause and alarm is explained, and nothing that there is not.
func TestDocumented(t *testing.T) {
	data, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(data)
	m := of(owner())
	m.committed(core.Op{Grant: &core.Grant{Group: "writer", To: "db1"}}, true)
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	words := append(trace.Phases(), alarmNames...)
	words = append(words, operations...)
	words = append(words, causeFirst, causeAgain, causeFailover, causeShutdown, causeSwitchover, causePreempted, causeBalance, causeAdvice)
	names := map[string]bool{}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "remora_") {
			words = append(words, f.GetName())
			names[f.GetName()] = true
		}
	}
	for _, w := range words {
		if !strings.Contains(doc, "`"+w+"`") {
			t.Errorf("docs/metrics.md does not explain %q", w)
		}
	}
	for _, line := range strings.Split(doc, "\n") {
		if name, ok := strings.CutPrefix(line, "| `remora_"); ok {
			name, _, _ = strings.Cut(name, "`")
			if !names["remora_"+name] {
				t.Errorf("docs/metrics.md explains remora_%s, which is not offered", name)
			}
		}
	}
}
