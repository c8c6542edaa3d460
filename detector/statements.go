package detector

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/remora-ha/remora/core/gtid"
)

// What the Actor says to a server, in each server's words. None of these statements is written to the binary log by any
// server, so none of them needs sql_log_bin=0, which would take a privilege more.

// lockWait bounds how long a statement waits for locks that others hold, in seconds, the unit of the server. Its default
// is a day on MariaDB and a year on MySQL.
const lockWait = 1

// settings make a session independent of the server's configuration: SYSDATE() in UTC, backslashes that escape, no
// transaction that stays open, and a bounded wait.
var settings = fmt.Sprintf("SET SESSION lock_wait_timeout = %d, sql_mode = '', time_zone = '+00:00', autocommit = 1", lockWait)

// clockFormat is how SYSDATE(6) is written.
const clockFormat = "2006-01-02 15:04:05.000000"

const askClock = "SELECT SYSDATE(6) AS clock"

// askHeldUp lists what the replication threads wait for, if that is a lock.
const askHeldUp = "SELECT DISTINCT STATE AS state FROM information_schema.PROCESSLIST WHERE USER = 'system user' " +
	"AND STATE LIKE 'Waiting for %lock%'"

// flavour is the notation of the server's transactions.
func (d dialect) flavour() gtid.Flavour {
	if d.mariadb {
		return gtid.MariaDB
	}
	return gtid.MySQL
}

// askState asks for the modes and the whole executed set.
func (d dialect) askState() string {
	s := "SELECT @@global.read_only AS read_only, "
	if d.has("super_read_only") {
		s += "@@global.super_read_only AS super_read_only, "
	}
	if d.mariadb {
		return s + "@@global.gtid_current_pos AS executed, @@global.gtid_slave_pos AS applied"
	}
	return s + "@@global.gtid_executed AS executed"
}

// setReadOnly makes the server read-only, as far as it can be. super_read_only brings read_only with it.
func (d dialect) setReadOnly() string {
	if d.has("super_read_only") {
		return "SET GLOBAL super_read_only = 1"
	}
	return "SET GLOBAL read_only = 1"
}

// setWritable makes the server writable unless the server's clock has come to notAfter when it is carried out. It clears
// super_read_only, too. From MariaDB 12.0 on read_only is a word.
func (d dialect) setWritable(notAfter time.Time) string {
	off := "0"
	if d.mariadb && d.atLeast(12, 0, 0) {
		off = "'OFF'"
	}
	return fmt.Sprintf("SET GLOBAL read_only = IF(SYSDATE(6) < '%s', %s, @@global.read_only)", notAfter.UTC().Format(clockFormat), off)
}

// replica is the server's word for itself as a copy: it changed with MySQL 8.0.22.
func (d dialect) replica() string {
	if !d.mariadb && d.atLeast(8, 0, 22) {
		return "REPLICA"
	}
	return "SLAVE"
}

// channel names a channel in a statement. MySQL's statements mean all channels when they name none.
func (d dialect) channel(name string) string {
	if d.mariadb && name != "" {
		return " " + quote(name)
	}
	return ""
}

// farewell bounds, in seconds, how long a replica of MariaDB with semi-sync dials its source once more when its receiver is stopped,
// to end what sends there. While the source's machine is gone, the stop takes as long: 5 s by default, and with 0 for ever.
const farewell = "rpl_semi_sync_slave_kill_conn_timeout"

// shortenFarewell gives it the shortest time that there is, where semi-sync is on.
func (d dialect) shortenFarewell() string {
	return "SET GLOBAL " + farewell + " = IF(@@global.rpl_semi_sync_slave_enabled, 1, @@global." + farewell + ")"
}

func (d dialect) stopReceiver(channel string) string {
	return "STOP " + d.replica() + d.channel(channel) + " IO_THREAD"
}

func (d dialect) startApplier(channel string) string {
	return "START " + d.replica() + d.channel(channel) + " SQL_THREAD"
}

func (d dialect) stop(channel string) string { return "STOP " + d.replica() + d.channel(channel) }
func (d dialect) start() string              { return "START " + d.replica() }
func (d dialect) forget(channel string) string {
	return "RESET " + d.replica() + d.channel(channel) + " ALL"
}

