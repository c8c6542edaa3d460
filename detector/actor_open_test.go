package detector

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

// grantAdvised makes an account that has what MHA's advice takes and no more.
func (s *dbServer) grantAdvised() {
	s.t.Helper()
	family := MariaDB
	if s.kind.flavour == gtid.MySQL {
		family = MySQL80
	}
	s.exec("CREATE USER advised@'%' IDENTIFIED BY '" + testPassword + "'")
	for _, g := range family.Grants(core.Follow, true, false, "advised", "%", "") {
		s.exec(strings.TrimSuffix(g, ";"))
	}
}

func (s *dbServer) advised() *Actor {
	s.t.Helper()
	return s.actor(func(c *ActorConfig) { c.User = "advised" })
}

func keep(undo bool) core.PromoteServer {
	return core.PromoteServer{Group: "g", Epoch: 3, NotAfter: soon(5 * time.Second), Keep: true, Undo: undo}
}

// A server that was made read-only for a planned change becomes writable again, unless MHA holds a lock on it or it has a source
// by now. The account needs no more than what is said of it.
func TestAReadOnlyStateIsUndone(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		source, s := newDBServer(t, k, 1), newDBServer(t, k, 2)
		s.grantAdvised()
		a := s.advised()
		c, err := s.client().Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, statement := range []string{"BEGIN", "INSERT INTO d.t VALUES (7)"} {
			if _, err := c.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		if d := a.Demote(t.Context(), core.DemoteServer{Group: "g", Epoch: 2, Drain: 50 * time.Millisecond}); d.Err != "" || !s.readOnly() {
			t.Fatalf("demoted: %+v", d)
		}
		if _, err := c.ExecContext(t.Context(), "COMMIT"); err == nil {
			t.Error("the transaction of a client goes on")
		}

		db := s.db("root", "")
		defer db.Close()
		lock, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{mhaMonitorLock, mhaFailoverLock} {
			if _, err := lock.ExecContext(t.Context(), "DO GET_LOCK(?, 0)", name); err != nil {
				t.Fatal(err)
			}
			if p := a.Promote(t.Context(), keep(true)); !strings.Contains(p.Err, "MHA's locks") || s.writable() {
				t.Errorf("with %s held: %+v", name, p)
			}
			if _, err := lock.ExecContext(context.Background(), "DO RELEASE_LOCK(?)", name); err != nil {
				t.Fatal(err)
			}
		}

		s.exec(s.changeSource(source))
		if p := a.Promote(t.Context(), keep(true)); !strings.Contains(p.Err, "replicates from") || s.writable() {
			t.Errorf("with a source: %+v", p)
		}
		s.exec(s.resetReplica())
		if p := a.Promote(t.Context(), keep(true)); p.Err != "" || p.Late || !s.writable() {
			t.Errorf("undone: %+v", p)
		}
	})
}

// At MHA's start the server keeps its stopped replication, which MHA ends last. An applier that runs says that MHA is not there yet.
func TestAServerIsOpenedWithItsReplicationKept(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		primary, s := pair(t, k)
		primary.grantAdvised()
		primary.exec("INSERT INTO d.t VALUES (2)")
		s.hasRow(2)
		a := s.advised()
		if p := a.Promote(t.Context(), keep(false)); !strings.Contains(p.Err, "applier") || s.writable() {
			t.Errorf("while it applies: %+v", p)
		}
		word := "REPLICA"
		if k.flavour == gtid.MariaDB {
			word = "SLAVE"
		}
		s.exec("STOP " + word + " SQL_THREAD")
		late := keep(false)
		late.NotAfter = soon(-time.Millisecond)
		if p := a.Promote(t.Context(), late); !p.Late || s.writable() {
			t.Errorf("too late: %+v", p)
		}
		if p := a.Promote(t.Context(), keep(false)); p.Err != "" || p.Late || !s.writable() {
			t.Errorf("opened: %+v", p)
		}
		if s.status(a) == "" {
			t.Error("the replication is gone")
		}
	})
}

// changeSource names a source without starting to replicate from it.
func (s *dbServer) changeSource(source *dbServer) string {
	if s.kind.flavour == gtid.MySQL {
		return "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = " + source.portText()
	}
	return "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = " + source.portText()
}

func (s *dbServer) resetReplica() string {
	if s.kind.flavour == gtid.MySQL {
		return "RESET REPLICA ALL"
	}
	return "RESET SLAVE ALL"
}
