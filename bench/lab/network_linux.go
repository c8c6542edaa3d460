package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// bridgeName is the bridge in the switch namespace.
const bridgeName = "br0"

// Host is a namespace with one interface on the bridge: a node, the client or the router.
type Host struct {
	Name string
	NS   *Namespace
	Addr netip.Addr // in 10.77.0.0/24
	MAC  net.HardwareAddr

	number int    // the last byte of Addr
	port   string // the interface's other end, a port of the bridge
	sw     *Namespace
}

// newHost plans a host; nothing exists yet.
func newHost(name string, number int) *Host {
	return &Host{Name: name, Addr: hostAddr4(number), number: number, port: "p-" + name,
		MAC: net.HardwareAddr{0x02, 0x77, 0, 0, 0, byte(number)}}
}

// nsID returns the id by which the switch namespace knows the host's namespace, see ip-netns(8).
func (h *Host) nsID() int { return h.number }

// buildNetwork makes the namespaces, whose names must be recorded already, and joins them.
func buildNetwork(ctx context.Context, prefix string, hosts []*Host, noIPv6 bool) (sw *Namespace, err error) {
	names := []string{prefix + "-switch"}
	for _, h := range hosts {
		names = append(names, prefix+"-"+h.Name)
	}
	if err := run(ctx, "netns add "+strings.Join(names, "\nnetns add ")+"\n", "ip", "-batch", "-"); err != nil {
		return nil, fmt.Errorf("make network namespaces: %w", err)
	}
	if sw, err = openNamespace(names[0]); err != nil {
		return nil, err
	}
	for i, h := range hosts {
		if h.NS, err = openNamespace(names[i+1]); err != nil {
			return sw, err
		}
		h.sw = sw
	}
	if noIPv6 {
		if err := disableIPv6(append([]*Host{{NS: sw}}, hosts...)); err != nil {
			return sw, err
		}
	}
	if err := run(ctx, switchBatch(hosts), "ip", "-n", sw.Name, "-batch", "-"); err != nil {
		return sw, fmt.Errorf("build the bridge: %w", err)
	}
	for _, h := range hosts {
		if err := run(ctx, hostBatch(h, noIPv6), "ip", "-n", h.NS.Name, "-batch", "-"); err != nil {
			return sw, fmt.Errorf("set up the interface of %s: %w", h.Name, err)
		}
	}
	return sw, nil
}

// switchBatch returns the commands that build the bridge. Namespace ids come first: a veth pair across namespaces would
// make the kernel choose ids of its own.
func switchBatch(hosts []*Host) string {
	var b strings.Builder
	fmt.Fprintf(&b, "link add %s type bridge stp_state 0 mcast_snooping 0\nlink set %s up\n", bridgeName, bridgeName)
	for _, h := range hosts {
		fmt.Fprintf(&b, "netns set %s %d\n", h.NS.Name, h.nsID())
		fmt.Fprintf(&b, "link add %s type veth peer name %s address %s netns %s\n", h.port, Interface, h.MAC, h.NS.Name)
		fmt.Fprintf(&b, "link set %s master %s up\n", h.port, bridgeName)
	}
	return b.String()
}

func hostBatch(h *Host, noIPv6 bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "link set lo up\naddress add %s/%d brd + dev %s\n", h.Addr, prefixBits4, Interface)
	if !noIPv6 {
		fmt.Fprintf(&b, "address add %s/%d dev %s nodad\n", hostAddr6(h.number), prefixBits6, Interface)
	}
	fmt.Fprintf(&b, "link set %s up\n", Interface)
	if h.number != hostRouter {
		fmt.Fprintf(&b, "route add default via %s\n", hostAddr4(hostRouter))
	}
	return b.String()
}

func disableIPv6(hosts []*Host) error {
	var errs []error
	for _, h := range hosts {
		errs = append(errs, h.NS.Do(func() error {
			return errors.Join(writeSysctl("net/ipv6/conf/all/disable_ipv6", "1"),
				writeSysctl("net/ipv6/conf/default/disable_ipv6", "1"))
		}))
	}
	return errors.Join(errs...)
}

// SetLink sets the node's own interface up or down, as an administrator would.
func (h *Host) SetLink(up bool) error { return setLink(h.NS, Interface, up) }

// SetCable sets the switch's port of the node up or down: the node's interface loses or regains its carrier.
func (h *Host) SetCable(up bool) error { return setLink(h.sw, h.port, up) }

func setLink(ns *Namespace, name string, up bool) error {
	conn, err := ns.rtnetlink()
	if err != nil {
		return err
	}
	defer conn.Close()
	index, err := linkIndex(ns, name)
	if err != nil {
		return err
	}
	msg := &rtnetlink.LinkMessage{Index: uint32(index), Change: unix.IFF_UP}
	if up {
		msg.Flags = unix.IFF_UP
	}
	if err := conn.Link.Set(msg); err != nil {
		return fmt.Errorf("set link %s in %s up=%v: %w", name, ns.Name, up, err)
	}
	return nil
}

// rtnetlink opens a socket in the namespace.
func (n *Namespace) rtnetlink() (*rtnetlink.Conn, error) {
	conn, err := rtnetlink.Dial(&netlink.Config{NetNS: n.fd})
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink in %s: %w", n.Name, err)
	}
	return conn, nil
}

func linkIndex(ns *Namespace, name string) (int, error) {
	var index int
	err := ns.Do(func() error {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return fmt.Errorf("find interface %s in %s: %w", name, ns.Name, err)
		}
		index = ifi.Index
		return nil
	})
	return index, err
}

// AddInterface gives the node a second interface on the bridge, without an address, and returns its hardware address.
func (n *Node) AddInterface(ctx context.Context, name string) (net.HardwareAddr, error) {
	port := "q-" + n.Name
	mac := net.HardwareAddr{0x02, 0x77, 0, 0, 1, byte(n.number)}
	batch := fmt.Sprintf("link add %s type veth peer name %s address %s netns %s\nlink set %s master %s up\n",
		port, name, mac, n.NS.Name, port, bridgeName)
	if err := run(ctx, batch, "ip", "-n", n.sw.Name, "-batch", "-"); err != nil {
		return nil, fmt.Errorf("add interface %s to %s: %w", name, n.Name, err)
	}
	return mac, setLink(n.NS, name, true)
}
