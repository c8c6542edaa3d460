package lab

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ProberOptions describes a prober.
type ProberOptions struct {
	// Target is the address asked for, and the TCP port; the zero value is the first VIP at the servers' port.
	Target netip.AddrPort
	// Interval is the time between two questions to a node; zero means 1 ms. ARP, or neighbour discovery, ICMP and TCP take
	// turns.
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
	caller

	next  uint32    // the next turn
	asked time.Time // when the last one was

	// The caller's lock guards what follows.
	answers Answers
	late    time.Duration
}

// target is an interface that is asked.
type target struct {
	node string
	mac  [6]byte
	sent [probeRing]question
	asks [askers]time.Time // when it was asked last from each of the askers' addresses
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
	p := &Prober{names: map[[6]byte]string{}, next: l.series.Add(1) * probeSeries,
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
	filter, err := proberFilter(opts.Target.Addr())
	if err == nil {
		err = l.client.NS.Do(func() error { return p.open(opts.Interval, filter, 4<<20) })
	}
	if err != nil {
		return nil, fmt.Errorf("probe %v: %w", opts.Target, err)
	}
	p.asked = time.Now()
	go p.run("probe", p.take, p.turn)
	l.streamMu.Lock()
	defer l.streamMu.Unlock()
	l.probers = append(l.probers, p)
	return p, nil
}

func (p *Prober) add(node string, mac net.HardwareAddr) {
	p.names[[6]byte(mac)] = node
	p.targets = append(p.targets, target{node: node, mac: [6]byte(mac)})
}

// Addr returns the address that the prober asks for.
func (p *Prober) Addr() netip.Addr { return p.q.vip }

// proberFilter passes what is sent to the prober's addresses of the family of vip.
func proberFilter(vip netip.Addr) (*unix.SockFprog, error) {
	if vip.Is6() {
		return proberFilter6()
	}
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

// proberFilter6 looks at two bytes of the destination that no other address of a laboratory has there, nor the group in which
// its holder is asked for (RFC 4291, 2.7.1).
func proberFilter6() (*unix.SockFprog, error) {
	return assemble(
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherTypeIPv6, SkipTrue: 3},
		bpf.LoadAbsolute{Off: etherLen + 36, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: proberMark, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0xff00 | proberMark, SkipTrue: 1},
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

// turn notes how long nobody was asked, and asks.
func (p *Prober) turn() error {
	now := time.Now()
	p.notePause(now.Sub(p.asked))
	p.asked = now
	return p.ask()
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
		if kindOf(n) == AnswerNeighbor {
			t.asks[asker(n)] = now
		}
		if err := p.send(frame); err != nil {
			return err
		}
	}
	return nil
}

// take takes what may be an answer.
func (p *Prober) take(frame []byte, at time.Time) error {
	h, err := p.q.hear(frame)
	if err != nil {
		return nil // somebody else's
	}
	if h.asks {
		return p.send(p.q.own(h))
	}
	if sent, ok := p.sentAt(h); ok {
		p.mu.Lock()
		p.answers = append(p.answers, Answer{Node: p.names[h.from], Kind: h.kind, Sent: sent, Received: at, Frame: bytes.Clone(frame)})
		p.mu.Unlock()
	}
	if h.opens {
		return p.send(p.q.tcp(h.from, h.port, h.number+1, 0, tcpRST))
	}
	return nil
}

// sentAt returns when the question was sent that was answered. An answer to what another node was asked does not count: that
// one has sent on what it got, and perhaps kept it for some time. A node with two interfaces may be asked at one and answer
// from the other; as the answer of a neighbour does not say where, the earlier sending counts.
func (p *Prober) sentAt(h heard) (first time.Time, ok bool) {
	name := p.names[h.from]
	if h.kind != AnswerNeighbor {
		i := targetOf(h.number)
		if i >= len(p.targets) || p.targets[i].node != name {
			return first, false
		}
		q := p.targets[i].sent[turnOf(h.number)%probeRing]
		return q.at, q.number == h.number && !q.at.IsZero()
	}
	for i := range p.targets {
		t := &p.targets[i]
		if at := t.asks[h.number%askers]; t.node == name && !at.IsZero() && (!ok || at.Before(first)) {
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
