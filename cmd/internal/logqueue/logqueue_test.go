package logqueue

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// reader is a writer whose reader stands still until goes is closed, and then takes pause for each write.
type reader struct {
	goes  chan struct{}
	pause atomic.Int64 // of time.Duration

	mu   sync.Mutex
	read bytes.Buffer
}

func (r *reader) Write(b []byte) (int, error) {
	<-r.goes
	time.Sleep(time.Duration(r.pause.Load()))
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.read.Write(b)
}

func (r *reader) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.read.String()
}

// inBubble runs a test in virtual time, which also sees to it that no goroutine is left.
func inBubble(t *testing.T, f func(t *testing.T, r *reader, q *Queue)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &reader{goes: make(chan struct{})}
		f(t, r, New(r, func(lines uint64) { fmt.Fprintf(r, "lost %d\n", lines) }))
	})
}

func line(n int) string { return fmt.Sprintf("line %d%s\n", n, strings.Repeat(" ", 100)) }

func write(t *testing.T, q *Queue, n int) {
	t.Helper()
	if _, err := q.Write([]byte(line(n))); err != nil {
		t.Fatal(err)
	}
}

// What a process has said it has said when it goes on, for the next that it does may be to end.
func TestALineIsWrittenWhenWriteReturns(t *testing.T) {
	inBubble(t, func(t *testing.T, r *reader, q *Queue) {
		close(r.goes)
		want := ""
		for n := range 100 {
			write(t, q, n)
			want += line(n)
			if got := r.text(); got != want {
				t.Fatalf("after line %d %d bytes were written, want %d", n, len(got), len(want))
			}
		}
		q.Close()
	})
}

// While the reader stands still one line waits for a millisecond and no other waits at all. What there was room for is written
// in order afterwards, and at the place of what was dropped the log says how much that was.
func TestAReaderThatStandsStillHoldsNobodyUp(t *testing.T) {
	inBubble(t, func(t *testing.T, r *reader, q *Queue) {
		const lines = 2 * room / 100
		begin := time.Now()
		for n := range lines {
			write(t, q, n)
		}
		if took := time.Since(begin); took != handOver {
			t.Errorf("%d lines took %v, want %v", lines, took, handOver)
		}
		time.Sleep(time.Hour)
		begin = time.Now()
		write(t, q, lines)
		if took := time.Since(begin); took != 0 {
			t.Errorf("after an hour a line takes %v", took)
		}
		if _, err := q.Write([]byte("x\n")); err != nil { // there would be room, but not in order
			t.Fatal(err)
		}
		close(r.goes)
		synctest.Wait()
		write(t, q, lines+1)
		q.Close()
		got, n := r.text(), 0
		for ; strings.HasPrefix(got, line(n)); n++ {
			got = got[len(line(n)):]
		}
		if want := fmt.Sprintf("lost %d\n%s", lines+2-n, line(lines+1)); got != want || n < room/120 {
			t.Errorf("after %d lines in order comes %.300q, want %q", n, got, want)
		}
	})
}

// A reader that is slow, and not still, costs those who log a millisecond, until it has caught up.
func TestASlowReaderHoldsNobodyUp(t *testing.T) {
	inBubble(t, func(t *testing.T, r *reader, q *Queue) {
		r.pause.Store(int64(2 * handOver))
		close(r.goes)
		wait := func(n int) time.Duration {
			begin := time.Now()
			write(t, q, n)
			return time.Since(begin)
		}
		took := time.Duration(0)
		for n := range 500 {
			took += wait(n)
			time.Sleep(10 * time.Millisecond)
		}
		if took != handOver {
			t.Errorf("in 5 s those who logged waited for %v, want %v", took, handOver)
		}
		r.pause.Store(int64(handOver / 2))
		time.Sleep(2 * caughtUp)
		if took := wait(500); took != handOver/2 {
			t.Errorf("a reader that has caught up is waited for %v, want %v", took, handOver/2)
		}
		q.Close()
		if n := strings.Count(r.text(), "line"); n != 501 {
			t.Errorf("%d of 501 lines were written", n)
		}
	})
}

func TestCloseWritesWhatWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, r *reader, q *Queue) {
		for n := range 3 {
			write(t, q, n)
		}
		go func() {
			time.Sleep(closeWithin / 2)
			close(r.goes)
		}()
		q.Close()
		q.Close()
		if got, want := r.text(), line(0)+line(1)+line(2); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestCloseDoesNotWaitForEver(t *testing.T) {
	inBubble(t, func(t *testing.T, r *reader, q *Queue) {
		write(t, q, 0)
		begin := time.Now()
		q.Close()
		if took := time.Since(begin); took != closeWithin {
			t.Errorf("Close took %v, want %v", took, closeWithin)
		}
		close(r.goes)
	})
}
