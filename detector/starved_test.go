package detector

import (
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

func TestRunnable(t *testing.T) {
	for text, want := range map[string]int{"0.28 1.68 2.25 3/812 4711\n": 3, "0.28 1.68 2.25 12/812 4711\n": 12, "": 0, "0.28 1.68 2.25": 0, "1 1 1 x/1 1": 0} {
		if n := runnable([]byte(text)); n != want {
			t.Errorf("%q: %d, want %d", text, n, want)
		}
	}
	text, err := os.ReadFile("/proc/loadavg")
	if n := runnable(text); err != nil || n < 1 {
		t.Errorf("%q: %d runnable, %v, want this test at least", text, n, err)
	}
}

// A thread that is ready is no excuse where there is a processor for it.
func TestCrowded(t *testing.T) {
	for text, want := range map[string]bool{"9.9 9.9 9.9 3/812 4711\n": false, "0 0 0 4/812 4711\n": true, "": false} {
		if got := crowded([]byte(text), 2); got != want {
			t.Errorf("%q on two processors: %t, want %t", text, got, want)
		}
	}
}

// start runs a command until the test ends.
func start(t *testing.T, name string, args ...string) *os.Process {
	t.Helper()
	c := exec.Command(name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c.Process
}

// spin keeps a processor busy.
const spin = "while :; do :; done"

// keepWatch has p watch a process.
func keepWatch(t *testing.T, p *processes, pid int) {
	t.Helper()
	w, err := openProcess(pid, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.release)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watched = w
}

// A server that would run and has no processor is told from one that is stopped or waits, on the same busy machine.
func TestAServerWithoutAProcessorIsToldFromOneThatHangs(t *testing.T) {
	p := newProcesses(time.Second, nil, nil)
	if p.starved() {
		t.Error("nobody is watched and starves")
	}
	for range runtime.NumCPU() + 1 {
		start(t, "sh", "-c", spin)
	}
	busy := start(t, "sh", "-c", spin)
	idle := start(t, "sleep", "1000")
	keepWatch(t, p, busy.Pid)
	until(t, 10*time.Second, "the server starves", p.starved)
	if err := busy.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "the server is stopped", func() bool { return !ready(busy.Pid) })
	for range 100 {
		if p.starved() {
			t.Fatal("a server that is stopped starves")
		}
	}
	keepWatch(t, p, idle.Pid)
	until(t, 10*time.Second, "the server waits", func() bool { return !ready(idle.Pid) })
	for range 100 {
		if p.starved() {
			t.Fatal("a server that waits starves")
		}
	}
}

// The question of a server that starves waits for twice its time, on the same connection.
func TestAServerThatStarvesHasItsTimeTwice(t *testing.T) {
	p := newProcesses(time.Second, nil, nil)
	for range runtime.NumCPU() + 2 {
		keepWatch(t, p, start(t, "sh", "-c", spin).Pid) // the last one counts
	}
	until(t, 10*time.Second, "the server starves", p.starved)
	slow := mysql84(noReplica)
	var hang atomic.Bool
	const timeout = 200 * time.Millisecond
	f := newFake(t, &fake{reply: func(q string) reply {
		if q == askMariaDB {
			time.Sleep(timeout + timeout/4)
		}
		if hang.Load() {
			return reply{hang: true}
		}
		return slow(q)
	}})
	timing := lan(t)
	timing.Probe = 10 * time.Second // so that our own lateness is no excuse
	d, err := New(Config{Address: f.address(), User: "u", Timing: timing, Clock: bootClock, Deliver: func(core.Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t.Context(), d, p, func(hint) {})
	defer s.close()
	if r := s.probe(timeout); r.finding != answered {
		t.Errorf("an answer after five quarters of its time: %+v", r)
	}
	hang.Store(true)
	begin := time.Now()
	r := s.probe(timeout)
	if took := time.Since(begin); r.finding != silent || r.again != "the server waited for a processor" || took < 2*timeout {
		t.Errorf("no answer: %+v after %v, want silence after twice %v", r, took, timeout)
	}
}
