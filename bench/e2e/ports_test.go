package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/remora-ha/remora/bench/lab"
)

// intruder tries to write from the client's namespace at the own address of every node and at the virtual address, all the
// time.
type intruder struct {
	stop func()

	mu    sync.Mutex
	wrote []written
}

// written is a write that was acknowledged.
type written struct {
	node         string // whose server it was
	begun, ended time.Time
	atVIP        bool
}

// intrudeEvery is the time between two writes at an address.
const intrudeEvery = 5 * time.Millisecond

// intrude begins to write into a table that is there, and ends with the test.
func intrude(t *testing.T, l *lab.Lab) *intruder {
	t.Helper()
	const patience = 50 * time.Millisecond
	i := &intruder{}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	names := map[int]string{}
	try := func(k int, addr netip.Addr, write func(*sql.DB, int, int) (string, error)) {
		db, err := l.Client().DB(netip.AddrPortFrom(addr, lab.ServerPort), patience)
		must(t, err)
		db.SetMaxOpenConns(1)
		done.Go(func() {
			defer db.Close()
			pace := time.NewTicker(intrudeEvery)
			defer pace.Stop()
			for n := 0; ctx.Err() == nil; n++ {
				begun := time.Now()
				if node, err := write(db, k, n); err == nil {
					i.mu.Lock()
					i.wrote = append(i.wrote, written{node, begun, time.Now(), addr == l.VIP()})
					i.mu.Unlock()
				}
				<-pace.C
			}
		})
	}
	const replace = "REPLACE INTO intruder VALUES (?, ?)"
	for k, n := range l.Servers() {
		names[k+1] = n.Name // by server_id
		try(k, n.Addr, func(db *sql.DB, k, n2 int) (string, error) {
			_, err := db.ExecContext(ctx, replace, k, n2)
			return n.Name, err
		})
	}
	try(len(names), l.VIP(), func(db *sql.DB, k, n int) (string, error) {
		c, err := db.Conn(ctx) // so that the server that is asked for its name is the one that was written to
		if err != nil {
			return "", err
		}
		defer c.Close()
		if _, err := c.ExecContext(ctx, replace, k, n); err != nil {
			return "", err
		}
		var id int
		err = c.QueryRowContext(ctx, "SELECT @@server_id").Scan(&id)
		return names[id], err
	})
	i.stop = func() {
		cancel()
		done.Wait()
	}
	t.Cleanup(i.stop)
	return i
}

// two is a write at one server between two writes at another.
type two struct{ before, between, after written }

func (w two) String() string {
	return fmt.Sprintf("%s took writes that ended %v before and began %v after one at %s (the address: %t, %t, %t)", w.before.node,
		w.between.begun.Sub(w.before.ended), w.after.begun.Sub(w.between.ended), w.between.node, w.before.atVIP, w.between.atVIP, w.after.atVIP)
}

// twoWriters returns the first proof that two servers were writable at once: a write at one, then one at another, then one at the
// first again, none of them begun before the one before had ended, in less time than the group can go there and back.
func twoWriters(wrote []written) (two, bool) {
	const thereAndBack = 250 * time.Millisecond
	wrote = slices.SortedFunc(slices.Values(wrote), func(a, b written) int { return a.begun.Compare(b.begun) })
	last := map[string]written{} // the newest that has ended, of each server
	for i, between := range wrote {
		for node, before := range last {
			if node == between.node || between.begun.Before(before.ended) || between.begun.Sub(before.ended) > thereAndBack {
				continue
			}
			for _, after := range wrote[i+1:] {
				if after.begun.Sub(before.ended) > thereAndBack {
					break
				}
				if after.node == node && after.begun.After(between.ended) {
					return two{before, between, after}, true
				}
			}
		}
		if between.ended.After(last[between.node].ended) {
			last[between.node] = between
		}
	}
	return two{}, false
}

