package netio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/ethernet"
	"golang.org/x/sys/unix"
)

// answer is a frame in the name of an address that arrived at the peer's end, with the kernel's time of arrival.
type answer struct {
	kind string // one of kinds4 or kinds6
	from netip.Addr
	at   time.Time
}

var (
	kinds4 = []string{"arp", "icmp", "tcp"}
	kinds6 = []string{"icmp6", "nd", "tcp6"}
)

// asker asks a node whether it answers for an address, from the peer's end of a wire and by the node's own MAC, so that
// the question gets there whatever the neighbour caches say.
type asker struct {
	tb         testing.TB
	fd         int
	node, peer MAC
	own        []netip.Addr // the peer's own addresses
	port       uint16
	mu         sync.Mutex
	answers    []answer
	ended      chan struct{}
}

// newAsker lets p0 on the peer's end of w ask under its addresses.
func newAsker(tb testing.TB, w *wire, own ...string) *asker {
	tb.Helper()
	a := &asker{tb: tb, node: w.link().MAC, peer: w.peerLink().MAC, ended: make(chan struct{})}
	for _, s := range own {
		p := netip.MustParsePrefix(s)
		a.own = append(a.own, p.Addr())
		w.giveToPeer(s)
	}
	must(tb, w.inPeer(func() (err error) {
		a.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		l, err := findLink("p0")
		if err != nil {
			return err
		}
		return errors.Join(
			unix.Bind(a.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: int(l.Index)}),
			unix.SetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.SetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.SetsockoptTimeval(a.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20000}))
	}))
	stop := make(chan struct{})
	go a.listen(stop)
	tb.Cleanup(func() {
		close(stop)
		<-a.ended
		must(tb, unix.Close(a.fd))
	})
	return a
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }

func (a *asker) listen(stop chan struct{}) {
	defer close(a.ended)
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, oobn, _, _, err := unix.Recvmsg(a.fd, buf, oob, 0)
		if err != nil {
			continue // the time-out, to look at stop
		}
		if ans, ok := a.parse(buf[:n]); ok {
			ans.at = arrival(oob[:oobn])
			a.mu.Lock()
			a.answers = append(a.answers, ans)
			a.mu.Unlock()
		}
	}
}

// arrival reads the kernel's time stamp.
func arrival(oob []byte) time.Time {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		panic(err)
	}
	for _, m := range msgs {
		if m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	panic("frame without a time stamp")
}

// parse finds out what the node says in whose name.
func (a *asker) parse(f []byte) (ans answer, ok bool) {
	if len(f) < headerLen || MAC(f[6:12]) != a.node {
		return ans, false
	}
	if p, err := ParseARP(f); err == nil {
		return answer{kind: "arp", from: p.SenderIP}, true
	}
	if m, err := ParseNDP(f); err == nil && m.Type == NeighborAdvertisement {
		return answer{kind: "nd", from: m.Target}, true
	}
	b := f[headerLen:]
	switch ethernet.EtherType(binary.BigEndian.Uint16(f[12:])) {
	case ethernet.EtherTypeIPv4:
		kind, known := map[byte]string{unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_TCP: "tcp"}[b[9]]
		return answer{kind: kind, from: netip.AddrFrom4([4]byte(b[12:16]))}, known
	case ethernet.EtherTypeIPv6:
		kind, known := map[byte]string{unix.IPPROTO_TCP: "tcp6"}[b[6]]
		if b[6] == icmpv6 && b[ipv6Len] == 129 {
			kind, known = "icmp6", true
		}
		return answer{kind: kind, from: netip.AddrFrom16([16]byte(b[8:24]))}, known
	}
	return ans, false
}

// ask sends a question of every kind.
func (a *asker) ask(ip netip.Addr) {
	for _, f := range a.questions(ip) {
		if _, err := unix.Write(a.fd, f); err != nil {
			a.tb.Error(err)
		}
	}
}

