package netio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// From include/uapi/linux/inet_diag.h and include/net/tcp_states.h.
const (
	diagRequestLen = 56 // struct inet_diag_req_v2
	diagMessageLen = 72 // struct inet_diag_msg
	diagStateAt    = 1
	diagIDAt       = 8 // of struct inet_diag_sockid in a request
	diagIDLen      = 48
	diagAnswerIDAt = 4
	diagInodeAt    = 68

	tcpEstablished = 1
	tcpSynRecv     = 3
	tcpFinWait1    = 4
	tcpCloseWait   = 8
	liveStates     = 1<<tcpEstablished | 1<<tcpSynRecv | 1<<tcpCloseWait
	// unheardStates are those of connections that this side has closed, and whose clients have not acknowledged that.
	unheardStates = 1 << tcpFinWait1
)

// connection is a TCP connection of this node, as sock_diag(7) tells it.
type connection struct {
	local, remote netip.AddrPort
	family        byte
	state         byte
	id            [diagIDLen]byte // with the kernel's cookie, which no other socket has
	inode         uint32          // 0 unless a program has it
}

// diagRequest returns the body of a SOCK_DIAG_BY_FAMILY or SOCK_DESTROY message.
func diagRequest(family byte, states uint32, id [diagIDLen]byte) []byte {
	b := make([]byte, diagRequestLen)
	b[0], b[1] = family, protoTCP
	binary.NativeEndian.PutUint32(b[4:], states)
	copy(b[diagIDAt:], id[:])
	return b
}

// parseConnection reads one answer to a dump. An IPv4 connection of a socket that takes both families appears as IPv4.
func parseConnection(b []byte) (connection, error) {
	if len(b) < diagMessageLen {
		return connection{}, fmt.Errorf("%w: a socket's description of %d bytes", errShortMessage, len(b))
	}
	c := connection{family: b[0], state: b[diagStateAt], id: [diagIDLen]byte(b[diagAnswerIDAt:]), inode: nativeUint32(b[diagInodeAt:])}
	read := func(port, addr int) (netip.AddrPort, error) {
		p := binary.BigEndian.Uint16(c.id[port:])
		switch c.family {
		case unix.AF_INET:
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(c.id[addr:])), p), nil
		case unix.AF_INET6:
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(c.id[addr:])).Unmap(), p), nil
		}
		return netip.AddrPort{}, fmt.Errorf("a socket of family %d", c.family)
	}
	var err error
	if c.local, err = read(0, 4); err == nil {
		c.remote, err = read(2, 20)
	}
	return c, err
}

// connections lists the TCP connections in one of the states whose local address is one of ips, all if ips is nil.
func connections(diag *netlink.Conn, states uint32, ips map[netip.Addr]bool) ([]connection, error) {
	var found []connection
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		msgs, err := diag.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
			Data:   diagRequest(family, states, [diagIDLen]byte{}),
		})
		if err != nil {
			return nil, fmt.Errorf("list the TCP connections: %w", classify(err))
		}
		for _, m := range msgs {
			c, err := parseConnection(m.Data)
			if err != nil {
				return nil, fmt.Errorf("list the TCP connections: %w", err)
			}
			if ips == nil || ips[c.local.Addr()] {
				found = append(found, c)
			}
		}
	}
	return found, nil
}

// destroy ends a connection on this node's side: its program sees ECONNABORTED. One that has ended meanwhile is no error.
func destroy(diag *netlink.Conn, c connection) error {
	_, err := diag.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DESTROY, Flags: netlink.Request | netlink.Acknowledge},
		Data:   diagRequest(c.family, 0, c.id),
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return classify(err)
}

// ErrNoDestroy means that the kernel ends no connection on a program's behalf: it was built without CONFIG_INET_DIAG_DESTROY.
var ErrNoDestroy = errors.New("the kernel has no SOCK_DESTROY (CONFIG_INET_DIAG_DESTROY)")

// CheckDestroy tries on a connection of its own over loopback whether the kernel can end the connections that are left when an
// address has moved. The error is ErrNoDestroy if it can not, and another one if that could not be found out.
func CheckDestroy() error {
	const doing = "try whether the kernel ends connections"
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer ln.Close()
	conn, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer conn.Close()
	diag, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return fmt.Errorf("%s: open a netlink socket: %w", doing, classify(err))
	}
	defer diag.Close()
	own := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	found, err := connections(diag, liveStates, map[netip.Addr]bool{own.Addr(): true})
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	for _, c := range found {
		if c.local != own {
			continue
		}
		if err := destroy(diag, c); err != nil {
			return fmt.Errorf("%s: %w", doing, destroyError(err))
		}
		return nil
	}
	return fmt.Errorf("%s: sock_diag does not list a connection from %v that was just made", doing, own)
}

// destroyError names a kernel that can not, which no second attempt would change.
func destroyError(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: %w", ErrNoDestroy, err)
	}
	return err
}

