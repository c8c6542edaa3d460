package detector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/remora-ha/remora/core"
)

// Family is a kind of server whose privileges have the same names.
type Family string

// The families. Each was tried on a server of it except the older ones, MySQL57 and MariaDB104, which are from the
// manuals.
const (
	MySQL57    Family = "mysql57"    // before 8.0: SUPER stands for many
	MySQL80    Family = "mysql80"    // 8.0 and later
	MariaDB104 Family = "mariadb104" // before 10.5: SUPER stands for many
	MariaDB    Family = "mariadb"    // 10.5 and later, where SUPER no longer stands for them
)

// Families lists the families.
func Families() []Family { return []Family{MySQL57, MySQL80, MariaDB104, MariaDB} }

func (d dialect) family() Family {
	switch {
	case d.mariadb && d.atLeast(10, 5, 0):
		return MariaDB
	case d.mariadb:
		return MariaDB104
	case d.atLeast(8, 0, 0):
		return MySQL80
	}
	return MySQL57
}

// Privileges returns what Remora's account needs on *.* for a policy: to see the state of replication in any case, to act on
// the server for policy promote, and some of that where MHA's advice may change the server's mode.
func (f Family) Privileges(p core.Policy, advised bool) []string {
	monitor := []string{"REPLICATION CLIENT"}
	if f == MariaDB {
		monitor = []string{"SLAVE MONITOR"}
	}
	switch {
	case p != core.Promote && advised:
		return append(monitor, f.modePrivileges()...)
	case p != core.Promote:
		return monitor
	}
	switch f {
	case MariaDB:
		return append(monitor, "RELOAD", "PROCESS", "REPLICATION SLAVE ADMIN", "READ_ONLY ADMIN", "CONNECTION ADMIN")
	case MySQL80:
		return append(monitor, "RELOAD", "PROCESS", "REPLICATION_SLAVE_ADMIN", "SYSTEM_VARIABLES_ADMIN", "CONNECTION_ADMIN", "SYSTEM_USER")
	}
	return append(monitor, "RELOAD", "PROCESS", "SUPER")
}

// modePrivileges are what it takes to make a server read-only, to end its transactions, and to make it writable.
func (f Family) modePrivileges() []string {
	switch f {
	case MariaDB:
		return []string{"PROCESS", "READ_ONLY ADMIN", "CONNECTION ADMIN"}
	case MySQL80:
		return []string{"PROCESS", "SYSTEM_VARIABLES_ADMIN", "CONNECTION_ADMIN"}
	}
	return []string{"PROCESS", "SUPER"}
}

// KillPrivileges are what it takes to see and end the sessions of clients. Policy promote has them in any case.
func (f Family) KillPrivileges() []string {
	switch f {
	case MariaDB:
		return []string{"PROCESS", "CONNECTION ADMIN"}
	case MySQL80:
		return []string{"PROCESS", "CONNECTION_ADMIN"}
	}
	return []string{"PROCESS", "SUPER"}
}

// Grants returns the statements that give an account what it needs for a policy, with kills also what Actor.EndSessions needs,
// and for promote also the one for the account that the servers replicate with, if that is named. host is the host part of
// Remora's account.
func (f Family) Grants(p core.Policy, advised, kills bool, user, host, replicationUser string) []string {
	names := f.Privileges(p, advised)
	if kills {
		names = append(names, slices.DeleteFunc(f.KillPrivileges(), func(k string) bool { return slices.Contains(names, k) })...)
	}
	out := []string{fmt.Sprintf("GRANT %s ON *.* TO %s@%s;", strings.Join(names, ", "), quote(user), quote(host))}
	if p == core.Promote && replicationUser != "" {
		out = append(out, fmt.Sprintf("GRANT REPLICATION SLAVE ON *.* TO %s@'%%';", quote(replicationUser)))
	}
	return out
}

// Family asks the server which family it belongs to.
func (a *Actor) Family(ctx context.Context) (f Family, err error) {
	err = a.with(ctx, a.work, func(l *line) error {
		f = l.dialect.family()
		return nil
	})
	return f, err
}

const askGrants = "SHOW GRANTS"

// granted reads the global privileges out of the lines of SHOW GRANTS, those of active roles among them.
func granted(rows []row) (all bool, names []string) {
	for _, r := range rows {
		for _, text := range r {
			list, _, found := strings.Cut(text, " ON *.* TO ")
			if !found {
				continue
			}
			list = strings.TrimPrefix(list, "GRANT ")
			all = all || list == "ALL PRIVILEGES"
			for _, name := range strings.Split(list, ",") { // MySQL puts no blank between dynamic privileges
				names = append(names, strings.TrimSpace(name))
			}
		}
	}
	return all, names
}

// lacking returns those of wanted that are not among the lines of SHOW GRANTS.
func lacking(rows []row, wanted []string) []string {
	all, has := granted(rows)
	return slices.DeleteFunc(wanted, func(p string) bool { return all || slices.Contains(has, p) })
}

// privileges looks for those that are missing, once for each connection: a server gives new ones to new connections.
func (s *mysqlServer) privileges() error {
	s.lacks = ""
	if s.d.cfg.Policy == "" {
		return nil
	}
	rows, err := s.sess.query(askGrants)
	var answer *mysql.MySQLError
	if errors.As(err, &answer) {
		s.lacks = fmt.Sprintf("the account's privileges can not be read: error %d: %s", answer.Number, answer.Message)
		return nil
	}
	if err != nil {
		return err
	}
	if missing := lacking(rows, s.sess.dialect.family().Privileges(s.d.cfg.Policy, s.d.cfg.Advised)); len(missing) > 0 {
		purpose := fmt.Sprintf("policy %s", s.d.cfg.Policy)
		if s.d.cfg.Advised && s.d.cfg.Policy != core.Promote {
			purpose += " with MHA's advice"
		}
		s.lacks = fmt.Sprintf("the account lacks %s for %s: see 'remora mysql grants'", strings.Join(missing, ", "), purpose)
	}
	return nil
}
