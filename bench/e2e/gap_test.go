package e2e

import (
	"context"
	"flag"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// gapRuns is how often TestGapUnderLoad measures; make promote asks for more than one.
var gapRuns = flag.Int("runs", 1, "how often TestGapUnderLoad measures each move")

// load inserts at the address, 500 transactions a second, and remembers when each was acknowledged.
type load struct {
	mu    sync.Mutex
	acked []time.Time
}

const (
	loadWorkers = 5
	loadEvery   = 10 * time.Millisecond // of each worker
)

func startLoad(t *testing.T, l *lab.Lab) *load {
	t.Helper()
	db, err := l.Client().DB(netip.AddrPortFrom(l.VIP(), lab.ServerPort), time.Second)
	must(t, err)
	db.SetMaxIdleConns(loadWorkers)
	eventually(t, "a table is made at the address", func() bool {
		_, err := db.ExecContext(t.Context(), "CREATE TABLE IF NOT EXISTS pushed (n INT AUTO_INCREMENT PRIMARY KEY)")
		return err == nil
	})
	ld := &load{}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	for range loadWorkers {
		done.Go(func() {
			pace := time.NewTicker(loadEvery)
			defer pace.Stop()
			for ctx.Err() == nil {
				if _, err := db.ExecContext(ctx, "INSERT INTO pushed VALUES ()"); err == nil {
					ld.mu.Lock()
					ld.acked = append(ld.acked, time.Now())
					ld.mu.Unlock()
				}
				<-pace.C
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		done.Wait()
		db.Close()
	})
	return ld
}

// since returns the acknowledgements from the last one before a moment on, in order.
func (ld *load) since(from time.Time) []time.Time {
	ld.mu.Lock()
	defer ld.mu.Unlock()
	i, _ := slices.BinarySearchFunc(ld.acked, from, time.Time.Compare)
	return slices.Clone(ld.acked[max(0, i-1):])
}

// gap waits until writes have gone on for a while after a move, and returns the longest time without an acknowledged one.
func (ld *load) gap(t *testing.T, start time.Time) (longest time.Duration) {
	t.Helper()
	moved := time.Now()
	eventually(t, "writes go on", func() bool { return len(ld.since(moved)) > 50 })
	acked := ld.since(start)
	for i := 1; i < len(acked); i++ {
		longest = max(longest, acked[i].Sub(acked[i-1]))
	}
	return longest
}

// What a client that writes notices of a planned switchover and of the primary's death under a load of 500 transactions a second:
// the medians are printed, with the phases of each run.
func TestGapUnderLoad(t *testing.T) {
	for _, f := range flavours() {
		t.Run(f.name, func(t *testing.T) {
			l := replicas(t, f, "max_lost_transactions = 100000")
			ld := startLoad(t, l)
			gaps := map[string][]time.Duration{}
			for run := range *gapRuns {
				old := l.Holder(l.VIP())
				following(t, l, old)
				to := others(l, old)[0].Name
				var start time.Time
				eventually(t, "a switchover to "+to+" is taken", func() bool {
					start = time.Now()
					err := l.Switchover(within(t), to)
					if err != nil && !strings.Contains(err.Error(), "refused") {
						t.Fatal(err)
					}
					return err == nil // it is refused until the arbiter has heard that replication runs
				})
				note(t, l, gaps, "planned switchover", ld.gap(t, start), start)
				following(t, l, to)
				start = time.Now()
				must(t, l.Node(to).KillServer())
				next, err := l.WaitMoved(within(t), to)
				must(t, err)
				note(t, l, gaps, "the primary killed", ld.gap(t, start), start)
				if run+1 < *gapRuns {
					joins(t, l, to, next)
				}
			}
			for move, all := range gaps {
				slices.Sort(all)
				median := all[len(all)/2]
				t.Logf("%s, %s under %d transactions/s: median %v, least %v, greatest %v of %d runs", f.name, move,
					loadWorkers*time.Second/loadEvery, median, all[0], all[len(all)-1], len(all))
				const busy = 2 * time.Second // what busy cores may add; on calm ones it is less than 150 ms
				if median > busy {
					t.Errorf("%s: a client can not write for %v", move, median)
				}
			}
		})
	}
}

// note keeps a gap and prints the phases of the move.
func note(t *testing.T, l *lab.Lab, gaps map[string][]time.Duration, move string, gap time.Duration, start time.Time) {
	t.Helper()
	gaps[move] = append(gaps[move], gap)
	t.Logf("%s: gap %v\n%s", move, gap, phases(t, l, start))
}

// joins brings a former owner, whose server has died, back as a replica. One that is set aside is built anew, as an operator would
// do it.
func joins(t *testing.T, l *lab.Lab, old, now string) {
	t.Helper()
	n := l.Node(old)
	must(t, n.StartServer(within(t)))
	if !comesBack(t, l, old, now) {
		must(t, n.RenewServer(within(t)))
		eventually(t, old+" may join again", func() bool {
			_, err := n.Remora(within(t), "rejoin")
			return err == nil
		})
	}
	following(t, l, now)
}
