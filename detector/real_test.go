package detector

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

func median(ds []time.Duration) time.Duration {
	slices.Sort(ds)
	return ds[len(ds)/2]
}

func TestAKilledServerIsSeenAtOnceAndItsReturnToo(t *testing.T) {
	m := newMariaDB(t)
	for _, address := range []string{m.address(), "unix:" + m.socket()} {
		network, _, _ := strings.Cut(address, ":")
		t.Run(network, func(t *testing.T) {
			var log lockedLog
			w := watch(t, Config{Address: address, Timing: lan(t), Logger: log.logger()})
			var took []time.Duration
			for range 10 {
				w.waitState(core.Healthy)
				until(t, 20*time.Second, "the process is watched", func() bool {
					return strings.Contains(log.String(), fmt.Sprintf("watching the server's process\" pid=%d ", m.cmd.Process.Pid))
				})
				t0 := time.Now()
				m.signal(syscall.SIGKILL)
				h := w.waitState(core.Failed)
				took = append(took, h.at.Sub(t0))
				// On a busy machine it is gone before anybody looks how it goes, or is seen when the kernel has noted that it goes and not
				// yet by what.
				name := fmt.Sprintf("mariadbd (pid %d) ", m.cmd.Process.Pid)
				if !strings.HasPrefix(h.Reason, name+"is exiting") && h.Reason != name+"has ended, signal 9" {
					t.Errorf("reason %q does not name the exit", h.Reason)
				}
				m.kill()
				m.start()
			}
			w.waitState(core.Healthy)
			t.Logf("kill -9 to event, 10 runs: p50 %v, longest %v", median(took), took[len(took)-1])
			if median(took) > 100*time.Millisecond {
				t.Errorf("p50 %v: no event told it", median(took))
			}
		})
	}
}

func TestAShutdownIsSeen(t *testing.T) {
	m := newMariaDB(t)
	w := watch(t, Config{Address: m.address(), Timing: lan(t)})
	w.waitState(core.Healthy)
	m.signal(syscall.SIGTERM)
	h := w.waitState(core.Failed)
	t.Logf("reason: %s", h.Reason)
}

func TestAStoppedServerFailsAndComesBack(t *testing.T) {
	m := newMariaDB(t)
	w := watch(t, Config{Address: m.address(), Timing: lan(t)})
	w.waitState(core.Healthy)
	for range 3 {
		t0 := time.Now()
		m.signal(syscall.SIGSTOP)
		h := w.waitState(core.Failed)
		t.Logf("SIGSTOP to event: %v: %s", h.at.Sub(t0), h.Reason)
		if !strings.Contains(h.Reason, "no answer within") {
			t.Errorf("reason %q", h.Reason)
		}
		time.Sleep(300 * time.Millisecond)
		t0 = time.Now()
		m.signal(syscall.SIGCONT)
		t.Logf("SIGCONT to event: %v", w.waitState(core.Healthy).at.Sub(t0))
	}
}

func TestAWrongPasswordIsAnAlarmUntilItIsRight(t *testing.T) {
	m := newMariaDB(t)
	var password atomic.Value
	password.Store("wrong")
	w := watch(t, Config{Address: m.address(), Timing: lan(t), Password: func() (string, error) { return password.Load().(string), nil }})
	h := w.waitState(core.Healthy)
	if h.Writable != core.Unknown || len(h.Alarms) != 1 || !strings.HasPrefix(h.Alarms[0], "error 1045: access denied") {
		t.Fatalf("%+v", h)
	}
	time.Sleep(200 * time.Millisecond)
	password.Store(testPassword)
	w.wait(5*time.Second, "no alarm", func(h core.Health) bool { return len(h.Alarms) == 0 && h.Writable == core.Yes })
	m.exec("ALTER USER remora@'%' ACCOUNT LOCK", "KILL USER remora")
	w.wait(5*time.Second, "an alarm", func(h core.Health) bool {
		return len(h.Alarms) == 1 && strings.HasPrefix(h.Alarms[0], "error 4151: the account is locked")
	})
	w.never(0, core.Failed)
	m.signal(syscall.SIGKILL)
	if h := w.waitState(core.Failed); !strings.Contains(h.Reason, "is exiting") {
		t.Errorf("reason %q: the process must be watched although nobody logs in", h.Reason)
	}
}

