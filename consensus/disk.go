package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

const (
	// dbFile is the database with log, term and vote.
	dbFile = "raft.db"
	// flushAfter is how long after the last append the database gets what is in the journal: once a takeover is over.
	flushAfter = time.Second
	// retryWrite is the first pause before a write of the term is tried again; it doubles up to retryWriteMax.
	retryWrite    = 20 * time.Millisecond
	retryWriteMax = time.Second
)

// disk is the log, the term and the vote on disk, guarded against what disks do. A write that fails is reported, and so is
// one that does not end in time. A log that has failed is opened anew before the next append.
// Nothing that fails here ends the process, for the leases of this node do not depend on its disk.
type disk struct {
	dir     string
	log     *slog.Logger
	open    func() (backend, error)
	patient time.Duration // how long a write may take

	mu     sync.RWMutex // held for writing while back is replaced
	back   backend
	broken bool // back has failed, and is to be opened anew
	uncut  bool // back was opened anew, and may hold entries of an append that failed

	roomMu sync.Mutex
	spent  bool // the reserve is used up

	later *time.Timer // flushes the journal

	failing, stalled atomic.Pointer[trouble]
	unmoved          atomic.Pointer[trouble] // why the journal's entries are not in the database: nobody waits for that
	changed          atomic.Pointer[func()]  // called when trouble began or ended

	hangMu  sync.Mutex
	hanging []*trouble // the writes that do not end; stalled is the first of them

	ends context.Context
	end  context.CancelFunc
}

// openDisk opens the log in dir, which must exist, and takes the room in advance that it will need.
func openDisk(dir string, open func(dir string) (backend, error), patient time.Duration, log *slog.Logger) (*disk, error) {
	if err := refuseFormer(dir); err != nil {
		return nil, err
	}
	d := &disk{dir: dir, log: log, patient: patient}
	d.ends, d.end = context.WithCancel(context.Background())
	d.open = func() (backend, error) { return open(dir) }
	var err error
	if d.back, err = d.open(); err != nil {
		return nil, err
	}
	takeRoom(dir, log)
	d.later = time.AfterFunc(flushAfter, d.flush)
	return d, nil
}

// write does a write to the log and reports what becomes of it.
func (d *disk) write(op operation, f func(backend) error) error {
	return d.observe(op, func() error {
		d.mu.RLock()
		defer d.mu.RUnlock()
		return f(d.back)
	})
}

// keyProof is what is written for a proof; its value is of no use.
const keyProof = "Proof"

// prove writes something, and returns when the disk has answered. One that refuses has answered, too: what a full disk has
// no room for an append may still have.
func (d *disk) prove() {
	_ = d.observe(opProof, func() error {
		d.mu.RLock()
		defer d.mu.RUnlock()
		_ = d.back.SetUint64([]byte(keyProof), 1)
		return nil
	})
}

// StoreLogs implements raft.LogStore. A log that fails is opened anew and tried once more, and again with the room of the
// reserve if the disk is full.
func (d *disk) StoreLogs(ls []*raft.Log) error {
	if len(ls) == 0 {
		return nil
	}
	err := d.insured(func() error { return d.append(ls) })
	d.later.Reset(flushAfter)
	return err
}

// insured tries a write twice, and again with the room of the reserve if the disk is full.
func (d *disk) insured(write func() error) error {
	err := write()
	if err != nil {
		err = write()
	}
	d.roomMu.Lock()
	defer d.roomMu.Unlock()
	switch {
	case errors.Is(err, unix.ENOSPC) && d.giveReserve():
		err = write()
	case err == nil && d.spent:
		d.takeReserve()
	}
	return err
}

// flush gives the log's database what is in its journal, and tries that until it is done.
func (d *disk) flush() {
	if d.ends.Err() != nil {
		return
	}
	err := d.insured(func() error {
		if err := d.mend(); err != nil {
			d.note(&d.unmoved, &trouble{op: opFlush, text: "fails: " + err.Error(), since: time.Now()})
			return err
		}
		if left, _ := read(d, unflushed); !left {
			d.clear(&d.unmoved, opFlush) // an append that found the journal full may have done it
			return nil
		}
		return d.write(opFlush, func(b backend) error {
			if j, ok := b.(*journaled); ok {
				return j.flush()
			}
			return nil
		})
	})
	if err == nil || d.ends.Err() != nil {
		return
	}
	d.mu.Lock()
	d.broken = true
	d.mu.Unlock()
	d.later.Reset(flushAfter)
}

func (d *disk) append(ls []*raft.Log) error {
	if err := d.mend(); err != nil {
		d.note(&d.failing, &trouble{op: opAppend, text: "fails: " + err.Error(), since: time.Now()})
		return err
	}
	err := d.write(opAppend, func(b backend) error {
		if d.uncut { // written under the lock that write holds for reading
			if err := cutOff(b, ls[0].Index); err != nil {
				return err
			}
		}
		return b.StoreLogs(ls)
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = d.broken || err != nil
	d.uncut = d.uncut && err != nil
	return err
}

// unflushed reports whether a log has entries that its database does not have.
func unflushed(b backend) (bool, error) {
	j, ok := b.(*journaled)
	return ok && j.unflushed(), nil
}

// cutOff removes the entries from an index on. Those of an append that failed may be there all the same; nobody was
// told that this node has them.
func cutOff(b backend, from uint64) error {
	last, err := b.LastIndex()
	if err != nil || last < from {
		return err
	}
	return b.DeleteRange(from, last)
}

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// mend opens the log anew if it is broken.
func (d *disk) mend() error {
	d.mu.RLock()
	broken := d.broken
	d.mu.RUnlock()
	if !broken {
		return nil
	}
	return d.reopen()
}

// reopen closes the log and opens it again. Whoever reads it meanwhile waits.
func (d *disk) reopen() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ends.Err() != nil {
		return os.ErrClosed
	}
	d.broken, d.uncut = true, true
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
	failed := false
	err := d.insist(opTerm, func() error {
		if failed {
			// Raft appends nothing until the term is written, so nobody else may ever open the log anew. If it can not be, the write tells.
			_ = d.mend()
		}
		failed = true
		d.mu.RLock()
		defer d.mu.RUnlock()
		return d.back.SetUint64([]byte(keyTerm), t)
	})
	if err != nil {
		runtime.Goexit()
	}
}

// insist does a write until it is done, and reports what becomes of it. It returns an error if the node ends before.
func (d *disk) insist(op operation, f func() error) error {
	pause := retryWrite
	for d.observe(op, f) != nil {
		select {
		case <-d.ends.Done():
			return d.ends.Err()
		case <-time.After(pause):
			pause = min(2*pause, retryWriteMax)
		}
	}
	return nil
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
	d.later.Stop()
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
