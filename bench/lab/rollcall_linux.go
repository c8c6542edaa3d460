package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// RollCall asks from the client's namespace, with SYNs to the servers' port, for many addresses until each is answered by
// another node than the one that held them when it began. It is a client with a neighbour cache of its own, for the
// kernel's is one for all namespaces and holds a thousand entries: a question goes to the hardware address that was
// announced last. An address is asked when it is announced, and all that have not answered are asked in turn.
type RollCall struct {
	mac   [6]byte // of the client
	old   [6]byte
	addrs []netip.Addr
	index map[netip.Addr]int
	at    [][6]byte // where each address is, by the last announcement
	next  int       // whom to ask next
	asked uint32

	sock, timer int
	stop        stopper
	once        sync.Once

	mu       sync.Mutex
	answered []time.Time // zero until the address has answered
	left     int
	all      chan struct{}
	err      error
}

const (
	// rollEvery is the time between two rounds of questions, of rollAtOnce addresses each. More would cost the cores of those
	// that are observed; an address that is announced is asked at once in any case.
	rollEvery  = time.Millisecond
	rollAtOnce = 8
)

// StartRollCall waits until the node holds all addresses that the laboratory serves, and begins to ask for them. It must
// not run beside a [Prober]: both speak from the same address.
func (l *Lab) StartRollCall(ctx context.Context, holder string) (*RollCall, error) {
	if err := l.Node(holder).waitBound(ctx, l.Served()); err != nil {
		return nil, err
	}
	r := &RollCall{mac: [6]byte(l.client.MAC), old: [6]byte(l.Node(holder).MAC), index: map[netip.Addr]int{},
		sock: -1, timer: -1, all: make(chan struct{})}
	for _, p := range l.Served() {
		r.index[p.Addr()] = len(r.addrs)
		r.addrs = append(r.addrs, p.Addr())
		r.at = append(r.at, r.old)
	}
	r.answered, r.left = make([]time.Time, len(r.addrs)), len(r.addrs)
	if err := l.client.NS.Do(r.open); err != nil {
		r.closeFDs()
		return nil, fmt.Errorf("ask for %d addresses: %w", len(r.addrs), err)
	}
	go r.run()
	return r, nil
}

// waitBound waits until the kernel of the node has all of these addresses.
func (n *Node) waitBound(ctx context.Context, ps []netip.Prefix) error {
	var missing int
	err := poll(ctx, 20*time.Millisecond, func() (bool, error) {
		out, err := n.NS.Command(ctx, "ip", "-o", "addr", "show", "dev", Interface)
		missing = 0
		for _, p := range ps {
			if !strings.Contains(string(out), " "+p.Addr().String()+"/") {
				missing++
			}
		}
		return missing == 0, err
	})
	if err != nil {
		return fmt.Errorf("wait until %s has %d addresses, of which %d are missing: %w", n.Name, len(ps), missing, err)
	}
	return nil
}

func (r *RollCall) open() error {
	index, err := net.InterfaceByName(Interface)
	if err != nil {
		return fmt.Errorf("find the client's interface: %w", err)
	}
	const none = 0 // no frames before the filter is there
	if r.sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, none); err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	filter, err := rollFilter()
	if err != nil {
		return err
	}
	err = errors.Join(
		unix.SetsockoptSockFprog(r.sock, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, filter),
		unix.SetsockoptInt(r.sock, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(r.sock, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		unix.SetsockoptInt(r.sock, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(r.sock, &unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_ALL), Ifindex: index.Index}))
	if err != nil {
		return fmt.Errorf("set up the packet socket: %w", err)
	}
	if r.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return fmt.Errorf("make a timer: %w", err)
	}
	every := unix.NsecToTimespec(rollEvery.Nanoseconds())
	if err := unix.TimerfdSettime(r.timer, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		return fmt.Errorf("start the timer: %w", err)
	}
	return r.stop.open()
}

// rollFilter passes IPv4 packets to the prober's address, and ARP.
func rollFilter() (*unix.SockFprog, error) {
	return assemble(
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherTypeARP, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherTypeIPv4, SkipTrue: 3},
		bpf.LoadAbsolute{Off: etherLen + 16, Size: 4}, // destination
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: word(hostAddr4(hostProber)), SkipTrue: 1},
		bpf.RetConstant{Val: 0xffff},
		bpf.RetConstant{Val: 0},
	)
}

