package sdnotify

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func receive(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1024)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func env(vars map[string]string) func(string) string {
	return func(key string) string { return vars[key] }
}

func TestMessages(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@remora-test-%s-%d", t.Name(), time.Now().UnixNano())} {
		c := listen(t, name)
		n := fromEnvironment(env(map[string]string{"NOTIFY_SOCKET": name}), 1)
		for _, m := range []struct {
			send func() error
			want string
		}{
			{n.Ready, "READY=1"}, {n.Stopping, "STOPPING=1"}, {n.Alive, "WATCHDOG=1"},
			{func() error { return n.Status("serving writer\nsince 1s") }, "STATUS=serving writer since 1s"},
		} {
			if err := m.send(); err != nil {
				t.Fatalf("send to %s: %v", name, err)
			}
			if got := receive(t, c); got != m.want {
				t.Errorf("got %q, want %q", got, m.want)
			}
		}
	}
}

// TestReloading holds what Type=notify-reload needs: a reading of CLOCK_MONOTONIC that does not lie in the future.
func TestReloading(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	c := listen(t, name)
	n := fromEnvironment(env(map[string]string{"NOTIFY_SOCKET": name}), 1)
	var last int64
	for range 2 {
		if err := n.Reloading(); err != nil {
			t.Fatal(err)
		}
		var usec int64
		got := receive(t, c)
		if _, err := fmt.Sscanf(strings.ReplaceAll(got, "\n", " "), "RELOADING=1 MONOTONIC_USEC=%d", &usec); err != nil || usec <= last {
			t.Errorf("got %q after %d: %v", got, last, err)
		}
		last = usec
	}
	if up, err := monotonic(); err != nil || last > up.Microseconds() {
		t.Errorf("told %d µs, the clock says %v, %v", last, up, err)
	}
}

func TestWithoutSystemd(t *testing.T) {
	for _, n := range []*Notifier{nil, new(Notifier), fromEnvironment(env(nil), 1), fromEnvironment(env(map[string]string{"NOTIFY_SOCKET": "vsock:1"}), 1)} {
		if err := n.Ready(); err != nil || n.Watchdog() != 0 {
			t.Errorf("%+v: ready %v, watchdog %v", n, err, n.Watchdog())
		}
	}
}

func TestSocketIsGone(t *testing.T) {
	n := fromEnvironment(env(map[string]string{"NOTIFY_SOCKET": filepath.Join(t.TempDir(), "none")}), 1)
	if err := n.Ready(); err == nil {
		t.Error("no error though nobody listens")
	}
}

func TestWatchdog(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"2000000", "", 2 * time.Second}, {"2000000", "7", 2 * time.Second}, {"2000000", "8", 0},
		{"", "7", 0}, {"-1", "7", 0}, {"soon", "7", 0},
	} {
		n := fromEnvironment(env(map[string]string{"WATCHDOG_USEC": c.usec, "WATCHDOG_PID": c.pid}), 7)
		if n.Watchdog() != c.want {
			t.Errorf("usec %q, pid %q: %v, want %v", c.usec, c.pid, n.Watchdog(), c.want)
		}
	}
}

// TestNoReader holds that a supervisor that does not read holds nobody up.
func TestNoReader(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	listen(t, name)
	n := fromEnvironment(env(map[string]string{"NOTIFY_SOCKET": name}), 1)
	for range 100_000 {
		if err := n.Alive(); err != nil {
			if !errors.Is(err, unix.EAGAIN) {
				t.Error(err)
			}
			return
		}
	}
	t.Error("the socket never filled up")
}
