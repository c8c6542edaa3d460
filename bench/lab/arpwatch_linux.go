package lab

import (
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// arpWatch records the ARP frames on the bridge.
type arpWatch struct {
	frameWatch
	nodes map[string]string // by hardware address
	watch []netip.Addr
	note  func(Event)

	frames []ARPFrame // the lock of frameWatch guards them
}

func watchARP(sw *Namespace, hosts []*Host, vips []netip.Prefix, note func(Event)) (*arpWatch, error) {
	w := &arpWatch{nodes: nodesByMAC(hosts), watch: addressesOf(vips), note: note}
	filter, err := arpWatchFilter()
	if err != nil {
		return nil, err
	}
	if err := w.start(sw, "ARP frames", unix.ETH_P_ARP, filter, w.take); err != nil {
		return nil, err
	}
	return w, nil
}

// arpWatchFilter keeps out what probers ask and are told, a thousand frames a second.
func arpWatchFilter() (*unix.SockFprog, error) {
	pool, mask := word(hostAddr4(hostAsker)), ^uint32(askers-1)
	return assemble(
		bpf.LoadAbsolute{Off: etherLen + 14, Size: 4}, // sender
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: pool, SkipTrue: 4},
		bpf.LoadAbsolute{Off: etherLen + 24, Size: 4}, // target
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: pool, SkipTrue: 1},
		bpf.RetConstant{Val: 0xffff},
		bpf.RetConstant{Val: 0},
	)
}

func (w *arpWatch) take(frame []byte, at time.Time) {
	f, err := parseARP(frame)
	if err != nil {
		return
	}
	f.Time = at
	f.Node = w.nodes[f.Source.String()]
	w.mu.Lock()
	w.frames = append(w.frames, f)
	w.mu.Unlock()
	if f.Gratuitous() && slices.Contains(w.watch, f.SenderIP) {
		w.note(Event{Time: f.Time, Source: SourceARP, Node: f.Node, What: WhatAnnounced, Detail: f.SenderIP.String() + " " + arpForm(f)})
	}
}

func arpForm(f ARPFrame) string {
	if f.Reply {
		return "reply"
	}
	return "request"
}

func (w *arpWatch) snapshot() ([]ARPFrame, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.frames), w.err
}
