package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// semiSync returns the kinds of server with semi-synchronous replication as zero loss asks for it: an acknowledgement comes
// before the commit is visible, is waited for also while nobody replicates, and for longer than a failure takes to be noticed.
// The wait is off at first, because a replica would wait with each transaction that it applies.
func semiSync() []flavour {
	const mariadb = `rpl_semi_sync_slave_enabled = ON
rpl_semi_sync_master_wait_point = AFTER_SYNC
rpl_semi_sync_master_wait_no_slave = ON
rpl_semi_sync_master_timeout = 60000`
	const mysql = `plugin_load_add = semisync_source.so
plugin_load_add = semisync_replica.so
rpl_semi_sync_replica_enabled = ON
rpl_semi_sync_source_wait_point = AFTER_SYNC
rpl_semi_sync_source_wait_no_replica = ON
rpl_semi_sync_source_timeout = 60000`
	return []flavour{{"MariaDB", lab.MariaDB{Extra: mariadb}, "mariadb"}, {"MySQL", lab.MySQL{Extra: mysql}, "mysql80"}}
}

// With semi-synchronous replication no row that was acknowledged is lost, however the primary ends, and the daemon says so where
// it can know it. It runs alone: on a server that is late to tell how its commits wait, the daemon rightly promises nothing.
func TestSemiSyncLosesNothing(t *testing.T) {
	for _, f := range semiSync() {
		t.Run(f.name, func(t *testing.T) {
			l := replicas(t, f, "max_lost_transactions = 100000")
			w := write(t, l)
			following(t, l, l.Holder(l.VIP()))
			behind := whatNobodyReceivesIsNotAcknowledged(t, f, l, w)
			theReplicaThatAcknowledgedIsChosen(t, l, w, behind)
			theOwnersNodeIsCutOff(t, f, l, w)
			neverTwo(t, l)
		})
	}
}

// While no replica receives anything nothing is acknowledged, which the rest of the test rests on. Then one receives again; the
// other one is returned.
func whatNobodyReceivesIsNotAcknowledged(t *testing.T, f flavour, l *lab.Lab, w *writer) (behind *lab.Node) {
	owner := l.Holder(l.VIP())
	waitsForReplicas(t, f, l.Node(owner), "2")
	w.goesOn(t, "at "+owner)
	rs := others(l, owner)
	for _, n := range rs {
		must(t, n.Exec(within(t), "STOP REPLICA IO_THREAD"))
	}
	const quiet = 300 * time.Millisecond
	eventually(t, "nothing is acknowledged any more", func() bool {
		rows := w.rows()
		return time.Since(rows[len(rows)-1].at) > quiet
	})
	must(t, rs[1].Exec(within(t), "START REPLICA IO_THREAD"))
	w.goesOn(t, "although "+rs[0].Name+" receives nothing")
	return rs[0]
}

// The primary's server is killed while one of two replicas receives nothing: the other has all that was acknowledged.
func theReplicaThatAcknowledgedIsChosen(t *testing.T, l *lab.Lab, w *writer, behind *lab.Node) {
	old := l.Holder(l.VIP())
	eventually(t, "the status says how the commits of "+old+" wait", func() bool {
		s, err := behind.Status(within(t))
		return err == nil && slices.ContainsFunc(s.Nodes, func(n lab.NodeStatus) bool {
			if n.Name != old || n.MySQL == nil || n.MySQL.SemiSync == nil {
				return false
			}
			s := n.MySQL.SemiSync // a server still counts a replica that has gone until it notices
			return s.Waits && s.Acks == 1 && s.Replicas == 1
		})
	})
	next, _ := w.killed(t, l, old)
	if next == behind.Name {
		t.Errorf("%s was chosen, which had not received what was acknowledged", next)
	}
	w.losesNothing(t, l, next)
	if !saysNothingIsLost(t, l, next) {
		t.Errorf("it was not said that %s has all that was acknowledged", next)
	}
	following(t, l, next, old)
}

// The whole node of the next primary is cut off, in the middle of the load. The server of the first one is dead, and the daemon can
// not know that it had acknowledged nothing: it says how much may be lost, and nothing is.
func theOwnersNodeIsCutOff(t *testing.T, f flavour, l *lab.Lab, w *writer) {
	old := l.Holder(l.VIP())
	waitsForReplicas(t, f, l.Node(old), "1")
	w.goesOn(t, "at "+old)
	start := time.Now()
	must(t, l.Drop(old, lab.Both))
	next, err := l.WaitMoved(within(t), old)
	must(t, err)
	w.goesOn(t, "at "+next)
	t.Logf("%s cut off: %v without an acknowledged row\n%s", old, w.gap(start), phases(t, l, start))
	w.losesNothing(t, l, next)
	if saysNothingIsLost(t, l, next) {
		t.Errorf("it was said that nothing is lost although one of two replicas of %s had not answered", old)
	}
}

// saysNothingIsLost reports whether the arbiter said, when it chose a node, that nothing acknowledged is lost.
func saysNothingIsLost(t *testing.T, l *lab.Lab, chosen string) bool {
	t.Helper()
	return slices.ContainsFunc(l.Nodes(), func(n *lab.Node) bool {
		return logged(t, n, `"`+chosen+` is chosen"`, "nothing that was acknowledged is lost, unless by a replica outside of the cluster: commits waited for 1 of 2 replicas, and 2 have answered")
	})
}

func (w *writer) losesNothing(t *testing.T, l *lab.Lab, at string) {
	t.Helper()
	if lost := w.lost(t, l.Node(at)); len(lost) > 0 {
		t.Errorf("of %d acknowledged rows %d are lost: %v", len(w.rows()), len(lost), lost)
	}
}

// waitsForReplicas switches the wait for replicas on and returns when a number of them acknowledge.
func waitsForReplicas(t *testing.T, f flavour, n *lab.Node, replicas string) {
	t.Helper()
	word := map[string]string{"mariadb": "master", "mysql80": "source"}[f.family]
	must(t, n.Exec(within(t), "SET GLOBAL rpl_semi_sync_"+word+"_enabled = ON"))
	db, err := n.Admin()
	must(t, err)
	defer db.Close()
	for name, want := range map[string]string{"status": "ON", "clients": replicas} {
		name = "Rpl_semi_sync_" + word + "_" + name
		eventually(t, name+" of "+n.Name+" is "+want, func() bool {
			var value string
			must(t, db.QueryRowContext(within(t), "SHOW GLOBAL STATUS LIKE '"+name+"'").Scan(&name, &value))
			return value == want
		})
	}
}
