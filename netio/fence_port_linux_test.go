package netio

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// visitor reaches the node's servers from the other end of the wire.
type visitor struct {
	tb testing.TB
	w  *wire
}

// serveTCP accepts connections at any address of the node and sends back what it gets.
func serveTCP(tb testing.TB) (port uint16) {
	tb.Helper()
	serve := func(network, address string) *net.TCPAddr {
		l, err := net.Listen(network, address)
		must(tb, err)
		tb.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { io.Copy(c, c); c.Close() }()
			}
		}()
		return l.Addr().(*net.TCPAddr)
	}
	port = uint16(serve("tcp4", "0.0.0.0:0").Port)
	serve("tcp6", fmt.Sprintf("[::]:%d", port))
	return port
}

// dial connects from an address of the visitor's.
func (v *visitor) dial(from, to netip.Addr, port uint16, wait time.Duration) (c net.Conn, err error) {
	d := net.Dialer{Timeout: wait, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
	err = v.w.inPeer(func() (err error) {
		c, err = d.Dial("tcp", netip.AddrPortFrom(to, port).String())
		return err
	})
	return c, err
}

func (v *visitor) reaches(from, to netip.Addr, port uint16) {
	v.tb.Helper()
	c, err := v.dial(from, to, port, 10*time.Second)
	if err != nil {
		v.tb.Errorf("%v does not reach %v, port %d: %v", from, to, port, err)
		return
	}
	c.Close()
}

// shut tests that somebody gets no answer. That another port is reached shows that it was not for another reason.
func (v *visitor) shut(from, to netip.Addr, port uint16) {
	v.tb.Helper()
	if c, err := v.dial(from, to, port, 200*time.Millisecond); err == nil {
		c.Close()
		v.tb.Errorf("%v reaches %v, port %d", from, to, port)
	}
}

func TestPortsAreClosedToAllButAFewWithoutALease(t *testing.T) {
	w := newWire(t)
	for _, s := range []string{"10.77.0.1/24", "fd77::1/64", "10.77.0.9/32", "fd77::9/128"} {
		must(t, addByHand(w.name, netip.MustParsePrefix(s)))
	}
	ip := netip.MustParseAddr
	client, member, guest, client6, member6 := ip("10.77.0.2"), ip("10.77.0.3"), ip("10.77.0.130"), ip("fd77::2"), ip("fd77::3")
	for _, s := range []string{"10.77.0.2/24", "10.77.0.3/24", "10.77.0.130/24", "fd77::2/64", "fd77::3/64"} {
		w.giveToPeer(s)
	}
	must(t, setUp("lo", true))
	v := &visitor{t, w}
	port, other := serveTCP(t), serveTCP(t)
	f := newFence(t, fenced...)
	v.reaches(client, own4, port)
	must(t, f.SetPorts(&PortFence{Ports: []uint16{port}, Lease: fence4,
		Permit: []netip.Prefix{netip.MustParsePrefix("10.77.0.3/32"), netip.MustParsePrefix("10.77.0.128/25"), netip.MustParsePrefix("fd77::3/128")}}))
	must(t, f.Check())
	nft(t, "list", "table", "inet", FenceTable)

	closed := func() {
		t.Helper()
		v.shut(client, own4, port)
		v.shut(client6, own6, port)
		v.reaches(client, own4, other)
		v.reaches(client6, own6, other)
		v.reaches(member, own4, port)
		v.reaches(guest, own4, port)
		v.reaches(member6, own6, port)
		local, err := net.DialTimeout("tcp", netip.AddrPortFrom(own4, port).String(), 10*time.Second)
		must(t, err)
		local.Close()
	}
	closed()
	must(t, f.Arm(1, long, nil))
	must(t, f.Open([]netip.Addr{fence6}, 1))
	closed() // by the lease of the other address
	v.reaches(client6, fence6, port)
	must(t, f.Open([]netip.Addr{fence4}, 1))
	v.reaches(client, own4, port)
	v.reaches(client6, own6, port)
	v.reaches(client, fence4, port)

	talk, err := v.dial(client, own4, port, 10*time.Second)
	must(t, err)
	defer talk.Close()
	echo := func(wait time.Duration) error {
		must(t, talk.SetDeadline(time.Now().Add(wait)))
		if _, err := talk.Write([]byte("x")); err != nil {
			return err
		}
		_, err := talk.Read(make([]byte, 1))
		return err
	}
	must(t, echo(10*time.Second))
	must(t, f.Close(fenced))
	if echo(200*time.Millisecond) == nil {
		t.Error("a connection from before goes on")
	}
	closed()
	must(t, f.SetPorts(nil))
	v.reaches(client, own4, port)
	must(t, f.Check())
}

// Nobody renews the lease: the port closes with it.
func TestPortsCloseWithTheLease(t *testing.T) {
	w := newWire(t)
	must(t, addByHand(w.name, netip.MustParsePrefix("10.77.0.1/24")))
	w.giveToPeer("10.77.0.2/24")
	v := &visitor{t, w}
	client := netip.MustParseAddr("10.77.0.2")
	port := serveTCP(t)
	f := newFence(t, fenced...)
	must(t, f.SetPorts(&PortFence{Ports: []uint16{port}, Lease: fence4}))
	const ttl = 2 * time.Second
	armed := time.Now()
	must(t, f.Arm(1, ttl, nil))
	must(t, f.Open(fenced, 1))
	v.reaches(client, own4, port)
	poll(t, "the lease is over", func() bool { return time.Since(armed) > ttl })
	v.shut(client, own4, port)
	// Without the address that the lease is of nobody gets in either.
	must(t, f.Arm(2, long, nil))
	must(t, f.Open(fenced, 2))
	v.reaches(client, own4, port)
	must(t, f.SetAddresses([]netip.Addr{fence6}))
	v.shut(client, own4, port)
	if f.SetPorts(&PortFence{Ports: []uint16{0}, Lease: fence4}) == nil || f.SetPorts(&PortFence{Ports: []uint16{1}}) == nil {
		t.Error("port 0, or no address, is taken")
	}
}
