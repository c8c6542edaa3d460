package lab

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// The prober speaks to nodes below IP, from addresses that no kernel has, so that nobody but it answers what nodes say
// to it.
const (
	hostProber = 202
	// hostAsker is the first of the addresses that ARP requests come from. An ARP reply holds nothing of its question but
	// the asker's addresses, so the address tells which question it answers.
	hostAsker = 128
	askers    = 64
	// proberMark is what the addresses of the prober and of the askers have for IPv6 where those of hosts have 0: fd77::2:0 and on.
	proberMark = 2

	etherTypeIPv4 = 0x0800
	etherTypeARP  = 0x0806
	etherTypeIPv6 = 0x86dd
	protoICMP     = 1
	protoTCP      = 6
	protoICMPv6   = 58
	etherLen      = 14
	ipv4Len       = 20
	ipv6Len       = 40
	tcpLen        = 20
	icmpLen       = 8
	hops          = 64

	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129

	tcpSYN, tcpRST, tcpACK = 0x02, 0x04, 0x10

	// probePorts is how many source ports are used in turn, from probePort on.
	probePort, probePorts = 2000, 60000
	echoID                = 0x7265

	// targetBits is how much of a question's number says whom it is for. The rest is its turn.
	targetBits = 3
	targetsMax = 1 << targetBits
)

// number returns the number of the question that a target gets in a turn.
func number(turn uint32, target int) uint32 { return turn<<targetBits | uint32(target) }

// turnOf and targetOf take a number apart. A turn has 29 bits.
func turnOf(n uint32) uint32 { return n >> targetBits }
func targetOf(n uint32) int  { return int(n % targetsMax) }

// questioner builds the prober's frames and reads the answers.
type questioner struct {
	mac  [6]byte // of the client
	vip  netip.Addr
	port uint16
}

// kindOf returns the kind of question n. The kinds take turns.
func kindOf(n uint32) AnswerKind { return AnswerKind(turnOf(n) % uint32(answerKinds)) }

// asker returns which of the askers' addresses question n comes from.
func asker(n uint32) int { return int(turnOf(n) / uint32(answerKinds) % askers) }

// frame returns question n to the interface with the hardware address dst.
func (q questioner) frame(n uint32, dst [6]byte) []byte {
	switch kindOf(n) {
	case AnswerNeighbor:
		if q.vip.Is6() {
			return q.solicit(dst, askerAddr6(asker(n)))
		}
		return q.arp(1, dst, hostAddr4(hostAsker+asker(n)), [6]byte{}, q.vip)
	case AnswerICMP:
		return q.echo(n, dst)
	default:
		return q.tcp(dst, uint16(probePort+n%probePorts), n, 0, tcpSYN)
	}
}

func (q questioner) ether(dst [6]byte, kind uint16) []byte {
	b := append(make([]byte, 0, 64), dst[:]...)
	b = append(b, q.mac[:]...)
	return binary.BigEndian.AppendUint16(b, kind)
}

// arp returns an ARP frame in unicast from sender.
func (q questioner) arp(op uint16, dst [6]byte, sender netip.Addr, targetHW [6]byte, target netip.Addr) []byte {
	b := append(q.ether(dst, etherTypeARP), 0, 1, 8, 0, 6, 4)
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, q.mac[:]...), sender.AsSlice()...)
	return append(append(b, targetHW[:]...), target.AsSlice()...)
}

// ip returns the beginning of a packet from the prober to the address that will have size bytes after its IP header.
func (q questioner) ip(dst [6]byte, proto uint8, size int) []byte {
	if q.vip.Is6() {
		return q.ipv6(dst, proberAddr6(), q.vip, proto, hops, size)
	}
	return q.ipv4(dst, proto, size)
}

// pseudo sums up the pseudo-header of what follows the IP header from at on. Both addresses end that header.
func (q questioner) pseudo(b []byte, at int, proto uint8) uint16 {
	return onesSum(uint16(proto)+uint16(len(b)-at), b[at-2*q.vip.BitLen()/8:at])
}

// ipv4 is ip for IPv4 (RFC 791).
func (q questioner) ipv4(dst [6]byte, proto uint8, size int) []byte {
	b := q.ether(dst, etherTypeIPv4)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(ipv4Len+size))
	b = append(b, 0, 0, 0x40, 0, hops, proto, 0, 0)
	b = append(append(b, hostAddr4(hostProber).AsSlice()...), q.vip.AsSlice()...)
	binary.BigEndian.PutUint16(b[etherLen+10:], ^onesSum(0, b[etherLen:]))
	return b
}

