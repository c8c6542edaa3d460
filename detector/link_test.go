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
	l, err := newLink(near, nil, &wg, func() {})
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
