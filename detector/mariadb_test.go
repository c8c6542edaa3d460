package detector

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// bootClock reads CLOCK_BOOTTIME, as the daemon does.
func bootClock() core.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return core.Instant(ts.Nano())
}

func lan(t testing.TB) core.Timing {
	timing, err := core.ProfileTiming("lan")
	if err != nil {
		t.Fatal(err)
	}
	return timing
}

// mariadb is a real server on loopback with a data directory of its own.
type mariadb struct {
	t    testing.TB
	dir  string
	port int
	args []string
	cmd  *exec.Cmd
}

const testPassword = "s3cret-of-the-test"

// mariadbCommand runs a program of the MariaDB whose basedir REMORA_MARIADB names (deploy/mysql.sh brings one), else of the
// machine's own, without any option file.
func mariadbCommand(program string, args ...string) *exec.Cmd {
	own := []string{"--no-defaults"}
	if dir := os.Getenv("REMORA_MARIADB"); dir != "" {
		program, own = filepath.Join(dir, "bin", program), append(own, "--basedir="+dir)
	}
	return exec.Command(program, append(own, args...)...)
}

// template holds a fresh data directory that each server copies: mariadb-install-db takes seconds.
var template = sync.OnceValues(func() (string, error) {
	dir := os.Getenv("REMORA_TEST_TEMPLATE")
	out, err := mariadbCommand("mariadb-install-db", "--auth-root-authentication-method=normal", "--user=root",
		"--skip-test-db", "--datadir="+dir, "--innodb-log-file-size=4M").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	return dir, nil
})

// noBindAddress is not an argument of the server: it stands for the absence of one.
const noBindAddress = "(no bind address)"

func freePort(t testing.TB) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// newMariaDB starts a server with more arguments and makes the account.
func newMariaDB(t testing.TB, args ...string) *mariadb {
	t.Helper()
	from, err := template()
	if err != nil {
		t.Fatal(err)
	}
	m := &mariadb{t: t, dir: t.TempDir(), port: freePort(t), args: args}
	if err := os.CopyFS(filepath.Join(m.dir, "data"), os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.kill)
	m.start()
	m.exec("CREATE USER remora@'%' IDENTIFIED BY '"+testPassword+"'", "GRANT SLAVE MONITOR ON *.* TO remora@'%'")
	return m
}

func (m *mariadb) socket() string  { return filepath.Join(m.dir, "s") }
func (m *mariadb) address() string { return "127.0.0.1:" + strconv.Itoa(m.port) }

func (m *mariadb) start() {
	m.t.Helper()
	args := append([]string{"--user=root", "--datadir=" + filepath.Join(m.dir, "data"),
		"--socket=" + m.socket(), "--pid-file=" + filepath.Join(m.dir, "pid"), "--port=" + strconv.Itoa(m.port),
		"--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M", "--key-buffer-size=1M", "--performance-schema=OFF",
		"--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--log-error=" + filepath.Join(m.dir, "log"),
		"--bind-address=127.0.0.1"}, m.args...)
	if slices.Contains(m.args, noBindAddress) {
		args = slices.DeleteFunc(args, func(a string) bool { return a == noBindAddress || a == "--bind-address=127.0.0.1" })
	}
	m.cmd = mariadbCommand("mariadbd", args...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	until(m.t, 20*time.Second, "the server answers", func() bool {
		db := m.root()
		defer db.Close()
		return db.Ping() == nil
	})
}

func (m *mariadb) kill() {
	if m.cmd != nil {
		m.cmd.Process.Kill()
		m.cmd.Wait()
		m.cmd = nil
	}
}

func (m *mariadb) signal(s syscall.Signal) {
	m.t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		m.t.Fatal(err)
	}
}

// root is a connection pool of the superuser through the unix socket.
func (m *mariadb) root() *sql.DB {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr = "root", "unix", m.socket()
	cfg.Logger = &mysql.NopLogger{}
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	return sql.OpenDB(c)
}

func (m *mariadb) exec(statements ...string) {
	m.t.Helper()
	db := m.root()
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			m.t.Fatalf("%s: %v", s, err)
		}
	}
}

func (m *mariadb) value(query string) (s string) {
	m.t.Helper()
	db := m.root()
	defer db.Close()
	if err := db.QueryRow(query).Scan(&s); err != nil {
		m.t.Fatalf("%s: %v", query, err)
	}
	return s
}

// until polls for a condition.
func until(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// watcher runs a Detector and keeps what it delivers.
type watcher struct {
	t  testing.TB
	mu sync.Mutex
	hs []seen
}

type seen struct {
	core.Health
	at time.Time
}

func watch(t testing.TB, cfg Config) *watcher {
	t.Helper()
	w := &watcher{t: t}
	cfg.Deliver = func(e core.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.hs = append(w.hs, seen{e.(core.HealthChanged).Health, time.Now()})
	}
	cfg.Clock = bootClock
	if cfg.User == "" {
		cfg.User = "remora"
	}
	if cfg.Password == nil {
		cfg.Password = func() (string, error) { return testPassword, nil }
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

func (w *watcher) last() seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.hs) == 0 {
		return seen{}
	}
	return w.hs[len(w.hs)-1]
}

// count returns how many events there were, to look later only at what follows.
func (w *watcher) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.hs)
}

func (w *watcher) wait(limit time.Duration, what string, ok func(core.Health) bool) seen {
	w.t.Helper()
	until(w.t, limit, what, func() bool { return ok(w.last().Health) })
	return w.last()
}

func (w *watcher) waitState(s core.HealthState) seen {
	w.t.Helper()
	return w.wait(20*time.Second, "state "+s.String(), func(h core.Health) bool { return h.State == s })
}

// never fails the test if one of the events since from has the state.
func (w *watcher) never(from int, s core.HealthState) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.hs[from:] {
		if h.State == s {
			w.t.Fatalf("the state was %v: %s", s, h.Reason)
		}
	}
}

func TestMain(m *testing.M) {
	if mode := os.Getenv("REMORA_TEST_HELPER"); mode != "" {
		helper(mode)
		return
	}
	dir, err := os.MkdirTemp("", "remora-detector-")
	if err != nil {
		panic(err)
	}
	os.Setenv("REMORA_TEST_TEMPLATE", dir)
	code := m.Run()
	os.RemoveAll(dir)
	os.RemoveAll(dir + "-mysql")
	os.Exit(code)
}

// lockedLog is a log that may be read while it is written.
type lockedLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedLog) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
