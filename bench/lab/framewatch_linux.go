package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// frameWatch reads frames of one protocol on the bridge itself, so a frame that a fault dropped is not seen, as by everybody
// else.
type frameWatch struct {
	what   string // it reads
	sock   int
	stop   stopper
	handle func(frame []byte, at time.Time)

	mu  sync.Mutex
	err error
}

// start begins to read what passes the filter. take must not keep the frame.
func (w *frameWatch) start(sw *Namespace, what string, protocol uint16, filter *unix.SockFprog, take func([]byte, time.Time)) error {
	w.what, w.handle = what, take
	index, err := linkIndex(sw, bridgeName)
	if err != nil {
		return err
	}
	if err := sw.Do(func() error { return w.open(index, bigEndian16(protocol), filter) }); err != nil {
		return fmt.Errorf("watch %s: %w", what, err)
	}
	if err := w.stop.open(); err != nil {
		unix.Close(w.sock)
		return err
	}
	go w.loop()
	return nil
}

func (w *frameWatch) open(index int, protocol uint16, filter *unix.SockFprog) (err error) {
	w.sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(protocol))
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
		unix.Bind(w.sock, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: index}))
	if err != nil {
		unix.Close(w.sock)
		return fmt.Errorf("set up the packet socket on %s: %w", bridgeName, err)
	}
	return nil
}

func (w *frameWatch) loop() {
	defer w.stop.finished()
	runtime.LockOSThread()
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for w.stop.wait(w.sock) {
		for w.receive(buf, oob) {
		}
	}
	unix.Close(w.sock)
}

// receive reads one frame and reports whether there may be more.
func (w *frameWatch) receive(buf, oob []byte) bool {
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
		w.err = fmt.Errorf("read %s: %w", w.what, err)
		w.mu.Unlock()
		return false
	}
	w.handle(buf[:n], kernelTime(oob[:oobn]))
	return true
}

func (w *frameWatch) close() { w.stop.stop() }

func bigEndian16(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
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
			return wall.when(now, time.Unix(int64(sec), int64(nsec)))
		}
	}
	return now
}

// nodesByMAC returns the names of hosts by their hardware addresses.
func nodesByMAC(hosts []*Host) map[string]string {
	nodes := map[string]string{}
	for _, h := range hosts {
		nodes[h.MAC.String()] = h.Name
	}
	return nodes
}

func addressesOf(ps []netip.Prefix) (as []netip.Addr) {
	for _, p := range ps {
		as = append(as, p.Addr())
	}
	return as
}
