package e2e

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// supervisor is systemd's end of a service of Type=notify with WatchdogSec=.
type supervisor struct {
	t *testing.T
	c *net.UnixConn
}

// supervise has the daemons that the test starts tell a supervisor what they would tell systemd.
func supervise(t *testing.T, watchdog time.Duration) supervisor {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", strconv.FormatInt(watchdog.Microseconds(), 10))
	return supervisor{t, c}
}

// within returns the next message, empty if there is none in time.
func (s supervisor) within(d time.Duration) string {
	s.t.Helper()
	must(s.t, s.c.SetReadDeadline(time.Now().Add(d)))
	b := make([]byte, 1024)
	n, err := s.c.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	must(s.t, err)
	return string(b[:n])
}

// until reads messages up to one and returns those before it.
func (s supervisor) until(message string) (before []string) {
	s.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		switch m := s.within(time.Until(end)); m {
		case message:
			return before
		case "":
		default:
			before = append(before, m)
		}
	}
	s.t.Fatalf("no %s, but %q", message, before)
	return nil
}

// A daemon gives systemd signs of life as often as its watchdog asks for, from its first moment to its end, also without a
// majority; and none while it is frozen, so that systemd ends it.
func TestWatchdogOfSystemd(t *testing.T) {
	const watchdog, alive = time.Second, "WATCHDOG=1"
	s := supervise(t, watchdog)
	l := raise(t, func(o *lab.Options) { o.Server = nil })
	must(t, l.PrepareDaemons())
	n := l.Nodes()[0]
	must(t, n.StartDaemon())
	s.until("READY=1")
	for i := range 10 { // three of them fit into the watchdog's time
		if m := s.within(watchdog); m != alive {
			t.Fatalf("in %v came %q and no sign of life, the %dth", watchdog, m, i+1)
		}
	}
	must(t, n.SignalDaemon(syscall.SIGSTOP))
	eventually(t, "the daemon is frozen", func() bool {
		stopped, err := n.Daemon().Stopped()
		must(t, err)
		return stopped
	})
	for s.within(time.Millisecond) != "" { // what it said before
	}
	if m := s.within(watchdog); m != "" {
		t.Errorf("a frozen daemon says %q", m)
	}
	must(t, n.SignalDaemon(syscall.SIGCONT))
	s.until(alive)
	must(t, n.StopDaemon())
	if last := s.until("STOPPING=1"); slices.ContainsFunc(last, func(m string) bool { return m != alive }) {
		t.Errorf("before its end it says %q", last)
	}
}