func (a *asker) questions(ip netip.Addr) [][]byte {
	a.port++
	own := a.own[slices.IndexFunc(a.own, func(o netip.Addr) bool { return o.Is4() == ip.Is4() })]
	syn := binary.BigEndian.AppendUint16(nil, 20000+a.port%30000)
	syn = binary.BigEndian.AppendUint16(syn, 9)
	syn = append(syn, 0, 0, 0, byte(a.port), 0, 0, 0, 0, 5<<4, 2, 4, 0, 0, 0, 0, 0)
	if ip.Is4() {
		who := ARP{Operation: ARPRequest, SenderMAC: a.peer, SenderIP: own, TargetIP: ip}
		return [][]byte{
			who.AppendFrame(nil),
			a.packet(own, ip, unix.IPPROTO_ICMP, []byte{8, 0, 0, 0, 1, 2, 3, 4}, 2),
			a.packet(own, ip, unix.IPPROTO_TCP, syn, 16),
		}
	}
	return [][]byte{
		ProbeNS(a.peer, ip).AppendFrame(nil),
		a.packet(own, ip, icmpv6, []byte{128, 0, 0, 0, 1, 2, 3, 4}, 2),
		a.packet(own, ip, unix.IPPROTO_TCP, syn, 16),
	}
}

// packet makes a frame to the node, with the checksum of the upper layer at sum.
func (a *asker) packet(src, dst netip.Addr, proto byte, msg []byte, sum int) []byte {
	pseudo := slices.Concat(src.AsSlice(), dst.AsSlice(), []byte{0, proto, 0, byte(len(msg))}, msg)
	if proto == unix.IPPROTO_ICMP {
		pseudo = msg
	}
	msg = slices.Clone(msg)
	binary.BigEndian.PutUint16(msg[sum:], internetChecksum(pseudo))
	if dst.Is6() {
		b := appendHeader(nil, a.node, a.peer, ethernet.EtherTypeIPv6)
		b = append(b, ipv6VersionClass, 0, 0, 0, 0, byte(len(msg)), proto, 64)
		return slices.Concat(b, src.AsSlice(), dst.AsSlice(), msg)
	}
	ip := slices.Concat([]byte{0x45, 0, 0, byte(20 + len(msg)), 0, 0, 0, 0, 64, proto, 0, 0}, src.AsSlice(), dst.AsSlice())
	binary.BigEndian.PutUint16(ip[10:], internetChecksum(ip))
	return slices.Concat(appendHeader(nil, a.node, a.peer, ethernet.EtherTypeIPv4), ip, msg)
}

func internetChecksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// heard returns the answers so far.
func (a *asker) heard() []answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.answers)
}

func (a *asker) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers = nil
}

// kinds returns the kinds of answers in the name of ip so far, sorted.
func (a *asker) kinds(ip netip.Addr) []string {
	var ks []string
	for _, ans := range a.heard() {
		if ans.from == ip && !slices.Contains(ks, ans.kind) {
			ks = append(ks, ans.kind)
		}
	}
	slices.Sort(ks)
	return ks
}

// expect asks for ip until the node answers in every way, or in the given ones.
func (a *asker) expect(ip netip.Addr, kinds ...string) {
	a.tb.Helper()
	a.forget()
	a.hear(ip, kinds)
}

func (a *asker) hear(ip netip.Addr, kinds []string) {
	a.tb.Helper()
	if kinds == nil {
		kinds = kindsOf(ip)
	}
	poll(a.tb, fmt.Sprintf("%v answers %v", ip, kinds), func() bool {
		a.ask(ip)
		return hasAll(a.kinds(ip), kinds)
	})
}

func kindsOf(ip netip.Addr) []string {
	if ip.Is4() {
		return kinds4
	}
	return kinds6
}

// silent asks for ip, and then for open, which is not guarded, until that one has answered in every way, or in the given
// ones. The node takes questions in their order, so ip would have been heard by then.
func (a *asker) silent(ip, open netip.Addr, kinds ...string) {
	a.tb.Helper()
	a.expect(open, kinds...) // earlier answers may have waited for the peer's hardware address
	a.forget()
	a.ask(ip)
	a.hear(open, kinds)
	if ks := a.kinds(ip); len(ks) > 0 {
		a.tb.Errorf("%v answers %v although it is closed", ip, ks)
	}
}

func hasAll(have, want []string) bool {
	return !slices.ContainsFunc(want, func(k string) bool { return !slices.Contains(have, k) })
}
