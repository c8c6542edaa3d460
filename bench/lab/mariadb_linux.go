package lab

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

// MariaDB runs the machine's own mariadbd, Debian's package mariadb-server-core, or another one. Each server says its node's
// name at the end of its version, so that its greeting alone tells who answered.
type MariaDB struct {
	// Dir is the basedir of another one; empty means what REMORA_MARIADB names, or else the machine's own. deploy/mysql.sh
	// brings one.
	Dir string
	// BufferPool is innodb_buffer_pool_size; empty means 16M.
	BufferPool string
	// Extra holds more lines for the [mysqld] section.
	Extra string
}

// versionMark stands between a server's real version and its node's name.
const versionMark = "-lab-"

// Identify returns the node's name from the version that the server greets with.
func (m MariaDB) Identify(version string) string {
	_, node, _ := strings.Cut(version, versionMark)
	return node
}

// The size of the redo log must be the same when the template is made and when it runs.
const mariaRedoLog = "8M"

const mariaAccounts = `FLUSH PRIVILEGES;
DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> 'localhost');
CREATE DATABASE ` + Schema + `;
CREATE USER ` + MonitorUser + `@'%' IDENTIFIED BY '` + MonitorPassword + `';
GRANT SLAVE MONITOR, BINLOG MONITOR ON *.* TO ` + MonitorUser + `@'%';
CREATE USER ` + ClientUser + `@'%' IDENTIFIED BY '` + ClientPassword + `';
GRANT ALL ON ` + Schema + `.* TO ` + ClientUser + `@'%';
CREATE USER ` + replicaUser + `@'%' IDENTIFIED BY '` + replicaPassword + `';
GRANT REPLICATION SLAVE ON *.* TO ` + replicaUser + `@'%';
`

// The configuration of a server that shares two cores with everything else: small buffers, no statistics. Connections
// that break off during the handshake are what the client stream makes; they must neither fill the log nor have the
// client's host blocked.
const mariaConfig = `[mysqld]
user = {{.User}}
{{with .Base}}basedir = {{.}}
{{end}}datadir = {{.Dir}}/data
tmpdir = {{.Dir}}
socket = {{.Socket}}
pid_file = {{.Dir}}/mysql.pid
version = {{.Version}}{{.Mark}}{{.Node}}
port = {{.Port}}
bind_address = {{.Listen}}
skip_name_resolve
server_id = {{.ID}}
gtid_domain_id = {{.Domain}}
log_bin = binlog
log_slave_updates
binlog_format = ROW
sync_binlog = 0
auto_increment_increment = {{.Step}}
auto_increment_offset = {{.Offset}}
read_only = {{.ReadOnly}}
slave_net_timeout = 4
max_connections = 3000
max_connect_errors = 4294967295
back_log = 1500
thread_cache_size = 100
log_warnings = 1
performance_schema = OFF
innodb_buffer_pool_size = {{.BufferPool}}
innodb_log_file_size = {{.RedoLog}}
innodb_flush_log_at_trx_commit = 2
innodb_buffer_pool_dump_at_shutdown = OFF
innodb_buffer_pool_load_at_startup = OFF
key_buffer_size = 1M
aria_pagecache_buffer_size = 1M
{{.Extra}}
`

// Prepare copies a data directory, which is made once per server version, and writes the configuration.
func (m MariaDB) Prepare(ctx context.Context, root string, s ServerSpec) error {
	binary, version, err := m.find(ctx)
	if err != nil {
		return err
	}
	tmpl, err := m.template(ctx, root, binary+version)
	if err != nil {
		return fmt.Errorf("make a data directory: %w", err)
	}
	if err := copyData(ctx, tmpl, s); err != nil {
		return err
	}
	return m.writeConfig(version, s)
}

