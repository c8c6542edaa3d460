package e2e

import (
	"context"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// replicas raises a laboratory of policy promote: a primary with two replicas, and daemons that have exactly the grants
// which `remora mysql grants` prints.
func replicas(t *testing.T, group string) *lab.Lab {
	t.Helper()
	l := raise(t, func(o *lab.Options) {
		o.Policy, o.Replicas = "promote", true
		o.ExtraConfig = "fence_port = false\n" + group
	})
	must(t, l.StartServers(within(t)))
	must(t, l.PrepareDaemons())
	out, err := l.Nodes()[0].Remora(within(t), "mysql", "grants", "--policy", "promote", "--family", "mariadb", "--host", "%")
	must(t, err)
	grants := []string{"SET SESSION sql_log_bin = 0"}
	for line := range strings.Lines(string(out)) {
		if s := strings.TrimSuffix(strings.TrimSpace(line), ";"); s != "" && !strings.HasPrefix(s, "--") {
			grants = append(grants, s)
		}
	}
	for _, n := range l.Servers() {
		must(t, n.Exec(within(t), grants...))
	}
	s, err := l.StartStream(lab.StreamOptions{Interval: 2 * time.Millisecond})
	must(t, err)
	for _, n := range l.Nodes() {
		must(t, n.StartDaemon())
	}
	must(t, l.WaitServed(within(t), s))
	return l
}

// ask returns the only value of a query to a node's server, empty if the server does not answer.
func ask(t *testing.T, n *lab.Node, query string) string {
	t.Helper()
	db, err := n.Admin()
	must(t, err)
	defer db.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var v string
	if db.QueryRowContext(ctx, query).Scan(&v) != nil {
		return ""
	}
	return v
}

// following waits until a node's server is read-only and replicates from the owner's.
func following(t *testing.T, l *lab.Lab, n *lab.Node, owner string) {
	t.Helper()
	want := l.Node(owner).Addr.String()
	var got string
	defer func() {
		if t.Failed() {
			t.Logf("the last answer of %s: %s", n.Name, got)
		}
	}()
	eventually(t, n.Name+" is read-only and follows "+owner, func() bool {
		source, err := n.Source(within(t))
		got = source
		return err == nil && source == want && ask(t, n, "SELECT @@global.read_only") == "1"
	})
}

// A planned switchover under a load of inserts, there and back: the new owner is writable before it answers, all others
// follow it, and no row that was acknowledged is lost.
func TestPromoteSwitchoverLosesNothing(t *testing.T) {
	l := replicas(t, "")
	w := write(t, l)
	for range 2 {
		old := l.Holder(l.VIP())
		for _, n := range others(l, old) {
			following(t, l, n, old)
		}
		w.goesOn(t, "at "+old)
		to, start := others(l, old)[0].Name, time.Now()
		eventually(t, "a switchover to "+to+" is taken", func() bool {
			err := l.Switchover(within(t), to)
			if err != nil && !strings.Contains(err.Error(), "refused") {
				t.Fatal(err)
			}
			return err == nil // it is refused until the arbiter has heard that replication runs
		})
		w.goesOn(t, "at "+to)
		t.Logf("%s to %s: the longest time without an acknowledged row was %v", old, to, w.gap(start))
		if lost := w.lost(t, l.Node(to)); len(lost) > 0 {
			t.Errorf("the acknowledged rows %v are not on %s", lost, to)
		}
	}
	now := l.Holder(l.VIP())
	for _, n := range others(l, now) {
		following(t, l, n, now)
	}
	neverTwo(t, l)
}

// The primary's server is killed: a replica that lacks nothing which any other has is made writable and serves, the other
// one follows it. The old primary comes back read-only and follows too, having nothing that nobody else has. Then the new
// one is killed with rows that no replica has received: as many are lost as the daemon said that it might be, and the old
// primary, which has them, is set aside when it comes back, and left as it is.
func TestPromoteAfterServerDies(t *testing.T) {
	l := replicas(t, "max_lost_transactions = 100000")
	w := write(t, l)
	old := l.Holder(l.VIP())
	for _, n := range others(l, old) {
		following(t, l, n, old)
	}
	w.goesOn(t, "at "+old)
	next, lost := w.killed(t, l, old)
	if told := toldLost(t, l, old); lost > told {
		t.Errorf("%d acknowledged rows are lost, and the daemon said that it might be %d", lost, told)
	}
	for _, n := range others(l, next) {
		if n.Name != old {
			following(t, l, n, next)
		}
	}
	must(t, l.Node(old).StartServer(within(t)))
	if lost > 0 {
		neverTwo(t, l)
		return // a slow machine: what follows needs a third server
	}
	following(t, l, l.Node(old), next)

	for _, n := range others(l, next) {
		must(t, n.Exec(within(t), "STOP SLAVE IO_THREAD"))
	}
	w.goesOn(t, "although nobody replicates")
	old = next
	next, lost = w.killed(t, l, old)
	if told := toldLost(t, l, old); lost == 0 || lost > told {
		t.Errorf("%d acknowledged rows are lost, and the daemon said that it might be %d", lost, told)
	}
	must(t, l.Node(old).StartServer(within(t)))
	eventually(t, "the status names "+old+", which is set aside", func() bool {
		s, err := l.Node(next).Status(within(t))
		return err == nil && strings.Contains(string(s.Raw), "set aside: it has transactions that the owner lacks")
	})
	if source, _ := l.Node(old).Source(within(t)); source != "" {
		t.Errorf("the server of %s, which is set aside, was made to follow %s", old, source)
	}
	if ro := ask(t, l.Node(old), "SELECT @@global.read_only"); ro != "1" {
		t.Errorf("the server of %s came back with read_only = %q", old, ro)
	}
	neverTwo(t, l)
}

// killed kills the server of the owner and returns who serves then, and how many acknowledged rows that one lacks.
func (w *writer) killed(t *testing.T, l *lab.Lab, owner string) (next string, lost int) {
	t.Helper()
	start := time.Now()
	must(t, l.Node(owner).KillServer())
	next, err := l.WaitMoved(within(t), owner)
	must(t, err)
	w.goesOn(t, "at "+next)
	lost = len(w.lost(t, l.Node(next)))
	t.Logf("%s killed, %s serves: the longest time without an acknowledged row was %v, and of %d rows %d are lost", owner, next, w.gap(start), len(w.rows()), lost)
	return next, lost
}

// told is what an arbiter says when it has chosen.
var told = regexp.MustCompile(`is chosen","group":"writer","epoch":[0-9]+,"reason":"\w+ (?:lacks ([0-9]+)|has all).*about ([0-9]+) more may be lost`)

// toldLost returns how many transactions the last choice said might be lost, in this test of those of owner. What is
// unknown is told by the pace of the last seconds, and a pace changes.
func toldLost(t *testing.T, l *lab.Lab, owner string) int {
	t.Helper()
	for _, n := range l.Nodes() {
		b, err := os.ReadFile(n.LogPath())
		must(t, err)
		for line := range strings.Lines(string(b)) {
			if m := told.FindStringSubmatch(line); m != nil && strings.Contains(line, owner+" is known to have executed") {
				known, _ := strconv.Atoi(m[1])
				unknown, _ := strconv.Atoi(m[2])
				t.Logf("said of %s: %d known, about %d more", owner, known, unknown)
				return known + 3*unknown + 10
			}
		}
	}
	t.Fatalf("no node has said what of the transactions of %s may be lost", owner)
	return 0
}
