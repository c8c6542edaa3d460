package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An idle daemon costs less than 2 % of a core and 60 MB.
func TestIdleCost(t *testing.T) {
	l := raise(t, nil)
	must(t, l.StartServers(within(t)))
	must(t, l.StartDaemons())
	must(t, l.WaitStable(within(t)))
	const span = 10 * time.Second
	type usage struct{ cpu, at time.Duration }
	before := map[string]usage{}
	start := time.Now()
	for _, n := range l.Nodes() {
		u, err := n.Daemon().Usage()
		must(t, err)
		before[n.Name] = usage{u.CPU, time.Since(start)}
	}
	time.Sleep(span) // the measured span itself
	for _, n := range l.Nodes() {
		u, err := n.Daemon().Usage()
		must(t, err)
		b := before[n.Name]
		share := 100 * float64(u.CPU-b.cpu) / float64(time.Since(start)-b.at)
		t.Logf("%s: %.2f %% of a core, %.1f MB resident", n.Name, share, float64(u.RSS)/1e6)
		if share >= 2 {
			t.Errorf("%s idles at %.2f %% of a core", n.Name, share)
		}
		if u.RSS >= 60e6 {
			t.Errorf("%s has %.1f MB resident", n.Name, float64(u.RSS)/1e6)
		}
	}
}

// Through a takeover no daemon runs another program.
func TestNoExecve(t *testing.T) {
	l := up(t, nil)
	dir := t.TempDir()
	var traces []string
	for _, n := range l.Nodes() {
		out := filepath.Join(dir, n.Name)
		traces = append(traces, out)
		ctx, cancel := context.WithCancel(t.Context())
		cmd := exec.CommandContext(ctx, "strace", "-f", "-e", "trace=execve,execveat", "-o", out, "-p", strconv.Itoa(n.Daemon().Pid()))
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
		must(t, cmd.Start())
		t.Cleanup(func() { cancel(); _ = cmd.Wait() })
		eventually(t, "strace is attached to "+n.Name, func() bool { return traced(t, n.Daemon().Pid()) })
	}
	old := l.Holder(l.VIP())
	must(t, l.Node(old).SignalServer(syscall.SIGKILL))
	next, err := l.WaitMoved(within(t), old)
	must(t, err)
	must(t, l.Node(old).StartServer(within(t)))
	must(t, l.WaitStable(within(t)))
	must(t, l.Switchover(within(t), old))
	neverTwo(t, l)
	for _, f := range traces {
		b, err := os.ReadFile(f)
		must(t, err)
		if strings.Contains(string(b), "execve") {
			t.Errorf("a daemon ran another program (takeover %s to %s and back):\n%s", old, next, b)
		}
	}
}

// traced reports whether all threads of a process are traced.
func traced(t *testing.T, pid int) bool {
	t.Helper()
	tasks, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/status")
	must(t, err)
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(b), "TracerPid:\t0\n") {
			return false
		}
	}
	return len(tasks) > 0
}