func (m MariaDB) writeConfig(version string, s ServerSpec) error {
	var b strings.Builder
	// In a ring each server writes into a domain of its own, and fills automatic keys of its own.
	domain, step, offset, readOnly := s.ID(), s.Servers, s.ID(), "OFF"
	if s.Replicas {
		domain, step, offset, readOnly = 0, 1, 1, "ON"
	}
	err := template.Must(template.New("").Parse(mariaConfig)).Execute(&b, map[string]any{
		"User": serverUser, "Base": m.dir(), "Dir": s.Dir, "Socket": s.Socket(), "Version": version, "Mark": versionMark, "Node": s.Node,
		"Port": ServerPort, "ID": s.ID(), "Domain": domain, "Step": step, "Offset": offset, "ReadOnly": readOnly, "BufferPool": orDefault(m.BufferPool, "16M"),
		"RedoLog": mariaRedoLog, "Listen": s.Listen, "Extra": m.Extra})
	if err != nil {
		return fmt.Errorf("write the server's configuration: %w", err)
	}
	return os.WriteFile(m.configPath(s), []byte(b.String()), 0o644)
}

func (m MariaDB) configPath(s ServerSpec) string { return filepath.Join(s.Dir, "my.cnf") }

// Command returns the command that runs the server.
func (m MariaDB) Command(s ServerSpec) *exec.Cmd {
	return exec.Command(m.program("mariadbd"), "--defaults-file="+m.configPath(s)) // if it has gone, starting it says so
}

// Follow returns the statements that make a server a replica of source.
func (m MariaDB) Follow(source ServerSpec) []string {
	return []string{
		fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='%s', MASTER_PORT=%d, MASTER_USER='%s', MASTER_PASSWORD='%s', "+
			"MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1, MASTER_HEARTBEAT_PERIOD=1",
			source.Addr, ServerPort, replicaUser, replicaPassword),
		"START SLAVE",
	}
}

// Source returns the address of the server's source while both replication threads run.
func (m MariaDB) Source(ctx context.Context, db *sql.DB) (string, error) {
	return sourceOf(ctx, db, "SHOW SLAVE STATUS", "Slave_IO_Running", "Slave_SQL_Running", "Master_Host")
}

func (m MariaDB) dir() string { return orDefault(m.Dir, os.Getenv("REMORA_MARIADB")) }

// program returns what runs one of the server's programs.
func (m MariaDB) program(name string) string {
	if dir := m.dir(); dir != "" {
		return filepath.Join(dir, "bin", name)
	}
	return name
}

// find returns the server's path and its version.
func (m MariaDB) find(ctx context.Context) (path, version string, err error) {
	path, err = exec.LookPath(m.program("mariadbd"))
	if err != nil && m.dir() != "" {
		return "", "", fmt.Errorf("find the server: %w: bring one with deploy/mysql.sh --mariadb %s", err, m.dir())
	}
	if err != nil {
		return "", "", fmt.Errorf("find the server: %w: install mariadb-server-core (deploy/deps.sh does)", err)
	}
	out, err := exec.CommandContext(ctx, path, "--no-defaults", "--version").Output()
	if err != nil {
		return "", "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	_, rest, _ := strings.Cut(string(out), "Ver ")
	version, _, _ = strings.Cut(rest, "-MariaDB")
	return path, version + "-MariaDB", nil
}

// template returns a data directory with the accounts in it, making it when there is none for this version yet.
func (m MariaDB) template(ctx context.Context, root, version string) (string, error) {
	return keepTemplate(root, "mariadb", version+serverUser+mariaAccounts+mariaRedoLog, func(data string) error { return m.install(ctx, data) })
}

func (m MariaDB) install(ctx context.Context, data string) error {
	common := []string{"--no-defaults", "--user=" + serverUser, "--datadir=" + data, "--innodb-log-file-size=" + mariaRedoLog}
	if dir := m.dir(); dir != "" {
		common = append(common, "--basedir="+dir)
	}
	install := append(common[:len(common):len(common)], "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
	if err := run(ctx, "", m.program("mariadb-install-db"), install...); err != nil {
		return err
	}
	return run(ctx, mariaAccounts, m.program("mariadbd"), append(common[:len(common):len(common)], "--bootstrap")...)
}
