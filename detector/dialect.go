package detector

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/remora-ha/remora/core"
)

// unknownLag is the Lag of a server that gives none.
const unknownLag = -1 * time.Nanosecond

// dialect is what must be known of a server to speak with it. It is found once per connection.
type dialect struct {
	mariadb bool
	version [3]int
	// vars are the server's global variables that matter here, with lower-case names. A name that is absent does not
	// exist on this server.
	vars map[string]string
	// locks says that the server tells who holds a lock, as some clusters do not.
	locks bool
}

// The statements that find the dialect. MariaDB is told by a variable that only it has: its version string can be
// overridden, the variable cannot. SHOW lists what exists, where SELECT of a missing variable fails as a whole.
const (
	askMariaDB   = "SELECT @@global.gtid_domain_id"
	askVariables = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'bind_address', 'skip_networking', 'port', " +
		"'socket', 'datadir', 'log_bin_basename', 'read_only', 'super_read_only', 'gtid_executed', 'gtid_current_pos', " +
		"'rpl_semi_sync_master_enabled', 'rpl_semi_sync_source_enabled', '" + farewell + "')"
)

func (d dialect) atLeast(major, minor, patch int) bool {
	v := d.version
	switch {
	case v[0] != major:
		return v[0] > major
	case v[1] != minor:
		return v[1] > minor
	}
	return v[2] >= patch
}

// has reports whether the server knows a variable.
func (d dialect) has(name string) bool { _, ok := d.vars[name]; return ok }

// askFacts is the probe: what is wanted often, and with position also the executed set, which may be costly to format. The
// whole set is left out when it is too long to be reported, and what is cut for people ends with three dots.
func (d dialect) askFacts(position bool) string {
	cols := []string{"@@global.read_only AS read_only"}
	if d.has("super_read_only") {
		cols = append(cols, "@@global.super_read_only AS super_read_only")
	}
	if position && d.locks {
		cols = append(cols, lockColumns)
	}
	if position {
		for _, name := range []string{"gtid_executed", "gtid_current_pos"} {
			if d.has(name) {
				set := "REPLACE(@@global." + name + ", '\n', '')"
				cols = append(cols, fmt.Sprintf("IF(LENGTH(%s) > %d, CONCAT(LEFT(%[1]s, %[3]d), '...'), %[1]s) AS gtid", set, core.MaxGTID, core.MaxGTID-3),
					fmt.Sprintf("IF(LENGTH(%s) > %d, '', %[1]s) AS executed", set, core.MaxSet))
				break
			}
		}
	}
	return "SELECT " + strings.Join(cols, ", ")
}

// askReplica is the statement for the replica status of all channels.
func (d dialect) askReplica() string {
	switch {
	case d.mariadb:
		return "SHOW ALL SLAVES STATUS"
	case d.atLeast(8, 0, 22):
		return "SHOW REPLICA STATUS"
	}
	return "SHOW SLAVE STATUS"
}

// replicaPrivilege names the privilege that askReplica needs.
func (d dialect) replicaPrivilege() string {
	if d.mariadb && d.atLeast(10, 5, 0) {
		return "SLAVE MONITOR"
	}
	return "REPLICATION CLIENT"
}

// parseVersion takes the three numbers at the start of a version string: 10.11.19-MariaDB-log.
func parseVersion(s string) (v [3]int) {
	for i, part := range strings.SplitN(s, ".", 3) {
		end := 0
		for end < len(part) && end < 6 && part[end] >= '0' && part[end] <= '9' {
			end++
		}
		v[i], _ = strconv.Atoi(part[:end])
	}
	return v
}

// row is one row of a result, by lower-case column name. NULL is absent.
type row map[string]string

// replicaName maps the old words to the new ones, so that one name serves all servers.
func replicaName(column string) string {
	column = strings.ToLower(column)
	column = strings.ReplaceAll(column, "master", "source")
	return strings.ReplaceAll(column, "slave", "replica")
}

// writable reads read_only, a number or, from MariaDB 12.0 on, a word such as NO_LOCK.
func writable(r row) core.Tri {
	v, ok := r["read_only"]
	if !ok {
		return core.Unknown
	}
	for _, v := range []string{v, r["super_read_only"]} {
		switch strings.ToUpper(v) {
		case "0", "OFF", "FALSE", "":
		default:
			return core.No
		}
	}
	return core.Yes
}

// replication sums up the status rows of all channels: the source of the first, running only if all are, the longest lag.
func replication(rows []row) (source string, running core.Tri, lag time.Duration) {
	running, lag = core.No, unknownLag
	first, known := true, true
	for _, r := range rows {
		if strings.HasPrefix(r["channel_name"], "group_replication_") || !hasSource(r) {
			continue
		}
		runs := r["replica_io_running"] == "Yes" && r["replica_sql_running"] == "Yes"
		l, err := strconv.ParseInt(r["seconds_behind_source"], 10, 32)
		known = known && err == nil
		if first {
			source, running = net.JoinHostPort(r["source_host"], r["source_port"]), core.Yes
			first = false
		}
		if !runs {
			running = core.No
		}
		lag = max(lag, time.Duration(l)*time.Second)
	}
	if first || !known {
		return source, running, unknownLag
	}
	return source, running, coarse(lag)
}

// mhaPlaceholder is what MHA names as the source of a living primary for a moment, before it forgets all sources.
const mhaPlaceholder = "dummy_host"

// hasSource reports whether a status row is that of a replica.
func hasSource(r row) bool { return r["source_host"] != "" && r["source_host"] != mhaPlaceholder }

// usesGTID says of MariaDB's status rows whether a channel reads by file and position, and whether one reads by GTID. MySQL's
// rows say neither: it goes by GTID whenever it has them.
func usesGTID(rows []row) (position, by bool) {
	for _, r := range rows {
		switch {
		case r["using_gtid"] == "No" && hasSource(r):
			position = true
		case r["using_gtid"] != "":
			by = true
		}
	}
	return position, by
}

// coarse rounds a lag down, so that a slowly changing one does not make an event each second.
func coarse(lag time.Duration) time.Duration {
	switch {
	case lag < 10*time.Second:
		return lag.Truncate(time.Second)
	case lag < time.Minute:
		return lag.Truncate(5 * time.Second)
	case lag < 10*time.Minute:
		return lag.Truncate(30 * time.Second)
	}
	return lag.Truncate(5 * time.Minute)
}
