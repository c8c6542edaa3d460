package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// smallDisk mounts a file system of some MiB for the test.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes what room there is and returns what frees it.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	must(t, err)
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	must(t, f.Close())
	return func() { must(t, os.Remove(path)) }
}

func entries(first uint64, n, size int) []*raft.Log {
	ls := make([]*raft.Log, n)
	for i := range ls {
		ls[i] = &raft.Log{Index: first + uint64(i), Term: 1, Data: bytes.Repeat([]byte{byte(i)}, size)}
	}
	return ls
}

// On a full disk a node goes on voting, and appends for a while. What it can not append it says, and when there is room
// again it goes on where it was.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, 24)
	s := testStore(t, dir)
	must(t, s.SetUint64([]byte(keyTerm), 1))
	must(t, s.StoreLogs(entries(1, 4, 100)))
	free := fill(t, dir)
	for term := uint64(2); term < 200; term++ {
		must(t, s.SetUint64([]byte(keyTerm), term))
		must(t, s.SetUint64([]byte(keyVoteTerm), term))
		must(t, s.Set([]byte(keyVoteCand), fmt.Appendf(nil, "candidate-%d", term)))
	}
	next := uint64(5)
	var err error
	for written := 0; err == nil; written += 64 << 10 {
		if written > 8*reserveRoom {
			t.Fatal("a full disk takes more and more")
		}
		if err = s.StoreLogs(entries(next, 1, 64<<10)); err == nil {
			next++
		}
	}
	if got := (next - 5) * (64 << 10); !errors.Is(err, unix.ENOSPC) || got < reserveRoom {
		t.Errorf("after %d bytes: %v; want %v, and not before %d bytes", got, err, unix.ENOSPC, reserveRoom)
	}
	if a := s.log.ails(); a == nil || !strings.Contains(a.String(), "no space left") {
		t.Errorf("reported is %v", a)
	}
	must(t, s.SetUint64([]byte(keyTerm), 300))
	free()
	must(t, s.StoreLogs(entries(next, 3, 100)))
	if a := s.log.ails(); a != nil {
		t.Errorf("with room again %v is reported", a)
	}
	if _, err := os.Stat(filepath.Join(dir, reserveFile)); err != nil || s.log.spent {
		t.Errorf("no reserve was taken again: %v", err)
	}
	must(t, s.Close())
	s = testStore(t, dir)
	defer s.Close()
	last, err := s.LastIndex()
	must(t, err)
	if last != next+2 || s.Term() != 300 {
		t.Errorf("the last entry is %d, the term %d; want %d, 300", last, s.Term(), next+2)
	}
	for i := uint64(1); i <= last; i++ {
		must(t, s.GetLog(i, &raft.Log{}))
	}
}

// What was never written is written once, as the zeros that it reads as, and what is there stays.
func TestTheLogsRoomIsWrittenInAdvance(t *testing.T) {
	path := filepath.Join(t.TempDir(), dbFile)
	const size, page = 1 << 20, 4096
	want := make([]byte, size+page)
	f, err := os.Create(path)
	must(t, err)
	for _, at := range []int64{0, 5 * page, 300<<10 + page, size - page, size} {
		block := bytes.Repeat([]byte{byte(at>>12) | 1}, page)
		copy(want[at:], block)
		_, err := f.WriteAt(block, at)
		must(t, err)
	}
	must(t, f.Close())
	must(t, prefill(path, size))
	got, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("what was in the file is not any more")
	}
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if written := st.Blocks * 512; written < size {
		t.Errorf("%d bytes of %d are written", written, size)
	}
	s := testStore(t, t.TempDir())
	defer s.Close()
	log, err := os.Open(filepath.Join(s.log.dir, dbFile))
	must(t, err)
	defer log.Close()
	if hole, err := unix.Seek(int(log.Fd()), 0, unix.SEEK_HOLE); err != nil || hole < dbRoom {
		t.Errorf("a new log was written up to %d bytes, %v; want %d", hole, err, dbRoom)
	}
}

// An append that failed may be on disk all the same. It must not stand in the way of the next.
func TestFailedAppendIsCutOff(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	must(t, s.StoreLogs(entries(1, 2, 10)))
	must(t, s.log.back.StoreLogs(entries(3, 2, 10))) // written, and then a flush fails, say
	s.log.broken = true
	must(t, s.StoreLogs(entries(3, 1, 20)))
	last, err := s.LastIndex()
	must(t, err)
	var l raft.Log
	must(t, s.GetLog(3, &l))
	if last != 3 || len(l.Data) != 20 {
		t.Errorf("the last entry is %d, of %d bytes; want 3, of 20", last, len(l.Data))
	}
}

