package netio

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/ethernet"
	"golang.org/x/net/bpf"
)

// What a forwarder reads and changes in a frame.
const (
	ipv4Len     = 20
	offProto4   = headerLen + 9
	offSrc4     = headerLen + 12
	offDst4     = headerLen + 16
	offSrc6     = headerLen + 8
	offDst6     = headerLen + 24
	offDst6Last = offDst6 + 12
	protoTCP    = 6
	tcpLen      = 20
	tcpSumAt    = 16
)

// tcpTo returns the destination of the TCP segment in a frame, and whether the frame is one that may be forwarded: whole,
// without IPv4 fragments or IPv6 extension headers, and with hops left.
func tcpTo(frame []byte) (to netip.Addr, ok bool) {
	switch segment, _ := tcpSegment(frame); {
	case segment == nil:
		return netip.Addr{}, false
	case frame[headerLen]>>4 == 4:
		return netip.AddrFrom4([4]byte(frame[offDst4:])), true
	default:
		return netip.AddrFrom16([16]byte(frame[offDst6:])), true
	}
}

// tcpSegment returns the TCP segment in a frame and the sum over its pseudo-header (RFC 9293, 3.1), or nil.
func tcpSegment(frame []byte) (segment []byte, pseudo uint32) {
	if len(frame) < headerLen+ipv4Len {
		return nil, 0
	}
	ip := frame[headerLen:]
	switch ethernet.EtherType(binary.BigEndian.Uint16(frame[12:])) {
	case ethernet.EtherTypeIPv4:
		size, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
		fragment := binary.BigEndian.Uint16(ip[6:]) & 0x3fff // more to come, or an offset
		if ip[0]>>4 != 4 || size < ipv4Len || total < size+tcpLen || total > len(ip) || fragment != 0 || ip[8] < 2 || ip[9] != protoTCP {
			return nil, 0
		}
		return ip[size:total], sumOf(0, ip[12:20])
	case ethernet.EtherTypeIPv6:
		if len(ip) < ipv6Len {
			return nil, 0
		}
		size := int(binary.BigEndian.Uint16(ip[4:]))
		if ip[0]>>4 != 6 || size < tcpLen || ipv6Len+size > len(ip) || ip[6] != protoTCP || ip[7] < 2 {
			return nil, 0
		}
		return ip[ipv6Len : ipv6Len+size], sumOf(0, ip[8:40])
	}
	return nil, 0
}

// forward changes a frame that tcpTo has passed as a router would: from one hardware address to another, with a hop less
// (RFC 1812, 5.3.1). It reports false for a segment whose checksum is wrong. One that a machine has sent to itself, or to
// a container, has only the pseudo-header's sum in that place, because no wire needed the whole; it is completed.
func forward(frame []byte, from, to MAC) bool {
	segment, pseudo := tcpSegment(frame)
	if segment == nil {
		return false
	}
	pseudo += uint32(len(segment)) + protoTCP
	switch was := binary.BigEndian.Uint16(segment[tcpSumAt:]); {
	case fold(sumOf(pseudo, segment)) == 0xffff:
	case was == fold(pseudo):
		binary.BigEndian.PutUint16(segment[tcpSumAt:], 0)
		binary.BigEndian.PutUint16(segment[tcpSumAt:], ^fold(sumOf(pseudo, segment)))
	default:
		return false
	}
	copy(frame, to[:])
	copy(frame[6:], from[:])
	ip := frame[headerLen:]
	if ip[0]>>4 == 6 {
		ip[7]--
		return true
	}
	ip[8]--
	header := ip[:int(ip[0]&0xf)*4]
	binary.BigEndian.PutUint16(header[10:], 0)
	binary.BigEndian.PutUint16(header[10:], ^fold(sumOf(0, header)))
	return true
}

// sumOf adds the bytes to a ones' complement sum that is not folded yet (RFC 1071).
func sumOf(sum uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// forwardFilter passes TCP segments to the addresses, ARP packets from them and neighbour advertisements for them, all of
// which a forwarder looks at again.
func forwardFilter(ips []netip.Addr) ([]bpf.RawInstruction, error) {
	var v4, v6 []netip.Addr
	for _, ip := range ips {
		if ip.Is4() {
			v4 = append(v4, ip)
		} else {
			v6 = append(v6, ip)
		}
	}
	var prog []bpf.Instruction
	// only runs the instructions of part if the word at off is val, which is how a list of any length is skipped.
	only := func(off uint32, size int, val uint32, part []bpf.Instruction) []bpf.Instruction {
		return append([]bpf.Instruction{
			bpf.LoadAbsolute{Off: off, Size: size},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: val, SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(part))},
		}, part...)
	}
	prog = append(prog, only(12, 2, uint32(ethernet.EtherTypeARP), takeIfOneOf(nil, offARPSender, v4))...)
	prog = append(prog, only(12, 2, uint32(ethernet.EtherTypeIPv4), only(offProto4, 1, protoTCP, takeIfOneOf(nil, offDst4, v4)))...)
	prog = append(prog, only(12, 2, uint32(ethernet.EtherTypeIPv6), append(
		only(offNextHeader, 1, protoTCP, takeIfOneOf(nil, offDst6Last, v6)),
		only(offNextHeader, 1, icmpv6, takeIfOneOf(nil, offNDPTarget4, v6))...))...)
	return assemble(prog)
}
