package netio

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// Clients of a node that is gone, which has said nothing when it went, are made to notice by the next owner. Those with a
// connection to the next owner itself are not disturbed.
func TestNudgedClientsOfADeadOwnerAreReset(t *testing.T) {
	for _, tt := range []struct {
		name, node, client string
		vip                netip.Prefix
	}{
		{"IPv4", "10.77.0.1/24", "10.77.0.200/24", vip4},
		{"IPv6", "fd77::1/64", "fd77::200/64", vip6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWire(t)
			must(t, addByHand(w.name, netip.MustParsePrefix(tt.node)))
			w.giveToPeer(tt.client)
			b := newBinder(t, Config{})
			s := spec(w.name, tt.vip)
			must(t, b.Bind(t.Context(), bindOf(s, 1)))
			ln, err := net.Listen("tcp", netip.AddrPortFrom(tt.vip.Addr(), 0).String())
			must(t, err)
			defer ln.Close()
			server := ln.Addr().(*net.TCPAddr).AddrPort()
			var clients, served []net.Conn
			for range 2 {
				var c net.Conn
				must(t, w.inPeer(func() (err error) {
					c, err = net.DialTimeout("tcp", server.String(), 10*time.Second)
					return err
				}))
				a, err := ln.Accept()
				must(t, err)
				defer c.Close()
				clients, served = append(clients, c), append(served, a)
			}
			all, err := b.Clients(s)
			must(t, err)
			var want []netip.AddrPort
			for _, c := range clients {
				want = append(want, c.LocalAddr().(*net.TCPAddr).AddrPort())
			}
			slices.SortFunc(want, netip.AddrPort.Compare)
			slices.SortFunc(all[server], netip.AddrPort.Compare)
			if len(all) != 1 || !slices.Equal(all[server], want) {
				t.Fatalf("clients %v, want %v at %v", all, want, server)
			}
			vanish(t, served[0])
			a := announceOf(s)
			past := a
			past.NotAfter = core.Instant(1)
			if err := b.Nudge(t.Context(), past, server, all[server]); !errors.Is(err, ErrLate) {
				t.Errorf("a nudge after the lease: %v, want %v", err, ErrLate)
			}
			for i, c := range clients {
				silent(t, "before the nudge", i, c)
			}
			must(t, b.Nudge(t.Context(), a, server, all[server]))
			must(t, clients[0].SetReadDeadline(time.Now().Add(10*time.Second)))
			if _, err := clients[0].Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the client of the dead owner reads %v, want %v", err, unix.ECONNRESET)
			}
			silent(t, "after the nudge", 1, clients[1])
			if _, err := served[1].Write([]byte("x")); err != nil {
				t.Error(err)
			}
			must(t, clients[1].SetReadDeadline(time.Now().Add(10*time.Second)))
			if _, err := clients[1].Read(make([]byte, 1)); err != nil {
				t.Errorf("the connection to the new owner ended: %v", err)
			}
			must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
			if err := b.Nudge(t.Context(), a, server, all[server]); !errors.Is(err, ErrLate) {
				t.Errorf("a nudge after the end of the epoch: %v, want %v", err, ErrLate)
			}
		})
	}
}

// The lease is looked at before each segment: one that ends meanwhile ends the nudging.
func TestNudgeEndsWithTheLease(t *testing.T) {
	w := newWire(t)
	w.giveToPeer("10.77.0.200/24")
	must(t, addByHand(w.name, netip.MustParsePrefix("10.77.0.1/24")))
	var c scripted
	c.at = map[int32]func(){3: c.leap} // after one look before all and one before the first segment
	late := newBinder(t, Config{Clock: c.now})
	s := spec(w.name, vip4)
	must(t, newBinder(t, Config{}).Bind(t.Context(), bindOf(s, 1)))
	heard := w.tap(unix.ETH_P_IP)
	a := announceOf(s)
	end := netip.MustParseAddr("10.77.0.200")
	ends := []netip.AddrPort{netip.AddrPortFrom(end, 1001), netip.AddrPortFrom(end, 1002)}
	if err := late.Nudge(t.Context(), a, netip.AddrPortFrom(vip4.Addr(), 3306), ends); !errors.Is(err, ErrLate) {
		t.Errorf("nudge: %v, want %v", err, ErrLate)
	}
	port := func(f []byte) uint16 { return binary.BigEndian.Uint16(f[headerLen+ipv4Len+2:]) }
	expect(t, heard, "the first segment", func(f []byte) bool {
		to, ok := tcpTo(f)
		if ok && to == end && port(f) == 1002 {
			t.Error("the second segment went out after the lease")
		}
		return ok && to == end && port(f) == 1001
	})
}

// vanish ends a connection on its own side alone, as the death of a machine does.
func vanish(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	must(t, err)
	var failed error
	must(t, raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_REPAIR, 1) }))
	must(t, failed)
	must(t, c.Close())
}

// silent fails the test if a client hears anything.
func silent(t *testing.T, when string, client int, c net.Conn) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	var timeout net.Error
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%s, client %d reads %v", when, client, err)
	}
}
