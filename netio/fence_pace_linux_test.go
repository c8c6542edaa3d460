package netio

import (
	"context"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// hog is another program whose transactions hold nf_tables for long. Each adds some ten thousand elements to a set and then
// fails, so that it can be sent again and again.
type hog struct {
	fd    int
	batch []byte
}

// newHog makes transactions that take at least a given time.
func newHog(t *testing.T, atLeast time.Duration) *hog {
	t.Helper()
	nft(t, "add table inet hog { set s { type mark; } ; }")
	t.Cleanup(func() { nft(t, "delete table inet hog") })
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Close(fd)) })
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 256<<20))
	must(t, unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1))
	h := &hog{fd: fd}
	for n := 20_000; ; n *= 2 {
		h.batch = elementsThenFailure(n)
		start := time.Now()
		must(t, h.hold())
		if took := time.Since(start); took >= atLeast {
			t.Logf("a transaction with %d elements holds nf_tables for %v", n, took)
			return h
		}
	}
}

// elementsThenFailure adds elements and then removes one that is not there.
func elementsThenFailure(n int) []byte {
	const perMessage = 1000 // an attribute has less than 64 KiB
	var e elementBatch
	e.begin(0)
	var some []setElement
	for i := range n {
		some = append(some, setElement{key: binary.BigEndian.AppendUint32(nil, uint32(i))})
		if len(some) == perMessage || i == n-1 {
			e.elements(false, unix.NFPROTO_INET, "hog", "s", some)
			some = some[:0]
		}
	}
	e.elements(true, unix.NFPROTO_INET, "hog", "s", []setElement{{key: binary.BigEndian.AppendUint32(nil, uint32(n))}})
	return e.end()
}

// hold carries the transaction out once.
func (h *hog) hold() error {
	if err := unix.Sendto(h.fd, h.batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	var failure [nlmsgSize + 64]byte
	for {
		if _, _, err := unix.Recvfrom(h.fd, failure[:], unix.MSG_DONTWAIT|unix.MSG_TRUNC); err == unix.EAGAIN {
			return nil
		}
	}
}

// beat counts, every 2 ms, by an alarm and by a timer of the Go runtime, which are what a daemon's loops and Raft wait for.
func beat(ctx context.Context, t *testing.T, wg *sync.WaitGroup) (alarms, timers *atomic.Int64) {
	t.Helper()
	const every = 2 * time.Millisecond
	alarms, timers = new(atomic.Int64), new(atomic.Int64)
	a, err := NewAlarm()
	must(t, err)
	wg.Go(func() {
		defer a.Stop()
		for ctx.Err() == nil {
			a.Reset(every)
			<-a.C()
			alarms.Add(1)
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(every)
			timers.Add(1)
		}
	})
	return alarms, timers
}

// A process with one processor of the Go scheduler, as a daemon is, renews while another program holds nf_tables for tens of
// milliseconds, again and again. No more than the first of the claims that wait for it keeps the processor; beside the others
// the process goes on. When the other program has ended claims are raw calls again.
func TestHeldUpClaimsHoldUpNothingElse(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	f := newFence(t, fenced...)
	f.SetAlone(true)
	const rest = 300 * time.Millisecond
	f.claims.pace.rest = rest
	seq := uint64(0)
	renew := func() (raw bool, took time.Duration) {
		seq++
		before, start := f.claims.pace.raw, time.Now()
		must(t, f.Arm(seq, long, openings(nil)))
		return f.claims.pace.raw > before, time.Since(start)
	}
	rawAgain := func() bool { raw, _ := renew(); return raw }
	h := newHog(t, 60*time.Millisecond)
	poll(t, "a claim by a raw call", rawAgain)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	alarms, timers := beat(ctx, t, &wg)
	hogging, release := context.WithCancel(ctx)
	var held sync.WaitGroup
	held.Go(func() {
		for hogging.Err() == nil {
			if err := h.hold(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	const heldUp = 30 * time.Millisecond // of which the monitor may need 10 to see that the call blocks
	ordinary, keeping := 0, 0
	poll(t, "claims that wait for nf_tables by an ordinary call, beside which all else goes on", func() bool {
		a, b := alarms.Load(), timers.Load()
		raw, took := renew()
		switch {
		case took < heldUp:
		case raw:
			keeping++
		case alarms.Load()-a >= 3 && timers.Load()-b >= 3:
			ordinary++
		}
		return ordinary >= 5
	})
	t.Logf("of the claims that were held up for %v or more %d kept the processor; beside %d the process went on", heldUp, keeping, ordinary)
	if keeping >= ordinary {
		t.Error("not only the first of the claims that are held up keeps the processor")
	}
	release()
	held.Wait()
	poll(t, "a claim by a raw call after the other program has ended", rawAgain)
	stop()
	wg.Wait()
}

// Beside a leader nothing may be held up, since others wait for it.
func TestBinderTellsTheFenceWhoLeads(t *testing.T) {
	f := newFence(t, fenced...)
	b := newBinder(t, Config{Fence: f})
	for i, leads := range []bool{false, true, false} {
		must(t, b.Arm(t.Context(), core.Arm{Seq: core.Seq(i + 1), TTL: long, Leads: leads}))
		if alone := f.claims.pace.alone; alone == leads {
			t.Errorf("leads: %t, and the fence takes it for alone: %t", leads, alone)
		}
	}
}
