package netio

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Who was let in and not accepted is reset, and who comes next is refused, at once, although the process lives on. A socket
// that is not the one that was meant is left alone, also one that listens there afterwards.
func TestHangUpResetsWhoWasLetIn(t *testing.T) {
	w := newWire(t)
	must(t, addByHand(w.name, netip.MustParsePrefix("10.77.0.1/24")))
	w.giveToPeer("10.77.0.200/24")
	must(t, addByHand(w.name, netip.MustParsePrefix("fd77::1/64")))
	w.giveToPeer("fd77::200/64")
	for _, tt := range []struct{ network, listen, reached string }{
		{"tcp4", "0.0.0.0", "10.77.0.1"},
		{"tcp4", "10.77.0.1", "10.77.0.1"},
		{"tcp6", "::", "fd77::1"},
		{"tcp6", "fd77::1", "fd77::1"},
	} {
		t.Run(tt.listen, func(t *testing.T) {
			ln := listenPlain(t, tt.network, net.JoinHostPort(tt.listen, "0"))
			defer ln.Close()
			at := ln.Addr().(*net.TCPAddr).AddrPort()
			dial := func() (c net.Conn, err error) {
				err = w.inPeer(func() error {
					c, err = net.DialTimeout("tcp", netip.AddrPortFrom(netip.MustParseAddr(tt.reached), at.Port()).String(), 10*time.Second)
					return err
				})
				return c, err
			}
			c, err := dial()
			must(t, err)
			defer c.Close()
			inode := inodeOf(t, ln)
			if h, err := PrepareHangUp(at, inode+1); !errors.Is(err, errNoSuchListener) {
				t.Errorf("another socket was meant: %v, %v", h, err)
			}
			h, err := PrepareHangUp(at, inode)
			must(t, err)
			defer h.Close()
			silent(t, "it is only prepared", 0, c)
			must(t, h.Do())
			must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the client that was let in reads %v, want %v", err, unix.ECONNRESET)
			}
			if _, err := dial(); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("the next client: %v, want %v", err, unix.ECONNREFUSED)
			}
			must(t, ln.Close())
			next := listenPlain(t, tt.network, at.String())
			defer next.Close()
			must(t, h.Do())
			c, err = dial()
			must(t, err)
			must(t, c.Close())
		})
	}
}

func inodeOf(t *testing.T, ln net.Listener) uint64 {
	t.Helper()
	raw, err := ln.(syscall.Conn).SyscallConn()
	must(t, err)
	var st unix.Stat_t
	var failed error
	must(t, raw.Control(func(fd uintptr) { failed = unix.Fstat(int(fd), &st) }))
	must(t, failed)
	return st.Ino
}
