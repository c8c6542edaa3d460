package detector

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How the flags of the main thread are read.
const (
	// flagsMin and flagsMax bound the interval, if nothing else tells of an exit before its end. It is no luxury: a hundred
	// readings a second cost 1 to 2 % of a core, nearly all of it for waking up. Otherwise the flags are read with each
	// probe only: they tell of a core dump before the threads end.
	flagsMin, flagsMax = 2 * time.Millisecond, 20 * time.Millisecond
	// afterThread is how many times the flags are read, a millisecond apart, after a thread has ended.
	afterThread = 20
	// threadsWatched is how many threads are watched: all but one of a killed process end at once, whichever that is.
	threadsWatched = 4
)

// process is a process under watch.
type process struct {
	key
	pid       int
	name      string
	stat      int    // descriptor, of the main thread alone: the kernel sums up all threads for the next one
	whole     int    // descriptor of /proc/PID/stat, which has the exit status as soon as the end is decided
	ignore    uint32 // flags that were set when the watch began
	poller    *poller
	pidfd     int
	conn      *connector // nil if not to be had
	thread    []int      // pidfds of threads
	oldKernel bool       // it has no pidfds of threads
	probe     time.Duration
	ended     chan struct{}
	lines     []HangUp
	hangUp    func() // called when it ends for certain, at least once and before that is told
}

// openProcess makes what is needed to watch a process, the better means only where the kernel grants them.
func openProcess(pid int, probe time.Duration) (*process, error) {
	p := &process{pid: pid, stat: -1, whole: -1, pidfd: -1, probe: probe, ended: make(chan struct{}), hangUp: func() {}}
	if err := p.open(); err != nil {
		p.release()
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	p.openConnector()
	p.openThreads()
	return p, nil
}

// open takes the pidfd and checks that it is still the same process: the stat files and the pidfd all stick to theirs.
func (p *process) open() (err error) {
	if p.stat, err = openStat(fmt.Sprintf("/proc/%d/task/%d/stat", p.pid, p.pid)); err != nil {
		return err
	}
	if p.whole, err = openStat(fmt.Sprintf("/proc/%d/stat", p.pid)); err != nil {
		return err
	}
	if p.pidfd, err = unix.PidfdOpen(p.pid, 0); err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	if p.poller, err = newPoller(); err != nil {
		return err
	}
	if err := p.poller.add(p.pidfd, unix.EPOLLIN); err != nil {
		return err
	}
	s, err := readStat(p.stat)
	if err != nil {
		return err
	}
	p.name, p.ignore = s.comm, s.flags
	return nil
}

func openStat(name string) (int, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", name, err)
	}
	return fd, nil
}

// statBuffers are for readStat, which comes before and after each probe.
var statBuffers = sync.Pool{New: func() any { return new([1024]byte) }}

func readStat(fd int) (taskStat, error) {
	b := statBuffers.Get().(*[1024]byte)
	defer statBuffers.Put(b)
	// A raw call, since the kernel answers from memory, and an ordinary one would wake the Go scheduler's monitor.
	n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(b)), uintptr(len(b)), 0, 0, 0)
	if errno != 0 {
		return taskStat{}, fmt.Errorf("stat: %w", errno)
	}
	return parseStat(b[:n])
}

// openConnector subscribes to exit events, if that is possible here.
func (p *process) openConnector() {
	c, err := openConnector(p.pid)
	if err != nil {
		return
	}
	if err := p.poller.add(c.fd, unix.EPOLLIN); err != nil {
		c.close()
		return
	}
	p.conn = c
}

