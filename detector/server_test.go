package detector

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

func noReplica() reply { return reply{columns: []string{"Source_Host"}} }

func TestFactsOfAMySQLReplica(t *testing.T) {
	f := newFake(t, &fake{reply: mysql84(func() reply {
		return one(map[string]string{"Source_Host": "db1", "Source_Port": "3306", "Replica_IO_Running": "Yes",
			"Replica_SQL_Running": "Yes", "Seconds_Behind_Source": "7", "Channel_Name": ""})
	})})
	w := watch(t, Config{Address: f.address(), Timing: lan(t)})
	h := w.waitState(core.Healthy)
	if h.Writable != core.Yes || h.Source != "db1:3306" || h.Replicating != core.Yes || h.Lag != 7*time.Second || h.Version != "8.4.9" ||
		h.GTID != "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,4e11fa47-71ca-11e1-9e33-c80aa9429562:1" ||
		!slices.Equal(h.Listens, []netip.Addr{netip.MustParseAddr("10.0.0.1")}) || len(h.Alarms) != 0 {
		t.Errorf("%+v", h)
	}
}

func TestErrorsThatOnlyALivingServerSends(t *testing.T) {
	for _, number := range []uint16{1040, 1042, 1043, 1044, 1045, 1129, 1130, 1203, 1226, 1251, 1275, 1698, 3118} {
		t.Run(fmt.Sprint(number), func(t *testing.T) {
			t.Parallel()
			f := newFake(t, &fake{greet: func(c net.Conn) bool {
				c.Write(packet(0, errorPacket(number)))
				return false
			}})
			w := watch(t, Config{Address: f.address(), Timing: lan(t)})
			h := w.waitState(core.Healthy)
			if h.Writable != core.Unknown || h.Lag >= 0 || len(h.Alarms) != 1 || !strings.HasPrefix(h.Alarms[0], fmt.Sprintf("error %d: ", number)) {
				t.Errorf("%+v", h.Health)
			}
			if len(h.Alarms[0]) > core.MaxReason {
				t.Errorf("the alarm has %d bytes: %s", len(h.Alarms[0]), h.Alarms[0])
			}
		})
	}
}

func TestOtherErrorsAreSilence(t *testing.T) {
	f := newFake(t, &fake{greet: func(c net.Conn) bool {
		c.Write(packet(0, errorPacket(1053)))
		return false
	}})
	w := watch(t, Config{Address: f.address(), Timing: lan(t)})
	if h := w.waitState(core.Failed); !strings.Contains(h.Reason, "error 1053") || !strings.Contains(h.Reason, "2 probes in a row") {
		t.Errorf("reason %q", h.Reason)
	}
}

func TestServersThatDoNotServe(t *testing.T) {
	hang := func(c net.Conn) bool {
		readPacket(c) // until the other side gives up
		return false
	}
	tests := []struct {
		rule  string
		fake  *fake
		want  string
		least time.Duration // before this it would be rash
	}{
		{"accepts and hangs", &fake{greet: hang}, "no answer within 100ms (2 probes in a row", 200 * time.Millisecond},
		{"accepts and closes", &fake{greet: func(net.Conn) bool { return false }}, "the connection broke off", 100 * time.Millisecond},
		{"hangs at the query", &fake{reply: func(string) reply { return reply{hang: true} }}, "no answer within 100ms", 200 * time.Millisecond},
		{"answers with garbage", &fake{greet: func(c net.Conn) bool {
			c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			return false
		}}, "", 0},
	}
	for _, test := range tests {
		t.Run(test.rule, func(t *testing.T) {
			f := newFake(t, test.fake)
			t0 := time.Now()
			w := watch(t, Config{Address: f.address(), Timing: lan(t)})
			h := w.waitState(core.Failed)
			if !strings.Contains(h.Reason, test.want) {
				t.Errorf("reason %q, want %q", h.Reason, test.want)
			}
			if d := h.at.Sub(t0); d < test.least {
				t.Errorf("failed after %v already", d)
			}
			w.never(0, core.Healthy)
		})
	}
}

