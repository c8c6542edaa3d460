package detector

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

// byMHA points a replica to its source as MHA does: by file and position.
func (s *dbServer) byMHA(source *dbServer, file, position string) {
	s.t.Helper()
	s.exec("STOP SLAVE", fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='%v', MASTER_PORT=%d, MASTER_USER='%s', MASTER_PASSWORD='%s', "+
		"MASTER_LOG_FILE='%s', MASTER_LOG_POS=%s, MASTER_SSL=0", source.address().Addr(), source.address().Port(), replUser, testPassword, file, position),
		"START SLAVE")
	if s.replica()["using_gtid"] != "No" {
		s.t.Fatal("it still replicates by GTID")
	}
}

// replica returns the replica status.
func (s *dbServer) replica() (r row) {
	s.t.Helper()
	a := s.actor()
	if err := a.with(s.t.Context(), a.work, func(l *line) (err error) {
		r, err = l.one(s.t.Context(), l.dialect.askReplica())
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// place returns where a server's binary log ends.
func (s *dbServer) place() (file, position string) {
	s.t.Helper()
	db := s.db("root", "")
	defer db.Close()
	var do, ignore string
	if err := db.QueryRow("SHOW MASTER STATUS").Scan(&file, &position, &do, &ignore); err != nil {
		s.t.Fatal(err)
	}
	return file, position
}

// A replica that MHA has left by file and position goes on by GTID and loses and repeats nothing; so does a former primary,
// whose own transactions are not in its gtid_slave_pos. What is by GTID already is left alone.
func TestAReplicaOfMHAGoesOnByGTID(t *testing.T) {
	primary, replica := pair(t, kind{"MariaDB", gtid.MariaDB})
	file, position := primary.place()
	replica.byMHA(primary, file, position)
	primary.exec("INSERT INTO d.t VALUES (2)")
	replica.hasRow(2)
	use := func(s *dbServer, row int, source *dbServer) {
		t.Helper()
		done, err := s.actor().UseGTID(t.Context())
		if err != nil || done.Source != source.address().String() || done.Position == "" {
			t.Fatalf("%+v, %v", done, err)
		}
		source.exec(fmt.Sprintf("INSERT INTO d.t VALUES (%d)", row))
		s.hasRow(row)
		if r := s.replica(); r["using_gtid"] != "Slave_Pos" || s.executed() != source.executed() {
			t.Errorf("Using_Gtid is %s; %s, and the source %s", r["using_gtid"], s.executed(), source.executed())
		}
		if again, err := s.actor().UseGTID(t.Context()); err != nil || again.Position != "" {
			t.Errorf("again: %+v, %v", again, err)
		}
	}
	use(replica, 3, primary)

	// The two change places, as after masterha_master_switch --orig_master_is_new_slave.
	primary.exec("SET GLOBAL read_only = 1")
	file, position = replica.place()
	replica.exec("STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0")
	primary.byMHA(replica, file, position)
	use(primary, 4, replica)
}

// Where the two positions may not be the same place nothing is changed, and what ran goes on.
func TestNoGTIDWhereItIsNotSafe(t *testing.T) {
	primary, replica := pair(t, kind{"MariaDB", gtid.MariaDB})
	refused := func(what, want string, s *dbServer) {
		t.Helper()
		done, err := s.actor().UseGTID(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || done.Position != "" {
			t.Errorf("%s: %+v, %v, want %q", what, done, err, want)
		}
	}
	refused("a primary", "has 0 sources", primary)
	file, position := primary.place()
	replica.byMHA(primary, file, position)

	replica.exec("SET GLOBAL read_only = 0")
	refused("a writable replica", "the server is writable", replica)
	replica.exec("SET GLOBAL read_only = 1", "STOP SLAVE SQL_THREAD")
	refused("one whose applier stands still", "does not run", replica)
	replica.exec("START SLAVE SQL_THREAD")

	// Position and GTIDs are different places: it says that it has something of a domain that the source does not know, and by
	// GTID would be refused.
	replica.exec("STOP SLAVE", "SET GLOBAL gtid_slave_pos = '"+replica.executed()+",7-9-1'", "START SLAVE")
	until(t, 10*time.Second, "it replicates", func() bool { return replica.replica()["replica_io_running"] == "Yes" })
	refused("one with a position that the source has not", "it has executed", replica)
	if r := replica.replica(); r["using_gtid"] != "No" {
		t.Errorf("Using_Gtid is %s", r["using_gtid"])
	}
	primary.exec("INSERT INTO d.t VALUES (3)")
	replica.hasRow(3)

	replica.exec("INSERT INTO d.t VALUES (99)")
	refused("one with a transaction of its own", "build it anew", replica)
	primary.exec("INSERT INTO d.t VALUES (4)")
	replica.hasRow(4)
}

// The status says when a replica that was by GTID is so no more, and no longer when it is again. One that never was has been
// made so by somebody who knows.
func TestAReplicaThatLosesItsGTIDIsAnAlarm(t *testing.T) {
	primary, replica := pair(t, kind{"MariaDB", gtid.MariaDB})
	watchIt := func() *watcher {
		return watch(t, Config{Address: replica.address().String(), User: promoteUser, Timing: lan(t),
			Password: func() (string, error) { return testPassword, nil }})
	}
	w := watchIt()
	alarmed := func(h core.Health) bool { return len(h.Alarms) == 1 && h.Alarms[0] == byPosition }
	w.wait(10*time.Second, "replicates", func(h core.Health) bool { return h.Replicating == core.Yes && len(h.Alarms) == 0 })
	file, position := primary.place()
	replica.byMHA(primary, file, position)
	w.wait(10*time.Second, "is an alarm", alarmed)
	other := watchIt()
	other.wait(10*time.Second, "replicates", func(h core.Health) bool { return h.Replicating == core.Yes && len(h.Alarms) == 0 })
	if _, err := replica.actor().UseGTID(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wait(10*time.Second, "is none any more", func(h core.Health) bool { return h.Replicating == core.Yes && len(h.Alarms) == 0 })
}