func TestTooManyConnections(t *testing.T) {
	m := newMariaDB(t, "--max-connections=10")
	w := watch(t, Config{Address: m.address(), Timing: lan(t)})
	w.waitState(core.Healthy)
	db := m.root()
	defer db.Close()
	for {
		c, err := db.Conn(t.Context())
		if err != nil {
			break // full, the reserved connection of the superuser included
		}
		defer c.Close()
	}
	time.Sleep(250 * time.Millisecond)
	if h := w.last(); len(h.Alarms) != 0 {
		t.Errorf("the connection that exists must go on: %+v", h)
	}
	second := watch(t, Config{Address: m.address(), Timing: lan(t)})
	if h := second.waitState(core.Healthy); len(h.Alarms) != 1 || !strings.HasPrefix(h.Alarms[0], "error 1040: too many connections") {
		t.Errorf("%+v", h)
	}
}

func TestAnOperatorsKillIsNoAlarm(t *testing.T) {
	m := newMariaDB(t)
	w := watch(t, Config{Address: m.address(), Timing: lan(t)})
	w.waitState(core.Healthy)
	// A connection that sleeps that long has answered its first probe.
	ours := "SELECT COALESCE(MAX(id), 0) FROM information_schema.processlist WHERE user = 'remora' AND command = 'Sleep' AND time_ms > 40"
	last := "0"
	for range 5 {
		var id string
		until(t, 5*time.Second, "another connection", func() bool { id = m.value(ours); return id != "0" && id != last })
		m.exec("KILL " + id)
		last = id
	}
	w.never(0, core.Failed)
	if n := w.count(); n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestReadOnlyIsFollowed(t *testing.T) {
	m := newMariaDB(t)
	w := watch(t, Config{Address: "unix:" + m.socket(), Timing: lan(t)})
	if h := w.waitState(core.Healthy); h.Writable != core.Yes || h.Source != "" || h.Replicating != core.No || !strings.HasPrefix(h.Version, "1") {
		t.Errorf("%+v", h)
	}
	for range 3 {
		m.exec("SET GLOBAL read_only = ON")
		w.wait(time.Second, "not writable", func(h core.Health) bool { return h.Writable == core.No })
		m.exec("SET GLOBAL read_only = OFF")
		w.wait(time.Second, "writable", func(h core.Health) bool { return h.Writable == core.Yes })
	}
}

// What the kernel shows and what the variables declare must be the same where both are plain.
func TestBindAddresses(t *testing.T) {
	tests := []struct{ arg, want string }{
		{"--bind-address=127.0.0.1", "127.0.0.1"},
		{"--bind-address=0.0.0.0", "0.0.0.0"},
		{"--bind-address=::", "0.0.0.0 ::"},
		{"--bind-address=*", "0.0.0.0 ::"},
		{"--bind-address=127.0.0.1,127.0.0.2", "127.0.0.1 127.0.0.2"},
		{noBindAddress, "0.0.0.0 ::"},
		{"--skip-networking", ""},
	}
	for _, test := range tests {
		t.Run(test.arg, func(t *testing.T) {
			t.Parallel()
			m := newMariaDB(t, test.arg)
			w := watch(t, Config{Address: "unix:" + m.socket(), Timing: lan(t)})
			h := w.waitState(core.Healthy)
			if want := addrs(test.want); !slices.Equal(h.Listens, want) || h.Listens == nil {
				t.Errorf("listens on %v, want %v", h.Listens, want)
			}
			declared := listens(map[string]string{"port": "1", "bind_address": m.value("SELECT COALESCE(@@global.bind_address, '*')"),
				"skip_networking": m.value("SELECT @@global.skip_networking")}, func(uint16) []netip.Addr { return nil })
			if !slices.Equal(declared, h.Listens) {
				t.Errorf("declared %v, seen %v", declared, h.Listens)
			}
		})
	}
}

func TestAReplicaIsDescribed(t *testing.T) {
	source := newMariaDB(t, "--server-id=1", "--log-bin=b")
	replica := newMariaDB(t, "--server-id=2", "--read-only")
	w := watch(t, Config{Address: replica.address(), Timing: lan(t)})
	if h := w.waitState(core.Healthy); h.Source != "" || h.Replicating != core.No || h.Lag >= 0 {
		t.Errorf("no replica yet: %+v", h)
	}
	source.exec("CREATE USER repl@'%' IDENTIFIED BY 'r'", "GRANT REPLICATION SLAVE ON *.* TO repl@'%'")
	replica.exec("SET GLOBAL gtid_slave_pos = '"+source.value("SELECT @@global.gtid_binlog_pos")+"'",
		fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%d, MASTER_USER='repl', MASTER_PASSWORD='r', MASTER_USE_GTID=slave_pos", source.port),
		"START SLAVE")
	h := w.wait(10*time.Second, "replicates", func(h core.Health) bool { return h.Replicating == core.Yes && h.Lag == 0 })
	if h.Source != source.address() || h.Writable != core.No {
		t.Errorf("%+v", h)
	}
	source.exec("CREATE DATABASE d", "CREATE TABLE d.t (a INT)")
	want := source.value("SELECT @@global.gtid_binlog_pos")
	w.wait(10*time.Second, "position "+want, func(h core.Health) bool { return h.GTID == want })
	replica.exec("STOP SLAVE SQL_THREAD")
	w.wait(10*time.Second, "stopped", func(h core.Health) bool { return h.Replicating == core.No && h.Lag < 0 })
	replica.exec("REVOKE SLAVE MONITOR ON *.* FROM remora@'%'", "KILL USER remora")
	h = w.wait(10*time.Second, "an alarm", func(h core.Health) bool { return len(h.Alarms) == 1 })
	if h.State != core.Healthy || h.Replicating != core.Unknown || !strings.Contains(h.Alarms[0], "GRANT SLAVE MONITOR") {
		t.Errorf("%+v", h)
	}
	w.never(0, core.Failed)
}

// An idle detector must cost next to nothing: it runs on a database host. In the bad hours of a virtual machine all that wakes up
// costs many times what it does in good ones, so the limit is what it costs to wake up for nothing 200 times a second
// besides, if that is more.
func TestIdleCost(t *testing.T) {
	m := newMariaDB(t)
	w := watch(t, Config{Address: m.address(), Timing: lan(t)})
	w.waitState(core.Healthy)
	time.Sleep(100 * time.Millisecond)
	share := func(act func()) float64 {
		before, start := cpuTime(t), time.Now()
		act()
		return 100 * float64(cpuTime(t)-before) / float64(time.Since(start))
	}
	var idle, limit float64
	for range 3 { // what other tests of this process have left to be cleaned up counts as well, once
		idle = share(func() { time.Sleep(5 * time.Second) }) // the measured span itself
		limit = max(2.5, share(func() {
			for range 200 {
				time.Sleep(5 * time.Millisecond)
			}
		}))
		t.Logf("%.2f %% of one core, the limit here is %.2f %%", idle, limit)
		if idle <= limit {
			return
		}
	}
	t.Errorf("%.2f %% of one core when idle, the limit here is %.2f %%", idle, limit)
}

func cpuTime(t *testing.T) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The secret must not be in anything that is told or logged.
func TestNoSecretIsTold(t *testing.T) {
	m := newMariaDB(t)
	log := &lockedLog{}
	const secret = "a-very-special-secret"
	w := watch(t, Config{Address: m.address(), Timing: lan(t), Logger: log.logger(), Password: func() (string, error) { return secret, nil }})
	h := w.waitState(core.Healthy)
	m.kill()
	w.waitState(core.Failed)
	if s := log.String() + fmt.Sprint(h, w.last()); strings.Contains(s, secret) || !strings.Contains(s, "1045") {
		t.Errorf("told: %s", s)
	}
}

// A server that is not there when the detector starts is Failed first, and needs rise answers then.
func TestAServerThatStartsLater(t *testing.T) {
	m := newMariaDB(t)
	m.kill()
	w := watch(t, Config{Address: m.address(), Timing: lan(t)})
	w.waitState(core.Failed)
	m.start()
	w.waitState(core.Healthy)
}

// MHA makes a living primary a replica of nobody for a moment.
func TestMHAsPlaceholderIsNoSource(t *testing.T) {
	m := newMariaDB(t)
	w := watch(t, Config{Address: m.address(), Timing: lan(t)})
	primary := func(h core.Health) bool {
		return h.State == core.Healthy && h.Writable == core.Yes && h.Source == "" && h.Replicating == core.No
	}
	w.wait(10*time.Second, "a primary", primary)
	m.exec("CHANGE MASTER TO MASTER_HOST='dummy_host'")
	from := w.count()
	for _, mode := range []core.Tri{core.No, core.Yes} { // with another mode the replica status is read anew
		m.exec(fmt.Sprintf("SET GLOBAL read_only = %t", mode == core.No))
		h := w.wait(10*time.Second, "the mode after it", func(h core.Health) bool { return h.Writable == mode })
		if h.Source != "" || h.Replicating != core.No {
			t.Errorf("with MHA's placeholder the server is taken for %+v", h.Health)
		}
	}
	w.never(from, core.Failed)
	m.exec("CHANGE MASTER TO MASTER_HOST='127.0.0.1'")
	w.wait(10*time.Second, "a replica", func(h core.Health) bool { return h.Source != "" })
}
