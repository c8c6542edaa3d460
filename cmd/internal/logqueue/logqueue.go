// Package logqueue keeps those who log from waiting for whoever reads the log.
//
// Standard error is a pipe, a socket or a file. Its reader may stand still, and so may its disk; then a write stands still with
// it. In the daemon that would be the loop which holds the leases and gives them up.
package logqueue

import (
	"io"
	"sync"
	"time"
)

const (
	// room bounds the bytes that wait, some thousand lines. As much again may be with the writer below.
	room = 512 << 10
	// handOver is how long a line may keep the one who wrote it.
	handOver = time.Millisecond
	// caughtUp is how long nothing may have taken longer to write before anybody waits for a line again.
	caughtUp = time.Second
	// closeWithin bounds the wait for a reader that stands still when the process ends.
	closeWithin = time.Second
)

// Queue takes lines and writes them from a goroutine of its own, in the order in which they came. Any goroutine may write.
//
// While the reader keeps up, a line has been written when Write returns: what a process has said is not lost with it, whether it
// ends in order, panics or is killed. Write waits one millisecond for that. Once something has taken longer nobody waits any more,
// until for a second all was written in time. Lines for which there is no room are dropped, and the log says at that place how
// many.
type Queue struct {
	out  io.Writer
	lost func(lines uint64)

	mu    sync.Mutex
	next  *batch    // what waits, nil if nothing does
	since time.Time // since when out has had a batch, zero if it has none
	slow  time.Time // when something was not written in time last

	wake, stop, ended chan struct{}
	closing           sync.Once
}

// batch is lines that are written together, and the number of those after them that were dropped.
type batch struct {
	lines []byte
	lost  uint64
	done  chan struct{} // closed when all is written
}

// New returns a queue before out. When lines were dropped it calls lost with their number, on the goroutine that writes to out,
// so that lost may write there too. The queue's goroutine ends with Close.
func New(out io.Writer, lost func(lines uint64)) *Queue {
	q := &Queue{out: out, lost: lost, wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{})}
	go q.run()
	return q
}

// Write takes a line. It never fails: nobody could be told.
func (q *Queue) Write(line []byte) (int, error) {
	if b, wait := q.add(line); wait {
		q.await(b)
	}
	return len(line), nil
}

// add puts a line behind those that wait, and tells whether it is worth while to wait for it.
func (q *Queue) add(line []byte) (b *batch, wait bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == nil {
		q.next = &batch{done: make(chan struct{})}
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	b = q.next
	if b.lost > 0 || len(b.lines)+len(line) > room {
		b.lost++
		return b, false
	}
	b.lines = append(b.lines, line...)
	now := time.Now()
	stuck := !q.since.IsZero() && now.Sub(q.since) > handOver
	return b, !stuck && now.Sub(q.slow) > caughtUp
}

func (q *Queue) await(b *batch) {
	late := time.NewTimer(handOver)
	defer late.Stop()
	select {
	case <-b.done:
	case <-late.C:
		q.mu.Lock()
		defer q.mu.Unlock()
		q.slow = time.Now()
	}
}

// Close writes what waits and ends the queue; what is written to it afterwards is lost. It returns after a second at the latest,
// whatever the reader does.
func (q *Queue) Close() {
	q.closing.Do(func() { close(q.stop) })
	late := time.NewTimer(closeWithin)
	defer late.Stop()
	select {
	case <-q.ended:
	case <-late.C:
	}
}

func (q *Queue) run() {
	defer close(q.ended)
	for open := true; open; {
		select {
		case <-q.wake:
		case <-q.stop:
			open = false
		}
		q.drain()
	}
}

func (q *Queue) drain() {
	for b := q.take(); b != nil; b = q.take() {
		if len(b.lines) > 0 {
			_, _ = q.out.Write(b.lines)
		}
		if b.lost > 0 {
			q.lost(b.lost)
		}
		close(b.done)
	}
}

// take returns what waits, nil if nothing does. What it returned before is written by then.
func (q *Queue) take() *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if !q.since.IsZero() && now.Sub(q.since) > handOver {
		q.slow = now
	}
	b := q.next
	q.next, q.since = nil, time.Time{}
	if b != nil {
		q.since = now
	}
	return b
}