func (r *RollCall) run() {
	defer r.stop.finished()
	runtime.LockOSThread() // for good: the raised priority ends with the thread
	raisePriority()
	if err := r.loop(); err != nil {
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
	}
}

func (r *RollCall) loop() error {
	fds := []unix.PollFd{{Fd: int32(r.stop.fd), Events: unix.POLLIN}, {Fd: int32(r.sock), Events: unix.POLLIN},
		{Fd: int32(r.timer), Events: unix.POLLIN}}
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("ask for addresses: wait: %w", err)
		}
		if fds[0].Revents != 0 {
			return nil
		}
		for more := true; more; {
			var err error
			if more, err = r.receive(buf, oob); err != nil {
				return err
			}
		}
		if n, err := unix.Read(r.timer, buf[:8]); err != nil || n != 8 {
			continue
		}
		if err := r.askSome(); err != nil {
			return err
		}
	}
}

// askSome asks for the next addresses that have not answered.
func (r *RollCall) askSome() error {
	asked := 0
	for range r.addrs {
		i := r.next
		r.next = (r.next + 1) % len(r.addrs)
		if !r.answered[i].IsZero() {
			continue
		}
		if err := r.ask(i); err != nil {
			return err
		}
		if asked++; asked == rollAtOnce {
			break
		}
	}
	return nil
}

func (r *RollCall) questioner(i int) questioner {
	return questioner{mac: r.mac, vip: r.addrs[i], port: ServerPort}
}

func (r *RollCall) ask(i int) error {
	r.asked++
	return r.send(r.questioner(i).tcp(r.at[i], uint16(probePort+r.asked%probePorts), r.asked, 0, tcpSYN))
}

// send sends a frame. A full queue or a link that is down costs the question.
func (r *RollCall) send(frame []byte) error {
	_, err := unix.Write(r.sock, frame)
	if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENETDOWN) {
		return fmt.Errorf("ask for addresses: send: %w", err)
	}
	return nil
}

// receive reads one frame and reports whether there may be more.
func (r *RollCall) receive(buf, oob []byte) (bool, error) {
	n, oobn, _, _, err := unix.Recvmsg(r.sock, buf, oob, 0)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("ask for addresses: receive: %w", err)
	case n < etherLen+ipv4Len:
		return true, nil
	}
	if binary.BigEndian.Uint16(buf[12:]) == etherTypeARP {
		return true, r.hearARP(buf[:n])
	}
	i, known := r.index[netip.AddrFrom4([4]byte(buf[etherLen+12:]))]
	if !known {
		return true, nil
	}
	q := r.questioner(i)
	h, err := q.hear(buf[:n])
	if err != nil || !h.opens {
		return true, nil // a reset: the server is dead, or has not been alive yet
	}
	if h.from != r.old {
		r.note(i, kernelTime(oob[:oobn]))
	}
	return true, r.send(q.tcp(h.from, h.port, h.number+1, 0, tcpRST))
}

// hearARP learns from an announcement and asks at once, and answers who wants to answer.
func (r *RollCall) hearARP(frame []byte) error {
	f, err := parseARP(frame)
	if err != nil {
		return nil
	}
	if !f.Reply && f.TargetIP == hostAddr4(hostProber) {
		from := [6]byte(f.Source)
		return r.send(questioner{mac: r.mac}.arp(2, from, hostAddr4(hostProber), from, f.SenderIP))
	}
	i, known := r.index[f.SenderIP]
	if !known || !f.Gratuitous() {
		return nil
	}
	r.at[i] = [6]byte(f.Source)
	if r.at[i] == r.old || !r.answered[i].IsZero() {
		return nil
	}
	return r.ask(i)
}

func (r *RollCall) note(i int, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.answered[i].IsZero() {
		return
	}
	r.answered[i] = at
	if r.left--; r.left == 0 {
		close(r.all)
	}
}

// All is closed when every address has answered.
func (r *RollCall) All() <-chan struct{} { return r.all }

// Answered returns how many addresses have been answered by another node, and when the last of them was for the first
// time, by the kernel's time stamp.
func (r *RollCall) Answered() (n int, last time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.answered {
		last = later(last, at)
	}
	return len(r.addrs) - r.left, last, r.err
}

// Stop ends it. It may be called again.
func (r *RollCall) Stop() {
	r.once.Do(func() {
		r.stop.stop()
		r.closeFDs()
	})
}

func (r *RollCall) closeFDs() {
	for _, fd := range []int{r.sock, r.timer} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
