package netio

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// manyAddresses returns n different /32.
func manyAddresses(n int) []netip.Prefix {
	ps := make([]netip.Prefix, n)
	for i := range ps {
		ps[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)}), 32)
	}
	return ps
}

// takeOver binds the addresses of a group, reads them back and announces them.
func takeOver(b *testing.B, binder *Binder, s core.GroupSpec, e core.Epoch) {
	must(b, binder.Bind(b.Context(), bindOf(s, e)))
	a := announceOf(s)
	a.Epoch = e
	must(b, binder.Announce(b.Context(), a))
}

// BenchmarkTakeover shows what the new owner's part of a takeover costs: bind, read back, announce. The old owner's part,
// removing and reading back, is a benchmark of its own. A cold claim opens the sockets that it needs, which a daemon has open.
func BenchmarkTakeover(b *testing.B) {
	b.Run("claim 1 cold", func(b *testing.B) {
		w := newWire(b)
		cold, err := NewBinder(Config{})
		must(b, err)
		s := spec(w.name, manyAddresses(1)...)
		e := core.Epoch(0)
		medians(b, func() {
			must(b, cold.Unbind(b.Context(), unbindOf(s, e)))
			must(b, cold.Close())
			e++
		}, func() {
			cold, err = NewBinder(Config{})
			must(b, err)
			takeOver(b, cold, s, e)
		})
		must(b, cold.Close())
	})
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("claim %d", n), func(b *testing.B) {
			w := newWire(b)
			binder := newBinder(b, Config{})
			s := spec(w.name, manyAddresses(n)...)
			e := core.Epoch(0)
			medians(b, func() {
				must(b, binder.Unbind(b.Context(), unbindOf(s, e)))
				e++
			}, func() { takeOver(b, binder, s, e) })
		})
		b.Run(fmt.Sprintf("claim %d with fence", n), func(b *testing.B) {
			w := newWire(b)
			as := manyAddresses(n)
			f := newFence(b, addresses(spec(w.name, as...))...)
			watchFence(b, f)
			binder := newBinder(b, Config{Fence: f})
			s := spec(w.name, as...)
			e := core.Epoch(0)
			medians(b, func() {
				must(b, binder.Unbind(b.Context(), unbindOf(s, e)))
				e++
				must(b, f.Arm(uint64(e), time.Minute, nil))
			}, func() {
				bind := bindOf(s, e)
				bind.Report = core.Seq(e)
				must(b, binder.Bind(b.Context(), bind))
				a := announceOf(s)
				a.Epoch = e
				must(b, binder.Announce(b.Context(), a))
			})
		})
		b.Run(fmt.Sprintf("unbind %d", n), func(b *testing.B) {
			w := newWire(b)
			binder := newBinder(b, Config{})
			s := spec(w.name, manyAddresses(n)...)
			e := core.Epoch(0)
			medians(b, func() {
				e++
				must(b, binder.Bind(b.Context(), bindOf(s, e)))
			}, func() { must(b, binder.Unbind(b.Context(), unbindOf(s, e))) })
		})
	}
}

// BenchmarkPrograms does with programs what a hook script does, for one address: ip to bind and unbind, arping for one
// announcement. arping sends at once and then waits for answers, so it is timed until its frame has arrived at the other
// end of the wire; its own end is not waited for. It needs the packages of "deploy/deps.sh bench".
func BenchmarkPrograms(b *testing.B) {
	w := newWire(b)
	run := func(name string, args ...string) {
		b.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			b.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	addr := vip4.String()
	run("ip", "addr", "add", addr, "dev", w.name)
	b.Run("ip bind", func(b *testing.B) {
		medians(b, func() { run("ip", "addr", "del", addr, "dev", w.name) },
			func() { run("ip", "addr", "add", addr, "dev", w.name) })
	})
	b.Run("ip unbind", func(b *testing.B) {
		medians(b, func() { run("ip", "addr", "replace", addr, "dev", w.name) },
			func() { run("ip", "addr", "del", addr, "dev", w.name) })
	})
	frames := w.tap(unix.ETH_P_ARP)
	arping := func() (end func()) {
		b.Helper()
		c := exec.Command("arping", "-q", "-c", "1", "-w", "1", "-U", "-I", w.name, vip4.Addr().String())
		must(b, c.Start())
		<-frames
		return func() {
			_ = c.Process.Kill()
			_ = c.Wait() // killed, or ended by itself
			for len(frames) > 0 {
				<-frames
			}
		}
	}
	run("ip", "addr", "replace", addr, "dev", w.name)
	b.Run("arping announce", func(b *testing.B) {
		end := func() {}
		medians(b, func() { end() }, func() { end = arping() })
		end()
	})
	b.Run("ip and arping claim", func(b *testing.B) {
		end := func() {}
		medians(b, func() { end(); run("ip", "addr", "del", addr, "dev", w.name) }, func() {
			run("ip", "addr", "add", addr, "dev", w.name)
			end = arping()
		})
		end()
	})
}

// BenchmarkWatched shows what a takeover of many addresses costs beside the watcher, which reads after it what has changed.
func BenchmarkWatched(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("claim and unbind %d", n), func(b *testing.B) {
			w := newWire(b)
			binder := newBinder(b, Config{})
			s := spec(w.name, manyAddresses(n)...)
			seen := make(chan core.AddressesSeen, 4*n)
			watcher := NewWatcher(WatcherConfig{Deliver: func(e core.Event) {
				if e, ok := e.(core.AddressesSeen); ok {
					seen <- e
				}
			}})
			watcher.SetGroups([]core.GroupSpec{s})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- watcher.Run(ctx) }()
			wait := func(present bool) {
				for left := n; left > 0; {
					for _, s := range <-seen {
						if s.Present == present {
							left--
						}
					}
				}
			}
			wait(false)
			e := core.Epoch(0)
			medians(b, func() { e++ }, func() {
				must(b, binder.Bind(b.Context(), bindOf(s, e)))
				wait(true)
				must(b, binder.Unbind(b.Context(), unbindOf(s, e)))
				wait(false)
			})
			cancel()
			<-done
		})
	}
}
