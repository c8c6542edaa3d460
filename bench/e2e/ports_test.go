package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// intruder tries to write at the own address of every node from the client's namespace, all the time.
type intruder struct {
	stop func()

	mu    sync.Mutex
	wrote []written
}

// written is a write that was acknowledged.
type written struct {
	node  string
	begun time.Time
}

// intrude begins to write with a table that is there, and ends with the test.
func intrude(t *testing.T, l *lab.Lab) *intruder {
	t.Helper()
	const patience, every = 50 * time.Millisecond, 5 * time.Millisecond
	i := &intruder{}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	for k, n := range l.Servers() {
		db, err := l.Client().DB(netip.AddrPortFrom(n.Addr, lab.ServerPort), patience)
		must(t, err)
		db.SetMaxOpenConns(1)
		done.Go(func() {
			defer db.Close()
			pace := time.NewTicker(every)
			defer pace.Stop()
			for n2 := 0; ctx.Err() == nil; n2++ {
				begun := time.Now()
				if _, err := db.ExecContext(ctx, "REPLACE INTO intruder VALUES (?, ?)", k, n2); err == nil {
					i.mu.Lock()
					i.wrote = append(i.wrote, written{n.Name, begun})
					i.mu.Unlock()
				}
				<-pace.C
			}
		})
	}
	i.stop = func() {
		cancel()
		done.Wait()
	}
	t.Cleanup(i.stop)
	return i
}

// turns returns the nodes at which writes succeeded, one after the other. Two that were open at once would be in it in
// turns, again and again.
func (i *intruder) turns() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	wrote := slices.Clone(i.wrote)
	slices.SortFunc(wrote, func(a, b written) int { return a.begun.Compare(b.begun) })
	var nodes []string
	for _, w := range wrote {
		if len(nodes) == 0 || nodes[len(nodes)-1] != w.node {
			nodes = append(nodes, w.node)
		}
	}
	return nodes
}

// since reports whether a write at a node's own address has succeeded that was begun after a moment.
func (i *intruder) since(node string, from time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.ContainsFunc(i.wrote, func(w written) bool { return w.node == node && w.begun.After(from) })
}

// oneWriter ends the intruder, and fails the test if writes succeeded at two nodes' own addresses at the same time: there were no more turns than
// the group had owners.
func (i *intruder) oneWriter(t *testing.T, l *lab.Lab) {
	t.Helper()
	i.stop()
	turns := i.turns()
	s, err := l.Node(l.Holder(l.VIP())).Status(within(t))
	must(t, err)
	epochs := s.Group(lab.Group).Epoch
	t.Logf("writes at the nodes' own addresses succeeded in these turns, in %d epochs: %v", epochs, turns)
	if len(turns) < 2 || uint64(len(turns)) > epochs {
		t.Errorf("writes succeeded in %d turns although there were %d epochs", len(turns), epochs)
	}
}

// The daemon of the owner is killed while its server goes on: the kernel closes the server's port to the client with the
// lease, at the server's own address too, so that its successor can become writable although nobody has made the old one
// read-only. The old one is made so when its daemon is back.
func aDeadDaemonsServerIsClosed(t *testing.T, l *lab.Lab, w *writer, i *intruder) (follows bool) {
	old := l.Holder(l.VIP())
	w.goesOn(t, "at "+old)
	eventually(t, "writes at the own address of the owner succeed", func() bool { return i.since(old, time.Now().Add(-time.Second)) })
	must(t, l.Node(old).KillDaemon())
	next, err := l.WaitOwner(within(t), "")
	must(t, err)
	eventually(t, "another node serves", func() bool {
		for _, n := range others(l, old) {
			if s, err := n.Status(within(t)); err == nil && s.Group(lab.Group).BoundHere {
				next = n.Name
				return true
			}
		}
		return false
	})
	moved := time.Now()
	w.goesOn(t, "at "+next)
	if ro := ask(t, l.Node(old), "SELECT @@global.read_only"); ro != "0" {
		t.Errorf("the server of %s has read_only = %q although its daemon is dead: this shows nothing", old, ro)
	}
	eventually(t, "writes at the own address of the new owner succeed", func() bool { return i.since(next, moved) })
	if i.since(old, moved) {
		t.Errorf("a write at the own address of %s has succeeded after %s served", old, next)
	}
	i.stop()
	must(t, l.Node(old).StartDaemon())
	eventually(t, "the server of "+old+" is read-only", func() bool { return ask(t, l.Node(old), "SELECT @@global.read_only") == "1" })
	if out, err := l.Node(old).NS.Command(t.Context(), "nft", "list", "table", "inet", "remora"); err != nil || !strings.Contains(string(out), fmt.Sprint(lab.ServerPort)) {
		t.Errorf("the rules of %s can not be listed, or do not name the port: %v\n%s", old, err, out)
	}
	return comesBack(t, l, old, next)
}
