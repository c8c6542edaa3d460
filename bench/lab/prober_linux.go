package lab

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ProberOptions describes a prober.
type ProberOptions struct {
	// Target is the address asked for, and the TCP port; the zero value is the first VIP at the servers' port.
	Target netip.AddrPort
	// Interval is the time between two questions to a node; zero means 1 ms. ARP, ICMP and TCP take turns.
	Interval time.Duration
	// Extra are further interfaces of nodes on the segment. The one that every node has is always asked.
	Extra []ProbedInterface
}

// ProbedInterface is an interface that a prober asks.
type ProbedInterface struct {
	Node string
	MAC  net.HardwareAddr
}

// Prober asks every node by its own hardware address, from the client's namespace, whether it answers for an address.
// Caches and tables of switches and hosts have no part in it: what a node answers, and when, is all that it sees.
type Prober struct {
	q       questioner
	targets []target
	names   map[[6]byte]string
	sock    int
	timer   int
	stop    stopper
	once    sync.Once

	next uint32 // the next turn

	mu      sync.Mutex
	answers Answers
	late    time.Duration
	err     error
}

// target is an interface that is asked.
type target struct {
	node string
	mac  [6]byte
	sent [probeRing]question
	arp  [askers]time.Time
}

// question is one that was sent.
type question struct {
	number uint32
	at     time.Time
}

// probeRing is the number of questions to one interface that an answer is taken for: 4 s of them.
const probeRing = 4096

// probeSeries is how many turns a prober has before it takes those of the next one: a quarter of an hour's. What answers a
// prober that has ended may come seconds later: questions that were kept and sent on, and answers that waited for the
// hardware address of the prober.
const probeSeries = 1 << 20

// StartProber starts a prober. It ends with the laboratory at the latest.
func (l *Lab) StartProber(opts ProberOptions) (*Prober, error) {
	if !opts.Target.IsValid() {
		opts.Target = netip.AddrPortFrom(l.VIP(), ServerPort)
	}
	if opts.Interval <= 0 {
		opts.Interval = time.Millisecond
	}
	if !opts.Target.Addr().Is4() {
		return nil, fmt.Errorf("probe %v: only IPv4 is built", opts.Target)
	}
	p := &Prober{names: map[[6]byte]string{}, sock: -1, timer: -1, next: l.series.Add(1) * probeSeries,
		q: questioner{mac: [6]byte(l.client.MAC), vip: opts.Target.Addr(), port: opts.Target.Port()}}
	for _, n := range l.nodes {
		p.add(n.Name, n.MAC)
	}
	for _, e := range opts.Extra {
		p.add(e.Node, e.MAC)
	}
	if len(p.targets) > targetsMax {
		return nil, fmt.Errorf("probe %v: %d interfaces, at most %d can be asked", opts.Target, len(p.targets), targetsMax)
	}
	if err := l.client.NS.Do(func() error { return p.open(opts.Interval) }); err != nil {
		p.closeFDs()
		return nil, fmt.Errorf("probe %v: %w", opts.Target, err)
	}
	go p.run()
	l.streamMu.Lock()
	defer l.streamMu.Unlock()
	l.probers = append(l.probers, p)
	return p, nil
}

func (p *Prober) add(node string, mac net.HardwareAddr) {
	p.names[[6]byte(mac)] = node
	p.targets = append(p.targets, target{node: node, mac: [6]byte(mac)})
}

// open makes the packet socket and the timer.
func (p *Prober) open(interval time.Duration) (err error) {
	index, err := net.InterfaceByName(Interface)
	if err != nil {
		return fmt.Errorf("find the client's interface: %w", err)
	}
	const none = 0 // no frames before the filter is there
	if p.sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, none); err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	filter, err := proberFilter()
	if err != nil {
		return err
	}
	err = errors.Join(
		unix.SetsockoptSockFprog(p.sock, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, filter),
		unix.SetsockoptInt(p.sock, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(p.sock, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20),
		unix.SetsockoptInt(p.sock, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(p.sock, &unix.SockaddrLinklayer{Protocol: bigEndian16(unix.ETH_P_ALL), Ifindex: index.Index}))
	if err != nil {
		return fmt.Errorf("set up the packet socket: %w", err)
	}
	if p.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return fmt.Errorf("make a timer: %w", err)
	}
	every := unix.NsecToTimespec(interval.Nanoseconds())
	if err := unix.TimerfdSettime(p.timer, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		return fmt.Errorf("start the timer: %w", err)
	}
	return p.stop.open()
}

