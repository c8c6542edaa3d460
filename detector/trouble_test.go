package detector

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

// What goes wrong with a server as a rule has a defined outcome on every kind of server, and a message that names it: the table in
// docs/mysql.md. One server of each kind goes through all of it.
func TestTroubles(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newDBServer(t, k, 1, "--max-connections=20", "--read-only=ON")
		s.ontoDisk(192)
		s.exec("SET GLOBAL read_only = OFF")
		w := watch(t, Config{Address: s.address().String(), User: promoteUser, Policy: core.Promote, Timing: lan(t)})
		w.waitState(core.Healthy)
		for _, test := range []struct {
			what string
			run  func(*testing.T, *dbServer, *watcher)
		}{
			{"wrong password", aWrongPassword}, {"account locked", aLockedAccount}, {"privilege revoked", aRevokedPrivilege},
			{"all connections taken", allConnectionsAreTaken}, {"read lock", aReadLock}, {"disk full", aFullDisk},
			{"accepts and hangs", aServerThatHangs}, {"recovery", aServerInRecovery},
		} {
			w.wait(20*time.Second, "healthy, writable and without an alarm before "+test.what, func(h core.Health) bool {
				return h.State == core.Healthy && h.Writable == core.Yes && len(h.Alarms) == 0
			})
			if !t.Run(test.what, func(t *testing.T) { test.run(t, s, w) }) {
				return
			}
		}
	})
}

// alarmed waits for an alarm with a text, and checks that the server was not taken for a failed one since an event.
func (w *watcher) alarmed(t *testing.T, from int, text string) {
	t.Helper()
	w.wait(20*time.Second, "the alarm "+text, func(h core.Health) bool { return strings.Contains(strings.Join(h.Alarms, "\n"), text) })
	w.never(from, core.Failed)
}

func aWrongPassword(t *testing.T, s *dbServer, _ *watcher) {
	var password atomic.Value
	password.Store("wrong")
	w := watch(t, Config{Address: s.address().String(), User: promoteUser, Timing: lan(t), Password: func() (string, error) { return password.Load().(string), nil }})
	w.alarmed(t, 0, "error 1045: access denied: wrong user or password")
	password.Store(testPassword)
	w.wait(10*time.Second, "all is well", func(h core.Health) bool { return h.Writable == core.Yes && len(h.Alarms) == 0 })
}

func aLockedAccount(t *testing.T, s *dbServer, w *watcher) {
	from := w.count()
	s.exec("ALTER USER " + promoteUser + "@'%' ACCOUNT LOCK")
	s.endSessions()
	w.alarmed(t, from, "the account is locked: ALTER USER")
	s.exec("ALTER USER " + promoteUser + "@'%' ACCOUNT UNLOCK")
}

func aRevokedPrivilege(t *testing.T, s *dbServer, w *watcher) {
	from := w.count()
	s.exec("REVOKE RELOAD ON *.* FROM " + promoteUser + "@'%'")
	s.endSessions()
	w.alarmed(t, from, "the account lacks RELOAD for policy promote: see 'remora mysql grants'")
	s.exec("GRANT RELOAD ON *.* TO " + promoteUser + "@'%'")
	s.endSessions()
}

// endSessions ends the connections of the account: a server gives what has changed to new ones.
func (s *dbServer) endSessions() {
	s.t.Helper()
	db := s.db("root", "")
	defer db.Close()
	rows, err := db.Query("SELECT id FROM information_schema.processlist WHERE user = '" + promoteUser + "'")
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			s.t.Fatal(err)
		}
		_, _ = db.Exec("KILL " + id) // it may have ended by itself
	}
}

// The connection that the daemon has goes on; a daemon that starts now is told.
func allConnectionsAreTaken(t *testing.T, s *dbServer, w *watcher) {
	from := w.count()
	root := s.db("root", "")
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		c, err := root.Conn(ctx)
		cancel()
		if err != nil {
			break // full, the slot of the superuser included
		}
		defer c.Close()
	}
	watch(t, Config{Address: s.address().String(), User: promoteUser, Timing: lan(t)}).alarmed(t, 0, "error 1040: too many connections: raise max_connections")
	w.never(from, core.Failed)
	root.Close()
}

// A backup's lock is no failure, on a primary as little as on a replica.
func aReadLock(t *testing.T, s *dbServer, w *watcher) {
	from := w.count()
	backup, writer := s.client(), s.client()
	mustExec(t, backup, "FLUSH TABLES WITH READ LOCK")
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if _, err := writer.ExecContext(ctx, "INSERT INTO d.t VALUES (77)"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a write under the lock: %v", err)
	}
	w.never(from, core.Failed)
	if h := w.last(); h.Writable != core.Yes || len(h.Alarms) != 0 {
		t.Errorf("under the lock the server is %+v", h.Health)
	}
	mustExec(t, backup, "UNLOCK TABLES")
}

