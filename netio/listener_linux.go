package netio

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// listener hears on one interface who else claims addresses of one family.
type listener struct {
	conn   *packet.Conn
	ips    []netip.Addr
	set    map[netip.Addr]bool
	probes bool
	read   func(frame []byte, ips map[netip.Addr]bool, probes bool) (sighting, bool)
	buf    []byte
}

const listenBuffer = 2048

// listen opens a listener for the addresses, which are all of one family. With probes it also hears who asks for them.
func listen(l link, ips []netip.Addr, probes bool) (*listener, error) {
	protocol, compile, read := unix.ETH_P_ARP, arpFilter, readARP
	if ips[0].Is6() {
		protocol, compile, read = unix.ETH_P_IPV6, ndpFilter, readNDP
	}
	filter, err := compile(ips, probes)
	if err != nil {
		return nil, err
	}
	conn, err := openPacket(l, protocol, filter)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", l.Name, err)
	}
	h := &listener{conn: conn, ips: ips, set: make(map[netip.Addr]bool, len(ips)), probes: probes, read: read, buf: make([]byte, listenBuffer)}
	for _, ip := range ips {
		h.set[ip] = true
	}
	if err := h.join(); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", l.Name, err), conn.Close())
	}
	return h, nil
}

func openPacket(l link, protocol int, filter []bpf.RawInstruction) (*packet.Conn, error) {
	conn, err := packet.Listen(l.netInterface(), packet.Raw, protocol, &packet.Config{Filter: filter})
	return conn, classify(err)
}

// join lets the interface take the multicast frames of neighbour discovery.
func (h *listener) join() error {
	if !h.ips[0].Is6() {
		return nil
	}
	groups := []netip.Addr{allNodes}
	if h.probes {
		for _, ip := range h.ips {
			groups = append(groups, solicitedNode(ip))
		}
	}
	for _, g := range groups {
		if err := h.conn.JoinGroup(multicastMAC(g).HardwareAddr()); err != nil {
			return classify(err)
		}
	}
	return nil
}

// next waits for a claim. That the link goes down does not end it.
func (h *listener) next() (sighting, error) {
	for {
		n, _, err := h.conn.ReadFrom(h.buf)
		if errors.Is(err, unix.ENETDOWN) { // told once; frames come again when the link does
			continue
		}
		if err != nil {
			return sighting{}, err
		}
		if s, ok := h.read(h.buf[:n], h.set, h.probes); ok {
			return s, nil
		}
	}
}

// close ends a waiting next with an error.
func (h *listener) close() error { return h.conn.Close() }

// hearing is what a listener has to say: a claim, or why it can not listen any more.
type hearing struct {
	sighting
	err error
}

// pass hands on what the listener hears, and at the end its error, until done is closed.
func (h *listener) pass(to chan<- hearing, done <-chan struct{}) {
	for {
		s, err := h.next()
		select {
		case to <- hearing{s, err}:
		case <-done:
			return
		}
		if err != nil {
			return
		}
	}
}

// byFamily splits addresses, because each family has its own listener.
func byFamily(ps []netip.Prefix) (sets [][]netip.Addr) {
	var v4, v6 []netip.Addr
	for _, p := range ps {
		if p.Addr().Is4() {
			v4 = append(v4, p.Addr())
		} else {
			v6 = append(v6, p.Addr())
		}
	}
	for _, ips := range [][]netip.Addr{v4, v6} {
		if len(ips) > 0 {
			sets = append(sets, ips)
		}
	}
	return sets
}
