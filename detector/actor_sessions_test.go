package detector

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/remora-ha/remora/core/gtid"
)

// certain is what a kernel that has these connections, and no others, says of them.
func certain(ends ...netip.AddrPort) func(uint16) ([]netip.AddrPort, error) {
	return func(uint16) ([]netip.AddrPort, error) { return ends, nil }
}

// Only who is certainly of the list is ended.
func TestOnlyCertainSessionsAreEnded(t *testing.T) {
	end := netip.MustParseAddrPort("10.0.0.9:40000")
	const mine = "100" // the number of the call's own session
	for _, c := range []struct {
		name   string
		rows   [][]string // id, user, host, command
		end    netip.AddrPort
		killed string
		want   SessionsEnded
	}{
		{"its address and port", [][]string{{"7", "app", "10.0.0.9:40000", "Sleep"}, {"8", "app", "10.0.0.9:40001", "Sleep"}, {"9", "app", "10.0.0.8:40000", "Query"}}, end, "7", SessionsEnded{Killed: 1}},
		{"IPv6", [][]string{{"7", "app", "2001:db8::9:40000", "Sleep"}}, netip.MustParseAddrPort("[2001:db8::9]:40000"), "7", SessionsEnded{Killed: 1}},
		{"IPv4 in IPv6", [][]string{{"7", "app", "::ffff:10.0.0.9:40000", "Sleep"}}, end, "7", SessionsEnded{Killed: 1}},
		{"nobody", nil, end, "", SessionsEnded{Unknown: 1}},
		{"no port", [][]string{{"7", "app", "10.0.0.9", "Sleep"}}, end, "", SessionsEnded{Unknown: 1}},
		{"the end of a longer port", [][]string{{"7", "app", "10.0.0.9:4000", "Sleep"}, {"8", "app", "10.0.0.9:140000", "Sleep"}}, end, "", SessionsEnded{Unknown: 1}},
		{"two", [][]string{{"7", "app", "10.0.0.9:40000", "Sleep"}, {"8", "app", "10.0.0.9:40000", "Query"}}, end, "", SessionsEnded{Unknown: 1}},
		{"one that is younger", [][]string{{"101", "app", "10.0.0.9:40000", "Sleep"}}, end, "", SessionsEnded{Unknown: 1}},
		{"a name that has the address", [][]string{{"7", "app", "client.example:40000", "Sleep"}}, end, "7", SessionsEnded{Killed: 1}},
		{"a name that has it, and the address", [][]string{{"7", "app", "client.example:40000", "Sleep"}, {"8", "app", "10.0.0.9:40000", "Sleep"}}, end, "", SessionsEnded{Unknown: 1}},
		{"a name that has another address", [][]string{{"7", "app", "other.example:40000", "Sleep"}}, end, "", SessionsEnded{Unknown: 1}},
		{"a name that nobody knows", [][]string{{"7", "app", "gone.example:40000", "Sleep"}}, end, "", SessionsEnded{Unknown: 1}},
		{"a replica", [][]string{{"7", "other", "10.0.0.9:40000", "Binlog Dump GTID"}}, end, "", SessionsEnded{Spared: 1}},
		{"a replica that is about to begin", [][]string{{"7", replUser, "10.0.0.9:40000", "Query"}}, end, "", SessionsEnded{Spared: 1}},
		{"Remora", [][]string{{"7", "remora", "10.0.0.9:40000", "Sleep"}}, end, "", SessionsEnded{Spared: 1}},
		{"one that logs in", [][]string{{"7", "unauthenticated user", "10.0.0.9:40000", "Connect"}}, end, "", SessionsEnded{Spared: 1}},
		{"the server itself", [][]string{{"7", "system user", "10.0.0.9:40000", "Query"}}, end, "", SessionsEnded{Spared: 1}},
		{"one that has SYSTEM_USER", [][]string{{"13", "dba", "10.0.0.9:40000", "Sleep"}}, end, "13", SessionsEnded{Refused: 1}},
		{"one that has ended meanwhile", [][]string{{"14", "app", "10.0.0.9:40000", "Sleep"}}, end, "14", SessionsEnded{Killed: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var killed []string
			a := fakeActor(t, func(q string) reply {
				id, kills := strings.CutPrefix(q, "KILL ")
				switch {
				case kills:
					killed = append(killed, id)
					return map[string]reply{"13": {number: errNotOwner}, "14": {number: errNoSuchThread}}[id].or(reply{columns: []string{"ok"}})
				case q == askProcesses:
					return reply{columns: []string{"Id", "User", "Host", "Command"}, rows: c.rows}
				case q == askGrants:
					return one(map[string]string{"g": "GRANT PROCESS, CONNECTION_ADMIN ON *.* TO `remora`@`%`"})
				}
				return one(map[string]string{"id": mine})
			})
			a.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
				switch host {
				case "client.example":
					return []netip.Addr{netip.MustParseAddr("10.0.0.1"), end.Addr()}, nil
				case "other.example":
					return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
				}
				return nil, errors.New("no such host")
			}
			got, err := a.EndSessions(t.Context(), func(port uint16) ([]netip.AddrPort, error) {
				if port != 3307 {
					t.Errorf("asked for clients of port %d", port)
				}
				return []netip.AddrPort{c.end}, nil
			})
			if err != nil || got != c.want || strings.Join(killed, " ") != c.killed {
				t.Errorf("killed %q, %+v, want %q, %+v: %v", killed, got, c.killed, c.want, err)
			}
		})
	}
}

