package detector

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// processes finds the server's process and keeps watch over it. One goroutine does the finding, which may take long on a
// busy machine, another one waits for the end.
type processes struct {
	probe time.Duration
	log   *slog.Logger
	tell  func(hint)
	asks  chan endpoint
	paths chan string

	// of run's goroutine
	path    string // of the server's unix socket
	last    endpoint
	watched *process
	noted   string
}

func newProcesses(probe time.Duration, log *slog.Logger, tell func(hint)) *processes {
	return &processes{probe: probe, log: log, tell: tell, asks: make(chan endpoint, 1), paths: make(chan string, 1)}
}

// follow says that the server at e has just spoken. It does not wait.
func (p *processes) follow(e endpoint) { replace(p.asks, e) }

// socket says what the server calls its unix socket. It does not wait.
func (p *processes) socket(path string) { replace(p.paths, path) }

// replace puts v into a channel of one place, instead of what is there. Only one goroutine may put.
func replace[T any](ch chan T, v T) {
	select {
	case <-ch:
	default:
	}
	ch <- v
}

func (p *processes) run(ctx context.Context) {
	defer p.unwatch()
	for {
		var ended <-chan struct{}
		if p.watched != nil {
			ended = p.watched.ended
		}
		select {
		case <-ctx.Done():
			return
		case <-ended:
			p.unwatch()
		case p.path = <-p.paths:
			p.search(ctx)
		case p.last = <-p.asks:
			p.search(ctx)
		}
	}
}

// search makes sure that the process behind the last endpoint is the one that is watched.
func (p *processes) search(ctx context.Context) {
	if p.last == (endpoint{}) || p.watched != nil && p.watched.serves(p.last) {
		return
	}
	o, err := findOwner(ctx, p.last, p.path)
	if err != nil {
		p.note(err)
		return
	}
	w, err := openProcess(o, p.probe)
	if err != nil {
		p.note(err)
		return
	}
	p.unwatch()
	p.watched, p.noted = w, ""
	p.log.Info("watching the server's process", "pid", w.pid, "name", w.name, "by", w.means())
	go w.watch(p.tell)
}

func (p *processes) unwatch() {
	if p.watched != nil {
		p.watched.close()
		p.watched = nil
	}
}

// note logs once why the process can not be watched.
func (p *processes) note(err error) {
	if p.noted != err.Error() {
		p.noted = err.Error()
		p.log.Warn("the end of the server's process will be noticed late, by its sockets alone", "reason", err)
	}
}

// Intervals at which the flags of the main thread are read: often if nothing else tells of an exit before its end,
// seldom if only a core dump goes unnoticed otherwise.
const (
	flagsOftenMin, flagsOftenMax   = 2 * time.Millisecond, 10 * time.Millisecond
	flagsSeldomMin, flagsSeldomMax = 10 * time.Millisecond, 50 * time.Millisecond
	// afterThread is how many times the flags are read, a millisecond apart, after a thread has ended.
	afterThread = 20
	// threadsWatched is how many threads are watched: all but one of a killed process end at once, whichever that is.
	threadsWatched = 4
)

// process is a process under watch.
type process struct {
	pid    int
	name   string
	inodes []uint64
	stat   *os.File // of the main thread alone: the kernel sums up all threads for /proc/PID/stat
	ignore uint32   // flags that were set when the watch began
	pidfd  int
	conn   *connector // nil if not to be had
	thread []int      // pidfds of threads
	stop   int        // eventfd
	probe  time.Duration
	ended  chan struct{}
}

// openProcess makes what is needed to watch a process, the better means only where the kernel grants them.
func openProcess(o owner, probe time.Duration) (*process, error) {
	name := fmt.Sprintf("/proc/%d/task/%d/stat", o.pid, o.pid)
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", o.pid, err)
	}
	p := &process{pid: o.pid, inodes: o.inodes, stat: f, pidfd: -1, stop: -1, probe: probe, ended: make(chan struct{})}
	if err := p.open(); err != nil {
		p.release()
		return nil, fmt.Errorf("process %d: %w", o.pid, err)
	}
	p.conn, _ = openConnector(p.pid)
	p.openThreads()
	return p, nil
}

