package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// arpWatch records the ARP frames on the bridge.
type arpWatch struct {
	sock  int
	stop  stopper
	nodes map[string]string // by hardware address
	watch []netip.Addr
	note  func(Event)

	mu     sync.Mutex
	frames []ARPFrame
	err    error
}

// watchARP starts the observer on the bridge itself, so a frame that a fault dropped is not seen, as by everybody else.
func watchARP(sw *Namespace, hosts []*Host, vips []netip.Prefix, note func(Event)) (*arpWatch, error) {
	w := &arpWatch{sock: -1, nodes: map[string]string{}, note: note}
	for _, h := range hosts {
		w.nodes[h.MAC.String()] = h.Name
	}
	for _, v := range vips {
		w.watch = append(w.watch, v.Addr())
	}
	index, err := linkIndex(sw, bridgeName)
	if err != nil {
		return nil, err
	}
	if err := sw.Do(func() error { return w.open(index) }); err != nil {
		return nil, fmt.Errorf("watch ARP frames: %w", err)
	}
	if err := w.stop.open(); err != nil {
		unix.Close(w.sock)
		return nil, err
	}
	go w.loop()
	return w, nil
}

func (w *arpWatch) open(index int) (err error) {
	filter, err := arpWatchFilter()
	if err != nil {
		return err
	}
	proto := bigEndian16(unix.ETH_P_ARP)
	w.sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto))
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptSockFprog(w.sock, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, filter),
		unix.SetsockoptInt(w.sock, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(w.sock, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20),
		// Promiscuous, or the bridge would keep unicast frames between its ports to itself.
		unix.SetsockoptPacketMreq(w.sock, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}),
		unix.Bind(w.sock, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: index}))
	if err != nil {
		unix.Close(w.sock)
		return fmt.Errorf("set up the packet socket on %s: %w", bridgeName, err)
	}
	return nil
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

func bigEndian16(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

func (w *arpWatch) loop() {
	defer w.stop.finished()
	runtime.LockOSThread()
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for w.stop.wait(w.sock) {
		for w.receive(buf, oob) {
		}
	}
	unix.Close(w.sock)
}

func (w *arpWatch) receive(buf, oob []byte) bool {
	n, oobn, _, _, err := unix.Recvmsg(w.sock, buf, oob, 0)
	switch {
	case errors.Is(err, unix.EINTR):
		return true
	case errors.Is(err, unix.EAGAIN):
		return false
	case errors.Is(err, unix.ENETDOWN):
		return true // said once when the bridge goes down; frames come again when it is up
	case err != nil:
		w.mu.Lock()
		w.err = fmt.Errorf("read ARP frames: %w", err)
		w.mu.Unlock()
		return false
	}
	f, err := parseARP(buf[:n])
	if err != nil {
		return true
	}
	f.Time = kernelTime(oob[:oobn])
	f.Node = w.nodes[f.Source.String()]
	w.mu.Lock()
	w.frames = append(w.frames, f)
	w.mu.Unlock()
	if f.Gratuitous() && slices.Contains(w.watch, f.SenderIP) {
		w.note(Event{Time: f.Time, Source: SourceARP, Node: f.Node, What: WhatAnnounced, Detail: f.SenderIP.String() + " " + arpForm(f)})
	}
	return true
}

func arpForm(f ARPFrame) string {
	if f.Reply {
		return "reply"
	}
	return "request"
}

// kernelTime returns the time stamp of SO_TIMESTAMPNS, or now where there is none.
func kernelTime(oob []byte) time.Time {
	now := time.Now()
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return now
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			sec, nsec := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
			stamp := time.Unix(int64(sec), int64(nsec))
			return now.Add(stamp.Sub(now.Round(0))) // keeps the monotonic reading
		}
	}
	return now
}

func (w *arpWatch) snapshot() ([]ARPFrame, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.frames), w.err
}

func (w *arpWatch) close() { w.stop.stop() }
