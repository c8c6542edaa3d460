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

// HangUp is prepared to close a listening TCP socket of a process that will end.
//
// A killed server's kernel takes milliseconds to come to its sockets, for it frees the memory first, and goes on letting
// clients in meanwhile. When it resets them at last, the address has been given up, and nothing leaves in its name: they
// would wait for a greeting for ever.
type HangUp struct {
	at     netip.AddrPort
	diag   *netlink.Conn
	socket connection
}

// errNoSuchListener means that a socket is gone, or another one listens in its place.
var errNoSuchListener = errors.New("there is no such socket")

// PrepareHangUp looks a listening TCP socket up by the address and port at which it listens and by its inode. The caller ends
// with Close.
func PrepareHangUp(at netip.AddrPort, inode uint64) (*HangUp, error) {
	h := &HangUp{at: at}
	if err := h.prepare(inode); err != nil {
		h.Close()
		return nil, fmt.Errorf("netio: prepare to close the listening socket at %v: %w", at, err)
	}
	return h, nil
}

func (h *HangUp) prepare(inode uint64) (err error) {
	if h.diag, err = netlink.Dial(unix.NETLINK_SOCK_DIAG, nil); err != nil {
		return fmt.Errorf("open a netlink socket: %w", classify(err))
	}
	family := byte(unix.AF_INET)
	if h.at.Addr().Is6() {
		family = unix.AF_INET6
	}
	msgs, err := h.diag.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request},
		Data:   diagRequest(family, 1<<tcpListen, listenerID(h.at)),
	})
	if err != nil {
		return fmt.Errorf("look it up: %w", classify(err))
	}
	for _, m := range msgs {
		c, err := parseConnection(m.Data)
		if err != nil {
			return fmt.Errorf("look it up: %w", err)
		}
		if c.state == tcpListen && uint64(c.inode) == inode {
			h.socket = c
			return nil
		}
	}
	return errNoSuchListener
}

// Do closes the socket, as the kernel is about to when the process has begun to end: it resets who was let in and not accepted,
// and refuses who comes next. It is one call of the kernel, and never closes another socket that listens there by now. That the
// socket is gone already is no error; the error is [ErrNoDestroy] if the kernel can not.
func (h *HangUp) Do() error {
	if err := destroy(h.diag, h.socket); err != nil {
		return fmt.Errorf("netio: close the listening socket at %v: %w", h.at, destroyError(err))
	}
	return nil
}

// Close frees what the preparation has taken. The socket stays as it is.
func (h *HangUp) Close() {
	if h.diag != nil {
		_ = h.diag.Close() // a netlink socket, to which nothing is owed
	}
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
