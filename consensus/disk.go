package consensus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"golang.org/x/sys/unix"
)

const (
	// metaSize is what the file of terms and votes is given in advance. It holds two numbers, the list of the log's files
	// and the free pages of the database; a cluster of years stays below a tenth of it.
	metaSize = 1 << 20
	// reserveFile is as large as a file of the log and is given up when the disk is full, so that the log can go on.
	reserveFile = "reserve"
	// retryWrite is the first pause before a write of the term is tried again; it doubles up to retryWriteMax.
	retryWrite    = 20 * time.Millisecond
	retryWriteMax = time.Second
)

// disk is the log, the term and the vote on disk, guarded against what disks do. A write that fails is reported, and so is
// one that does not end in time. A log that could not begin its next file refuses all that follows: it is opened anew.
// Nothing that fails here ends the process, for the leases of this node do not depend on its disk.
type disk struct {
	dir     string
	log     *slog.Logger
	open    func() (backend, error)
	patient time.Duration // how long a write may take

	mu     sync.RWMutex // held for writing while back is replaced
	back   backend
	broken bool // back refuses to append
	spent  bool // the reserve is used up; only StoreLogs looks at it

	failing, stalled atomic.Pointer[trouble]
	changed          atomic.Pointer[func()] // called when trouble began or ended

	ends context.Context
	end  context.CancelFunc
}

// trouble is what is wrong with the disk now.
type trouble struct {
	op    operation
	text  string
	since time.Time
}

// String is for people.
func (t *trouble) String() string {
	return fmt.Sprintf("%s %s (since %s)", t.op, t.text, time.Since(t.since).Round(time.Millisecond))
}

// operation is a kind of write.
type operation string

const (
	opAppend  operation = "appending to the Raft log"
	opShorten operation = "shortening the Raft log"
	opTerm    operation = "writing the term"
	opVote    operation = "writing the vote"
)

// openDisk opens the log in dir, which must exist, and takes the room in advance that it will need.
func openDisk(dir string, patient time.Duration, log *slog.Logger) (*disk, error) {
	d := &disk{dir: dir, log: log, patient: patient}
	d.ends, d.end = context.WithCancel(context.Background())
	d.open = func() (backend, error) { return openWAL(dir, newRaftLogger(log)) }
	var err error
	if d.back, err = d.open(); err != nil {
		return nil, err
	}
	err = errors.Join(allocate(filepath.Join(dir, metadb.FileName), metaSize), allocate(filepath.Join(dir, reserveFile), segmentSize))
	if err != nil {
		log.Warn("no room was taken in advance for the Raft log: a full disk may stop this node from voting", "dir", dir, "error", err)
	}
	return d, nil
}

func openWAL(dir string, l hclog.Logger) (backend, error) {
	meta := &metadb.BoltMetaDB{}
	w, err := wal.Open(dir, wal.WithLogger(l), wal.WithSegmentSize(segmentSize), wal.WithMetaStore(meta))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the Raft log in %s: %w", dir, err), meta.Close())
	}
	return walStore{WAL: w, meta: meta}, nil
}

// allocate has blocks put behind a file up to size, which do not count as its contents. Where the file system can not do
// that, it is not an error.
func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = nil
	}
	if err != nil {
		err = &os.PathError{Op: "fallocate", Path: path, Err: err}
	}
	return errors.Join(err, f.Close())
}

// ails returns what is wrong, nil if nothing is.
func (d *disk) ails() *trouble {
	if t := d.stalled.Load(); t != nil {
		return t
	}
	return d.failing.Load()
}

// write does a write and reports what becomes of it.
func (d *disk) write(op operation, f func(backend) error) error {
	began := time.Now()
	var mu sync.Mutex
	ended := false
	late := time.AfterFunc(d.patient, func() {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			d.note(&d.stalled, &trouble{op: op, text: "does not end", since: began})
		}
	})
	d.mu.RLock()
	err := f(d.back)
	d.mu.RUnlock()
	late.Stop()
	mu.Lock()
	ended = true
	mu.Unlock()
	d.clear(&d.stalled, op)
	if err != nil {
		d.note(&d.failing, &trouble{op: op, text: "fails: " + err.Error(), since: began})
		return fmt.Errorf("%s: %w", op, err)
	}
	d.clear(&d.failing, op)
	return nil
}

// note keeps the first of a row of troubles.
func (d *disk) note(at *atomic.Pointer[trouble], t *trouble) {
	if !at.CompareAndSwap(nil, t) {
		return
	}
	d.log.Error("the disk of state_dir is in trouble: until it works again this node does not lead; what it holds it keeps",
		"dir", d.dir, "trouble", t.String())
	d.tell()
}

// clear notes that a write was done. One that appends shows that the disk works, any other only that it can do the like.
func (d *disk) clear(at *atomic.Pointer[trouble], op operation) {
	old := at.Load()
	if old == nil || op != opAppend && op != old.op || !at.CompareAndSwap(old, nil) {
		return
	}
	d.log.Info("the disk of state_dir works again", "dir", d.dir, "trouble", old.String())
	d.tell()
}

func (d *disk) tell() {
	if f := d.changed.Load(); f != nil {
		(*f)()
	}
}

// StoreLogs implements raft.LogStore. A log that fails is opened anew and tried once more, and again with the room of the
// reserve if the disk is full.
func (d *disk) StoreLogs(ls []*raft.Log) error {
	if len(ls) == 0 {
		return nil
	}
	err := d.append(ls)
	if err != nil {
		err = d.append(ls)
	}
	switch {
	case errors.Is(err, unix.ENOSPC) && d.giveReserve():
		err = d.append(ls)
	case err == nil && d.spent:
		d.takeReserve()
	}
	return err
}

