package detector

import (
	"database/sql"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/remora-ha/remora/core"
	"github.com/remora-ha/remora/core/gtid"
)

// mysqlDir is where deploy/mysql.sh puts a MySQL.
func mysqlDir() string {
	if dir := os.Getenv("REMORA_MYSQL"); dir != "" {
		return dir
	}
	return "/var/cache/remora-mysql"
}

// kind is a server program of the matrix.
type kind struct {
	name    string
	flavour gtid.Flavour
}

var kinds = []kind{{"MariaDB", gtid.MariaDB}, {"MySQL", gtid.MySQL}}

// eachKind runs a test on every server of the matrix.
func eachKind(t *testing.T, test func(t *testing.T, k kind)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { test(t, k) })
	}
}

func (k kind) command(args ...string) *exec.Cmd {
	if k.flavour == gtid.MariaDB {
		return mariadbCommand("mariadbd", append([]string{"--user=root", "--innodb-log-file-size=4M", "--key-buffer-size=1M"}, args...)...)
	}
	dir := mysqlDir()
	return exec.Command(filepath.Join(dir, "bin/mysqld"), append([]string{"--no-defaults", "--user=root", "--basedir=" + dir + "/usr",
		"--lc-messages-dir=" + dir + "/usr/share/mysql", "--plugin-dir=" + dir + "/usr/lib/mysql/plugin", "--secure-file-priv=NULL",
		"--mysqlx=OFF", "--innodb-redo-log-capacity=8M"}, args...)...)
}

// mysqlTemplate is the data directory that each MySQL copies.
var mysqlTemplate = sync.OnceValues(func() (string, error) {
	dir := os.Getenv("REMORA_TEST_TEMPLATE") + "-mysql"
	out, err := kind{flavour: gtid.MySQL}.command("--initialize-insecure", "--datadir="+dir).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("make a data directory of MySQL (deploy/deps.sh brings the program): %w\n%s", err, out)
	}
	return dir, nil
})

const (
	promoteUser = "remora"
	replUser    = "repl"
	otherUser   = "app"
)

// newDBServer starts a server of a kind with binary log and GTIDs and makes the accounts: remora with what promote needs.
func newDBServer(t *testing.T, k kind, id int, more ...string) *dbServer {
	t.Helper()
	makeTemplate := template
	if k.flavour == gtid.MySQL {
		makeTemplate = mysqlTemplate
	}
	from, err := makeTemplate()
	if err != nil {
		t.Fatal(err)
	}
	s := &dbServer{t: t, kind: k, dir: t.TempDir(), port: freePort(t)}
	if err := os.CopyFS(filepath.Join(s.dir, "data"), os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(s.dir, "data", "auto.cnf")) // the copies need UUIDs of their own
	s.args = append([]string{"--datadir=" + filepath.Join(s.dir, "data"), "--socket=" + s.socket(), "--pid-file=" + filepath.Join(s.dir, "pid"),
		"--port=" + strconv.Itoa(s.port), "--bind-address=127.0.0.1", "--log-error=" + filepath.Join(s.dir, "log"), "--server-id=" + strconv.Itoa(id),
		"--innodb-buffer-pool-size=8M", "--performance-schema=OFF", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0",
		"--sync-binlog=0", "--log-bin=binlog", "--log-slave-updates"}, more...)
	if k.flavour == gtid.MySQL {
		s.args = append(s.args, "--gtid-mode=ON", "--enforce-gtid-consistency=ON")
	}
	t.Cleanup(s.kill)
	s.start()
	account := func(user, grants string) []string {
		return []string{"CREATE USER " + user + "@'%' IDENTIFIED BY '" + testPassword + "'", "GRANT " + grants + " ON *.* TO " + user + "@'%'"}
	}
	family, reset := MariaDB, "RESET MASTER"
	if k.flavour == gtid.MySQL {
		family, reset = MySQL80, "RESET BINARY LOGS AND GTIDS"
	}
	remora := strings.Join(family.Privileges(core.Promote, false), ", ")
	s.exec(account(promoteUser, remora)...)
	s.exec(account(replUser, "REPLICATION SLAVE")...)
	s.exec(account(otherUser, "SELECT, INSERT, UPDATE, CREATE, LOCK TABLES, RELOAD")...)
	s.exec("CREATE DATABASE d", "CREATE TABLE d.t (i INT PRIMARY KEY)", reset)
	return s
}

// dbServer is a running server of the matrix.
type dbServer struct {
	t    *testing.T
	kind kind
	dir  string
	port int
	args []string
	cmd  *exec.Cmd
}

func (s *dbServer) socket() string { return filepath.Join(s.dir, "s") }
func (s *dbServer) address() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(s.port))
}