// A log that can not be opened anew at once must not stay shut: Raft waits for its term to be written and appends nothing.
func TestTermIsWrittenToALogThatWasShut(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	must(t, s.StoreLogs(entries(1, 2, 10)))
	open := s.log.open
	s.log.open = func() (backend, error) { return nil, errDisk }
	s.log.broken = true
	if err := s.StoreLogs(entries(3, 1, 10)); !errors.Is(err, errDisk) {
		t.Fatalf("the append ended with %v, want %v", err, errDisk)
	}
	s.log.open = open
	done := make(chan error, 1)
	go func() { done <- s.SetUint64([]byte(keyTerm), 9) }()
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(20 * time.Second):
		t.Fatal("the term is not written although the log can be opened again")
	}
	must(t, s.StoreLogs(entries(3, 1, 10)))
}

// A node whose log is in a format that is not read must not take itself for an empty one.
func TestFormerLogIsRefused(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, formerFile), []byte("x"), 0o600))
	if s, err := openStore(dir, openBolt, time.Minute, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrFormerLog) {
		t.Errorf("opened %v with %v, want %v", s, err, ErrFormerLog)
	}
}

// faulty is a log whose writes fail or stand still when they are told to.
type faulty struct {
	backend
	mu   sync.Mutex
	gate chan struct{} // writes wait until it is closed
	err  error
}

// inject puts a faulty log in place of a store's, also when the store opens it anew.
func inject(s *store) *faulty {
	d := s.log
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &faulty{backend: d.back}
	d.back = f
	open := d.open
	d.open = func() (backend, error) {
		b, err := open()
		if err != nil {
			return nil, err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.backend = b
		return f, nil
	}
	return f
}

func (f *faulty) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// stall makes writes stand still until the function that it returns is called.
func (f *faulty) stall() (goOn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gate := make(chan struct{})
	f.gate = gate
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.gate == gate {
			close(gate)
			f.gate = nil
		}
	}
}

func (f *faulty) pass() error {
	f.mu.Lock()
	gate := f.gate
	f.mu.Unlock()
	if gate != nil {
		<-gate
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *faulty) under() backend {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.backend
}

func (f *faulty) StoreLogs(ls []*raft.Log) error {
	if err := f.pass(); err != nil {
		return err
	}
	return f.under().StoreLogs(ls)
}

func (f *faulty) Set(key, val []byte) error {
	if err := f.pass(); err != nil {
		return err
	}
	return f.under().Set(key, val)
}

func (f *faulty) SetUint64(key []byte, v uint64) error {
	if err := f.pass(); err != nil {
		return err
	}
	return f.under().SetUint64(key, v)
}

var errDisk = errors.New("input/output error")

// A term that can not be written is tried until it is, and no vote is cast meanwhile. The end of the node ends the tries.
func TestTermsAreTriedUntilTheyAreWritten(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	f := inject(s)
	must(t, s.SetUint64([]byte(keyVoteTerm), 1))
	f.fail(errDisk)
	if err := s.Set([]byte(keyVoteCand), []byte("a")); !errors.Is(err, errDisk) {
		t.Errorf("the vote: %v, want %v", err, errDisk)
	}
	done := make(chan error, 1)
	go func() { done <- s.SetUint64([]byte(keyTerm), 7) }()
	eventually(t, "the term is reported", func() bool {
		a := s.log.ails()
		return a != nil && strings.Contains(a.String(), errDisk.Error())
	})
	eventually(t, "the node answers in the term that it moves to", func() bool { return s.Term() == 7 })
	select {
	case err := <-done:
		t.Fatalf("the term is said to be written: %v", err)
	default:
	}
	f.fail(nil)
	must(t, <-done)
	f.fail(errDisk)
	ended := make(chan bool, 1)
	go func() {
		returned := false
		defer func() { ended <- returned }()
		_ = s.SetUint64([]byte(keyTerm), 8)
		returned = true
	}()
	runtime.Gosched()
	s.log.interrupt()
	if <-ended {
		t.Error("the library was told that the term is written")
	}
}

// A write that ends says nothing of one that hangs behind it.
func TestEachWriteThatHangsCounts(t *testing.T) {
	s := testStore(t, t.TempDir())
	defer s.Close()
	d := s.log
	d.patient = time.Millisecond
	hang := func(op operation) (end func()) {
		gate, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- d.write(op, func(backend) error { <-gate; return nil }) }()
		return func() { close(gate); must(t, <-done) }
	}
	hung := func(n int) func() bool {
		return func() bool {
			d.hangMu.Lock()
			defer d.hangMu.Unlock()
			return len(d.hanging) == n
		}
	}
	shortened := hang(opShorten)
	eventually(t, "the first is seen", hung(1))
	appended := hang(opAppend)
	eventually(t, "the second is seen", hung(2))
	shortened()
	if a := d.ails(); a == nil || a.op != opAppend {
		t.Errorf("while an append hangs %v is reported", a)
	}
	appended()
	if a := d.ails(); a != nil {
		t.Errorf("when both have ended %v is reported", a)
	}
}

