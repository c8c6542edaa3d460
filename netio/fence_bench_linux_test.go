package netio

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// medians measures acts one by one. The mean would say more about the other load of the machine.
func medians(b *testing.B, prepare, act func()) {
	b.Helper()
	b.ReportAllocs()
	took := make([]time.Duration, 0, 1<<16)
	for b.Loop() {
		prepare()
		start := time.Now()
		act()
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "µs/median")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "µs/p99")
}

// benchFence has a fence for n addresses, under watch as in the daemon.
func benchFence(b *testing.B, n int, bench func(b *testing.B, f *Fence, as []netip.Addr)) {
	b.Run(fmt.Sprint(n), func(b *testing.B) {
		as := many(max(n, 2))[:n]
		f := newFence(b, as...)
		watchFence(b, f)
		bench(b, f, as)
	})
}

// BenchmarkArm renews all addresses, which are one bundle.
func BenchmarkArm(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		benchFence(b, n, func(b *testing.B, f *Fence, as []netip.Addr) {
			must(b, f.Arm(1, time.Second, nil))
			seq := uint64(1)
			medians(b, func() { seq++ }, func() {
				must(b, f.Arm(seq, time.Second, []FenceOpening{{Addrs: as, Report: seq - 1}}))
			})
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		benchFence(b, n, func(b *testing.B, f *Fence, as []netip.Addr) {
			must(b, f.Arm(1, time.Minute, nil))
			medians(b, func() { must(b, f.Close(as)) }, func() { must(b, f.Open(as, 1)) })
		})
	}
}

func BenchmarkClose(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		benchFence(b, n, func(b *testing.B, f *Fence, as []netip.Addr) {
			must(b, f.Arm(1, time.Minute, nil))
			medians(b, func() { must(b, f.Open(as, 1)) }, func() { must(b, f.Close(as)) })
		})
	}
}
