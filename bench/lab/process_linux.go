package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userHZ is the unit of process times in /proc: 1/100 s on every architecture that Go runs Linux on.
const userHZ = 100

// Process is a program that the laboratory started in a namespace.
type Process struct {
	// What names the program for people: "mariadbd on db1".
	What string
	log  string // the file that has its output
	cmd  *exec.Cmd
	done chan struct{}
	err  error // the result of Wait, to be read after done is closed
	// killed is set once SIGKILL was sent.
	killed atomic.Bool
}

// startProcess starts cmd in ns, or where the laboratory runs if that is nil, with both outputs appended to the file logPath. It gets a session of its own so that
// Ctrl-C in a terminal reaches the laboratory alone, which then ends everything in order.
func startProcess(ns *Namespace, what, logPath string, cmd *exec.Cmd) (*Process, error) {
	out, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", what, err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	start := cmd.Start
	if ns != nil {
		start = func() error { return ns.start(cmd) }
	}
	if err := start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", what, err)
	}
	p := &Process{What: what, log: logPath, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Pid returns the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Args returns the command line as the kernel has it, the program's name first.
func (p *Process) Args() []string { return slices.Clone(p.cmd.Args) }

// LastLines returns the last n lines that the process, or one before it with the same log, has printed.
func (p *Process) LastLines(n int) ([]string, error) {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return nil, fmt.Errorf("read what %s has printed: %w", p.What, err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	return lines[max(0, len(lines)-n):], nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not ended yet. It waits for the end of one that was killed: the address has often moved
// before a dying server is gone.
func (p *Process) Running() bool {
	if p.killed.Load() {
		<-p.done
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ExitCode waits for the process to end and returns its exit status, -1 after a signal.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends a signal. A process that has ended is not an error.
func (p *Process) Signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to %s: %w", sig, p.What, err)
	}
	if sig == syscall.SIGKILL {
		p.killed.Store(true)
	}
	return nil
}

// Wait waits until the process has ended.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of %s: %w", p.What, ctx.Err())
	}
}

// Stop sends SIGTERM and waits; after grace it kills.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
		return errors.Join(fmt.Errorf("%s did not end within %v of SIGTERM: killed", p.What, grace), p.Kill())
	}
}

// Kill sends SIGKILL and waits for the end.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// Usage is what a process has used of the machine.
type Usage struct {
	CPU time.Duration // user and system time since its start
	RSS int64         // resident memory in bytes, now
	// Waits is how often a thread has waited for something. Each is followed by an awakening, by which an idle process costs
	// what it does. Threads that have ended are not counted.
	Waits uint64
}

// Usage reads the process's usage from /proc.
func (p *Process) Usage() (Usage, error) {
	stat, err := readStat(p.Pid())
	if err != nil {
		return Usage{}, err
	}
	waits, err := countWaits(p.Pid())
	if err != nil {
		return Usage{}, err
	}
	return Usage{CPU: time.Duration(stat.ticks) * time.Second / userHZ, RSS: stat.pages * int64(os.Getpagesize()), Waits: waits}, nil
}

// countWaits sums up the voluntary context switches of a process's threads.
func countWaits(pid int) (uint64, error) {
	files, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/status")
	if err != nil {
		return 0, err
	}
	var sum uint64
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		_, rest, _ := strings.Cut(string(text), "\nvoluntary_ctxt_switches:")
		field, _, _ := strings.Cut(rest, "\n")
		n, err := strconv.ParseUint(strings.TrimSpace(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: voluntary_ctxt_switches: %w", name, err)
		}
		sum += n
	}
	return sum, nil
}

// procStat is what the laboratory needs of /proc/PID/stat, proc(5).
type procStat struct {
	state byte
	ticks uint64 // utime + stime
	start uint64 // when the process started, in ticks since boot
	pages int64  // resident set size
}

func readStat(pid int) (procStat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	return parseStat(string(text))
}

// parseStat parses /proc/PID/stat. The second field, the program's name, may hold blanks and parentheses.
func parseStat(text string) (procStat, error) {
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const fields = 22 // up to rss, counted from the state
	if len(f) < fields || !strings.Contains(text, ")") {
		return procStat{}, fmt.Errorf("parse process status %q: too few fields", text)
	}
	num := func(i int) uint64 { n, _ := strconv.ParseUint(f[i], 10, 64); return n }
	return procStat{state: f[0][0], ticks: num(11) + num(12), start: num(19), pages: int64(num(21))}, nil
}

// processID names one process of one boot: a pid alone may be used again.
type processID struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"`
	What  string `json:"what,omitempty"`
}

func identify(pid int, what string) (processID, error) {
	stat, err := readStat(pid)
	return processID{Pid: pid, Start: stat.start, What: what}, err
}

// alive reports whether that very process still runs.
func (id processID) alive() bool {
	stat, err := readStat(id.Pid)
	return err == nil && stat.start == id.Start && stat.state != 'Z'
}

// kill ends that very process and waits until it is gone. The pidfd is opened before the check, so the pid cannot have
// been given to another process in between.
func (id processID) kill(wait time.Duration) error {
	fd, err := unix.PidfdOpen(id.Pid, 0)
	if err != nil || !id.alive() {
		if err == nil {
			unix.Close(fd)
		}
		return nil
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %s (pid %d): %w", id.What, id.Pid, err)
	}
	deadline := time.Now().Add(wait)
	for id.alive() {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s (pid %d) is still there %v after SIGKILL", id.What, id.Pid, wait)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// Stopped reports whether every thread of the process has been stopped by a signal.
func (p *Process) Stopped() (bool, error) {
	tasks, err := filepath.Glob("/proc/" + strconv.Itoa(p.Pid()) + "/task/*/stat")
	if err != nil {
		return false, fmt.Errorf("look at the threads of %s: %w", p.What, err)
	}
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		if stat, err := parseStat(string(text)); err != nil || stat.state != 'T' {
			return false, err
		}
	}
	return len(tasks) > 0, nil
}