func (q questioner) echo(n uint32, dst [6]byte) []byte {
	kind, proto := byte(echoRequest4), uint8(protoICMP)
	if q.vip.Is6() {
		kind, proto = echoRequest6, protoICMPv6
	}
	b := q.ip(dst, proto, icmpLen+4)
	at := len(b)
	b = append(b, kind, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, echoID)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = binary.BigEndian.AppendUint32(b, n)
	var sum uint16
	if q.vip.Is6() { // RFC 4443, 2.3
		sum = q.pseudo(b, at, proto)
	}
	binary.BigEndian.PutUint16(b[at+2:], ^onesSum(sum, b[at:]))
	return b
}

// tcp returns a segment without data and options (RFC 9293, 3.1).
func (q questioner) tcp(dst [6]byte, port uint16, seq, ack uint32, flags uint8) []byte {
	b := q.ip(dst, protoTCP, tcpLen)
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, q.port)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = binary.BigEndian.AppendUint32(b, ack)
	b = append(b, tcpLen/4<<4, flags, 0xfa, 0xf0, 0, 0, 0, 0)
	binary.BigEndian.PutUint16(b[at+16:], ^onesSum(q.pseudo(b, at, protoTCP), b[at:]))
	return b
}

// onesSum adds words in ones' complement (RFC 1071). All that is summed here has an even length.
func onesSum(sum uint16, b []byte) uint16 {
	s := uint32(sum)
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// heard is what a frame to the prober says.
type heard struct {
	from [6]byte
	kind AnswerKind
	// number is the question's, but for ARP and neighbour discovery: there it is that of the asker's address.
	number uint32
	// opens is set if the answer was a SYN-ACK, to a question from port, which has to be taken back.
	opens bool
	port  uint16
	// asks is set if this is no answer but asks where the prober's own address, or one of the askers', is.
	asks   bool
	sender netip.Addr // who asks
	asked  netip.Addr // for which address
}

var errNoAnswer = errors.New("not an answer for the address")

// hear reads a frame.
func (q questioner) hear(b []byte) (h heard, err error) {
	if len(b) < etherLen+ipv4Len {
		return h, errNoAnswer
	}
	h.from = [6]byte(b[6:12])
	switch binary.BigEndian.Uint16(b[12:]) {
	case etherTypeARP:
		err = q.hearARP(&h, b)
	case etherTypeIPv4:
		err = q.hearIP(&h, b[etherLen:])
	case etherTypeIPv6:
		err = q.hearIPv6(&h, b)
	default:
		err = errNoAnswer
	}
	return h, err
}

func (q questioner) hearARP(h *heard, b []byte) error {
	f, err := parseARP(b)
	if err != nil {
		return err
	}
	h.kind, h.sender = AnswerNeighbor, f.SenderIP
	if !f.Reply && f.TargetIP == hostAddr4(hostProber) {
		h.asks, h.asked = true, f.TargetIP
		return nil
	}
	target := f.TargetIP.As4()
	which := int(target[3]) - hostAsker
	if !f.Reply || f.SenderIP != q.vip || which < 0 || which >= askers || hostAddr4(int(target[3])) != f.TargetIP {
		return errNoAnswer
	}
	h.number = uint32(which)
	return nil
}

func (q questioner) hearIP(h *heard, b []byte) error {
	head := int(b[0]&0xf) * 4
	fragment := binary.BigEndian.Uint16(b[6:]) & 0x3fff
	if b[0]>>4 != 4 || head < ipv4Len || len(b) < head || fragment != 0 || netip.AddrFrom4([4]byte(b[12:16])) != q.vip ||
		netip.AddrFrom4([4]byte(b[16:20])) != hostAddr4(hostProber) {
		return errNoAnswer
	}
	return q.hearPayload(h, b[9], b[head:])
}

// hearPayload reads what a packet from the address to the prober holds.
func (q questioner) hearPayload(h *heard, proto uint8, p []byte) error {
	switch echo := proto == protoICMP && !q.vip.Is6() || proto == protoICMPv6 && q.vip.Is6(); {
	case echo && len(p) >= icmpLen+4 && p[0] == q.echoReply() && binary.BigEndian.Uint16(p[4:]) == echoID:
		h.kind, h.number = AnswerICMP, binary.BigEndian.Uint32(p[8:])
	case proto == protoTCP && len(p) >= tcpLen && binary.BigEndian.Uint16(p) == q.port && p[13]&tcpACK != 0:
		h.kind, h.number = AnswerTCP, binary.BigEndian.Uint32(p[8:])-1
		h.port, h.opens = binary.BigEndian.Uint16(p[2:]), p[13]&tcpSYN != 0
	default:
		return errNoAnswer
	}
	return nil
}
