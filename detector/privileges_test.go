package detector

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

func TestGrantsArePrintedForEachFamily(t *testing.T) {
	for _, c := range []struct {
		f       Family
		p       core.Policy
		advised bool
		kills   bool
		expect  string
	}{
		{MariaDB, core.AnyHealthy, false, false, "GRANT SLAVE MONITOR ON *.* TO 'remora'@'localhost';"},
		{MySQL80, core.Follow, false, false, "GRANT REPLICATION CLIENT ON *.* TO 'remora'@'localhost';"},
		{MariaDB, core.Follow, true, false, "GRANT SLAVE MONITOR, PROCESS, READ_ONLY ADMIN, CONNECTION ADMIN ON *.* TO 'remora'@'localhost';"},
		{MySQL80, core.Follow, true, false, "GRANT REPLICATION CLIENT, PROCESS, SYSTEM_VARIABLES_ADMIN, CONNECTION_ADMIN ON *.* TO 'remora'@'localhost';"},
		{MySQL80, core.Follow, false, true, "GRANT REPLICATION CLIENT, PROCESS, CONNECTION_ADMIN ON *.* TO 'remora'@'localhost';"},
		{MariaDB, core.AnyHealthy, true, true, "GRANT SLAVE MONITOR, PROCESS, READ_ONLY ADMIN, CONNECTION ADMIN ON *.* TO 'remora'@'localhost';"},
		{MariaDB104, core.Follow, false, true, "GRANT REPLICATION CLIENT, PROCESS, SUPER ON *.* TO 'remora'@'localhost';"},
		{MySQL57, core.Promote, true, true, "GRANT REPLICATION CLIENT, RELOAD, PROCESS, SUPER ON *.* TO 'remora'@'localhost';\n" +
			"GRANT REPLICATION SLAVE ON *.* TO 'repl'@'%';"},
	} {
		if got := strings.Join(c.f.Grants(c.p, c.advised, c.kills, "remora", "localhost", "repl"), "\n"); got != c.expect {
			t.Errorf("%s, %s: %q, want %q", c.f, c.p, got, c.expect)
		}
	}
	for _, f := range Families() {
		for _, p := range f.Privileges(core.Follow, true) {
			if !slices.Contains(f.Privileges(core.Promote, false), p) {
				t.Errorf("%s: promote lacks %s, which MHA's advice takes", f, p)
			}
		}
		if missing := slices.DeleteFunc(f.KillPrivileges(), func(p string) bool { return slices.Contains(f.Privileges(core.Promote, false), p) }); len(missing) > 0 {
			t.Errorf("%s: promote lacks %v, which KILL takes", f, missing)
		}
		if !slices.Contains(f.Privileges(core.Promote, false), f.Privileges(core.Follow, false)[0]) {
			t.Errorf("%s: promote lacks what follow has", f)
		}
	}
}

// The statements work on the real servers, each missing privilege is named, and with all of them nothing is missing.
func TestMissingPrivilegesAreNamedAtStart(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newDBServer(t, k, 1)
		family, err := s.actor().Family(t.Context())
		if err != nil || family != map[gtid.Flavour]Family{gtid.MariaDB: MariaDB, gtid.MySQL: MySQL80}[k.flavour] {
			t.Fatalf("family %s: %v", family, err)
		}
		for _, lost := range append(family.Privileges(core.Promote, false), "") {
			user := "u" + strings.ToLower(strings.NewReplacer(" ", "", "_", "").Replace(lost))
			s.exec("CREATE USER " + user + "@'%' IDENTIFIED BY '" + testPassword + "'")
			for _, g := range family.Grants(core.Promote, false, false, user, "%", replUser) {
				s.exec(strings.TrimSuffix(g, ";"))
			}
			if lost != "" {
				s.exec("REVOKE " + lost + " ON *.* FROM " + user + "@'%'")
			}
			w := watch(t, Config{Address: s.address().String(), User: user, Policy: core.Promote, Timing: lan(t)})
			w.wait(20*time.Second, "the verdict on "+lost, func(h core.Health) bool {
				alarms := strings.Join(h.Alarms, " ")
				if lost == "" {
					return h.State == core.Healthy && !strings.Contains(alarms, "lacks")
				}
				return strings.Contains(alarms, "lacks "+lost+" for policy promote")
			})
		}
	})
}

func TestTheExecutedSetIsReportedWholeOrNotAtAll(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		s := newDBServer(t, k, 1)
		w := watch(t, Config{Address: s.address().String(), User: promoteUser, Timing: lan(t)})
		s.exec("INSERT INTO d.t VALUES (1)")
		w.wait(10*time.Second, "the executed set", func(h core.Health) bool {
			return h.Executed != "" && h.Executed == s.executed() && h.GTID == h.Executed
		})
		// Writable and what was executed by then come together.
		before := w.count()
		s.actor().Demote(t.Context(), core.DemoteServer{})
		w.wait(10*time.Second, "read-only", func(h core.Health) bool { return h.Writable == core.No })
		if at := w.last(); w.count() == before || at.Executed != s.executed() {
			t.Errorf("read-only with %q, want %q", at.Executed, s.executed())
		}
		s.exec("SET GLOBAL read_only = 0")
		var long []string
		for i := range 40 {
			if k.flavour == gtid.MariaDB {
				long = append(long, fmt.Sprintf("SET gtid_domain_id = %d", 1000000000+i), fmt.Sprintf("INSERT INTO d.t VALUES (%d)", 100+i))
			} else {
				long = append(long, fmt.Sprintf("SET gtid_next = '3e11fa47-71ca-11e1-9e33-c80aa94295%02d:1'", i), "BEGIN", "COMMIT")
			}
		}
		s.exec(long...)
		w.wait(10*time.Second, "a set that is too long", func(h core.Health) bool {
			return h.Executed == "" && len(h.GTID) == core.MaxGTID && strings.HasSuffix(h.GTID, "...")
		})
	})
}
