package detector

import (
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

// With semi-sync a replica of MariaDB dials its source once more when its receiver is stopped. A source that does not answer must not
// keep a choice waiting for that.
func TestAStoppedReceiverDoesNotWaitForADeadSource(t *testing.T) {
	k := kind{"MariaDB", gtid.MariaDB}
	primary := newDBServer(t, k, 1)
	replica := newDBServer(t, k, 2, "--"+farewell+"=20")
	replica.follow(primary)
	a := replica.actor()
	a.Freeze(t.Context(), core.FreezeServer{})
	setting := func(want string) {
		t.Helper()
		if got := replica.value("SELECT @@global." + farewell); got != want {
			t.Errorf("the replica dials its source for %s s, want %s", got, want)
		}
	}
	setting("20") // without semi-sync it is not touched

	primary.exec("SET GLOBAL rpl_semi_sync_master_enabled = ON")
	replica.exec("SET GLOBAL rpl_semi_sync_slave_enabled = ON", "START SLAVE")
	primary.exec("INSERT INTO d.t VALUES (1)")
	replica.hasRow(1)
	primary.stop()
	began := time.Now()
	f := a.Freeze(t.Context(), core.FreezeServer{})
	took := time.Since(began)
	t.Logf("frozen after %v", took.Round(time.Millisecond))
	if f.Err != "" || took > 10*time.Second {
		t.Errorf("frozen after %v: %+v", took, f)
	}
	setting("1")
}
