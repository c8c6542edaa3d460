package lab

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ndWatch records the announcements of IPv6 addresses on the bridge.
type ndWatch struct {
	frameWatch
	nodes map[string]string // by hardware address
	watch []netip.Addr
	note  func(Event)

	seen []Announcement // the lock of frameWatch guards them
}

func watchND(sw *Namespace, hosts []*Host, vips []netip.Prefix, note func(Event)) (*ndWatch, error) {
	w := &ndWatch{nodes: nodesByMAC(hosts), watch: addressesOf(vips), note: note}
	filter, err := ndWatchFilter()
	if err != nil {
		return nil, err
	}
	if err := w.start(sw, "neighbour discovery", unix.ETH_P_IPV6, filter, w.take); err != nil {
		return nil, err
	}
	return w, nil
}

// ndWatchFilter passes neighbour advertisements to multicast addresses: answers go to who has asked.
func ndWatchFilter() (*unix.SockFprog, error) {
	return assemble(
		bpf.LoadAbsolute{Off: etherLen + 6, Size: 1}, // next header
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protoICMPv6, SkipTrue: 5},
		bpf.LoadAbsolute{Off: etherLen + ipv6Len, Size: 1}, // type
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: ndAdvertisement, SkipTrue: 3},
		bpf.LoadAbsolute{Off: etherLen + 24, Size: 1}, // of the destination
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0xff, SkipTrue: 1},
		bpf.RetConstant{Val: 0xffff},
		bpf.RetConstant{Val: 0},
	)
}

func (w *ndWatch) take(frame []byte, at time.Time) {
	f, err := parseND(frame)
	if err != nil || !f.announces() || !slices.Contains(w.watch, f.target) {
		return
	}
	a := Announcement{Time: at, Node: w.nodes[net.HardwareAddr(f.from[:]).String()], Addr: f.target}
	w.note(Event{Time: at, Source: SourceARP, Node: a.Node, What: WhatAdvertised, Detail: a.Addr.String()})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, a)
}

// snapshot returns the announcements of an address so far.
func (w *ndWatch) snapshot(addr netip.Addr) ([]Announcement, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.seen), func(a Announcement) bool { return a.Addr != addr }), w.err
}
