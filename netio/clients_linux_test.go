package netio

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// Connections that were made before an address moved, idle ones too, are ended on this side, and their clients made to
// talk to the next owner, when that has announced itself, and not before. So are clients whose connection this side has
// ended in between, which they could not be told. Others are left alone.
func TestOldConnectionsEndAfterTheAnnouncement(t *testing.T) {
	w := newWire(t)
	const nodeIP, clientIP = "10.77.0.1", "10.77.0.200"
	must(t, addByHand(w.name, netip.MustParsePrefix(nodeIP+"/24")))
	w.giveToPeer(clientIP + "/24")
	b := newBinder(t, Config{})
	s := spec(w.name, vip4)
	must(t, b.Bind(t.Context(), bindOf(s, 1)))
	ln := listenPlain(t, "tcp", ":0") // takes both families, as servers do
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).AddrPort().Port()
	dial := func(to netip.Addr) (client, server net.Conn) {
		t.Helper()
		must(t, w.inPeer(func() (err error) {
			client, err = net.DialTimeout("tcp", netip.AddrPortFrom(to, port).String(), 10*time.Second)
			return err
		}))
		server, err := ln.Accept()
		must(t, err)
		t.Cleanup(func() { _, _ = client.Close(), server.Close() })
		return client, server
	}
	idle := func(what string, c net.Conn) {
		t.Helper()
		must(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		var timeout net.Error
		if _, err := c.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: the connection ended: %v", what, err)
		}
	}
	client, server := dial(vip4.Addr())
	untold, ended := dial(vip4.Addr())
	other, _ := dial(netip.MustParseAddr(nodeIP))
	must(t, b.Unbind(t.Context(), unbindOf(s, 1)))
	idle("before the announcement, the server", server)
	must(t, ended.Close())
	idle("while nobody has the address, the client of what was closed", untold)
	wire := hearAll(t, w.link())
	// The next owner is a third machine, behind the peer.
	w.say(GratuitousARP(ARPReply, macC, vip4.Addr()).AppendFrame(nil))
	// Its neighbours may not heed an announcement within a second of the one before; then the node sends on.
	unheard := map[netip.AddrPort]bool{}
	for _, c := range []net.Conn{client, untold} {
		unheard[c.LocalAddr().(*net.TCPAddr).AddrPort()] = true
	}
	expect(t, wire, "both clients' kernels speak to the address", func(f []byte) bool {
		if to, ok := tcpTo(f); ok && to == vip4.Addr() {
			from := netip.AddrFrom4([4]byte(f[offSrc4:]))
			delete(unheard, netip.AddrPortFrom(from, binary.BigEndian.Uint16(f[headerLen+ipv4Len:])))
		}
		return len(unheard) == 0
	})
	must(t, server.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("the server reads %v, want %v", err, unix.ECONNABORTED)
	}
	idle("a connection to another address", other)
}

// listenPlain listens as servers do, not for Multipath TCP as Go does, which the kernel treats otherwise.
func listenPlain(t *testing.T, network, address string) net.Listener {
	t.Helper()
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	ln, err := plain.Listen(t.Context(), network, address)
	must(t, err)
	return ln
}

// hearAll records all IPv4 frames that arrive at an interface, whomever they are for.
func hearAll(t *testing.T, l link) <-chan []byte {
	t.Helper()
	conn, err := packet.Listen(l.netInterface(), packet.Raw, unix.ETH_P_IP, nil)
	must(t, err)
	must(t, conn.SetPromiscuous(true))
	return record(t, conn)
}

// A client behind a gateway that the kernel does not know the address of is not known either, however often it is asked
// for; one that has the same gateway as another, which is known, is.
func TestHopsAreThoseOfTheKernel(t *testing.T) {
	w := newWire(t)
	must(t, addByHand(w.name, netip.MustParsePrefix("10.88.0.1/24")))
	far := net.IPv4(198, 51, 100, 0)
	must(t, rtnl(func(c *rtnetlink.Conn) error {
		return c.Route.Add(&rtnetlink.RouteMessage{Family: unix.AF_INET, DstLength: 24, Table: unix.RT_TABLE_MAIN,
			Protocol: unix.RTPROT_STATIC, Type: unix.RTN_UNICAST,
			Attributes: rtnetlink.RouteAttributes{Dst: far, Gateway: net.IPv4(10, 88, 0, 254), OutIface: w.link().Index}})
	}))
	h, err := newHops(w.link().Index)
	must(t, err)
	defer h.close()
	client := netip.MustParseAddr("198.51.100.7")
	for range 2 {
		if mac, ok := h.to(client); ok {
			t.Errorf("the next hop is %v, and nobody knows the gateway", mac)
		}
	}
	h.macs[netip.MustParseAddr("10.88.0.254")] = macC
	for range 2 {
		if mac, ok := h.to(client); !ok || mac != macC {
			t.Errorf("the next hop is %v (%v), want the gateway's %v", mac, ok, macC)
		}
	}
}

func TestNudgeIsASegmentThatARouterWouldForward(t *testing.T) {
	for _, c := range []connection{
		{local: netip.AddrPortFrom(ip4, 3306), remote: netip.AddrPortFrom(client4, 40000)},
		{local: netip.AddrPortFrom(ip6, 3306), remote: netip.AddrPortFrom(client6, 40000)},
	} {
		b := nudge(nil, c, macA, macB)
		if to, ok := tcpTo(b); !ok || to != c.remote.Addr() || !forward(b, macB, macC) {
			t.Errorf("%v: to %v, a segment: %v: % x", c.remote, to, ok, b)
		}
	}
}

func FuzzParseConnection(f *testing.F) {
	v4 := make([]byte, diagMessageLen)
	v4[0] = unix.AF_INET
	v6 := make([]byte, diagMessageLen)
	v6[0] = unix.AF_INET6
	f.Add(v4)
	f.Add(v6)
	f.Add([]byte{unix.AF_INET})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseConnection(b)
		if err == nil && (!c.local.IsValid() || !c.remote.IsValid() || c.local.Addr().Is4In6()) {
			t.Errorf("% x is taken for %v to %v", b, c.remote, c.local)
		}
	})
}

// Whether the kernel ends connections is found out on a connection of the daemon's own, and no other one is touched.
func TestWhetherTheKernelEndsConnectionsIsTried(t *testing.T) {
	newWire(t)
	lo, err := net.InterfaceByName("lo")
	must(t, err)
	conn, err := rtnetlink.Dial(nil)
	must(t, err)
	defer conn.Close()
	must(t, conn.Link.Set(&rtnetlink.LinkMessage{Index: uint32(lo.Index), Flags: unix.IFF_UP, Change: unix.IFF_UP}))
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	other, err := net.Dial("tcp4", ln.Addr().String())
	must(t, err)
	defer other.Close()
	if err := CheckDestroy(); err != nil && !errors.Is(err, ErrNoDestroy) {
		t.Fatal(err)
	}
	must(t, other.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	if _, err := other.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("another connection ended: %v", err)
	}
	if err := destroyError(unix.EOPNOTSUPP); !errors.Is(err, ErrNoDestroy) || !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("a kernel that can not: %v", err)
	}
	if err := destroyError(unix.EPERM); errors.Is(err, ErrNoDestroy) {
		t.Errorf("a process that may not: %v", err)
	}
}
