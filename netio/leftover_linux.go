package netio

import (
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-ha/remora/core"
)

// Connection is a TCP connection between a client and an address and port of this node.
type Connection struct{ Client, Server netip.AddrPort }

// Leftover are connections to the addresses of a group, which another node has now, that this node's kernel can not end.
// Their clients have been made to talk to the next owner, which resets them; the programs here do not know.
type Leftover struct {
	Group core.GroupName
	conns []connection
}

// Connections lists all of them.
func (l Leftover) Connections() []Connection {
	all := make([]Connection, len(l.conns))
	for i, c := range l.conns {
		all[i] = Connection{Client: c.remote, Server: c.local}
	}
	return all
}

// Certain asks the kernel which of them can be told by the client's address and port alone: those that are there still, the
// same sockets, that a program has accepted, and whose client has no other connection to this node from the same port, to
// whatever address and port. The error says what the kernel refused.
func (l Leftover) Certain() ([]Connection, error) {
	const doing = "netio: ask which old connections are left"
	diag, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: open a netlink socket: %w", doing, classify(err))
	}
	defer diag.Close()
	now, err := connections(diag, liveStates, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	old := map[[diagIDLen]byte]bool{}
	for _, c := range l.conns {
		old[c.id] = true
	}
	from := map[netip.AddrPort]int{}
	for _, c := range now {
		from[c.remote]++
	}
	var certain []Connection
	for _, c := range now {
		if old[c.id] && c.inode != 0 && from[c.remote] == 1 {
			certain = append(certain, Connection{Client: c.remote, Server: c.local})
		}
	}
	return certain, nil
}