// A leader whose disk fails, or stands still, lets another lead, and leads again once its disk works if it must.
func TestLeaderWithoutADiskYields(t *testing.T) {
	for _, stalls := range []bool{false, true} {
		t.Run(fmt.Sprintf("stalls=%v", stalls), func(t *testing.T) {
			c := newCluster(t, "db1", "db2", "mgr")
			c.startAll()
			c.have(c.commit(), c.nodes...)
			old := c.leader()
			f := inject(old.store)
			heal := func() { f.fail(nil) }
			if stalls {
				heal = f.stall()
			} else {
				f.fail(errDisk)
			}
			defer heal()
			old.Propose(core.Command{ID: lastID.Add(1)}, nil)
			rest := c.others(old)
			eventually(t, "another node leads", func() bool {
				return rest[0].Status().State == "leader" || rest[1].Status().State == "leader"
			})
			c.have(c.commit(rest...), rest...)
			if s := old.Status(); s.Disk == "" {
				t.Errorf("the status of the old leader says nothing of its disk: %+v", s)
			}
			if stalls {
				sendsNoSign(t, old, rest[0])
			}
			heal()
			id := c.commit(rest...)
			c.have(id, c.nodes...)
			eventually(t, "the disk is said to work", func() bool { return old.Status().Disk == "" })
			for _, o := range rest {
				o.shutdown()
			}
			rest[0].start()
			c.have(c.commit(old, rest[0]), old, rest[0])
		})
	}
}

// sendsNoSign checks that nothing of a leader's goes out that would be taken for its heartbeat.
func sendsNoSign(t *testing.T, from, to *member) {
	t.Helper()
	to.forget()
	from.Send(to.name, core.Ack{Term: 1})
	from.Send(to.name, core.Confirm{Term: 1})
	eventually(t, "what was sent later arrives", func() bool {
		from.Send(to.name, core.Report{Incarnation: 1})
		return slices.ContainsFunc(to.received(), func(r core.Received) bool { _, ok := r.Msg.(core.Report); return ok && r.From == from.name })
	})
	for _, r := range to.received() {
		if _, leads := officeOf(r.Msg); leads && r.From == from.name {
			t.Errorf("a leader whose disk stands still has sent %+v", r.Msg)
		}
	}
}

// A node whose disk stands still can be shut down once it moves again, and one whose disk fails at once.
func TestShutdownWithAFailingDisk(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.have(c.commit(), c.nodes...)
	l := c.leader()
	o := c.others(l)[0]
	f := inject(o.store)
	f.fail(errDisk)
	l.shutdown() // and the next leader's term can not be written
	eventually(t, "the failure is seen", func() bool { return o.Status().Disk != "" })
	ended := make(chan struct{})
	go func() { o.shutdown(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the node does not end")
	}
}

func TestAllocateSaysThatThereIsNoRoom(t *testing.T) {
	dir := smallDisk(t, 1)
	if err := allocate(filepath.Join(dir, "f"), 8<<20); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("allocated 8 MiB of 1 with %v, want %v", err, unix.ENOSPC)
	}
}

func TestAllocateKeepsTheContents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(path, []byte("kept"), 0o600))
	must(t, allocate(path, 1<<20))
	b, err := os.ReadFile(path)
	must(t, err)
	if string(b) != "kept" {
		t.Errorf("the file holds %q", b)
	}
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if st.Blocks*512 < 1<<20 {
		t.Errorf("%d bytes are allocated", st.Blocks*512)
	}
}

// Asked for a proof of its disk, a leader whose disk stands still has none, and lets another lead, without an entry that
// could not be committed. A disk that refuses has answered.
func TestALeaderProvesItsDisk(t *testing.T) {
	c := newCluster(t, "db1", "db2", "mgr")
	c.startAll()
	c.have(c.commit(), c.nodes...)
	old := c.leader()
	must(t, old.ProveDisk(t.Context()))
	f := inject(old.store)
	f.fail(errDisk)
	must(t, old.ProveDisk(t.Context()))
	f.fail(nil)
	heal := f.stall()
	defer heal()
	for range 2 {
		if err := old.ProveDisk(t.Context()); !errors.Is(err, ErrDiskStandsStill) {
			t.Errorf("of a disk that stands still the leader says %v", err)
		}
	}
	rest := c.others(old)
	eventually(t, "another node leads", func() bool {
		return rest[0].Status().State == "leader" || rest[1].Status().State == "leader"
	})
	for _, n := range rest {
		must(t, n.ProveDisk(t.Context()))
	}
	heal()
	eventually(t, "the disk works again", func() bool { return old.ProveDisk(t.Context()) == nil })
}
