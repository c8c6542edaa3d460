package consensus

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// journaled is a log whose last entries are in a journal and in memory until the database has them, see [journal]. Term and vote go to
// the database at once.
type journaled struct {
	backend // the database

	writes turn // held by who changes the log
	file   *journal
	closed bool

	mu      sync.RWMutex
	pending []*raft.Log // what the database does not have, one after the other
}

// openJournaled opens the log of a database and of the journal in dir. Nothing is written for that: a disk may be full.
func openJournaled(dir string, db backend) (*journaled, error) {
	file, entries, err := openJournal(dir)
	if err != nil {
		return nil, fmt.Errorf("open the journal of the Raft log: %w", err)
	}
	j := &journaled{backend: db, writes: make(turn, 1), file: file}
	if err := j.resume(entries); err != nil {
		return nil, errors.Join(err, file.f.Close())
	}
	return j, nil
}

// resume takes the entries that the database does not have.
func (j *journaled) resume(entries []*raft.Log) error {
	last, err := j.backend.LastIndex()
	if err != nil {
		return err
	}
	first, err := j.backend.FirstIndex()
	if err != nil {
		return err
	}
	for i, l := range entries {
		switch {
		case last == 0 || l.Index == last+1:
			j.pending = entries[i:]
			return nil
		case l.Index > last:
			return fmt.Errorf("%w: it begins with entry %d, and the log ends with %d", errJournalDamaged, l.Index, last)
		case l.Index >= first:
			var there raft.Log
			if err := j.backend.GetLog(l.Index, &there); err != nil {
				return err
			}
			if there.Term != l.Term {
				return fmt.Errorf("%w: its entry %d is of term %d, and that of the log of term %d", errJournalDamaged, l.Index, l.Term, there.Term)
			}
		}
	}
	j.file.begin() // the database has all of it
	return nil
}

// StoreLogs implements raft.LogStore.
func (j *journaled) StoreLogs(ls []*raft.Log) error {
	j.writes.Lock()
	defer j.writes.Unlock()
	err := j.file.append(ls)
	if errors.Is(err, errJournalFull) {
		if err = j.flushLocked(); err == nil {
			err = j.file.append(ls)
		}
		if errors.Is(err, errJournalFull) {
			return j.backend.StoreLogs(ls) // more than a whole journal
		}
	}
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range ls {
		kept := *l // the library may use its own again
		j.pending = append(j.pending, &kept)
	}
	return nil
}

// StoreLog implements raft.LogStore.
func (j *journaled) StoreLog(l *raft.Log) error { return j.StoreLogs([]*raft.Log{l}) }

// flush gives the database what it does not have.
func (j *journaled) flush() error {
	j.writes.Lock()
	defer j.writes.Unlock()
	return j.flushLocked()
}

// unflushed reports whether there is something that the database does not have.
func (j *journaled) unflushed() bool {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return len(j.pending) > 0
}

func (j *journaled) flushLocked() error {
	j.mu.RLock()
	pending := j.pending
	j.mu.RUnlock()
	if len(pending) == 0 {
		return nil
	}
	if err := j.backend.StoreLogs(pending); err != nil {
		return err
	}
	j.mu.Lock()
	j.pending = nil
	j.mu.Unlock()
	j.file.begin()
	return nil
}

// DeleteRange implements raft.LogStore. What is deleted at the end must not come back from the journal.
func (j *journaled) DeleteRange(first, last uint64) error {
	j.writes.Lock()
	defer j.writes.Unlock()
	if err := j.flushLocked(); err != nil {
		return err
	}
	end, err := j.backend.LastIndex()
	if err != nil {
		return err
	}
	if last >= end {
		if err := j.file.erase(); err != nil {
			return err
		}
	}
	return j.backend.DeleteRange(first, last)
}

// FirstIndex implements raft.LogStore.
func (j *journaled) FirstIndex() (uint64, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	first, err := j.backend.FirstIndex()
	if err == nil && first == 0 && len(j.pending) > 0 {
		first = j.pending[0].Index
	}
	return first, err
}

// LastIndex implements raft.LogStore.
func (j *journaled) LastIndex() (uint64, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if n := len(j.pending); n > 0 {
		return j.pending[n-1].Index, nil
	}
	return j.backend.LastIndex()
}

// GetLog implements raft.LogStore.
func (j *journaled) GetLog(i uint64, l *raft.Log) error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if len(j.pending) == 0 || i < j.pending[0].Index {
		return j.backend.GetLog(i, l)
	}
	if at := i - j.pending[0].Index; at < uint64(len(j.pending)) {
		*l = *j.pending[at]
		return nil
	}
	return raft.ErrLogNotFound
}

// Close closes journal and database, once. What the database does not have stays in the journal.
func (j *journaled) Close() error {
	j.writes.Lock()
	defer j.writes.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	return errors.Join(j.file.f.Close(), j.backend.Close())
}