// openThreads takes pidfds of some threads (PIDFD_THREAD, Linux 6.9), the oldest, which are the server's own and stay.
func (p *process) openThreads() {
	p.closeThreads()
	if p.oldKernel {
		return
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/task", p.pid))
	if err != nil {
		return
	}
	defer f.Close()
	names, _ := f.Readdirnames(threadsWatched + 1)
	for _, n := range names {
		tid, err := strconv.Atoi(n)
		if err != nil || tid == p.pid {
			continue
		}
		fd, err := unix.PidfdOpen(tid, unix.O_EXCL)
		if errors.Is(err, unix.EINVAL) {
			p.oldKernel = true // a kernel before 6.9
			return
		}
		if err != nil {
			continue // the thread has ended
		}
		if err := p.poller.add(fd, unix.EPOLLIN); err != nil {
			unix.Close(fd)
			return
		}
		p.thread = append(p.thread, fd)
	}
}

func (p *process) closeThreads() {
	for _, fd := range p.thread {
		unix.Close(fd)
	}
	p.thread = nil
}

// prompt reports whether the kernel tells of the exit of threads by itself. One thread may be the last to go.
func (p *process) prompt() bool { return p.conn != nil || len(p.thread) > 1 }

// interval is how often the flags are read, 0 for not by the watch.
func (p *process) interval() time.Duration {
	if p.prompt() {
		return 0
	}
	return min(max(p.probe/5, flagsMin), flagsMax)
}

// means says by what an exit is seen, for the log.
func (p *process) means() []string {
	m := []string{"pidfd"}
	if d := p.interval(); d > 0 {
		m = append(m, fmt.Sprintf("flags every %v", d))
	}
	if p.conn != nil {
		m = append(m, "process connector")
	}
	if len(p.thread) > 0 {
		m = append(m, "thread pidfds")
	}
	return m
}

// watch waits for the end of the process and tells it, or for close.
func (p *process) watch(tell func(hint)) {
	defer close(p.ended)
	burst := 0
	for {
		wait := p.interval()
		if burst > 0 {
			burst, wait = burst-1, time.Millisecond
			if burst == 0 {
				p.openThreads()
			}
		}
		ready, err := p.poller.wait(wait)
		if err != nil {
			return
		}
		if slices.ContainsFunc(p.thread, func(fd int) bool { return slices.Contains(ready, fd) }) {
			p.closeThreads()
			burst = afterThread
		}
		if reason := p.exit(ready); reason != "" {
			p.hangUp()
			tell(hint{exit: reason})
			runtime.Gosched() // who was told goes first, before the watch is freed
			return
		}
	}
}

// exit says how the process ends, or nothing if it does not.
func (p *process) exit(ready []int) string {
	if p.conn != nil && slices.Contains(ready, p.conn.fd) {
		if signal := p.conn.killed(); signal != 0 {
			return p.describe("is exiting", signal)
		}
	}
	if slices.Contains(ready, p.pidfd) {
		s, _ := readStat(p.stat) // as long as nobody has waited for it
		return p.describe("has ended", signalOf(s.exitCode))
	}
	return p.flagged()
}

// flagged says how the process ends, if its main thread tells: it is on its way out, or has yet to notice that it must go.
func (p *process) flagged() string {
	s, err := readStat(p.stat)
	switch {
	case err != nil:
		return "" // one that is gone altogether is the pidfd's business
	case s.flags&^p.ignore&(flagExiting|flagSignaled) != 0:
		return p.describe("is exiting", signalOf(s.exitCode))
	case s.pending&pendingKill != 0:
		s, _ = readStat(p.whole)
		return p.describe("is exiting", signalOf(s.exitCode))
	}
	return ""
}

func (p *process) describe(what string, signal int) string {
	s := fmt.Sprintf("%s (pid %d) %s", p.name, p.pid, what)
	if signal != 0 {
		s += fmt.Sprintf(", signal %d", signal)
	}
	return s
}

// stop ends the watch and waits for it.
func (p *process) stop() {
	p.poller.close()
	<-p.ended
}

// release frees everything.
func (p *process) release() {
	p.closeThreads()
	for _, fd := range []int{p.stat, p.whole, p.pidfd} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if p.poller != nil {
		p.poller.close()
	}
	if p.conn != nil {
		p.conn.close()
	}
	for _, h := range p.lines {
		h.Close()
	}
}
