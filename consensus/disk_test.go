package consensus

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func entries(first uint64, n, size int) []*raft.Log {
	ls := make([]*raft.Log, n)
	for i := range ls {
		ls[i] = &raft.Log{Index: first + uint64(i), Term: 1, Data: bytes.Repeat([]byte{byte(i)}, size)}
	}
	return ls
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
