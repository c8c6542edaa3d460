package detector

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// lateBy50 excuses the server by our own lateness alone.
func lateBy50(late time.Duration) string {
	if late > 50*time.Millisecond {
		return "we were late"
	}
	return ""
}

// newLinkPair returns a link and the other end of its connection.
func newLinkPair(t *testing.T, network, address string) (*link, net.Conn) {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	near, err := net.Dial(network, listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	l, err := newLink(near, nil, lateBy50, &wg, func() {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = l.Close()
		_ = far.Close()
		wg.Wait()
	})
	return l, far
}

// The deadline of a link is an alarm's and not the socket's. It ends a wait when it is over, holds until it is set anew, and
// one that was moved on or taken away ends nothing.
func TestLinkDeadline(t *testing.T) {
	l, far := newLinkPair(t, "tcp", "127.0.0.1:0")
	buf := make([]byte, 16)
	const short = 20 * time.Millisecond
	start := time.Now()
	_ = l.SetDeadline(start.Add(short))
	for range 2 {
		if _, err := l.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("after the deadline: %v", err)
		}
	}
	if waited := time.Since(start); waited < short {
		t.Errorf("gave up after %v, before the deadline of %v", waited, short)
	}
	for _, next := range []time.Time{time.Now().Add(time.Minute), {}} {
		_ = l.SetDeadline(time.Now().Add(short))
		_ = l.SetDeadline(next)
		l.expire() // as if the alarm had rung before it was set anew
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			time.Sleep(2 * short) // the reader waits meanwhile, longer than the first deadline
			_, _ = far.Write([]byte("late"))
		}()
		n, err := l.Read(buf)
		if err != nil || string(buf[:n]) != "late" {
			t.Errorf("with the deadline moved to %v: %q, %v", next, buf[:n], err)
		}
		<-sent
	}
}

// expired waits until the alarm of a deadline that is over has been dealt with.
func expired(t *testing.T, l *link) {
	t.Helper()
	until(t, 5*time.Second, "the alarm rings", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.missed || l.again != ""
	})
}

// An alarm that comes late says that this process did not run. The server has its time once more then, but not twice.
func TestALateAlarmGivesTheTimeOnceMore(t *testing.T) {
	l, far := newLinkPair(t, "unix", t.TempDir()+"/socket")
	buf := make([]byte, 16)
	_ = l.allow(time.Now().Add(-time.Second), time.Minute)
	expired(t, l)
	if late, again := l.overrun(); late != 0 || again != "we were late" {
		t.Fatalf("a second too late: overrun %v, again %q, want time once more", late, again)
	}
	_, _ = far.Write([]byte("late"))
	if n, err := l.Read(buf); err != nil || string(buf[:n]) != "late" {
		t.Errorf("in the time given once more: %q, %v", buf[:n], err)
	}
	l.mu.Lock()
	l.until = time.Now().Add(-time.Second)
	l.mu.Unlock()
	l.expire()
	if _, err := l.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("late a second time: %v, want the end", err)
	}
	if late, again := l.overrun(); late < time.Second || again == "" {
		t.Errorf("late a second time: overrun %v, again %q", late, again)
	}
	_ = l.allow(time.Now().Add(-time.Second), time.Minute)
	expired(t, l)
	if late, again := l.overrun(); late != 0 || again == "" {
		t.Errorf("the next probe: overrun %v, again %q, want time once more", late, again)
	}
}

// An answer that is there before anybody has looked is one, whatever the clock says; a silence after it is not.
func TestWhatCameBeforeWeLookedIsAnAnswer(t *testing.T) {
	l, far := newLinkPair(t, "unix", t.TempDir()+"/socket")
	buf := make([]byte, 16)
	_ = l.allow(time.Now(), time.Minute)
	l.mu.Lock()
	l.again = "it was late"
	l.mu.Unlock()
	until(t, 5*time.Second, "the deadline is over", func() bool { l.expire(); l.mu.Lock(); defer l.mu.Unlock(); return l.missed })
	_, _ = far.Write([]byte("there"))
	if n, err := l.Read(buf); err != nil || string(buf[:n]) != "there" {
		t.Errorf("an answer that had come: %q, %v", buf[:n], err)
	}
	if _, err := l.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after it: %v, want the end", err)
	}
}

// Each question that follows an answer has its own time, one that follows none has not.
func TestEachQuestionHasItsTime(t *testing.T) {
	l, far := newLinkPair(t, "unix", t.TempDir()+"/socket")
	first := time.Now().Add(time.Minute)
	left := func() time.Time {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.until
	}
	_ = l.allow(first, time.Hour)
	_, _ = l.Write([]byte("question"))
	_, _ = l.Write([]byte("and the rest of it"))
	if !left().Equal(first) {
		t.Errorf("after a question: until %v, want %v", left(), first)
	}
	l.mu.Lock()
	l.again = "it was late"
	l.mu.Unlock()
	_, _ = far.Write([]byte("answer"))
	_, _ = l.Read(make([]byte, 16))
	_, _ = l.Write([]byte("another"))
	if d := time.Until(left()); d < 59*time.Minute {
		t.Errorf("the question after an answer has %v, want an hour", d)
	}
	if _, again := l.overrun(); again != "" {
		t.Errorf("the question after an answer has had its time twice: %s", again)
	}
	_ = l.SetDeadline(first)
	_, _ = far.Write([]byte("answer"))
	_, _ = l.Read(make([]byte, 16))
	_, _ = l.Write([]byte("goodbye"))
	if !left().Equal(first) {
		t.Errorf("a deadline for everything was moved to %v", left())
	}
}

// What a link sends arrives whole, however much it is and whatever carries it, and so does the end.
func TestLinkTransfer(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": t.TempDir() + "/socket"} {
		l, far := newLinkPair(t, network, address)
		_ = l.SetDeadline(time.Now().Add(10 * time.Second))
		const size = 8 << 20 // more than the buffers of a socket hold
		read := make(chan int64)
		go func() {
			n, _ := io.CopyN(io.Discard, far, size)
			read <- n
		}()
		if n, err := l.Write(make([]byte, size)); n != size || err != nil {
			t.Errorf("%s: wrote %d of %d bytes: %v", network, n, size, err)
		}
		if n := <-read; n != size {
			t.Errorf("%s: %d of %d bytes arrived", network, n, size)
		}
		_ = far.Close()
		if n, err := l.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%s: after the end: %d bytes, %v", network, n, err)
		}
	}
}

// Close ends a wait, and a link that is closed can be closed again.
func TestLinkClose(t *testing.T) {
	l, _ := newLinkPair(t, "tcp", "127.0.0.1:0")
	_ = l.SetDeadline(time.Now().Add(time.Minute))
	failed := make(chan error)
	go func() {
		_, err := l.Read(make([]byte, 1))
		failed <- err
	}()
	_ = l.Close()
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read that was under way: %v", err)
	}
	_ = l.Close()
	if err := l.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a deadline after Close: %v", err)
	}
}