// open takes the pidfd and checks that it is still the same process: the stat file and the pidfd both stick to theirs.
func (p *process) open() (err error) {
	if p.pidfd, err = unix.PidfdOpen(p.pid, 0); err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	if p.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	s, err := p.read()
	if err != nil {
		return err
	}
	p.name, p.ignore = s.comm, s.flags
	return nil
}

func (p *process) read() (taskStat, error) {
	var b [1024]byte
	n, err := p.stat.ReadAt(b[:], 0)
	if n == 0 {
		return taskStat{}, err
	}
	return parseStat(b[:n])
}

// openThreads takes pidfds of some threads (PIDFD_THREAD, Linux 6.9), the oldest, which are the server's own and stay.
func (p *process) openThreads() {
	p.closeThreads()
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
		if err != nil {
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

func (p *process) interval() time.Duration {
	if p.prompt() {
		return min(max(p.probe/2, flagsSeldomMin), flagsSeldomMax)
	}
	return min(max(p.probe/10, flagsOftenMin), flagsOftenMax)
}

// means says by what an exit is seen, for the log.
func (p *process) means() []string {
	m := []string{"pidfd", fmt.Sprintf("flags every %v", p.interval())}
	if p.conn != nil {
		m = append(m, "process connector")
	}
	if len(p.thread) > 0 {
		m = append(m, "thread pidfds")
	}
	return m
}

// serves reports whether this process is still the one behind e.
func (p *process) serves(e endpoint) bool {
	if !e.server.IsValid() {
		return e.pid == p.pid
	}
	sockets, err := listenersAt(ownTables)
	return err == nil && slices.Equal(listeningInodes(sockets, e.server), p.inodes)
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
		w, err := p.poll(wait)
		if err != nil || w.stopped {
			return
		}
		if w.thread {
			p.closeThreads()
			burst = afterThread
		}
		if reason := p.exit(w); reason != "" {
			tell(hint{exit: reason})
			return
		}
	}
}

// woken says what ended a poll.
type woken struct{ stopped, ended, connector, thread bool }

func (p *process) poll(wait time.Duration) (w woken, err error) {
	fds := make([]unix.PollFd, 0, 3+threadsWatched)
	for _, fd := range append([]int{p.stop, p.pidfd}, p.thread...) {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if p.conn != nil {
		fds = append(fds, unix.PollFd{Fd: int32(p.conn.fd), Events: unix.POLLIN})
	}
	ts := unix.NsecToTimespec(wait.Nanoseconds())
	if _, err := unix.Ppoll(fds, &ts, nil); err != nil && err != unix.EINTR {
		return w, err
	}
	w.stopped, w.ended = fds[0].Revents != 0, fds[1].Revents != 0
	for i := range p.thread {
		w.thread = w.thread || fds[2+i].Revents != 0
	}
	w.connector = p.conn != nil && fds[len(fds)-1].Revents != 0
	return w, nil
}

// exit says how the process ends, or nothing if it does not.
func (p *process) exit(w woken) string {
	if w.connector {
		if signal := p.conn.killed(); signal != 0 {
			return p.describe("is exiting", signal)
		}
	}
	s, err := p.read()
	switch {
	case w.ended:
		return p.describe("has ended", signalOf(s.exitCode))
	case err != nil:
		return "" // gone: the pidfd will say so
	case s.flags&^p.ignore&(flagExiting|flagSignaled) != 0:
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

// close ends the watch, waits for it and frees everything.
func (p *process) close() {
	wake(p.stop)
	<-p.ended
	p.release()
}

func (p *process) release() {
	p.closeThreads()
	p.stat.Close()
	for _, fd := range []int{p.pidfd, p.stop} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if p.conn != nil {
		p.conn.close()
	}
}
