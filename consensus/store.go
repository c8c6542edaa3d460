package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// The names under which the Raft library keeps its term and its vote.
const (
	keyTerm     = "CurrentTerm"
	keyVoteTerm = "LastVoteTerm"
	keyVoteCand = "LastVoteCand"
)

// keyVote is the one record in which the store keeps the two halves of a vote.
const keyVote = "Vote"

// storeKind names the store in the status.
const storeKind = "bbolt"

// errOldVote is returned when a vote would be cast in a term that is over.
var errOldVote = errors.New("vote in a term that is over")

// backend is what the store needs of the log underneath.
type backend interface {
	raft.LogStore
	raft.StableStore
	Close() error
}

// store keeps Raft's log, term and vote on disk. Over the plain store it does three things: it times every append; it
// writes a vote in one record, which saves one flush of the two that the library would do and leaves no half of a vote
// behind after a crash; and it never lets the term go back. The library handles heartbeats beside its main loop, and
// the two can set the term at the same time: the older one would win, a node could vote twice in it, or confirm it
// after it had voted in its successor.
type store struct {
	log *disk

	// seen is the highest term that this node has begun to move to. It is never less than the library's own.
	seen atomic.Uint64

	mu       turn
	term     uint64 // the term on disk
	voteTerm uint64 // the first half of the vote that is being cast
	vote     vote   // the vote on disk

	appends window
	roster  roster
}

// turn is a lock of one place, for what is held while a disk writes. Who waits for it waits for a channel: unlike a mutex
// that lets virtual time pass.
type turn chan struct{}

func (t turn) Lock()   { t <- struct{}{} }
func (t turn) Unlock() { <-t }

type vote struct {
	term      uint64
	candidate []byte
}

// openStore opens the store in dir, which must exist. A write that takes longer than patient is reported.
func openStore(dir string, open func(dir string) (backend, error), patient time.Duration, log *slog.Logger) (*store, error) {
	d, err := openDisk(dir, open, patient, log)
	if err != nil {
		return nil, err
	}
	s, err := newStore(d)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the Raft state in %s: %w", dir, err), d.Close())
	}
	return s, nil
}

func newStore(log *disk) (*store, error) {
	s := &store{log: log, mu: make(turn, 1)}
	term, err := log.GetUint64([]byte(keyTerm))
	if err != nil {
		return nil, fmt.Errorf("term: %w", err)
	}
	raw, err := log.Get([]byte(keyVote))
	if err != nil {
		return nil, fmt.Errorf("vote: %w", err)
	}
	if len(raw) > 0 && len(raw) < 8 {
		return nil, fmt.Errorf("vote: %d bytes, want 8 or more", len(raw))
	}
	if len(raw) >= 8 {
		s.vote = vote{term: binary.BigEndian.Uint64(raw), candidate: raw[8:]}
	}
	s.term = term
	s.seen.Store(max(term, s.vote.term))
	return s, nil
}

// Term returns the highest term that this node has taken part in or is just moving to.
func (s *store) Term() uint64 { return s.seen.Load() }

// raise makes sure that Term returns at least t from now on.
func (s *store) raise(t uint64) {
	for {
		old := s.seen.Load()
		if old >= t || s.seen.CompareAndSwap(old, t) {
			return
		}
	}
}

func (s *store) FirstIndex() (uint64, error) { return s.log.FirstIndex() }
func (s *store) LastIndex() (uint64, error)  { return s.log.LastIndex() }

// GetLog does not find what was deleted, although the log may still hold it in its last file: a follower that asks for
// it must get the snapshot.
func (s *store) GetLog(i uint64, l *raft.Log) error {
	first, err := s.log.FirstIndex()
	if err != nil {
		return err
	}
	if i < first {
		return raft.ErrLogNotFound
	}
	return s.log.GetLog(i, l)
}

func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *store) StoreLogs(ls []*raft.Log) error {
	s.roster.appends(ls)
	start := time.Now()
	err := s.log.StoreLogs(ls)
	s.appends.add(time.Since(start))
	return err
}

func (s *store) DeleteRange(first, last uint64) error {
	s.roster.unsettle()
	return s.log.DeleteRange(first, last)
}

// IsMonotonic says whether the store refuses gaps, see raft.MonotonicLogStore.
func (s *store) IsMonotonic() bool {
	return s.log.IsMonotonic()
}

func (s *store) Set(key, val []byte) error {
	if string(key) != keyVoteCand {
		return s.log.Set(key, val)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.castVote(s.voteTerm, val)
}

// castVote writes a vote. The caller holds the lock.
func (s *store) castVote(term uint64, candidate []byte) error {
	if term < s.seen.Load() || term < s.vote.term {
		return fmt.Errorf("%w: %d, this node is in %d", errOldVote, term, s.seen.Load())
	}
	if term == s.vote.term && !bytes.Equal(candidate, s.vote.candidate) {
		return fmt.Errorf("second vote in term %d: for %q after %q", term, candidate, s.vote.candidate)
	}
	raw := append(binary.BigEndian.AppendUint64(nil, term), candidate...)
	if err := s.log.Set([]byte(keyVote), raw); err != nil {
		return fmt.Errorf("write the vote of term %d: %w", term, err)
	}
	s.vote = vote{term: term, candidate: bytes.Clone(candidate)}
	return nil
}

func (s *store) Get(key []byte) ([]byte, error) {
	if string(key) != keyVoteCand {
		return s.log.Get(key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.vote.candidate), nil
}

func (s *store) SetUint64(key []byte, v uint64) error {
	switch string(key) {
	case keyTerm:
		return s.setTerm(v)
	case keyVoteTerm:
		s.raise(v)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.voteTerm = v
		return nil
	}
	return s.log.SetUint64(key, v)
}

// setTerm writes the term unless it is on disk already or older than the one there. It returns when it is on disk.
func (s *store) setTerm(t uint64) error {
	s.raise(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t <= s.term {
		return nil
	}
	s.log.setTerm(t)
	s.term = t
	return nil
}

func (s *store) GetUint64(key []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch string(key) {
	case keyTerm:
		return s.term, nil
	case keyVoteTerm:
		return s.vote.term, nil
	}
	return s.log.GetUint64(key)
}

// empty reports whether there is no log at all. A term or a vote alone do not count: no entry can have been committed
// with the help of a node that never stored one.
func (s *store) empty() (bool, error) {
	last, err := s.log.LastIndex()
	return last == 0, err
}

func (s *store) Close() error { return s.log.Close() }

// window keeps the last durations of something.
type window struct {
	mu   sync.Mutex
	took [256]time.Duration
	n    int
}

func (w *window) add(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.took[w.n%len(w.took)] = d
	w.n++
}

// percentiles returns the median and the 99th percentile, zero if nothing was measured yet.
func (w *window) percentiles() (p50, p99 time.Duration) {
	w.mu.Lock()
	sorted := slices.Clone(w.took[:min(w.n, len(w.took))])
	w.mu.Unlock()
	if len(sorted) == 0 {
		return 0, 0
	}
	slices.Sort(sorted)
	return sorted[len(sorted)/2], sorted[len(sorted)*99/100]
}
