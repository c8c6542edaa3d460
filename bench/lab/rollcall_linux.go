package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
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

	caller

	// The caller's lock guards what follows.
	answered []time.Time // zero until the address has answered
	left     int
	all      chan struct{}
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
		all: make(chan struct{})}
	for _, p := range l.Served() {
		r.index[p.Addr()] = len(r.addrs)
		r.addrs = append(r.addrs, p.Addr())
		r.at = append(r.at, r.old)
	}
	r.answered, r.left = make([]time.Time, len(r.addrs)), len(r.addrs)
	filter, err := rollFilter()
	if err == nil {
		err = l.client.NS.Do(func() error { return r.open(rollEvery, filter, 16<<20) })
	}
	if err != nil {
		return nil, fmt.Errorf("ask for %d addresses: %w", len(r.addrs), err)
	}
	go r.run("ask for addresses", r.take, r.askSome)
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

// take takes what may be an answer or an announcement.
func (r *RollCall) take(frame []byte, at time.Time) error {
	if len(frame) < etherLen+ipv4Len {
		return nil
	}
	if binary.BigEndian.Uint16(frame[12:]) == etherTypeARP {
		return r.hearARP(frame)
	}
	i, known := r.index[netip.AddrFrom4([4]byte(frame[etherLen+12:]))]
	if !known {
		return nil
	}
	q := r.questioner(i)
	h, err := q.hear(frame)
	if err != nil || !h.opens {
		return nil // a reset: the server is dead, or has not been alive yet
	}
	if h.from != r.old {
		r.note(i, at)
	}
	return r.send(q.tcp(h.from, h.port, h.number+1, 0, tcpRST))
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
