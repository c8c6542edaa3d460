package netio

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Where the kernel ends no connections, those to the addresses that have left are handed on, when the next owner has
// announced itself and not before, and no others. Certain are only those whose client's end says which one is meant.
func TestConnectionsThatTheKernelDoesNotEndAreHandedOn(t *testing.T) {
	w := newWire(t)
	node, client := netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.200")
	must(t, addByHand(w.name, netip.PrefixFrom(node, 24)))
	w.giveToPeer(netip.PrefixFrom(client, 24).String())
	left := make(chan Leftover, 8)
	b := newBinder(t, Config{NoDestroy: true, Left: func(l Leftover) { left <- l }})
	s := spec(w.name, vip4)
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	ln, err := net.Listen("tcp", ":0")
	must(t, err)
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).AddrPort().Port()
	reuse := func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}
	var last net.Conn // the client's end
	dial := func(from uint16, to netip.Addr) Connection {
		t.Helper()
		c := Connection{Client: netip.AddrPortFrom(client, from), Server: netip.AddrPortFrom(to, port)}
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(c.Client), Control: reuse, Timeout: 10 * time.Second}
		must(t, w.inPeer(func() error {
			last, err = d.Dial("tcp", c.Server.String())
			return err
		}))
		end := last
		t.Cleanup(func() { _ = end.Close() })
		return c
	}
	accept := func() net.Conn {
		t.Helper()
		c, err := ln.Accept()
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	dialAccepted := func(from uint16, to netip.Addr) (Connection, net.Conn) { return dial(from, to), accept() }
	vip := vip4.Addr()
	one, _ := dialAccepted(40001, vip)
	two, twosEnd := dialAccepted(40002, vip)
	ends := []net.Conn{last, twosEnd}
	twice, _ := dialAccepted(40003, vip)
	dialAccepted(40003, node) // the same end of the client, of another connection
	dialAccepted(40004, node)
	waiting := dial(40005, vip) // nobody has accepted it yet
	must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
	select {
	case l := <-left:
		t.Fatalf("before the announcement: %v", l.Connections())
	case <-time.After(50 * time.Millisecond):
	}
	w.say(GratuitousARP(ARPReply, macC, vip).AppendFrame(nil))
	var l Leftover
	select {
	case l = <-left:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is handed on after the announcement")
	}
	is := func(what string, got []Connection, want ...Connection) {
		t.Helper()
		slices.SortFunc(got, func(a, b Connection) int { return cmp.Compare(a.Client.Port(), b.Client.Port()) })
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	certain := func() []Connection {
		t.Helper()
		c, err := l.Certain()
		must(t, err)
		return c
	}
	if l.Group != s.Name {
		t.Errorf("of group %q, want %q", l.Group, s.Name)
	}
	is("handed on", l.Connections(), one, two, twice, waiting)
	is("certain", certain(), one, two)
	accept()
	is("certain after all were accepted", certain(), one, two, waiting)
	for _, c := range ends {
		must(t, c.(*net.TCPConn).SetLinger(0)) // at once, and its port may be used again
		must(t, c.Close())
	}
	is("certain after the program has ended one", certain(), one, waiting)
	must(t, b.Bind(t.Context(), bindOf(s, 2)))
	index := w.peerLink().Index
	must(t, w.inPeer(func() error { // or it goes on sending to the next owner
		return rtnl(func(c *rtnetlink.Conn) error {
			_, err := c.Execute(&rtnetlink.NeighMessage{Family: unix.AF_INET, Index: index,
				Attributes: &rtnetlink.NeighAttributes{Address: vip.AsSlice()}}, unix.RTM_DELNEIGH, netlink.Request|netlink.Acknowledge)
			return err
		})
	}))
	dialAccepted(40002, vip)
	is("certain after its client's port was used again", certain(), one, waiting)
}