// or is another reply in place of none.
func (r reply) or(other reply) reply {
	if r.number == 0 && r.columns == nil {
		return other
	}
	return r
}

// fakeMySQL is a server of MySQL 8.4 that answers to what follows the recognition.
func fakeMySQL(t *testing.T, answer func(query string) reply) *fake {
	t.Helper()
	return newFake(t, &fake{reply: func(q string) reply {
		switch q {
		case askMariaDB:
			return reply{number: errUnknownVariable}
		case askVariables:
			return variables(map[string]string{"version": "8.4.9", "port": "3307"})
		}
		return answer(q)
	}})
}

// fakeActor acts on a fakeMySQL.
func fakeActor(t *testing.T, answer func(query string) reply) *Actor {
	t.Helper()
	f := fakeMySQL(t, answer)
	a, err := NewActor(ActorConfig{Account: Account{Address: f.address(), User: "remora", ReplicationUser: replUser}, Clock: bootClock})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Names whose addresses nobody tells cost a bounded time, all together, and the rest is ended all the same. So does a server
// that hangs, and what the kernel does not tell ends nothing.
func TestEndingSessionsIsBounded(t *testing.T) {
	t.Parallel()
	client := netip.MustParseAddr("10.0.0.9")
	var killed []string
	rows := [][]string{{"99", "app", "10.0.0.9:50000", "Sleep"}}
	ends := []netip.AddrPort{}
	for i := range 50 {
		port := 40000 + i
		rows = append(rows, []string{strconv.Itoa(i + 1), "app", "slow" + strconv.Itoa(i) + ".example:" + strconv.Itoa(port), "Sleep"})
		ends = append(ends, netip.AddrPortFrom(client, uint16(port)))
	}
	ends = append(ends, netip.AddrPortFrom(client, 50000))
	a := fakeActor(t, func(q string) reply {
		if id, kills := strings.CutPrefix(q, "KILL "); kills {
			killed = append(killed, id)
		}
		switch q {
		case askProcesses:
			return reply{columns: []string{"Id", "User", "Host", "Command"}, rows: rows}
		case askGrants:
			return one(map[string]string{"g": "GRANT ALL PRIVILEGES ON *.* TO `remora`@`%`"})
		}
		return one(map[string]string{"id": "100"})
	})
	a.lookup = func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	start := time.Now()
	got, err := a.EndSessions(t.Context(), certain(ends...))
	if took := time.Since(start); err != nil || got != (SessionsEnded{Killed: 1, Unknown: 50}) || took > 5*nameWait {
		t.Errorf("%+v after %v: %v", got, took, err)
	}
	failed := errors.New("no netlink")
	if _, err := a.EndSessions(t.Context(), func(uint16) ([]netip.AddrPort, error) { return ends, failed }); !errors.Is(err, failed) || len(killed) != 1 {
		t.Errorf("killed %v without the kernel's word: %v", killed, err)
	}
	hung := fakeActor(t, func(q string) reply {
		return reply{hang: q == askProcesses, columns: []string{"id"}, rows: [][]string{{"GRANT ALL PRIVILEGES ON *.* TO x"}}}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start = time.Now()
	if _, err := hung.EndSessions(ctx, certain(ends...)); err == nil || time.Since(start) >= statementWait {
		t.Errorf("a server that hangs, after %v: %v", time.Since(start), err)
	}
}

// Real servers: idle and busy clients are ended with what they hold, others and Remora are not; an account that may not is told
// what it lacks. A MariaDB that looks for names shows localhost; this MySQL shows addresses in any case.
func TestClientsSessionsAreEndedOnRealServers(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		testSessionsAreEnded(t, k, "--skip-name-resolve", "127.0.0.1:")
		if k.flavour == gtid.MariaDB {
			testSessionsAreEnded(t, k, "--skip-name-resolve=0", "localhost:")
		}
	})
}

func testSessionsAreEnded(t *testing.T, k kind, mode, shown string) {
	t.Run(shown, func(t *testing.T) {
		s := newDBServer(t, k, 1, mode)
		s.exec("INSERT INTO d.t VALUES (1)")
		idle, idleEnd := s.connect(otherUser)
		busy, busyEnd := s.connect(otherUser)
		other, _ := s.connect(otherUser)
		ours, oursEnd := s.connect(promoteUser)
		mustExec(t, busy, "BEGIN")
		mustExec(t, busy, "UPDATE d.t SET i = 2")
		if hosts := s.value("SELECT GROUP_CONCAT(HOST) FROM information_schema.PROCESSLIST"); !strings.Contains(hosts, shown+strconv.Itoa(int(idleEnd.Port()))) {
			t.Errorf("the server shows %s", hosts)
		}
		a := s.actor(func(c *ActorConfig) { c.Address = "unix:" + s.socket() })
		if err := a.MayEndSessions(t.Context()); err != nil {
			t.Fatal(err)
		}
		gone := netip.MustParseAddrPort("127.0.0.1:1")
		got, err := a.EndSessions(t.Context(), certain(idleEnd, busyEnd, oursEnd, gone))
		if err != nil || got != (SessionsEnded{Killed: 2, Unknown: 1, Spared: 1}) {
			t.Errorf("%+v: %v", got, err)
		}
		for name, db := range map[string]*sql.DB{"idle": idle, "busy": busy} {
			if err := db.Ping(); err == nil {
				t.Errorf("the %s client's session lives", name)
			}
		}
		for name, db := range map[string]*sql.DB{"another": other, "our own": ours} {
			if err := db.Ping(); err != nil {
				t.Errorf("%s session has ended: %v", name, err)
			}
		}
		s.exec("UPDATE d.t SET i = 3") // waits for nobody

		_, otherEnd := s.connect(otherUser)
		for _, lost := range map[gtid.Flavour][]string{gtid.MariaDB: {"PROCESS", "CONNECTION ADMIN"}, gtid.MySQL: {"PROCESS", "CONNECTION_ADMIN"}}[k.flavour] {
			s.exec("REVOKE " + lost + " ON *.* FROM " + promoteUser + "@'%'")
			_, ended := a.EndSessions(t.Context(), certain(otherEnd))
			for _, err := range []error{ended, a.MayEndSessions(t.Context())} {
				if !errors.Is(err, ErrMayNotEnd) || !strings.Contains(err.Error(), "it lacks "+lost+":") {
					t.Errorf("without %s: %v", lost, err)
				}
			}
			s.exec("GRANT " + lost + " ON *.* TO " + promoteUser + "@'%'")
		}
		if n := s.value("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE HOST = '" + shown + strconv.Itoa(int(otherEnd.Port())) + "'"); n != "1" {
			t.Error("a session was ended by an account that may not")
		}
	})
}

// connect makes one connection, which is not made again, and returns also its client's end.
func (s *dbServer) connect(user string) (*sql.DB, netip.AddrPort) {
	s.t.Helper()
	var end netip.AddrPort
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr = user, testPassword, "tcp", s.address().String()
	cfg.Logger = &mysql.NopLogger{}
	cfg.DialFunc = func(ctx context.Context, network, to string) (net.Conn, error) {
		if end.IsValid() {
			return nil, errors.New("the connection was lost")
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, network, to)
		if err == nil {
			end = c.LocalAddr().(*net.TCPAddr).AddrPort()
		}
		return c, err
	}
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(1)
	s.t.Cleanup(func() { db.Close() })
	if err := db.Ping(); err != nil {
		s.t.Fatal(err)
	}
	return db, end
}
