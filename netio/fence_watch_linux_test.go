package netio

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
)

// watchFence runs Watch until the test ends.
func watchFence(tb testing.TB, f *Fence) <-chan error {
	tb.Helper()
	ctx, stop := context.WithCancel(context.Background())
	lost, ended := make(chan error, 100), make(chan error, 1)
	go func() { ended <- f.Watch(ctx, func(err error) { lost <- err }) }()
	tb.Cleanup(func() {
		stop()
		must(tb, <-ended)
	})
	poll(tb, "the watch listens", func() bool { // it is heard once it joined
		nft(tb, "add chain arp remora output; delete chain arp remora output") // it may be on its way back
		select {
		case <-lost:
			return true
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
	return lost
}

func TestLossIsNoticedAndMended(t *testing.T) {
	_, a := newNode(t)
	f := newFence(t, fenced...)
	lost := watchFence(t, f)
	seq := uint64(0)
	for _, sabotage := range []string{
		"flush ruleset",
		"delete table inet remora",
		"delete table arp remora",
		"flush chain inet remora input",
		"insert rule inet remora output accept",
		"delete element arp remora addr4 { 10.77.0.9 }",
		"add element inet remora addr4 { 10.77.0.77 : 0 }",
		"flush set inet remora turn",
		"add table inet remora { flags dormant; }",
	} {
		seq++
		must(t, f.Arm(seq, long, nil))
		must(t, f.Open(fenced, seq))
		a.expect(fence4)
		nft(t, strings.Fields(sabotage)...)
		select {
		case err := <-lost:
			wantErr(t, err, ErrFenceLost)
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was not noticed", sabotage)
		}
		must(t, f.Check())
		a.silent(fence4, own4)
		open := map[netip.Addr]uint64{fence4: seq, fence6: seq}
		seq++
		must(t, f.Arm(seq, long, openings(open)))
		a.silent(fence4, own4) // it rests on a report from before the loss
		open = map[netip.Addr]uint64{fence4: seq, fence6: seq}
		seq++
		must(t, f.Arm(seq, long, openings(open)))
		a.expect(fence4)
		a.expect(fence6)
	}
	if len(lost) > 0 {
		t.Errorf("told too often: %v", <-lost)
	}
}

func TestLossIsMendedFast(t *testing.T) {
	f := newFence(t, fenced...)
	lost := watchFence(t, f)
	c, err := nftables.New(nftables.AsLasting())
	must(t, err)
	defer func() { must(t, c.CloseLasting()) }()
	var took []time.Duration
	for range 50 {
		start := time.Now()
		c.FlushRuleset()
		must(t, c.Flush())
		wantErr(t, <-lost, ErrFenceLost)
		took = append(took, time.Since(start))
		must(t, f.Check())
	}
	slices.Sort(took)
	t.Logf("restored after: min %v, median %v, max %v", took[0], took[len(took)/2], took[len(took)-1])
	if took[len(took)/2] > 50*time.Millisecond {
		t.Error("too slow")
	}
}

// Without a watch the next claim, or the next act of giving up, finds and mends the loss.
func TestLossIsMendedByTheWay(t *testing.T) {
	_, a := newNode(t)
	f := newFence(t, fenced...)
	must(t, f.Arm(1, long, nil))
	must(t, f.Open(fenced, 1))
	nft(t, "flush", "ruleset")
	must(t, f.Close([]netip.Addr{fence4}))
	must(t, f.Check())
	a.silent(fence4, own4)
	nft(t, "flush", "ruleset")
	if err := f.Check(); !errors.Is(err, ErrFenceLost) {
		t.Errorf("after a flush: %v", err)
	}
	wantErr(t, f.Open([]netip.Addr{fence4}, 1), ErrLate) // the report is lost, and so is what it opens
	must(t, f.Check())
	a.silent(fence4, own4)
	must(t, f.Arm(2, long, nil))
	must(t, f.Open([]netip.Addr{fence4}, 2))
	a.expect(fence4)
}

// What others do to their own tables, and we to ours, does not wake the watch.
func TestWatchIsQuiet(t *testing.T) {
	f := newFence(t, fenced...)
	lost := watchFence(t, f)
	for seq := uint64(1); seq < 100; seq++ {
		must(t, f.Arm(seq, long, nil))
		must(t, f.Open(fenced, seq))
		must(t, f.Close(fenced))
		must(t, f.Install(fenced))
	}
	nft(t, "add table inet other; delete table inet other")
	nft(t, "flush", "ruleset")
	<-lost // what came before was taken before
	if len(lost) > 0 {
		t.Errorf("told: %v", <-lost)
	}
}
