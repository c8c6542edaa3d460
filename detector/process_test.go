package detector

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The means by which an exit is seen, each alone.
var means = []struct {
	name  string
	strip func(*process)
}{
	{"connector", func(p *process) { p.closeThreads(); p.oldKernel = true }},
	{"threads", func(p *process) { p.conn.close(); p.conn = nil }},
	{"flags", func(p *process) { p.conn.close(); p.conn = nil; p.closeThreads(); p.oldKernel = true }},
}

func TestAnExitIsSeenLongBeforeTheSocketsClose(t *testing.T) {
	const mib = 1024
	for _, m := range means {
		t.Run(m.name, func(t *testing.T) {
			v := newVictim(t, mib)
			p, err := openProcess(v.pid(), 100*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if p.conn == nil {
				t.Fatal("no process connector: this test needs the initial network namespace and CAP_NET_ADMIN")
			}
			m.strip(p)
			by := p.means()
			told := make(chan time.Time, 1)
			var reason atomic.Value
			go p.watch(func(h hint) { reason.Store(h.exit); told <- time.Now() })
			defer func() { p.stop(); p.release() }()
			eof := v.eof(t)
			time.Sleep(60 * time.Millisecond)
			t0 := time.Now()
			if err := v.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			seen, ended := <-told, <-eof
			t.Logf("%d MiB, by %v: exit seen after %v, EOF after %v", mib, by, seen.Sub(t0), ended.Sub(t0))
			if !seen.Before(ended) {
				t.Error("EOF came first")
			}
			if r := reason.Load().(string); !strings.Contains(r, "is exiting, signal 9") {
				t.Errorf("reason %q", r)
			}
		})
	}
}

func TestThreadsThatEndAreNoExit(t *testing.T) {
	for _, m := range means {
		t.Run(m.name, func(t *testing.T) {
			v := newVictim(t, 1)
			p, err := openProcess(v.pid(), 100*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			m.strip(p)
			told := make(chan hint, 1)
			go p.watch(func(h hint) { told <- h })
			defer func() { p.stop(); p.release() }()
			if _, err := v.in.Write([]byte("\n")); err != nil {
				t.Fatal(err)
			}
			v.line(t)
			select {
			case h := <-told:
				t.Fatalf("told %q", h.exit)
			case <-time.After(150 * time.Millisecond):
			}
			if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if h := <-told; h.exit == "" {
				t.Error("the real exit was not told")
			}
		})
	}
}

// The end of a process is decided when the signal is sent, however long its main thread then waits for a processor: here, until we
// have read, since it shares ours and comes after all others.
func TestADeathIsSeenBeforeTheMainThreadKnowsOfIt(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the thread goes with its one processor
	var one unix.CPUSet
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		c := exec.Command("sleep", "60")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { c.Process.Kill(); c.Wait() }()
		p, err := openProcess(c.Process.Pid, 100*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		defer p.release()
		if err := unix.SchedSetaffinity(p.pid, &one); err != nil {
			t.Fatal(err)
		}
		if err := unix.SchedSetAttr(p.pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
			t.Fatal(err)
		}
		if reason := p.flagged(); reason != "" {
			t.Errorf("of a living process: %q", reason)
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if reason := p.flagged(); !strings.Contains(reason, "is exiting, signal 9") {
			t.Errorf("after it was killed: %q", reason)
		}
	}
}

// A process that ends by itself has no signal in its exit status; its flags and its pidfd tell.
func TestAnOrdinaryExitIsSeen(t *testing.T) {
	c := exec.Command("sleep", "0.2")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	p, err := openProcess(c.Process.Pid, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan hint, 1)
	go p.watch(func(h hint) { told <- h })
	defer func() { p.stop(); p.release() }()
	if h := <-told; !strings.Contains(h.exit, "sleep (pid ") || strings.Contains(h.exit, "signal") {
		t.Errorf("told %q", h.exit)
	}
}

// While a core is written no thread ends and nothing is closed: only the flags tell, and they are read with each probe.
func TestACoreDumpIsSeen(t *testing.T) {
	const mib = 256
	v := newVictim(t, mib)
	limit := &unix.Rlimit{Cur: 1 << 30, Max: 1 << 30}
	if err := unix.Prlimit(v.pid(), unix.RLIMIT_CORE, limit, nil); err != nil {
		t.Fatal(err)
	}
	p, err := openProcess(v.pid(), 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	eof := v.eof(t)
	t0 := time.Now()
	if err := v.cmd.Process.Signal(syscall.SIGABRT); err != nil {
		t.Fatal(err)
	}
	until(t, 20*time.Second, "the flags tell", func() bool { return p.flagged() != "" })
	seen, ended := time.Now(), <-eof
	t.Logf("%d MiB: told by the flags after %v, EOF after %v", mib, seen.Sub(t0), ended.Sub(t0))
	if !seen.Before(ended) {
		t.Error("EOF came first")
	}
}

func TestNoConnectorOutsideTheInitialNamespace(t *testing.T) {
	type result struct {
		c       *connector
		err     error
		sockets []tcpSocket
	}
	ch := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread goes with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ch <- result{err: err}
			return
		}
		var r result
		r.c, r.err = openConnector(os.Getpid())
		r.sockets, _ = listenersAt(ownTables)
		ch <- r
	}()
	r := <-ch
	if r.c != nil || r.err == nil || !strings.HasPrefix(r.err.Error(), "process connector") {
		t.Errorf("got %v, %v, want an error of the connector", r.c, r.err)
	}
	if len(r.sockets) != 0 {
		t.Errorf("an empty namespace shows %v", r.sockets)
	}
}

func TestTheOwnerOfAPortIsFound(t *testing.T) {
	v := newVictim(t, 1)
	e := endpoint{server: netip.MustParseAddrPort(v.address)}
	inodes, err := doors(e)
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := findOwner(t.Context(), e, inodes, ""); err != nil || pid != v.pid() {
		t.Errorf("got %d, %v, want %d", pid, err, v.pid())
	}
	if _, err := doors(endpoint{server: netip.MustParseAddrPort("192.0.2.1:1")}); err != errNotLocal {
		t.Errorf("a server elsewhere: %v", err)
	}
}

// hangUp notes what is done with it.
type hangUp struct {
	t     *testing.T
	at    netip.AddrPort
	order chan string
}

func (h hangUp) Do() {
	if !slices.Contains(listeners(h.at.Port()), h.at.Addr()) {
		h.t.Error("the socket is closed already")
	}
	h.order <- "hung up"
}

func (h hangUp) Close() { h.order <- "freed" }

// When the process begins to end, its listening sockets are closed before that is told, while they are open still. What was
// prepared for that is freed with the watch.
func TestADyingServersSocketsAreClosedFirst(t *testing.T) {
	v := newVictim(t, 256)
	at := netip.MustParseAddrPort(v.address)
	inodes, err := doors(endpoint{server: at})
	if err != nil {
		t.Fatal(err)
	}
	order := make(chan string, 10)
	p := newProcesses(100*time.Millisecond, slog.New(slog.DiscardHandler), func(hint) { order <- "told" })
	p.prepare = func(a netip.AddrPort, inode uint64) HangUp {
		if a != at || !slices.Contains(inodes, inode) {
			t.Errorf("named socket %d at %v, want one of %d at %v", inode, a, inodes, at)
		}
		return hangUp{t: t, at: at, order: order}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.now.endpoint = endpoint{server: at}
	p.search(ctx)
	defer p.unwatch()
	if err := v.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"hung up", "told"} {
		select {
		case got := <-order:
			if got != want {
				t.Errorf("%s, want %s", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not within 10 s: %s", want)
		}
	}
	until(t, 10*time.Second, "the flags tell", func() bool { return p.dying() != "" })
	if len(order) > 0 {
		t.Errorf("then also %s", <-order)
	}
	p.unwatch()
	if got := <-order; got != "freed" || len(order) > 0 {
		t.Errorf("after the watch: %s, and %d more", got, len(order))
	}
}

// A socket that an ancestor has open, too, outlives the process, and so does one that an init process has handed over.
func TestSocketsThatOutliveTheServerAreNotNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, tt := range []struct {
		environment string
		want        error
	}{{"A=b", nil}, {"LISTEN_FDS=1", errHandedOver}} {
		heir := exec.Command("sleep", "60")
		heir.ExtraFiles, heir.Env = []*os.File{f}, []string{"B=c", tt.environment}
		if err := heir.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { heir.Process.Kill(); heir.Wait() }()
		if found, err := closing(t.Context(), heir.Process.Pid); len(found) > 0 || err != tt.want {
			t.Errorf("%s: %v, %v, want none and %v", tt.environment, found, err, tt.want)
		}
	}
	for environment, want := range map[string]bool{"": false, "LISTEN_FDS=1\x00": true, "A=LISTEN_FDS=1\x00": false, "A=b\x00LISTEN_FDS=2\x00": true} {
		if got := handedOver([]byte(environment)); got != want {
			t.Errorf("%q: %v", environment, got)
		}
	}
}

// Without the right to look into other processes the server's unix socket names it, but only if that process is in the
// network namespace in which the port is.
func TestTheUnixSocketNamesTheOwner(t *testing.T) {
	m := newMariaDB(t)
	inodes, err := doors(endpoint{server: netip.MustParseAddrPort(m.address())})
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := askSocket(t.Context(), m.socket(), inodes); err != nil || pid != m.cmd.Process.Pid {
		t.Errorf("got %d, %v, want %d", pid, err, m.cmd.Process.Pid)
	}
	if pid, err := askSocket(t.Context(), m.socket(), []uint64{1}); err == nil {
		t.Errorf("a socket of another namespace: process %d", pid)
	}
	path := t.TempDir() + "/own"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if pid, err := askSocket(t.Context(), path, inodes); err != errNotVisible {
		t.Errorf("our own socket: process %d, %v", pid, err)
	}
}

func TestWhatCannotBeWatchedIsLoggedOnce(t *testing.T) {
	var log strings.Builder
	p := newProcesses(100*time.Millisecond, slog.New(slog.NewTextHandler(&log, nil)), func(hint) {})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 3 {
		p.now.endpoint = endpoint{server: netip.MustParseAddrPort("192.0.2.1:3306")}
		p.search(ctx)
	}
	if n := strings.Count(log.String(), "noticed late"); n != 1 {
		t.Errorf("logged %d times: %s", n, &log)
	}
}
