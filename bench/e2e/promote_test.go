package e2e

import (
	"context"
	"database/sql"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// flavour is a kind of server that the tests of policy promote run on.
type flavour struct {
	name   string
	server lab.Flavor
	family string // as remora mysql grants calls it
}

func flavours() []flavour {
	return []flavour{{"MariaDB", lab.MariaDB{}, "mariadb"}, {"MySQL", lab.MySQL{}, "mysql80"}}
}

// replicas raises a laboratory of policy promote: a primary with two replicas, and daemons that have exactly the grants
// which `remora mysql grants` prints.
func replicas(t *testing.T, f flavour, group string) *lab.Lab {
	t.Helper()
	l := raise(t, func(o *lab.Options) {
		o.Server, o.Policy, o.Replicas = f.server, "promote", true
		o.ExtraConfig = group
		unhurried(o)
	})
	must(t, l.StartServers(within(t)))
	t.Logf("the servers are %s", ask(t, l.Servers()[0], "SELECT VERSION()"))
	must(t, l.PrepareDaemons())
	grant(t, l, "promote", f)
	for _, n := range l.Servers() {
		eventually(t, "the grants have come to "+n.Name, func() bool {
			return strings.Contains(ask(t, n, "SHOW GRANTS FOR "+lab.MonitorUser+"@'%'"), "RELOAD")
		})
	}
	s, err := l.StartStream(lab.StreamOptions{Interval: 2 * time.Millisecond})
	must(t, err)
	for _, n := range l.Nodes() {
		must(t, n.StartDaemon())
	}
	must(t, l.WaitServed(within(t), s))
	return l
}

// grant gives the daemons' account on the primary what `remora mysql grants` prints for a policy.
func grant(t *testing.T, l *lab.Lab, policy string, f flavour) {
	t.Helper()
	out, err := l.Nodes()[0].Remora(within(t), "mysql", "grants", "--policy", policy, "--family", f.family, "--host", "%")
	must(t, err)
	for line := range strings.Lines(string(out)) {
		if s := strings.TrimSuffix(strings.TrimSpace(line), ";"); s != "" && !strings.HasPrefix(s, "--") {
			must(t, l.Servers()[0].Exec(within(t), s))
		}
	}
}

// ask returns the first value of a query to a node's server, empty if the server does not answer.
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

// following waits until the servers of all nodes but these are read-only and replicate from the owner's.
func following(t *testing.T, l *lab.Lab, owner string, but ...string) {
	t.Helper()
	want := l.Node(owner).Addr.String()
	for _, n := range others(l, owner) {
		if slices.Contains(but, n.Name) {
			continue
		}
		eventually(t, n.Name+" is read-only and follows "+owner, func() bool {
			source, err := n.Source(within(t))
			return err == nil && source == want && ask(t, n, "SELECT @@global.read_only") == "1"
		})
	}
}

// One laboratory of each kind of server goes through what policy promote is for.
func TestPromote(t *testing.T) {
	for _, f := range flavours() {
		t.Run(f.name, func(t *testing.T) {
			besides(t)
			l := replicas(t, f, "max_lost_transactions = 100000\nmax_lag = \"3s\"")
			w := write(t, l)
			following(t, l, l.Holder(l.VIP()))
			i := intrude(t, l)
			switchoversLoseNothing(t, l, w)
			backupsLocksCostNoAddress(t, l, w)
			neverTwo(t, l)
			follows := aDeadDaemonsServerIsClosed(t, l, w, i)
			i.oneWriter(t, l)
			before := overlaps(t, l) // of the dead daemon's address, which is still bound and does not answer
			if follows {             // else it has what nobody else has and is set aside, and this needs three
				laggingReplicasAreRefused(t, l, w)
			}
			aReplicaIsPromoted(t, l, w)
			whatIsLostWasToldAndIsSetAside(t, l, w)
			if n := overlaps(t, l); n > before {
				t.Errorf("two nodes held the address at once %d times", n-before)
			}
		})
	}
}

func overlaps(t *testing.T, l *lab.Lab) int {
	t.Helper()
	o, err := l.Overlaps(l.VIP())
	must(t, err)
	return len(o)
}

// A planned switchover under a load of inserts, there and back: the new owner is writable before it answers, all others
// follow it, and no row that was acknowledged is lost. A transaction that it would have to end keeps it back.
func switchoversLoseNothing(t *testing.T, l *lab.Lab, w *writer) {
	old := l.Holder(l.VIP())
	to := others(l, old)[0].Name
	open := longTransaction(t, l.Node(old))
	eventually(t, "the plan names the long transaction", func() bool {
		out, _ := l.Node(to).Remora(within(t), "switchover", lab.Group, "--to", to, "--dry-run")
		return strings.Contains(string(out), "FAILS "+old+" has no transaction that is older than 1s: session ") &&
			strings.Contains(string(out), "the server of "+to+" stops to replicate and becomes writable")
	})
	if err := l.Switchover(within(t), to); err == nil || !strings.Contains(err.Error(), "--end-transactions") {
		t.Errorf("a switchover that would end a long transaction: %v", err)
	}
	open.Close()
	for range 2 {
		w.goesOn(t, "at "+old)
		start := time.Now()
		eventually(t, "a switchover to "+to+" is taken", func() bool {
			err := l.Switchover(within(t), to)
			if err != nil && !strings.Contains(err.Error(), "refused") {
				t.Fatal(err)
			}
			return err == nil // it is refused until the arbiter has heard that replication runs
		})
		w.goesOn(t, "at "+to)
		t.Logf("%s to %s: the longest time without an acknowledged row was %v\n%s", old, to, w.gap(start), phases(t, l, start))
		if lost := w.lost(t, l.Node(to)); len(lost) > 0 {
			t.Errorf("the acknowledged rows %v are not on %s", lost, to)
		}
		following(t, l, to)
		old, to = to, old
	}
}

// longTransaction begins a transaction on a node's server and leaves it open until its connection is closed.
func longTransaction(t *testing.T, n *lab.Node) *sql.DB {
	t.Helper()
	db, err := n.Admin()
	must(t, err)
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	for _, s := range []string{"START TRANSACTION", "SELECT COUNT(*) FROM " + lab.Schema + ".acked"} {
		_, err := db.ExecContext(within(t), s)
		must(t, err)
	}
	return db
}

// The primary's server is killed: a replica that lacks nothing which any other has is made writable and serves, the other
// one follows it. The old primary comes back read-only and follows too, if it has nothing that nobody else has.
func aReplicaIsPromoted(t *testing.T, l *lab.Lab, w *writer) {
	old := l.Holder(l.VIP())
	w.goesOn(t, "at "+old)
	next, lost := w.killed(t, l, old)
	if told := toldLost(t, l, old); lost > told {
		t.Errorf("%d acknowledged rows are lost, and the daemon said that it might be %d", lost, told)
	}
	following(t, l, next, append(aside(t, l, next), old)...)
	must(t, l.Node(old).StartServer(within(t)))
	comesBack(t, l, old, next)
}

// comesBack waits until the server of a former owner follows the present one's. It is set aside instead if it has what
// nobody else has: that may be a transaction that nobody was told of.
func comesBack(t *testing.T, l *lab.Lab, old, now string) (follows bool) {
	t.Helper()
	eventually(t, old+" follows "+now+" or is set aside", func() bool {
		source, err := l.Node(old).Source(within(t))
		follows = err == nil && source == l.Node(now).Addr.String()
		return follows || setAside(t, l, old, now)
	})
	eventually(t, old+" is read-only", func() bool { return ask(t, l.Node(old), "SELECT @@global.read_only") == "1" })
	return follows
}

// setAside reports whether a node's server is set aside, by what another node has heard.
func setAside(t *testing.T, l *lab.Lab, node, at string) bool {
	t.Helper()
	s, err := l.Node(at).Status(within(t))
	return err == nil && slices.ContainsFunc(s.Nodes, func(n lab.NodeStatus) bool {
		return n.Name == node && strings.Contains(n.SetAside, "it has transactions that the owner lacks")
	})
}

// Replicas that are further behind than max_lag are not promoted, and the status says why. As soon as one has applied what
// it has received, it is.
func laggingReplicasAreRefused(t *testing.T, l *lab.Lab, w *writer) {
	old := l.Holder(l.VIP())
	var locks []*sql.DB
	for _, n := range others(l, old) {
		locks = append(locks, locked(t, n))
	}
	for _, n := range others(l, old) {
		eventually(t, n.Name+" is far behind", func() bool { return lag(t, l.Node(old), n.Name) > 4*time.Second })
	}
	w.hold.Store(true) // so that what was acknowledged has most likely been received
	must(t, l.Node(old).KillServer())
	eventually(t, "the lagging replicas are refused, with the reason", func() bool {
		return slices.ContainsFunc(l.Nodes(), func(n *lab.Node) bool { // the one that chooses says it
			s, err := n.Status(within(t))
			return err == nil && slices.ContainsFunc(s.Problems, func(p lab.Problem) bool {
				return strings.Contains(p.Text, "Nobody is promoted") && strings.Contains(p.Text, "and max_lag is 3s") &&
					strings.Contains(p.Text, "--accept-loss")
			})
		})
	})
	if now := l.Holder(l.VIP()); now != "" && now != old {
		t.Errorf("%s serves although it was refused", now)
	}
	for _, db := range locks {
		db.Close()
	}
	next, err := l.WaitMoved(within(t), old)
	must(t, err)
	w.hold.Store(false)
	w.goesOn(t, "at "+next)
	lost := len(w.lost(t, l.Node(next)))
	if told := toldLost(t, l, old); lost > told {
		t.Errorf("%d acknowledged rows are lost, and the daemon said that it might be %d", lost, told)
	}
	must(t, l.Node(old).StartServer(within(t)))
	if comesBack(t, l, old, next); lost > 0 && !setAside(t, l, old, next) {
		t.Errorf("%s has rows that are lost and was not set aside", old)
	}
	following(t, l, next, aside(t, l, next)...)
}

// aside returns the nodes whose servers are set aside, by what another node has heard.
func aside(t *testing.T, l *lab.Lab, at string) (nodes []string) {
	t.Helper()
	for _, n := range l.Servers() {
		if setAside(t, l, n.Name, at) {
			nodes = append(nodes, n.Name)
		}
	}
	return nodes
}

// locked keeps a node's replica from applying until the connection is closed.
func locked(t *testing.T, n *lab.Node) *sql.DB {
	t.Helper()
	db, err := n.Admin()
	must(t, err)
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(within(t), "LOCK TABLES "+lab.Schema+".acked READ")
	must(t, err)
	return db
}

// lag is how far a node's server is behind by what another node's daemon has heard.
func lag(t *testing.T, at *lab.Node, node string) time.Duration {
	s, err := at.Status(within(t))
	if err != nil {
		return 0
	}
	for _, n := range s.Nodes {
		if n.Name == node && n.MySQL != nil && n.MySQL.LagMS != nil {
			return time.Duration(*n.MySQL.LagMS) * time.Millisecond
		}
	}
	return 0
}

// The primary is killed with rows that no replica has received: as many are lost as the daemon said that it might be, and
// the old primary, which has them, is set aside when it comes back, and left as it is.
func whatIsLostWasToldAndIsSetAside(t *testing.T, l *lab.Lab, w *writer) {
	old := l.Holder(l.VIP())
	for _, n := range others(l, old) {
		if !setAside(t, l, n.Name, old) {
			must(t, n.Exec(within(t), "STOP REPLICA IO_THREAD"))
		}
	}
	for range 2 { // more than what is forgiven in toldLost
		w.goesOn(t, "although nobody replicates")
	}
	next, lost := w.killed(t, l, old)
	if told := toldLost(t, l, old); lost == 0 || lost > told {
		t.Errorf("%d acknowledged rows are lost, and the daemon said that it might be %d", lost, told)
	}
	must(t, l.Node(old).StartServer(within(t)))
	eventually(t, "the status names "+old+", which is set aside", func() bool { return setAside(t, l, old, next) })
	if source, _ := l.Node(old).Source(within(t)); source != "" {
		t.Errorf("the server of %s, which is set aside, was made to follow %s", old, source)
	}
	if ro := ask(t, l.Node(old), "SELECT @@global.read_only"); ro != "1" {
		t.Errorf("the server of %s came back with read_only = %q", old, ro)
	}
	eventually(t, "a promotion beside an owner is refused", func() bool {
		_, err := l.Node(next).Remora(within(t), "promote", lab.Group, "--to", old)
		return err != nil && strings.Contains(err.Error(), next+" owns "+lab.Group) // or there is no leader at the moment
	})
	if _, err := l.Node(old).Remora(within(t), "rejoin"); err != nil {
		t.Error(err)
	}
	eventually(t, old+" is set aside again", func() bool {
		b, err := os.ReadFile(l.Node(old).LogPath())
		return err == nil && strings.Count(string(b), "the local server is set aside") > 1
	})
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
	t.Logf("%s killed, %s serves: the longest time without an acknowledged row was %v, and of %d rows %d are lost\n%s",
		owner, next, w.gap(start), len(w.rows()), lost, phases(t, l, start))
	return next, lost
}

// phases is the time line of what the daemons have done since a moment.
func phases(t *testing.T, l *lab.Lab, since time.Time) string {
	t.Helper()
	events, err := l.DaemonEvents(since, time.Now())
	must(t, err)
	var b strings.Builder
	must(t, lab.WriteLines(&b, lab.Lines(events, since, lab.Milestones())))
	return b.String()
}

// told is what an arbiter says when it has chosen, and when. The last number is missing where the old owner's pace was not known.
var told = regexp.MustCompile(`^{"time":"([^"]+)".* is chosen","group":"writer","epoch":[0-9]+,"reason":"\w+ (?:lacks ([0-9]+)|has all).*(?:about ([0-9]+)|some) more may be lost`)

// toldLost returns how many transactions the last choice said might be lost, in this test of those of owner. What is
// unknown is told by the pace of the last seconds, and a pace changes; and from the moment when the set was told, which is some
// rows after it was read.
func toldLost(t *testing.T, l *lab.Lab, owner string) int {
	t.Helper()
	var last time.Time // an owner may have been replaced before, by the choice of another arbiter
	said := 0
	for _, n := range l.Nodes() {
		b, err := os.ReadFile(n.LogPath())
		must(t, err)
		for line := range strings.Lines(string(b)) {
			if m := told.FindStringSubmatch(line); m != nil && strings.Contains(line, owner+" is known to have executed") {
				at, err := time.Parse(time.RFC3339Nano, m[1])
				must(t, err)
				t.Logf("said of %s by %s: %s", owner, n.Name, m[0])
				if at.Before(last) {
					continue
				}
				known, _ := strconv.Atoi(m[2])
				unknown, err := strconv.Atoi(m[3])
				last, said = at, known+3*unknown+25
				if err != nil {
					said = math.MaxInt
				}
			}
		}
	}
	if last.IsZero() {
		t.Fatalf("no node has said what of the transactions of %s may be lost", owner)
	}
	return said
}
