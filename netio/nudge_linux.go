package netio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// Clients returns who has a live TCP connection to one of the group's addresses on this node, by the address and the port
// that they are connected to.
func (b *Binder) Clients(spec core.GroupSpec) (map[netip.AddrPort][]netip.AddrPort, error) {
	diag, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("netio: clients of group %s: open a netlink socket: %w", spec.Name, classify(err))
	}
	defer diag.Close()
	found, err := connections(diag, liveStates, setOf(spec.Addresses))
	if err != nil {
		return nil, fmt.Errorf("netio: clients of group %s: %w", spec.Name, err)
	}
	ends := map[netip.AddrPort][]netip.AddrPort{}
	for _, c := range found {
		ends[c.local] = append(ends[c.local], c.remote)
	}
	return ends, nil
}

// Nudge makes clients of an earlier owner notice that it is gone: each gets a bare acknowledgement from server, which is an
// address of the group and a port, and its kernel's answer to that is reset by this node's, which knows no such connection.
// See nudge. A client without a connection takes no harm, and one that has a new connection goes on with it.
//
// The segments go through the kernel's IP, so its lease bounds them like all else, and it finds the way to each client. Nudge
// ends early with the time of a, or when the group is given up, with [ErrLate].
func (b *Binder) Nudge(ctx context.Context, a core.Announce, server netip.AddrPort, ends []netip.AddrPort) error {
	if err := b.nudgeAll(ctx, b.permit(a.Group, a.Epoch, a.NotAfter), server, ends); err != nil {
		return fmt.Errorf("netio: nudge %d clients of %v, group %s epoch %d: %w", len(ends), server, a.Group, a.Epoch, err)
	}
	return nil
}

func (b *Binder) nudgeAll(ctx context.Context, p permit, server netip.AddrPort, ends []netip.AddrPort) error {
	if err := p.check(); err != nil {
		return err
	}
	fd, err := rawTCP(server.Addr())
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var failed error
	for _, end := range ends {
		if end.Addr().Is4() != server.Addr().Is4() {
			continue
		}
		if err := errors.Join(ctx.Err(), p.check()); err != nil {
			return err
		}
		segment := bareACK(server, end)
		if err := unix.Sendto(fd, segment[:], unix.MSG_DONTWAIT, sockaddr(end.Addr())); err != nil {
			failed = fmt.Errorf("to %v: %w", end, classify(err)) // the others are nudged all the same
		}
	}
	return failed
}

// rawTCP opens a raw socket for TCP segments from an address. It receives none.
func rawTCP(from netip.Addr) (fd int, err error) {
	family := unix.AF_INET
	if from.Is6() {
		family = unix.AF_INET6
	}
	if fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP); err != nil {
		return -1, fmt.Errorf("open a raw socket: %w", classify(err))
	}
	none, err := assemble(nil)
	if err == nil {
		filter := make([]unix.SockFilter, len(none))
		for i, r := range none {
			filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
		}
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(from))
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("set up a raw socket for %v: %w", from, classify(err)), unix.Close(fd))
	}
	return fd, nil
}

func sockaddr(ip netip.Addr) unix.Sockaddr {
	if ip.Is4() {
		return &unix.SockaddrInet4{Addr: ip.As4()}
	}
	return &unix.SockaddrInet6{Addr: ip.As16()}
}

// bareACK returns a segment that acknowledges something, at sequence numbers that mean nothing (RFC 9293, 3.1).
func bareACK(from, to netip.AddrPort) (t [tcpLen]byte) {
	binary.BigEndian.PutUint16(t[0:], from.Port())
	binary.BigEndian.PutUint16(t[2:], to.Port())
	binary.BigEndian.PutUint32(t[4:], rand.Uint32())
	binary.BigEndian.PutUint32(t[8:], rand.Uint32())
	t[12], t[13] = tcpLen/4<<4, 0x10 // ACK
	sum := sumOf(sumOf(tcpLen+protoTCP, from.Addr().AsSlice()), to.Addr().AsSlice())
	binary.BigEndian.PutUint16(t[tcpSumAt:], ^fold(sumOf(sum, t[:])))
	return t
}
