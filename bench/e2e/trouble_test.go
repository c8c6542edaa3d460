package e2e

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// A backup that holds FLUSH TABLES WITH READ LOCK is no failure. On the target of a switchover it keeps the applier back: that is
// aborted in time, the lock is named, and the old primary goes on. On the primary it is in nobody's way, and goes on.
func backupsLocksCostNoAddress(t *testing.T, l *lab.Lab, w *writer) {
	const named = "FLUSH TABLES WITH READ LOCK"
	owner := l.Holder(l.VIP())
	to := others(l, owner)[0].Name
	before, err := l.Node(to).Status(within(t))
	must(t, err)
	stays := func(what string) {
		t.Helper()
		now, err := l.Node(to).Status(within(t))
		must(t, err)
		if b, n := before.Group(lab.Group), now.Group(lab.Group); n.Epoch != b.Epoch || n.Owner != owner {
			t.Fatalf("%s: the group went from %s, epoch %d, to %s, epoch %d", what, b.Owner, b.Epoch, n.Owner, n.Epoch)
		}
	}

	backup := readLock(t, l.Node(owner))
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		stays("a lock on the primary")
	}
	backup.Close()
	w.goesOn(t, "after the backup on the primary")
	following(t, l, owner)

	backup = readLock(t, l.Node(to))
	began := time.Now()
	if err = l.Switchover(within(t), to); err == nil || !strings.Contains(err.Error(), named) {
		t.Errorf("a switchover to a server with a backup's lock: after %v %v, which does not name the lock", time.Since(began), err)
	}
	for _, stage := range []string{owner + " becomes read-only, its transactions end", to + " applies what it has not yet (after "} {
		if !strings.Contains(fmt.Sprint(err), stage) {
			t.Errorf("the stage %q was not printed: %v", stage, err)
		}
	}
	t.Logf("a switchover to %s with a backup's lock ended after %v", to, time.Since(began).Round(time.Millisecond))
	stays("a lock on the target")
	w.goesOn(t, "although a backup holds the target")
	backup.Close()
	following(t, l, owner)

	backup = readLock(t, l.Node(owner))
	own := session(t, backup)
	began = time.Now()
	eventually(t, "a switchover to "+to+" is taken", func() bool {
		err := l.Switchover(within(t), to)
		if err != nil && !strings.Contains(err.Error(), "refused") {
			t.Fatal(err)
		}
		return err == nil // it is refused until the target has caught up after its own backup
	})
	t.Logf("a switchover from %s with a backup's lock took %v", owner, time.Since(began).Round(time.Millisecond))
	if now := session(t, backup); now != own {
		t.Errorf("the session %s of the backup was ended by the switchover, it is %s now", own, now)
	}
	backup.Close()
	w.goesOn(t, "at "+to)
	following(t, l, to)
}

// readLock takes a backup's lock on a node's server and holds it until its connection is closed.
func readLock(t *testing.T, n *lab.Node) *sql.DB {
	t.Helper()
	db, err := n.Admin()
	must(t, err)
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(within(t), "FLUSH TABLES WITH READ LOCK")
	must(t, err)
	return db
}

// session is the server's number of a handle's only connection.
func session(t *testing.T, db *sql.DB) (id string) {
	t.Helper()
	must(t, db.QueryRowContext(within(t), "SELECT CONNECTION_ID()").Scan(&id))
	return id
}
