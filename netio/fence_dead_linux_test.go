package netio

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	holderEnv = "REMORA_NETIO_TEST_HOLDER"
	// holderTTL and holderBeat are like those of a fast profile.
	holderTTL  = 60 * time.Millisecond
	holderBeat = 12 * time.Millisecond
	// twoTicks is the time by which the kernel may shorten a lease, with the slowest usual timer.
	twoTicks = 2 * 10 * time.Millisecond
)

// TestHolder is not a test: in a process of its own it holds a lease until it is killed. It tells when it begins and ends
// to arm a report (b, a), and when the lease rests on it (o).
func TestHolder(t *testing.T) {
	if os.Getenv(holderEnv) == "" {
		return
	}
	f, err := NewFence(FenceConfig{})
	must(t, err)
	must(t, f.Install(fenced))
	say := func(what string, seq uint64) {
		_, err := fmt.Printf("%s %d %d\n", what, seq, time.Now().UnixNano())
		must(t, err)
	}
	for seq := uint64(1); ; seq++ {
		var open map[netip.Addr]uint64
		if seq > 1 {
			open = map[netip.Addr]uint64{fence4: seq - 1, fence6: seq - 1}
		}
		say("b", seq)
		must(t, f.Arm(seq, holderTTL, openings(open)))
		say("a", seq)
		must(t, f.Open(fenced, seq)) // as if the answer were there at once
		say("o", seq)
		time.Sleep(holderBeat)
	}
}

// holder is a process that holds a lease.
type holder struct {
	tb    testing.TB
	cmd   *exec.Cmd
	ended chan struct{}
	mu    sync.Mutex
	told  []told
}

type told struct {
	what string
	seq  uint64
	at   time.Time
}

func startHolder(tb testing.TB) *holder {
	tb.Helper()
	h := &holder{tb: tb, ended: make(chan struct{})}
	h.cmd = exec.Command("/proc/self/exe", "-test.run=^TestHolder$")
	h.cmd.Env = append(os.Environ(), holderEnv+"=1")
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := h.cmd.StdoutPipe()
	must(tb, err)
	started := make(chan error)
	go func() { // Pdeathsig is tied to the thread
		runtime.LockOSThread()
		started <- h.cmd.Start()
		<-h.ended
	}()
	must(tb, <-started)
	go func() {
		defer close(h.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var l told
			var ns int64
			if _, err := fmt.Sscan(lines.Text(), &l.what, &l.seq, &ns); err == nil {
				l.at = time.Unix(0, ns)
				h.mu.Lock()
				h.told = append(h.told, l)
				h.mu.Unlock()
			}
		}
	}()
	return h
}

// signal sends a signal and returns the time when it was sent.
func (h *holder) signal(s syscall.Signal) time.Time {
	h.tb.Helper()
	must(h.tb, h.cmd.Process.Signal(s))
	return time.Now()
}

// end kills the process, if it was not yet, and reads what it still has to tell.
func (h *holder) end() {
	_ = h.cmd.Process.Kill()
	<-h.ended
	_ = h.cmd.Wait()
}

func (h *holder) held() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.told)
}

// leaseEnd returns the earliest and the latest time at which the lease may end, if rounding were nothing.
func (h *holder) leaseEnd(stopped time.Time) (earliest, latest time.Time) {
	begun := map[uint64]time.Time{}
	for _, l := range h.told {
		switch l.what {
		case "b":
			begun[l.seq] = l.at
			latest = stopped.Add(holderTTL) // it may have been armed without being able to tell
		case "a":
			latest = l.at.Add(holderTTL)
		case "o":
			earliest = begun[l.seq].Add(holderTTL)
		}
	}
	return earliest, latest
}

// question asks for both addresses every millisecond until the returned function is called, which tells the longest
// time between two questions.
func (a *asker) question() (stop func() time.Duration) {
	quit, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		var gap time.Duration
		for last := time.Now(); ; {
			a.ask(fence4)
			a.ask(fence6)
			gap, last = max(gap, time.Since(last)), time.Now()
			select {
			case <-quit:
				longest <- gap
				return
			case <-tick.C:
			}
		}
	}()
	return func() time.Duration {
		close(quit)
		return <-longest
	}
}

// stream lets the node send on an established connection, whoever is alive, until the connection is cut off.
func stream(tb testing.TB, w *wire) {
	tb.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(fence4, 0).String())
	must(tb, err)
	var c net.Conn
	must(tb, w.inPeer(func() (err error) {
		c, err = net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
		return err
	}))
	s, err := l.Accept()
	must(tb, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
			if _, err := s.Write([]byte("x")); err != nil {
				tick.Stop()
				return
			}
		}
	}()
	tb.Cleanup(func() {
		must(tb, l.Close())
		_ = s.Close()
		_ = c.Close()
		<-done
	})
}

// The daemon is not trusted to be alive: whatever stops it, its node is silent when the lease is over.
func TestDeadHoldersFallSilent(t *testing.T) {
	const runs = 20
	for name, s := range map[string]syscall.Signal{"killed": unix.SIGKILL, "stopped": unix.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			var after []time.Duration
			for i := range runs {
				t.Run(fmt.Sprint(i), func(t *testing.T) { after = append(after, silence(t, s)) })
			}
			slices.Sort(after)
			t.Logf("last answer after the end of the lease: min %v, median %v, max %v", after[0], after[len(after)/2], after[len(after)-1])
		})
	}
}

// silence stops a holder and returns when the last answer came, counted from the end of the lease.
func silence(t *testing.T, s syscall.Signal) time.Duration {
	w, a := newNode(t)
	h := startHolder(t)
	defer func() {
		f, err := NewFence(FenceConfig{})
		must(t, err)
		must(t, f.Remove())
		must(t, f.Detach())
	}()
	t.Cleanup(h.end)
	a.expect(fence4)
	a.expect(fence6)
	stream(t, w)
	asked := a.question()
	for enough := h.held() + 9; h.held() < enough; {
		time.Sleep(time.Millisecond)
	}
	stopped := h.signal(s)
	poll(t, "the lease is long over", func() bool { return time.Since(stopped) > 3*holderTTL })
	slack := asked()
	h.end()
	earliest, latest := h.leaseEnd(stopped)
	var last time.Time
	for _, ans := range a.heard() {
		if (ans.from == fence4 || ans.from == fence6) && ans.at.After(last) {
			last = ans.at
		}
	}
	if last.After(latest.Add(twoTicks/2 + slack)) {
		t.Errorf("an answer %v after the end of the lease (slack %v)", last.Sub(latest), slack)
	}
	if last.Before(earliest.Add(-twoTicks - slack)) {
		t.Errorf("no answer in the last %v of the lease (slack %v)", earliest.Sub(last), slack)
	}
	return last.Sub(latest)
}
