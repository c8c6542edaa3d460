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

// writer inserts numbers at the address, one transaction each, and remembers those that were acknowledged.
type writer struct {
	stop atomic.Bool
	hold atomic.Bool // it waits
	done sync.WaitGroup

	mu    sync.Mutex
	acked []acked
}

// acked is a row whose insert was acknowledged.
type acked struct {
	n  int
	at time.Time
}

// write makes a table and starts a writer, which ends with the test.
func write(t *testing.T, l *lab.Lab) *writer {
	t.Helper()
	w := &writer{}
	db, err := l.Client().DB(netip.AddrPortFrom(l.VIP(), lab.ServerPort), 500*time.Millisecond)
	must(t, err)
	for _, table := range []string{"acked (n INT PRIMARY KEY)", "intruder (k INT PRIMARY KEY, n INT)"} {
		eventually(t, "a table is made at the address", func() bool {
			_, err := db.ExecContext(t.Context(), "CREATE TABLE IF NOT EXISTS "+table)
			return err == nil
		})
	}
	w.done.Go(func() {
		defer db.Close()
		pace := time.NewTicker(4 * time.Millisecond)
		defer pace.Stop()
		for n := 1; !w.stop.Load(); n++ {
			for w.hold.Load() && !w.stop.Load() {
				<-pace.C
			}
			if _, err := db.ExecContext(context.Background(), "INSERT INTO acked VALUES (?)", n); err == nil {
				w.mu.Lock()
				w.acked = append(w.acked, acked{n, time.Now()})
				w.mu.Unlock()
			}
			<-pace.C
		}
	})
	t.Cleanup(w.end)
	return w
}

func (w *writer) end() {
	w.stop.Store(true)
	w.done.Wait()
}

// rows returns what was acknowledged so far.
func (w *writer) rows() []acked {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.acked)
}

// goesOn waits until some more rows were acknowledged.
func (w *writer) goesOn(t *testing.T, where string) {
	t.Helper()
	before := len(w.rows())
	eventually(t, "writes go on "+where, func() bool { return len(w.rows()) > before+25 })
}

// gap returns the longest time between two acknowledged rows since from.
func (w *writer) gap(from time.Time) time.Duration {
	var longest time.Duration
	rows := w.rows()
	for i := 1; i < len(rows); i++ {
		if rows[i].at.After(from) {
			longest = max(longest, rows[i].at.Sub(rows[i-1].at))
		}
	}
	return longest
}

// lost returns the acknowledged rows that a node's server lacks.
func (w *writer) lost(t *testing.T, n *lab.Node) []int {
	t.Helper()
	rows := w.rows() // before the question, so that none comes in between
	db, err := n.Admin()
	must(t, err)
	defer db.Close()
	result, err := db.QueryContext(within(t), fmt.Sprintf("SELECT n FROM %s.acked", lab.Schema))
	must(t, err)
	defer result.Close()
	have := map[int]bool{}
	for result.Next() {
		var v int
		must(t, result.Scan(&v))
		have[v] = true
	}
	must(t, result.Err())
	var lost []int
	for _, r := range rows {
		if !have[r.n] {
			lost = append(lost, r.n)
		}
	}
	return lost
}