// The server answers, and each write waits for somebody to make room: an alarm and no failure. It can be made read-only, for which
// the sessions that wait are ended; MySQL ends itself then, rather than lose what belongs into the binary log
// (binlog_error_action).
func aFullDisk(t *testing.T, s *dbServer, w *watcher) {
	from := w.count()
	filler := filepath.Join(s.dir, "data", "filler")
	fill(t, filler)
	c := s.client()
	for i := 1000; ; i++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := c.ExecContext(ctx, fmt.Sprintf("INSERT INTO d.t VALUES (%d)", i))
		cancel()
		if err != nil {
			break // it waits, or was refused
		}
	}
	w.alarmed(t, from, filepath.Join(s.dir, "data")+" has less than 32 MiB left")
	began := time.Now()
	d := s.actor().Demote(t.Context(), core.DemoteServer{})
	t.Logf("made read-only in %v: %q", time.Since(began).Round(time.Millisecond), d.Err)
	if time.Since(began) > 15*time.Second {
		t.Errorf("that took %v", time.Since(began))
	}
	gone := d.Err != "" && s.kind.flavour == gtid.MySQL
	if d.Err != "" && !gone {
		t.Errorf("with a full disk the server was not made read-only: %s", d.Err)
	}
	if gone {
		w.waitState(core.Failed)
		s.kill()
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if gone {
		s.start()
	}
	s.exec("SET GLOBAL read_only = OFF")
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
}

func aServerThatHangs(t *testing.T, s *dbServer, w *watcher) {
	s.stop()
	if h := w.waitState(core.Failed); !strings.Contains(h.Reason, "no answer within") {
		t.Errorf("a server that accepts connections and hangs: %q", h.Reason)
	}
	s.signal(syscall.SIGCONT)
}

// The server was killed and recovers. For a test that takes too short a time, so it is stopped as soon as it has begun.
func aServerInRecovery(t *testing.T, s *dbServer, w *watcher) {
	s.kill()
	w.waitState(core.Failed)
	before := s.logSize()
	s.launch()
	until(t, 20*time.Second, "the server has begun to start", func() bool { return s.logSize() > before })
	s.stop()
	w.wait(20*time.Second, "the process that does not listen is named", func(h core.Health) bool {
		return h.State == core.Failed && strings.Contains(strings.Join(h.Alarms, "\n"),
			fmt.Sprintf("(pid %d) runs and does not listen yet: it starts, or recovers from a crash", s.cmd.Process.Pid))
	})
	s.signal(syscall.SIGCONT)
	s.waitAnswer()
	w.waitState(core.Healthy)
}

// logSize is the length of the server's error log. MariaDB gives the file a suffix.
func (s *dbServer) logSize() (size int64) {
	for _, name := range []string{"log", "log.err"} {
		if info, err := os.Stat(filepath.Join(s.dir, name)); err == nil {
			size += info.Size()
		}
	}
	return size
}

// ontoDisk moves the server's data to a file system of its own, of so many MiB.
func (s *dbServer) ontoDisk(mib int) {
	s.t.Helper()
	s.kill()
	data := filepath.Join(s.dir, "data")
	if err := errors.Join(os.Rename(data, data+".old"), os.Mkdir(data, 0o700)); err != nil {
		s.t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", data, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		s.t.Fatalf("mount a file system for the server, as root: %v", err)
	}
	s.t.Cleanup(func() {
		s.kill()
		if err := unix.Unmount(data, unix.MNT_DETACH); err != nil {
			s.t.Errorf("unmount %s: %v", data, err)
		}
	})
	if err := os.CopyFS(data, os.DirFS(data+".old")); err != nil {
		s.t.Fatal(err)
	}
	s.start()
}

// A replica on which a backup holds its lock can not apply. That ends in time, and the lock is named.
func TestAReadLockOnAReplicaIsNamed(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		primary, replica := pair(t, k)
		mustExec(t, replica.client(), "FLUSH TABLES WITH READ LOCK")
		primary.exec("INSERT INTO d.t VALUES (2)")
		const within = 1500 * time.Millisecond
		a := replica.actor()
		check := func(what, err string, took time.Duration) {
			t.Helper()
			if !strings.Contains(err, "1 transactions are missing") || !strings.Contains(err, "FLUSH TABLES WITH READ LOCK") || took > within+3*time.Second {
				t.Errorf("%s: after %v %q", what, took, err)
			}
		}
		began := time.Now()
		c := a.CatchUp(t.Context(), core.CatchUpServer{Executed: primary.executed(), Within: within})
		check("catch up", c.Err, time.Since(began))
		began = time.Now()
		if f := a.Freeze(t.Context(), core.FreezeServer{}); f.Err != "" || time.Since(began) > 3*time.Second {
			t.Errorf("freeze: after %v %+v", time.Since(began), f)
		}
		began = time.Now()
		p := a.Promote(t.Context(), core.PromoteServer{ApplyWithin: within, NotAfter: bootClock().Add(time.Minute)})
		check("promote", p.Err, time.Since(began))
		if !replica.readOnly() {
			t.Error("the replica was made writable")
		}
	})
}