// neverTwoWriters fails the test if two servers took writes from outside of the members at once, by what was written so far.
func (i *intruder) neverTwoWriters(t *testing.T) {
	t.Helper()
	i.mu.Lock()
	wrote := slices.Clone(i.wrote)
	i.mu.Unlock()
	if w, found := twoWriters(wrote); found {
		t.Errorf("two servers were writable from outside at once: %v", w)
	}
	at := 0
	for _, w := range wrote {
		if w.atVIP {
			at++
		}
	}
	t.Logf("%d writes of the intruder succeeded, %d of them at the address", len(wrote), at)
	if at == 0 || at == len(wrote) {
		t.Error("the intruder did not write both at the address and at the nodes' own addresses: this shows nothing")
	}
}

// Two writers are found where they overlap, also when that is short, and owners that come one after the other are none.
func TestTwoWritersAreFound(t *testing.T) {
	ms := func(node string, begun, ended int) written {
		at := func(n int) time.Time { return time.Unix(100, 0).Add(time.Duration(n) * time.Millisecond) }
		return written{node: node, begun: at(begun), ended: at(ended)}
	}
	for _, c := range []struct {
		name  string
		wrote []written
		want  bool
	}{
		{"one", []written{ms("a", 0, 1), ms("a", 5, 6)}, false},
		{"one after the other", []written{ms("a", 0, 1), ms("b", 5, 6), ms("b", 10, 11)}, false},
		{"there and back", []written{ms("a", 0, 1), ms("b", 150, 151), ms("a", 300, 301)}, false},
		{"in turns", []written{ms("a", 0, 1), ms("b", 2, 3), ms("a", 5, 6), ms("b", 7, 8)}, true},
		{"a last write of the old one", []written{ms("a", 0, 1), ms("b", 5, 6), ms("b", 10, 11), ms("a", 12, 13)}, true},
		{"one that was begun before", []written{ms("a", 0, 1), ms("a", 5, 9), ms("b", 6, 8)}, false},
		{"late in a long list", []written{ms("b", 0, 1), ms("a", 500, 501), ms("a", 505, 506), ms("b", 506, 507), ms("a", 510, 511)}, true},
	} {
		if w, got := twoWriters(c.wrote); got != c.want {
			t.Errorf("%s: found %t, want %t (%v)", c.name, got, c.want, w)
		}
	}
}

// What the tests of policy promote rest on finds two servers that are writable at once, when nobody closes the second one's port.
func TestASecondWriterIsNoticed(t *testing.T) {
	l := raise(t, func(o *lab.Options) { o.Replicas = true })
	must(t, l.StartServers(within(t)))
	must(t, l.Servers()[0].Exec(within(t), "CREATE TABLE "+lab.Schema+".intruder (k INT PRIMARY KEY, n INT)"))
	first, second := l.Servers()[0].Name, l.Servers()[1].Name
	eventually(t, "the table has come to "+second, func() bool {
		return ask(t, l.Node(second), "SELECT COUNT(*) FROM "+lab.Schema+".intruder") != ""
	})
	i := intrude(t, l)
	found := func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		_, found := twoWriters(i.wrote)
		return found
	}
	eventually(t, "the primary is written to", func() bool { return i.since(first, time.Now().Add(-100*time.Millisecond)) })
	if found() {
		t.Fatal("a second writer was noticed before there was one")
	}
	must(t, l.Node(second).Exec(within(t), "SET GLOBAL read_only = OFF"))
	eventually(t, "the second writer is noticed", found)
}

// turns returns the nodes at whose own addresses writes succeeded, one after the other. Two that were open at once would be in it in
// turns, again and again.
func (i *intruder) turns() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	wrote := slices.Clone(i.wrote)
	slices.SortFunc(wrote, func(a, b written) int { return a.begun.Compare(b.begun) })
	var nodes []string
	for _, w := range wrote {
		if !w.atVIP && (len(nodes) == 0 || nodes[len(nodes)-1] != w.node) {
			nodes = append(nodes, w.node)
		}
	}
	return nodes
}

// since reports whether a write at a node's own address has succeeded that was begun after a moment.
func (i *intruder) since(node string, from time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.ContainsFunc(i.wrote, func(w written) bool { return w.node == node && !w.atVIP && w.begun.After(from) })
}

// oneWriter ends the intruder, and fails the test if writes succeeded at two nodes' own addresses at the same time: there were no more turns than
// the group had owners.
func (i *intruder) oneWriter(t *testing.T, l *lab.Lab) {
	t.Helper()
	i.stop()
	i.neverTwoWriters(t)
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