// A server that is slow, and takes long for a login and all that is asked after it, is not silent.
func TestASlowServerIsNotSilent(t *testing.T) {
	slow := mysql84(noReplica)
	f := newFake(t, &fake{reply: func(q string) reply {
		time.Sleep(40 * time.Millisecond) // three questions in a row take longer than what each of them may
		return slow(q)
	}})
	w := watch(t, Config{Address: f.address(), Timing: lan(t)})
	w.waitState(core.Healthy)
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	for address, reason := range map[string]string{
		address: "connection refused",
		"unix:" + filepath.Join(t.TempDir(), "none"): "socket file does not exist",
	} {
		w := watch(t, Config{Address: address, Timing: lan(t)})
		if h := w.waitState(core.Failed); !strings.Contains(h.Reason, reason) {
			t.Errorf("reason %q", h.Reason)
		}
	}
}

func TestADropOfAllConnectionsIsNoAlarm(t *testing.T) {
	f := newFake(t, &fake{reply: mysql84(noReplica)})
	w := watch(t, Config{Address: f.address(), Timing: lan(t)})
	w.waitState(core.Healthy)
	for range 5 {
		f.dropAll()
		until(t, 5*time.Second, "a new connection", func() bool { return f.accepted() == 1 })
		time.Sleep(30 * time.Millisecond)
	}
	w.never(0, core.Failed)
	if n := f.asked(askMariaDB); n != 6 {
		t.Errorf("%d connections were made, want 6", n)
	}
}

// A server whose last connection ends while nobody listens any more has failed without waiting for a probe.
func TestALostConnectionAndARefusedDial(t *testing.T) {
	f := newFake(t, &fake{reply: mysql84(noReplica)})
	timing := lan(t)
	timing.Probe = 10 * time.Second
	w := watch(t, Config{Address: f.address(), Timing: timing})
	w.waitState(core.Healthy)
	f.l.Close()
	t0 := time.Now()
	f.dropAll()
	h := w.waitState(core.Failed)
	t.Logf("EOF to event: %v", h.at.Sub(t0))
	if d := h.at.Sub(t0); d > time.Second || !strings.Contains(h.Reason, "refused") {
		t.Errorf("after %v: %q", d, h.Reason)
	}
}

func TestAMissingPrivilegeIsAnAlarm(t *testing.T) {
	f := newFake(t, &fake{reply: mysql84(func() reply { return reply{number: errPrivilege} })})
	w := watch(t, Config{Address: f.address(), Timing: lan(t)})
	h := w.waitState(core.Healthy)
	if h.Replicating != core.Unknown || h.Lag >= 0 || len(h.Alarms) != 1 || !strings.Contains(h.Alarms[0], "GRANT REPLICATION CLIENT") {
		t.Errorf("%+v", h)
	}
}

// On some servers the replica status waits for a STOP REPLICA. The server lives all the same.
func TestAReplicaStatusThatHangsIsAnAlarm(t *testing.T) {
	f := newFake(t, &fake{reply: mysql84(func() reply { return reply{hang: true} })})
	w := watch(t, Config{Address: f.address(), Timing: lan(t)})
	h := w.waitState(core.Healthy)
	if h.Replicating != core.Unknown || h.Writable != core.Yes || len(h.Alarms) != 1 || !strings.Contains(h.Alarms[0], "is not answered in time") {
		t.Errorf("%+v", h)
	}
	time.Sleep(1500 * time.Millisecond)
	w.never(0, core.Failed)
	if n := f.asked("SHOW REPLICA STATUS"); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if h := w.last(); len(h.Alarms) != 1 {
		t.Errorf("the alarm is gone: %+v", h)
	}
}

func TestTLSThatTheServerLacksIsAnAlarm(t *testing.T) {
	f := newFake(t, &fake{reply: mysql84(noReplica)})
	w := watch(t, Config{Address: f.address(), Timing: lan(t), TLS: &tls.Config{ServerName: "db1"}})
	if h := w.waitState(core.Healthy); len(h.Alarms) != 1 || !strings.Contains(h.Alarms[0], "TLS") {
		t.Errorf("%+v", h)
	}
}