func (s *dbServer) portText() string { return strconv.Itoa(s.port) }

func (s *dbServer) start() {
	s.t.Helper()
	s.launch()
	s.waitAnswer()
}

// launch starts the server and does not wait.
func (s *dbServer) launch() {
	s.t.Helper()
	s.cmd = s.kind.command(s.args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start %s (deploy/deps.sh brings it): %v", s.kind.name, err)
	}
}

func (s *dbServer) waitAnswer() {
	s.t.Helper()
	db := s.db("root", "")
	defer db.Close()
	until(s.t, 60*time.Second, "the server answers", func() bool { return db.Ping() == nil })
}

func (s *dbServer) kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *dbServer) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// stop freezes the server and waits until it stands.
func (s *dbServer) stop() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	until(s.t, 10*time.Second, "the server stands still", func() bool {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
		if err != nil || len(tasks) == 0 {
			s.t.Fatal("the server has no threads: ", err)
		}
		for _, task := range tasks {
			b, err := os.ReadFile(task)
			if err != nil {
				return false
			}
			if _, rest, _ := strings.Cut(string(b), ") "); !strings.HasPrefix(rest, "T") {
				return false
			}
		}
		return true
	})
}

// db is a pool; root comes through the unix socket.
func (s *dbServer) db(user, password string) *sql.DB {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr = user, password, "tcp", s.address().String()
	if user == "root" {
		cfg.Net, cfg.Addr = "unix", s.socket()
	}
	cfg.Logger = &mysql.NopLogger{}
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	db := sql.OpenDB(c)
	s.t.Cleanup(func() { db.Close() })
	return db
}

// client is one connection of an application.
func (s *dbServer) client() *sql.DB {
	db := s.db(otherUser, testPassword)
	db.SetMaxOpenConns(1)
	return db
}

func (s *dbServer) exec(statements ...string) {
	s.t.Helper()
	db := s.db("root", "")
	db.SetMaxOpenConns(1)
	defer db.Close()
	for _, st := range statements {
		mustExec(s.t, db, st)
	}
}

func mustExec(t *testing.T, db *sql.DB, statement string) {
	t.Helper()
	if _, err := db.Exec(statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func (s *dbServer) value(query string) (v string) {
	s.t.Helper()
	db := s.db("root", "")
	defer db.Close()
	if err := db.QueryRow(query).Scan(&v); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	return v
}

func (s *dbServer) readOnly() bool {
	s.t.Helper()
	if s.kind.flavour == gtid.MySQL {
		return s.value("SELECT @@global.super_read_only AND @@global.read_only") == "1"
	}
	return s.value("SELECT @@global.read_only") == "1"
}

func (s *dbServer) writable() bool { return s.value("SELECT @@global.read_only") == "0" }

// executed is the set as the server itself gives it.
func (s *dbServer) executed() string {
	s.t.Helper()
	if s.kind.flavour == gtid.MySQL {
		return strings.ReplaceAll(s.value("SELECT @@global.gtid_executed"), "\n", "")
	}
	return s.value("SELECT @@global.gtid_current_pos")
}

func (s *dbServer) actor(change ...func(*ActorConfig)) *Actor {
	s.t.Helper()
	password := func() (string, error) { return testPassword, nil }
	cfg := ActorConfig{Clock: bootClock, Account: Account{Address: s.address().String(), User: promoteUser, Password: password,
		ReplicationUser: replUser, ReplicationPassword: password}}
	for _, c := range change {
		c(&cfg)
	}
	a, err := NewActor(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { a.work.drop(); a.giveUp.drop() })
	return a
}

// follow makes s a replica of source through its actor.
func (s *dbServer) follow(source *dbServer) {
	s.t.Helper()
	f := s.actor().Follow(s.t.Context(), core.FollowServer{Source: source.address(), SourceExecuted: source.executed()})
	if f.Err != "" || f.Errant != "" {
		s.t.Fatalf("follow: %+v", f)
	}
}

// pair starts a primary with a replica that has one row of it.
func pair(t *testing.T, k kind) (primary, replica *dbServer) {
	t.Helper()
	primary, replica = newDBServer(t, k, 1), newDBServer(t, k, 2)
	primary.exec("INSERT INTO d.t VALUES (1)")
	replica.follow(primary)
	replica.hasRow(1)
	return primary, replica
}

func (s *dbServer) hasRow(i int) {
	s.t.Helper()
	until(s.t, 20*time.Second, fmt.Sprintf("row %d arrives", i), func() bool {
		return s.value(fmt.Sprintf("SELECT COUNT(*) FROM d.t WHERE i = %d", i)) == "1"
	})
}
