package consensus

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-ha/remora/core"
)

// openLongest returns the state machine of a node that has opened a state directory.
func openLongest(t *testing.T, dir string) *adapter {
	t.Helper()
	l, err := takeLongest(dir)
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(dir, logDir), 0o700))
	s := testStore(t, filepath.Join(dir, logDir))
	late := time.AfterFunc(30*time.Second, s.log.interrupt) // a write that should be done by then fails the test
	t.Cleanup(func() {
		late.Stop()
		must(t, s.Close())
	})
	return &adapter{n: &Node{cfg: Config{StateDir: dir}, log: slog.New(slog.DiscardHandler), store: s}, longest: l}
}

func wantLongest(t *testing.T, dir string, want time.Duration) {
	t.Helper()
	got, err := LongestLease(dir)
	must(t, err)
	if got != want {
		t.Errorf("the longest lease is %v, want %v", got, want)
	}
}

func TestLongestLeaseIsKept(t *testing.T) {
	dir := t.TempDir()
	wantLongest(t, dir, 0)
	a := openLongest(t, dir)
	wantLongest(t, dir, 0)
	must(t, a.keepLongest(core.View{Index: 3, Longest: 300}))
	wantLongest(t, dir, 300*time.Millisecond)
	must(t, a.keepLongest(core.View{Index: 7, Longest: 4000}))
	wantLongest(t, dir, 4*time.Second)
	// After a restart the log is applied again from its start.
	must(t, a.n.store.Close())
	a = openLongest(t, dir)
	must(t, a.keepLongest(core.View{Index: 3, Longest: 300}))
	wantLongest(t, dir, 4*time.Second)
	must(t, a.keepLongest(core.View{Index: 9, Longest: 300}))
	wantLongest(t, dir, 300*time.Millisecond)
}

// What can not be trusted counts as the longest that there can be, until the ledger tells.
func TestLongestLeaseThatIsNotKnown(t *testing.T) {
	sound := string(longest{lease: 300, at: 7}.line())
	for name, spoil := range map[string]func(path string) error{
		"missing":       os.Remove,
		"empty":         func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"of other form": func(path string) error { return os.WriteFile(path, []byte("300 ms at entry 7\n"), 0o600) },
		"half":          func(path string) error { return os.WriteFile(path, []byte(sound[:longestSize/2]), 0o600) },
		"another digit": func(path string) error {
			return os.WriteFile(path, []byte(strings.Replace(sound, "300 ms", "100 ms", 1)), 0o600)
		},
		"longer, of other form": func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("300 ms at entry 7\n", 9)), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			a := openLongest(t, dir)
			must(t, a.keepLongest(core.View{Index: 7, Longest: 300}))
			must(t, a.n.store.Close())
			must(t, spoil(filepath.Join(dir, longestFile)))
			if d, err := LongestLease(dir); d != core.MaxTTL || err == nil {
				t.Errorf("the longest lease is %v, %v; want %v and a reason", d, err, core.MaxTTL)
			}
			a = openLongest(t, dir)
			wantLongest(t, dir, core.MaxTTL)
			must(t, a.keepLongest(core.View{Index: 7, Longest: 300}))
			wantLongest(t, dir, 300*time.Millisecond)
		})
	}
}

// On a full disk a longer lease is written down all the same: there is room for it.
func TestLongestLeaseOnAFullDisk(t *testing.T) {
	dir := smallDisk(t, 24)
	a := openLongest(t, dir)
	must(t, a.keepLongest(core.View{Index: 3, Longest: 300}))
	free := fill(t, dir)
	defer free()
	for at := core.Index(4); at < 200; at++ {
		must(t, a.keepLongest(core.View{Index: at, Longest: core.Millis(100 * at)}))
	}
	wantLongest(t, dir, 199*100*time.Millisecond)
	if ails := a.n.store.log.ails(); ails != nil {
		t.Errorf("reported is %v", ails)
	}
}

// A longest lease that can not be written is told of until it can, and nobody learns of it before.
func TestLongestLeaseThatIsNotWritten(t *testing.T) {
	dir := t.TempDir()
	a := openLongest(t, dir)
	path := filepath.Join(dir, longestFile)
	block := func() {
		must(t, os.Remove(path))
		must(t, os.Mkdir(path, 0o700))
	}
	disk := a.n.store.log
	told := func() bool { s := disk.ails(); return s != nil && strings.Contains(s.String(), string(opLongest)) }
	kept := make(chan error, 1)
	keep := func(at core.Index) { kept <- a.keepLongest(core.View{Index: at, Longest: core.Millis(at)}) }

	block()
	go keep(300)
	eventually(t, "the disk's trouble is told", told)
	must(t, a.n.store.StoreLogs(entries(1, 1, 10)))
	if !told() {
		t.Error("an append has ended a trouble that is none of the log's")
	}
	select {
	case err := <-kept:
		t.Fatalf("it is kept with %v, although it is not written", err)
	default:
	}
	must(t, os.Remove(path))
	must(t, <-kept)
	wantLongest(t, dir, 300*time.Millisecond)
	if ails := disk.ails(); ails != nil {
		t.Errorf("reported is %v when it is written", ails)
	}

	block()
	go keep(400)
	eventually(t, "the disk's trouble is told again", told)
	disk.interrupt()
	if err := <-kept; err == nil {
		t.Error("the node has ended and kept what it could not write")
	}
}

// A leader that can not write it, though it can append, lets another lead, and is a node like the others when it can.
func TestLeaderWithoutTheLongestLeaseYields(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.have(c.commit(), c.nodes...)
	old := c.leader()
	path := filepath.Join(old.dir, longestFile)
	must(t, os.Remove(path))
	must(t, os.Mkdir(path, 0o700))
	config := core.Config{Version: 1, Nodes: c.specs, TTL: 300}
	old.Propose(core.Command{ID: lastID.Add(1), Ops: []core.Op{{Configure: &config}}}, nil)
	rest := c.others(old)
	eventually(t, "another node leads", func() bool {
		return rest[0].Status().State == "leader" || rest[1].Status().State == "leader"
	})
	if s := old.Status(); !strings.Contains(s.Disk, string(opLongest)) {
		t.Errorf("the status of the old leader says nothing of it: %+v", s)
	}
	id := c.commit(rest...)
	must(t, os.Remove(path))
	c.have(id, c.nodes...)
	wantLongest(t, old.dir, 300*time.Millisecond)
	eventually(t, "the disk is said to work", func() bool { return old.Status().Disk == "" })
}