func (d *disk) append(ls []*raft.Log) error {
	mended, err := d.mend()
	if err != nil {
		d.note(&d.failing, &trouble{op: opAppend, text: "fails: " + err.Error(), since: time.Now()})
		return err
	}
	err = d.write(opAppend, func(b backend) error {
		if mended {
			if err := cutOff(b, ls[0].Index); err != nil {
				return err
			}
		}
		return b.StoreLogs(ls)
	})
	if err != nil {
		d.mu.Lock()
		d.broken = true
		d.mu.Unlock()
	}
	return err
}

// cutOff removes the entries from an index on. Those of an append that failed may be there all the same; nobody was told
// of them.
func cutOff(b backend, from uint64) error {
	last, err := b.LastIndex()
	if err != nil || last < from {
		return err
	}
	return b.DeleteRange(from, last)
}

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// giveReserve frees the reserve's blocks. It reports whether there were any.
func (d *disk) giveReserve() bool {
	err := os.Remove(filepath.Join(d.dir, reserveFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("the room that was kept for the Raft log is not freed", "error", err)
	}
	d.spent = true
	return err == nil
}

// takeReserve takes a reserve again if that leaves as much again.
func (d *disk) takeReserve() {
	var st unix.Statfs_t
	if unix.Statfs(d.dir, &st) != nil || st.Bavail*uint64(st.Bsize) < 2*segmentSize {
		return
	}
	d.spent = allocate(filepath.Join(d.dir, reserveFile), segmentSize) != nil
}

// mend opens the log anew if it is broken. It reports whether it did.
func (d *disk) mend() (bool, error) {
	d.mu.RLock()
	broken := d.broken
	d.mu.RUnlock()
	if !broken {
		return false, nil
	}
	return true, d.reopen()
}

// reopen closes the log and opens it again. Whoever reads it meanwhile waits.
func (d *disk) reopen() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ends.Err() != nil {
		return os.ErrClosed
	}
	d.broken = true
	if err := d.back.Close(); err != nil {
		d.log.Warn("close the Raft log to open it anew", "error", err)
	}
	fresh, err := d.open()
	if err != nil {
		d.back = shut{err}
		return fmt.Errorf("open the Raft log anew: %w", err)
	}
	d.back, d.broken = fresh, false
	return nil
}

// setTerm writes the term. The library would end the process if that failed: it is tried until it is done. When the node
// ends before, the caller's goroutine does, as if it had been interrupted there.
func (d *disk) setTerm(t uint64) {
	pause := retryWrite
	for d.write(opTerm, func(b backend) error { return b.SetUint64([]byte(keyTerm), t) }) != nil {
		select {
		case <-d.ends.Done():
			runtime.Goexit()
		case <-time.After(pause):
			pause = min(2*pause, retryWriteMax)
		}
	}
}

// Set implements raft.StableStore.
func (d *disk) Set(key, val []byte) error {
	return d.write(opVote, func(b backend) error { return b.Set(key, val) })
}

// SetUint64 implements raft.StableStore.
func (d *disk) SetUint64(key []byte, v uint64) error {
	return d.write(opVote, func(b backend) error { return b.SetUint64(key, v) })
}

// DeleteRange implements raft.LogStore.
func (d *disk) DeleteRange(first, last uint64) error {
	return d.write(opShorten, func(b backend) error { return b.DeleteRange(first, last) })
}

// FirstIndex implements raft.LogStore.
func (d *disk) FirstIndex() (uint64, error) { return read(d, backend.FirstIndex) }

// LastIndex implements raft.LogStore.
func (d *disk) LastIndex() (uint64, error) { return read(d, backend.LastIndex) }

// GetLog implements raft.LogStore.
func (d *disk) GetLog(i uint64, l *raft.Log) error {
	_, err := read(d, func(b backend) (struct{}, error) { return struct{}{}, b.GetLog(i, l) })
	return err
}

// Get implements raft.StableStore.
func (d *disk) Get(key []byte) ([]byte, error) {
	return read(d, func(b backend) ([]byte, error) { return b.Get(key) })
}

// GetUint64 implements raft.StableStore.
func (d *disk) GetUint64(key []byte) (uint64, error) {
	return read(d, func(b backend) (uint64, error) { return b.GetUint64(key) })
}

// IsMonotonic implements raft.MonotonicLogStore.
func (d *disk) IsMonotonic() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	m, ok := d.back.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

func read[T any](d *disk, f func(backend) (T, error)) (T, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return f(d.back)
}

// interrupt ends the tries of a write that fails.
func (d *disk) interrupt() { d.end() }

// Close closes the log.
func (d *disk) Close() error {
	d.end()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.back.Close()
}

// shut is a log that could not be opened.
type shut struct{ err error }

func (s shut) FirstIndex() (uint64, error)      { return 0, s.err }
func (s shut) LastIndex() (uint64, error)       { return 0, s.err }
func (s shut) GetLog(uint64, *raft.Log) error   { return s.err }
func (s shut) StoreLog(*raft.Log) error         { return s.err }
func (s shut) StoreLogs([]*raft.Log) error      { return s.err }
func (s shut) DeleteRange(uint64, uint64) error { return s.err }
func (s shut) Set([]byte, []byte) error         { return s.err }
func (s shut) Get([]byte) ([]byte, error)       { return nil, s.err }
func (s shut) SetUint64([]byte, uint64) error   { return s.err }
func (s shut) GetUint64([]byte) (uint64, error) { return 0, s.err }
func (s shut) Close() error                     { return nil }
