//go:build long

// What make test has no time for; make matrix runs it.

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// The measured lag of a replica is compared with what the writer knows: how long ago the oldest row was acknowledged that the
// replica lacks. A lock keeps the applier back, then a delay that it was given, and the other replica is never behind.
func TestMeasuredLag(t *testing.T) {
	for _, f := range flavours() {
		t.Run(f.name, func(t *testing.T) {
			l, primary, one, two := laggingLab(t, f)
			w := write(t, l)
			r := read(t, l)
			even := r.come(t, l, one.Name, two.Name)
			catchesUp(t, w, primary, one)
			catchesUp(t, w, primary, two)

			lock := locked(t, one)
			eventually(t, "the applier of "+one.Name+" is far behind", func() bool {
				w.judge(t, primary, two)
				return w.judge(t, primary, one) >= 6*time.Second
			})
			stayed(t, even, r.come(t, l, two.Name), one.Name)
			lock.Close()
			catchesUp(t, w, primary, one)
			r.come(t, l, one.Name, two.Name)

			const late = 8 * time.Second
			delay(t, f, one, late)
			eventually(t, one.Name+" applies with its delay", func() bool { return w.judge(t, primary, one) >= late-worst })
			least, most := late, time.Duration(0)
			for end := time.Now().Add(late); time.Now().Before(end); {
				w.judge(t, primary, two)
				m := w.judge(t, primary, one)
				least, most = min(least, m), max(most, m)
			}
			t.Logf("%s applies %v late: measured were %v to %v", one.Name, late, least, most)
			if least < late-worst || most > late+time.Second {
				t.Errorf("the applier of %s is %v late, and measured were %v to %v", one.Name, late, least, most)
			}
			r.come(t, l, two.Name)
			delay(t, f, one, 0)
			catchesUp(t, w, primary, one)
			r.come(t, l, one.Name, two.Name)
		})
	}
}

// worst is how much less is measured than is: what is known of the two servers may be 3 s old, it is told in whole seconds, and
// the cores are busy.
const worst = 5 * time.Second

// judge returns the measured lag of a node, after it has compared it with what the writer knows.
func (w *writer) judge(t *testing.T, at, n *lab.Node) time.Duration {
	t.Helper()
	before := w.behind(t, n)
	m, known := measured(t, at, n.Name)
	after := w.behind(t, n)
	if !known {
		t.Fatalf("the lag of %s, which is %v, is not measured", n.Name, after)
	}
	if m > max(before, after)+time.Second || m < min(before, after)-worst {
		t.Fatalf("the measured lag of %s is %v, and it was %v before and %v after that", n.Name, m, before, after)
	}
	return m
}

// behind returns how long ago the oldest row was acknowledged that a node's server lacks.
func (w *writer) behind(t *testing.T, n *lab.Node) time.Duration {
	t.Helper()
	rows := w.rows()
	db, err := n.Admin()
	must(t, err)
	defer db.Close()
	var last int
	must(t, db.QueryRowContext(within(t), fmt.Sprintf("SELECT COALESCE(MAX(n), 0) FROM %s.acked", lab.Schema)).Scan(&last))
	for _, r := range rows {
		if r.n > last {
			return time.Since(r.at)
		}
	}
	return 0
}

// catchesUp waits until a node's server lacks little, and the measured lag says so.
func catchesUp(t *testing.T, w *writer, at, n *lab.Node) {
	t.Helper()
	eventually(t, n.Name+" has caught up", func() bool {
		m, known := measured(t, at, n.Name)
		return known && m == 0 && w.behind(t, n) < time.Second
	})
}

// delay makes a node's applier work so much later than the primary.
func delay(t *testing.T, f flavour, n *lab.Node, late time.Duration) {
	t.Helper()
	words := map[string]string{"mariadb": "MASTER TO MASTER_DELAY", "mysql80": "REPLICATION SOURCE TO SOURCE_DELAY"}[f.family]
	must(t, n.Exec(within(t), "STOP REPLICA", fmt.Sprintf("CHANGE %s = %d", words, int(late.Seconds())), "START REPLICA"))
}
