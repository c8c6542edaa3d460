package netio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tcpListen is a state of include/net/tcp_states.h.
const tcpListen = 10

// HangUp closes a listening TCP socket of a process that has begun to end, as the kernel is about to: it resets who was let
// in and not accepted, and refuses who comes next. The socket is named by the address and port at which it listens and by
// its inode, and another one that listens there by now is left alone. That it is gone already is no error; the error is
// [ErrNoDestroy] if the kernel can not.
//
// A killed server's kernel takes milliseconds to come to its sockets, for it frees the memory first, and goes on letting
// clients in meanwhile. When it resets them at last, the address has been given up, and nothing leaves in its name: they
// would wait for a greeting for ever.
func HangUp(at netip.AddrPort, inode uint64) error {
	err := hangUp(at, inode)
	if err != nil {
		return fmt.Errorf("netio: close the listening socket at %v: %w", at, err)
	}
	return nil
}

func hangUp(at netip.AddrPort, inode uint64) error {
	diag, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return fmt.Errorf("open a netlink socket: %w", classify(err))
	}
	defer diag.Close()
	family := byte(unix.AF_INET)
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	msgs, err := diag.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request},
		Data:   diagRequest(family, 1<<tcpListen, listenerID(at)),
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look it up: %w", classify(err))
	}
	for _, m := range msgs {
		c, err := parseConnection(m.Data)
		if err != nil {
			return fmt.Errorf("look it up: %w", err)
		}
		if c.state != tcpListen || uint64(c.inode) != inode {
			continue
		}
		if err := destroy(diag, c); err != nil {
			return destroyError(err)
		}
	}
	return nil
}

// listenerID names a listening socket in a request, whatever its cookie (INET_DIAG_NOCOOKIE).
func listenerID(at netip.AddrPort) (id [diagIDLen]byte) {
	binary.BigEndian.PutUint16(id[0:], at.Port())
	copy(id[4:], at.Addr().AsSlice())
	for i := diagIDLen - 8; i < diagIDLen; i++ {
		id[i] = 0xff
	}
	return id
}
