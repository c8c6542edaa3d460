package consensus

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"github.com/remora-ha/remora/core"
)

// BenchmarkStore compares two durable logs under the daemon's store, its own of journal and database and raft-wal, with the room
// that it takes in advance, by what Remora does with them: single small entries, each durable before the call returns, and a new
// term now and then.
func BenchmarkStore(b *testing.B) {
	for name, h := range map[string]host{"wal": onWAL{}, "journal": linux{}} {
		open := func(b *testing.B) *store {
			s, err := openStore(b.TempDir(), h.openLog, time.Minute, slog.New(slog.DiscardHandler))
			must(b, err)
			return s
		}
		b.Run(name+"/append", func(b *testing.B) {
			s := open(b)
			defer s.Close()
			data := make([]byte, 400)
			index := uint64(0)
			percentiles(b, func() error {
				index++
				return s.StoreLogs([]*raft.Log{{Index: index, Term: 1, Type: raft.LogCommand, Data: data}})
			})
		})
		b.Run(name+"/term", func(b *testing.B) {
			s := open(b)
			defer s.Close()
			term := uint64(0)
			percentiles(b, func() error {
				term++
				return s.SetUint64([]byte(keyTerm), term)
			})
		})
	}
}

// percentiles runs f b.N times and reports the median and the 99th percentile.
func percentiles(b *testing.B, f func() error) {
	b.Helper()
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// onWAL is a node with the other store.
type onWAL struct{ linux }

func (onWAL) openLog(dir string) (backend, error) {
	return wal.Open(dir, wal.WithLogger(hclog.NewNullLogger()), wal.WithSegmentSize(4<<20))
}

// BenchmarkCommit measures proposals on the leader of three nodes on the loopback interface, all with their logs on one
// disk, until they are applied there, with each store. The daemon has the journal.
func BenchmarkCommit(b *testing.B) {
	for name, h := range map[string]host{"wal": onWAL{}, "journal": linux{}} {
		b.Run(name, func(b *testing.B) {
			c := newCluster(b, "db1", "db2", "mgr")
			c.host = h
			c.startAll()
			c.commit()
			l := c.leader()
			outcomes := make(chan core.Event, 1)
			l.mu.Lock()
			l.outcomes = outcomes
			l.mu.Unlock()
			percentiles(b, func() error {
				id := lastID.Add(1)
				l.Propose(core.Command{ID: id, By: l.name, Ops: []core.Op{{Grant: &core.Grant{Group: "writer", To: "db1"}}}}, nil)
				for {
					switch ev := (<-outcomes).(type) {
					case core.Committed:
						if ev.Command.ID == id {
							return nil
						}
					case core.ProposalFailed:
						return errors.New(ev.Reason)
					}
				}
			})
			l.mu.Lock()
			l.outcomes = nil
			l.mu.Unlock()
		})
	}
}