// nudge appends a frame with a bare acknowledgement from an address to its client, at sequence numbers that mean nothing.
// The client's kernel answers with its own (RFC 9293, 3.10.7.4, and RFC 5961, 5), which goes to whoever has the address
// now; that one knows no such connection and resets it, at the very number that the client expects.
func nudge(b []byte, c connection, own, hop MAC) []byte {
	src, dst := c.local.Addr(), c.remote.Addr()
	t := bareACK(c.local, c.remote)
	start := len(b)
	if src.Is6() {
		b = appendHeader(b, hop, own, ethernet.EtherTypeIPv6)
		b = append(b, ipv6VersionClass, 0, 0, 0, 0, tcpLen, protoTCP, 64)
		b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
		return append(b, t[:]...)
	}
	b = appendHeader(b, hop, own, ethernet.EtherTypeIPv4)
	h := [ipv4Len]byte{0x45, 0, 0, ipv4Len + tcpLen, 0, 0, 0x40, 0, 64, protoTCP}
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], ^fold(sumOf(0, h[:])))
	return pad(append(append(b, h[:]...), t[:]...), start)
}

// hops tells to which hardware address what is for a client goes. It only knows what the kernel does: whoever has talked
// with a client lately, does.
type hops struct {
	conn  *rtnetlink.Conn
	index uint32
	macs  map[netip.Addr]MAC
}

func newHops(index uint32) (*hops, error) {
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", classify(err))
	}
	h := &hops{conn: conn, index: index, macs: map[netip.Addr]MAC{}}
	all, err := conn.Neigh.List()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("list the neighbours: %w", classify(err)), conn.Close())
	}
	for _, n := range all {
		if n.Index != index || n.Attributes == nil || len(n.Attributes.LLAddress) != len(MAC{}) {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.Attributes.Address); ok {
			h.macs[ip.Unmap()] = MAC(n.Attributes.LLAddress)
		}
	}
	return h, nil
}

func (h *hops) close() error { return h.conn.Close() }

// to returns the next hop's hardware address, and whether it is known.
func (h *hops) to(ip netip.Addr) (MAC, bool) {
	if mac, ok := h.macs[ip]; ok {
		return mac, true
	}
	family := uint8(unix.AF_INET)
	if ip.Is6() {
		family = unix.AF_INET6
	}
	routes, err := h.conn.Route.Get(&rtnetlink.RouteMessage{Family: family, DstLength: uint8(ip.BitLen()),
		Attributes: rtnetlink.RouteAttributes{Dst: net.IP(ip.AsSlice())}})
	if err != nil || len(routes) != 1 || routes[0].Attributes.OutIface != h.index {
		return MAC{}, false
	}
	gateway, ok := netip.AddrFromSlice(routes[0].Attributes.Gateway)
	if !ok {
		return MAC{}, false
	}
	mac, ok := h.macs[gateway.Unmap()]
	if ok {
		h.macs[ip] = mac
	}
	return mac, ok
}

// dismiss has every connection to the addresses end: on the client's side by a nudge, on this one at once. It comes after
// the announcement of the next owner, so who is reset finds that one. A client whose next hop the kernel does not know has
// not been heard for long; it notices when it sends. Where the kernel can not end connections, left takes them.
//
// Some connections this side has ended itself when the address was given up already, as a server that dies does: the
// clients were not told, for the fence lets nothing out. What is left here of those is the kernel's, which lets it go.
func (f *forwarder) dismiss() error {
	diag, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return fmt.Errorf("open a netlink socket: %w", classify(err))
	}
	defer diag.Close()
	found, err := connections(diag, liveStates|unheardStates, f.ips)
	// A Bind ends the forwarder before it begins: as long as that has not happened, all that was found is old.
	if err != nil || len(found) == 0 || f.ctx.Err() != nil {
		return err
	}
	hop, err := newHops(f.index)
	if err != nil {
		return err
	}
	defer hop.close()
	var buf []byte
	for _, c := range found {
		mac, known := hop.to(c.remote.Addr())
		if !known {
			continue
		}
		buf = nudge(buf[:0], c, f.own, mac)
		if _, err := f.conn.WriteTo(buf, &packet.Addr{HardwareAddr: mac[:]}); err == nil {
			f.nudged++
		}
	}
	found = slices.DeleteFunc(found, func(c connection) bool { return c.state == tcpFinWait1 })
	var errs []error
	for i, c := range found {
		err := ErrNoDestroy
		if !f.noDestroy {
			err = destroyError(destroy(diag, c))
		}
		switch {
		case err == nil:
			f.ended++
			continue
		case errors.Is(err, ErrNoDestroy) && f.left != nil:
			f.left(Leftover{Group: f.group, conns: found[i:]})
			return errors.Join(errs...)
		}
		errs = append(errs, fmt.Errorf("end the connection of %v: %w", c.remote, err))
		if errors.Is(err, ErrNoDestroy) {
			break
		}
	}
	return errors.Join(errs...)
}