// waitApplied waits until a set is applied; waited reads its answer.
func (d dialect) waitApplied(set string, within time.Duration) string {
	seconds := strconv.FormatFloat(max(within.Seconds(), 0.001), 'f', 3, 64)
	if d.mariadb {
		return fmt.Sprintf("SELECT MASTER_GTID_WAIT(%s, %s) AS waited", quote(set), seconds)
	}
	if !d.atLeast(8, 0, 0) {
		seconds = strconv.FormatInt(int64(max(within.Seconds(), 1)), 10) // 5.7 rounds, and 0 waits for ever
	}
	return fmt.Sprintf("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s) AS waited", quote(set), seconds)
}

// source is where and as whom a replica reads.
type source struct {
	host, user, password string
	port                 uint16
	tls                  ReplicationTLS
}

// follow points the server to a source by GTID.
func (d dialect) follow(s source) string {
	verb, word := "CHANGE MASTER TO ", "MASTER_"
	if !d.mariadb && d.atLeast(8, 0, 23) {
		verb, word = "CHANGE REPLICATION SOURCE TO ", "SOURCE_"
	}
	var parts []string
	add := func(key, value string) { parts = append(parts, word+key+" = "+value) }
	add("HOST", quote(s.host))
	add("PORT", strconv.Itoa(int(s.port)))
	add("USER", quote(s.user))
	add("PASSWORD", quote(s.password))
	add("CONNECT_RETRY", "1")
	if d.mariadb {
		parts = append(parts, "MASTER_USE_GTID = slave_pos")
	} else {
		add("AUTO_POSITION", "1")
	}
	if s.tls.Enabled {
		add("SSL", "1")
		for key, file := range map[string]string{"SSL_CA": s.tls.CA} {
			if file != "" {
				add(key, quote(file))
			}
		}
		verify := "0"
		if s.tls.VerifyName {
			verify = "1"
		}
		add("SSL_VERIFY_SERVER_CERT", verify)
	} else {
		add("SSL", "0")
		if !d.mariadb && d.atLeast(8, 0, 4) {
			// Without TLS caching_sha2_password needs the source's key to send the password under.
			parts = append(parts, map[string]string{"MASTER_": "GET_MASTER_PUBLIC_KEY", "SOURCE_": "GET_SOURCE_PUBLIC_KEY"}[word]+" = 1")
		}
	}
	return verb + strings.Join(parts, ", ")
}

// askProcesses lists all sessions. Unlike a SELECT it takes no temporary table, for which a full disk has no room; isClient
// tells those of clients.
const askProcesses = "SHOW PROCESSLIST"

func isClient(r row, own string) bool {
	return !slices.Contains([]string{"system user", "event_scheduler", "unauthenticated user", own}, r["user"]) &&
		!strings.HasPrefix(r["command"], "Binlog Dump") && !slices.Contains([]string{"Daemon", "Connect", "Killed"}, r["command"])
}

// askBusy lists the clients' sessions that run a statement.
func (d dialect) askBusy(own string) string {
	return "SELECT p.ID AS id FROM information_schema.PROCESSLIST p WHERE " + clients(own) + " AND p.COMMAND <> 'Sleep'"
}

// askTransactions lists the clients' sessions that have a transaction.
func (d dialect) askTransactions(own string) string {
	return "SELECT DISTINCT p.ID AS id FROM information_schema.PROCESSLIST p " +
		"JOIN information_schema.INNODB_TRX t ON t.trx_mysql_thread_id = p.ID WHERE " + clients(own)
}

// clients is a condition on sessions of the process list: those of clients that are not ours.
func clients(own string) string {
	return "p.ID <> CONNECTION_ID() AND p.USER NOT IN ('system user', 'event_scheduler', 'unauthenticated user', " + quote(own) + ") " +
		"AND p.COMMAND NOT LIKE 'Binlog Dump%' AND p.COMMAND NOT IN ('Daemon', 'Connect', 'Killed')"
}

// quote writes a string literal for a session with an empty sql_mode.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`).Replace(s) + "'"
}
