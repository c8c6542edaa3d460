package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

// Hand is the laboratory's own hand on the first VIP: it takes the address from nodes and gives it to them. What that needs is open
// and built beforehand, so that a move costs three system calls and what the kernel does for them. It must not be used by
// several goroutines at once.
type Hand struct {
	vip   netip.Addr
	grips map[string]*grip
}

// grip is the hand on one node.
type grip struct {
	conn  *rtnetlink.Conn
	addr  rtnetlink.AddressMessage
	sock  int // a packet socket in the node's namespace that receives nothing
	to    unix.SockaddrLinklayer
	frame []byte
}

// OpenHand opens a hand on all nodes that have a server. The caller closes it.
func (l *Lab) OpenHand() (*Hand, error) {
	h := &Hand{vip: l.VIP(), grips: map[string]*grip{}}
	for _, n := range l.Servers() {
		g, err := n.grip(h.vip)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("prepare to move %v to and from %s: %w", h.vip, n.Name, err), h.Close())
		}
		h.grips[n.Name] = g
	}
	return h, nil
}

func (h *Host) grip(vip netip.Addr) (*grip, error) {
	index, err := linkIndex(h.NS, Interface)
	if err != nil {
		return nil, err
	}
	everybody := [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	g := &grip{
		addr: rtnetlink.AddressMessage{Family: unix.AF_INET, PrefixLength: 32, Index: uint32(index),
			Attributes: &rtnetlink.AddressAttributes{Address: vip.AsSlice(), Local: vip.AsSlice()}},
		to:    unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_ARP), Ifindex: index},
		frame: questioner{mac: [6]byte(h.MAC)}.arp(1, everybody, vip, [6]byte{}, vip),
	}
	if g.conn, err = h.NS.rtnetlink(); err != nil {
		return nil, err
	}
	err = h.NS.Do(func() (err error) {
		const none = 0 // no protocol: it hears nothing
		g.sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, none)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a packet socket: %w", err), g.conn.Close())
	}
	return g, nil
}

// Take removes the address from a node, which must have it.
func (h *Hand) Take(node string) error {
	g := h.grips[node]
	if err := g.conn.Address.Delete(&g.addr); err != nil {
		return fmt.Errorf("take %v from %s: %w", h.vip, node, err)
	}
	return nil
}

// Give binds the address on a node, which must not have it, and announces it there.
func (h *Hand) Give(node string) error {
	g := h.grips[node]
	if err := g.conn.Address.New(&g.addr); err != nil {
		return fmt.Errorf("give %v to %s: %w", h.vip, node, err)
	}
	return h.Announce(node)
}

// Announce sends one gratuitous ARP request from a node.
func (h *Hand) Announce(node string) error {
	g := h.grips[node]
	if err := unix.Sendto(g.sock, g.frame, 0, &g.to); err != nil {
		return fmt.Errorf("announce %v from %s: %w", h.vip, node, err)
	}
	return nil
}

// Close lets go. Addresses stay where they are.
func (h *Hand) Close() error {
	var errs []error
	for _, g := range h.grips {
		errs = append(errs, g.conn.Close(), unix.Close(g.sock))
	}
	return errors.Join(errs...)
}
