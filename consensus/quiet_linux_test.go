package consensus

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// quietPair returns the two ends of a TCP connection as a node's port sets them up.
func quietPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	p := &port{n: &Node{lim: limitsOf(core.Timing{RaftHeartbeat: 100 * time.Millisecond})}}
	dialed, err := net.Dial("tcp", ln.Addr().String())
	must(t, err)
	accepted, err := ln.Accept()
	must(t, err)
	for _, c := range []*net.Conn{&dialed, &accepted} {
		inner := *c
		t.Cleanup(func() { _ = inner.Close() })
		*c, err = p.tune(inner)
		must(t, err)
		if _, ok := (*c).(*quietConn); !ok {
			t.Fatalf("a TCP connection is read and written as %T", *c)
		}
	}
	return dialed, accepted
}

// What does not fit into the kernel's buffers waits for room, and arrives whole and in order; then comes the end.
func TestQuietConnCarriesMoreThanFits(t *testing.T) {
	a, b := quietPair(t)
	sent := make([]byte, 32<<20)
	for i := range sent {
		sent[i] = byte(i ^ i>>11)
	}
	failure := make(chan error, 1)
	go func() {
		n, err := a.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		failure <- errors.Join(err, a.Close())
	}()
	got, err := io.ReadAll(b)
	must(t, err)
	must(t, <-failure)
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes arrived, and they are not the %d sent", len(got), len(sent))
	}
	if n, err := b.Read(nil); n != 0 || err != nil {
		t.Errorf("reading nothing returned %d, %v", n, err)
	}
}

// A deadline ends both kinds of waiting, and one that is taken back lets it go on.
func TestQuietConnKeepsDeadlines(t *testing.T) {
	a, b := quietPair(t)
	must(t, a.SetDeadline(time.Now().Add(20*time.Millisecond)))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading ended with %v", err)
	}
	n, err := a.Write(make([]byte, 64<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("writing %d bytes to nobody ended with %v", n, err)
	}
	must(t, a.SetDeadline(time.Time{}))
	_, err = b.Write([]byte("x"))
	must(t, err)
	if n, err := a.Read(make([]byte, 8)); n != 1 || err != nil {
		t.Errorf("without the deadline %d bytes were read, %v", n, err)
	}
}

// A peer that has reset the connection is an error of both, and so is a connection that this end has closed.
func TestQuietConnTellsOfItsEnd(t *testing.T) {
	a, b := quietPair(t)
	must(t, b.(*quietConn).Conn.(*net.TCPConn).SetLinger(0))
	must(t, b.Close())
	must(t, a.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("reading ended with %v", err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("writing ended with %v", err)
	}
	must(t, a.Close())
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading what is closed ended with %v", err)
	}
}

func TestVotersFollowADeadLeaderOneAfterTheOther(t *testing.T) {
	all := []core.NodeName{"a", "b", "c", "d"}
	for _, leader := range []core.NodeName{"", "a", "b", "d", "x"} {
		taken := map[int]core.NodeName{}
		for _, self := range all {
			if self == leader {
				continue
			}
			rank := rankOf(self, all, leader)
			if other, ok := taken[rank]; ok || rank < 0 || rank >= len(all) {
				t.Errorf("leader %q: %s has place %d, and so has %q", leader, self, rank, other)
			}
			taken[rank] = self
		}
		if taken[0] == "" {
			t.Errorf("leader %q: nobody has the first place", leader)
		}
	}
	if rank := rankOf("x", all, "a"); rank != 0 {
		t.Errorf("who does not vote has place %d", rank)
	}
}
