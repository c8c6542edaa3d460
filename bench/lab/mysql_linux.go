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

// MySQL runs a real MySQL that deploy/mysql.sh has brought beside the system. Its greeting does not tell which node it is
// of.
type MySQL struct {
	// Dir is where it is; empty means what REMORA_MYSQL names, or else where deploy/mysql.sh puts it.
	Dir string
	// Extra holds more lines for the [mysqld] section.
	Extra string
}

// Identify can not tell the node: the version that MySQL greets with is fixed when it is built.
func (m MySQL) Identify(string) string { return "" }

const mysqlAccounts = `CREATE DATABASE ` + Schema + `;
CREATE USER ` + MonitorUser + `@'%' IDENTIFIED BY '` + MonitorPassword + `';
GRANT REPLICATION CLIENT ON *.* TO ` + MonitorUser + `@'%';
CREATE USER ` + ClientUser + `@'%' IDENTIFIED BY '` + ClientPassword + `';
GRANT ALL ON ` + Schema + `.* TO ` + ClientUser + `@'%';
CREATE USER ` + replicaUser + `@'%' IDENTIFIED BY '` + replicaPassword + `';
GRANT REPLICATION SLAVE ON *.* TO ` + replicaUser + `@'%';
`

// The configuration of a server that shares two cores with everything else. The statistics alone would take 400 MB.
const mysqlConfig = `[mysqld]
user = {{.User}}
basedir = {{.Base}}/usr
lc_messages_dir = {{.Base}}/usr/share/mysql
plugin_dir = {{.Base}}/usr/lib/mysql/plugin
secure_file_priv = NULL
mysqlx = OFF
datadir = {{.Dir}}/data
tmpdir = {{.Dir}}
socket = {{.Socket}}
pid_file = {{.Dir}}/mysql.pid
port = {{.Port}}
bind_address = {{.Listen}}
skip_name_resolve
server_id = {{.ID}}
log_bin = binlog
gtid_mode = ON
enforce_gtid_consistency = ON
sync_binlog = 0
super_read_only = {{.ReadOnly}}
auto_increment_increment = {{.Step}}
auto_increment_offset = {{.Offset}}
replica_net_timeout = 4
replica_parallel_workers = 1
max_connections = 1000
max_connect_errors = 4294967295
back_log = 1000
log_error_verbosity = 1
performance_schema = OFF
innodb_buffer_pool_size = 16M
innodb_redo_log_capacity = ` + mysqlRedoLog + `
innodb_flush_log_at_trx_commit = 2
innodb_buffer_pool_dump_at_shutdown = OFF
innodb_buffer_pool_load_at_startup = OFF
{{.Extra}}
`

const mysqlRedoLog = "8M"

func (m MySQL) dir() string {
	return orDefault(m.Dir, orDefault(os.Getenv("REMORA_MYSQL"), "/var/cache/remora-mysql"))
}

func (m MySQL) binary() string { return filepath.Join(m.dir(), "bin", "mysqld") }

// Prepare copies a data directory, which is made once per server, and writes the configuration.
func (m MySQL) Prepare(ctx context.Context, root string, s ServerSpec) error {
	if !exists(m.binary()) {
		return fmt.Errorf("there is no %s: bring a MySQL with deploy/mysql.sh, or name its directory with REMORA_MYSQL", m.binary())
	}
	out, err := exec.CommandContext(ctx, m.binary(), "--no-defaults", "--version").Output()
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", m.binary(), err)
	}
	tmpl, err := keepTemplate(root, "mysql", string(out)+mysqlAccounts+mysqlRedoLog, func(data string) error { return m.install(ctx, data) })
	if err != nil {
		return fmt.Errorf("make a data directory: %w", err)
	}
	if err := copyData(ctx, tmpl, s); err != nil {
		return err
	}
	step, offset, readOnly := s.Servers, s.ID(), "OFF"
	if s.Replicas {
		step, offset, readOnly = 1, 1, "ON"
	}
	var b strings.Builder
	err = template.Must(template.New("").Parse(mysqlConfig)).Execute(&b, map[string]any{
		"User": serverUser, "Base": m.dir(), "Dir": s.Dir, "Socket": s.Socket(), "Port": ServerPort, "ID": s.ID(), "Step": step,
		"Offset": offset, "ReadOnly": readOnly, "Listen": s.Listen, "Extra": m.Extra})
	if err != nil {
		return fmt.Errorf("write the server's configuration: %w", err)
	}
	return os.WriteFile(m.configPath(s), []byte(b.String()), 0o644)
}

func (m MySQL) install(ctx context.Context, data string) error {
	accounts := data + ".sql"
	if err := os.WriteFile(accounts, []byte(mysqlAccounts), 0o644); err != nil {
		return err
	}
	defer os.Remove(accounts)
	base := m.dir()
	err := run(ctx, "", m.binary(), "--no-defaults", "--user="+serverUser, "--basedir="+base+"/usr", "--lc-messages-dir="+base+"/usr/share/mysql",
		"--plugin-dir="+base+"/usr/lib/mysql/plugin", "--secure-file-priv=NULL", "--mysqlx=OFF", "--innodb-redo-log-capacity="+mysqlRedoLog,
		"--initialize-insecure", "--init-file="+accounts, "--datadir="+data)
	if err != nil {
		return err
	}
	return os.Remove(filepath.Join(data, "auto.cnf")) // it holds the server's UUID, and each copy is a server of its own
}

func (m MySQL) configPath(s ServerSpec) string { return filepath.Join(s.Dir, "my.cnf") }

// Command returns the command that runs the server.
func (m MySQL) Command(s ServerSpec) *exec.Cmd {
	return exec.Command(m.binary(), "--defaults-file="+m.configPath(s))
}

// Follow returns the statements that make a server a replica of source.
func (m MySQL) Follow(source ServerSpec) []string {
	return []string{
		fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='%s', SOURCE_PORT=%d, SOURCE_USER='%s', SOURCE_PASSWORD='%s', "+
			"SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1, SOURCE_HEARTBEAT_PERIOD=1",
			source.Addr, ServerPort, replicaUser, replicaPassword),
		"START REPLICA",
	}
}

// Source returns the address of the server's source while both replication threads run.
func (m MySQL) Source(ctx context.Context, db *sql.DB) (string, error) {
	return sourceOf(ctx, db, "SHOW REPLICA STATUS", "Replica_IO_Running", "Replica_SQL_Running", "Source_Host")
}
