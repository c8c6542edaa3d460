package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// readerAddresses are those of the reader group.
var readerAddresses = []netip.Addr{netip.MustParseAddr("10.77.0.101"), netip.MustParseAddr("10.77.0.102"), netip.MustParseAddr("10.77.0.103")}

const readerConfig = `max_lost_transactions = 100000

[[group]]
name          = "readers"
role          = "reader"
addresses     = ["10.77.0.101", "10.77.0.102", "10.77.0.103"]
interface     = "eth0"
max_lag       = "4s"
balance_after = "2s"`

// readers ask at each reader address, all the time, over connections of their own, which server answers.
type readers struct {
	done sync.WaitGroup
	last []atomic.Pointer[answer]
}

// answer is what a server has said at a reader address.
type answer struct {
	at       time.Time
	server   int
	readOnly bool
}

// read starts readers, which end with the test.
func read(t *testing.T, l *lab.Lab) *readers {
	r := &readers{last: make([]atomic.Pointer[answer], len(readerAddresses))}
	ctx, end := context.WithCancel(context.Background())
	for i, a := range readerAddresses {
		r.done.Go(func() {
			pace := time.NewTicker(10 * time.Millisecond)
			defer pace.Stop()
			for ctx.Err() == nil {
				if got := readOnce(ctx, l, a); got != nil {
					r.last[i].Store(got)
				}
				<-pace.C
			}
		})
	}
	t.Cleanup(func() {
		end()
		r.done.Wait()
	})
	return r
}

func readOnce(ctx context.Context, l *lab.Lab, a netip.Addr) *answer {
	db, err := l.Client().DB(netip.AddrPortFrom(a, lab.ServerPort), 500*time.Millisecond)
	if err != nil {
		return nil
	}
	defer db.Close()
	got := &answer{at: time.Now()}
	if db.QueryRowContext(ctx, "SELECT @@server_id, @@global.read_only").Scan(&got.server, &got.readOnly) != nil {
		return nil
	}
	return got
}

// holding is who holds an address, in which epoch.
type holding struct {
	owner string
	epoch uint64
}

// holdings asks the first daemon that answers.
func holdings(t *testing.T, l *lab.Lab) map[netip.Addr]holding {
	t.Helper()
	for _, n := range l.Nodes() {
		s, err := n.Status(within(t))
		if err != nil || !s.Quorum {
			continue
		}
		all := map[netip.Addr]holding{}
		for _, a := range readerAddresses {
			g := s.Group("readers/" + a.String())
			all[a] = holding{g.Owner, g.Epoch}
		}
		return all
	}
	return nil
}

// spreadOver reports whether all addresses have an owner among the nodes, and none of those has two more than another.
func spreadOver(all map[netip.Addr]holding, nodes ...string) bool {
	counts := make([]int, len(nodes))
	for _, h := range all {
		i := slices.Index(nodes, h.owner)
		if i < 0 {
			return false
		}
		counts[i]++
	}
	return len(all) > 0 && slices.Max(counts)-slices.Min(counts) < 2
}

// come waits until the addresses are spread over the nodes, and clients read there.
func (r *readers) come(t *testing.T, l *lab.Lab, nodes ...string) map[netip.Addr]holding {
	t.Helper()
	var all map[netip.Addr]holding
	eventually(t, fmt.Sprintf("the reader addresses are spread over %v", nodes), func() bool {
		all = holdings(t, l)
		return spreadOver(all, nodes...)
	})
	since := time.Now()
	for i, a := range readerAddresses {
		n := l.Node(all[a].owner)
		eventually(t, fmt.Sprintf("a client reads at %v, on %s", a, n.Name), func() bool {
			got := r.last[i].Load()
			return got != nil && got.at.After(since) && fmt.Sprint(got.server) == ask(t, n, "SELECT @@server_id")
		})
		if got := r.last[i].Load(); !got.readOnly {
			t.Errorf("%v is served by server %d, which is writable", a, got.server)
		}
	}
	return all
}

// stayed fails the test if an address moved that was not on one of these nodes.
func stayed(t *testing.T, before, after map[netip.Addr]holding, but ...string) {
	t.Helper()
	for _, a := range readerAddresses {
		if was := before[a]; !slices.Contains(but, was.owner) && after[a] != was {
			t.Errorf("%v went from %v to %v, and nothing was wrong there", a, was, after[a])
		}
	}
}

// Beside a group of policy promote the reader addresses are spread over the replicas, and a client reads at each of them, through
// the closed ports. A replica that falls behind, or dies, loses its addresses and no others move; what it gets back is no more than
// the balance asks for. After a failover of the primary the successor serves no readers any more.
func TestReaders(t *testing.T) {
	besides(t)
	l := replicas(t, flavours()[0], readerConfig)
	w := write(t, l)
	primary := l.Holder(l.VIP())
	following(t, l, primary)
	one, two := others(l, primary)[0], others(l, primary)[1]
	r := read(t, l)
	even := r.come(t, l, one.Name, two.Name)

	start := time.Now()
	lock := locked(t, one)
	behind := r.come(t, l, two.Name)
	t.Logf("%s stopped to apply: its addresses have moved after %v", one.Name, time.Since(start).Round(time.Millisecond))
	stayed(t, even, behind, one.Name)
	lock.Close()
	again := r.come(t, l, one.Name, two.Name)
	t.Logf("balance was back after %v", time.Since(start).Round(time.Millisecond))
	stayed(t, behind, again, two.Name)

	start = time.Now()
	must(t, two.KillServer())
	dead := r.come(t, l, one.Name)
	t.Logf("the server of %s was killed: its addresses are read at %s after %v", two.Name, one.Name, time.Since(start).Round(time.Millisecond))
	stayed(t, again, dead, two.Name)
	must(t, two.StartServer(within(t)))
	following(t, l, primary)
	back := r.come(t, l, one.Name, two.Name)
	t.Logf("balance was back after %v", time.Since(start).Round(time.Millisecond))
	if moved := differ(dead, back); moved != 1 {
		t.Errorf("%d addresses moved for balance, from %v to %v", moved, dead, back)
	}

	next, _ := w.killed(t, l, primary)
	left := one
	if next == one.Name {
		left = two
	}
	stayed(t, back, r.come(t, l, left.Name), next)
	for _, a := range readerAddresses {
		overlaps, err := l.Overlaps(a)
		must(t, err)
		for _, o := range overlaps {
			t.Errorf("%v held %v at once for %v", o.Nodes, o.Addr, o.To.Sub(o.From))
		}
	}
}

func differ(a, b map[netip.Addr]holding) (n int) {
	for addr := range a {
		if a[addr].owner != b[addr].owner {
			n++
		}
	}
	return n
}