// proberFilter passes what is sent to the prober's addresses.
func proberFilter() (*unix.SockFprog, error) {
	prober, pool := word(hostAddr4(hostProber)), word(hostAddr4(hostAsker))
	return assemble(
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherTypeIPv4, SkipFalse: 2},
		bpf.LoadAbsolute{Off: etherLen + 16, Size: 4}, // destination
		bpf.Jump{Skip: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherTypeARP, SkipTrue: 4},
		bpf.LoadAbsolute{Off: etherLen + 24, Size: 4}, // target
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: prober, SkipTrue: 3},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(askers - 1)},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: pool, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 0xffff},
	)
}

func word(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func assemble(prog ...bpf.Instruction) (*unix.SockFprog, error) {
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return nil, fmt.Errorf("assemble a packet filter: %w", err)
	}
	filters := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filters[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return &unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]}, nil
}

func (p *Prober) run() {
	defer p.stop.finished()
	runtime.LockOSThread() // for good: the raised priority ends with the thread
	raisePriority()
	if err := p.loop(); err != nil {
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
	}
}

func (p *Prober) loop() error {
	fds := []unix.PollFd{{Fd: int32(p.stop.fd), Events: unix.POLLIN}, {Fd: int32(p.sock), Events: unix.POLLIN},
		{Fd: int32(p.timer), Events: unix.POLLIN}}
	buf, oob := make([]byte, 2048), make([]byte, 256)
	last := time.Now()
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("probe: wait: %w", err)
		}
		if fds[0].Revents != 0 {
			return nil
		}
		for {
			more, err := p.receive(buf, oob)
			if err != nil {
				return err
			}
			if !more {
				break
			}
		}
		if n, err := unix.Read(p.timer, buf[:8]); err != nil || n != 8 {
			continue
		}
		now := time.Now()
		p.notePause(now.Sub(last))
		last = now
		if err := p.ask(); err != nil {
			return err
		}
	}
}

func (p *Prober) notePause(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late = max(p.late, d)
}

// ask puts the next question to every interface.
func (p *Prober) ask() error {
	turn := p.next
	p.next++
	for i := range p.targets {
		t, n := &p.targets[i], number(turn, i)
		frame := p.q.frame(n, t.mac)
		now := time.Now()
		t.sent[turn%probeRing] = question{n, now}
		if kindOf(n) == AnswerARP {
			t.arp[asker(n)] = now
		}
		if err := p.send(frame); err != nil {
			return err
		}
	}
	return nil
}

// send sends a frame. A full queue or a link that is down costs the question.
func (p *Prober) send(frame []byte) error {
	_, err := unix.Write(p.sock, frame)
	if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENETDOWN) {
		return fmt.Errorf("probe: send: %w", err)
	}
	return nil
}

// receive reads one frame and reports whether there may be more.
func (p *Prober) receive(buf, oob []byte) (bool, error) {
	n, oobn, _, _, err := unix.Recvmsg(p.sock, buf, oob, 0)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("probe: receive: %w", err)
	}
	h, err := p.q.hear(buf[:n])
	if err != nil {
		return true, nil // somebody else's
	}
	if h.asks {
		return true, p.send(p.q.arp(2, h.from, hostAddr4(hostProber), h.from, h.sender))
	}
	if sent, ok := p.sentAt(h); ok {
		p.mu.Lock()
		p.answers = append(p.answers, Answer{Node: p.names[h.from], Kind: h.kind, Sent: sent, Received: kernelTime(oob[:oobn]),
			Frame: bytes.Clone(buf[:n])})
		p.mu.Unlock()
	}
	if h.opens {
		return true, p.send(p.q.tcp(h.from, h.port, h.number+1, 0, tcpRST))
	}
	return true, nil
}

// sentAt returns when the question was sent that was answered. An answer to what another node was asked does not count: that
// one has sent on what it got, and perhaps kept it for some time. A node with two interfaces may be asked at one and answer
// from the other; as an ARP reply does not say where, the earlier sending counts.
func (p *Prober) sentAt(h heard) (first time.Time, ok bool) {
	name := p.names[h.from]
	if h.kind != AnswerARP {
		i := targetOf(h.number)
		if i >= len(p.targets) || p.targets[i].node != name {
			return first, false
		}
		q := p.targets[i].sent[turnOf(h.number)%probeRing]
		return q.at, q.number == h.number && !q.at.IsZero()
	}
	for i := range p.targets {
		t := &p.targets[i]
		if at := t.arp[h.number%askers]; t.node == name && !at.IsZero() && (!ok || at.Before(first)) {
			first, ok = at, true
		}
	}
	return first, ok
}

// Answers returns the answers so far.
func (p *Prober) Answers() (Answers, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.answers), p.err
}

// Pause returns the longest time between two rounds of questions, in which nobody was asked.
func (p *Prober) Pause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.late
}

// Stop ends the prober. It may be called again.
func (p *Prober) Stop() {
	p.once.Do(func() {
		p.stop.stop()
		p.closeFDs()
	})
}

func (p *Prober) closeFDs() {
	for _, fd := range []int{p.sock, p.timer} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
