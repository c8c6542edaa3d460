package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// An idle daemon shall cost less than 2 % of a core and 60 MB. What it costs is waking up some hundred times a second and
// sending some ten to a hundred datagrams, whose way to the other nodes is charged to it where all share a machine. On a
// virtual machine without much to do each can take fifty microseconds. So there is a yardstick beside it, a process that
// wakes up as often for nothing, and where that costs much the daemons may cost four times as much: the limit is the greater of
// the two. Who wakes up for nothing has no caches to fill: the owner's share was that of the yardstick where that is 1 %, and up
// to 3.2 times as much, by the same build, in hours in which it is 1.7 to 2.5 %.
//
// How often the threads of the three wait says more, for it hardly depends on the machine. It has a limit of its own. What
// else runs, and an election, can only add to all this, so the best of some spans counts.
func TestIdleCost(t *testing.T) {
	yardstick := startYardstick(t)
	l := raise(t, nil)
	must(t, l.StartServers(within(t)))
	must(t, l.StartDaemons())
	must(t, l.WaitStable(within(t)))
	bestSpan(t, func() []string { return idleSpan(t, l, yardstick) })
}

// bestSpan lets a span be measured until one has no problems, four times at most.
func bestSpan(t *testing.T, span func() (problems []string)) {
	t.Helper()
	const spans = 4
	for range spans {
		problems := span()
		if len(problems) == 0 {
			return
		}
		t.Log("too much in this span:\n" + strings.Join(problems, "\n"))
	}
	t.Errorf("daemons cost too much in each of %d spans", spans)
}

// idleWaits is how often the threads of an owner, a leader and a follower may wait in a second, together. On machines with
// two cores that were busy or not they wait 420 to 530 times.
const idleWaits = 590

// idleSpan looks at the daemons for a while and says what was too much.
func idleSpan(t *testing.T, l *lab.Lab, yardstick int) (problems []string) {
	t.Helper()
	bare, of := costs(t, l, yardstick)
	limit := max(2, 4*bare)
	sum := 0.0
	for _, n := range l.Nodes() {
		c := of[n.Name]
		sum += c.waits
		t.Logf("%s: %.2f %% of a core, %.1f MB resident, waits %.0f times a second", n.Name, c.share, float64(c.resident)/1e6, c.waits)
		if c.share >= limit {
			problems = append(problems, fmt.Sprintf("%s idles at %.2f %% of a core, the limit here is %.2f %%", n.Name, c.share, limit))
		}
		if c.resident >= 60e6 {
			problems = append(problems, fmt.Sprintf("%s has %.1f MB resident", n.Name, float64(c.resident)/1e6))
		}
	}
	if sum >= idleWaits {
		problems = append(problems, fmt.Sprintf("the daemons' threads wait %.0f times a second, the limit is %d", sum, idleWaits))
	}
	return problems
}

// cost is what a daemon has of the machine.
type cost struct {
	share    float64 // percent of a core
	waits    float64 // of its threads, in a second
	resident int64   // bytes
}

// costs looks at the daemons for ten seconds, and at the yardstick beside them, of which it returns the share of a core in percent.
func costs(t *testing.T, l *lab.Lab, yardstick int) (bare float64, of map[string]cost) {
	t.Helper()
	const span = 10 * time.Second
	type usage struct {
		lab.Usage
		at time.Duration
	}
	before := map[string]usage{}
	idle := ticks(t, yardstick)
	start := time.Now()
	for _, n := range l.Nodes() {
		u, err := n.Daemon().Usage()
		must(t, err)
		before[n.Name] = usage{u, time.Since(start)}
	}
	time.Sleep(span) // the measured span itself
	bare = 100 * float64(ticks(t, yardstick)-idle) / float64(time.Since(start))
	t.Logf("waking up %d times a second for nothing costs %.2f %% of a core here", time.Second/wakeEvery, bare)
	of = map[string]cost{}
	for _, n := range l.Nodes() {
		u, err := n.Daemon().Usage()
		must(t, err)
		b := before[n.Name]
		took := time.Since(start) - b.at
		of[n.Name] = cost{share: 100 * float64(u.CPU-b.CPU) / float64(took), waits: float64(u.Waits-b.Waits) / took.Seconds(), resident: u.RSS}
	}
	return bare, of
}

// startYardstick starts a process that wakes up as often as a daemon in profile lan, for nothing, and returns its number.
func startYardstick(t *testing.T) (pid int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), wakeUp+"=1", "GOMAXPROCS=1")
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

// wakeUp is set for a test binary that is to be the yardstick.
const wakeUp = "REMORA_E2E_WAKE_UP"

// wakeEvery is about the mean time between two awakenings of a daemon.
const wakeEvery = 5 * time.Millisecond

// wake wakes up again and again, for some minutes at most.
func wake() {
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); {
		time.Sleep(wakeEvery)
	}
}

// ticks returns the processor time of a process.
func ticks(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	must(t, err)
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	const user, system, hz = 11, 12, 100 // counted from the state, which is field 3 of proc(5)
	sum := 0
	for _, f := range []string{fields[user], fields[system]} {
		n, err := strconv.Atoi(f)
		must(t, err)
		sum += n
	}
	return time.Duration(sum) * time.Second / hz
}

// Through a takeover no daemon runs another program.
func TestNoExecve(t *testing.T) {
	l := up(t, nil)
	ran := traceDaemons(t, l)
	old := l.Holder(l.VIP())
	must(t, l.Node(old).SignalServer(syscall.SIGKILL))
	next, err := l.WaitMoved(within(t), old)
	must(t, err)
	must(t, l.Node(old).StartServer(within(t)))
	must(t, l.WaitStable(within(t)))
	must(t, l.Switchover(within(t), old))
	neverTwo(t, l)
	if b := ran(); len(b) > 0 {
		t.Errorf("a daemon ran another program (takeover %s to %s and back):\n%s", old, next, b)
	}
}

// traceDaemons follows every daemon, and returns what tells which programs they have run since.
func traceDaemons(t *testing.T, l *lab.Lab) (ran func() string) {
	t.Helper()
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
	return func() string {
		var all strings.Builder
		for _, f := range traces {
			b, err := os.ReadFile(f)
			must(t, err)
			for line := range strings.Lines(string(b)) {
				if strings.Contains(line, "execve") {
					all.WriteString(line)
				}
			}
		}
		return all.String()
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
