package detector

import (
	"errors"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/remora-ha/remora/core"
)

// startsWritable is the alarm of a server that is a second primary from its start until its daemon has seen it.
const startsWritable = "the server's own configuration lets it start writable, so that an old primary comes back as a second one: " +
	"set read_only = ON there (MySQL: super_read_only = ON)"

// askStartMode asks where the modes come from, empty if the server does not tell: MySQL before 8.0.
func (d dialect) askStartMode() string {
	switch {
	case d.mariadb:
		return "SELECT GLOBAL_VALUE_ORIGIN AS origin, GLOBAL_VALUE AS value FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME = 'READ_ONLY'"
	case d.atLeast(8, 0, 0):
		return "SELECT VARIABLE_SOURCE AS origin, IF(VARIABLE_NAME = 'read_only', @@global.read_only, @@global.super_read_only) AS value " +
			"FROM performance_schema.variables_info WHERE VARIABLE_NAME IN ('read_only', 'super_read_only')"
	}
	return ""
}

// startMode says whether a server starts read-only, by where its modes come from. A mode that was set since the start hides it.
func startMode(rows []row) core.Tri {
	mode := core.No
	for _, r := range rows {
		origin := strings.ToUpper(r["origin"])
		compiled := strings.HasPrefix(origin, "COMPILE")
		switch {
		case origin == "SQL" || origin == "DYNAMIC":
			mode = core.Unknown
		case !compiled && writable(row{"read_only": r["value"]}) == core.No:
			return core.Yes
		}
	}
	if len(rows) == 0 {
		return core.Unknown
	}
	return mode
}

// startMode looks once for each connection whether the server starts read-only, as policy promote needs it. What was known before
// the mode was set stays known: a server that restarts is asked before it is made read-only.
func (s *mysqlServer) startMode() error {
	ask := s.sess.dialect.askStartMode()
	if s.d.cfg.Policy != core.Promote || ask == "" {
		return nil
	}
	rows, err := s.sess.query(ask)
	var answer *mysql.MySQLError
	if errors.As(err, &answer) {
		return nil // it does not tell
	}
	if err != nil {
		return err
	}
	switch startMode(rows) {
	case core.Yes:
		s.starts = ""
	case core.No:
		s.starts = startsWritable
	}
	return nil
}