func TestThePasswordIsReadAgainForEachConnection(t *testing.T) {
	f := newFake(t, &fake{reply: mysql84(noReplica)})
	var reads atomic.Int32
	w := watch(t, Config{Address: f.address(), Timing: lan(t), Password: func() (string, error) {
		reads.Add(1)
		return "x", nil
	}})
	w.waitState(core.Healthy)
	f.dropAll()
	until(t, 5*time.Second, "another reading", func() bool { return reads.Load() == 2 })
}

func TestAPasswordThatCannotBeRead(t *testing.T) {
	f := newFake(t, &fake{greet: func(c net.Conn) bool {
		c.Write(packet(0, errorPacket(1045)))
		return false
	}})
	w := watch(t, Config{Address: f.address(), Timing: lan(t), Password: func() (string, error) {
		return "", errors.New("open /etc/remora/mysql.password: permission denied")
	}})
	if h := w.waitState(core.Healthy); len(h.Alarms) != 1 || !strings.Contains(h.Alarms[0], "cannot read the password: open /etc") {
		t.Errorf("%+v", h)
	}
}

func TestConfigIsChecked(t *testing.T) {
	_, err := New(Config{Address: "3306"})
	if !errors.Is(err, ErrConfig) {
		t.Fatal(err)
	}
	for _, want := range []string{"write host:port", "user is empty", "Deliver and Clock", "probe_timeout"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say %q", err, want)
		}
	}
	for address, ok := range map[string]bool{"127.0.0.1:3306": true, "[::1]:3306": true, "unix:/run/s": true, "unix:s": false, "db1": false, "db1:": false} {
		if _, _, err := splitAddress(address); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestReplication(t *testing.T) {
	run := func(host, io, sql, lag string) row {
		r := row{"source_host": host, "source_port": "3306", "replica_io_running": io, "replica_sql_running": sql}
		if lag != "" {
			r["seconds_behind_source"] = lag
		}
		return r
	}
	tests := []struct {
		rule    string
		rows    []row
		source  string
		running core.Tri
		lag     time.Duration
	}{
		{"no source", nil, "", core.No, unknownLag},
		{"runs", []row{run("a", "Yes", "Yes", "0")}, "a:3306", core.Yes, 0},
		{"connecting is not running", []row{run("a", "Connecting", "Yes", "")}, "a:3306", core.No, unknownLag},
		{"stopped", []row{run("a", "No", "No", "")}, "a:3306", core.No, unknownLag},
		{"two channels, one stopped", []row{run("a", "Yes", "Yes", "3"), run("b", "Yes", "No", "")}, "a:3306", core.No, unknownLag},
		{"two channels, the longer lag", []row{run("a", "Yes", "Yes", "3"), run("b", "Yes", "Yes", "7200")}, "a:3306", core.Yes, 2 * time.Hour},
		{"an IPv6 source", []row{run("2001:db8::1", "Yes", "Yes", "64")}, "[2001:db8::1]:3306", core.Yes, time.Minute},
		{"channels of group replication", []row{{"channel_name": "group_replication_applier", "source_host": "<NULL>"}}, "", core.No, unknownLag},
	}
	for _, test := range tests {
		t.Run(test.rule, func(t *testing.T) {
			source, running, lag := replication(test.rows)
			if source != test.source || running != test.running || lag != test.lag {
				t.Errorf("got %q, %v, %v, want %q, %v, %v", source, running, lag, test.source, test.running, test.lag)
			}
		})
	}
}

// positionOf is what is asked for of the set in a variable: the set without line breaks, cut for people at 256 bytes, and
// whole if it has no more than 448.
func positionOf(variable string) string {
	return strings.ReplaceAll("IF(LENGTH(SET) > 256, CONCAT(LEFT(SET, 253), '...'), SET) AS gtid, IF(LENGTH(SET) > 448, '', SET) AS executed",
		"SET", "REPLACE(@@global."+variable+", '\n', '')")
}

func TestDialects(t *testing.T) {
	tests := []struct {
		version string
		mariadb bool
		vars    string
		status  string
		right   string
		facts   string
	}{
		{"5.6.24-log", false, "gtid_executed", "SHOW SLAVE STATUS", "REPLICATION CLIENT", "SELECT @@global.read_only AS read_only, " + positionOf("gtid_executed")},
		{"8.0.21", false, "super_read_only", "SHOW SLAVE STATUS", "REPLICATION CLIENT", "SELECT @@global.read_only AS read_only, @@global.super_read_only AS super_read_only"},
		{"8.0.22", false, "", "SHOW REPLICA STATUS", "REPLICATION CLIENT", "SELECT @@global.read_only AS read_only"},
		{"9.7.4", false, "", "SHOW REPLICA STATUS", "REPLICATION CLIENT", "SELECT @@global.read_only AS read_only"},
		{"10.4.30-MariaDB", true, "gtid_current_pos", "SHOW ALL SLAVES STATUS", "REPLICATION CLIENT", "SELECT @@global.read_only AS read_only, " + positionOf("gtid_current_pos")},
		{"11.8.6-MariaDB-log", true, "", "SHOW ALL SLAVES STATUS", "SLAVE MONITOR", "SELECT @@global.read_only AS read_only"},
	}
	for _, test := range tests {
		d := dialect{mariadb: test.mariadb, version: parseVersion(test.version), vars: map[string]string{}}
		if test.vars != "" {
			d.vars[test.vars] = ""
		}
		if d.askReplica() != test.status || d.replicaPrivilege() != test.right || d.askFacts(true) != test.facts {
			t.Errorf("%s: %s, %s, %s", test.version, d.askReplica(), d.replicaPrivilege(), d.askFacts(true))
		}
	}
}

func TestWritable(t *testing.T) {
	tests := []struct {
		row  row
		want core.Tri
	}{
		{row{}, core.Unknown},
		{row{"read_only": "0"}, core.Yes},
		{row{"read_only": "OFF"}, core.Yes},
		{row{"read_only": "1"}, core.No},
		{row{"read_only": "ON"}, core.No},
		{row{"read_only": "NO_LOCK_NO_ADMIN"}, core.No},
		{row{"read_only": "0", "super_read_only": "0"}, core.Yes},
		{row{"read_only": "0", "super_read_only": "1"}, core.No},
	}
	for _, test := range tests {
		if got := writable(test.row); got != test.want {
			t.Errorf("%v: %v, want %v", test.row, got, test.want)
		}
	}
}

// MySQL gives a new privilege to new connections only, so a refused status is asked for on a new one, after a while.
func TestAPrivilegeThatIsGrantedLaterIsNoticed(t *testing.T) {
	var granted atomic.Bool
	f := newFake(t, &fake{reply: mysql84(func() reply {
		if granted.Load() {
			return noReplica()
		}
		return reply{number: errPrivilege}
	})})
	d, err := New(Config{Address: f.address(), User: "remora", Timing: lan(t), Deliver: func(core.Event) {},
		Clock: bootClock})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t.Context(), d, newProcesses(time.Second, d.cfg.Logger, func(hint) {}), func(hint) {})
	defer s.close()
	if r := s.probe(time.Second); r.finding != answered || len(r.alarms) != 1 {
		t.Fatalf("%+v", r)
	}
	granted.Store(true)
	if r := s.probe(time.Second); r.finding != answered || len(r.alarms) != 1 || f.asked("SHOW REPLICA STATUS") != 1 {
		t.Errorf("asked again too soon: %+v", r)
	}
	s.hold = time.Now()
	if r := s.probe(time.Second); r.finding != answered || len(r.alarms) != 0 || r.facts.replicating != core.No {
		t.Errorf("%+v", r)
	}
	if n := f.asked(askMariaDB); n != 2 {
		t.Errorf("%d connections, want a second one", n)
	}
}
